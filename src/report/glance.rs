//! What the endpoint shows of the file: counts, times and names, never a key or a value of a row.

use super::status::{ConflictCounts, Device, Download, Problem, TableStatus, Upload};
use super::time::Time;

/// One look into the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Glance {
    /// The device.
    pub device: Device,
    /// Whether somebody said `pause`.
    pub paused: bool,
    /// Uploads.
    pub upload: Upload,
    /// Acknowledged entries that the retention still keeps.
    pub synced_kept: u64,
    /// Downloads.
    pub download: Download,
    /// Conflicts.
    pub conflicts: ConflictCounts,
    /// The tracked tables by name.
    pub tables: Vec<TableStatus>,
    /// What the service left to be said.
    pub problems: Vec<Problem>,
    /// The server's clock minus this one, ms, as last measured.
    pub clock_offset_ms: i64,
    /// When the file last got a new identity, being a copy or restored.
    pub renewed_at: Option<Time>,
    /// When triggers that a migration had dropped were last put back.
    pub healed_at: Option<Time>,
    /// Failed changes, by table and reason.
    pub failures: Vec<Failure>,
    /// The latest conflicts, the newest first.
    pub latest_conflicts: Vec<ConflictLine>,
}

/// Changes of one table that failed for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The table.
    pub table: String,
    /// `SYNC-...`.
    pub code: String,
    /// The server's SQLSTATE, if the server refused them.
    pub sqlstate: Option<String>,
    /// How many.
    pub changes: u64,
}

/// A conflict without its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictLine {
    /// ULID.
    pub id: String,
    /// The table.
    pub table: String,
    /// What met what, this device's side first.
    pub kind: String,
    /// The policy that decided.
    pub policy: String,
    /// `local` or `remote`.
    pub winner: String,
    /// When it was decided.
    pub detected_at: Time,
    /// Whether somebody acknowledged it.
    pub seen: bool,
}
