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
    if let Some(part) = crate::world::part() {
        let bound = base.saturating_mul(2_u32.saturating_pow(attempt.clamp(1, 31) - 1));
        return bound.min(cap).mul_f64(part);
    }
    let mut policy = policy(base, cap);
    let mut last = Duration::ZERO;
    for _ in 0..attempt.clamp(1, 64) {
        last = policy.next_backoff().unwrap_or(cap);
    }
    last
}

/// A moment within `bound`, so that those who hear of the same thing do not ask at once.
pub fn spread(bound: Duration) -> Duration {
    delay(bound, bound, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What several devices wait for at once is asked for at different times: the waits lie all over
    /// their bound, and no part of it is crowded. The limits are many standard deviations wide.
    #[test]
    fn devices_that_wait_for_the_same_come_at_different_times() {
        const DEVICES: usize = 4_000;
        let cap = Duration::from_secs(5);
        let draws: [&dyn Fn() -> Duration; 2] =
            [&|| delay(Duration::from_secs(1), cap, 8), &|| spread(cap)];
        for draw in draws {
            let mut tenths = [0_usize; 10];
            for _ in 0..DEVICES {
                let part = draw().as_secs_f64() / cap.as_secs_f64() * 10.0;
                tenths[(part as usize).min(9)] += 1;
            }
            let expected = DEVICES / 10;
            assert!(
                tenths
                    .iter()
                    .all(|n| (expected / 2..expected * 2).contains(n)),
                "{tenths:?}"
            );
        }
    }

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
