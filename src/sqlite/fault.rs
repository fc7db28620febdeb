//! What an error of SQLite means: the policy of one place.
//!
//! Row values never enter the message; SQLite's own texts name tables, columns and constraints only.

use crate::error::{Code, Disposition, Error};
use rusqlite::ErrorCode;

/// Turns an error of SQLite into ours. `what` says what was being done, as in "claiming changes".
pub fn fault(e: rusqlite::Error, what: &str) -> Error {
    let (code, text) = match &e {
        rusqlite::Error::SqliteFailure(f, m) => {
            (Some(f.code), m.clone().unwrap_or_else(|| f.to_string()))
        }
        other => (None, other.to_string()),
    };
    let (remedy, disposition) = match code {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            "another program holds the file's write lock; it is tried again",
            Disposition::RetryNow,
        ),
        Some(ErrorCode::DiskFull) => (
            "make room on the disk; nothing is lost",
            Disposition::Reconnect,
        ),
        Some(
            ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::AuthorizationForStatementDenied,
        ) => (
            "make the file and its folder writable for the user that runs tidewater",
            Disposition::NeedsHuman,
        ),
        Some(ErrorCode::CannotOpen) => (
            "check the path under [local] path, and the permissions of its folder",
            Disposition::NeedsHuman,
        ),
        Some(ErrorCode::NotADatabase) => (
            "the file under [local] path is not an SQLite database; correct the path",
            Disposition::NeedsHuman,
        ),
        Some(ErrorCode::DatabaseCorrupt) => (
            "run `PRAGMA integrity_check`, restore the file from a backup; nothing more is sent from it",
            Disposition::NeedsHuman,
        ),
        Some(ErrorCode::SystemIoFailure) => {
            ("check the disk that holds the file", Disposition::Reconnect)
        }
        _ => (
            "run the command again with -v; if it stays, report it with this message",
            Disposition::Unknown,
        ),
    };
    Error::new(Code::LocalUnusable, format!("{what}: {text}"), remedy).with_disposition(disposition)
}

/// `result.or_fault("doing what")?`
pub trait OrFault<T> {
    /// See [`fault`].
    fn or_fault(self, what: &str) -> Result<T, Error>;
}

impl<T> OrFault<T> for rusqlite::Result<T> {
    fn or_fault(self, what: &str) -> Result<T, Error> {
        self.map_err(|e| fault(e, what))
    }
}
