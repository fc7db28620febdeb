//! Conflicts that concern this device, as they arrived with the feed.

use super::fault::OrFault;
use super::status_view;
use crate::error::Result;
use crate::model::{ChangeKey, Row, Side};
use crate::remote::{ConflictRecord, Item};
use rusqlite::{Connection, params};

const WHAT: &str = "keeping conflicts";

fn side(s: Side) -> &'static str {
    match s {
        Side::Local => "local",
        Side::Remote => "remote",
    }
}

/// The time of a change in ms; `None` where the key is none of ours.
fn millis(change: &str) -> Option<i64> {
    ChangeKey::parse(change).map(|c| c.millis())
}

/// Stores a conflict; whether it was new.
pub fn store(tx: &Connection, c: &ConflictRecord) -> Result<bool> {
    let n = tx
        .prepare_cached(
            "insert or ignore into tidewater_conflict (id, tbl, pk, kind, policy, winner, local, \
             remote, local_change, remote_change, local_at, remote_at, remote_device, detected_at, k, ki) \
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?15)",
        )
        .and_then(|mut s| {
            s.execute(params![
                c.id,
                c.table,
                c.key.encode(),
                c.kind.as_str(),
                c.policy.as_str(),
                side(c.winner),
                c.local.as_ref().map(Row::to_json),
                c.remote.as_ref().map(Row::to_json),
                // What a repair keeps has no change of this side yet.
                (!c.local_change.is_empty()).then_some(&c.local_change),
                c.remote_change,
                millis(&c.local_change),
                millis(&c.remote_change),
                c.remote_device,
                c.detected_at,
                status_view::shown(&c.key)
            ])
        })
        .or_fault(WHAT)?;
    // What lost is kept here now.
    tx.prepare_cached(
        "update tidewater_outbox set payload = null, outcome = null where tbl = ?1 and pk = ?2 \
         and status = 'synced' and outcome = 'lost' and substr(change_key, 11) = substr(?3, 11)",
    )
    .and_then(|mut s| s.execute([&c.table, &c.key.encode(), &c.local_change]))
    .or_fault(WHAT)?;
    Ok(n > 0)
}

/// Whether the conflict that a change lost is here already.
pub fn is_known(tx: &Connection, item: &Item) -> Result<bool> {
    tx.prepare_cached(
        "select exists (select 1 from tidewater_conflict where tbl = ?1 and pk = ?2 \
         and substr(local_change, 11) = substr(?3, 11))",
    )
    .and_then(|mut s| {
        let change = item.change.as_str();
        s.query_row(params![item.table, item.key.encode(), change], |r| r.get(0))
    })
    .or_fault(WHAT)
}

/// Remembers where the loser was written as a file.
pub fn set_file(conn: &Connection, id: &str, path: &str) -> Result<()> {
    conn.execute(
        "update tidewater_conflict set original_file = ?2 where id = ?1",
        [id, path],
    )
    .or_fault(WHAT)?;
    Ok(())
}

/// Ids of conflicts whose loser has no file yet.
pub fn without_file(conn: &Connection, limit: usize) -> Result<Vec<String>> {
    let mut s = conn
        .prepare_cached("select id from tidewater_conflict where original_file is null limit ?1")
        .or_fault(WHAT)?;
    s.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |r| r.get(0))
        .and_then(Iterator::collect)
        .or_fault(WHAT)
}
