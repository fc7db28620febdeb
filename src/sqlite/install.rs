//! One write transaction with the guard up: what is dirty, and how one row is installed.
//!
//! Never overwrites a dirty row (the caller asks [`Slice::is_dirty`] first), never uses REPLACE, never
//! leaves the guard up at COMMIT.

use super::app_row;
use super::apply::{Applied, Slicing};
use super::aside;
use super::barred::Barred;
use super::brake;
use super::capture::ledger;
use super::fault::{OrFault, fault};
use super::first;
use super::heal_log;
use super::inbox;
use super::local::{Known, check_schema, load_tables, schema_moved};
use super::notes;
use super::private;
use super::state;
use super::value;
use crate::error::{Code, Error, Result};
use crate::failpoint;
use crate::model::{Key, Table};
use crate::remote::Version;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};
use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, HashSet};

const WHAT: &str = "applying remote rows";

/// The most log rows that are compared in memory; above, they are claimed first.
const LOG_MAX: usize = 50_000;

/// A row that met a constraint: table, key, version.
pub type Late<'r> = (&'r str, &'r Key, &'r Version);

/// One write transaction with the guard up.
pub struct Slice<'a> {
    pub(super) tx: &'a Connection,
    tables: HashMap<String, Known>,
    logged: HashSet<(String, String)>,
    /// Tables whose existing rows are on their way in pages: what stands here may not have gone yet.
    uploading: BTreeSet<String>,
    /// Tables with a ledger.
    kept: BTreeSet<String>,
    queued: bool,
    noted: Cell<bool>,
    epoch: i64,
    slicing: Slicing,
    /// Rows that would end this transaction.
    barred: &'a Barred,
    /// The base of notes for rows that the app's triggers touch beside an installed one; without it
    /// such triggers do not run.
    aside: Option<i64>,
}

impl<'a> Slice<'a> {
    /// Raises the guard and learns what is dirty; `None` where the key log is too long for that.
    pub fn begin(
        tx: &'a Connection,
        barred: &'a Barred,
        slicing: Slicing,
        aside: Option<i64>,
    ) -> Result<Option<Self>> {
        check_schema(tx)?;
        super::capture::prune_candidates(tx)?;
        let tables: HashMap<String, Known> = load_tables(tx)?
            .into_iter()
            .map(|k| (k.table.name.clone(), k))
            .collect();
        let Some(mut logged) = logged_keys(tx, &tables)? else {
            return Ok(None);
        };
        let kept = ledger::kept(tx)?;
        if !kept.is_empty() {
            let tables: Vec<&Table> = tables.values().map(|k| &k.table).collect();
            ledger::log_evicted(tx, &tables, &kept, &mut logged, slicing.now_ms)?;
        }
        let queued = tx
            .query_row(
                "select exists (select 1 from tidewater_outbox where status in \
                 ('pending', 'uploading', 'failed'))",
                [],
                |r| r.get(0),
            )
            .or_fault(WHAT)?;
        let noted = Cell::new(notes::any(tx)?);
        aside::guard(tx, !failpoint::is_planted("echo"))?;
        Ok(Some(Slice {
            tx,
            tables,
            logged,
            uploading: first::tables(tx)?,
            kept,
            queued,
            noted,
            epoch: state::epoch(tx)?,
            slicing,
            barred,
            aside,
        }))
    }

    /// Lowers the guard; it is never up at COMMIT.
    pub fn end(&self) -> Result<()> {
        if failpoint::is_planted("guard_left_on") {
            return Ok(());
        }
        aside::guard(self.tx, false)
    }

    pub(super) fn table(&self, name: &str) -> Result<&Table> {
        self.tables
            .get(name)
            .map(|k| &k.table)
            .ok_or_else(schema_moved)
    }

    /// Whether the row has an unsent local change, or might have one that capture missed, or is a row
    /// that stays here and has nothing to do with the one of its key elsewhere.
    pub fn is_dirty(&self, table: &str, key: &Key) -> Result<bool> {
        if failpoint::is_planted("overwrite_dirty") {
            return Ok(false);
        }
        let known = self.tables.get(table);
        if known.is_some_and(|k| k.heal) {
            return Ok(true);
        }
        let pk = key.encode();
        if let Some(k) = known
            && private::is_private(self.tx, &k.table, &pk)?
        {
            return Ok(true);
        }
        if !self.logged.is_empty() && self.logged.contains(&(table.to_owned(), pk.clone())) {
            return Ok(true);
        }
        if self.uploading.contains(table)
            && app_row::exists(self.tx, self.table(table)?, key).or_fault(WHAT)?
        {
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
        if private::waits_for_content(self.tx, self.table(table)?, &key.encode())? {
            return Ok(false);
        }
        self.shows(table, key, version)
    }

    /// Whether the row here agrees with a version in what that carries.
    fn shows(&self, table: &str, key: &Key, version: &Version) -> Result<bool> {
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
        let known = self.table(table)?;
        if known.has_app_triggers && self.holds(table, key, version)? {
            // Nothing happened to the row, so the app's triggers must not hear of it: both sides had it
            // before they met.
            self.installed(table, key, version)?;
            return Ok(true);
        }
        match self.write(known, key, version, done)? {
            Ok(()) => {
                self.installed(table, key, version)?;
                done.installed += 1;
                Ok(true)
            }
            Err(e) if is_constraint(&e) || cannot_run(&e) => Ok(false),
            Err(e) => Err(fault(e, WHAT)),
        }
    }

    /// Writes what may be written of one version; whether a constraint let it in.
    fn write(
        &self,
        table: &Table,
        key: &Key,
        version: &Version,
        done: &mut Applied,
    ) -> Result<rusqlite::Result<()>> {
        let Some(admitted) = private::admit(self.tx, table, key, version)? else {
            return self.write_whole(table, key, version, done);
        };
        let wrote = self.write_whole(table, key, &admitted.version, done)?;
        if wrote.is_ok() {
            admitted.settle(self.tx, table, &key.encode())?;
        }
        Ok(wrote)
    }

    /// Writes all of one version; whether a constraint let it in.
    pub(super) fn write_whole(
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
            return Err(self.rolled_back(table, &pk, version, wrote.err()));
        }
        if let Err(e) = wrote {
            // RAISE(FAIL) leaves what its statement had done so far.
            self.tx
                .execute_batch("rollback to tidewater_row; release tidewater_row")
                .or_fault(WHAT)?;
            if !cannot_run(&e) {
                return Ok(Err(e));
            }
            // A function or a module that only the app has: the row must not wait for what never comes.
            let wrote = self.put_without_triggers(table, key, version);
            done.untriggered += u64::from(wrote.is_ok());
            return Ok(wrote);
        }
        aside::guard(self.tx, true)?;
        let touched = aside::take(self.tx, &self.tables, mark, (&table.name, &pk))?;
        if !touched.is_empty() {
            done.corrected += touched.len() as u64;
            if let Some(base) = self.aside {
                aside::note(self.tx, &self.tables, &self.kept, &touched, base)?;
                self.noted.set(true);
            } else {
                self.tx
                    .execute_batch("rollback to tidewater_row")
                    .or_fault(WHAT)?;
                wrote = self.put_without_triggers(table, key, version);
            }
        }
        if wrote.is_ok() && !self.shows(&table.name, key, version)? {
            // One of the app's own triggers changed what arrived, or ignored it: put the row right.
            wrote = self.put_without_triggers(table, key, version);
            done.corrected += 1;
        }
        let end = if wrote.is_ok() {
            "release tidewater_row"
        } else {
            "rollback to tidewater_row; release tidewater_row"
        };
        self.tx.execute_batch(end).or_fault(WHAT)?;
        Ok(wrote)
    }

    /// The transaction is gone, and with it all that this slice had installed: the row is barred, so
    /// that the slice can be done again without it.
    fn rolled_back(
        &self,
        table: &Table,
        pk: &str,
        version: &Version,
        e: Option<rusqlite::Error>,
    ) -> Error {
        let Some(e) = e.filter(is_constraint) else {
            return Error::new(
                Code::LocalUnusable,
                format!("{WHAT}: the transaction ended by itself"),
                "look at the disk that holds the file; nothing is lost",
            )
            .on_table(&table.name);
        };
        let error = fault(e, WHAT);
        self.barred.bar(
            &table.name,
            pk,
            version,
            format!(
                "{} (RAISE(ROLLBACK) of one of the app's triggers)",
                error.message
            ),
        );
        error.on_table(&table.name)
    }

    /// Why a row must not be tried in this transaction, and whether the inbox has to be told.
    pub fn is_barred(&self, table: &str, key: &Key, version: &Version) -> Option<(String, bool)> {
        self.barred.find(table, key, version)
    }

    fn put(&self, table: &Table, key: &Key, version: &Version) -> rusqlite::Result<()> {
        match &version.row {
            Some(row) => app_row::write(self.tx, table, key, row)?,
            None => app_row::delete(self.tx, table, key).map(|_| ())?,
        }
        if self.kept.contains(&table.name) {
            ledger::look(self.tx, table, key)?;
        }
        Ok(())
    }

    fn put_without_triggers(
        &self,
        table: &Table,
        key: &Key,
        version: &Version,
    ) -> rusqlite::Result<()> {
        self.without_triggers(|| self.put(table, key, version))
    }

    pub(super) fn installed(&self, table: &str, key: &Key, version: &Version) -> Result<()> {
        let pk = key.encode();
        if self.noted.get() {
            notes::remove(self.tx, table, &pk)?;
            inbox::settle(self.tx, table, &pk)?;
        }
        let known = self.table(table)?;
        if version.row.as_ref().is_some_and(|r| known.is_filled(r)) {
            heal_log::append_filled(self.tx, known, key)?;
        }
        if self.slicing.history {
            inbox::applied(
                self.tx,
                table,
                &pk,
                version,
                self.epoch,
                self.slicing.now_ms,
            )?;
        }
        Ok(())
    }

    /// Rows that met a constraint are tried again now that the others are in; then with their unique
    /// values released first, so that two rows may swap theirs; what is left waits in the inbox.
    pub fn install_late(
        &self,
        late: &[Late<'_>],
        done: &mut Applied,
        note: impl Fn(&str, &str) -> Result<()>,
    ) -> Result<()> {
        let mut left: Vec<Late<'_>> = late.to_vec();
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
        // Only what a unique value keeps out: taking a row out first would lead around anything else
        // that the app refuses in an UPDATE.
        let taken = self.refused(left, done, &note, is_unique)?;
        let left = self.swap(taken, done)?;
        self.refused(left, done, &note, |_| false)?;
        Ok(())
    }

    /// Tries rows for the last time: what is refused goes to the inbox, unless `hold` wants to have it
    /// back.
    fn refused<'r>(
        &self,
        rows: Vec<Late<'r>>,
        done: &mut Applied,
        note: &impl Fn(&str, &str) -> Result<()>,
        hold: impl Fn(&rusqlite::Error) -> bool,
    ) -> Result<Vec<Late<'r>>> {
        let mut held = Vec::new();
        for (table, key, version) in rows {
            let error = match self.write(self.table(table)?, key, version, done)? {
                Ok(()) => {
                    self.installed(table, key, version)?;
                    done.installed += 1;
                    continue;
                }
                Err(e) if hold(&e) => {
                    held.push((table, key, version));
                    continue;
                }
                Err(e) => fault(e, WHAT),
            };
            let pk = key.encode();
            note(table, &pk)?;
            let now_ms = self.slicing.now_ms;
            inbox::failed(self.tx, table, &pk, version, &error.message, now_ms)?;
            done.failed += 1;
        }
        Ok(held)
    }

    pub(super) fn without_triggers(
        &self,
        work: impl FnOnce() -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        self.tx
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        let done = work();
        self.tx
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)?;
        done
    }
}

/// Whether a row is refused because another one holds its unique value.
pub fn is_unique(e: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE};
    matches!(e, rusqlite::Error::SqliteFailure(f, _)
        if [SQLITE_CONSTRAINT_UNIQUE, SQLITE_CONSTRAINT_PRIMARYKEY].contains(&f.extended_code))
}

/// Whether a statement cannot run here at all: SQLite's plain error, without a kind. It names what only
/// the app has.
fn cannot_run(e: &rusqlite::Error) -> bool {
    matches!(e, rusqlite::Error::SqliteFailure(f, _)
        | rusqlite::Error::SqlInputError { error: f, .. }
        if f.extended_code == rusqlite::ffi::SQLITE_ERROR)
}

pub(super) fn is_constraint(e: &rusqlite::Error) -> bool {
    matches!(e, rusqlite::Error::SqliteFailure(f, _) if f.code == ErrorCode::ConstraintViolation)
}

/// The keys in the log, without those of existing rows that go in pages; `None` above [`LOG_MAX`].
fn logged_keys(
    tx: &Connection,
    tables: &HashMap<String, Known>,
) -> Result<Option<HashSet<(String, String)>>> {
    let mut s = tx
        .prepare_cached(&format!(
            "select * from tidewater_log where tbl in (select name from tidewater_table) \
             and not {} and id between ?1 and ?2 limit ?3",
            brake::UNCOUNTED
        ))
        .or_fault(WHAT)?;
    let first_key = s.column_index("k1").or_fault(WHAT)?;
    let mut out = HashSet::new();
    let mut n = 0;
    for (from, to) in first::claimed(tx)? {
        let most = i64::try_from(LOG_MAX + 1).unwrap_or(i64::MAX);
        let mut rows = s.query([from, to, most]).or_fault(WHAT)?;
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
    }
    Ok(Some(out))
}
