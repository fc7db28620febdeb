//! Puts the triggers into the app's file, compares what stands there, and takes them out.
//!
//! Everything here runs inside a write transaction of the caller, so the app sees all of it or
//! nothing. It touches no trigger but those named `tidewater_<kind>_<table>`. It fails with the file's
//! own errors, and refuses to leave behind a trigger with which a write of the app would fail.

use super::ledger;
use super::nesting::nested;
#[cfg(test)]
use super::triggers;
use super::triggers::{TAGS, Trigger, key_columns, log_columns, trigger_sql};
use crate::error::{Code, Error, Result};
use crate::model::Table;
use crate::sqlite::fault::OrFault;
use crate::sqlite::quote::{ident, literal};
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};

/// What [`install`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Installed {
    /// Tables whose triggers were absent or different: what was written to them before is unknown.
    pub changed: Vec<String>,
}

/// A trigger of ours as it stands in the file: its table and its text.
type Present = BTreeMap<String, (String, String)>;

/// The triggers that tracking `tables` takes in this file.
pub fn wanted(conn: &Connection, tables: &[Table]) -> Result<Vec<Trigger>> {
    let nested = nested(conn, tables)?;
    Ok(tables
        .iter()
        .flat_map(|t| trigger_sql(t, nested.contains(&t.name)))
        .collect())
}

/// Makes the file's triggers exactly those of `tables`, and the key log wide enough for their keys.
pub fn install(tx: &Connection, tables: &[Table]) -> Result<Installed> {
    widen(tx, tables.iter().map(|t| t.key.len()).max().unwrap_or(1))?;
    let have = present(tx)?;
    let want = wanted(tx, tables)?;
    let right: BTreeSet<&str> = want
        .iter()
        .filter(|t| stands(&have, t))
        .map(|t| t.name.as_str())
        .collect();
    let writable = |name: &str| {
        let mut of = tables.iter().filter(|t| t.name == name).flat_map(writes);
        of.all(|sql| tx.prepare(&sql).is_ok())
    };
    // Drops come first: a stale name may differ from a wanted one by its case only.
    for name in have.keys().filter(|n| !right.contains(n.as_str())) {
        drop_trigger(tx, name)?;
    }
    let mut changed: BTreeMap<&str, bool> = BTreeMap::new();
    for t in want.iter().filter(|t| !right.contains(t.name.as_str())) {
        changed
            .entry(&t.table)
            .or_insert_with(|| writable(&t.table));
        tx.execute_batch(&t.sql)
            .or_fault("installing the capture triggers")?;
    }
    for (table, was_writable) in &changed {
        if *was_writable && !writable(table) {
            return Err(Error::new(
                Code::CannotTrack,
                "the capture triggers would make the app's own writes fail; nothing was changed",
                "exclude the table under [local] exclude, and report its CREATE statements",
            )
            .on_table(*table));
        }
    }
    Ok(Installed {
        changed: named(tables, |t| changed.contains_key(t)),
    })
}

/// The tables whose triggers are not exactly as they should be. A reader's transaction is enough.
pub fn verify(conn: &Connection, tables: &[Table]) -> Result<Vec<String>> {
    let have = present(conn)?;
    let wrong: BTreeSet<String> = wanted(conn, tables)?
        .into_iter()
        .filter(|t| !stands(&have, t))
        .map(|t| t.table)
        .collect();
    Ok(named(tables, |t| wrong.contains(t)))
}

/// Drops every trigger of ours.
pub fn remove(tx: &Connection) -> Result<()> {
    present(tx)?
        .keys()
        .try_for_each(|name| drop_trigger(tx, name))
}

/// Records every row that stands in `table` now, with op B and at 0; returns how many.
pub fn snapshot_rows(tx: &Connection, table: &Table) -> Result<u64> {
    let sql = format!(
        "insert into tidewater_log (tbl, op, at, {}) select {}, 'B', 0, {} from {} as e",
        log_columns(table.key.len(), ""),
        literal(&table.name),
        key_columns(table, "e"),
        ident(&table.name)
    );
    let rows = tx
        .execute(&sql, [])
        .or_fault("recording the rows that stand in the table")?;
    Ok(u64::try_from(rows).unwrap_or(u64::MAX))
}

/// Forgets the candidates that statements left behind; returns how many.
///
/// Only in a write transaction of the service, before it writes rows of the app: while the service
/// holds the lock no statement of the app is under way that could still evict one of them.
pub fn prune_candidates(tx: &Connection) -> Result<u64> {
    let rows = tx
        .execute("delete from tidewater_candidate", [])
        .or_fault("pruning eviction candidates")?;
    Ok(u64::try_from(rows).unwrap_or(u64::MAX))
}

/// Statements that the app may run; only prepared, never run.
fn writes(table: &Table) -> Vec<String> {
    let t = ident(&table.name);
    let mut out = vec![
        format!("insert into {t} default values"),
        format!("delete from {t}"),
    ];
    out.extend(
        table
            .key
            .iter()
            .map(|k| ident(k))
            .map(|k| format!("update {t} set {k} = {k}")),
    );
    out
}

/// Why the app's own triggers on a table cannot run here, where they call what only the app has.
pub fn unrunnable(conn: &Connection, table: &Table) -> Option<String> {
    let t = ident(&table.name);
    let all = table.columns.iter().filter(|c| !c.generated);
    let all: Vec<String> = all.map(|c| format!("{0} = {0}", ident(&c.name))).collect();
    let mut statements = writes(table);
    statements.push(format!("update {t} set {}", all.join(", ")));
    statements
        .iter()
        .filter(|_| table.has_app_triggers)
        .find_map(|sql| match conn.prepare(sql) {
            Err(rusqlite::Error::SqliteFailure(_, Some(why))) => Some(why),
            Err(rusqlite::Error::SqlInputError { msg, .. }) => Some(msg),
            _ => None,
        })
}

fn named(tables: &[Table], keep: impl Fn(&str) -> bool) -> Vec<String> {
    tables
        .iter()
        .filter(|t| keep(&t.name))
        .map(|t| t.name.clone())
        .collect()
}

fn drop_trigger(tx: &Connection, name: &str) -> Result<()> {
    tx.execute_batch(&format!("drop trigger {}", ident(name)))
        .or_fault("removing a capture trigger")
}

/// SQLite keeps the statement from the name on, behind keywords of its own writing.
fn stands(have: &Present, want: &Trigger) -> bool {
    let text = |sql: &str| sql.get("create trigger ".len()..).map(str::to_owned);
    have.get(&want.name)
        .is_some_and(|(table, sql)| *table == want.table && text(sql) == text(&want.sql))
}

fn present(conn: &Connection) -> Result<Present> {
    let what = "reading the capture triggers";
    let mut statement = conn
        .prepare_cached(
            "select name, tbl_name, sql from sqlite_schema where type = 'trigger' and name >= 'tidewater_' and name < 'tidewater`'",
        )
        .or_fault(what)?;
    statement
        .query_map([], |r| {
            Ok((
                r.get::<_, String>(0)?,
                (r.get::<_, String>(1)?, r.get::<_, String>(2)?),
            ))
        })
        .or_fault(what)?
        .filter(|row| row.as_ref().map_or(true, |(name, _)| is_ours(name)))
        .collect::<rusqlite::Result<Present>>()
        .or_fault(what)
}

/// Whether a trigger's name is one that capture gives.
pub(in crate::sqlite) fn is_ours(name: &str) -> bool {
    name.strip_prefix("tidewater_").is_some_and(|rest| {
        TAGS.iter()
            .any(|tag| rest.strip_prefix(tag).is_some_and(|r| r.starts_with('_')))
    })
}

/// Adds the columns k2.. that the widest key needs.
fn widen(tx: &Connection, width: usize) -> Result<()> {
    let what = "widening the key log";
    for table in ["tidewater_log", "tidewater_candidate", "tidewater_ledger"] {
        let have: BTreeSet<String> = tx
            .prepare(&format!("select * from {table}"))
            .or_fault(what)?
            .column_names()
            .map(str::to_owned)
            .collect();
        for column in (1..=width)
            .map(|i| format!("k{i}"))
            .filter(|c| !have.contains(c))
        {
            tx.execute_batch(&format!("alter table {table} add column {column}"))
                .or_fault(what)?;
        }
    }
    ledger::index(tx, width)
}

#[cfg(test)]
pub(super) fn install_as(tx: &Connection, table: &Table, how: triggers::Candidates) {
    widen(tx, table.key.len()).unwrap();
    for t in triggers::build(table, how) {
        tx.execute_batch(&t.sql).unwrap();
    }
}
