//! The only way in which a test waits: for a condition, up to a deadline that fails it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Long enough for a loaded machine; a passing test never uses it up.
pub const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// Returns when `condition` holds; panics with `what` when it does not by the deadline.
#[track_caller]
pub fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(deadline, what, || condition().then_some(()));
}

/// Like [`eventually`], for a condition that yields a value.
#[track_caller]
pub fn eventually_some<T>(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// Returns once the clock shows a later millisecond: what is written before and after has an order by
/// time. Changes carry milliseconds, and two of the same one are ordered at random.
pub fn next_millisecond() {
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock")
            .as_millis()
    };
    let began = now();
    while now() <= began {
        std::thread::yield_now();
    }
}
