//! What the program knows of a tracked table.

use super::key::Key;
use super::privacy::{Privacy, RowPrivacy};
use super::value::{Row, Value};
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
}

/// How a column's values travel to and from its Postgres column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Wire {
    /// Integers in `bigint` (or a smaller integer type of an adopted table).
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
}

/// Why a value cannot travel in its column's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Misfit {
    /// Text that is not valid UTF-8.
    NotUtf8,
    /// Text with a NUL character.
    Nul,
    /// A storage class, or a number, that the column cannot hold.
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
        }
    }

    /// Why a value cannot travel in this form; `None` where it can.
    pub fn misfit(self, v: &Value) -> Option<Misfit> {
        match (self, v) {
            (_, Value::BadText(_)) => Some(Misfit::NotUtf8),
            (Wire::Bytes, Value::Text(_)) => Some(Misfit::Class),
            (_, Value::Text(t)) if t.contains('\0') => Some(Misfit::Nul),
            (_, Value::Null)
            | (Wire::Int, Value::Int(_))
            | (Wire::Real, Value::Real(_))
            | (Wire::Bytes, Value::Blob(_))
            | (Wire::Text, Value::Text(_))
            | (Wire::Numeric, Value::Int(_) | Value::Real(_))
            | (Wire::Affine, Value::Int(_) | Value::Real(_) | Value::Text(_))
            | (Wire::Dynamic, _) => None,
            // Beyond 53 bits a real is another number.
            (Wire::Real, Value::Int(i)) if (*i as f64) as i64 == *i && i.abs() < (1 << 53) => None,
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
                Wire::Int | Wire::Real | Wire::Numeric,
                Affinity::Integer | Affinity::Numeric | Affinity::Real,
            ) => Some("text"),
            (Wire::Bytes, Affinity::Blob) => Some("jsonb"),
            _ => None,
        }
    }

    /// The wire form for an existing Postgres column, `None` where the column's values would not
    /// come back as they were written.
    pub fn for_pg(pg_type: &str, affinity: Affinity) -> Option<Wire> {
        match (pg_type, affinity) {
            ("int2" | "int4" | "int8", Affinity::Integer | Affinity::Numeric) => Some(Wire::Int),
            ("float8", Affinity::Real | Affinity::Numeric) => Some(Wire::Real),
            ("text" | "varchar", Affinity::Text) => Some(Wire::Text),
            ("text" | "varchar", Affinity::Integer | Affinity::Numeric | Affinity::Real) => {
                Some(Wire::Affine)
            }
            ("bytea", Affinity::Blob) => Some(Wire::Bytes),
            ("numeric", Affinity::Numeric | Affinity::Integer | Affinity::Real) => {
                Some(Wire::Numeric)
            }
            ("jsonb", Affinity::Blob) => Some(Wire::Dynamic),
            _ => None,
        }
    }
}

/// A column of a tracked table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The declared type, as written.
    pub declared: String,
    /// Whether NULL is refused.
    pub not_null: bool,
    /// Whether the column has a DEFAULT.
    pub has_default: bool,
    /// Whether the column is generated: read, never written, never replicated.
    pub generated: bool,
    /// Whether its content never leaves this device.
    pub redacted: bool,
}

impl Column {
    /// Its affinity.
    pub fn affinity(&self) -> Affinity {
        Affinity::of(&self.declared)
    }
}

/// A secondary UNIQUE constraint or index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unique {
    /// The index's name.
    pub name: String,
    /// Columns with the collation of the index; `None` for an expression.
    pub columns: Vec<(Option<String>, String)>,
    /// Whether the index has a WHERE clause.
    pub partial: bool,
}

/// A foreign key of a tracked table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKey {
    /// The table that is referenced.
    pub parent: String,
    /// The referencing columns.
    pub columns: Vec<String>,
}

/// A table that is, or could be, tracked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name, as in `sqlite_schema`.
    pub name: String,
    /// All columns in declaration order.
    pub columns: Vec<Column>,
    /// The primary key's columns in key order, never empty for a tracked table.
    pub key: Vec<String>,
    /// The collation of each key column (`BINARY`, `NOCASE`, `RTRIM`).
    pub key_collations: Vec<String>,
    /// Whether it has no rowid.
    pub without_rowid: bool,
    /// Secondary UNIQUE indexes.
    pub uniques: Vec<Unique>,
    /// Foreign keys.
    pub foreign_keys: Vec<ForeignKey>,
    /// Whether the app has triggers of its own on it.
    pub has_app_triggers: bool,
    /// Its CREATE TABLE statement.
    pub sql: String,
    /// The CREATE INDEX statements of its indexes.
    pub indexes: Vec<String>,
    /// What may leave the device.
    pub privacy: Privacy,
    /// How its rows say their own level; `None` where the table's level is that of every row.
    #[serde(default)]
    pub rows: Option<RowPrivacy>,
}

impl Table {
    /// The columns that are replicated: neither generated nor redacted, in declaration order.
    pub fn replicated(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|c| !c.generated && !c.redacted)
    }

    /// A column by its name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// The key of a row; `None` where the row lacks a key column.
    pub fn key_of(&self, row: &Row) -> Option<Key> {
        self.key
            .iter()
            .map(|c| row.get(c).cloned())
            .collect::<Option<Vec<Value>>>()
            .map(Key)
    }
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
}
