//! A new file from the descriptions of a workspace.
//!
//! The statements come from another device through the server, where everybody who may write to the
//! workspace can change them. An authorizer lets nothing pass but one CREATE TABLE of the table's own
//! name and one CREATE INDEX on it for each index; whatever else stands there, the file is not made.

use super::fault::OrFault;
use super::local::{Local, has_table};
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
    tables.iter().try_for_each(|t| make(&mut local.conn, t))?;
    local
        .conn
        .pragma_update(None, "user_version", user_version)
        .or_fault("creating the file")
}

/// What one statement of a description may make.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Makes {
    Table,
    Index,
}

fn make(conn: &mut Connection, t: &Table) -> Result<()> {
    if is_reserved(&t.name) {
        return Err(refused(t, "its name is one of tidewater's own"));
    }
    let indexes = t.indexes.iter().map(|sql| (Makes::Index, sql));
    for (makes, sql) in std::iter::once((Makes::Table, &t.sql)).chain(indexes) {
        let own = t.name.clone();
        conn.authorizer(Some(move |context: AuthContext<'_>| {
            only(makes, &own, context.action)
        }))
        .or_fault("creating the file")?;
        // Refuses a second statement, whatever it is.
        let made = conn.execute(sql, []);
        conn.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)
            .or_fault("creating the file")?;
        made.map_err(|e| rejected(t, &e))?;
    }
    if has_table(conn, &t.name)? {
        return Ok(());
    }
    Err(refused(t, "it makes no table of that name"))
}

fn is_reserved(name: &str) -> bool {
    name.get(..10)
        .is_some_and(|head| head.eq_ignore_ascii_case("tidewater_"))
}

/// What a CREATE TABLE of `own`, or a CREATE INDEX on it, does to the catalogue is allowed; nothing
/// else is, a SELECT that fills the table included.
fn only(makes: Makes, own: &str, action: AuthAction<'_>) -> Authorization {
    let catalogue = |t: &str| matches!(t, "sqlite_master" | "sqlite_schema" | "sqlite_sequence");
    let allowed = match action {
        AuthAction::CreateTable { table_name } => {
            // AUTOINCREMENT makes the table that counts.
            makes == Makes::Table && (table_name == own || table_name == "sqlite_sequence")
        }
        AuthAction::CreateIndex {
            index_name,
            table_name,
        } => {
            // The indexes of UNIQUE and PRIMARY KEY come with the table.
            let automatic = index_name.starts_with("sqlite_autoindex_");
            table_name == own && automatic == (makes == Makes::Table) && !is_reserved(index_name)
        }
        AuthAction::Reindex { .. } => makes == Makes::Index,
        AuthAction::Read { table_name, .. } => table_name == own || catalogue(table_name),
        AuthAction::Insert { table_name } | AuthAction::Update { table_name, .. } => {
            catalogue(table_name)
        }
        AuthAction::Function { function_name } => {
            !function_name.eq_ignore_ascii_case("load_extension")
        }
        _ => false,
    };
    if allowed {
        Authorization::Allow
    } else {
        Authorization::Deny
    }
}

fn refused(t: &Table, why: &str) -> Error {
    Error::new(
        Code::SchemasDiffer,
        format!("the workspace's definition of the table was refused: {why}"),
        "it may hold one CREATE TABLE and its CREATE INDEXes; correct its row in tidewater_tables, \
         which any device and any login of the workspace can write",
    )
    .on_table(&t.name)
}

fn rejected(t: &Table, e: &SqliteError) -> Error {
    match e {
        SqliteError::MultipleStatement => refused(t, "it holds more than one statement"),
        _ => refused(t, &e.to_string()),
    }
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
