//! How a column's values travel to and from its Postgres column, and the types that may be asked for.
//!
//! Owns which type carries which column. A pair that could lose a value has no wire form at all.

use super::affinity::Affinity;
use super::typed::Typed;
use super::value::Value;
use serde::{Deserialize, Serialize};

/// How a column's values travel to and from its Postgres column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Wire {
    /// Integers in `bigint` (or a smaller integer type).
    Int,
    /// Reals in `double precision`.
    Real,
    /// Text in `text`.
    Text,
    /// Blobs in `bytea`.
    Bytes,
    /// Integers and reals in `numeric`.
    Numeric,
    /// Integers, reals and text in `text`, of a column whose affinity turns numeric text back into numbers.
    Affine,
    /// Any storage class in `jsonb`, in tidewater's JSON form, of a column without a declared type.
    Dynamic,
    /// A value in one of several forms, in a type that knows only one.
    Typed(Typed),
}

/// Why a value cannot travel in its column's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Misfit {
    /// Text that is not valid UTF-8.
    NotUtf8,
    /// Text with a NUL character.
    Nul,
    /// A storage class, a number or a text that the column cannot hold.
    Class,
}

impl Wire {
    /// The default Postgres type of a declared SQLite type: lossless for what such a column usually holds.
    pub fn default_for(declared: &str) -> Wire {
        let d = declared.to_ascii_uppercase();
        match Affinity::of(declared) {
            Affinity::Integer => Wire::Int,
            Affinity::Real => Wire::Real,
            Affinity::Text => Wire::Text,
            Affinity::Blob if d.is_empty() => Wire::Dynamic,
            Affinity::Blob => Wire::Bytes,
            Affinity::Numeric if d.contains("BOOL") => Wire::Int,
            Affinity::Numeric if d.contains("NUM") || d.contains("DEC") => Wire::Numeric,
            Affinity::Numeric => Wire::Affine,
        }
    }

    /// The Postgres type of a mirror column that tidewater creates.
    pub fn pg_type(self) -> &'static str {
        match self {
            Wire::Int => "bigint",
            Wire::Real => "double precision",
            Wire::Text | Wire::Affine => "text",
            Wire::Bytes => "bytea",
            Wire::Numeric => "numeric",
            Wire::Dynamic => "jsonb",
            Wire::Typed(t) => t.pg_type(),
        }
    }

    /// The catalogue's name of that type.
    pub fn catalogue(self) -> &'static str {
        match self {
            Wire::Int => "int8",
            Wire::Real => "float8",
            Wire::Text | Wire::Affine => "text",
            Wire::Bytes => "bytea",
            Wire::Numeric => "numeric",
            Wire::Dynamic => "jsonb",
            Wire::Typed(t) => t.catalogue(),
        }
    }

    /// Why a value cannot travel in this form; `None` where it can.
    pub fn misfit(self, v: &Value) -> Option<Misfit> {
        match (self, v) {
            (_, Value::BadText(_)) => Some(Misfit::NotUtf8),
            (Wire::Bytes, Value::Text(_)) => Some(Misfit::Class),
            (_, Value::Text(t)) if t.contains('\0') => Some(Misfit::Nul),
            // The type has no negative zero.
            (Wire::Numeric, Value::Real(r)) if *r == 0.0 && r.is_sign_negative() => {
                Some(Misfit::Class)
            }
            (_, Value::Null)
            | (Wire::Int, Value::Int(_))
            | (Wire::Real, Value::Real(_))
            | (Wire::Bytes, Value::Blob(_))
            | (Wire::Text, Value::Text(_))
            | (Wire::Numeric, Value::Int(_) | Value::Real(_))
            | (Wire::Affine, Value::Int(_) | Value::Real(_) | Value::Text(_))
            | (Wire::Dynamic, _) => None,
            // Beyond 53 bits a real is another number.
            (Wire::Real, Value::Int(i)) if i.unsigned_abs() < (1 << 53) => None,
            (Wire::Typed(t), v) => t.canonical(v).is_err().then_some(Misfit::Class),
            (
                Wire::Int | Wire::Real | Wire::Bytes | Wire::Text | Wire::Numeric | Wire::Affine,
                _,
            ) => Some(Misfit::Class),
        }
    }

    /// The Postgres type in which a column of this affinity would carry every storage class that its
    /// present form refuses, as `types` takes it; `None` where there is none.
    pub fn wider(self, affinity: Affinity) -> Option<&'static str> {
        match (self, affinity) {
            (
                Wire::Int | Wire::Real | Wire::Numeric | Wire::Typed(_),
                Affinity::Integer | Affinity::Numeric | Affinity::Real,
            )
            | (Wire::Typed(_), Affinity::Text) => Some("text"),
            (Wire::Bytes | Wire::Typed(_), Affinity::Blob) => Some("jsonb"),
            _ => None,
        }
    }

    /// The wire form for an existing Postgres column, `None` where the column's values would not
    /// come back as they were written.
    pub fn for_pg(pg_type: &str, affinity: Affinity, untyped: bool) -> Option<Wire> {
        use Affinity::{Blob, Integer, Numeric, Real, Text};
        let words = matches!(affinity, Text | Numeric) || untyped;
        let typed = |fits: bool, t: Typed| fits.then_some(Wire::Typed(t));
        match (pg_type, affinity) {
            ("int2" | "int4" | "int8", Integer | Numeric) => Some(Wire::Int),
            ("float8", Real | Numeric) => Some(Wire::Real),
            ("text" | "varchar", Text) => Some(Wire::Text),
            ("text" | "varchar", Integer | Numeric | Real) => Some(Wire::Affine),
            ("bytea", Blob) => Some(Wire::Bytes),
            ("numeric", Numeric | Integer | Real) => Some(Wire::Numeric),
            ("numeric", Text) => Some(Wire::Typed(Typed::Decimal)),
            // A declared BLOB included: every storage class has its JSON form.
            ("jsonb", Blob) => Some(Wire::Dynamic),
            ("jsonb", _) => typed(words, Typed::Jsonb),
            ("json", _) => typed(words, Typed::Json),
            ("bool", _) => typed(words || affinity == Integer, Typed::Boolean),
            ("date", _) => typed(words, Typed::Date),
            ("time", _) => typed(words, Typed::Time),
            ("timestamp", _) => typed(words || affinity == Integer, Typed::Timestamp),
            ("timestamptz", _) => typed(words || affinity == Integer, Typed::Timestamptz),
            ("uuid", Blob) if !untyped => Some(Wire::Typed(Typed::UuidBytes)),
            ("uuid", _) => typed(words, Typed::Uuid),
            _ => None,
        }
    }
}

/// A word of `[tables.NAME] types`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PgType(usize);

/// The words, and the catalogue's names of what they mean.
const WORDS: [(&str, &str); 16] = [
    ("text", "text"),
    ("varchar", "varchar"),
    ("boolean", "bool"),
    ("smallint", "int2"),
    ("integer", "int4"),
    ("bigint", "int8"),
    ("double precision", "float8"),
    ("numeric", "numeric"),
    ("bytea", "bytea"),
    ("date", "date"),
    ("time", "time"),
    ("timestamp", "timestamp"),
    ("timestamptz", "timestamptz"),
    ("uuid", "uuid"),
    ("json", "json"),
    ("jsonb", "jsonb"),
];

impl PgType {
    /// From a word, in any case.
    pub fn parse(word: &str) -> Option<PgType> {
        WORDS
            .iter()
            .position(|(w, _)| w.eq_ignore_ascii_case(word.trim()))
            .map(PgType)
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        WORDS.get(self.0).map_or("text", |(w, _)| w)
    }

    /// The catalogue's name of the type.
    pub fn catalogue(self) -> &'static str {
        WORDS.get(self.0).map_or("text", |(_, c)| c)
    }

    /// Every word there is.
    pub fn words() -> impl Iterator<Item = &'static str> {
        WORDS.iter().map(|(w, _)| *w)
    }

    /// The word for a type of the catalogue.
    pub fn of_catalogue(typname: &str) -> Option<PgType> {
        WORDS.iter().position(|(_, c)| *c == typname).map(PgType)
    }
}

impl TryFrom<String> for PgType {
    type Error = String;
    fn try_from(word: String) -> Result<PgType, String> {
        PgType::parse(&word).ok_or_else(|| format!("unknown type {word}"))
    }
}

impl From<PgType> for String {
    fn from(t: PgType) -> String {
        t.as_str().to_owned()
    }
}
