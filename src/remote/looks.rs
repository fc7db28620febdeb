//! What looks at the server find: its devices, its mirrors, its rights. Plain values; nothing here decides.

use std::collections::BTreeMap;

/// A device as the ledger knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The version of the program that it registered with last.
    pub version: String,
    /// `active`, `expired`, `retired` or `revoked`.
    pub state: String,
    /// The role that it logs in with; `None` where it registered with an older version.
    pub login: Option<String>,
    /// When it registered, server time in ms.
    pub registered_at: i64,
    /// When it was heard of last, server time in ms.
    pub last_seen: i64,
    /// Rows and deletes of others that it had not read when it told of its cursor last, counted up to
    /// a bound; `None` where it never told.
    pub behind_rows: Option<i64>,
    /// How long ago it told of that cursor; 0 where nothing is unread.
    pub behind_seconds: Option<f64>,
}

/// How a table stands on the server, for a device that would sync it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorState {
    /// It is not there and not expected: it is made at the next sync.
    Absent,
    /// It fits; these columns are added at the next sync.
    Fits(Vec<String>),
    /// It cannot be used as it is.
    Unfit(crate::error::Error),
}

/// What a look at the server finds out without changing anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// The server's version, as in `15.18`.
    pub server_version: String,
    /// Whether that version is one that the feed is sound on.
    pub version_is_enough: bool,
    /// Whether it is a standby in recovery.
    pub standby: bool,
    /// Whether transactions are read-only.
    pub read_only: bool,
    /// Whether the connection is encrypted, and how.
    pub tls: Option<String>,
    /// The role that was logged in.
    pub login: String,
    /// The server's clock, ms since 1970.
    pub now_ms: i64,
    /// Signs of a pooler or another go-between.
    pub between: Option<String>,
    /// Whether the schema is there.
    pub has_schema: bool,
    /// The protocol of the workspace, where there is one.
    pub protocol: Option<i32>,
    /// Whether this program speaks it.
    pub speaks: bool,
    /// What the login lacks, as sentences, with the statement that gives it.
    pub lacks: Vec<(String, String)>,
    /// The tables that were asked about.
    pub mirrors: BTreeMap<String, MirrorState>,
    /// Mirrors whose triggers somebody turned off or dropped.
    pub bare: Vec<String>,
}
