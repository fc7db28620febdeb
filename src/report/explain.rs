//! `explain` and `queue show`.

use super::queue::QueueItem;
use super::time::Time;
use crate::model::{Row, Value};
use serde::{Deserialize, Serialize};

/// Something that happened to a row, to its table or to the device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When; null where that was not recorded.
    pub at: Option<Time>,
    /// What. Of a row: `captured`, `claimed`, `folded`, `refused`, `parked`, `retried`, `uploaded`, `same`,
    /// `lost`, `applied`, `not_applied`, `conflict`, `restored`, `discarded`, `taken_back`. Of the device or the table:
    /// `new_identity`, `went_back`, `capture_healed`, `paused`, `resumed`.
    pub kind: String,
    /// The change concerned.
    pub change_key: Option<String>,
    /// The other device concerned; `0` for whoever writes to Postgres directly.
    pub device: Option<String>,
    /// The conflict concerned.
    pub conflict: Option<String>,
    /// `SYNC-...`.
    pub code: Option<String>,
    /// The server's SQLSTATE.
    pub sqlstate: Option<String>,
    /// What is to be said of it; never a value of the row.
    pub message: Option<String>,
}

/// `explain TABLE KEY...`: a row's whole life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainReport {
    /// The table.
    pub table: String,
    /// The row's key.
    pub key: Vec<Value>,
    /// As `status TABLE KEY` says it; null where nothing is known of the row any more.
    pub status: Option<String>,
    /// The oldest first.
    pub events: Vec<Event>,
}

/// One item of the outbox with all that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueDetail {
    /// As in the list.
    #[serde(flatten)]
    pub item: QueueItem,
    /// When the app wrote the row; null for rows that stood there at `init`.
    pub edited_at: Option<Time>,
    /// When the server acknowledged it.
    pub synced_at: Option<Time>,
    /// The content that is sent; null for deletes and after the acknowledgement.
    pub row: Option<Row>,
    /// What happened to it, the oldest first.
    pub events: Vec<Event>,
}

/// `queue show`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueDetailReport {
    /// The one item.
    pub items: Vec<QueueDetail>,
    /// One.
    pub total: u64,
}
