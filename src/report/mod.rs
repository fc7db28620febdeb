//! The documents that `--json` prints, names and nesting as the contract has them.
//!
//! Plain values, filled by `sync` and `sqlite::inspect`, shown by `cli`; a running service answers
//! other processes with the same documents, so each can be read back. Names here are public: fields
//! may be added, none may change its meaning. Nothing here does I/O, and nothing here can fail.

mod conflicts;
mod devices;
mod doctor;
mod explain;
mod glance;
mod lifecycle;
mod privacy;
mod progress;
mod queue;
mod status;
mod time;

pub use crate::model::{Row, Value};
pub use conflicts::{Conflict, ConflictsReport};
pub use devices::{DevicesReport, Member, ProvisionReport, Provisioned};
#[doc(hidden)]
pub use doctor::{Check, DoctorReport};
pub use explain::{Event, ExplainReport, QueueDetail, QueueDetailReport};
#[doc(hidden)]
pub use glance::{ConflictLine, Failure, Glance};
pub use lifecycle::{DetachReport, PruneReport, Pruned};
pub use privacy::{ColumnPrivacy, LevelCounts, PrivacyReport, TablePrivacy};
#[doc(hidden)]
pub use progress::{NoProgress, Progress};
pub use queue::{
    InboxItem, InboxReport, ItemError, ItemResult, QueueItem, QueueReport, ResultsReport,
};
pub use status::{
    Circuit, ConflictCounts, Device, Download, Mode, ModeReport, Problem, RemoteStatus, RowStatus,
    Service, StatusReport, TableStatus, Upload,
};
pub use time::Time;

use crate::error::Error;
use serde::{Deserialize, Serialize};

/// `init` and `clone`: what is replicated from now on, and what is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitReport {
    /// The device.
    pub device: Device,
    /// The tracked tables.
    pub tables: Vec<InitTable>,
    /// The tables that are left out.
    pub skipped: Vec<Skipped>,
    /// What should be known of tables that are tracked.
    #[serde(default)]
    pub warnings: Vec<Warning>,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// A table that is tracked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitTable {
    /// Its name.
    pub name: String,
    /// The rows that stand in it.
    pub rows: u64,
    /// Its columns.
    pub columns: u64,
}

/// A table that is not tracked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// What should be known of a table that is tracked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// The table.
    pub table: String,
    /// What may happen.
    pub message: String,
    /// What would prevent it.
    pub remedy: String,
}

/// `init --dry-run`: what would be executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRunReport {
    /// The statements in their order.
    pub statements: Vec<Statement>,
}

/// One statement of a dry run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// `sqlite` or `postgres`.
    pub database: String,
    /// The statement.
    pub sql: String,
}

/// `now`: one sync.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NowReport {
    /// Changes that the remote acknowledged.
    pub uploaded: u64,
    /// Rows that were installed here.
    pub downloaded: u64,
    /// Conflicts that were decided.
    pub conflicts: u64,
    /// Items that failed in this run.
    pub failed: u64,
    /// Changes that still wait.
    pub pending: u64,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// `verify`: both sides compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Whether nothing is missing or different anywhere.
    pub identical: bool,
    /// Table by table.
    pub tables: Vec<VerifyTable>,
    /// What `--repair` did; absent where it was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired: Option<Repaired>,
}

/// What `verify --repair` did, before the comparison that is reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repaired {
    /// Rows of this side that were queued.
    pub queued: u64,
    /// Rows that were missing here and were fetched.
    pub fetched: u64,
    /// Conflicts that were recorded meanwhile.
    pub conflicts: u64,
}

impl Repaired {
    /// Adds what a further step did.
    pub fn add(&mut self, more: &Repaired) {
        self.queued += more.queued;
        self.fetched += more.fetched;
        self.conflicts += more.conflicts;
    }
}

/// One table compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyTable {
    /// Its name.
    pub name: String,
    /// Rows here.
    pub local: u64,
    /// Rows there.
    pub remote: u64,
    /// Rows that only this side has.
    pub missing_remote: u64,
    /// Rows that only the remote has.
    pub missing_local: u64,
    /// Rows that differ.
    pub different: u64,
    /// Rows that could not be judged, because a change of them is on its way.
    pub in_flight: u64,
}

impl VerifyTable {
    /// Whether both sides hold the same rows, those in flight aside.
    pub fn is_identical(&self) -> bool {
        self.missing_remote == 0 && self.missing_local == 0 && self.different == 0
    }
}

/// An error, with any command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// The error.
    pub error: ErrorBody,
}

/// What an error says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// `SYNC-...`.
    pub code: String,
    /// What failed and why.
    pub message: String,
    /// The table concerned.
    pub table: Option<String>,
    /// What to do.
    pub remedy: String,
}

impl From<&Error> for ErrorReport {
    fn from(e: &Error) -> Self {
        ErrorReport {
            error: ErrorBody {
                code: e.code.as_str().to_owned(),
                message: e.message.clone(),
                table: e.table.clone(),
                remedy: e.remedy.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use serde_json::json;

    fn time() -> Time {
        Time::from_ms(1_741_000_000_000)
    }

    #[test]
    fn status_has_the_names_and_the_nesting_of_the_contract() {
        let report = StatusReport {
            device: Device {
                id: "01J".into(),
                name: "laptop".into(),
            },
            mode: Mode::Online,
            service: Service {
                running: true,
                pid: Some(4242),
            },
            remote: RemoteStatus {
                reachable: true,
                server_version: Some("15.18".into()),
                schema: "public".into(),
                latency_ms: Some(1.2),
                clock_offset_ms: Some(3),
            },
            upload: Upload {
                synced_today: 47,
                synced_total: 9120,
                last_push_at: Some(time()),
                ..Upload::default()
            },
            download: Download {
                applied_today: 12,
                ..Download::default()
            },
            conflicts: ConflictCounts {
                total: 1,
                unseen: 1,
            },
            circuit: Circuit::HalfOpen,
            tables: vec![TableStatus {
                name: "messages".into(),
                privacy: "full".into(),
                pending: 0,
                failed: 0,
            }],
            problems: vec![Problem {
                code: "SYNC-006".into(),
                message: "m".into(),
                remedy: "r".into(),
            }],
        };
        let document = serde_json::to_value(&report).expect("serialises");
        assert_eq!(
            document,
            json!({
                "device": {"id": "01J", "name": "laptop"}, "mode": "online",
                "service": {"running": true, "pid": 4242},
                "remote": {"reachable": true, "server_version": "15.18", "schema": "public",
                           "latency_ms": 1.2, "clock_offset_ms": 3},
                "upload": {"pending": 0, "ready": 0, "uploading": 0, "failed": 0, "synced_today": 47,
                           "synced_total": 9120, "oldest_pending_at": null, "lag_seconds": 0.0,
                           "last_push_at": "2025-03-03T11:06:40.000Z"},
                "download": {"pending": 0, "failed": 0, "applied_today": 12, "last_pull_at": null},
                "conflicts": {"total": 1, "unseen": 1}, "circuit": "half_open",
                "tables": [{"name": "messages", "privacy": "full", "pending": 0, "failed": 0}],
                "problems": [{"code": "SYNC-006", "message": "m", "remedy": "r"}]
            })
        );
        let back: StatusReport = serde_json::from_value(document).expect("reads back");
        assert_eq!(back, report);
    }

    #[test]
    fn keys_are_arrays_and_rows_are_objects() {
        let item = QueueItem {
            key: None,
            table: "t".into(),
            pk: vec![
                Value::Int(1),
                Value::Blob(vec![0xab]),
                Value::Text("x".into()),
            ],
            op: "upsert".into(),
            status: "pending".into(),
            attempts: 0,
            next_attempt_at: None,
            bytes: 0,
            created_at: Some(time()),
            error: None,
        };
        let report = QueueReport {
            items: vec![item],
            total: 1,
        };
        assert_eq!(
            serde_json::to_value(&report).expect("serialises"),
            json!({"items": [{"key": null, "table": "t", "pk": [1, {"hex": "ab"}, "x"],
                "op": "upsert", "status": "pending", "attempts": 0, "next_attempt_at": null,
                "bytes": 0, "created_at": "2025-03-03T11:06:40.000Z", "error": null}], "total": 1})
        );
        let row = Row(vec![("z".into(), Value::Null), ("a".into(), Value::Int(1))]);
        assert_eq!(
            serde_json::to_string(&Some(row)).expect("serialises"),
            r#"{"z":null,"a":1}"#
        );
    }

    #[test]
    fn an_error_document_has_a_null_table_where_none_is_concerned() {
        let e = Error::new(Code::Configuration, "m", "r");
        assert_eq!(
            serde_json::to_string(&ErrorReport::from(&e)).expect("serialises"),
            r#"{"error":{"code":"SYNC-013","message":"m","table":null,"remedy":"r"}}"#
        );
    }
}
