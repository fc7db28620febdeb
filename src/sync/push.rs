//! What happens when the app has written: claim, batch, send, acknowledge, until nothing is ready.
//!
//! A batch that was sent is sent again unchanged until its outcome is known. Only an error reply that
//! proves a rollback may take it apart. Outcomes are acknowledged in the order of the chain.

use super::device::{Device, now_ms};
use super::flight::Flight;
use super::repeat::Say;
use super::{forms, relist, retry, tell};
use crate::config::Config;
use crate::error::{Code, Disposition, Error, Result};
use crate::failpoint;
use crate::remote::{Batch, Outcome, PushAnswer, Refusal, Remote};
use crate::report::{NoProgress, Progress};
use crate::sqlite::local::set_mirror;
use crate::sqlite::outbox::{self, Acknowledged, BatchLimits, Retry};
use crate::sqlite::queue;
use crate::sqlite::state;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Log rows that are claimed before a batch is formed: enough that repeated changes of a row still fold,
/// and no more, so that a long log is claimed while its first part is on the way.
pub(super) const CLAIMED: usize = 10_000;

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

/// A batch as it was formed.
struct Formed {
    batch: Arc<Batch>,
    /// Whether it is as large as a batch may be now.
    full: bool,
    /// Whether an earlier run formed it, and may have sent it.
    resumed: bool,
}

/// A batch with its outcomes, which the file does not hold yet.
struct Answered {
    formed: Formed,
    outcomes: Vec<Outcome>,
    conflicts: u32,
    took: Duration,
}

/// Sends everything that is ready. `force` ignores waiting times; `stop` ends it between two batches.
pub async fn drain<R: Remote>(
    device: &mut Device<R>,
    force: bool,
    stop: &CancellationToken,
    progress: &dyn Progress,
) -> Result<Pushed> {
    let mut drain = Drain {
        progress,
        pushed: Pushed::default(),
        forced: force,
        drifted: false,
        began: now_ms(),
        put_off: false,
        ahead: None,
        answered: None,
    };
    device.cut_short = false;
    let done = drain.run(device, stop).await;
    // Where this fails, the next run finds it under way and sends it.
    let given_back = drain.give_back(device);
    done.and(given_back).map(|()| drain.pushed)
}

/// A drain at work.
///
/// One batch is on the line at a time. While it is, the outcome of the one before it is written down and
/// the one behind it is made ready, unless `max_in_flight` is 1. The one behind leaves only once
/// this one is done: until then it may be given back, for nothing of it has left.
struct Drain<'a> {
    progress: &'a dyn Progress,
    pushed: Pushed,
    /// Whether waiting times are ignored, once: what is refused again in this run waits its turn.
    forced: bool,
    /// The same answer twice means that nothing moves: a release that leads straight back here.
    drifted: bool,
    /// What was put off for its time is not tried twice in one run, or slow rows would keep it for ever.
    began: i64,
    put_off: bool,
    /// Formed behind the batch under way, and not sent.
    ahead: Option<Formed>,
    /// Answered, and not acknowledged in the file.
    answered: Option<Answered>,
}

impl Drain<'_> {
    async fn run<R: Remote>(
        &mut self,
        device: &mut Device<R>,
        stop: &CancellationToken,
    ) -> Result<()> {
        loop {
            let Some(next) = self.next(device).await? else {
                return Ok(());
            };
            let flight = Flight::launch(device, &next.batch).await;
            let beside = self.work_beside(device, &next);
            let landed = flight.landed().await;
            // What failed in the file comes first: the batch is under way there, and is sent again.
            beside?;
            match landed.answer {
                Ok(PushAnswer::Done {
                    outcomes,
                    conflicts,
                }) => {
                    // What was refused may go at once together with what stands behind it.
                    if outcomes.iter().any(|o| matches!(o, Outcome::Refused(_))) {
                        self.give_back(device)?;
                    }
                    self.answered = Some(Answered {
                        formed: next,
                        outcomes,
                        conflicts,
                        took: landed.took,
                    });
                }
                other => {
                    // It may have to be taken apart, and then nothing may stand behind it.
                    self.give_back(device)?;
                    self.not_done(device, &next, other, landed.left_here)
                        .await?;
                }
            }
            let makes_way = device.push_until.is_some_and(|t| Instant::now() >= t);
            if makes_way || stop.is_cancelled() {
                device.cut_short = queue::log_waits(device.local.conn())?;
                return self.acknowledge(device);
            }
        }
    }

    /// The batch to be sent now: the one that was made ready, or what is ready by now.
    async fn next<R: Remote>(&mut self, device: &mut Device<R>) -> Result<Option<Formed>> {
        if self.ahead.is_some() {
            if !pauses(device)? {
                return Ok(self.ahead.take());
            }
            self.acknowledge(device)?;
            return Ok(None);
        }
        self.acknowledge(device)?;
        loop {
            let claimed = device.claim_some(CLAIMED, &NoProgress)?;
            // After the claim: what was written after the pause is in no batch then.
            if pauses(device)? {
                return Ok(None);
            }
            device.local.still_there()?;
            // After the claim: what is sent has rows to learn from.
            forms::settle(device).await?;
            let resumed = outbox::is_under_way(device.local.conn())?;
            let limits = self.limits(device);
            let config = device.config.clone();
            let policy = |table: &str| config.policy(table);
            if let Some(batch) = outbox::next_batch(&mut device.local, limits, &policy)? {
                failpoint::hit("batch_formed");
                self.forced = false;
                return Ok(Some(formed(batch, limits, resumed)));
            }
            // A part of a long log may come to nothing.
            if claimed < CLAIMED {
                return Ok(None);
            }
        }
    }

    fn limits<R: Remote>(&self, device: &Device<R>) -> BatchLimits {
        BatchLimits {
            items: device.batch_cap,
            bytes: device.config.upload.batch_bytes_max,
            now_ms: if self.put_off { self.began } else { now_ms() },
            force: self.forced,
        }
    }

    /// What is done in the file while a batch is under way.
    fn work_beside<R: Remote>(&mut self, device: &mut Device<R>, sent: &Formed) -> Result<()> {
        self.acknowledge(device)?;
        let apart = sent.resumed || device.config.upload.max_in_flight < 2;
        if apart || !forms::are_settled(&device.tables) {
            return Ok(());
        }
        device.local.still_there()?;
        device.claim_some(sent.batch.items.len(), &NoProgress)?;
        if pauses(device)? {
            return Ok(());
        }
        let limits = self.limits(device);
        let config = device.config.clone();
        let policy = |table: &str| config.policy(table);
        if let Some(batch) = outbox::batch_behind(&mut device.local, limits, &policy)? {
            failpoint::hit("batch_formed");
            self.ahead = Some(formed(batch, limits, false));
        }
        Ok(())
    }

    /// Writes the outcomes of the last batch down.
    fn acknowledge<R: Remote>(&mut self, device: &mut Device<R>) -> Result<()> {
        let Some(a) = &self.answered else {
            return Ok(());
        };
        let batch = &a.formed.batch;
        let config = device.config.clone();
        let delay = delay(&config);
        let rules = retry_rules(&config, &delay);
        let done = outbox::acknowledge(&mut device.local, batch, &a.outcomes, &rules)?;
        tell::batch(device, batch, &a.outcomes, &done, a.took);
        device.wrote |= done.uploaded > 0;
        self.pushed.add(&done, a.conflicts);
        self.progress.advance(batch.items.len() as u64);
        device.slow_items = device.slow_items.saturating_sub(batch.items.len());
        if a.formed.full && device.slow_items == 0 {
            let max = config.upload.batch_size_max;
            device.batch_cap = (device.batch_cap * 2).min(max);
        }
        self.answered = None;
        Ok(())
    }

    /// What was formed and never left simply waits again.
    fn give_back<R: Remote>(&mut self, device: &mut Device<R>) -> Result<()> {
        if let Some(formed) = &self.ahead {
            outbox::release(&mut device.local, &formed.batch)?;
            self.ahead = None;
        }
        Ok(())
    }

    /// A batch came back without outcomes. Nothing stands behind it in the chain, and everything before
    /// it is acknowledged.
    async fn not_done<R: Remote>(
        &mut self,
        device: &mut Device<R>,
        formed: &Formed,
        answer: Result<PushAnswer>,
        left_here: bool,
    ) -> Result<()> {
        let batch = &*formed.batch;
        match answer {
            Ok(PushAnswer::Done { .. }) => {}
            Ok(PushAnswer::Mismatch) => device.take_new_identity().await?,
            Ok(PushAnswer::Behind) => return Err(forgotten()),
            Ok(PushAnswer::Apart) => {
                // Only asked for by pages of existing rows; nothing was applied.
                outbox::release(&mut device.local, batch)?;
            }
            Ok(PushAnswer::Gone) => {
                // Nothing of it was applied: number and chain fit, and the ledger did not move.
                outbox::release(&mut device.local, batch)?;
                relist::relist(device).await?;
            }
            Err(e) if e.disposition == Some(Disposition::SchemaDrift) => {
                // The server rolled back, so the batch may be taken apart.
                outbox::release(&mut device.local, batch)?;
                if self.drifted {
                    stop_table(device, &e)?;
                } else {
                    device.prepare().await?;
                }
                self.drifted = !self.drifted;
            }
            Err(e) if e.disposition == Some(Disposition::TooSlow) => {
                // Rolled back, so it may be taken apart: down to the one row that takes too long.
                let config = device.config.clone();
                let delay = delay(&config);
                let done = too_slow(device, batch, &e, &retry_rules(&config, &delay))?;
                self.put_off |= batch.items.len() == 1;
                tell::put_off(device, &done);
                self.pushed.add(&done, 0);
                if e.sqlstate.is_none() {
                    return Err(e);
                }
            }
            Err(e) => {
                if left_here && !formed.resumed {
                    // It never left: its changes simply wait again.
                    outbox::release(&mut device.local, batch)?;
                }
                return Err(e);
            }
        }
        Ok(())
    }
}

fn formed(batch: Batch, limits: BatchLimits, resumed: bool) -> Formed {
    Formed {
        full: batch.items.len() >= limits.items,
        batch: Arc::new(batch),
        resumed,
    }
}

/// Whether a pause ends the push now.
fn pauses<R: Remote>(device: &Device<R>) -> Result<bool> {
    Ok(device.heeds_pause && state::paused(device.local.conn())?)
}

/// The waiting time before an attempt, in ms.
fn delay(config: &Config) -> impl Fn(u32) -> i64 + use<> {
    let (base, max) = (config.retry.base_delay, config.retry.max_delay);
    move |attempt| i64::try_from(retry::delay(base, max, attempt).as_millis()).unwrap_or(i64::MAX)
}

fn retry_rules<'a>(config: &Config, delay_ms: &'a dyn Fn(u32) -> i64) -> Retry<'a> {
    Retry {
        max_attempts: config.retry.max_attempts,
        delay_ms,
        now_ms: now_ms(),
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
