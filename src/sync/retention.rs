//! The retention: what is forgotten, when, and `prune`, which applies it at once.
//!
//! History goes by age alone: it is what re-joining after a restore goes by. Conflicts go only when
//! somebody acknowledged them. A queued change never goes by itself: a failed one only when it was asked
//! for by name, and then as `discard` does it, kept under the conflicts.

use super::device::now_ms;
use super::ops;
use crate::config::{Config, Retention};
use crate::error::Result;
use crate::report::{PruneReport, Pruned};
use crate::sqlite::fault::OrFault;
use crate::sqlite::inbox::{self, Cutoffs};
use crate::sqlite::local::Local;
use crate::sqlite::{inspect, notes, queue, state};

/// A day, ms.
const DAY_MS: i64 = 86_400_000;

/// Rows of one step: between two of them the app gets its turn.
const SLICE: i64 = 1_000;

fn cutoffs(retention: &Retention, now: i64) -> Cutoffs {
    let ago = |days: u32| now.saturating_sub(i64::from(days) * DAY_MS);
    Cutoffs {
        synced: ago(retention.synced_days),
        conflicts: ago(retention.conflict_days),
        gone: now - DAY_MS,
    }
}

/// Applies the retention.
pub fn apply(local: &mut Local, retention: &Retention, now: i64) -> Result<Pruned> {
    let cutoffs = cutoffs(retention, now);
    let mut all = Pruned::default();
    loop {
        let tx = local.begin()?;
        let done = inbox::prune(&tx, cutoffs, SLICE)?;
        if done.is_empty() {
            notes::prune_bases(&tx)?;
            state::set_number(&tx, "pruned_at", now)?;
        }
        tx.commit().or_fault("applying the retention")?;
        if done.is_empty() {
            return Ok(all);
        }
        all.add(&done);
    }
}

/// `prune`. Failed items older than `failed_days` are discarded where `yes` says so; without it, what
/// would go is only listed and nothing is changed.
pub async fn prune(config: &Config, failed_days: Option<u32>, yes: bool) -> Result<PruneReport> {
    let mut local = ops::open(config)?;
    let now = now_ms();
    let mut report = PruneReport {
        dry_run: failed_days.is_some() && !yes,
        ..PruneReport::default()
    };
    let mut keys = Vec::new();
    if let Some(days) = failed_days {
        let before = now.saturating_sub(i64::from(days) * DAY_MS);
        keys = queue::failed_before(local.conn(), before)?;
    }
    if report.dry_run {
        report.removed = inbox::prunable(local.conn(), cutoffs(&config.retention, now))?;
        for key in &keys {
            report
                .failed
                .extend(inspect::queue_item(local.conn(), key)?.map(ops::result_of));
        }
        return Ok(report);
    }
    report.removed = apply(&mut local, &config.retention, now)?;
    drop(local);
    if !keys.is_empty() {
        report.failed = ops::discard(config, &keys).await?.results;
    }
    Ok(report)
}
