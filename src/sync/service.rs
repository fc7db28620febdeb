//! `run`: the device kept in sync for as long as the process lives.
//!
//! One task, two timers, and a look at `data_version` every 50 ms: a commit of the app wakes it, and so
//! does a request or a `pause` of another process, for both are commits too. A burst of commits is
//! waited out for a moment, so that it travels in few batches.

use super::circuit::{Circuit, Failure};
use super::device::{Device, now_ms};
use super::ear::Ear;
use super::lock;
use super::mount;
use super::now::{self, Answer, Request};
use super::observer::Observer;
use super::repeat::{Repeats, Say};
use super::retry::spread;
use super::{connect, init};
use crate::config::Config;
use crate::error::{Code, Disposition, Error, Result};
use crate::metrics::Monitor;
use crate::remote::Remote;
use crate::report::{self, ErrorReport, NoProgress, NowReport};
use crate::sqlite::local::{Local, schema_is_known};
use crate::sqlite::{queue, request, state};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often the file is looked at: 0.25 % of a core.
const TICK: Duration = Duration::from_millis(50);

/// A burst of commits is over after this much quiet ...
const QUIET: Duration = Duration::from_millis(150);

/// ... and is not waited out for longer than this.
const BURST: Duration = Duration::from_secs(1);

/// After a notification the feed is read within this: all devices of a workspace hear it at once.
const HEARD: Duration = Duration::from_millis(250);

/// How long a starting service waits for a command that holds the device.
const COMMAND: Duration = Duration::from_secs(30);

/// How often the service looks whether the retention is due.
const PRUNE_LOOK: Duration = Duration::from_secs(60);

/// How often the observer hears that the service is alive.
const BEAT: Duration = Duration::from_secs(1);

/// See `ops::run`.
pub async fn run(
    config: &Config,
    init: bool,
    stop: CancellationToken,
    observer: &dyn Observer,
    monitor: Arc<Monitor>,
) -> Result<()> {
    if init && !init::wait_and_init(config, &stop, observer).await? {
        return Ok(());
    }
    let path = config.path()?.to_owned();
    let local = Local::open(&path)?;
    mount::require_local(config, &path)?;
    local.require_initialised()?;
    let Some(held) = hold(&path, &stop).await? else {
        return Ok(());
    };
    let mut local = Some(local);
    tracing::info!(
        device = config.device.name,
        schema = config.remote.schema,
        "tidewater is running"
    );
    observer.ready();
    loop {
        let opened = match local.take() {
            Some(l) => Ok(l),
            None => Local::open(&path).and_then(|l| l.require_initialised().map(|()| l)),
        };
        let lived = match opened {
            Ok(opened) => {
                let remote = connect::remote(config)?;
                let mut device = Device::new(opened, remote, config.clone())?;
                device.report_to(Arc::clone(&monitor));
                Service::new(device, &held, observer).live(&stop).await
            }
            Err(e) => Err(e),
        };
        match lived {
            Ok(()) => {
                tracing::info!("tidewater stopped");
                return Ok(());
            }
            // The file was replaced under us, or the disk is full or fails: open what is there, until it
            // can be opened again.
            Err(e)
                if e.code == Code::LocalUnusable
                    && matches!(
                        e.disposition,
                        Some(Disposition::Reconnect | Disposition::RetryNow)
                    ) =>
            {
                tracing::warn!(code = e.code.as_str(), error = %e.message, "opening the file again");
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(Duration::from_millis(500)) => {}
                }
            }
            Err(e) => return Err(e),
        }
    }
}

/// Takes the device. A command that is just at work is waited for; another service is not.
async fn hold(path: &Path, stop: &CancellationToken) -> Result<Option<lock::Held>> {
    let started = Instant::now();
    loop {
        match lock::take(path, true)? {
            Ok(held) => return Ok(Some(held)),
            Err(holder) if holder.service || started.elapsed() > COMMAND => {
                return Err(lock::taken(path, holder));
            }
            Err(_) => tokio::select! {
                () = stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(TICK) => {}
            },
        }
    }
}

struct Service<'a, R> {
    device: Device<R>,
    held: &'a lock::Held,
    observer: &'a dyn Observer,
    /// What the observer was told last.
    told: String,
    circuit: Circuit,
    /// How other processes see it.
    shown: report::Circuit,
    /// Whether the last look found it paused.
    paused: bool,
    /// Hears of others' writes, where that is wanted and possible.
    ear: Option<Ear>,
    /// The last error, as `status` shows it.
    last_error: Option<(Code, String)>,
    /// Errors of syncs, for the log.
    failures: Repeats,
    /// The app's lock, for the log.
    busy: Repeats,
    next_push: Instant,
    next_pull: Instant,
    next_prune: Instant,
    data_version: i64,
    /// A burst of commits: when it began, when it last grew.
    burst: Option<(Instant, Instant)>,
}

impl<'a, R: Remote> Service<'a, R> {
    fn new(device: Device<R>, held: &'a lock::Held, observer: &'a dyn Observer) -> Self {
        let retry = &device.config.retry;
        let now = Instant::now();
        Service {
            circuit: Circuit::new(retry.base_delay, retry.max_delay),
            shown: report::Circuit::Closed,
            paused: false,
            ear: device.config.download.listen.then(Ear::new),
            device,
            held,
            observer,
            told: String::new(),
            last_error: None,
            failures: Repeats::default(),
            busy: Repeats::default(),
            next_push: now,
            next_pull: now,
            next_prune: now + Duration::from_secs(10),
            data_version: -1,
            burst: None,
        }
    }

    /// Lives until `stop`, or until the file cannot be used any more.
    async fn live(mut self, stop: &CancellationToken) -> Result<()> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let observer = self.observer;
        self.held.tell(self.shown);
        self.device.monitor.circuit(self.shown);
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = beat.tick() => observer.alive(),
                _ = tick.tick() => {}
            }
            let done = {
                let mut turn = pin!(self.turn(stop));
                loop {
                    tokio::select! {
                        done = &mut turn => break done,
                        _ = beat.tick() => observer.alive(),
                    }
                }
            };
            match done {
                Ok(()) => self.not_busy(),
                Err(e) if busy(&e) => self.tell_busy(&e),
                Err(e) => return Err(e),
            }
        }
    }

    /// One look: requests first, then what woke us, then the timers.
    async fn turn(&mut self, stop: &CancellationToken) -> Result<()> {
        self.watch()?;
        self.answer_requests(stop).await?;
        let paused = state::paused(self.device.local.conn())?;
        let before = std::mem::replace(&mut self.paused, paused);
        if paused && !before {
            tracing::info!("paused; changes queue here until `tidewater resume`");
        }
        if before && !paused {
            tracing::info!("resumed");
            // Whoever resumes wants to see it.
            self.circuit.asked();
            self.next_push = Instant::now();
            self.next_pull = self.next_push;
        }
        if paused {
            self.tell("paused".to_owned());
            return Ok(());
        }
        self.listen().await?;
        let now = Instant::now();
        let written = self.burst_is_over(now);
        if written {
            self.circuit.written(now);
        }
        let (push, pull) = (written || now >= self.next_push, now >= self.next_pull);
        if (push || pull) && self.circuit.allows(now) {
            self.device.local.still_there()?;
            let work = Request {
                push,
                pull,
                force: false,
            };
            self.device.heeds_pause = true;
            self.device.push_until = Some(now + self.device.config.download.poll_interval);
            self.begin();
            let done = now::sync(&mut self.device, &work, stop, &NoProgress).await;
            self.device.heeds_pause = false;
            self.device.push_until = None;
            self.judge(pull, &done);
            self.settle(push, pull, done)?;
        }
        if now >= self.next_prune {
            self.next_prune = now + PRUNE_LOOK;
            self.device.prune_if_due()?;
        }
        Ok(())
    }

    /// Keeps listening while the remote is in reach, and pulls soon after something was heard.
    async fn listen(&mut self) -> Result<()> {
        let in_reach = self.last_error.is_none() && !self.told.is_empty();
        let Some(ear) = self.ear.as_mut().filter(|_| in_reach) else {
            return Ok(());
        };
        if ear.heard() {
            let soon = Instant::now() + spread(HEARD);
            self.next_pull = self.next_pull.min(soon);
        }
        if ear.rests() {
            let device = self.device.id()?;
            ear.keep(&*self.device.remote, &device).await;
        }
        Ok(())
    }

    /// Notices commits of others.
    fn watch(&mut self) -> Result<()> {
        let version = self.device.local.data_version()?;
        if version == self.data_version {
            return Ok(());
        }
        self.data_version = version;
        let now = Instant::now();
        let conn = self.device.local.conn();
        if queue::log_waits(conn)? || !schema_is_known(conn)? {
            let began = self.burst.map_or(now, |(b, _)| b);
            self.burst = Some((began, now));
        }
        Ok(())
    }

    fn burst_is_over(&self, now: Instant) -> bool {
        self.burst
            .is_some_and(|(began, grew)| now - grew >= QUIET || now - began >= BURST)
    }

    /// Shows other processes how the circuit stands, where that changed.
    fn show(&mut self) {
        let state = self.circuit.state();
        if self.shown != state {
            self.held.tell(state);
            self.device.monitor.circuit(state);
            self.shown = state;
        }
    }

    /// A try begins, and whoever asks is told so.
    fn begin(&mut self) {
        if self.last_error.is_some() {
            self.device.monitor.retried();
        }
        self.circuit.begin();
        self.show();
    }

    /// What a sync says of the remote.
    fn judge(&mut self, pull: bool, done: &Result<NowReport>) {
        let now = Instant::now();
        match done {
            // A push of nothing asks nobody.
            Ok(report) if !pull && report.uploaded == 0 => self.circuit.untried(),
            Ok(_) => self.circuit.succeeded(now),
            Err(e) if e.code == Code::LocalUnusable => self.circuit.untried(),
            Err(e) => self.circuit.failed(now, Failure::of(e)),
        }
        self.show();
    }

    /// Plans the next turn after a sync, and tells an error once.
    fn settle(&mut self, push: bool, pull: bool, done: Result<NowReport>) -> Result<()> {
        let now = Instant::now();
        if push {
            self.burst = None;
            self.next_push = now + self.device.config.upload.poll_interval;
        }
        if pull {
            self.next_pull = now + self.device.config.download.poll_interval;
        }
        match done {
            Ok(report) => {
                self.tell(match report.pending {
                    0 => "in step".to_owned(),
                    n => format!("{n} changes wait"),
                });
                if (pull || report.uploaded > 0)
                    && let Some((times, lasted)) = self.failures.over(now)
                {
                    tracing::info!(
                        failures = times,
                        seconds = lasted.as_secs(),
                        "syncing works again"
                    );
                }
                self.last_error = None;
                self.device.forget_prepared();
                // An entry that waits for its next attempt is sent when it is due, not at the next poll.
                let clock = now_ms();
                if let Some(due) = queue::next_due(self.device.local.conn(), clock)? {
                    let wait = u64::try_from(due - clock).unwrap_or(0).max(10);
                    self.next_push = self.next_push.min(now + Duration::from_millis(wait));
                }
                if self.device.cut_short {
                    self.next_push = now;
                }
                self.device.report_problems(None)
            }
            Err(e) if e.code == Code::LocalUnusable => Err(e),
            Err(e) => {
                self.tell(format!("changes queue: {e}"));
                // Both are due as soon as the circuit allows.
                self.next_push = now;
                self.next_pull = now;
                self.device.monitor.unreached(&e);
                self.tell_failure(&e, now);
                let told = (e.code, e.message.clone());
                if self.last_error.as_ref() != Some(&told) {
                    self.last_error = Some(told);
                    self.device.report_problems(Some(&e))?;
                }
                Ok(())
            }
        }
    }

    /// Tells the observer how things stand, once.
    fn tell(&mut self, text: String) {
        if self.told != text {
            self.observer.state(&text);
            self.told = text;
        }
    }

    fn tell_failure(&mut self, e: &Error, now: Instant) {
        match self.failures.failed(e, now) {
            Say::First => tracing::warn!(
                code = e.code.as_str(),
                table = e.table,
                error = %e.message,
                remedy = %e.remedy,
                "syncing failed; changes queue here and it is tried again"
            ),
            Say::Again(times, lasted) => tracing::warn!(
                code = e.code.as_str(),
                table = e.table,
                error = %e.message,
                failures = times,
                seconds = lasted.as_secs(),
                "syncing still fails"
            ),
            Say::Nothing => {}
        }
    }

    fn tell_busy(&mut self, e: &Error) {
        self.device.monitor.error(e.code.as_str());
        let say = self.busy.failed(e, Instant::now());
        if let Say::First | Say::Again(..) = say {
            tracing::warn!(
                code = e.code.as_str(),
                error = %e.message,
                "another program holds the file's lock; it is tried again"
            );
        }
    }

    fn not_busy(&mut self) {
        if let Some((times, lasted)) = self.busy.over(Instant::now()) {
            tracing::info!(
                failures = times,
                seconds = lasted.as_secs(),
                "the file's lock is free again"
            );
        }
    }

    /// Does what other processes asked for, even when paused or waiting.
    async fn answer_requests(&mut self, stop: &CancellationToken) -> Result<()> {
        while let Some((id, text)) = request::next(&self.device.local)? {
            let Ok(work) = serde_json::from_str::<Request>(&text) else {
                let refused = Err(Error::new(
                    Code::AnotherInstance,
                    "the running service does not know this request",
                    "restart the service with the newer version",
                ));
                self.answer(id, &refused)?;
                continue;
            };
            self.begin();
            let done = now::sync(&mut self.device, &work, stop, &NoProgress).await;
            // Before the answer: whoever gets it finds the circuit as it is now.
            self.judge(work.pull, &done);
            self.answer(id, &done)?;
            self.settle(work.push, work.pull, done)?;
        }
        Ok(())
    }

    fn answer(&mut self, id: i64, done: &Result<NowReport>) -> Result<()> {
        let answer = match done {
            Ok(report) => Answer::Done(report.clone()),
            Err(e) => Answer::Failed(ErrorReport::from(e), e.code.exit_code()),
        };
        let json = serde_json::to_string(&answer).unwrap_or_default();
        request::answer(&mut self.device.local, id, &json, now_ms())
    }
}

/// Whether the app simply holds the lock for long: tried again at the next look.
fn busy(e: &Error) -> bool {
    e.code == Code::LocalUnusable && e.disposition == Some(Disposition::RetryNow)
}
