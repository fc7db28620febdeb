//! What SQLite itself says of the file: for `doctor`. Reads only, and works before `init` too.

use super::capture;
use super::fault::OrFault;
use super::introspect::{self, Introspection, TrackSettings};
use super::local::{Local, schema_is_known};
use crate::error::Result;
use crate::model::Table;
use rusqlite::OptionalExtension;

/// The journal mode, as SQLite writes it.
pub fn journal_mode(local: &Local) -> Result<String> {
    local
        .conn()
        .query_row("pragma journal_mode", [], |r| r.get(0))
        .or_fault("reading the journal mode")
}

/// The first faults of `quick_check`; empty where there is none.
pub fn quick_check(local: &Local) -> Result<Vec<String>> {
    let what = "checking the file";
    let mut s = local
        .conn()
        .prepare("pragma quick_check(5)")
        .or_fault(what)?;
    let found: Vec<String> = s
        .query_map([], |r| r.get(0))
        .and_then(Iterator::collect)
        .or_fault(what)?;
    Ok(found.into_iter().filter(|l| l != "ok").collect())
}

/// Whether the file can be written by this user.
pub fn is_writable(local: &Local) -> Result<bool> {
    local
        .conn()
        .is_readonly(rusqlite::MAIN_DB)
        .map(|r| !r)
        .or_fault("looking at the file")
}

/// The app's schema as it would be tracked.
pub fn tables(local: &Local, settings: &TrackSettings) -> Result<Introspection> {
    introspect::tables(local.conn(), settings)
}

/// The tables whose triggers are absent or not as they should be.
pub fn bare(local: &Local, tables: &[Table]) -> Result<Vec<String>> {
    capture::verify(local.conn(), tables)
}

/// Whether the schema is still the one that capture was installed for.
pub fn schema_stands(local: &Local) -> Result<bool> {
    schema_is_known(local.conn())
}

/// The guard's value; `None` where its row is gone.
pub fn guard(local: &Local) -> Result<Option<i64>> {
    local
        .conn()
        .query_row("select v from tidewater_guard where id = 1", [], |r| {
            r.get(0)
        })
        .optional()
        .or_fault("reading the guard")
}
