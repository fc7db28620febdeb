//! The inbox: downloaded rows that could not be applied, and the history of those that were.
//!
//! A failed row keeps its content here so that a person can see it; what is installed later always
//! comes fresh from the server, by its note.

use super::fault::OrFault;
use super::journal::{self, Detail, Kind, Place};
use super::status_view;
use crate::error::Result;
use crate::remote::Version;
use crate::report::Pruned;
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
    let told: bool = tx
        .prepare_cached(
            "select exists (select 1 from tidewater_inbox where tbl = ?1 and pk = ?2 \
             and status = 'failed' and change_key is ?3 and error is ?4)",
        )
        .and_then(|mut s| s.query_row(params![table, pk, version.change, error], |r| r.get(0)))
        .or_fault(WHAT)?;
    if !told {
        // It is tried at every pull, and told once.
        let detail = Detail {
            code: Some("SYNC-005".to_owned()),
            message: Some(error.to_owned()),
            device: Some(version.device.clone()),
            ..Detail::default()
        };
        let (place, change) = (Place::Row(table, pk), Some(version.change.as_str()));
        journal::record(tx, now_ms, Kind::NotApplied, place, change, &detail)?;
    }
    settle(tx, table, pk)?;
    tx.prepare_cached(
        "insert into tidewater_inbox (tbl, pk, op, change_key, device, status, error, payload, at, k, ki) \
         values (?1, ?2, ?3, ?4, ?5, 'failed', ?6, ?7, ?8, ?9, ?9)",
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
            now_ms,
            status_view::shown_of(pk)
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
    epoch: i64,
    now_ms: i64,
) -> Result<()> {
    tx.prepare_cached(
        "insert into tidewater_inbox (tbl, pk, op, change_key, device, status, at, epoch) \
         values (?1, ?2, ?3, ?4, ?5, 'applied', ?6, ?7)",
    )
    .and_then(|mut s| {
        s.execute(params![
            table,
            pk,
            op(version),
            version.change,
            version.device,
            now_ms,
            epoch
        ])
    })
    .or_fault(WHAT)?;
    Ok(())
}

/// Everything older goes, ms since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Cutoffs {
    /// Of acknowledged entries, of the history of applied rows and of the journal.
    pub synced: i64,
    /// Of conflicts that somebody acknowledged.
    pub conflicts: i64,
    /// Of what was logged of a table that is gone.
    pub gone: i64,
}

/// Table, and which of its rows are older than `?1`: in the order of the fields of [`Pruned`].
const OLD: [(&str, &str); 5] = [
    ("tidewater_outbox", "status = 'synced' and synced_at < ?1"),
    ("tidewater_inbox", "status = 'applied' and at < ?1"),
    ("tidewater_conflict", "seen = 1 and detected_at < ?1"),
    (
        "tidewater_log",
        "tbl not in (select name from tidewater_table) and at < ?1",
    ),
    ("tidewater_event", "at < ?1"),
];

fn each(
    cutoffs: Cutoffs,
    mut count: impl FnMut(&str, &str, i64) -> rusqlite::Result<u64>,
) -> Result<Pruned> {
    let mut n = [0; OLD.len()];
    let limits = [
        cutoffs.synced,
        cutoffs.synced,
        cutoffs.conflicts,
        cutoffs.gone,
        cutoffs.synced,
    ];
    for (i, (table, old)) in OLD.iter().enumerate() {
        n[i] = count(table, old, limits[i]).or_fault("applying the retention")?;
    }
    let [synced, applied, conflicts, logged, events] = n;
    Ok(Pruned {
        synced,
        applied,
        conflicts,
        logged,
        events,
    })
}

/// Forgets what is older than the cutoffs, at most `limit` rows of each table.
pub fn prune(tx: &Connection, cutoffs: Cutoffs, limit: i64) -> Result<Pruned> {
    each(cutoffs, |table, old, before| {
        let sql = format!(
            "delete from {table} where rowid in (select rowid from {table} where {old} limit ?2)"
        );
        // The one table without rowids has its id for a key.
        let sql = match table {
            "tidewater_conflict" => sql.replace("rowid", "id"),
            _ => sql,
        };
        tx.prepare_cached(&sql)?
            .execute([before, limit])
            .map(|n| n as u64)
    })
}

/// How much [`prune`] would forget in all.
pub fn prunable(conn: &Connection, cutoffs: Cutoffs) -> Result<Pruned> {
    each(cutoffs, |table, old, before| {
        let sql = format!("select count(*) from {table} where {old}");
        conn.query_row(&sql, [before], |r| r.get::<_, i64>(0))
            .map(|n| u64::try_from(n).unwrap_or(0))
    })
}
