//! The one-row facts of a device, as names and text values in `tidewater_state`.
//!
//! Names: migration, schema_version, device_id, former_ids (JSON), device_name, paused, identity (JSON), token (JSON),
//! insert_lsn, push_seq (the next number to give), confirmed, chain_key, epoch, clock_offset_ms,
//! synced_total, last_push_at, last_pull_at, problems and unfit (JSON), schema, reidentified_at, healed_at,
//! former_instances (JSON), reconciling (JSON of the token before), reconciled_at, ledger_tables (JSON),
//! ledger_behind, `ledger_keys <table>`.

use super::fault::OrFault;
use crate::error::{Code, Error, Result};
use crate::model::{Snapshot, Token};
use crate::remote::{Identity, ServerState};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

/// A value by its name.
pub fn get(conn: &Connection, name: &str) -> Result<Option<String>> {
    conn.prepare_cached("select value from tidewater_state where name = ?1")
        .and_then(|mut s| {
            s.query_row([name], |r| r.get::<_, Option<String>>(0))
                .optional()
        })
        .map(Option::flatten)
        .or_fault("reading the device's state")
}

/// Sets a value.
pub fn set(conn: &Connection, name: &str, value: &str) -> Result<()> {
    put(conn, name, Some(value))
}

/// Sets or clears a value. No upsert syntax: the statement must be plain for every SQLite.
pub fn put(conn: &Connection, name: &str, value: Option<&str>) -> Result<()> {
    let n = conn
        .prepare_cached("update tidewater_state set value = ?2 where name = ?1")
        .and_then(|mut s| s.execute(params![name, value]))
        .or_fault("storing the device's state")?;
    if n == 0 {
        conn.prepare_cached("insert into tidewater_state (name, value) values (?1, ?2)")
            .and_then(|mut s| s.execute(params![name, value]))
            .or_fault("storing the device's state")?;
    }
    Ok(())
}

/// A whole number, 0 where it was never set.
pub fn number(conn: &Connection, name: &str) -> Result<i64> {
    Ok(get(conn, name)?.and_then(|v| v.parse().ok()).unwrap_or(0))
}

/// Sets a whole number.
pub fn set_number(conn: &Connection, name: &str, value: i64) -> Result<()> {
    set(conn, name, &value.to_string())
}

/// The device's id; an error where the file was never initialised.
pub fn device_id(conn: &Connection) -> Result<String> {
    get(conn, "device_id")?.ok_or_else(|| {
        Error::new(
            Code::LocalUnusable,
            "the file has no device id",
            "run `tidewater init`",
        )
    })
}

/// The ids that this file had before, the oldest first.
pub fn former_ids(conn: &Connection) -> Result<Vec<String>> {
    Ok(get(conn, "former_ids")?
        .and_then(|t| serde_json::from_str(&t).ok())
        .unwrap_or_default())
}

/// Gives the file another id and remembers the one that it had.
pub fn change_id(conn: &Connection, id: &str) -> Result<()> {
    let mut former = former_ids(conn)?;
    former.push(device_id(conn)?);
    let json = serde_json::to_string(&former).unwrap_or_default();
    set(conn, "former_ids", &json)?;
    set(conn, "device_id", id)
}

/// The causal token: what this device has seen.
pub fn token(conn: &Connection) -> Result<Token> {
    match get(conn, "token")? {
        None => Ok(Token::empty()),
        Some(text) => Token::from_json(&text).map_err(|e| {
            Error::new(
                Code::LocalUnusable,
                format!("the stored cursor cannot be read: {e}"),
                "restore the file from a backup",
            )
        }),
    }
}

/// Stores the causal token.
pub fn set_token(conn: &Connection, token: &Token) -> Result<()> {
    set(conn, "token", &token.to_json())
}

/// The server that the cursor belongs to.
pub fn identity(conn: &Connection) -> Result<Option<Identity>> {
    Ok(get(conn, "identity")?.and_then(|t| serde_json::from_str(&t).ok()))
}

/// Binds the cursor to a server.
pub fn set_identity(conn: &Connection, identity: &Identity) -> Result<()> {
    set(
        conn,
        "identity",
        &serde_json::to_string(identity).unwrap_or_default(),
    )
}

/// The state in which this device has seen the server.
pub fn server(conn: &Connection) -> Result<ServerState> {
    let token = token(conn)?;
    let target = token.target.as_ref().map_or(0, Snapshot::xmax);
    Ok(ServerState {
        identity: identity(conn)?.unwrap_or_default(),
        xmax: token.last.xmax().max(target),
        insert_lsn: u64::try_from(number(conn, "insert_lsn")?).unwrap_or(0),
    })
}

/// Instances of the workspace that this file knew before it went back in time.
pub fn former_instances(conn: &Connection) -> Result<Vec<String>> {
    Ok(get(conn, "former_instances")?
        .and_then(|t| serde_json::from_str(&t).ok())
        .unwrap_or_default())
}

/// Whether syncing is paused.
pub fn paused(conn: &Connection) -> Result<bool> {
    Ok(get(conn, "paused")?.as_deref() == Some("1"))
}

/// The acknowledgement epoch: raised by everything that makes a page read before it stale.
pub fn epoch(conn: &Connection) -> Result<i64> {
    number(conn, "epoch")
}

/// Raises the epoch.
pub fn bump_epoch(conn: &Connection) -> Result<()> {
    set_number(conn, "epoch", epoch(conn)? + 1)
}

/// Something that a person should know of, shown by `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// SYNC-...
    pub code: String,
    /// What.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl From<&Error> for Problem {
    fn from(e: &Error) -> Self {
        Problem {
            code: e.code.as_str().into(),
            message: match &e.table {
                Some(t) => format!("table {t}: {}", e.message),
                None => e.message.clone(),
            },
            remedy: e.remedy.clone(),
        }
    }
}

/// Whether this very list is stored already: an idle service must not take the app's write lock.
pub fn problems_are(conn: &Connection, problems: &[Problem]) -> Result<bool> {
    let stored = get(conn, "problems")?;
    let json = serde_json::to_string(problems).unwrap_or_default();
    Ok(stored.as_deref().unwrap_or("[]") == json)
}

/// Replaces the list of problems.
pub fn set_problems(conn: &Connection, problems: &[Problem]) -> Result<()> {
    let json = serde_json::to_string(problems).unwrap_or_default();
    set(conn, "problems", &json)
}

/// Tables that the configuration does not fit since the app changed its schema: they are not tracked.
pub fn set_unfit(conn: &Connection, problems: &[Problem]) -> Result<()> {
    if problems.is_empty() && get(conn, "unfit")?.is_none() {
        return Ok(());
    }
    let json = serde_json::to_string(problems).unwrap_or_default();
    set(conn, "unfit", &json)
}

/// See [`set_unfit`].
pub fn unfit(conn: &Connection) -> Result<Vec<Problem>> {
    Ok(get(conn, "unfit")?
        .and_then(|json| serde_json::from_str(&json).ok())
        .unwrap_or_default())
}
