//! The outbox as people and the schedule see it: what waits, what failed, what is given up; and the new
//! identity of a copied file.
//!
//! `discard` is the only way in which a queued change is ever dropped, and it keeps what it drops.

use super::brake;
use super::fault::OrFault;
use super::first;
use super::journal::{self, Detail, Kind, Place};
use super::local::Local;
use super::notes;
use super::state;
use super::status_view;
use crate::error::Result;
use crate::model::{ChangeKey, Key};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashSet;

const WHAT: &str = "working the outbox";

/// How many changes wait to be sent now, and how many at all. No wait is as long as two hours: one that
/// seems to be was measured by a clock that has been set back since, and is over. So it is wherever
/// `next_attempt_at` is read.
pub fn waiting(conn: &Connection, now_ms: i64) -> Result<(u64, u64)> {
    conn.query_row(
        "select count(case when coalesce(next_attempt_at, 0) not between ?1 + 1 and ?1 + 7200000 then 1 end), \
         count(*) from tidewater_outbox where status in ('pending', 'uploading')",
        [now_ms],
        |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?)),
    )
    .map(|(ready, all)| {
        (
            u64::try_from(ready).unwrap_or(0),
            u64::try_from(all).unwrap_or(0),
        )
    })
    .or_fault(WHAT)
}

/// When the next waiting change is due, ms since 1970.
pub fn next_due(conn: &Connection, now_ms: i64) -> Result<Option<i64>> {
    if first::waits(conn)? {
        return Ok(Some(0));
    }
    conn.query_row(
        "select min(case when next_attempt_at <= ?1 + 7200000 then next_attempt_at else 0 end) \
         from tidewater_outbox where status = 'pending' \
         and tbl in (select name from tidewater_table where mirror is not null)",
        [now_ms],
        |r| r.get(0),
    )
    .or_fault(WHAT)
}

/// Gives the waiting changes of a row an older base, so that the server judges them as concurrent.
pub fn rebase(tx: &Connection, table: &str, pk: &str, base: i64) -> Result<()> {
    tx.execute(
        "update tidewater_outbox set base = ?3 where tbl = ?1 and pk = ?2 \
         and status in ('pending', 'failed')",
        params![table, pk, base],
    )
    .or_fault(WHAT)?;
    Ok(())
}

/// Whether a row's change was refused and waits for somebody to act.
pub fn is_parked(conn: &Connection, table: &str, pk: &str) -> Result<bool> {
    conn.prepare_cached(
        "select exists (select 1 from tidewater_outbox where tbl = ?1 and pk = ?2 and status = 'failed')",
    )
    .and_then(|mut s| s.query_row([table, pk], |r| r.get(0)))
    .or_fault(WHAT)
}

/// How many rows of the key log are to be claimed.
pub fn log_rows(conn: &Connection) -> Result<i64> {
    let mut s = conn
        .prepare_cached(
            "select count(*) from tidewater_log where tbl in (select name from tidewater_table) \
             and id between ?1 and ?2",
        )
        .or_fault(WHAT)?;
    let mut rows = 0;
    for (from, to) in first::claimed(conn)? {
        rows += s
            .query_row([from, to], |r| r.get::<_, i64>(0))
            .or_fault(WHAT)?;
    }
    Ok(rows)
}

/// Whether this batch is under way: sent perhaps, and not confirmed.
pub fn was_sent(conn: &Connection, seq: i64, key: Option<&str>) -> Result<bool> {
    conn.query_row(
        "select exists (select 1 from tidewater_batch where seq = ?1 and batch_key is ?2)",
        params![seq, key],
        |r| r.get(0),
    )
    .or_fault(WHAT)
}

/// Whether the key log holds anything that is to be claimed.
pub fn log_waits(conn: &Connection) -> Result<bool> {
    let mut s = conn
        .prepare_cached(&format!(
            "select exists (select 1 from tidewater_log where tbl in (select name from \
             tidewater_table) and not {} and id between ?1 and ?2)",
            brake::UNCOUNTED
        ))
        .or_fault(WHAT)?;
    for (from, to) in first::claimed(conn)? {
        if s.query_row([from, to], |r| r.get(0)).or_fault(WHAT)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The change keys of failed entries that nobody has touched since `before` (ms since 1970): a row that
/// the app edited later folded into its entry, and counts from that edit.
pub fn failed_before(conn: &Connection, before: i64) -> Result<Vec<String>> {
    let mut s = conn
        .prepare_cached(
            "select change_key from tidewater_outbox where status = 'failed' \
             and max(created_at, edited_at) < ?1 order by id",
        )
        .or_fault(WHAT)?;
    s.query_map([before], |r| r.get(0))
        .and_then(Iterator::collect)
        .or_fault(WHAT)
}

/// Failed entries go back to pending; `keys` empty means all. Returns their ids.
pub fn retry_failed(
    local: &mut Local,
    keys: &[String],
    force: bool,
    now_ms: i64,
) -> Result<Vec<i64>> {
    let tx = local.begin()?;
    let ids = select_failed(&tx, keys, force)?;
    for id in &ids {
        let (table, pk, change): (String, String, String) = tx
            .query_row(
                "select tbl, pk, change_key from tidewater_outbox where id = ?1",
                [id],
                |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)),
            )
            .or_fault(WHAT)?;
        let (place, told) = (Place::Row(&table, &pk), Detail::default());
        journal::record(&tx, now_ms, Kind::Retried, place, Some(&change), &told)?;
        tx.execute(
            "update tidewater_outbox set status = 'pending', attempts = 0, next_attempt_at = null \
             where id = ?1",
            [id],
        )
        .or_fault(WHAT)?;
    }
    tx.commit().or_fault(WHAT)?;
    Ok(ids)
}

fn select_failed(tx: &Connection, keys: &[String], waiting_too: bool) -> Result<Vec<i64>> {
    let mut s = tx
        .prepare(
            "select id, change_key from tidewater_outbox where status = 'failed' \
             or (?1 and status = 'pending' and next_attempt_at is not null) order by id",
        )
        .or_fault(WHAT)?;
    let rows = s
        .query_map([waiting_too], |r| {
            Ok((r.get::<_, i64>(0)?, r.get::<_, String>(1)?))
        })
        .or_fault(WHAT)?;
    let keys: HashSet<&String> = keys.iter().collect();
    let mut out = Vec::new();
    for row in rows {
        let (id, key) = row.or_fault(WHAT)?;
        if keys.is_empty() || keys.contains(&key) {
            out.push(id);
        }
    }
    Ok(out)
}

/// Gives up failed entries: the only way in which a queued change is ever dropped. Each is kept as a
/// `discarded` conflict, and its row is fetched again. Returns the keys that were discarded.
pub fn discard(local: &mut Local, keys: &[String], now_ms: i64) -> Result<Vec<String>> {
    let tx = local.begin()?;
    let token = state::token(&tx)?;
    let current = notes::intern(&tx, &token)?;
    let mut done = Vec::new();
    for key in keys {
        let found: Option<(i64, String, String, Option<String>)> = tx
            .query_row(
                "select id, tbl, pk, payload from tidewater_outbox \
                 where change_key = ?1 and status = 'failed'",
                [key],
                |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)),
            )
            .optional()
            .or_fault(WHAT)?;
        let Some((id, table, pk, payload)) = found else {
            continue;
        };
        tx.execute(
            "insert into tidewater_conflict (id, tbl, pk, kind, policy, winner, local, local_change, \
             local_at, detected_at, k, ki) values (?1, ?2, ?3, 'discarded', 'last_write_wins', 'remote', \
             ?4, ?5, ?6, ?7, ?8, ?8)",
            params![
                crate::world::ulid().to_string(),
                table,
                pk,
                payload,
                key,
                ChangeKey::parse(key).map_or(0, |c| c.millis()),
                now_ms,
                status_view::shown_of(&pk)
            ],
        )
        .or_fault(WHAT)?;
        tx.execute("delete from tidewater_outbox where id = ?1", [id])
            .or_fault(WHAT)?;
        if let Some(key) = Key::decode(&pk) {
            first::forget_key(&tx, &table, &key)?;
        }
        if !crate::failpoint::is_planted("discard_without_note") {
            notes::leave(&tx, &table, &pk, current)?;
        }
        done.push(key.clone());
    }
    state::bump_epoch(&tx)?;
    tx.commit().or_fault(WHAT)?;
    Ok(done)
}

/// Why a file takes a new identity: the code, if one says it, and the sentence for the journal.
pub type Why = (Option<&'static str>, &'static str);

/// SYNC-008.
pub const COPIED: Why = (Some("SYNC-008"), "this file was copied or restored");

/// The collection mark passed the file's cursor.
pub const AWAY: Why = (
    None,
    "this device was away for longer than deletes are remembered",
);

/// SYNC-007, and the ledger does not know the device.
pub const FORGOTTEN: Why = (
    Some("SYNC-007"),
    "the remote does not know this device any more",
);

/// Takes a new identity: the chain starts anew, batches dissolve, what was not sent is
/// kept with its keys and bases and marked as carried over. Cursor and notes stay: they are honest.
pub fn take_new_identity(local: &mut Local, why: Why, now_ms: i64) -> Result<String> {
    let tx = local.begin()?;
    let former = state::device_id(&tx)?;
    let id = crate::world::ulid().to_string();
    state::change_id(&tx, &id)?;
    dissolve(&tx)?;
    let told = Detail {
        code: why.0.map(str::to_owned),
        message: Some(format!("{}; it was {former}", why.1)),
        device: Some(id.clone()),
        ..Detail::default()
    };
    journal::record(&tx, now_ms, Kind::NewIdentity, Place::Device, None, &told)?;
    tx.commit().or_fault(WHAT)?;
    Ok(id)
}

/// The chain starts anew: batches dissolve, and what was not sent waits again as carried over.
pub fn dissolve(tx: &Connection) -> Result<()> {
    state::set_number(tx, "push_seq", 0)?;
    state::set_number(tx, "confirmed", 0)?;
    state::put(tx, "chain_key", None)?;
    tx.execute("delete from tidewater_batch", [])
        .or_fault(WHAT)?;
    // Two entries of one row fold: the newer content, the older base and place.
    tx.execute_batch(
        "update tidewater_outbox set base = (select o.base from tidewater_outbox o \
         where o.tbl = tidewater_outbox.tbl and o.pk = tidewater_outbox.pk and o.status <> 'synced' \
         order by o.id limit 1), known = (select o.known from tidewater_outbox o \
         where o.tbl = tidewater_outbox.tbl and o.pk = tidewater_outbox.pk and o.status <> 'synced' \
         order by o.id limit 1) where status <> 'synced'; \
         delete from tidewater_outbox where status <> 'synced' and exists (select 1 from \
         tidewater_outbox o where o.tbl = tidewater_outbox.tbl and o.pk = tidewater_outbox.pk \
         and o.status <> 'synced' and o.id > tidewater_outbox.id); \
         update tidewater_outbox set status = 'pending', batch = null where status = 'uploading'; \
         update tidewater_outbox set carried = 1 where status <> 'synced'",
    )
    .or_fault(WHAT)?;
    state::bump_epoch(tx)
}
