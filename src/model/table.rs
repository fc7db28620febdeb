//! What the program knows of a tracked table.

use super::affinity::Affinity;
use super::key::Key;
use super::privacy::{Privacy, RowPrivacy};
use super::value::{Row, Value};
use super::wire::{PgType, Wire};
use serde::{Deserialize, Serialize};

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
    /// The Postgres type that the configuration wants in place of the default one.
    #[serde(default)]
    pub pg_type: Option<PgType>,
}

impl Column {
    /// Whether its default takes the place of an arriving value.
    pub fn stands_in_for(&self, value: Option<&Value>) -> bool {
        value == Some(&Value::Null) && self.not_null && self.has_default
    }

    /// Its affinity.
    pub fn affinity(&self) -> Affinity {
        Affinity::of(&self.declared)
    }

    /// How its values travel to a mirror column that tidewater creates.
    pub fn wire(&self) -> Wire {
        let wanted = self.pg_type.and_then(|t| self.wire_for(t.catalogue()));
        wanted.unwrap_or_else(|| Wire::default_for(&self.declared))
    }

    /// How its values travel to a column of a type, by the catalogue's name; `None` where they cannot.
    pub fn wire_for(&self, typname: &str) -> Option<Wire> {
        let default = Wire::default_for(&self.declared);
        if typname == default.catalogue() {
            return Some(default);
        }
        Wire::for_pg(typname, self.affinity(), self.declared.is_empty())
    }

    /// The type of a mirror column that tidewater creates.
    pub fn mirror_type(&self) -> &'static str {
        self.pg_type
            .map_or_else(|| self.wire().pg_type(), PgType::as_str)
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

    /// Whether SQLite hands out the keys: two devices hand out the same.
    pub fn assigns_keys(&self) -> bool {
        !self.without_rowid
            && matches!(self.key.as_slice(), [key] if self
                .column(key)
                .is_some_and(|c| c.declared.eq_ignore_ascii_case("integer")))
    }

    /// Everything that lets one row keep another out: the secondary UNIQUE indexes, and the key where its
    /// collation holds keys of different bytes to be equal.
    pub fn exclusions(&self) -> Vec<Unique> {
        let mut all = self.uniques.clone();
        all.extend(self.key_exclusion());
        all
    }

    /// The key as a UNIQUE, where that forbids more than its bytes do.
    pub fn key_exclusion(&self) -> Option<Unique> {
        let is_wider = |c: &String| !c.eq_ignore_ascii_case("binary");
        self.key_collations.iter().any(is_wider).then(|| Unique {
            name: "key".to_owned(),
            columns: self
                .key
                .iter()
                .cloned()
                .map(Some)
                .zip(self.key_collations.iter().cloned())
                .collect(),
            partial: false,
        })
    }

    /// Whether a default of the app stands in for a NULL that this row brings: a writer that does not know
    /// the column, or leaves it out, says NULL where the app allows none.
    pub fn is_filled(&self, row: &Row) -> bool {
        self.replicated()
            .filter(|c| !self.key.contains(&c.name) && !self.redact().contains(&c.name))
            .any(|c| c.stands_in_for(row.get(&c.name)))
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
