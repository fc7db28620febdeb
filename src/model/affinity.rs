//! SQLite's column affinities, and what they make of a value that is stored. Pure; never fails.

use super::value::Value;
use serde::{Deserialize, Serialize};

/// SQLite's column affinity (<https://www.sqlite.org/datatype3.html#determination_of_column_affinity>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Affinity {
    /// INTEGER.
    Integer,
    /// REAL.
    Real,
    /// NUMERIC.
    Numeric,
    /// TEXT.
    Text,
    /// BLOB, also called NONE.
    Blob,
}

impl Affinity {
    /// The affinity of a declared type, by SQLite's five rules in their order.
    pub fn of(declared: &str) -> Affinity {
        let d = declared.to_ascii_uppercase();
        if d.contains("INT") {
            Affinity::Integer
        } else if ["CHAR", "CLOB", "TEXT"].iter().any(|w| d.contains(w)) {
            Affinity::Text
        } else if d.is_empty() || d.contains("BLOB") {
            Affinity::Blob
        } else if ["REAL", "FLOA", "DOUB"].iter().any(|w| d.contains(w)) {
            Affinity::Real
        } else {
            Affinity::Numeric
        }
    }

    /// The value as a column of this affinity stores it (SQLite datatype3, section 3).
    pub fn settle(self, v: Value) -> Value {
        match (self, v) {
            (Affinity::Integer | Affinity::Numeric, Value::Real(r)) => whole(r),
            (Affinity::Integer | Affinity::Numeric, Value::Text(t)) => match number(&t) {
                Some(Value::Real(r)) => whole(r),
                Some(n) => n,
                None => Value::Text(t),
            },
            (Affinity::Real, Value::Int(i)) => Value::Real(i as f64),
            (Affinity::Real, Value::Text(t)) => match number(&t) {
                Some(Value::Int(i)) => Value::Real(i as f64),
                Some(n) => n,
                None => Value::Text(t),
            },
            (Affinity::Text, Value::Int(i)) => Value::Text(i.to_string()),
            (_, v) => v,
        }
    }
}

/// An integer where SQLite stores the real as one: it is whole and strictly between the ends of int64.
fn whole(r: f64) -> Value {
    let i = r as i64;
    if i as f64 == r && i > i64::MIN && i < i64::MAX {
        Value::Int(i)
    } else {
        Value::Real(r)
    }
}

/// The number that a text spells, as SQLite reads it; `None` where it stays text.
fn number(t: &str) -> Option<Value> {
    let trimmed = t.trim_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
    let numeric_shape = trimmed
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'))
        && trimmed.bytes().any(|b| b.is_ascii_digit());
    if !numeric_shape {
        return None;
    }
    if let Ok(i) = trimmed.parse::<i64>() {
        return Some(Value::Int(i));
    }
    trimmed.parse::<f64>().ok().map(Value::Real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_have_the_affinity_that_sqlite_gives_them() {
        for (declared, affinity) in [
            ("INT", Affinity::Integer),
            ("VARCHAR(10)", Affinity::Text),
            ("CHARINT", Affinity::Integer),
            ("", Affinity::Blob),
            ("BLOB", Affinity::Blob),
            ("double precision", Affinity::Real),
            ("FLOATING POINT", Affinity::Integer),
            ("DATETIME", Affinity::Numeric),
            ("NUMERIC(10,2)", Affinity::Numeric),
            ("STRING", Affinity::Numeric),
        ] {
            assert_eq!(Affinity::of(declared), affinity, "{declared}");
        }
    }

    #[test]
    fn values_settle_in_the_class_that_sqlite_gives_them() {
        let text = |t: &str| Value::Text(t.to_owned());
        let numeric = |v| Affinity::Numeric.settle(v);
        assert_eq!(numeric(text("17")), Value::Int(17));
        assert_eq!(numeric(text(" 7 ")), Value::Int(7));
        assert_eq!(numeric(text("1.0")), Value::Int(1));
        assert_eq!(numeric(text("9e999")), Value::Real(f64::INFINITY));
        assert_eq!(numeric(text("")), text(""));
        assert_eq!(numeric(text("0x10")), text("0x10"));
        assert_eq!(
            numeric(text("2009-01-01 00:00:00")),
            text("2009-01-01 00:00:00")
        );
        assert_eq!(
            numeric(Value::Real(1e18)),
            Value::Int(1_000_000_000_000_000_000)
        );
        assert_eq!(numeric(Value::Real(-0.0)), Value::Int(0));
        let lowest = Value::Real(-9_223_372_036_854_775_808.0);
        assert_eq!(numeric(lowest.clone()), lowest);
        assert_eq!(Affinity::Real.settle(text("1.0")), Value::Real(1.0));
        assert_eq!(Affinity::Real.settle(Value::Int(5)), Value::Real(5.0));
        assert_eq!(Affinity::Text.settle(Value::Int(5)), text("5"));
        assert_eq!(Affinity::Blob.settle(text("5")), text("5"));
    }
}
