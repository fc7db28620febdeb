//! What may leave the device, by table and by row. Pure: words, levels and columns.
//!
//! A row's own level is read from the row as it is, and read so that a mistake keeps more here: a word
//! that nobody knows counts as LOCAL_ONLY. It never fails.

use super::affinity::Affinity;
use super::table::{Column, Table};
use super::value::{Row, Value};
use serde::{Deserialize, Serialize};

/// What may leave the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Privacy {
    /// Everything.
    #[default]
    Full,
    /// Everything but the redacted columns.
    Redacted,
    /// Nothing. A table of this level is not even captured, unless its rows have levels of their own.
    LocalOnly,
}

impl Privacy {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Privacy::Full => "full",
            Privacy::Redacted => "redacted",
            Privacy::LocalOnly => "local_only",
        }
    }

    /// What a row's own word says. NULL says nothing, and then the table's level holds; a word in any
    /// case, with or without spaces around it; whatever else stands there keeps the row here.
    pub fn of_word(word: &Value, table: Privacy) -> Privacy {
        match word {
            Value::Null => table,
            word => Privacy::parse(word).unwrap_or(Privacy::LocalOnly),
        }
    }

    /// Whether a row's word, or its silence, is one that means something.
    pub fn knows(word: &Value) -> bool {
        *word == Value::Null || Privacy::parse(word).is_some()
    }

    fn parse(word: &Value) -> Option<Privacy> {
        let Value::Text(t) = word else {
            return None;
        };
        [Privacy::Full, Privacy::Redacted, Privacy::LocalOnly]
            .into_iter()
            .find(|p| p.as_str().eq_ignore_ascii_case(t.trim()))
    }
}

/// How the rows of a table say their own level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowPrivacy {
    /// The column that holds the level.
    pub column: String,
    /// The columns that stay here of a row whose level is REDACTED.
    pub redact: Vec<String>,
}

impl Table {
    /// The level of a row: its own, or the table's where it says nothing.
    pub fn level_of(&self, row: &Row) -> Privacy {
        let word = self.rows.as_ref().and_then(|r| row.get(&r.column));
        word.map_or(self.privacy, |w| Privacy::of_word(w, self.privacy))
    }

    /// The columns that a REDACTED row keeps here; none where the rows have no level of their own.
    pub fn redact(&self) -> &[String] {
        self.rows.as_ref().map_or(&[], |r| &r.redact)
    }

    /// Takes the redact columns out of a row.
    pub fn strip(&self, row: &mut Row) {
        row.0.retain(|(c, _)| !self.redact().contains(c));
    }

    /// Puts into a row what the other side holds in the redact columns of a REDACTED one: nothing.
    pub fn blank_out(&self, row: &mut Row) {
        self.strip(row);
        for name in self.redact() {
            if let Some(c) = self.column(name).filter(|c| !c.generated) {
                let nothing = if c.not_null { c.blank() } else { Value::Null };
                row.0.push((name.clone(), nothing));
            }
        }
    }

    /// Whether a row holds content in one of the redact columns.
    pub fn holds_content(&self, row: &Row) -> bool {
        self.redact()
            .iter()
            .filter_map(|name| self.column(name))
            .any(|c| row.get(&c.name).is_some_and(|v| !c.is_blank(v)))
    }
}

impl Column {
    /// What stands in the column where there is no content and NULL is not allowed.
    pub fn blank(&self) -> Value {
        match self.affinity() {
            Affinity::Integer | Affinity::Numeric => Value::Int(0),
            Affinity::Real => Value::Real(0.0),
            Affinity::Text => Value::Text(String::new()),
            Affinity::Blob => Value::Blob(Vec::new()),
        }
    }

    /// Whether a value is what stands here for no content.
    pub fn is_blank(&self, value: &Value) -> bool {
        *value == Value::Null || (self.not_null && *value == self.blank())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_nobody_knows_keeps_the_row_here() {
        let text = |t: &str| Privacy::of_word(&Value::Text(t.into()), Privacy::Full);
        assert_eq!(text("FULL"), Privacy::Full);
        assert_eq!(text("Redacted"), Privacy::Redacted);
        assert_eq!(text(" local_only\n"), Privacy::LocalOnly);
        for odd in ["", "LOCAL", "LOCAL-ONLY", "REDACT", "publik", "FULL;"] {
            assert_eq!(text(odd), Privacy::LocalOnly, "{odd:?}");
        }
        for odd in [
            Value::Int(0),
            Value::Real(1.0),
            Value::Blob(b"FULL".to_vec()),
            Value::BadText(vec![0xff]),
        ] {
            assert_eq!(Privacy::of_word(&odd, Privacy::Full), Privacy::LocalOnly);
        }
    }

    #[test]
    fn null_says_what_the_table_says() {
        for level in [Privacy::Full, Privacy::Redacted, Privacy::LocalOnly] {
            assert_eq!(Privacy::of_word(&Value::Null, level), level);
        }
    }
}
