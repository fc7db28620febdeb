//! `status`, `status TABLE KEY`, `pause` and `resume`.

use super::queue::ItemError;
use super::time::Time;
use crate::model::Value;
use serde::{Deserialize, Serialize};

/// One SQLite file with capture installed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// ULID.
    pub id: String,
    /// As people call it.
    pub name: String,
}

/// Whether changes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They do.
    Online,
    /// The remote is out of reach; changes queue.
    Offline,
    /// Somebody said `pause`; changes queue.
    Paused,
}

impl Mode {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Online => "online",
            Mode::Offline => "offline",
            Mode::Paused => "paused",
        }
    }
}

/// `pause` and `resume`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeReport {
    /// The mode from now on.
    pub mode: Mode,
}

/// The process that replicates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Whether one holds this device.
    pub running: bool,
    /// Its process id, where known.
    pub pid: Option<u32>,
}

/// The server as it answered just now; the optional fields are null where it did not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RemoteStatus {
    /// Whether it answered.
    pub reachable: bool,
    /// As in `15.18`.
    pub server_version: Option<String>,
    /// The workspace.
    pub schema: String,
    /// One round trip.
    pub latency_ms: Option<f64>,
    /// This clock against the server's.
    pub clock_offset_ms: Option<i64>,
}

/// What is on its way to the remote.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Upload {
    /// Changes that wait, those not claimed yet included.
    pub pending: u64,
    /// Of these, those that no backoff holds back.
    pub ready: u64,
    /// Changes in a batch that was sent.
    pub uploading: u64,
    /// Changes that were given up until somebody acts.
    pub failed: u64,
    /// Acknowledged since midnight UTC.
    pub synced_today: u64,
    /// Acknowledged ever.
    pub synced_total: u64,
    /// When the oldest change that is not acknowledged was written.
    pub oldest_pending_at: Option<Time>,
    /// Its age.
    pub lag_seconds: f64,
    /// When the remote last acknowledged something.
    pub last_push_at: Option<Time>,
}

/// What is on its way from the remote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Download {
    /// Rows known to be newer there and not installed yet.
    pub pending: u64,
    /// Rows that could not be applied.
    pub failed: u64,
    /// Rows installed since midnight UTC.
    pub applied_today: u64,
    /// When the feed was last read to its end.
    pub last_pull_at: Option<Time>,
}

/// How many conflicts there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictCounts {
    /// All that are kept.
    pub total: u64,
    /// Those that nobody acknowledged.
    pub unseen: u64,
}

/// Whether the remote is being asked at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Circuit {
    /// It is.
    #[default]
    Closed,
    /// It failed; the next try waits.
    Open,
    /// One try is under way.
    HalfOpen,
}

impl Circuit {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Circuit::Closed => "closed",
            Circuit::Open => "open",
            Circuit::HalfOpen => "half_open",
        }
    }

    /// From the word of the contract.
    pub fn parse(text: &str) -> Option<Circuit> {
        [Circuit::Closed, Circuit::Open, Circuit::HalfOpen]
            .into_iter()
            .find(|c| c.as_str() == text)
    }
}

/// One tracked table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableStatus {
    /// Its name.
    pub name: String,
    /// `full`, `redacted` or `local_only`.
    pub privacy: String,
    /// Changes that wait.
    pub pending: u64,
    /// Changes that failed.
    pub failed: u64,
}

/// Something that a person should know or do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `SYNC-...`.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// `status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The device.
    pub device: Device,
    /// Whether changes travel.
    pub mode: Mode,
    /// The service.
    pub service: Service,
    /// The server.
    pub remote: RemoteStatus,
    /// Uploads.
    pub upload: Upload,
    /// Downloads.
    pub download: Download,
    /// Conflicts.
    pub conflicts: ConflictCounts,
    /// The breaker.
    pub circuit: Circuit,
    /// The tracked tables.
    pub tables: Vec<TableStatus>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// `status TABLE KEY...`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowStatus {
    /// The table.
    pub table: String,
    /// The row's key.
    pub key: Vec<Value>,
    /// `pending`, `synced`, `conflict` or `failed`.
    pub status: String,
    /// The change that the status is about, once it has a key.
    pub change_key: Option<String>,
    /// Why it failed.
    pub error: Option<ItemError>,
    /// When the row was last acknowledged or installed, as far as the history reaches.
    pub synced_at: Option<Time>,
}
