//! A value as SQLite stores it, and its one JSON form.
//!
//! The JSON form is lossless: integers are JSON numbers without a fraction, reals are numbers with
//! one (shortest round-trip digits) or `{"real":"inf"}`, blobs are `{"hex":"..."}`, and text that is
//! not UTF-8 is `{"badtext":"<hex>"}`, which can be kept but never sent.

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// One value with its SQLite storage class.
#[derive(Debug, Clone)]
pub enum Value {
    /// NULL.
    Null,
    /// INTEGER.
    Int(i64),
    /// REAL; never NaN (SQLite stores NaN as NULL).
    Real(f64),
    /// TEXT that is valid UTF-8.
    Text(String),
    /// BLOB.
    Blob(Vec<u8>),
    /// TEXT whose bytes are not UTF-8: no Postgres text type can hold it.
    BadText(Vec<u8>),
}

/// Equality by storage class and bytes: reals compare by bits, so `-0.0` and `0.0` differ, as two
/// devices would see them differ.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Real(a), Value::Real(b)) => a.to_bits() == b.to_bits(),
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Blob(a), Value::Blob(b)) | (Value::BadText(a), Value::BadText(b)) => a == b,
            _ => false,
        }
    }
}
impl Eq for Value {}

/// Lower-case hex digits of bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        out.push(DIGITS[usize::from(b >> 4)] as char);
        out.push(DIGITS[usize::from(b & 15)] as char);
    }
    out
}

/// Bytes from hex digits; `None` where the text is not hex.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let b = text.as_bytes();
    if !b.len().is_multiple_of(2) {
        return None;
    }
    let digit = |c: u8| (c as char).to_digit(16).map(|d| d as u8);
    b.chunks_exact(2)
        .map(|p| Some((digit(p[0])? << 4) | digit(p[1])?))
        .collect()
}

/// The text of a real that JSON cannot hold, and back.
fn real_name(r: f64) -> Option<&'static str> {
    if r == f64::INFINITY {
        Some("inf")
    } else if r == f64::NEG_INFINITY {
        Some("-inf")
    } else if r.is_nan() {
        Some("nan")
    } else {
        None
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let tagged = |s: S, tag: &str, text: &str| {
            let mut m = s.serialize_map(Some(1))?;
            m.serialize_entry(tag, text)?;
            m.end()
        };
        match self {
            Value::Null => s.serialize_unit(),
            Value::Int(i) => s.serialize_i64(*i),
            Value::Real(r) => match real_name(*r) {
                Some(name) => tagged(s, "real", name),
                None => s.serialize_f64(*r),
            },
            Value::Text(t) => s.serialize_str(t),
            Value::Blob(b) => tagged(s, "hex", &hex(b)),
            Value::BadText(b) => tagged(s, "badtext", &hex(b)),
        }
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value in tidewater's JSON form")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Int(i64::from(v)))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Int(v))
    }
    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Value, E> {
        i64::try_from(v)
            .map(Value::Int)
            .map_err(|_| E::custom("integer above 64 bits"))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Value::Real(v))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::Text(v.to_owned()))
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::Text(v))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let bad = || de::Error::custom("expected {\"hex\"}, {\"real\"} or {\"badtext\"}");
        let (tag, text): (String, String) = map.next_entry()?.ok_or_else(bad)?;
        if map.next_key::<String>()?.is_some() {
            return Err(bad());
        }
        match tag.as_str() {
            "hex" => unhex(&text).map(Value::Blob).ok_or_else(bad),
            "badtext" => unhex(&text).map(Value::BadText).ok_or_else(bad),
            "real" => text.parse().map(Value::Real).map_err(|_| bad()),
            _ => Err(bad()),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Value, D::Error> {
        d.deserialize_any(ValueVisitor)
    }
}

/// A row: column names with their values, in the order they were read.
///
/// Its JSON form is an object; the order of the columns survives the round trip.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row(pub Vec<(String, Value)>);

impl Row {
    /// The value of a column, `None` where the row does not carry it.
    pub fn get(&self, column: &str) -> Option<&Value> {
        self.0.iter().find(|(c, _)| c == column).map(|(_, v)| v)
    }

    /// Whether both hold the same values in every column that **both** carry.
    pub fn agrees_with(&self, other: &Row) -> bool {
        self.0
            .iter()
            .all(|(c, v)| other.get(c).is_none_or(|o| o == v))
    }

    /// About how many bytes its content takes.
    pub fn weight(&self) -> usize {
        self.0
            .iter()
            .map(|(_, v)| match v {
                Value::Text(t) => t.len(),
                Value::Blob(b) | Value::BadText(b) => b.len(),
                _ => 8,
            })
            .sum()
    }

    /// The row as JSON text.
    pub fn to_json(&self) -> String {
        // Serialising to memory cannot fail: every Value has a JSON form and every key is text.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The row from its JSON text.
    pub fn from_json(text: &str) -> Result<Row, serde_json::Error> {
        serde_json::from_str(text)
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.0.iter().map(|(c, v)| (c, v)))
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row as a JSON object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
        let mut row = Vec::with_capacity(map.size_hint().unwrap_or(8));
        while let Some(entry) = map.next_entry::<String, Value>()? {
            row.push(entry);
        }
        Ok(Row(row))
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Row, D::Error> {
        d.deserialize_map(RowVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Int),
            any::<f64>()
                .prop_filter("SQLite has no NaN", |r| !r.is_nan())
                .prop_map(Value::Real),
            any::<String>().prop_map(Value::Text),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::Blob),
            Just(Value::BadText(vec![0xff, 0x00])),
        ]
    }

    proptest! {
        #[test]
        fn every_value_survives_its_json_form(v in any_value()) {
            let text = serde_json::to_string(&v).expect("values serialise");
            prop_assert_eq!(serde_json::from_str::<Value>(&text).expect("and come back"), v);
        }
    }

    #[test]
    fn a_row_keeps_the_order_of_its_columns() {
        let row = Row(vec![
            ("z".into(), Value::Int(1)),
            ("a".into(), Value::Real(1.0)),
        ]);
        assert_eq!(row.to_json(), r#"{"z":1,"a":1.0}"#);
        assert_eq!(Row::from_json(&row.to_json()).expect("parses"), row);
    }
}
