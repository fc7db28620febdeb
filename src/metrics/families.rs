//! Every metric with its name, help and labels; docs/metrics.md describes the same, held to it by a test.
//!
//! Two registries: what this process counts lives as long as it does, and what the file says is set
//! anew for each scrape and left out where the file could not be read, for an old number would lie.

use crate::error::{Code, Error, Result};
use crate::report::{Circuit, Glance, Time};
use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::sync::{Mutex, PoisonError};

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How many codes the contract has: SYNC-001 and on.
const CODES: u8 = 16;

/// From a millisecond to a minute: round trips and transactions.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// From an instant to a week offline.
const LAG_SECONDS: &[f64] = &[
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0,
    604_800.0,
];
const ROWS: &[f64] = &[
    1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0,
];
const BYTES: &[f64] = &[
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
];

/// The metrics of one service.
pub struct Metrics {
    process: Registry,
    /// Held for the whole of a scrape: two at once would mix their numbers.
    file: Mutex<FileGauges>,
    local_up: IntGauge,
    pub(super) changes: IntCounterVec,
    pub(super) batch_rows: Histogram,
    pub(super) batch_bytes: Histogram,
    pub(super) batch_seconds: Histogram,
    pub(super) retries: IntCounter,
    pub(super) errors: IntCounterVec,
    pub(super) conflicts: IntCounterVec,
    pub(super) lag: HistogramVec,
    pub(super) remote_up: IntGauge,
    circuit: IntGaugeVec,
    pub(super) lock_wait: Histogram,
}

/// What is read from the file at a scrape.
struct FileGauges {
    registry: Registry,
    outbox: IntGaugeVec,
    inbox: IntGaugeVec,
    tables: IntGaugeVec,
    oldest: Gauge,
    conflicts: IntGauge,
    last_push: Gauge,
    last_pull: Gauge,
    paused: IntGauge,
    clock_offset: Gauge,
    healed: Gauge,
    renewed: Gauge,
    problems: GaugeVec,
}

/// Registers what it makes, under the prefix.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn keep<C: Collector + Clone + 'static>(
        &self,
        made: prometheus::Result<C>,
    ) -> prometheus::Result<C> {
        let made = made?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(format!("tidewater_{name}"), help)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.keep(IntCounter::with_opts(Self::opts(name, help)))
    }

    fn counters(&self, name: &str, help: &str, by: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.keep(IntCounterVec::new(Self::opts(name, help), by))
    }

    fn whole(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.keep(IntGauge::with_opts(Self::opts(name, help)))
    }

    fn wholes(&self, name: &str, help: &str, by: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.keep(IntGaugeVec::new(Self::opts(name, help), by))
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.keep(Gauge::with_opts(Self::opts(name, help)))
    }

    fn histogram(&self, name: &str, help: &str, at: &[f64]) -> prometheus::Result<Histogram> {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(at.to_vec());
        self.keep(Histogram::with_opts(opts))
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        at: &[f64],
        by: &[&str],
    ) -> prometheus::Result<HistogramVec> {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(at.to_vec());
        self.keep(HistogramVec::new(opts, by))
    }
}

/// The words of a circuit's states.
fn circuit_word(state: Circuit) -> &'static str {
    match state {
        Circuit::Closed => "closed",
        Circuit::Open => "open",
        Circuit::HalfOpen => "half_open",
    }
}

impl Metrics {
    /// All of them, at zero.
    pub fn new() -> Result<Metrics> {
        Self::make().map_err(failed)
    }

    fn make() -> prometheus::Result<Metrics> {
        let process = Registry::new();
        let m = Maker(&process);
        let metrics = Metrics {
            file: Mutex::new(FileGauges::make()?),
            local_up: m.whole(
                "local_up",
                "Whether the SQLite file could be read for this scrape; if not, the metrics that come from it are left out.",
            )?,
            changes: m.counters(
                "changes_total",
                "Changes by direction and outcome. Upload: applied, same (the server held the same content), lost (a conflict), retry (refused, tried again later), failed (parked). Download: applied, failed.",
                &["direction", "outcome"],
            )?,
            batch_rows: m.histogram("batch_rows", "Changes in an uploaded batch.", ROWS)?,
            batch_bytes: m.histogram(
                "batch_bytes",
                "Bytes of content in an uploaded batch.",
                BYTES,
            )?,
            batch_seconds: m.histogram(
                "batch_seconds",
                "Time from sending a batch to its outcome, repeated attempts included.",
                SECONDS,
            )?,
            retries: m.counter(
                "retries_total",
                "Attempts that were repeated: batches sent again, and syncs tried again after a failure.",
            )?,
            errors: m.counters(
                "errors_total",
                "Errors by their public code: failed syncs, parked changes, and what the service noticed.",
                &["code"],
            )?,
            conflicts: m.counters(
                "conflicts_total",
                "Conflicts that became known to this device, by the side that won: local is this device.",
                &["winner"],
            )?,
            lag: m.histograms(
                "lag_seconds",
                "End-to-end lag: from the edit to its acknowledgement by the server (upload), and from an edit elsewhere to its arrival in this file (download).",
                LAG_SECONDS,
                &["direction"],
            )?,
            remote_up: m.whole(
                "remote_up",
                "Whether the last contact with the server succeeded; 0 before the first.",
            )?,
            circuit: m.wholes(
                "circuit_state",
                "1 for the state that the circuit to the server is in: closed, open or half_open.",
                &["state"],
            )?,
            lock_wait: m.histogram(
                "local_lock_wait_seconds",
                "Time that tidewater waited for the file's write lock, for each of its transactions.",
                SECONDS,
            )?,
            process: process.clone(),
        };
        m.wholes(
            "build_info",
            "1, with the version of tidewater.",
            &["version"],
        )?
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1);
        #[cfg(target_os = "linux")]
        process.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        metrics.name_all();
        Ok(metrics)
    }

    /// A counter that appears with its first event has no rise that a query could see.
    fn name_all(&self) {
        for outcome in ["applied", "same", "lost", "retry", "failed"] {
            self.changes.with_label_values(&["upload", outcome]);
        }
        for outcome in ["applied", "failed"] {
            self.changes.with_label_values(&["download", outcome]);
        }
        for code in codes() {
            self.errors.with_label_values(&[&code]);
        }
        for winner in ["local", "remote"] {
            self.conflicts.with_label_values(&[winner]);
        }
        for direction in ["upload", "download"] {
            self.lag.with_label_values(&[direction]);
        }
        self.set_circuit(Circuit::Closed);
    }

    pub(super) fn set_circuit(&self, now: Circuit) {
        for state in [Circuit::Closed, Circuit::Open, Circuit::HalfOpen] {
            self.circuit
                .with_label_values(&[circuit_word(state)])
                .set(i64::from(state == now));
        }
    }

    /// The text of a scrape; `file` is what was read of the file for it, if anything was.
    pub fn encode(&self, file: Option<&Glance>, now: Time) -> Result<String> {
        let gauges = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        self.local_up.set(i64::from(file.is_some()));
        let mut families = self.process.gather();
        if let Some(seen) = file {
            gauges.set(seen, now);
            families.extend(gauges.registry.gather());
        }
        families.sort_by(|a, b| a.name().cmp(b.name()));
        TextEncoder::new()
            .encode_to_string(&families)
            .map_err(failed)
    }
}

impl FileGauges {
    fn make() -> prometheus::Result<FileGauges> {
        let registry = Registry::new();
        let m = Maker(&registry);
        Ok(FileGauges {
            outbox: m.wholes(
                "outbox_depth",
                "Changes in the outbox by status: pending (not claimed ones included), uploading, failed, and synced as far as the retention keeps them.",
                &["status"],
            )?,
            inbox: m.wholes(
                "inbox_depth",
                "Downloaded rows that are not in the app's tables, by status: pending, or failed because they cannot be applied.",
                &["status"],
            )?,
            tables: m.wholes(
                "table_outbox_depth",
                "Changes of each tracked table that are pending or failed.",
                &["table", "status"],
            )?,
            oldest: m.gauge(
                "oldest_pending_age_seconds",
                "Age of the oldest change that the server has not acknowledged; 0 where there is none.",
            )?,
            conflicts: m.whole(
                "conflicts_unseen",
                "Conflicts that nobody has acknowledged.",
            )?,
            last_push: m.gauge(
                "last_push_timestamp_seconds",
                "When the server last acknowledged a batch, since 1970; 0 for never.",
            )?,
            last_pull: m.gauge(
                "last_pull_timestamp_seconds",
                "When the server's changes were last read to the end, since 1970; 0 for never.",
            )?,
            paused: m.whole("paused", "Whether syncing is paused.")?,
            clock_offset: m.gauge(
                "clock_offset_seconds",
                "The server's clock minus this device's, as last measured.",
            )?,
            healed: m.gauge(
                "capture_healed_timestamp_seconds",
                "When triggers that a migration of the app had dropped were last put back, since 1970; 0 for never.",
            )?,
            renewed: m.gauge(
                "identity_renewed_timestamp_seconds",
                "When this file was last found to be a copy or restored and got a new identity, since 1970; 0 for never.",
            )?,
            problems: m.keep(GaugeVec::new(
                Maker::opts(
                    "problems",
                    "Problems that stand at present, by their public code; `tidewater status` says each with its remedy.",
                ),
                &["code"],
            ))?,
            registry: registry.clone(),
        })
    }

    fn set(&self, seen: &Glance, now: Time) {
        let set = |gauges: &IntGaugeVec, labels: &[&str], n: u64| {
            gauges
                .with_label_values(labels)
                .set(i64::try_from(n).unwrap_or(i64::MAX));
        };
        for (status, n) in [
            ("pending", seen.upload.pending),
            ("uploading", seen.upload.uploading),
            ("failed", seen.upload.failed),
            ("synced", seen.synced_kept),
        ] {
            set(&self.outbox, &[status], n);
        }
        for (status, n) in [
            ("pending", seen.download.pending),
            ("failed", seen.download.failed),
        ] {
            set(&self.inbox, &[status], n);
        }
        // Tables come and go.
        self.tables.reset();
        for t in &seen.tables {
            set(&self.tables, &[&t.name, "pending"], t.pending);
            set(&self.tables, &[&t.name, "failed"], t.failed);
        }
        let age = seen
            .upload
            .oldest_pending_at
            .map_or(0, |at| now.ms().saturating_sub(at.ms()).max(0));
        self.oldest.set(age as f64 / 1000.0);
        self.conflicts
            .set(i64::try_from(seen.conflicts.unseen).unwrap_or(i64::MAX));
        let at = |t: Option<Time>| t.map_or(0.0, |t| t.ms() as f64 / 1000.0);
        self.last_push.set(at(seen.upload.last_push_at));
        self.last_pull.set(at(seen.download.last_pull_at));
        self.paused.set(i64::from(seen.paused));
        self.clock_offset.set(seen.clock_offset_ms as f64 / 1000.0);
        self.healed.set(at(seen.healed_at));
        self.renewed.set(at(seen.renewed_at));
        for code in codes() {
            let n = seen.problems.iter().filter(|p| p.code == code).count();
            self.problems.with_label_values(&[&code]).set(n as f64);
        }
    }
}

/// All codes of the contract.
fn codes() -> impl Iterator<Item = String> {
    (1..=CODES).map(|n| format!("SYNC-{n:03}"))
}

fn failed(e: prometheus::Error) -> Error {
    Error::new(
        Code::Configuration,
        format!("the metrics cannot be made: {e}"),
        "report this with the version of tidewater; [metrics] listen = \"\" works without them",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_leaves_its_numbers_out() {
        let metrics = Metrics::new().expect("metrics");
        let mut seen = Glance {
            clock_offset_ms: -1500,
            ..Glance::default()
        };
        seen.upload.oldest_pending_at = Some(Time::from_ms(1_000));
        let text = metrics
            .encode(Some(&seen), Time::from_ms(3_500))
            .expect("text");
        for line in [
            "tidewater_local_up 1",
            "tidewater_outbox_depth{status=\"pending\"} 0",
            "tidewater_oldest_pending_age_seconds 2.5",
            "tidewater_clock_offset_seconds -1.5",
            "tidewater_problems{code=\"SYNC-016\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        let text = metrics.encode(None, Time::EPOCH).expect("text");
        assert!(text.contains("tidewater_local_up 0"), "{text}");
        assert!(!text.contains("outbox_depth"), "{text}");
    }

    #[test]
    fn a_table_that_is_not_tracked_any_more_goes() {
        let metrics = Metrics::new().expect("metrics");
        let table = |name: &str| crate::report::TableStatus {
            name: name.into(),
            privacy: "full".into(),
            pending: 2,
            failed: 0,
        };
        let mut seen = Glance {
            tables: vec![table("notes"), table("we\"ird\n")],
            ..Glance::default()
        };
        let text = metrics.encode(Some(&seen), Time::EPOCH).expect("text");
        assert!(
            text.contains("table_outbox_depth{status=\"pending\",table=\"we\\\"ird\\n\"} 2"),
            "{text}"
        );
        seen.tables.clear();
        let text = metrics.encode(Some(&seen), Time::EPOCH).expect("text");
        assert!(!text.contains("notes"), "{text}");
    }

    #[test]
    fn every_code_is_there_from_the_start() {
        let codes: Vec<String> = codes().collect();
        assert!(codes.iter().all(|c| Code::parse(c).is_some()));
        assert!(Code::parse(&format!("SYNC-{:03}", CODES + 1)).is_none());
    }
}
