//! What happens when the app has written: claim, batch, send, acknowledge, until nothing is ready.
//!
//! A batch that was formed is sent again unchanged until its outcome is known. Only an error reply that
//! proves a rollback may take it apart.

use super::device::{Device, now_ms};
use super::repeat::Say;
use super::{forms, relist, retry, tell};
use crate::error::{Code, Disposition, Error, Result};
use crate::failpoint;
use crate::remote::{Batch, PushAnswer, Refusal, Remote};
use crate::report::{NoProgress, Progress};
use crate::sqlite::local::set_mirror;
use crate::sqlite::outbox::{self, Acknowledged, BatchLimits, Retry};
use crate::sqlite::queue;
use crate::sqlite::state;
use crate::world;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Attempts at once for what the server asks to try again.
const AT_ONCE: u32 = 5;

/// What a push came to.
#[derive(Debug, Default, Clone)]
pub struct Pushed {
    /// Changes acknowledged.
    pub uploaded: u64,
    /// Changes that lost a conflict.
    pub lost: u64,
    /// Changes that the server held already from somebody else.
    pub same: u64,
    /// Changes parked in this run.
    pub failed: u64,
    /// Conflicts recorded by this device's pushes.
    pub conflicts: u64,
}

impl Pushed {
    pub(super) fn add(&mut self, a: &Acknowledged, conflicts: u32) {
        self.uploaded += a.uploaded;
        self.lost += a.lost;
        self.same += a.same;
        self.failed += a.failed.len() as u64;
        self.conflicts += u64::from(conflicts);
    }
}

/// Sends everything that is ready. `force` ignores waiting times; `stop` ends it between two batches.
pub async fn drain<R: Remote>(
    device: &mut Device<R>,
    force: bool,
    stop: &CancellationToken,
    progress: &dyn Progress,
) -> Result<Pushed> {
    let mut pushed = Pushed::default();
    let mut forced = force;
    // The same answer twice means that nothing moves: a release that leads straight back here.
    let mut drifted = false;
    // What was put off for its time is not tried twice in one run, or slow rows would keep it for ever.
    let began = now_ms();
    let mut put_off = false;
    loop {
        if queue::log_waits(device.local.conn())? {
            device.claim_all(&NoProgress)?;
        }
        // After the claim: what was written after the pause is in no batch then.
        if device.heeds_pause && state::paused(device.local.conn())? {
            return Ok(pushed);
        }
        device.local.still_there()?;
        // After the claim: what is sent has rows to learn from.
        forms::settle(device).await?;
        let config = device.config.clone();
        let policy = |table: &str| config.policy(table);
        let limits = BatchLimits {
            items: device.batch_cap,
            bytes: config.upload.batch_bytes_max,
            now_ms: if put_off { began } else { now_ms() },
            force: forced,
        };
        let delay = |attempt: u32| {
            let d = retry::delay(config.retry.base_delay, config.retry.max_delay, attempt);
            i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
        };
        // Waiting times are ignored once: what is refused again in this run waits its turn.
        forced = false;
        let resumed = outbox::is_under_way(device.local.conn())?;
        let Some(batch) = outbox::next_batch(&mut device.local, limits, &policy)? else {
            return Ok(pushed);
        };
        failpoint::hit("batch_formed");
        let full = batch.items.len() >= device.batch_cap;
        let mut left_here = true;
        let sent = Instant::now();
        match send(device, &batch, &mut left_here).await {
            Ok(PushAnswer::Done {
                outcomes,
                conflicts,
            }) => {
                let rules = Retry {
                    max_attempts: config.retry.max_attempts,
                    delay_ms: &delay,
                    now_ms: now_ms(),
                };
                let done = outbox::acknowledge(&mut device.local, &batch, &outcomes, &rules)?;
                tell::batch(device, &batch, &outcomes, &done, sent.elapsed());
                device.wrote |= done.uploaded > 0;
                pushed.add(&done, conflicts);
                progress.advance(batch.items.len() as u64);
                device.slow_items = device.slow_items.saturating_sub(batch.items.len());
                if full && device.slow_items == 0 {
                    let max = config.upload.batch_size_max;
                    device.batch_cap = (device.batch_cap * 2).min(max);
                }
            }
            Ok(PushAnswer::Mismatch) => device.take_new_identity().await?,
            Ok(PushAnswer::Behind) => return Err(forgotten()),
            Ok(PushAnswer::Apart) => {
                // Only asked for by pages of existing rows; nothing was applied.
                outbox::release(&mut device.local, &batch)?;
            }
            Ok(PushAnswer::Gone) => {
                // Nothing of it was applied: number and chain fit, and the ledger did not move.
                outbox::release(&mut device.local, &batch)?;
                relist::relist(device).await?;
            }
            Err(e) if e.disposition == Some(Disposition::SchemaDrift) => {
                // The server rolled back, so the batch may be taken apart.
                outbox::release(&mut device.local, &batch)?;
                if drifted {
                    stop_table(device, &e)?;
                } else {
                    device.prepare().await?;
                }
                drifted = !drifted;
            }
            Err(e) if e.disposition == Some(Disposition::TooSlow) => {
                // Rolled back, so it may be taken apart: down to the one row that takes too long.
                let rules = Retry {
                    max_attempts: config.retry.max_attempts,
                    delay_ms: &delay,
                    now_ms: now_ms(),
                };
                let done = too_slow(device, &batch, &e, &rules)?;
                put_off |= batch.items.len() == 1;
                tell::put_off(device, &done);
                pushed.add(&done, 0);
                if e.sqlstate.is_none() {
                    return Err(e);
                }
            }
            Err(e) => {
                if left_here && !resumed {
                    // It never left: its changes simply wait again.
                    outbox::release(&mut device.local, &batch)?;
                }
                return Err(e);
            }
        }
        let makes_way = device.push_until.is_some_and(|t| Instant::now() >= t);
        if makes_way || stop.is_cancelled() {
            return Ok(pushed);
        }
    }
}

/// The chain on the server ends before what it had acknowledged.
pub(super) fn forgotten() -> Error {
    Error::new(
        Code::RemoteWentBack,
        "the remote has forgotten batches that it had acknowledged",
        "the server was restored or failed over; nothing is lost: see docs/recovery.md",
    )
}

/// Takes a batch apart that was not done in time; the next ones are half as large. A row that stands
/// alone makes way for the others: that the server gave it up is its answer about this row and counts,
/// a lock of somebody else or a line that is silent is not.
fn too_slow<R: Remote>(
    device: &mut Device<R>,
    batch: &Batch,
    e: &Error,
    rules: &Retry<'_>,
) -> Result<Acknowledged> {
    let items = batch.items.len();
    tracing::info!(items, error = %e.message, "a batch was not done in time");
    if items > 1 {
        if device.slow_items == 0 {
            device.slow_items = items;
        }
        device.batch_cap = (items / 2).max(1);
        outbox::release(&mut device.local, batch)?;
        return Ok(Acknowledged::default());
    }
    device.slow_items = device.slow_items.saturating_sub(1);
    let refusal = Refusal {
        sqlstate: e.sqlstate.clone().unwrap_or_default(),
        message: e.message.trim_start_matches("sending a batch: ").to_owned(),
        later: true,
    };
    let counts = e.sqlstate.as_deref() == Some("57014");
    outbox::postpone(&mut device.local, batch, &refusal, counts, rules)
}

/// A table whose schema differs stops by itself; the others go on.
fn stop_table<R: Remote>(device: &mut Device<R>, e: &Error) -> Result<()> {
    let Some(table) = e
        .table
        .clone()
        .filter(|t| device.tables.iter().any(|k| k.table.name == *t))
    else {
        return Err(e.clone());
    };
    let error = e.clone().on_table(&table);
    device.monitor.error(e.code.as_str());
    if device.repeats.failed(&error, Instant::now()) != Say::Nothing {
        tracing::warn!(code = e.code.as_str(), table, error = %e.message, remedy = %e.remedy, "table stops syncing");
    }
    set_mirror(device.local.conn(), &table, None)?;
    device.refused.push(error);
    device.reload()
}

/// Sends one batch until its outcome is known, or the remote is out of reach.
/// `left_here` stays true where every attempt ended before a connection was to be had.
pub(super) async fn send<R: Remote>(
    device: &mut Device<R>,
    batch: &Batch,
    left_here: &mut bool,
) -> Result<PushAnswer> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let renamed;
        let batch = if attempt > 1 && failpoint::is_planted("new_key") {
            renamed = Batch {
                key: world::ulid().to_string(),
                ..batch.clone()
            };
            &renamed
        } else {
            batch
        };
        let e = match device.remote.push(batch, &device.tables).await {
            Ok(answer) => return Ok(answer),
            Err(e) => e,
        };
        *left_here &= e.disposition == Some(Disposition::Unreached);
        let again = match e.disposition {
            Some(Disposition::RetryNow | Disposition::OutcomeUnknown) => attempt < AT_ONCE,
            _ => false,
        };
        if !again {
            return Err(e);
        }
        tracing::debug!(attempt, error = %e.message, "sending the same batch again");
        device.monitor.retried();
        let pause = retry::delay(
            Duration::from_millis(20),
            Duration::from_millis(500),
            attempt,
        );
        world::sleep(pause).await;
    }
}
