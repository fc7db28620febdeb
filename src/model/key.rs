//! A primary key with the types of its values, and its canonical text.
//!
//! The canonical text is what the outbox, the notes and the server's tombstones are filed under. The
//! server's delete trigger builds the same bytes in SQL (`postgres::mirror_sql`), so the two must
//! never drift apart: a JSON array without spaces, text escaped as JSON does with the short escapes,
//! blobs as `{"hex":".."}`, reals as `{"real":"<16 hex digits of the IEEE bits>"}`.

use super::value::{Value, hex, unhex};

/// The values of a primary key in the order of the key's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(pub Vec<Value>);

impl Key {
    /// The canonical text.
    pub fn encode(&self) -> String {
        let mut out = String::from("[");
        for (i, v) in self.0.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            match v {
                Value::Null => out.push_str("null"),
                Value::Int(n) => out.push_str(&n.to_string()),
                Value::Real(r) => {
                    out.push_str("{\"real\":\"");
                    out.push_str(&hex(&r.to_bits().to_be_bytes()));
                    out.push_str("\"}");
                }
                Value::Text(t) => {
                    out.push_str(&serde_json::to_string(t).unwrap_or_default());
                }
                Value::Blob(b) => {
                    out.push_str("{\"hex\":\"");
                    out.push_str(&hex(b));
                    out.push_str("\"}");
                }
                Value::BadText(b) => {
                    out.push_str("{\"badtext\":\"");
                    out.push_str(&hex(b));
                    out.push_str("\"}");
                }
            }
        }
        out.push(']');
        out
    }

    /// The key from its canonical text; `None` where the text is not one.
    pub fn decode(text: &str) -> Option<Key> {
        let parsed: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
        parsed
            .into_iter()
            .map(|v| match v {
                serde_json::Value::Null => Some(Value::Null),
                serde_json::Value::Number(n) => n.as_i64().map(Value::Int),
                serde_json::Value::String(s) => Some(Value::Text(s)),
                serde_json::Value::Object(m) => {
                    let (tag, text) = m.iter().next()?;
                    let bytes = unhex(text.as_str()?)?;
                    match tag.as_str() {
                        "hex" => Some(Value::Blob(bytes)),
                        "badtext" => Some(Value::BadText(bytes)),
                        "real" => {
                            let bits: [u8; 8] = bytes.try_into().ok()?;
                            Some(Value::Real(f64::from_bits(u64::from_be_bytes(bits))))
                        }
                        _ => None,
                    }
                }
                serde_json::Value::Bool(_) | serde_json::Value::Array(_) => None,
            })
            .collect::<Option<Vec<_>>>()
            .map(Key)
    }

    /// Whether any part is NULL; such a key identifies nothing and cannot be replicated.
    pub fn has_null(&self) -> bool {
        self.0.iter().any(|v| matches!(v, Value::Null))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_different_type_are_different_and_round_trip() {
        let keys = [
            Key(vec![Value::Int(1)]),
            Key(vec![Value::Text("1".into())]),
            Key(vec![Value::Blob(vec![0x31])]),
            Key(vec![Value::Real(1.0)]),
            Key(vec![Value::Text("a\"\\\n\u{1}é/".into()), Value::Int(-5)]),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert_eq!(Key::decode(&a.encode()).as_ref(), Some(a));
            for b in &keys[i + 1..] {
                assert_ne!(a.encode(), b.encode());
            }
        }
        assert_eq!(keys[4].encode(), "[\"a\\\"\\\\\\n\\u0001é/\",-5]");
        assert_eq!(keys[3].encode(), "[{\"real\":\"3ff0000000000000\"}]");
    }
}
