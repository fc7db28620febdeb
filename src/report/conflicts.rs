//! `conflicts`.

use super::time::Time;
use crate::model::{Row, Value};
use serde::{Deserialize, Serialize};

/// One conflict, seen from this device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// ULID.
    pub id: String,
    /// The table.
    pub table: String,
    /// The row's key.
    pub pk: Vec<Value>,
    /// When it was decided.
    pub detected_at: Time,
    /// The policy that decided.
    pub policy: String,
    /// `local` or `remote`.
    pub winner: String,
    /// What met what, this device's side first.
    pub kind: String,
    /// This device's content; null for a delete.
    pub local: Option<Row>,
    /// The other side's content; null for a delete.
    pub remote: Option<Row>,
    /// The change on this side.
    pub local_change_key: Option<String>,
    /// The change on the other.
    pub remote_change_key: Option<String>,
    /// When this side was written.
    pub local_at: Option<Time>,
    /// When the other was.
    pub remote_at: Option<Time>,
    /// The other device; `0` for whoever writes to Postgres directly.
    pub remote_device: Option<String>,
    /// Whether the other side is this very file under a former id (SYNC-008).
    #[serde(default)]
    pub own: bool,
    /// Whether somebody acknowledged it.
    pub seen: bool,
    /// The file that keeps the loser, absolute.
    pub original_file: Option<String>,
    /// The fresh key under which the loser of a `key_collision` was written back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_as: Option<Vec<Value>>,
}

/// `conflicts`, `conflicts show`, `restore` and `ack`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ConflictsReport {
    /// The newest first.
    pub conflicts: Vec<Conflict>,
    /// How many there are in all; more than are listed where there are very many.
    pub total: u64,
    /// Of `restore`: other rows that refer to the original again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<u64>,
}
