//! One write transaction with the guard up: what is dirty, and how one row is installed.
//!
//! Never overwrites a dirty row (the caller asks [`Slice::is_dirty`] first), never uses REPLACE, never
//! leaves the guard up at COMMIT.

use super::app_row;
use super::apply::{Applied, Slicing};
use super::aside;
use super::fault::{OrFault, fault};
use super::inbox;
use super::local::{Known, check_schema, load_tables, schema_moved};
use super::notes;
use super::value;
use crate::error::{Code, Error, Result};
use crate::model::{Key, Table};
use crate::remote::Version;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};

const WHAT: &str = "applying remote rows";

/// The most log rows that are compared in memory; above, they are claimed first.
const LOG_MAX: usize = 50_000;

/// One write transaction with the guard up.
pub struct Slice<'a> {
    tx: &'a Connection,
    tables: HashMap<String, Known>,
    logged: HashSet<(String, String)>,
    queued: bool,
    noted: Cell<bool>,
    slicing: Slicing,
    /// The base of notes for rows that the app's triggers touch beside an installed one; without it
    /// such triggers do not run.
    aside: Option<i64>,
}

impl<'a> Slice<'a> {
    /// Raises the guard and learns what is dirty; `None` where the key log is too long for that.
    pub fn begin(tx: &'a Connection, slicing: Slicing, aside: Option<i64>) -> Result<Option<Self>> {
        check_schema(tx)?;
        super::capture::prune_candidates(tx)?;
        let tables: HashMap<String, Known> = load_tables(tx)?
            .into_iter()
            .map(|k| (k.table.name.clone(), k))
            .collect();
        let Some(logged) = logged_keys(tx, &tables)? else {
            return Ok(None);
        };
        let queued = tx
            .query_row(
                "select exists (select 1 from tidewater_outbox where status in \
                 ('pending', 'uploading', 'failed'))",
                [],
                |r| r.get(0),
            )
            .or_fault(WHAT)?;
        let noted = Cell::new(notes::any(tx)?);
        aside::guard(tx, true)?;
        Ok(Some(Slice {
            tx,
            tables,
            logged,
            queued,
            noted,
            slicing,
            aside,
        }))
    }

    /// Lowers the guard; it is never up at COMMIT.
    pub fn end(&self) -> Result<()> {
        aside::guard(self.tx, false)
    }

    fn table(&self, name: &str) -> Result<&Table> {
        self.tables
            .get(name)
            .map(|k| &k.table)
            .ok_or_else(schema_moved)
    }

    /// Whether the row has an unsent local change, or might have one that capture missed.
    pub fn is_dirty(&self, table: &str, key: &Key) -> Result<bool> {
        if self.tables.get(table).is_some_and(|k| k.heal) {
            return Ok(true);
        }
        let pk = key.encode();
        if !self.logged.is_empty() && self.logged.contains(&(table.to_owned(), pk.clone())) {
            return Ok(true);
        }
        if !self.queued {
            return Ok(false);
        }
        self.tx
            .prepare_cached(
                "select exists (select 1 from tidewater_outbox where tbl = ?1 and pk = ?2 \
                 and status <> 'synced')",
            )
            .and_then(|mut s| s.query_row([table, &pk], |r| r.get(0)))
            .or_fault(WHAT)
    }

    /// Whether the file holds this version already.
    pub fn holds(&self, table: &str, key: &Key, version: &Version) -> Result<bool> {
        let here = app_row::read(self.tx, self.table(table)?, key).or_fault(WHAT)?;
        Ok(match (here, &version.row) {
            (None, None) => true,
            (Some(here), Some(there)) => there.agrees_with(&here),
            _ => false,
        })
    }

    /// Writes one version; whether it could be applied.
    pub fn install(
        &self,
        table: &str,
        key: &Key,
        version: &Version,
        done: &mut Applied,
    ) -> Result<bool> {
        match self.write(self.table(table)?, key, version, done)? {
            Ok(()) => {
                self.installed(table, key, version)?;
                done.installed += 1;
                Ok(true)
            }
            Err(e) if is_constraint(&e) => Ok(false),
            Err(e) => Err(fault(e, WHAT)),
        }
    }

    /// Writes one version; whether a constraint let it in.
    fn write(
        &self,
        table: &Table,
        key: &Key,
        version: &Version,
        done: &mut Applied,
    ) -> Result<rusqlite::Result<()>> {
        if !table.has_app_triggers {
            return Ok(self.put(table, key, version));
        }
        let pk = key.encode();
        self.tx
            .execute_batch("savepoint tidewater_row")
            .or_fault(WHAT)?;
        let mark = aside::mark(self.tx)?;
        aside::guard(self.tx, false)?;
        let mut wrote = self.put(table, key, version);
        if self.tx.is_autocommit() {
            // Nothing may be written behind the end of the transaction, the guard least of all.
            return Err(rolled_back(table));
        }
        aside::guard(self.tx, true)?;
        let touched = aside::take(self.tx, &self.tables, mark, (&table.name, &pk))?;
        if wrote.is_ok() && !touched.is_empty() {
            done.corrected += touched.len() as u64;
            if let Some(base) = self.aside {
                // They come again by key: the triggers' work on them was done where the row is from.
                for (table, pk) in &touched {
                    notes::leave(self.tx, table, pk, base)?;
                }
                self.noted.set(true);
            } else {
                self.tx
                    .execute_batch("rollback to tidewater_row")
                    .or_fault(WHAT)?;
                wrote = self.put_without_triggers(table, key, version);
            }
        }
        if wrote.is_ok()
            && let Some(row) = &version.row
            && !app_row::read(self.tx, table, key)
                .or_fault(WHAT)?
                .is_some_and(|here| row.agrees_with(&here))
        {
            // One of the app's own triggers changed what arrived: put the row right.
            wrote = self.put_without_triggers(table, key, version);
            done.corrected += 1;
        }
        self.tx
            .execute_batch("release tidewater_row")
            .or_fault(WHAT)?;
        Ok(wrote)
    }

    fn put(&self, table: &Table, key: &Key, version: &Version) -> rusqlite::Result<()> {
        match &version.row {
            Some(row) => app_row::write(self.tx, table, key, row),
            None => app_row::delete(self.tx, table, key).map(|_| ()),
        }
    }

    fn put_without_triggers(
        &self,
        table: &Table,
        key: &Key,
        version: &Version,
    ) -> rusqlite::Result<()> {
        self.tx
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        let done = self.put(table, key, version);
        self.tx
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)?;
        done
    }

    fn installed(&self, table: &str, key: &Key, version: &Version) -> Result<()> {
        let pk = key.encode();
        if self.noted.get() {
            notes::remove(self.tx, table, &pk)?;
            inbox::settle(self.tx, table, &pk)?;
        }
        if self.slicing.history {
            inbox::applied(self.tx, table, &pk, version, self.slicing.now_ms)?;
        }
        Ok(())
    }

    /// Rows that met a constraint are tried again now that the others are in; then with their unique
    /// values released first, so that two rows may swap theirs; what is left waits in the inbox.
    pub fn install_late(
        &self,
        late: &[(&str, &Key, &Version)],
        done: &mut Applied,
        note: impl Fn(&str, &str) -> Result<()>,
    ) -> Result<()> {
        let mut left: Vec<(&str, &Key, &Version)> = late.to_vec();
        loop {
            let before = left.len();
            let mut still = Vec::new();
            for (table, key, version) in left {
                if !self.install(table, key, version, done)? {
                    still.push((table, key, version));
                }
            }
            left = still;
            if left.is_empty() {
                return Ok(());
            }
            if left.len() == before {
                break;
            }
        }
        if self.swap(&left, done)? {
            return Ok(());
        }
        for (table, key, version) in left {
            let t = self.table(table)?;
            let mut ignored = Applied::default();
            let error = match self.write(t, key, version, &mut ignored)? {
                Ok(()) => continue,
                Err(e) => fault(e, WHAT),
            };
            let pk = key.encode();
            note(table, &pk)?;
            inbox::failed(
                self.tx,
                table,
                &pk,
                version,
                &error.message,
                self.slicing.now_ms,
            )?;
            done.failed += 1;
        }
        Ok(())
    }

    /// Removes the local versions of all the rows, then writes all; all or nothing. One row alone has
    /// nobody to swap with: taking it out would only lead around what the app refuses in an UPDATE.
    fn swap(&self, rows: &[(&str, &Key, &Version)], done: &mut Applied) -> Result<bool> {
        if rows.len() < 2 {
            return Ok(false);
        }
        self.tx
            .execute_batch("savepoint tidewater_swap")
            .or_fault(WHAT)?;
        let mut worked = true;
        let gone = Version {
            change: String::new(),
            device: String::new(),
            row: None,
        };
        for (table, key, _) in rows {
            self.write(self.table(table)?, key, &gone, done)?
                .or_fault(WHAT)?;
        }
        for (table, key, version) in rows {
            match self.write(self.table(table)?, key, version, done)? {
                Ok(()) => {}
                Err(e) if is_constraint(&e) => {
                    worked = false;
                    break;
                }
                Err(e) => return Err(fault(e, WHAT)),
            }
        }
        if !worked {
            self.tx
                .execute_batch("rollback to tidewater_swap; release tidewater_swap")
                .or_fault(WHAT)?;
            return Ok(false);
        }
        self.tx
            .execute_batch("release tidewater_swap")
            .or_fault(WHAT)?;
        for (table, key, version) in rows {
            self.installed(table, key, version)?;
            done.installed += 1;
        }
        Ok(true)
    }
}

/// The transaction is gone, and with it all that this slice had installed.
fn rolled_back(table: &Table) -> Error {
    Error::new(
        Code::SchemasDiffer,
        "writing a row that arrived rolled the whole transaction back",
        "a trigger of the app must say RAISE(ABORT), not RAISE(ROLLBACK); nothing is lost meanwhile",
    )
    .on_table(&table.name)
}

fn is_constraint(e: &rusqlite::Error) -> bool {
    matches!(e, rusqlite::Error::SqliteFailure(f, _) if f.code == ErrorCode::ConstraintViolation)
}

/// The keys in the log; `None` above [`LOG_MAX`].
fn logged_keys(
    tx: &Connection,
    tables: &HashMap<String, Known>,
) -> Result<Option<HashSet<(String, String)>>> {
    let mut s = tx
        .prepare_cached(
            "select * from tidewater_log where tbl in (select name from tidewater_table) limit ?1",
        )
        .or_fault(WHAT)?;
    let first_key = s.column_index("k1").or_fault(WHAT)?;
    let mut rows = s
        .query([i64::try_from(LOG_MAX + 1).unwrap_or(i64::MAX)])
        .or_fault(WHAT)?;
    let mut out = HashSet::new();
    let mut n = 0;
    while let Some(r) = rows.next().or_fault(WHAT)? {
        n += 1;
        if n > LOG_MAX {
            return Ok(None);
        }
        let name: String = r.get("tbl").or_fault(WHAT)?;
        if let Some(k) = tables.get(&name) {
            let key = value::key(r, first_key, k.table.key.len()).or_fault(WHAT)?;
            out.insert((name, key.encode()));
        }
    }
    Ok(Some(out))
}
