//! Postgres types that know a value in one form only, beside the forms in which apps write it. Pure.
//!
//! [`Typed::canonical`] is what is sent, [`Typed::render`] what is made of the answer. A value that the
//! column's form does not give back is kept beside the row ([`Typed::reproduces`]), so nothing that an
//! app wrote is ever rewritten; the form alone decides about values that somebody wrote in Postgres.

use super::affinity::Affinity;
use super::form::{Form, Zone};
use super::json_text::{self, Spacing};
use super::moment::{self, Fraction, Moment};
use super::value::Value;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// A Postgres type that knows a value in one form only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Typed {
    /// `boolean`.
    Boolean,
    /// `date`.
    Date,
    /// `time`.
    Time,
    /// `timestamp`, in UTC.
    Timestamp,
    /// `timestamptz`.
    Timestamptz,
    /// `uuid` of text.
    Uuid,
    /// `uuid` of blobs of 16 bytes.
    UuidBytes,
    /// `json`, which keeps the text.
    Json,
    /// `jsonb`.
    Jsonb,
    /// `numeric` of text.
    Decimal,
}

/// Why a value cannot be sent: SQLSTATE and what is wrong.
pub type Reason = (&'static str, &'static str);

/// Above this an integer is milliseconds: as seconds it would be the year 5138.
const MILLIS_FROM: i64 = 100_000_000_000;

impl Typed {
    /// The type's name.
    pub fn pg_type(self) -> &'static str {
        match self {
            Typed::Boolean => "boolean",
            Typed::Date => "date",
            Typed::Time => "time",
            Typed::Timestamp => "timestamp",
            Typed::Timestamptz => "timestamptz",
            Typed::Uuid | Typed::UuidBytes => "uuid",
            Typed::Json => "json",
            Typed::Jsonb => "jsonb",
            Typed::Decimal => "numeric",
        }
    }

    /// The catalogue's name of it.
    pub fn catalogue(self) -> &'static str {
        match self {
            Typed::Boolean => "bool",
            other => other.pg_type(),
        }
    }

    /// Whether values are written in one of several forms, of which a column's has to be known.
    pub fn has_forms(self) -> bool {
        self.keeps_originals() && self != Typed::Decimal
    }

    /// Whether a value can mean the same as another, so that what does not come back is kept.
    pub fn keeps_originals(self) -> bool {
        !matches!(self, Typed::UuidBytes | Typed::Json | Typed::Date)
    }

    /// Whether a key may have this type: its one form is then the only one.
    pub fn fits_key(self) -> bool {
        matches!(self, Typed::Uuid | Typed::UuidBytes)
    }

    /// The one text of a value that is sent, which the server casts.
    pub fn canonical(self, v: &Value) -> Result<String, Reason> {
        match self {
            Typed::Boolean => boolean(v)
                .map(|b| b.to_string())
                .ok_or(("22P02", "neither 0 and 1 nor true and false")),
            Typed::Date => match v {
                Value::Text(t) if moment::is_date(t) || is_infinity(t) => Ok(t.clone()),
                _ => Err(("22007", "not a date as in 2024-12-31")),
            },
            Typed::Time => match v {
                Value::Text(t) => moment::time(t),
                _ => None,
            }
            .map(|(micros, _)| moment::print_time(micros, Fraction::Six))
            .ok_or(("22007", "not a time of day as in 23:59:59")),
            Typed::Timestamp | Typed::Timestamptz => self.stamp(v),
            Typed::Uuid => match v {
                Value::Text(t) => uuid_bytes(t),
                Value::Blob(b) => <[u8; 16]>::try_from(b.as_slice()).ok(),
                _ => None,
            }
            .map(|b| uuid_text(b, false, true))
            .ok_or(("22P02", "not a UUID")),
            Typed::UuidBytes => match v {
                Value::Blob(b) => <[u8; 16]>::try_from(b.as_slice()).ok(),
                _ => None,
            }
            .map(|b| uuid_text(b, false, true))
            .ok_or(("22P02", "not a UUID as a blob of 16 bytes")),
            Typed::Json | Typed::Jsonb => match v {
                Value::Text(t) if is_json(t) => match self {
                    Typed::Jsonb if !json_text::has_characters(t) => {
                        Err(("22P05", "JSON with an escape that stands for no character"))
                    }
                    _ => Ok(t.clone()),
                },
                Value::Int(i) if self == Typed::Jsonb => Ok(i.to_string()),
                Value::Real(r) if self == Typed::Jsonb && r.is_finite() => Ok(format!("{r:?}")),
                _ => Err(("22P02", "not JSON text")),
            },
            Typed::Decimal => match v {
                Value::Text(t) if is_decimal(t) => Ok(t.clone()),
                _ => Err(("22P02", "not a decimal number")),
            },
        }
    }

    fn stamp(self, v: &Value) -> Result<String, Reason> {
        let zone = if self == Typed::Timestamptz { "Z" } else { "" };
        let micros = match v {
            Value::Text(t) if is_infinity(t) => return Ok(t.clone()),
            Value::Text(t) => Moment::parse(t).map(|m| m.micros),
            Value::Int(i) => epoch(*i),
            _ => None,
        };
        micros
            .map(|m| moment::print(m, 'T', Fraction::Six, zone))
            .ok_or(("22007", "not a time as in 2024-12-31T23:59:59Z"))
    }

    /// The form of a column of which nothing was learned.
    pub fn default_form(self, affinity: Affinity) -> Form {
        let moment = |separator, zone| Form::Moment {
            separator,
            fraction: Fraction::Trimmed,
            zone,
        };
        match self {
            Typed::Boolean if affinity == Affinity::Text => Form::Word,
            Typed::Boolean => Form::Number,
            Typed::Timestamp | Typed::Timestamptz if affinity == Affinity::Integer => Form::Seconds,
            Typed::Timestamp => moment(' ', Zone::None),
            Typed::Timestamptz => moment('T', Zone::Z),
            Typed::Time => Form::Clock(Fraction::Trimmed),
            Typed::Uuid | Typed::UuidBytes => Form::Uuid {
                upper: false,
                hyphens: true,
            },
            Typed::Jsonb => Form::Json(Spacing::Spaced),
            Typed::Json | Typed::Date | Typed::Decimal => Form::Only,
        }
    }

    /// The value that the server's canonical text stands for, in a form.
    pub fn render(self, form: Option<Form>, affinity: Affinity, text: &str) -> Value {
        let form = form.unwrap_or_else(|| self.default_form(affinity));
        let plain = || Value::Text(text.to_owned());
        let value = match (self, form) {
            (Typed::Boolean, Form::Number) => Value::Int(i64::from(text == "true")),
            (Typed::Timestamp | Typed::Timestamptz, form) => match (Moment::parse(text), form) {
                (Some(m), Form::Seconds) => Value::Int(m.micros.div_euclid(1_000_000)),
                (Some(m), Form::Millis) => Value::Int(m.micros.div_euclid(1_000)),
                (
                    Some(m),
                    Form::Moment {
                        separator,
                        fraction,
                        zone,
                    },
                ) => Value::Text(moment::print(m.micros, separator, fraction, zone.as_str())),
                _ => plain(),
            },
            (Typed::Time, Form::Clock(fraction)) => match moment::time(text) {
                Some((micros, _)) => Value::Text(moment::print_time(micros, fraction)),
                None => plain(),
            },
            (Typed::Uuid, Form::Uuid { upper, hyphens }) => match uuid_bytes(text) {
                Some(b) => Value::Text(uuid_text(b, upper, hyphens)),
                None => plain(),
            },
            (Typed::UuidBytes, _) => match uuid_bytes(text) {
                Some(b) => Value::Blob(b.to_vec()),
                None => plain(),
            },
            (Typed::Jsonb, Form::Json(spacing)) => Value::Text(json_text::respace(text, spacing)),
            _ => plain(),
        };
        affinity.settle(value)
    }

    /// Whether a value comes back the same once its canonical text was stored, in a form. `scale`: the
    /// digits that the column keeps behind the point, where it has a limit.
    pub fn reproduces(self, form: Form, affinity: Affinity, scale: Option<u8>, v: &Value) -> bool {
        let Ok(sent) = self.canonical(v) else {
            return false;
        };
        let stored = match (self, v, form) {
            (Typed::Jsonb, Value::Text(t), Form::Json(spacing)) => {
                json_text::is_stored_as(t, spacing)
            }
            (Typed::Jsonb, ..) => return false,
            (Typed::Decimal, Value::Text(t), _) => {
                json_text::is_plain_decimal(t)
                    && scale.is_none_or(|s| digits_behind(t) == usize::from(s))
            }
            (Typed::Json, ..) => return true,
            _ => return self.render(Some(form), affinity, &sent) == *v,
        };
        stored && affinity.settle(v.clone()) == *v
    }

    /// The form that most of an app's values have, the newest first; of two that are as frequent the
    /// older. `None` where they tell nothing.
    pub fn learn<'v>(self, values: impl Iterator<Item = &'v Value>) -> Option<Form> {
        let mut seen: HashMap<Form, (usize, usize, Vec<usize>)> = HashMap::new();
        for (n, v) in values.filter(|v| self.canonical(v).is_ok()).enumerate() {
            // Fractions of the same form differ in length: they are told apart at the end.
            let (form, digits) = match self.form_of(v) {
                Some(found) => found,
                None => continue,
            };
            let entry = seen.entry(form).or_default();
            entry.0 += 1;
            entry.1 = n;
            entry.2.push(digits);
        }
        let (form, (_, _, lengths)) = seen
            .into_iter()
            .max_by_key(|(_, (n, last, _))| (*n, *last))?;
        let fraction = Fraction::of_lengths(lengths);
        let form = match form {
            Form::Moment {
                separator, zone, ..
            } => Form::Moment {
                separator,
                fraction,
                zone,
            },
            Form::Clock(_) => Form::Clock(fraction),
            other => other,
        };
        Some(form)
    }

    /// A value's form but for its fraction, and the digits of that.
    fn form_of(self, v: &Value) -> Option<(Form, usize)> {
        match (self, v) {
            (Typed::Boolean, Value::Int(_)) => Some((Form::Number, 0)),
            (Typed::Boolean, Value::Text(t)) if t == "0" || t == "1" => Some((Form::Number, 0)),
            (Typed::Boolean, Value::Text(t)) if t == "true" || t == "false" => {
                Some((Form::Word, 0))
            }
            (Typed::Timestamp | Typed::Timestamptz, Value::Int(i)) => {
                let form = if i.unsigned_abs() < MILLIS_FROM.unsigned_abs() {
                    Form::Seconds
                } else {
                    Form::Millis
                };
                Some((form, 0))
            }
            (Typed::Timestamp | Typed::Timestamptz, Value::Text(t)) => {
                let m = Moment::parse(t)?;
                let form = Form::Moment {
                    separator: m.separator.filter(|c| *c != 't')?,
                    fraction: Fraction::None,
                    zone: Zone::parse(&m.zone)?,
                };
                Some((form, m.digits))
            }
            (Typed::Time, Value::Text(t)) => {
                moment::time(t).map(|(_, digits)| (Form::Clock(Fraction::None), digits))
            }
            (Typed::Uuid, Value::Text(t)) => {
                let upper = t.bytes().any(|b| b.is_ascii_uppercase());
                let hyphens = t.contains('-');
                Some((Form::Uuid { upper, hyphens }, 0))
            }
            (Typed::Jsonb, Value::Text(t)) => json_text::spacing(t).map(|s| (Form::Json(s), 0)),
            _ => None,
        }
    }

    /// Whether two values mean the same, however they are written.
    pub fn means_same(self, a: &Value, b: &Value) -> bool {
        let parse = |t: &str| serde_json::from_str::<serde_json::Value>(t).ok();
        match (self.canonical(a), self.canonical(b)) {
            (Ok(a), Ok(b)) if self == Typed::Jsonb => parse(&a).is_some() && parse(&a) == parse(&b),
            (Ok(a), Ok(b)) if self == Typed::Decimal => a == b || json_text::same_decimal(&a, &b),
            (Ok(a), Ok(b)) => a == b,
            _ => false,
        }
    }

    /// Digits behind the point that a value needs, where that can be too many for a column.
    pub fn digits(self, v: &Value) -> usize {
        let Value::Text(t) = v else {
            // Milliseconds since 1970 have three.
            return match v {
                Value::Int(i)
                    if i.unsigned_abs() >= MILLIS_FROM.unsigned_abs() && i % 1000 != 0 =>
                {
                    3
                }
                _ => 0,
            };
        };
        match self {
            Typed::Decimal => digits_behind(t),
            Typed::Time | Typed::Timestamp | Typed::Timestamptz => {
                t.split_once('.').map_or(0, |(_, f)| {
                    let f: &str = &f[..f.bytes().take_while(u8::is_ascii_digit).count()];
                    f.trim_end_matches('0').len().min(6)
                })
            }
            _ => 0,
        }
    }
}

/// Microseconds since 1970 of seconds or milliseconds.
fn epoch(i: i64) -> Option<i64> {
    let unit = if i.checked_abs()? < MILLIS_FROM {
        1_000_000
    } else {
        1_000
    };
    i.checked_mul(unit).filter(|m| Moment::range().contains(m))
}

fn is_infinity(t: &str) -> bool {
    t == "infinity" || t == "-infinity"
}

fn boolean(v: &Value) -> Option<bool> {
    match v {
        Value::Int(0) => Some(false),
        Value::Int(1) => Some(true),
        Value::Text(t) => match t.to_ascii_lowercase().as_str() {
            "true" | "t" | "1" | "yes" | "y" | "on" => Some(true),
            "false" | "f" | "0" | "no" | "n" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn is_json(t: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(t).is_ok()
}

fn is_decimal(t: &str) -> bool {
    let b = t.as_bytes();
    b.first()
        .is_some_and(|c| c.is_ascii_digit() || matches!(c, b'+' | b'-' | b'.'))
        && b.iter()
            .all(|c| c.is_ascii_digit() || matches!(c, b'+' | b'-' | b'.' | b'e' | b'E'))
        && t.parse::<f64>().is_ok()
}

/// Digits behind the point of a decimal, needless zeros left out; an exponent counts as none to spare.
fn digits_behind(t: &str) -> usize {
    if t.contains(['e', 'E']) {
        return usize::MAX;
    }
    t.split_once('.').map_or(0, |(_, f)| f.len())
}

/// The bytes of a UUID with or without hyphens.
fn uuid_bytes(t: &str) -> Option<[u8; 16]> {
    let bare: String = match t.len() {
        32 => t.to_owned(),
        36 => {
            let parts: Vec<&str> = t.split('-').collect();
            let lengths: Vec<usize> = parts.iter().map(|p| p.len()).collect();
            (lengths == [8, 4, 4, 4, 12]).then(|| parts.concat())?
        }
        _ => return None,
    };
    super::value::unhex(&bare)?.try_into().ok()
}

fn uuid_text(b: [u8; 16], upper: bool, hyphens: bool) -> String {
    let mut t = super::value::hex(&b);
    if upper {
        t.make_ascii_uppercase();
    }
    if !hyphens {
        return t;
    }
    let parts = [&t[..8], &t[8..12], &t[12..16], &t[16..20], &t[20..]];
    parts.join("-")
}

#[cfg(test)]
#[path = "typed_tests.rs"]
mod tests;
