//! The form in which an app writes the values of a column whose Postgres type knows only one.
//!
//! A form is learned once from an app's own rows, kept in the workspace and never changed there, so that
//! every device renders a value alike. Pure: text and values, no I/O.

use super::json_text::Spacing;
use super::moment::Fraction;
use serde::{Deserialize, Serialize};

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Form {
    /// The only one that the type has.
    Only,
    /// 0 and 1.
    Number,
    /// `true` and `false`.
    Word,
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Millis,
    /// Date and time.
    Moment {
        /// `T` or a blank.
        separator: char,
        /// The digits after the point.
        fraction: Fraction,
        /// What follows.
        zone: Zone,
    },
    /// A time of day.
    Clock(Fraction),
    /// A UUID.
    Uuid {
        /// In capitals.
        upper: bool,
        /// With hyphens.
        hyphens: bool,
    },
    /// JSON.
    Json(Spacing),
}

/// How UTC is written behind a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Zone {
    /// Not at all.
    None,
    /// `Z`.
    Z,
    /// `+00:00`.
    Colon,
    /// `+00`.
    Short,
}

const FRACTIONS: [(&str, Fraction); 5] = [
    ("", Fraction::None),
    (".sss", Fraction::Three),
    (".ssssss", Fraction::Six),
    ("[.ssssss]", Fraction::SixOrNone),
    ("[.s]", Fraction::Trimmed),
];

const ZONES: [(&str, Zone); 4] = [
    ("", Zone::None),
    ("Z", Zone::Z),
    ("+00:00", Zone::Colon),
    ("+00", Zone::Short),
];

const PLAIN: [(&str, Form); 10] = [
    ("0", Form::Number),
    ("true", Form::Word),
    ("seconds", Form::Seconds),
    ("milliseconds", Form::Millis),
    ("{\"a\": 1}", Form::Json(Spacing::Spaced)),
    ("{\"a\":1}", Form::Json(Spacing::Compact)),
    ("abcd-ef", uuid(false, true)),
    ("ABCD-EF", uuid(true, true)),
    ("abcdef", uuid(false, false)),
    ("ABCDEF", uuid(true, false)),
];

const fn uuid(upper: bool, hyphens: bool) -> Form {
    Form::Uuid { upper, hyphens }
}

impl Zone {
    /// The zone's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Zone::None => "",
            Zone::Z => "Z",
            Zone::Colon => "+00:00",
            Zone::Short => "+00",
        }
    }

    /// From a zone's text.
    pub fn parse(text: &str) -> Option<Zone> {
        ZONES.iter().find(|(t, _)| *t == text).map(|(_, z)| *z)
    }
}

impl Form {
    /// The form as a pattern, as the workspace keeps it.
    pub fn pattern(self) -> String {
        let fraction = |f| {
            FRACTIONS
                .iter()
                .find(|(_, g)| *g == f)
                .map_or("", |(t, _)| *t)
        };
        match self {
            Form::Moment {
                separator,
                fraction: f,
                zone,
            } => format!(
                "YYYY-MM-DD{separator}HH:MM:SS{}{}",
                fraction(f),
                zone.as_str()
            ),
            Form::Clock(f) => format!("HH:MM:SS{}", fraction(f)),
            plain => PLAIN
                .iter()
                .find(|(_, f)| *f == plain)
                .map_or("", |(t, _)| *t)
                .to_owned(),
        }
    }

    /// From its pattern; `None` for one that this program does not know.
    pub fn parse(pattern: &str) -> Option<Form> {
        if let Some((_, form)) = PLAIN.iter().find(|(t, _)| *t == pattern) {
            return Some(*form);
        }
        let fraction = |t: &str| FRACTIONS.iter().find(|(f, _)| *f == t).map(|(_, f)| *f);
        if let Some(rest) = pattern.strip_prefix("HH:MM:SS") {
            return fraction(rest).map(Form::Clock);
        }
        let rest = pattern.strip_prefix("YYYY-MM-DD")?;
        let separator = rest.chars().next().filter(|c| matches!(c, 'T' | ' '))?;
        let rest = rest[1..].strip_prefix("HH:MM:SS")?;
        ZONES
            .iter()
            .rev()
            .filter_map(|(z, zone)| Some((rest.strip_suffix(z)?, *zone)))
            .find_map(|(f, zone)| {
                Some(Form::Moment {
                    separator,
                    fraction: fraction(f)?,
                    zone,
                })
            })
    }
}

impl TryFrom<String> for Form {
    type Error = String;
    fn try_from(pattern: String) -> Result<Form, String> {
        Form::parse(&pattern).ok_or_else(|| format!("unknown form {pattern}"))
    }
}

impl From<Form> for String {
    fn from(form: Form) -> String {
        form.pattern()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_back_from_its_pattern() {
        let mut forms: Vec<Form> = PLAIN.iter().map(|(_, f)| *f).collect();
        for (_, fraction) in FRACTIONS {
            forms.push(Form::Clock(fraction));
            for (_, zone) in ZONES {
                for separator in ['T', ' '] {
                    forms.push(Form::Moment {
                        separator,
                        fraction,
                        zone,
                    });
                }
            }
        }
        for form in forms {
            assert_eq!(Form::parse(&form.pattern()), Some(form), "{form:?}");
        }
        assert_eq!(Form::parse("YYYY"), None);
        assert_eq!(Form::parse(""), None);
    }
}
