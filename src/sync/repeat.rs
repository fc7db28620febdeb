//! Errors that come again and again, told so that a log stays readable: the first one at once, then how
//! often it came, at intervals that grow, and a last line when it is over.

use crate::error::{Code, Error};
use std::time::{Duration, Instant};

/// Until an error that goes on is told again ...
const FIRST: Duration = Duration::from_secs(60);

/// ... each time twice as long, up to this.
const LONGEST: Duration = Duration::from_secs(3600);

/// Different errors remembered at once; a device has one or two.
const KINDS: usize = 16;

/// Whether an error is worth a line now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// It is new.
    First,
    /// It goes on: so many times, for so long.
    Again(u64, Duration),
    /// It was told a moment ago.
    Nothing,
}

struct Kind {
    code: Code,
    table: Option<String>,
    message: String,
    began: Instant,
    times: u64,
    tell_at: Instant,
    interval: Duration,
}

/// The errors that stand at present.
#[derive(Default)]
pub struct Repeats(Vec<Kind>);

impl Repeats {
    /// It failed with `e`.
    pub fn failed(&mut self, e: &Error, now: Instant) -> Say {
        let same = |k: &Kind| k.code == e.code && k.table == e.table && k.message == e.message;
        if let Some(kind) = self.0.iter_mut().find(|k| same(k)) {
            kind.times += 1;
            if now < kind.tell_at {
                return Say::Nothing;
            }
            kind.interval = (kind.interval * 2).min(LONGEST);
            kind.tell_at = now + kind.interval;
            return Say::Again(kind.times, now.duration_since(kind.began));
        }
        if self.0.len() >= KINDS {
            self.0.remove(0);
        }
        self.0.push(Kind {
            code: e.code,
            table: e.table.clone(),
            message: e.message.clone(),
            began: now,
            times: 1,
            tell_at: now + FIRST,
            interval: FIRST,
        });
        Say::First
    }

    /// It works again: how often it had failed and since when, if it had.
    pub fn over(&mut self, now: Instant) -> Option<(u64, Duration)> {
        let began = self.0.iter().map(|k| k.began).min()?;
        let times = self.0.iter().map(|k| k.times).sum();
        self.0.clear();
        Some((times, now.duration_since(began)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(message: &str) -> Error {
        Error::new(Code::Connection, message, "wait")
    }

    #[test]
    fn a_night_offline_is_a_dozen_lines() {
        let began = Instant::now();
        let mut repeats = Repeats::default();
        let mut told = Vec::new();
        // Two errors in turn, as when a name is found and then the host does not answer.
        for second in 0..8 * 3600 {
            let now = began + Duration::from_secs(second);
            let e = error(if second % 2 == 0 {
                "no name"
            } else {
                "no answer"
            });
            match repeats.failed(&e, now) {
                Say::Nothing => {}
                say => told.push((second, say)),
            }
        }
        assert_eq!(told[..2], [(0, Say::First), (1, Say::First)]);
        assert_eq!(told[2], (60, Say::Again(31, Duration::from_secs(60))));
        assert_eq!(told[4].0, 180);
        assert!(told.len() < 32, "{told:?}");
        let gaps: Vec<u64> = told.windows(3).map(|w| w[2].0 - w[0].0).collect();
        assert!(gaps.iter().all(|gap| *gap <= 3600), "{gaps:?}");
        let end = began + Duration::from_secs(8 * 3600);
        assert_eq!(
            repeats.over(end),
            Some((8 * 3600, Duration::from_secs(8 * 3600)))
        );
        assert_eq!(repeats.over(end), None);
        assert_eq!(repeats.failed(&error("no name"), end), Say::First);
    }

    #[test]
    fn tables_are_told_apart_and_memory_does_not_grow() {
        let now = Instant::now();
        let mut repeats = Repeats::default();
        for i in 0..100 {
            let e = error("refused").on_table(format!("t{i}"));
            assert_eq!(repeats.failed(&e, now), Say::First);
        }
        assert_eq!(repeats.0.len(), KINDS);
    }
}
