//! Points in time as text: the ways apps write them, read and written without loss. Pure.
//!
//! Years 1 to 9999 of the Gregorian calendar, as SQLite's own functions know them. What is not one of
//! the known forms is not a time at all; nothing is guessed.

const DAY: i64 = 86_400_000_000;

/// How many digits a fraction of a second has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fraction {
    /// None.
    None,
    /// Three.
    Three,
    /// Six.
    Six,
    /// Six, or none where they would all be zeros.
    SixOrNone,
    /// As many as it takes.
    Trimmed,
}

impl Fraction {
    /// The form that has written fractions of these lengths.
    pub fn of_lengths(mut lengths: Vec<usize>) -> Fraction {
        lengths.sort_unstable();
        lengths.dedup();
        match lengths.as_slice() {
            [] | [0] => Fraction::None,
            [3] => Fraction::Three,
            [6] => Fraction::Six,
            [0, 6] => Fraction::SixOrNone,
            _ => Fraction::Trimmed,
        }
    }

    fn print(self, micros: i64) -> String {
        let six = format!(".{micros:06}");
        match self {
            Fraction::None => String::new(),
            Fraction::Three => six[..4].to_owned(),
            Fraction::Six => six,
            Fraction::SixOrNone if micros == 0 => String::new(),
            Fraction::SixOrNone => six,
            Fraction::Trimmed => six.trim_end_matches('0').trim_end_matches('.').to_owned(),
        }
    }
}

/// A time that was read from text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Microseconds since 1970 in UTC; digits beyond are cut off.
    pub micros: i64,
    /// What stood between date and time; `None` where there was a date alone.
    pub separator: Option<char>,
    /// Digits after the point.
    pub digits: usize,
    /// The zone as it was written.
    pub zone: String,
}

/// Digits from the start of `text`: their number's value and the rest.
fn digits(text: &str, n: usize) -> Option<(i64, &str)> {
    let (d, rest) = text.split_at_checked(n)?;
    if !d.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((d.parse().ok()?, rest))
}

/// Days since 1970 of a date.
fn days(y: i64, m: i64, d: i64) -> i64 {
    let (y, m) = if m > 2 { (y, m - 3) } else { (y - 1, m + 9) };
    let era = y.div_euclid(400);
    let year = y - era * 400;
    era * 146_097 + year * 365 + year / 4 - year / 100 + (153 * m + 2) / 5 + d - 1 - 719_468
}

/// The date of a day since 1970.
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z - era * 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (d, m) = (
        doy - (153 * mp + 2) / 5 + 1,
        if mp < 10 { mp + 3 } else { mp - 9 },
    );
    (yoe + era * 400 + i64::from(m <= 2), m, d)
}

/// `YYYY-MM-DD` from the start of `text`, as days since 1970.
fn date(text: &str) -> Option<(i64, &str)> {
    let (y, rest) = digits(text, 4)?;
    let (m, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let (d, rest) = digits(rest.strip_prefix('-')?, 2)?;
    if y == 0 || !(1..=12).contains(&m) || d == 0 {
        return None;
    }
    let day = days(y, m, d);
    (civil(day) == (y, m, d)).then_some((day, rest))
}

/// `HH:MM[:SS[.f]]` from the start of `text`: microseconds, digits of the fraction, the rest.
fn clock(text: &str) -> Option<(i64, usize, &str)> {
    let (h, rest) = digits(text, 2)?;
    let (m, rest) = digits(rest.strip_prefix(':')?, 2)?;
    let (s, rest) = match rest.strip_prefix(':') {
        Some(rest) => digits(rest, 2)?,
        None => (0, rest),
    };
    if h > 23 || m > 59 || s > 59 {
        return None;
    }
    let whole = ((h * 60 + m) * 60 + s) * 1_000_000;
    let Some(rest) = rest.strip_prefix('.') else {
        return Some((whole, 0, rest));
    };
    let n = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, rest) = rest.split_at_checked(n).filter(|(f, _)| !f.is_empty())?;
    let six: i64 = format!("{:0<6}", &fraction[..n.min(6)]).parse().ok()?;
    Some((whole + six, n, rest))
}

/// The offset of a zone in microseconds.
fn offset(zone: &str) -> Option<i64> {
    let zone = zone.trim_start_matches(' ');
    if zone.is_empty() || zone == "Z" || zone == "z" || zone == "UTC" {
        return Some(0);
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (h, rest) = digits(rest, 2)?;
    let (m, rest) = match rest.strip_prefix(':').unwrap_or(rest) {
        "" if rest.is_empty() => (0, ""),
        rest => digits(rest, 2)?,
    };
    if h > 15 || m > 59 || !rest.is_empty() {
        return None;
    }
    Some(sign * (h * 60 + m) * 60_000_000)
}

impl Moment {
    /// A date with or without a time and a zone; without a zone it is in UTC.
    pub fn parse(text: &str) -> Option<Moment> {
        let (day, rest) = date(text)?;
        let separator = rest.chars().next();
        let (micros, digits, zone) = match separator {
            None => (0, 0, ""),
            Some('T' | 't' | ' ') => clock(&rest[1..])?,
            Some(_) => return None,
        };
        let micros = day * DAY + micros - offset(zone)?;
        Moment::range().contains(&micros).then(|| Moment {
            micros,
            separator,
            digits,
            zone: zone.to_owned(),
        })
    }

    /// The microseconds that years 1 to 9999 hold.
    pub fn range() -> std::ops::Range<i64> {
        days(1, 1, 1) * DAY..days(10_000, 1, 1) * DAY
    }
}

/// A moment in one form.
pub fn print(micros: i64, separator: char, fraction: Fraction, zone: &str) -> String {
    let (y, m, d) = civil(micros.div_euclid(DAY));
    let time = print_time(micros.rem_euclid(DAY), fraction);
    format!("{y:04}-{m:02}-{d:02}{separator}{time}{zone}")
}

/// A time of day in one form.
pub fn print_time(micros: i64, fraction: Fraction) -> String {
    let s = micros / 1_000_000;
    let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
    format!("{h:02}:{m:02}:{s:02}{}", fraction.print(micros % 1_000_000))
}

/// A time of day: microseconds and the digits of the fraction.
pub fn time(text: &str) -> Option<(i64, usize)> {
    let (micros, digits, rest) = clock(text)?;
    rest.is_empty().then_some((micros, digits))
}

/// Whether a text is a date and nothing else.
pub fn is_date(text: &str) -> bool {
    date(text).is_some_and(|(_, rest)| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_printed_reads_back(micros in Moment::range()) {
            for zone in ["Z", "+00:00", "", "+00"] {
                let text = print(micros, 'T', Fraction::Trimmed, zone);
                prop_assert_eq!(Moment::parse(&text).expect("a moment").micros, micros);
            }
        }
    }

    #[test]
    fn every_known_form_is_read_and_nothing_else() {
        let at = |t: &str| Moment::parse(t).map(|m| m.micros);
        let noon = at("2024-02-29 12:00:00");
        assert!(noon.is_some());
        for same in [
            "2024-02-29T12:00:00Z",
            "2024-02-29T12:00",
            "2024-02-29T14:00:00+02:00",
            "2024-02-29T14:00:00+0200",
            "2024-02-29 07:00:00.000-05",
            "2024-02-29 12:00:00 UTC",
            "2024-02-29T12:00:00.0000000Z",
        ] {
            assert_eq!(at(same), noon, "{same}");
        }
        for none in [
            "yesterday",
            "now",
            "2024-02-30",
            "2023-02-29",
            "2024-2-9",
            "12:00",
            "2024-02-29T25:00:00",
            "2024-02-29T12:00:00.",
            "2024-02-29T12:00:00 Berlin",
            "2024-02-29T12:00:00+",
            "2024-02-29é12:00:00",
            "0000-01-01",
            "10000-01-01",
            "",
        ] {
            assert_eq!(at(none), None, "{none}");
        }
        assert_eq!(at("1970-01-01"), Some(0));
        assert_eq!(at("1969-12-31T23:59:59.999999Z"), Some(-1));
    }

    #[test]
    fn fractions_keep_their_form() {
        let p = |f, micros| print(micros, ' ', f, "");
        assert_eq!(p(Fraction::Three, 1_500_000), "1970-01-01 00:00:01.500");
        assert_eq!(p(Fraction::Trimmed, 1_500_000), "1970-01-01 00:00:01.5");
        assert_eq!(p(Fraction::SixOrNone, 1_000_000), "1970-01-01 00:00:01");
        assert_eq!(p(Fraction::Six, 1_000_000), "1970-01-01 00:00:01.000000");
        assert_eq!(Fraction::of_lengths(vec![6, 0, 6]), Fraction::SixOrNone);
        assert_eq!(Fraction::of_lengths(vec![3, 3]), Fraction::Three);
        assert_eq!(Fraction::of_lengths(vec![2, 3]), Fraction::Trimmed);
    }
}
