//! Named crash points, compiled in with the `failpoints` feature only.
//!
//! `TIDEWATER_FAILPOINT=name:n` kills the process with SIGKILL at the n-th hit of the point, after
//! appending the name to the file in `TIDEWATER_FAILPOINT_LOG`, so that a test can prove the hit.

#[cfg(feature = "failpoints")]
use crate::world::simulated;

/// The points, in the order in which a change passes them.
pub const NAMES: &[&str] = &[
    "claim_before_commit",
    "claim_after_commit",
    "batch_formed",
    "push_before_send",
    "push_sent",
    "push_before_commit",
    "push_after_commit",
    "ack_before_commit",
    "ack_after_commit",
    "first_formed",
    "first_ack_before_commit",
    "first_ack_after_commit",
    "page_received",
    "apply_before_commit",
    "apply_after_commit",
    "cursor_before_store",
    "cursor_after_store",
    "fetch_received",
    "fetch_applied",
    "heal_page",
    "detach_written",
    "detach_before_commit",
    "detach_after_commit",
    "rejoin_before_commit",
    "reconcile_begun",
    "reconcile_queued",
    "reconcile_before_commit",
    "reconcile_after_commit",
];

/// Passes a point.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_name: &str) {}

/// Passes a point.
#[cfg(feature = "failpoints")]
pub fn hit(name: &str) {
    use std::io::Write;
    use std::sync::atomic::{AtomicU32, Ordering};
    static HITS: AtomicU32 = AtomicU32::new(0);
    debug_assert!(NAMES.contains(&name), "unknown crash point {name}");
    if simulated::ask(|w| w.point(name)).is_some() {
        return;
    }
    let Ok(wanted) = std::env::var("TIDEWATER_FAILPOINT") else {
        return;
    };
    let (point, nth) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if point != name || HITS.fetch_add(1, Ordering::SeqCst) + 1 != nth.parse().unwrap_or(1) {
        return;
    }
    if let Ok(path) = std::env::var("TIDEWATER_FAILPOINT_LOG")
        && let Ok(mut f) = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
    {
        let _ = writeln!(f, "{name}");
        let _ = f.sync_all();
    }
    let me = std::process::id().to_string();
    let _ = std::process::Command::new("kill")
        .args(["-9", &me])
        .status();
    std::process::abort();
}

/// A transaction that may write to the app's file begins. Only a simulation ends the process here.
#[inline(always)]
pub fn write_begins() {
    #[cfg(feature = "failpoints")]
    simulated::ask(|w| w.point("write_begins"));
}

/// Whether a cure is switched off: only ever to show that a test notices.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn is_planted(_bug: &str) -> bool {
    false
}

/// Whether a cure is switched off: only ever to show that a test notices.
#[cfg(feature = "failpoints")]
pub fn is_planted(bug: &str) -> bool {
    simulated::ask(|w| w.is_planted(bug))
        .unwrap_or_else(|| std::env::var("TIDEWATER_PLANT").is_ok_and(|planted| planted == bug))
}
