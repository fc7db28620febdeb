//! The breaker with a clock of the test's own, and the longest wait in place of the jitter.

use super::*;

/// What the jitter would spread below.
fn bound(base: Duration, cap: Duration, attempt: u32) -> Duration {
    base.saturating_mul(2_u32.saturating_pow(attempt - 1))
        .min(cap)
}

const S: Duration = Duration::from_secs(1);

/// A breaker and the time.
struct Stage {
    circuit: Circuit,
    now: Instant,
}

impl Stage {
    fn new() -> Stage {
        Stage {
            circuit: Circuit::with_jitter(S, S * 300, bound),
            now: Instant::now(),
        }
    }

    /// How long it is until the remote may be asked.
    fn wait(&self) -> Duration {
        self.circuit
            .not_before
            .map_or(Duration::ZERO, |t| t.saturating_duration_since(self.now))
    }

    /// Waits until it may be asked, asks, and fails.
    fn fail(&mut self, why: Failure) -> State {
        self.now += self.wait();
        assert!(self.circuit.allows(self.now));
        self.circuit.begin();
        self.circuit.failed(self.now, why);
        self.circuit.state()
    }

    fn succeed(&mut self) {
        self.circuit.begin();
        self.circuit.succeeded(self.now);
        assert_eq!(self.circuit.state(), State::Closed);
        assert!(self.circuit.allows(self.now));
    }
}

#[test]
fn three_failures_in_a_row_open_it_and_one_success_closes_it() {
    let mut s = Stage::new();
    assert_eq!(s.fail(Failure::Away), State::Closed);
    assert!(!s.circuit.allows(s.now), "a failure is waited after");
    assert_eq!(s.fail(Failure::Away), State::Closed);
    assert_eq!(s.fail(Failure::Away), State::Open);
    s.now += s.wait();
    s.circuit.begin();
    assert_eq!(s.circuit.state(), State::HalfOpen);
    s.circuit.failed(s.now, Failure::Away);
    assert_eq!(s.circuit.state(), State::Open, "one failed probe opens it");
    s.now += s.wait();
    s.succeed();
    assert_eq!(s.fail(Failure::Away), State::Closed, "it counts anew");
}

#[test]
fn waits_follow_the_outage_and_never_exceed_half_a_minute() {
    let mut s = Stage::new();
    let began = s.now;
    let mut longest = Duration::ZERO;
    while s.now - began < S * 86_400 {
        s.fail(Failure::Away);
        let outage = s.now - began;
        assert!(
            s.wait() <= (outage / 4).clamp(SHORT, LONG),
            "{outage:?}: {:?}",
            s.wait()
        );
        longest = longest.max(s.wait());
    }
    assert_eq!(longest, LONG);
}

#[test]
fn a_line_that_comes_and_goes_opens_it_and_what_is_long_ago_does_not_count() {
    let mut s = Stage::new();
    for _ in 0..4 {
        assert_eq!(s.fail(Failure::Away), State::Closed);
        s.succeed();
    }
    assert_eq!(s.fail(Failure::Away), State::Open);

    let mut s = Stage::new();
    for _ in 0..100 {
        assert_eq!(s.fail(Failure::Away), State::Closed);
        s.succeed();
        s.now += S * 20;
    }
    assert!(s.circuit.tries.len() < 10, "the window is bounded");

    // Many successes around five failures are a busy line, not a broken one.
    let mut s = Stage::new();
    for _ in 0..20 {
        for _ in 0..4 {
            s.succeed();
        }
        assert_eq!(s.fail(Failure::Away), State::Closed);
    }
}

#[test]
fn what_only_a_person_mends_opens_it_at_once() {
    let mut s = Stage::new();
    assert_eq!(s.fail(Failure::Refused), State::Open);
    assert!(s.wait() <= LONG);
}

#[test]
fn a_write_asks_at_once_and_a_busy_app_no_more_than_once_a_second() {
    let mut s = Stage::new();
    for _ in 0..20 {
        s.fail(Failure::Away);
    }
    assert!(s.wait() > S * 4);
    s.now += S * 2;
    s.circuit.written(s.now);
    assert!(s.circuit.allows(s.now), "at once");
    s.circuit.begin();
    assert_eq!(s.circuit.state(), State::HalfOpen);
    s.circuit.failed(s.now, Failure::Away);
    let mut tries = 0;
    for _ in 0..1_000 {
        s.now += S / 100;
        s.circuit.written(s.now);
        if s.circuit.allows(s.now) {
            s.circuit.failed(s.now, Failure::Away);
            tries += 1;
        }
    }
    assert_eq!(tries, 10, "ten seconds of writes");
}

#[test]
fn a_refused_login_waits_a_minute_unless_a_person_asks() {
    let mut s = Stage::new();
    for _ in 0..50 {
        assert_eq!(s.fail(Failure::Login), State::Open);
        assert!(s.wait() >= LOGIN, "{:?}", s.wait());
        assert!(s.wait() <= LOGIN + S * 300, "{:?}", s.wait());
        s.circuit.written(s.now);
        assert!(s.wait() >= LOGIN, "a write could lock the account");
    }
    s.circuit.asked();
    assert!(s.circuit.allows(s.now));
    s.succeed();
    // The next outage is an ordinary one.
    s.fail(Failure::Away);
    assert!(s.wait() <= S);
}

#[test]
fn errors_about_items_never_open_it() {
    let mut s = Stage::new();
    for _ in 0..1_000 {
        assert_eq!(s.fail(Failure::Aside), State::Closed);
        assert!(s.wait() <= SHORT, "{:?}", s.wait());
    }
    for (disposition, expected) in [
        (Disposition::Row, Failure::Aside),
        (Disposition::RowLater, Failure::Aside),
        (Disposition::SchemaDrift, Failure::Aside),
        (Disposition::Unreached, Failure::Away),
        (Disposition::OutcomeUnknown, Failure::Away),
        (Disposition::Reconnect, Failure::Away),
        (Disposition::Unknown, Failure::Away),
        (Disposition::RetryNow, Failure::Away),
        (Disposition::WrongServer, Failure::Refused),
        (Disposition::NeedsHuman, Failure::Refused),
    ] {
        let e = Error::new(Code::Batch, "m", "r").with_disposition(disposition);
        assert_eq!(Failure::of(&e), expected, "{disposition:?}");
    }
    let refused = Error::new(Code::Connection, "m", "r")
        .with_sqlstate("28P01")
        .with_disposition(Disposition::NeedsHuman);
    assert_eq!(Failure::of(&refused), Failure::Login);
    let away = Error::new(Code::Connection, "m", "r");
    assert_eq!(Failure::of(&away), Failure::Away);
    let back = Error::new(Code::RemoteWentBack, "m", "r");
    assert_eq!(Failure::of(&back), Failure::Refused);
}

#[test]
fn devices_that_lost_the_same_server_return_one_by_one() {
    let now = Instant::now();
    let mut returns: Vec<Duration> = (0..200)
        .map(|_| {
            let mut circuit = Circuit::new(S, S * 300);
            for i in 0..20 {
                circuit.failed(now + S * 30 * i, Failure::Away);
            }
            let last = now + S * 30 * 19;
            circuit.not_before.expect("waits") - last
        })
        .collect();
    returns.sort();
    // 200 of a uniform spread: each quarter of the half minute has its share.
    for quarter in 0..4 {
        let (from, to) = (LONG * quarter / 4, LONG * (quarter + 1) / 4);
        let share = returns.iter().filter(|r| (from..=to).contains(*r)).count();
        assert!(share > 15, "{share} of 200 in the quarter from {from:?}");
    }
}
