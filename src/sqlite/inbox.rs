//! The inbox: downloaded rows that could not be applied, and the history of those that were.
//!
//! A failed row keeps its content here so that a person can see it; what is installed later always
//! comes fresh from the server, by its note.

use super::fault::OrFault;
use crate::error::Result;
use crate::remote::Version;
use rusqlite::{Connection, params};

const WHAT: &str = "keeping the inbox";

/// A row that could not be applied, with the reason.
pub fn failed(
    tx: &Connection,
    table: &str,
    pk: &str,
    version: &Version,
    error: &str,
    now_ms: i64,
) -> Result<()> {
    settle(tx, table, pk)?;
    tx.prepare_cached(
        "insert into tidewater_inbox (tbl, pk, op, change_key, device, status, error, payload, at) \
         values (?1, ?2, ?3, ?4, ?5, 'failed', ?6, ?7, ?8)",
    )
    .and_then(|mut s| {
        s.execute(params![
            table,
            pk,
            op(version),
            version.change,
            version.device,
            error,
            version.row.as_ref().map(crate::model::Row::to_json),
            now_ms
        ])
    })
    .or_fault(WHAT)?;
    Ok(())
}

fn op(version: &Version) -> &'static str {
    if version.row.is_some() {
        "upsert"
    } else {
        "delete"
    }
}

/// The row was applied or is no longer wanted: its failure is over.
pub fn settle(tx: &Connection, table: &str, pk: &str) -> Result<()> {
    tx.prepare_cached(
        "delete from tidewater_inbox where tbl = ?1 and pk = ?2 and status = 'failed'",
    )
    .and_then(|mut s| s.execute([table, pk]))
    .or_fault(WHAT)?;
    Ok(())
}

/// Whether a row waits here because it cannot be applied.
pub fn is_failed(conn: &Connection, table: &str, pk: &str) -> Result<bool> {
    conn.prepare_cached(
        "select exists (select 1 from tidewater_inbox where tbl = ?1 and pk = ?2 and status = 'failed')",
    )
    .and_then(|mut s| s.query_row([table, pk], |r| r.get(0)))
    .or_fault(WHAT)
}

/// How many rows could not be applied at or after a time, each counted once.
pub fn failed_since(conn: &Connection, since_ms: i64) -> Result<u64> {
    conn.query_row(
        "select count(*) from tidewater_inbox where status = 'failed' and at >= ?1",
        [since_ms],
        |r| r.get::<_, i64>(0),
    )
    .map(|n| u64::try_from(n).unwrap_or(0))
    .or_fault(WHAT)
}

/// History: this change was installed here.
pub fn applied(
    tx: &Connection,
    table: &str,
    pk: &str,
    version: &Version,
    now_ms: i64,
) -> Result<()> {
    tx.prepare_cached(
        "insert into tidewater_inbox (tbl, pk, op, change_key, device, status, at) \
         values (?1, ?2, ?3, ?4, ?5, 'applied', ?6)",
    )
    .and_then(|mut s| {
        s.execute(params![
            table,
            pk,
            op(version),
            version.change,
            version.device,
            now_ms
        ])
    })
    .or_fault(WHAT)?;
    Ok(())
}

/// Forgets history and acknowledged entries older than `before` (ms since 1970), a slice at a time.
/// Returns how many went.
/// Log rows of a table that has been gone for a day go with it.
pub fn prune(
    tx: &Connection,
    synced_before: i64,
    conflicts_before: i64,
    gone_before: i64,
    limit: i64,
) -> Result<usize> {
    let mut n = tx
        .execute(
            "delete from tidewater_inbox where id in (select id from tidewater_inbox \
             where status = 'applied' and at < ?1 limit ?2)",
            [synced_before, limit],
        )
        .or_fault("applying the retention")?;
    n += tx
        .execute(
            "delete from tidewater_outbox where id in (select id from tidewater_outbox \
             where status = 'synced' and synced_at < ?1 limit ?2)",
            [synced_before, limit],
        )
        .or_fault("applying the retention")?;
    n += tx
        .execute(
            "delete from tidewater_log where id in (select id from tidewater_log \
             where tbl not in (select name from tidewater_table) and at < ?1 limit ?2)",
            [gone_before, limit],
        )
        .or_fault("applying the retention")?;
    n += tx
        .execute(
            "delete from tidewater_conflict where id in (select id from tidewater_conflict \
             where seen = 1 and detected_at < ?1 limit ?2)",
            [conflicts_before, limit],
        )
        .or_fault("applying the retention")?;
    Ok(n)
}
