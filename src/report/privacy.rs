//! `privacy`.

use super::Skipped;
use serde::{Deserialize, Serialize};

/// What can leave this device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivacyReport {
    /// The tables of which anything can leave.
    pub tables: Vec<TablePrivacy>,
    /// The tables of which nothing can, with the reason.
    pub stay: Vec<Skipped>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablePrivacy {
    /// Its name.
    pub name: String,
    /// Its level: `full`, `redacted` or `local_only`.
    pub privacy: String,
    /// The column in which a row says its own level.
    pub privacy_column: Option<String>,
    /// The columns in their order.
    pub columns: Vec<ColumnPrivacy>,
    /// How many rows have which level.
    pub rows: LevelCounts,
    /// Keys that stay here: never sent, or taken back.
    pub private_keys: u64,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnPrivacy {
    /// Its name.
    pub name: String,
    /// `always` with its row, `full_rows` only, or `never`.
    pub leaves: String,
}

/// Rows by level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelCounts {
    /// Rows that leave whole.
    pub full: u64,
    /// Rows that leave without their redact columns.
    pub redacted: u64,
    /// Rows that stay.
    pub local_only: u64,
    /// Of those that stay, rows whose level is a word that nobody knows.
    pub unknown: u64,
}
