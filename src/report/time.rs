//! A moment as the contract writes it: RFC 3339 in UTC with milliseconds.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// RFC 3339 knows the years 0000 to 9999 only.
const FIRST_MS: i64 = -62_167_219_200_000;
const LAST_MS: i64 = 253_402_207_200_000;
const DAY_MS: i64 = 86_400_000;

/// Milliseconds since 1970, shown and serialised as `2025-03-03T11:06:40.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

impl Time {
    /// The first moment of 1970.
    pub const EPOCH: Time = Time(0);

    /// From milliseconds since 1970; what RFC 3339 cannot write is cut to what it can.
    pub fn from_ms(ms: i64) -> Time {
        Time(ms.clamp(FIRST_MS, LAST_MS))
    }

    /// By the clock of this machine.
    pub fn now() -> Time {
        Time::from_ms(Timestamp::now().as_millisecond())
    }

    /// Milliseconds since 1970.
    pub fn ms(self) -> i64 {
        self.0
    }

    /// The midnight, UTC, that this day began with.
    pub fn midnight(self) -> Time {
        Time::from_ms(self.0.div_euclid(DAY_MS) * DAY_MS)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The clamp keeps every value inside what the library takes.
        let t = Timestamp::from_millisecond(self.0).unwrap_or(Timestamp::UNIX_EPOCH);
        write!(f, "{t:.3}")
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Time, D::Error> {
        let text = String::deserialize(d)?;
        text.parse::<Timestamp>()
            .map(|t| Time::from_ms(t.as_millisecond()))
            .map_err(|_| de::Error::custom("expected a time of RFC 3339"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_millisecond_has_an_rfc_3339_text_and_comes_back() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_741_000_000_007, "2025-03-03T11:06:40.007Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (i64::MIN, "0000-01-01T00:00:00.000Z"),
        ] {
            let t = Time::from_ms(ms);
            assert_eq!(t.to_string(), text);
            let json = serde_json::to_string(&t).expect("serialises");
            assert_eq!(serde_json::from_str::<Time>(&json).expect("reads back"), t);
        }
        assert_eq!(
            Time::from_ms(i64::MAX).to_string(),
            "9999-12-30T22:00:00.000Z"
        );
    }

    #[test]
    fn a_day_begins_at_midnight_utc() {
        assert_eq!(
            Time::from_ms(1_741_000_000_007).midnight().to_string(),
            "2025-03-03T00:00:00.000Z"
        );
        assert_eq!(Time::from_ms(-1).midnight().ms(), -DAY_MS);
    }
}
