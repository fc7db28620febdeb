//! The keys that a comparison has met on the other side, beside the app's file: SQLite keeps them in its
//! own temporary space, so that a table of any size takes no memory.
//!
//! A key here that was not met is looked up by key, whatever stands there by then: a row that somebody
//! put there after its page was listed was compared by nobody yet.

use super::fault::OrFault;
use super::local::Local;
use crate::error::Result;
use crate::model::Key;

const WHAT: &str = "comparing a table";

/// Begins a comparison.
pub fn begin(local: &Local) -> Result<()> {
    local
        .conn
        .execute_batch(
            "create temp table if not exists tidewater_met (pk text primary key) without rowid; \
             delete from temp.tidewater_met",
        )
        .or_fault(WHAT)
}

/// Remembers keys that were listed.
pub fn met<'a>(local: &Local, keys: impl Iterator<Item = &'a Key>) -> Result<()> {
    let tx = local.conn.unchecked_transaction().or_fault(WHAT)?;
    {
        let mut s = tx
            .prepare_cached("insert or ignore into temp.tidewater_met (pk) values (?1)")
            .or_fault(WHAT)?;
        for key in keys {
            s.execute([key.encode()]).or_fault(WHAT)?;
        }
    }
    tx.commit().or_fault(WHAT)
}

/// Those of `keys` that were not listed.
pub fn unmet(local: &Local, keys: Vec<Key>) -> Result<Vec<Key>> {
    let mut s = local
        .conn
        .prepare_cached("select exists (select 1 from temp.tidewater_met where pk = ?1)")
        .or_fault(WHAT)?;
    let mut out = Vec::new();
    for key in keys {
        let known: bool = s.query_row([key.encode()], |r| r.get(0)).or_fault(WHAT)?;
        if !known {
            out.push(key);
        }
    }
    Ok(out)
}
