//! What the app's own triggers did beside a row that was installed.
//!
//! Around the write of such a row the guard is down, so that capture itself tells which tracked rows
//! the triggers touched; what it logged is taken out again before the transaction goes on. Rows of
//! tables that are not tracked, such as a search index, stay as the triggers left them.

use super::capture::ledger;
use super::fault::OrFault;
use super::local::Known;
use super::notes;
use super::value;
use crate::error::Result;
use crate::model::Key;
use rusqlite::{Connection, params};
use std::collections::{BTreeSet, HashMap};

const WHAT: &str = "applying remote rows";

/// Raises or lowers the guard.
pub fn guard(tx: &Connection, up: bool) -> Result<()> {
    tx.prepare_cached("update tidewater_guard set v = ?1 where id = 1")
        .and_then(|mut s| s.execute([up]))
        .or_fault(WHAT)?;
    Ok(())
}

/// The end of the key log.
pub fn mark(tx: &Connection) -> Result<i64> {
    tx.prepare_cached("select coalesce(max(id), 0) from tidewater_log")
        .and_then(|mut s| s.query_row([], |r| r.get(0)))
        .or_fault(WHAT)
}

/// Takes what was logged behind `mark` out of the log; returns the rows other than `own` (table and
/// canonical key).
pub fn take(
    tx: &Connection,
    tables: &HashMap<String, Known>,
    mark: i64,
    own: (&str, &str),
) -> Result<Vec<(String, String)>> {
    let mut out = Vec::new();
    {
        let mut s = tx
            .prepare_cached("select * from tidewater_log where id > ?1")
            .or_fault(WHAT)?;
        let first_key = s.column_index("k1").or_fault(WHAT)?;
        let mut rows = s.query([mark]).or_fault(WHAT)?;
        while let Some(r) = rows.next().or_fault(WHAT)? {
            let name: String = r.get("tbl").or_fault(WHAT)?;
            if let Some(k) = tables.get(&name) {
                let key = value::key(r, first_key, k.table.key.len()).or_fault(WHAT)?;
                let pk = key.encode();
                if (name.as_str(), pk.as_str()) != own && !key.has_null() {
                    out.push((name, pk));
                }
            }
        }
    }
    tx.prepare_cached("delete from tidewater_log where id > ?1")
        .and_then(|mut s| s.execute(params![mark]))
        .or_fault(WHAT)?;
    Ok(out)
}

/// Leaves notes for rows that the app's triggers touched beside an installed one, and for those that they
/// evicted there unseen (`kept` are the tables with a ledger): they come again by key, for the triggers'
/// work on them was done where the row is from.
pub fn note(
    tx: &Connection,
    tables: &HashMap<String, Known>,
    kept: &BTreeSet<String>,
    touched: &[(String, String)],
    base: i64,
) -> Result<()> {
    let mut met = BTreeSet::new();
    for (name, pk) in touched {
        notes::leave(tx, name, pk, base)?;
        if let (true, Some(known), Some(key)) =
            (kept.contains(name), tables.get(name), Key::decode(pk))
        {
            ledger::look(tx, &known.table, &key).or_fault(WHAT)?;
            met.insert(name);
        }
    }
    for known in met.into_iter().filter_map(|name| tables.get(name)) {
        for key in ledger::gone(tx, &known.table)? {
            notes::leave(tx, &known.table.name, &key.encode(), base)?;
        }
    }
    Ok(())
}
