//! A new file from the descriptions of a workspace.
//!
//! The statements come from another device through the server, so an authorizer lets nothing pass but
//! CREATE TABLE and CREATE INDEX.

use super::fault::OrFault;
use super::local::Local;
use crate::error::{Code, Error, Result};
use crate::model::Table;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, Error as SqliteError};

/// Creates tables and indexes and sets `user_version`. The new file uses WAL.
pub fn create(local: &mut Local, tables: &[Table], user_version: i64) -> Result<()> {
    local
        .conn
        .pragma_update(None, "journal_mode", "wal")
        .or_fault("creating the file")?;
    local
        .conn
        .authorizer(Some(only_tables_and_indexes))
        .or_fault("creating the file")?;
    let made = tables.iter().try_for_each(|t| make(&local.conn, t));
    local
        .conn
        .authorizer(None::<fn(AuthContext<'_>) -> Authorization>)
        .or_fault("creating the file")?;
    made?;
    local
        .conn
        .pragma_update(None, "user_version", user_version)
        .or_fault("creating the file")
}

fn make(conn: &Connection, t: &Table) -> Result<()> {
    std::iter::once(&t.sql)
        .chain(&t.indexes)
        .try_for_each(|sql| conn.execute_batch(sql).map_err(|e| rejected(t, &e)))
}

/// What a CREATE TABLE or CREATE INDEX does to the catalogue is allowed; nothing else is.
fn only_tables_and_indexes(context: AuthContext<'_>) -> Authorization {
    let catalogue = |t: &str| {
        matches!(
            t,
            "sqlite_master" | "sqlite_schema" | "sqlite_sequence" | "sqlite_stat1"
        )
    };
    match context.action {
        AuthAction::CreateTable { .. }
        | AuthAction::CreateIndex { .. }
        | AuthAction::Reindex { .. }
        | AuthAction::Select
        | AuthAction::Read { .. } => Authorization::Allow,
        AuthAction::Insert { table_name } | AuthAction::Delete { table_name }
            if catalogue(table_name) =>
        {
            Authorization::Allow
        }
        AuthAction::Update { table_name, .. } if catalogue(table_name) => Authorization::Allow,
        AuthAction::Function { function_name }
            if !function_name.eq_ignore_ascii_case("load_extension") =>
        {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

fn rejected(t: &Table, e: &SqliteError) -> Error {
    Error::new(
        Code::SchemasDiffer,
        format!("the workspace's definition of the table was refused: {e}"),
        "the definition was written by the device that created the workspace; look at tidewater_tables",
    )
    .on_table(&t.name)
}

/// Settings for filling a file that no app uses yet.
pub fn fast(local: &Local) -> Result<()> {
    local
        .conn
        .pragma_update(None, "cache_size", -65_536)
        .and_then(|()| {
            local
                .conn
                .pragma_update(None, "wal_autocheckpoint", 100_000)
        })
        .and_then(|()| local.conn.pragma_update(None, "synchronous", "normal"))
        .or_fault("filling the file")
}

/// Everything into the main file, so that it can be renamed: nothing of it is left in the WAL.
pub fn settle(local: &mut Local) -> Result<()> {
    local
        .conn
        .pragma_update(None, "synchronous", "full")
        .or_fault("finishing the file")?;
    local
        .conn
        .query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()))
        .or_fault("finishing the file")
}
