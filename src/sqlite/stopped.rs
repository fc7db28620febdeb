//! Tables that have no mirror for now: where each stood when it lost it.
//!
//! The feed goes on without such a table, so what was seen of it, which columns were exchanged and what
//! the app did to them since must be remembered until it meets its mirror again. Never decides what
//! follows from it; that is the business of the comparison and of the workspace.

use super::local::load_tables;
use super::state;
use crate::error::Result;
use crate::model::{Table, Token};
use crate::remote::Mirror;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Where a table that has no mirror for now stood when it lost it. The feed goes on without the table,
/// so the cursor says nothing of its rows any more.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stopped {
    /// What this device had seen of the table.
    pub token: Token,
    /// The columns that it had received.
    pub columns: BTreeSet<String>,
    /// Columns that the app renamed since: the new name to the old one.
    #[serde(default)]
    pub renamed: BTreeMap<String, String>,
}

impl Stopped {
    /// The columns that this device had received and that the app has dropped since. A renamed one is
    /// not dropped: its values live on under the new name.
    pub fn dropped(&self, table: &Table) -> BTreeSet<String> {
        let mut gone = self.columns.clone();
        gone.retain(|c| table.column(c).is_none() && !self.renamed.values().any(|old| old == c));
        gone
    }
}

/// A column that stands in the place of another, with the same type, was renamed. More cannot be known:
/// a rebuilt table says nothing of where its columns came from.
pub(super) fn remember_renamed(tx: &Connection, before: &Table, now: &Table) -> Result<()> {
    if before.columns.len() != now.columns.len() {
        return Ok(());
    }
    let Some(mut stopped) = stopped(tx, &now.name)? else {
        return Ok(());
    };
    let mut changed = false;
    for (old, new) in before.columns.iter().zip(&now.columns) {
        if old.name != new.name
            && old.declared == new.declared
            && now.column(&old.name).is_none()
            && before.column(&new.name).is_none()
        {
            // Renamed twice before the workspace was met: it knows the first name.
            let first = stopped.renamed.remove(&old.name);
            let first = first.unwrap_or_else(|| old.name.clone());
            stopped.renamed.insert(new.name.clone(), first);
            changed = true;
        }
    }
    if changed {
        let json = serde_json::to_string(&stopped).unwrap_or_default();
        state::set(tx, &stop_name(&now.name), &json)?;
    }
    Ok(())
}

pub(super) fn stop_name(table: &str) -> String {
    format!("stopped:{table}")
}

/// Writes down where a table stands that loses its mirror.
pub(super) fn stop(tx: &Connection, table: &str, mirror: &Mirror) -> Result<()> {
    let stopped = Stopped {
        token: state::token(tx)?,
        columns: mirror.wires.keys().cloned().collect(),
        renamed: BTreeMap::new(),
    };
    let json = serde_json::to_string(&stopped).unwrap_or_default();
    state::set(tx, &stop_name(table), &json)
}

/// Where tables stopped says nothing any more: the server went back in time.
pub fn forget_stops(tx: &Connection) -> Result<()> {
    for known in load_tables(tx)? {
        let table = &known.table.name;
        if let Some(mut stopped) = stopped(tx, table)? {
            stopped.token = Token::empty();
            let json = serde_json::to_string(&stopped).unwrap_or_default();
            state::set(tx, &stop_name(table), &json)?;
        }
    }
    Ok(())
}

/// Where a table stopped; `None` where it never had a mirror.
pub fn stopped(conn: &Connection, table: &str) -> Result<Option<Stopped>> {
    Ok(state::get(conn, &stop_name(table))?.and_then(|t| serde_json::from_str(&t).ok()))
}

/// The columns of a table whose values on the server were never received here, while a comparison after
/// a schema change is not done.
pub fn unreceived(conn: &Connection, table: &str) -> Result<BTreeSet<String>> {
    let json = state::get(conn, &format!("unreceived:{table}"))?;
    Ok(json
        .and_then(|t| serde_json::from_str(&t).ok())
        .unwrap_or_default())
}

/// Remembers or forgets [`unreceived`].
pub fn set_unreceived(
    conn: &Connection,
    table: &str,
    columns: Option<&BTreeSet<String>>,
) -> Result<()> {
    let json = columns.map(|c| serde_json::to_string(c).unwrap_or_default());
    state::put(conn, &format!("unreceived:{table}"), json.as_deref())
}
