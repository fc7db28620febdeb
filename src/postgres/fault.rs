//! Errors of the driver, turned into ours.
//!
//! Where a row is at fault the server's own text is left out, for it may quote the row's values; the
//! condition, the constraint and the column say enough.

use super::sqlstate::{condition, disposition};
use crate::error::{Code, Disposition, Error};
use std::error::Error as _;

/// Turns an error of the driver into ours. `what` says what was being done.
pub fn fault(e: &tokio_postgres::Error, what: &str) -> Error {
    let Some(db) = e.as_db_error() else {
        let cause = e
            .source()
            .map_or_else(|| e.to_string(), ToString::to_string);
        // The driver has no kind of its own for this: the server asks, and there is none to give.
        let remedy = match cause.as_str() {
            "password missing" => {
                "set PGPASSWORD, or write the password into the pgpass file; nothing is lost"
            }
            _ => "check the network and the server; nothing is lost, it is tried again",
        };
        return Error::new(Code::Connection, format!("{what}: {cause}"), remedy)
            .with_disposition(Disposition::OutcomeUnknown);
    };
    let sqlstate = db.code().code();
    // A row security policy refuses one row, a missing privilege every row.
    let next = match db.routine() {
        Some("ExecWithCheckOptions") if sqlstate == "42501" => Disposition::Row,
        _ => disposition(sqlstate),
    };
    let text = match next {
        Disposition::Row | Disposition::RowLater | Disposition::Unknown => {
            let place = match (db.constraint(), db.column()) {
                (Some(c), _) => format!(" (constraint {c})"),
                (None, Some(c)) => format!(" (column {c})"),
                (None, None) => String::new(),
            };
            format!("{}{place}", condition(sqlstate))
        }
        _ if sqlstate == "25006" => {
            "the server takes no writes: it is a standby or read-only".into()
        }
        _ => db.message().to_owned(),
    };
    let (code, remedy) = describe(next, sqlstate);
    let mut out = Error::new(code, format!("{what}: {text} [{sqlstate}]"), remedy)
        .with_sqlstate(sqlstate)
        .with_disposition(next);
    if let Some(t) = db.table() {
        out = out.on_table(t);
    }
    out
}

/// The public code and the remedy of a disposition.
fn describe(next: Disposition, sqlstate: &str) -> (Code, &'static str) {
    match (next, sqlstate) {
        (_, "28P01" | "28000") => (
            Code::Connection,
            "check user, password (PGPASSWORD or the pgpass file) and pg_hba.conf; nothing is lost",
        ),
        (_, "3D000") => (
            Code::RemoteNotUsable,
            "create the database or correct its name in [remote] url",
        ),
        (_, "25006") => (
            Code::RemoteNotUsable,
            "the server is read-only; point [remote] url at the primary",
        ),
        (_, "53300") => (
            Code::Connection,
            "the server has no free connection; it is tried again",
        ),
        (Disposition::NeedsHuman, "42501") => (
            Code::MissingPrivilege,
            "grant the login the right named here, or make it the owner with `alter ... owner to`",
        ),
        (
            Disposition::OutcomeUnknown
            | Disposition::Unreached
            | Disposition::Reconnect
            | Disposition::Unknown,
            _,
        ) => (
            Code::Connection,
            "nothing is lost; it is tried again by itself",
        ),
        (Disposition::RetryNow | Disposition::TooSlow, _) => {
            (Code::Batch, "it is tried again by itself")
        }
        (Disposition::WrongServer, _) => (
            Code::RemoteNotUsable,
            "point [remote] url at the primary server of the workspace",
        ),
        (Disposition::NeedsHuman, _) => (
            Code::MissingPrivilege,
            "see the server's message; the login lacks a right or the server needs repair",
        ),
        (Disposition::SchemaDrift, _) => (
            Code::SchemasDiffer,
            "compare the table's columns on both sides and add what is missing",
        ),
        (Disposition::Row | Disposition::RowLater, _) => (
            Code::InvalidPayload,
            "correct the row in the app, or the constraint on the server and then `tidewater retry`",
        ),
    }
}
