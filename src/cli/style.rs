//! Words for people: colours where they are allowed, and text that cannot play tricks on a terminal.

use super::args::Color;
use crate::model::Value;
use crate::report::Time;
use std::io::IsTerminal;

/// Longest value shown; what follows is counted, not shown.
const VALUE_MAX: usize = 400;

/// Whether colours may be used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint(bool);

impl Paint {
    pub fn stdout(color: Color) -> Paint {
        Paint::choose(color, std::io::stdout().is_terminal())
    }

    pub fn stderr(color: Color) -> Paint {
        Paint::choose(color, std::io::stderr().is_terminal())
    }

    /// `NO_COLOR` with any content turns colours off (<https://no-color.org>), the flag has the last word.
    fn choose(color: Color, terminal: bool) -> Paint {
        let unwanted = |name: &str, by: fn(&std::ffi::OsStr) -> bool| {
            std::env::var_os(name).is_some_and(|v| by(&v))
        };
        Paint(match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                terminal
                    && !unwanted("NO_COLOR", |v| !v.is_empty())
                    && !unwanted("TERM", |v| v == "dumb")
            }
        })
    }

    #[cfg(test)]
    pub fn plain() -> Paint {
        Paint(false)
    }

    #[cfg(test)]
    pub fn coloured() -> Paint {
        Paint(true)
    }

    pub fn on(self) -> bool {
        self.0
    }

    pub fn bad(self, text: &str) -> String {
        self.with("1;31", text)
    }

    pub fn warn(self, text: &str) -> String {
        self.with("33", text)
    }

    pub fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 && !text.is_empty() {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Text whose control characters, and marks that reverse the direction of writing, are spelled out.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}'
            | '\u{feff}' => {
                out.extend(c.escape_unicode());
            }
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// A value as people write it; text is bare unless it could be taken for something else.
pub(crate) fn value(v: &Value) -> String {
    match v {
        Value::Null => "NULL".to_owned(),
        Value::Int(i) => i.to_string(),
        Value::Real(r) => format!("{r:?}"),
        Value::Text(t) => {
            let shown = clean(&cut(t));
            let odd = t.is_empty()
                || t == "NULL"
                || t.parse::<f64>().is_ok()
                || t.starts_with("x'")
                || t.starts_with(' ')
                || t.ends_with(' ');
            if odd { format!("'{shown}'") } else { shown }
        }
        Value::Blob(b) | Value::BadText(b) => {
            let shown = Value::Blob(b[..b.len().min(VALUE_MAX / 2)].to_vec());
            // The one place that spells bytes as hex digits is the value's JSON form.
            let hex = serde_json::to_value(&shown)
                .ok()
                .and_then(|j| j["hex"].as_str().map(str::to_owned))
                .unwrap_or_default();
            let more = b.len() > VALUE_MAX / 2;
            let kind = if matches!(v, Value::BadText(_)) {
                " (text, not UTF-8)"
            } else {
                ""
            };
            format!("x'{hex}{}'{kind}", if more { "…" } else { "" })
        }
    }
}

/// The values of a key.
pub(crate) fn key(values: &[Value]) -> String {
    values.iter().map(value).collect::<Vec<_>>().join(", ")
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(VALUE_MAX) {
        Some((at, _)) => {
            let rest = text[at..].chars().count();
            format!("{}… ({} more)", &text[..at], number(rest as u64))
        }
        None => text.to_owned(),
    }
}

/// A number with its thousands apart.
pub(crate) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `1 row`, `2 rows`.
pub(crate) fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(n), if n == 1 { one } else { many })
}

/// How long a span of milliseconds is, in one unit.
pub(crate) fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..=9 => format!("{:.1} s", (ms / 100) as f64 / 10.0),
        10..=99 => format!("{seconds} s"),
        100..=5_999 => format!("{} min", seconds / 60),
        6_000..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", number(seconds / 86_400)),
    }
}

/// How old something is; whole seconds are exact enough.
pub(crate) fn coarse(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{} s", ms / 1000),
        ms => span(ms),
    }
}

/// How long ago something was.
pub(crate) fn age(then: Time, now: Time) -> String {
    match u64::try_from(now.ms() - then.ms()) {
        Ok(0..1000) => "just now".to_owned(),
        Ok(ms) => format!("{} ago", coarse(ms)),
        Err(_) => format!("in {}", coarse(then.ms().abs_diff(now.ms()))),
    }
}

/// A moment to the second.
pub(crate) fn moment(t: Time) -> String {
    let text = t.to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{} UTC", seconds.replace('T', " ")),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_can_steer_the_terminal() {
        assert_eq!(
            clean("a\u{1b}]0;x\u{7}\n\u{202e}é"),
            "a\\u{1b}]0;x\\u{7}\\n\\u{202e}é"
        );
        assert_eq!(value(&Value::Text("\u{9b}2J".into())), "\\u{9b}2J");
    }

    #[test]
    fn values_that_look_alike_are_told_apart() {
        for (v, text) in [
            (Value::Null, "NULL"),
            (Value::Text("NULL".into()), "'NULL'"),
            (Value::Text("7".into()), "'7'"),
            (Value::Int(7), "7"),
            (Value::Real(7.0), "7.0"),
            (Value::Text(String::new()), "''"),
            (Value::Blob(vec![0xab, 1]), "x'ab01'"),
            (Value::BadText(vec![0xff]), "x'ff' (text, not UTF-8)"),
            (Value::Text("m1".into()), "m1"),
        ] {
            assert_eq!(value(&v), text);
        }
        assert!(value(&Value::Text("é".repeat(5000))).ends_with("… (4,600 more)"));
    }

    #[test]
    fn spans_have_one_unit() {
        for (ms, text) in [
            (41, "41 ms"),
            (1_550, "1.5 s"),
            (42_000, "42 s"),
            (600_000, "10 min"),
            (7_200_000, "2 h"),
            (259_200_000, "3 days"),
        ] {
            assert_eq!(span(ms), text);
        }
        let now = Time::from_ms(1_000_000);
        assert_eq!(age(Time::from_ms(999_999), now), "just now");
        assert_eq!(age(Time::from_ms(996_500), now), "3 s ago");
        assert_eq!(age(Time::from_ms(1_060_000), now), "in 60 s");
        assert_eq!(number(1_234_567), "1,234,567");
        assert_eq!(moment(Time::from_ms(0)), "1970-01-01 00:00:00 UTC");
    }

    #[test]
    fn the_flag_has_the_last_word_on_colours() {
        assert!(Paint::choose(Color::Always, false).on());
        assert!(!Paint::choose(Color::Never, true).on());
        assert!(!Paint::choose(Color::Auto, false).on());
        assert_eq!(Paint::coloured().good("x"), "\u{1b}[32mx\u{1b}[0m");
    }
}
