//! What the service tells of itself: counters, and the little that is known only inside the process.
//!
//! The engine reports through one [`Monitor`], which its device owns; the endpoint reads it. Nothing here
//! does I/O, blocks for longer than a moment, or can fail once it is made, so telling costs the engine
//! nothing. Only table names, codes and numbers enter: never a key or a value of a row. The only importer of
//! `prometheus`.

mod families;

pub use families::{CONTENT_TYPE, Metrics};

use crate::error::{Error, Result};
use crate::report::{Circuit, Glance, Time};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Batches remembered for the status page.
const BATCHES: usize = 10;

/// Which way changes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the server.
    Upload,
    /// From it.
    Download,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Direction::Upload => "upload",
            Direction::Download => "download",
        }
    }
}

/// How the last contact with the server ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Contact {
    /// There was none yet.
    #[default]
    Never,
    /// Well.
    Fine,
    /// Not well.
    Failed {
        /// `SYNC-...`.
        code: &'static str,
        /// What failed and why.
        message: String,
    },
}

/// An uploaded batch and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSeen {
    /// When its outcome was known.
    pub at: Time,
    /// Changes in it.
    pub rows: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// From sending it to its outcome.
    pub took: Duration,
    /// Changes that the server holds now, or held already from somebody else.
    pub uploaded: u64,
    /// Of these, the latter.
    pub same: u64,
    /// Changes that lost a conflict.
    pub lost: u64,
    /// Changes that are tried again later.
    pub later: u64,
    /// Changes that were parked.
    pub failed: u64,
}

/// What is known inside the process alone.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The last contact.
    pub contact: Contact,
    /// The circuit.
    pub circuit: Circuit,
    /// The server's version, as in `15.18`.
    pub server_version: Option<String>,
    /// The last round trip that was measured.
    pub latency: Option<Duration>,
    /// When the server's changes were last read to the end.
    pub pulled_at: Option<Time>,
    /// The latest batches, the newest first.
    pub batches: VecDeque<BatchSeen>,
}

/// What the engine reports to.
pub struct Monitor {
    metrics: Metrics,
    seen: Mutex<Seen>,
}

impl Monitor {
    /// Nothing seen yet.
    pub fn new() -> Result<Monitor> {
        Ok(Monitor {
            metrics: Metrics::new()?,
            seen: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// The text of a scrape; see [`Metrics::encode`].
    pub fn encode(&self, file: Option<&Glance>, now: Time) -> Result<String> {
        self.metrics.encode(file, now)
    }

    /// The server answered.
    pub fn reached(&self) {
        self.metrics.remote_up.set(1);
        self.lock().contact = Contact::Fine;
    }

    /// The server told its version, after this long.
    pub fn met(&self, server_version: &str, latency: Duration) {
        self.reached();
        let mut seen = self.lock();
        seen.server_version = Some(server_version.to_owned());
        seen.latency = Some(latency);
    }

    /// A sync failed on the way to the server or there.
    pub fn unreached(&self, e: &Error) {
        self.metrics.remote_up.set(0);
        self.error(e.code.as_str());
        self.lock().contact = Contact::Failed {
            code: e.code.as_str(),
            message: e.message.clone(),
        };
    }

    /// An error or an event that has a code.
    pub fn error(&self, code: &str) {
        self.metrics.errors.with_label_values(&[code]).inc();
    }

    /// The circuit's state from now on.
    pub fn circuit(&self, now: Circuit) {
        self.metrics.set_circuit(now);
        self.lock().circuit = now;
    }

    /// Something is tried once more.
    pub fn retried(&self) {
        self.metrics.retries.inc();
    }

    /// A batch has its outcome.
    pub fn batch(&self, batch: BatchSeen) {
        let m = &self.metrics;
        m.batch_rows.observe(batch.rows as f64);
        m.batch_bytes.observe(batch.bytes as f64);
        m.batch_seconds.observe(batch.took.as_secs_f64());
        for (outcome, n) in [
            ("applied", batch.uploaded.saturating_sub(batch.same)),
            ("same", batch.same),
            ("lost", batch.lost),
            ("retry", batch.later),
            ("failed", batch.failed),
        ] {
            self.changes(Direction::Upload, outcome, n);
        }
        let mut seen = self.lock();
        seen.batches.push_front(batch);
        seen.batches.truncate(BATCHES);
    }

    /// Changes were put off or parked outside of a batch's outcome.
    pub fn put_off(&self, later: u64, failed: u64) {
        self.changes(Direction::Upload, "retry", later);
        self.changes(Direction::Upload, "failed", failed);
    }

    /// Rows arrived, or could not be applied.
    pub fn downloaded(&self, applied: u64, failed: u64) {
        self.changes(Direction::Download, "applied", applied);
        self.changes(Direction::Download, "failed", failed);
    }

    /// The server's changes were read to the end.
    pub fn pulled(&self, at: Time) {
        self.lock().pulled_at = Some(at);
    }

    fn changes(&self, direction: Direction, outcome: &str, n: u64) {
        self.metrics
            .changes
            .with_label_values(&[direction.as_str(), outcome])
            .inc_by(n);
    }

    /// From an edit to the other side, ms. An edit of unknown time says nothing.
    pub fn lag(&self, direction: Direction, edited_ms: i64, now_ms: i64) {
        if edited_ms > 0 {
            let lag = now_ms.saturating_sub(edited_ms).max(0) as f64 / 1000.0;
            self.metrics
                .lag
                .with_label_values(&[direction.as_str()])
                .observe(lag);
        }
    }

    /// A conflict became known; `winner` is `local` or `remote`.
    pub fn conflict(&self, winner: &str) {
        self.metrics.conflicts.with_label_values(&[winner]).inc();
    }

    /// A write transaction waited for the file's lock.
    pub fn lock_waited(&self, wait: Duration) {
        self.metrics.lock_wait.observe(wait.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn batch(rows: u64) -> BatchSeen {
        BatchSeen {
            at: Time::EPOCH,
            rows,
            bytes: 100,
            took: Duration::from_millis(20),
            uploaded: 3,
            same: 1,
            lost: 1,
            later: 0,
            failed: 1,
        }
    }

    #[test]
    fn what_is_reported_is_what_is_scraped() {
        let monitor = Monitor::new().expect("a monitor");
        monitor.batch(batch(5));
        monitor.downloaded(7, 2);
        monitor.conflict("remote");
        monitor.retried();
        monitor.lag(Direction::Upload, 1_000, 3_000);
        monitor.lag(Direction::Upload, 0, 3_000);
        monitor.lock_waited(Duration::from_millis(2));
        monitor.circuit(Circuit::Open);
        monitor.met("15.18", Duration::from_millis(3));
        monitor.unreached(&Error::new(Code::Connection, "gone", "wait"));
        let text = monitor.encode(None, Time::EPOCH).expect("text");
        for line in [
            "tidewater_changes_total{direction=\"upload\",outcome=\"applied\"} 2",
            "tidewater_changes_total{direction=\"upload\",outcome=\"same\"} 1",
            "tidewater_changes_total{direction=\"upload\",outcome=\"failed\"} 1",
            "tidewater_changes_total{direction=\"download\",outcome=\"applied\"} 7",
            "tidewater_conflicts_total{winner=\"remote\"} 1",
            "tidewater_conflicts_total{winner=\"local\"} 0",
            "tidewater_batch_rows_sum 5",
            "tidewater_batch_bytes_sum 100",
            "tidewater_batch_seconds_count 1",
            "tidewater_retries_total 1",
            "tidewater_lag_seconds_sum{direction=\"upload\"} 2",
            "tidewater_lag_seconds_count{direction=\"upload\"} 1",
            "tidewater_local_lock_wait_seconds_count 1",
            "tidewater_circuit_state{state=\"open\"} 1",
            "tidewater_circuit_state{state=\"closed\"} 0",
            "tidewater_errors_total{code=\"SYNC-001\"} 1",
            "tidewater_remote_up 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        let failed = Contact::Failed {
            code: "SYNC-001",
            message: "gone".into(),
        };
        assert_eq!(monitor.seen().contact, failed);
        monitor.reached();
        assert_eq!(monitor.seen().contact, Contact::Fine);
    }

    #[test]
    fn only_the_latest_batches_are_remembered() {
        let monitor = Monitor::new().expect("a monitor");
        for rows in 0..30 {
            monitor.batch(batch(rows));
        }
        let batches = monitor.seen().batches;
        assert_eq!((batches.len(), batches[0].rows), (BATCHES, 29));
    }
}
