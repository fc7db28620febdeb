//! The ledger: which keys a table has, where a REPLACE may evict rows that no trigger can name.
//!
//! Such a table is one with a unique index on an expression or on a generated column ([`unseen`]), or one
//! whose rows a BEFORE trigger of the app's own may write in the middle of an UPDATE of them. Only the
//! service writes the ledger, in the transactions in which it claims and applies, so the app's writes cost
//! nothing more. Invariant: once all keys of the key log have been looked at, every key of the table stands
//! in its ledger; so both count the same, or the ledger holds keys of rows that were evicted unseen, and an
//! anti-join names them. An eviction takes an insert or an update of the same table, which is logged: a
//! table of which nothing was logged is not counted.
//!
//! What it costs, at a claim that met such a table: one look-up for each key and one count, which reads the
//! table's smallest index (10 ms for a million rows); only where rows did go, the anti-join (0.4 s for a
//! million). Fails with the file's own errors.

use super::nesting;
use super::triggers::{exact, key_columns, log_columns, unseen};
use crate::error::Result;
use crate::model::{Key, Table};
use crate::sqlite::app_row;
use crate::sqlite::fault::OrFault;
use crate::sqlite::heal_log;
use crate::sqlite::local::{Known, load_tables};
use crate::sqlite::quote::{ident, literal};
use crate::sqlite::state;
use crate::sqlite::status_view::has_integer_key;
use crate::sqlite::value;
use rusqlite::{Connection, ToSql, params};
use std::collections::{BTreeMap, BTreeSet, HashSet};

const WHAT: &str = "looking for rows that REPLACE evicted";

/// The tables that have a ledger, as a JSON list.
const KEPT: &str = "ledger_tables";

/// Before the name of a table: how many keys its ledger holds. Counting them would take longer than counting
/// the table.
const ENTERED: &str = "ledger_keys ";

/// 1 while a claim has left a part of the log, so that a table's evictions may be older than what is left.
const BEHIND: &str = "ledger_behind";

/// The names among `tables` that take a ledger, each with the reason.
pub fn wanted(conn: &Connection, tables: &[Table]) -> Result<BTreeMap<String, String>> {
    let amid = nesting::written_before_update(conn, tables)?;
    Ok(tables
        .iter()
        .filter_map(|t| {
            let by_index = unseen(t)
                .first()
                .map(|(index, on)| format!("its unique index \"{index}\" is on {on}"));
            let by_trigger = || {
                amid.contains(&t.name)
                    .then(|| "a BEFORE UPDATE trigger of the app writes it".to_owned())
            };
            Some((t.name.clone(), by_index.or_else(by_trigger)?))
        })
        .collect())
}

/// The tables that have one.
pub fn kept(conn: &Connection) -> Result<BTreeSet<String>> {
    Ok(state::get(conn, KEPT)?
        .and_then(|list| serde_json::from_str(&list).ok())
        .unwrap_or_default())
}

/// Whether a tracked table takes a ledger and has none: capture is to be installed again.
pub fn is_due(conn: &Connection) -> Result<bool> {
    let tables: Vec<Table> = load_tables(conn)?.into_iter().map(|k| k.table).collect();
    let kept = kept(conn)?;
    Ok(wanted(conn, &tables)?.keys().any(|t| !kept.contains(t)))
}

/// Begins and ends ledgers, as `tables` take them; `before` are the tables as they were tracked so far,
/// `changed` those whose triggers were absent or different. Returns the tables that were written to
/// without a ledger that they should have had.
pub fn arrange(
    tx: &Connection,
    tables: &[Table],
    before: &[Known],
    changed: &[String],
) -> Result<Vec<String>> {
    let wanted = wanted(tx, tables)?;
    let kept = kept(tx)?;
    if wanted.is_empty() && kept.is_empty() {
        return Ok(Vec::new());
    }
    for name in kept.iter().filter(|n| !wanted.contains_key(*n)) {
        forget(tx, name)?;
    }
    let mut late = Vec::new();
    for t in tables.iter().filter(|t| wanted.contains_key(&t.name)) {
        let known = before.iter().find(|k| k.table.name == t.name);
        let bare = changed.contains(&t.name);
        let same_key = known.is_some_and(|k| k.table.key == t.key);
        if same_key && !bare && kept.contains(&t.name) {
            continue;
        }
        forget(tx, &t.name)?;
        begin(tx, t)?;
        if known.is_some() && !bare {
            late.push(t.name.clone());
        }
    }
    let names: Vec<&String> = wanted.keys().collect();
    let list = serde_json::to_string(&names).unwrap_or_default();
    state::set(tx, KEPT, &list)?;
    Ok(late)
}

fn forget(tx: &Connection, table: &str) -> Result<()> {
    tx.execute("delete from tidewater_ledger where tbl = ?1", [table])
        .or_fault(WHAT)?;
    state::put(tx, &format!("{ENTERED}{table}"), None)
}

fn adjust(tx: &Connection, table: &str, by: i64) -> rusqlite::Result<()> {
    if by != 0 {
        tx.prepare_cached("update tidewater_state set value = value + ?2 where name = ?1")?
            .execute(params![format!("{ENTERED}{table}"), by])?;
    }
    Ok(())
}

/// Enters every key that the table has.
fn begin(tx: &Connection, table: &Table) -> Result<()> {
    let sql = format!(
        "insert into tidewater_ledger (tbl, {}) select {}, {} from {} as e{}",
        log_columns(table.key.len(), ""),
        literal(&table.name),
        key_columns(table, "e"),
        ident(&table.name),
        identified(table),
    );
    let rows = tx.execute(&sql, []).or_fault(WHAT)?;
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    state::set_number(tx, &format!("{ENTERED}{}", table.name), rows)
}

/// The columns of the key that may be NULL, by which a row is not identified.
fn nullable(table: &Table) -> Vec<String> {
    if table.without_rowid || has_integer_key(table) {
        return Vec::new();
    }
    let may_be_null = |k: &&String| !table.column(k).is_some_and(|c| c.not_null);
    let columns = table.key.iter().filter(may_be_null);
    columns.map(|k| format!("e.{}", ident(k))).collect()
}

/// A condition that leaves out the rows that no key identifies, where there may be some.
fn identified(table: &Table) -> String {
    let terms: Vec<String> = nullable(table)
        .iter()
        .map(|k| format!("{k} is not null"))
        .collect();
    if terms.is_empty() {
        String::new()
    } else {
        format!(" where {}", terms.join(" and "))
    }
}

/// How many rows of the table a key identifies. Without a condition SQLite counts by pages, and one NULL is
/// found by its place in the key's index.
fn rows(tx: &Connection, table: &Table) -> Result<i64> {
    let name = ident(&table.name);
    let sql = match nullable(table).as_slice() {
        [only] => format!(
            "select (select count(*) from {name}) - (select count(*) from {name} as e where {only} is null)"
        ),
        _ => format!("select count(*) from {name} as e{}", identified(table)),
    };
    tx.prepare_cached(&sql)
        .and_then(|mut s| s.query_row([], |r| r.get(0)))
        .or_fault(WHAT)
}

/// Enters a key, or strikes it off, by whether its row is there now.
pub fn look(tx: &Connection, table: &Table, key: &Key) -> rusqlite::Result<()> {
    if key.has_null() {
        return Ok(());
    }
    let width = key.0.len();
    let mut params: Vec<&dyn ToSql> = vec![&table.name];
    params.extend(key.0.iter().map(|v| v as &dyn ToSql));
    let same: Vec<String> = (1..=width)
        .map(|i| format!("k{i} = ?{n} and typeof(k{i}) = typeof(?{n})", n = i + 1))
        .collect();
    let struck = tx
        .prepare_cached(&format!(
            "delete from tidewater_ledger where tbl = ?1 and {}",
            same.join(" and ")
        ))?
        .execute(params.as_slice())?;
    let mut by = -i64::try_from(struck).unwrap_or(0);
    if app_row::exists(tx, table, key)? {
        let marks: Vec<String> = (2..=width + 1).map(|i| format!("?{i}")).collect();
        tx.prepare_cached(&format!(
            "insert into tidewater_ledger (tbl, {}) values (?1, {})",
            log_columns(width, ""),
            marks.join(", ")
        ))?
        .execute(params.as_slice())?;
        by += 1;
    }
    adjust(tx, &table.name, by)
}

/// Notes that a part of the log is left for a later claim.
pub fn set_behind(tx: &Connection, behind: bool) -> Result<()> {
    if is_behind(tx)? != behind {
        state::set_number(tx, BEHIND, i64::from(behind))?;
    }
    Ok(())
}

/// Whether a part of the log was left.
pub fn is_behind(conn: &Connection) -> Result<bool> {
    Ok(state::number(conn, BEHIND)? != 0)
}

/// The keys of the rows that went unseen, struck off, of those of the tables that were `met` in the log.
/// Only where every key of the log has been looked at.
pub fn sweep<'t>(
    tx: &Connection,
    tables: impl Iterator<Item = &'t Table>,
    met: &BTreeSet<String>,
) -> Result<Vec<(&'t Table, Key)>> {
    let all = is_behind(tx)?;
    let mut tables: Vec<&Table> = tables.filter(|t| all || met.contains(&t.name)).collect();
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    let mut out = Vec::new();
    for t in tables {
        out.extend(gone(tx, t)?.into_iter().map(|key| (t, key)));
    }
    set_behind(tx, false)?;
    Ok(out)
}

/// Logs the rows that the app evicted unseen since the last claim, found at `at`: their deletes are not to be
/// overwritten by what arrives. `logged` are the keys of the log, table and canonical text.
pub fn log_evicted(
    tx: &Connection,
    tables: &[&Table],
    kept: &BTreeSet<String>,
    logged: &mut HashSet<(String, String)>,
    at: i64,
) -> Result<()> {
    let mut met = BTreeSet::new();
    for (name, pk) in logged.iter().filter(|(name, _)| kept.contains(name)) {
        let table = tables.iter().find(|t| t.name == *name);
        if let (Some(table), Some(key)) = (table, Key::decode(pk)) {
            look(tx, table, &key).or_fault(WHAT)?;
            met.insert(name.clone());
        }
    }
    let with_ledger = tables.iter().copied().filter(|t| kept.contains(&t.name));
    for (table, key) in sweep(tx, with_ledger, &met)? {
        heal_log::append_evicted(tx, table, &key, at)?;
        logged.insert((table.name.clone(), key.encode()));
    }
    Ok(())
}

/// The keys of one table's ledger whose rows are gone, struck off.
pub fn gone(tx: &Connection, table: &Table) -> Result<Vec<Key>> {
    let entered = state::number(tx, &format!("{ENTERED}{}", table.name))?;
    if entered <= rows(tx, table)? {
        return Ok(Vec::new());
    }
    let width = table.key.len();
    let found: Vec<(i64, Key)> = tx
        .prepare_cached(&format!(
            "select c.rowid, {} from tidewater_ledger as c where c.tbl = {} \
             and not exists (select 1 from {} as e where {})",
            log_columns(width, "c."),
            literal(&table.name),
            ident(&table.name),
            exact(table)
        ))
        .and_then(|mut s| {
            s.query_map([], |r| Ok((r.get(0)?, value::key(r, 1, width)?)))?
                .collect::<rusqlite::Result<_>>()
        })
        .or_fault(WHAT)?;
    let mut strike = tx
        .prepare_cached("delete from tidewater_ledger where rowid = ?1")
        .or_fault(WHAT)?;
    let mut out = Vec::with_capacity(found.len());
    for (id, key) in found {
        strike.execute([id]).or_fault(WHAT)?;
        out.push(key);
    }
    adjust(tx, &table.name, -i64::try_from(out.len()).unwrap_or(0)).or_fault(WHAT)?;
    Ok(out)
}

/// Makes the index hold as many columns as the ledger has.
pub(super) fn index(tx: &Connection, width: usize) -> Result<()> {
    let sql: String = tx
        .query_row(
            "select coalesce(max(sql), '') from sqlite_schema where type = 'index' and name = 'tidewater_ledger_key'",
            [],
            |r| r.get(0),
        )
        .or_fault(WHAT)?;
    if sql.contains(&format!("k{width}")) {
        return Ok(());
    }
    tx.execute_batch(&format!(
        "drop index if exists tidewater_ledger_key; \
         create index tidewater_ledger_key on tidewater_ledger (tbl, {})",
        log_columns(width, "")
    ))
    .or_fault(WHAT)
}
