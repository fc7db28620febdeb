//! The one error type that crosses module boundaries and reaches people.
//!
//! Every error carries its public code (`SYNC-...`), what failed, the table where there is one, and
//! the remedy. Row values and secrets never enter an error: adapters build messages from names,
//! codes and counts only.

use std::fmt;

/// The public error codes of the contract.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// SYNC-001: the remote cannot be reached or refuses the login.
    Connection,
    /// SYNC-002: a batch failed as a whole.
    Batch,
    /// SYNC-003: a conflict was detected.
    Conflict,
    /// SYNC-004: a change was refused more often than `max_attempts`.
    RetriesExhausted,
    /// SYNC-005: a row holds what the remote cannot take.
    InvalidPayload,
    /// SYNC-006: the clock of this device is far from the server's.
    Clock,
    /// SYNC-007: the remote went back in time.
    RemoteWentBack,
    /// SYNC-008: this SQLite file was copied or restored.
    FileCopied,
    /// SYNC-009: the schemas of both sides differ.
    SchemasDiffer,
    /// SYNC-010: another instance holds this device.
    AnotherInstance,
    /// SYNC-011: a privilege is missing on the remote.
    MissingPrivilege,
    /// SYNC-012: the local database cannot be used.
    LocalUnusable,
    /// SYNC-013: configuration or usage.
    Configuration,
    /// SYNC-014: a table cannot be tracked.
    CannotTrack,
    /// SYNC-015: a mass delete is held back.
    MassDelete,
    /// SYNC-016: the remote is reached but not usable.
    RemoteNotUsable,
}

impl Code {
    /// The code as people and programs read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Connection => "SYNC-001",
            Code::Batch => "SYNC-002",
            Code::Conflict => "SYNC-003",
            Code::RetriesExhausted => "SYNC-004",
            Code::InvalidPayload => "SYNC-005",
            Code::Clock => "SYNC-006",
            Code::RemoteWentBack => "SYNC-007",
            Code::FileCopied => "SYNC-008",
            Code::SchemasDiffer => "SYNC-009",
            Code::AnotherInstance => "SYNC-010",
            Code::MissingPrivilege => "SYNC-011",
            Code::LocalUnusable => "SYNC-012",
            Code::Configuration => "SYNC-013",
            Code::CannotTrack => "SYNC-014",
            Code::MassDelete => "SYNC-015",
            Code::RemoteNotUsable => "SYNC-016",
        }
    }

    /// From the code's text.
    pub fn parse(text: &str) -> Option<Code> {
        use Code::{
            AnotherInstance, Batch, CannotTrack, Clock, Configuration, Conflict, Connection,
            FileCopied, InvalidPayload, LocalUnusable, MassDelete, MissingPrivilege,
            RemoteNotUsable, RemoteWentBack, RetriesExhausted, SchemasDiffer,
        };
        [
            Connection,
            Batch,
            Conflict,
            RetriesExhausted,
            InvalidPayload,
            Clock,
            RemoteWentBack,
            FileCopied,
            SchemasDiffer,
            AnotherInstance,
            MissingPrivilege,
            LocalUnusable,
            Configuration,
            CannotTrack,
            MassDelete,
            RemoteNotUsable,
        ]
        .into_iter()
        .find(|c| c.as_str() == text)
    }

    /// The exit code of a command that ends with this error.
    pub fn exit_code(self) -> u8 {
        match self {
            Code::Connection => 3,
            Code::LocalUnusable => 4,
            Code::AnotherInstance => 5,
            Code::MissingPrivilege | Code::RemoteNotUsable | Code::RemoteWentBack => 6,
            Code::Configuration => 2,
            Code::Batch
            | Code::Conflict
            | Code::RetriesExhausted
            | Code::InvalidPayload
            | Code::Clock
            | Code::FileCopied
            | Code::SchemasDiffer
            | Code::CannotTrack
            | Code::MassDelete => 1,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens next after the server refused something; SQLSTATE decides (`postgres::sqlstate`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// The connection is gone and the outcome is unknown: reconnect and send the same batch again.
    OutcomeUnknown,
    /// The same batch again at once, at most five times; never counted against an item.
    RetryNow,
    /// Given up for its time, by the server or before its commit was sent, so it was rolled back: a
    /// batch is sent again in smaller parts.
    TooSlow,
    /// No connection was to be had: nothing of the request has left this device.
    Unreached,
    /// Reconnect with backoff; being offline is never an attempt.
    Reconnect,
    /// The server is not the one this workspace lives on, or cannot be written.
    WrongServer,
    /// A person has to act (login, privilege): pushing stops, capture goes on.
    NeedsHuman,
    /// One table's schema differs: look at the schema again, then stop that table.
    SchemaDrift,
    /// Permanent for one row: it is isolated and parked, everything else flows.
    Row,
    /// One row may succeed later (its parent or its twin may arrive): retried, then parked.
    RowLater,
    /// Not known: treated as `Reconnect` five times, never discarded.
    Unknown,
}

/// An error with everything a person needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Error {
    /// The public code.
    pub code: Code,
    /// What failed and why, in one sentence without row values.
    pub message: String,
    /// The table concerned, if one is.
    pub table: Option<String>,
    /// What to do about it.
    pub remedy: String,
    /// The server's SQLSTATE, if the server answered.
    pub sqlstate: Option<String>,
    /// For errors of the remote: what the engine does next.
    #[doc(hidden)]
    pub disposition: Option<Disposition>,
}

impl Error {
    /// An error with its code, its message and its remedy.
    pub fn new(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error {
            code,
            message: message.into(),
            table: None,
            remedy: remedy.into(),
            sqlstate: None,
            disposition: None,
        }
    }

    /// Names the table concerned.
    #[must_use]
    pub fn on_table(mut self, table: impl Into<String>) -> Self {
        self.table = Some(table.into());
        self
    }

    /// Names the server's SQLSTATE.
    #[must_use]
    pub fn with_sqlstate(mut self, sqlstate: impl Into<String>) -> Self {
        self.sqlstate = Some(sqlstate.into());
        self
    }

    /// Says what the engine does next.
    #[doc(hidden)]
    #[must_use]
    pub fn with_disposition(mut self, disposition: Disposition) -> Self {
        self.disposition = Some(disposition);
        self
    }

    /// Whether this error only means that the remote is out of reach for now.
    pub fn is_offline(&self) -> bool {
        self.code == Code::Connection
    }
}

/// The result of everything fallible in this crate.
pub type Result<T> = std::result::Result<T, Error>;
