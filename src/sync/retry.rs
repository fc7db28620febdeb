//! Waiting times: exponential with full jitter. The only importer of `backoff`.
//!
//! `max_elapsed_time` is `None`: the crate's default gives up after 15 minutes, and a night on a train
//! is longer. What is waited for never counts as an attempt.

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;
use std::time::Duration;

/// Full jitter: uniform between zero and the bound. The crate spreads symmetrically around its
/// interval, so half the bound with a spread of one gives just that.
fn policy(base: Duration, cap: Duration) -> ExponentialBackoff {
    let mut policy = ExponentialBackoff {
        initial_interval: base / 2,
        max_interval: cap / 2,
        randomization_factor: 1.0,
        multiplier: 2.0,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    policy.reset();
    policy
}

/// The waiting time after the `attempt`-th refusal (from 1).
pub fn delay(base: Duration, cap: Duration, attempt: u32) -> Duration {
    let mut policy = policy(base, cap);
    let mut last = Duration::ZERO;
    for _ in 0..attempt.clamp(1, 64) {
        last = policy.next_backoff().unwrap_or(cap);
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_below_their_bound_and_never_give_up() {
        let (base, cap) = (Duration::from_secs(1), Duration::from_secs(300));
        for attempt in 1..40 {
            let bound = base * 2_u32.pow(attempt.min(10) - 1);
            let d = delay(base, cap, attempt);
            assert!(
                d <= bound.min(cap) + Duration::from_millis(1),
                "{attempt}: {d:?}"
            );
        }
    }
}
