//! The event journal: what happened to a row or to the device and is written down nowhere else.
//!
//! Outbox, inbox and conflicts keep most of a row's life by themselves; only what they forget comes
//! here, so that neither a claim nor an apply writes more for it in the ordinary case. Names, codes and
//! the server's messages, never row values. Pruned with the retention.

use super::fault::OrFault;
use crate::error::Result;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

const WHAT: &str = "keeping the journal";

/// What happened. The names are public: `explain` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The server refused the change, and it is tried again.
    Refused,
    /// The change was parked.
    Parked,
    /// The change was taken up by a later one of the same row, which has its place.
    Folded,
    /// A person said `retry`.
    Retried,
    /// A row that arrived could not be applied.
    NotApplied,
    /// A preserved original was written back.
    Restored,
    /// The row became LOCAL_ONLY after it was sent, and is taken back from the workspace.
    TakenBack,
    /// The device took a new identity (SYNC-008).
    NewIdentity,
    /// The remote went back in time (SYNC-007).
    WentBack,
    /// The triggers of a table were missing and were put back.
    CaptureHealed,
    /// A person said `pause`.
    Paused,
    /// A person said `resume`.
    Resumed,
}

impl Kind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Refused => "refused",
            Kind::Parked => "parked",
            Kind::Folded => "folded",
            Kind::Retried => "retried",
            Kind::NotApplied => "not_applied",
            Kind::Restored => "restored",
            Kind::TakenBack => "taken_back",
            Kind::NewIdentity => "new_identity",
            Kind::WentBack => "went_back",
            Kind::CaptureHealed => "capture_healed",
            Kind::Paused => "paused",
            Kind::Resumed => "resumed",
        }
    }
}

/// What is told of an event beside its kind, time and place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Detail {
    /// `SYNC-...`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The server's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// A sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The how-manieth answer of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The change that took this one up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// The device concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The conflict concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflict: Option<String>,
}

/// Where something happened.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// To the device.
    Device,
    /// To a table.
    Table(&'a str),
    /// To a row: its table and canonical key.
    Row(&'a str, &'a str),
}

/// Writes one event down, in a transaction of the caller.
pub fn record(
    tx: &Connection,
    at_ms: i64,
    kind: Kind,
    place: Place<'_>,
    change: Option<&str>,
    detail: &Detail,
) -> Result<()> {
    let (table, pk) = match place {
        Place::Device => (None, None),
        Place::Table(t) => (Some(t), None),
        Place::Row(t, pk) => (Some(t), Some(pk)),
    };
    tx.prepare_cached(
        "insert into tidewater_event (at, tbl, pk, kind, change_key, detail) \
         values (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .and_then(|mut s| {
        s.execute(params![
            at_ms,
            table,
            pk,
            kind.as_str(),
            change,
            serde_json::to_string(detail).unwrap_or_default()
        ])
    })
    .or_fault(WHAT)?;
    Ok(())
}

/// A change of a row was taken up by a later one.
pub fn folded(
    tx: &Connection,
    at_ms: i64,
    place: Place<'_>,
    former: &str,
    into: &str,
) -> Result<()> {
    let detail = Detail {
        into: Some(into.to_owned()),
        ..Detail::default()
    };
    record(tx, at_ms, Kind::Folded, place, Some(former), &detail)
}
