//! `prune` and `detach`.

use super::queue::ItemResult;
use super::status::Device;
use serde::{Deserialize, Serialize};

/// What the retention removed, or would remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Acknowledged changes.
    pub synced: u64,
    /// The history of rows that were applied here.
    pub applied: u64,
    /// Acknowledged conflicts.
    pub conflicts: u64,
    /// What was logged of tables that are gone.
    pub logged: u64,
    /// Events of the journal.
    pub events: u64,
}

impl Pruned {
    /// Whether nothing was removed.
    pub fn is_empty(&self) -> bool {
        *self == Pruned::default()
    }

    /// Adds what a further step removed.
    pub fn add(&mut self, more: &Pruned) {
        self.synced += more.synced;
        self.applied += more.applied;
        self.conflicts += more.conflicts;
        self.logged += more.logged;
        self.events += more.events;
    }
}

/// `prune`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PruneReport {
    /// Whether nothing was changed, for `--yes` was missing.
    pub dry_run: bool,
    /// What the retention removed, or would remove.
    pub removed: Pruned,
    /// Failed items that were discarded, or would be.
    pub failed: Vec<ItemResult>,
}

/// `detach`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachReport {
    /// The device that the file was.
    pub device: Device,
    /// Triggers removed from the app's tables.
    pub triggers: u64,
    /// Views removed.
    pub views: u64,
    /// Tables of tidewater's own removed.
    pub tables: u64,
    /// Changes that were not sent, and are in the file below.
    pub unsent: u64,
    /// Changes that had failed, likewise.
    pub failed: u64,
    /// Conflicts that nobody had acknowledged, likewise.
    pub conflicts: u64,
    /// The file that keeps them, absolute; null where there was nothing to keep.
    pub written: Option<String>,
}
