//! `queue`, `retry` and `discard`.

use super::time::Time;
use crate::model::Value;
use serde::{Deserialize, Serialize};

/// Why an item failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemError {
    /// `SYNC-...`.
    pub code: String,
    /// The server's SQLSTATE, if the server refused it.
    pub sqlstate: Option<String>,
    /// What was said.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// One change in the outbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueItem {
    /// Its change key; null before the claim.
    pub key: Option<String>,
    /// The table.
    pub table: String,
    /// The row's key.
    pub pk: Vec<Value>,
    /// `upsert` or `delete`.
    pub op: String,
    /// `pending`, `uploading`, `failed` or `synced`.
    pub status: String,
    /// Answers of the server about this item.
    pub attempts: u32,
    /// Not before then; null: at once.
    pub next_attempt_at: Option<Time>,
    /// The size of its content.
    pub bytes: u64,
    /// When it was queued: for rows that stood there before their table was tracked, when that began.
    pub created_at: Option<Time>,
    /// What the last attempt ended with.
    pub error: Option<ItemError>,
}

/// `queue`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueReport {
    /// The first items.
    pub items: Vec<QueueItem>,
    /// How many there are in all.
    pub total: u64,
}

/// One downloaded row that waits or was applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InboxItem {
    /// The change that wrote it.
    pub key: Option<String>,
    /// The table.
    pub table: String,
    /// The row's key.
    pub pk: Vec<Value>,
    /// `upsert` or `delete`; null where only the key is known by now.
    pub op: Option<String>,
    /// `failed`, `pending` (known here, and fetched once the row has no unsent change) or `applied`.
    pub status: String,
    /// Always 0: a row that arrived is applied anew with every sync.
    pub attempts: u32,
    /// Always null.
    pub next_attempt_at: Option<Time>,
    /// The size of the content that waits.
    pub bytes: u64,
    /// The device that wrote it; `0` for whoever writes to Postgres directly.
    pub device: Option<String>,
    /// Why it could not be applied.
    pub error: Option<ItemError>,
    /// When it came; null where that was not recorded.
    pub created_at: Option<Time>,
}

/// `queue --inbox`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InboxReport {
    /// The first items.
    pub items: Vec<InboxItem>,
    /// How many there are in all.
    pub total: u64,
}

/// What became of one item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemResult {
    /// Its change key.
    pub key: String,
    /// The table.
    pub table: String,
    /// The row's key.
    pub pk: Vec<Value>,
    /// `synced`, `failed`, `pending` or `discarded`.
    pub outcome: String,
    /// Why, if it failed or still waits.
    pub error: Option<ItemError>,
}

/// `retry` and `discard`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ResultsReport {
    /// One for each item.
    pub results: Vec<ItemResult>,
}
