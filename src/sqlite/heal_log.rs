//! The key log as the service writes and reads it itself: after a comparison, and to judge one key.

use super::app_row;
use super::fault::OrFault;
use super::first;
use super::notes;
use super::value;
use crate::error::Result;
use crate::model::{Key, Table};
use rusqlite::{Connection, ToSql};

const WHAT: &str = "looking at the key log";

/// Logs a key as changed at the smallest time: it was written while capture was bare, nobody knows when.
pub fn append(tx: &Connection, table: &Table, key: &Key) -> Result<()> {
    append_as(tx, table, key, 'U', 0)
}

/// Logs a key whose history nobody knows: its base is empty, so the push decides against whatever of
/// another device it meets, and it counts as new here, for a base that old would else be refused where
/// the workspace has collected its deletes.
pub fn append_unknown(tx: &Connection, table: &Table, key: &Key) -> Result<()> {
    append_as(tx, table, key, 'R', 0)
}

/// The same for a key that the other side has never heard of.
pub fn append_new(tx: &Connection, table: &Table, key: &Key) -> Result<()> {
    append_as(tx, table, key, 'B', 0)
}

/// Logs a key whose row went while capture was bare; its claim parks it unless it is released before.
pub fn append_held(tx: &Connection, table: &Table, key: &Key) -> Result<()> {
    append_as(tx, table, key, 'H', 0)
}

/// Logs a row in which the app's defaults stand in for what arrived as NULL: the others are to have them.
/// It has no time, for nobody wrote it.
pub fn append_filled(tx: &Connection, table: &Table, key: &Key) -> Result<()> {
    append(tx, table, key)
}

/// Logs a key whose row the app evicted unseen, found at `at`.
pub fn append_evicted(tx: &Connection, table: &Table, key: &Key, at: i64) -> Result<()> {
    append_as(tx, table, key, 'D', at)
}

fn append_as(tx: &Connection, table: &Table, key: &Key, op: char, at: i64) -> Result<()> {
    let columns: Vec<String> = (1..=key.0.len()).map(|i| format!("k{i}")).collect();
    let marks: Vec<String> = (2..=key.0.len() + 1).map(|i| format!("?{i}")).collect();
    let sql = format!(
        "insert into tidewater_log (tbl, op, at, {}) values (?1, '{op}', {at}, {})",
        columns.join(", "),
        marks.join(", ")
    );
    let mut params: Vec<&dyn ToSql> = vec![&table.name];
    params.extend(key.0.iter().map(|v| v as &dyn ToSql));
    tx.prepare_cached(&sql)
        .and_then(|mut s| s.execute(params.as_slice()))
        .or_fault(WHAT)?;
    Ok(())
}

/// Whether a key has a logged, queued or noted change.
pub fn is_dirty(conn: &Connection, table: &Table, key: &Key) -> Result<bool> {
    Ok(notes::find(conn, &table.name, &key.encode())?.is_some() || is_unsent(conn, table, key)?)
}

/// Whether a key has a logged or queued change.
pub fn is_unsent(conn: &Connection, table: &Table, key: &Key) -> Result<bool> {
    let pk = key.encode();
    let queued: bool = conn
        .prepare_cached(
            "select exists (select 1 from tidewater_outbox where tbl = ?1 and pk = ?2 \
             and status <> 'synced')",
        )
        .and_then(|mut s| s.query_row([&table.name, &pk], |r| r.get(0)))
        .or_fault(WHAT)?;
    if queued {
        return Ok(true);
    }
    if first::tables(conn)?.contains(&table.name) {
        // Its part of the log may be long; what stands here is on its way, or was a moment ago.
        return app_row::exists(conn, table, key).or_fault(WHAT);
    }
    let mut s = conn
        .prepare_cached("select * from tidewater_log where tbl = ?1")
        .or_fault(WHAT)?;
    let first_key = s.column_index("k1").or_fault(WHAT)?;
    let mut rows = s.query([&table.name]).or_fault(WHAT)?;
    while let Some(r) = rows.next().or_fault(WHAT)? {
        if value::key(r, first_key, table.key.len()).or_fault(WHAT)? == *key {
            return Ok(true);
        }
    }
    Ok(false)
}
