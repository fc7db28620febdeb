//! What the engine reports of its work: a line of the log where it matters, and the numbers.
//!
//! Names, codes and counts only. Nothing here decides anything.

use super::device::{Device, now_ms};
use super::repeat::Say;
use crate::error::{Code, Error};
use crate::metrics::{BatchSeen, Direction};
use crate::model::{ChangeKey, Side, Value};
use crate::remote::{Batch, ConflictRecord, FeedRow, Outcome, Remote};
use crate::report::Time;
use crate::sqlite::brake;
use crate::sqlite::outbox::Acknowledged;
use crate::sqlite::state;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The server's time as this device knows it.
fn server_now<R: Remote>(device: &Device<R>) -> i64 {
    now_ms() + state::number(device.local.conn(), "clock_offset_ms").unwrap_or(0)
}

/// A batch has its outcome and is acknowledged.
pub fn batch<R: Remote>(
    device: &Device<R>,
    batch: &Batch,
    outcomes: &[Outcome],
    done: &Acknowledged,
    took: Duration,
) {
    let now = server_now(device);
    for (item, outcome) in batch.items.iter().zip(outcomes) {
        if !matches!(outcome, Outcome::Refused(_)) {
            let edited = item.change.millis();
            device.monitor.lag(Direction::Upload, edited, now);
        }
    }
    parked(device, done);
    let bytes = batch
        .items
        .iter()
        .flat_map(|i| &i.row.0)
        .map(|(_, v)| size(v));
    let seen = BatchSeen {
        at: Time::now(),
        rows: batch.items.len() as u64,
        bytes: bytes.sum(),
        took,
        uploaded: done.uploaded,
        same: done.same,
        lost: done.lost,
        later: done.later,
        failed: done.failed.len() as u64,
    };
    tracing::debug!(
        items = seen.rows,
        uploaded = seen.uploaded,
        lost = seen.lost,
        later = seen.later,
        failed = seen.failed,
        ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "batch sent"
    );
    device.monitor.reached();
    device.monitor.batch(seen);
}

/// Changes were parked: one line for what was refused alike, however much it is.
fn parked<R: Remote>(device: &Device<R>, done: &Acknowledged) {
    let mut parked: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (table, code) in &done.failed {
        *parked.entry((table, code)).or_default() += 1;
        device.monitor.error(code);
    }
    for ((table, code), changes) in parked {
        tracing::warn!(
            code,
            table,
            changes,
            "changes were refused and are parked; see `tidewater queue --errors`"
        );
    }
}

/// Deletes that came with a schema change wait for the user's word.
pub fn held(table: &str, deletes: u64) {
    tracing::warn!(
        code = Code::MassDelete.as_str(),
        table,
        deletes,
        remedy = brake::REMEDY,
        "a schema change took more than a fifth of the rows away; the deletes are held back"
    );
}

/// A change was not done in time and was put off, or parked.
pub fn put_off<R: Remote>(device: &Device<R>, done: &Acknowledged) {
    parked(device, done);
    device.monitor.retried();
    device.monitor.put_off(done.later, done.failed.len() as u64);
}

fn size(value: &Value) -> u64 {
    match value {
        Value::Null => 0,
        Value::Int(_) | Value::Real(_) => 8,
        Value::Text(text) => text.len() as u64,
        Value::Blob(bytes) | Value::BadText(bytes) => bytes.len() as u64,
    }
}

/// Rows of the feed have arrived.
pub fn arrived<R: Remote>(device: &Device<R>, rows: &[FeedRow]) {
    let now = server_now(device);
    for row in rows {
        if let Some(change) = ChangeKey::parse(&row.version.change) {
            device
                .monitor
                .lag(Direction::Download, change.millis(), now);
        }
    }
}

/// A conflict became known: one line each, without values.
pub fn conflict<R: Remote>(device: &Device<R>, c: &ConflictRecord) {
    let winner = match c.winner {
        Side::Local => "local",
        Side::Remote => "remote",
    };
    device.monitor.conflict(winner);
    tracing::warn!(
        code = Code::Conflict.as_str(),
        table = c.table,
        id = c.id,
        kind = c.kind.as_str(),
        policy = c.policy.as_str(),
        winner,
        "conflict decided; the loser is kept"
    );
}

/// Rows that could not be applied in this pull. Each pull tries them again: told when their number
/// changes.
pub fn stuck<R: Remote>(device: &mut Device<R>, rows: u64) {
    if rows == device.stuck {
        return;
    }
    device.stuck = rows;
    if rows == 0 {
        tracing::info!("every row that arrived is applied now");
    } else {
        tracing::warn!(
            code = Code::Batch.as_str(),
            rows,
            "rows that arrived cannot be applied here; they wait and are tried again"
        );
    }
}

/// Tables whose mirror cannot be used, told once and then now and then.
pub fn refused<R: Remote>(device: &mut Device<R>, before: &[Error]) {
    let now = Instant::now();
    for e in &device.refused {
        device.monitor.error(e.code.as_str());
        match device.repeats.failed(e, now) {
            Say::First => {
                tracing::warn!(code = e.code.as_str(), table = e.table, error = %e.message, remedy = %e.remedy, "table is not mirrored");
            }
            Say::Again(times, lasted) => {
                tracing::warn!(code = e.code.as_str(), table = e.table, error = %e.message, times, seconds = lasted.as_secs(), "table is still not mirrored");
            }
            Say::Nothing => {}
        }
    }
    let healthy = |e: &&Error| !device.refused.iter().any(|r| r.table == e.table);
    for e in before.iter().filter(healthy) {
        tracing::info!(table = e.table, "table is mirrored");
    }
}

/// The clock's offset, told when it passes the limit in either direction.
pub fn clock<R: Remote>(device: &mut Device<R>, offset_ms: i64, shown: bool) {
    if device.clock_told == shown {
        return;
    }
    device.clock_told = shown;
    if shown {
        device.monitor.error(Code::Clock.as_str());
        tracing::warn!(
            code = Code::Clock.as_str(),
            seconds = -offset_ms / 1000,
            "this device's clock is off the server's; edits are stamped with the corrected time"
        );
    } else {
        tracing::info!("this device's clock agrees with the server's again");
    }
}
