//! The circuit breaker: whether the remote is asked now, and when it is asked next.
//!
//! Closed, the service asks whenever it has a reason to. Failures open it: then only probes go out, one
//! at a time (half-open), the first that succeeds closes it. What makes it open: three failures in a
//! row; five within a minute that are at least half of all tries, for a line that comes and goes; and
//! at once what only a person can mend. An answer about single items is no failure of the remote.
//!
//! Waits carry full jitter, so that devices which lost the same server do not return to it together.
//! They grow with the outage, to a quarter of it between 5 and 30 seconds: after a short one the queue
//! drains within moments, and a long one costs the server two questions a minute. A refused login waits
//! a minute at least, for servers lock accounts, and then not even an app's write asks earlier.
//!
//! Does no I/O and reads no clock.

use super::retry;
use crate::error::{Code, Disposition, Error};
use crate::report::Circuit as State;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Failures in a row that open it.
const IN_A_ROW: u32 = 3;

/// The rolling window ...
const WINDOW: Duration = Duration::from_secs(60);

/// ... and the failures in it that open it, where they are at least half of the tries.
const IN_WINDOW: usize = 5;

/// Probes of a short outage are never further apart, so that a queue drains soon after the return ...
const SHORT: Duration = Duration::from_secs(5);

/// ... and those of a long one never further than this.
const LONG: Duration = Duration::from_secs(30);

/// A login that was refused is not tried again earlier.
const LOGIN: Duration = Duration::from_secs(60);

/// An app that writes without pause makes the service ask no more often than this.
const WRITES: Duration = Duration::from_secs(1);

/// What a failed try says of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The remote is out of reach, busy or slow.
    Away,
    /// The remote answers, and refuses everything until somebody acts.
    Refused,
    /// The login was refused.
    Login,
    /// Something of this device or of single items: it is waited, and nothing is said of the remote.
    Aside,
}

impl Failure {
    /// What an error of a sync means.
    pub fn of(e: &Error) -> Failure {
        if e.sqlstate.as_deref().is_some_and(|s| s.starts_with("28")) {
            return Failure::Login;
        }
        match (e.disposition, e.code) {
            (Some(Disposition::Row | Disposition::RowLater | Disposition::SchemaDrift), _) => {
                Failure::Aside
            }
            (Some(Disposition::NeedsHuman | Disposition::WrongServer), _)
            | (_, Code::RemoteNotUsable | Code::RemoteWentBack | Code::MissingPrivilege) => {
                Failure::Refused
            }
            (Some(_), _) | (None, Code::Connection | Code::Batch) => Failure::Away,
            (None, _) => Failure::Aside,
        }
    }
}

/// The breaker of one remote.
pub struct Circuit {
    state: State,
    /// The first wait, and the bound of every wait but the one after a refused login.
    base: Duration,
    max: Duration,
    /// The bound of the waits after a refused login.
    login_max: Duration,
    /// Not before then, unless something wakes it.
    not_before: Option<Instant>,
    /// Whether the wait protects a login.
    login: bool,
    /// When the last try ended.
    last_try: Option<Instant>,
    /// The present outage: when its first try failed, and how many have.
    outage: Option<(Instant, u32)>,
    /// The tries of the window, and whether they failed.
    tries: VecDeque<(Instant, bool)>,
    jitter: fn(Duration, Duration, u32) -> Duration,
}

impl Circuit {
    /// Closed. Waits begin at about `base`; `max` bounds them where it is lower than what this module
    /// would wait by itself.
    pub fn new(base: Duration, max: Duration) -> Self {
        Circuit::with_jitter(base, max, retry::delay)
    }

    fn with_jitter(
        base: Duration,
        max: Duration,
        jitter: fn(Duration, Duration, u32) -> Duration,
    ) -> Self {
        Circuit {
            state: State::Closed,
            base: base.min(SHORT),
            max: max.min(LONG),
            login_max: max.max(LOGIN),
            not_before: None,
            login: false,
            last_try: None,
            outage: None,
            tries: VecDeque::new(),
            jitter,
        }
    }

    /// How it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether the remote may be asked.
    pub fn allows(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|t| now >= t)
    }

    /// The app has written: the remote is asked at once, unless that was only just done or could lock
    /// the login.
    pub fn written(&mut self, now: Instant) {
        if self.login {
            return;
        }
        let earliest = self.last_try.map_or(now, |t| t + WRITES);
        self.not_before = self.not_before.map(|t| t.min(earliest));
    }

    /// A person asks: nothing is waited for.
    pub fn asked(&mut self) {
        self.not_before = None;
    }

    /// A try begins.
    pub fn begin(&mut self) {
        if self.state == State::Open {
            self.state = State::HalfOpen;
        }
    }

    /// A try ended without a word of the remote: there was nothing to ask it.
    pub fn untried(&mut self) {
        if self.state == State::HalfOpen {
            self.state = State::Open;
        }
    }

    /// A try succeeded.
    pub fn succeeded(&mut self, now: Instant) {
        if self.state != State::Closed {
            // The outage is over, and says nothing of what comes now.
            self.tries.clear();
        }
        self.note(now, false);
        self.state = State::Closed;
        self.not_before = None;
        self.login = false;
        self.outage = None;
    }

    /// A try failed.
    pub fn failed(&mut self, now: Instant, why: Failure) {
        self.login = why == Failure::Login;
        if why == Failure::Aside {
            self.untried();
            self.last_try = Some(now);
            self.not_before = Some(now + (self.jitter)(self.base, self.max.min(SHORT), 4));
            return;
        }
        self.note(now, true);
        let (since, before) = self.outage.unwrap_or((now, 0));
        let failures = before.saturating_add(1);
        self.outage = Some((since, failures));
        if why != Failure::Away
            || self.state != State::Closed
            || failures >= IN_A_ROW
            || self.flaps()
        {
            self.state = State::Open;
        }
        let wait = match why {
            Failure::Login => LOGIN + (self.jitter)(LOGIN, self.login_max, failures),
            Failure::Refused => (self.jitter)(self.max, self.max, 1),
            Failure::Away | Failure::Aside => {
                let quarter = (now - since) / 4;
                let cap = quarter.clamp(SHORT, LONG).min(self.max);
                (self.jitter)(self.base, cap, failures)
            }
        };
        self.not_before = Some(now + wait);
    }

    fn note(&mut self, now: Instant, failed: bool) {
        self.last_try = Some(now);
        self.tries.push_back((now, failed));
        while self
            .tries
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) > WINDOW)
        {
            self.tries.pop_front();
        }
    }

    fn flaps(&self) -> bool {
        let failures = self.tries.iter().filter(|(_, failed)| *failed).count();
        failures >= IN_WINDOW && failures * 2 >= self.tries.len()
    }
}

#[cfg(test)]
mod tests;
