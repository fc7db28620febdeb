//! Which tables may be written while a statement on them is still evicting rows.
//!
//! Before triggers of the app run before the eviction, and foreign key actions run in the middle of
//! it; either may lead back to the table, through other tables and their triggers. What an app's
//! trigger writes is not parsed: every table that its body names counts, so the answer errs towards
//! yes. Reads only; fails with the file's own errors.

use super::install::is_ours;
use super::tokens;
use crate::error::Result;
use crate::model::Table;
use crate::sqlite::fault::OrFault;
use rusqlite::Connection;
use std::collections::BTreeSet;

/// A trigger of the app.
struct AppTrigger {
    on: String,
    before: bool,
    update: bool,
    names: BTreeSet<String>,
}

/// The names among `tables` that are written in the middle of a statement on them.
pub(super) fn nested(conn: &Connection, tables: &[Table]) -> Result<BTreeSet<String>> {
    written(conn, tables, false)
}

/// Those that a BEFORE UPDATE trigger of the app may write: SQLite then takes the columns that the statement
/// does not set from the row as the trigger left it, so the row that is written is not the `new` that our
/// own BEFORE trigger saw.
pub(super) fn written_before_update(
    conn: &Connection,
    tables: &[Table],
) -> Result<BTreeSet<String>> {
    written(conn, tables, true)
}

fn written(
    conn: &Connection,
    tables: &[Table],
    only_before_update: bool,
) -> Result<BTreeSet<String>> {
    let triggers = app_triggers(conn)?;
    let leads = |name: &str| {
        leads_back(
            &name.to_ascii_lowercase(),
            tables,
            &triggers,
            only_before_update,
        )
    };
    Ok(tables
        .iter()
        .filter(|t| leads(&t.name))
        .map(|t| t.name.clone())
        .collect())
}

fn leads_back(
    table: &str,
    tables: &[Table],
    triggers: &[AppTrigger],
    only_before_update: bool,
) -> bool {
    let children = |parent: &str| {
        let refers = |t: &&Table| {
            t.foreign_keys
                .iter()
                .any(|f| f.parent.eq_ignore_ascii_case(parent))
        };
        tables
            .iter()
            .filter(refers)
            .map(|t| t.name.to_ascii_lowercase())
            .collect::<Vec<_>>()
    };
    // Of the table's own triggers only those count that run before the eviction is complete.
    let own = triggers.iter().filter(|t| t.on == table && t.before);
    let mut look: Vec<String> = named(own.filter(|t| !only_before_update || t.update)).collect();
    if !only_before_update {
        look.extend(children(table));
    }
    let mut seen = BTreeSet::new();
    while let Some(next) = look.pop() {
        if next == table {
            return true;
        }
        if seen.insert(next.clone()) {
            look.extend(children(&next));
            look.extend(named(triggers.iter().filter(|t| t.on == next)));
        }
    }
    false
}

fn named<'a>(
    triggers: impl Iterator<Item = &'a AppTrigger> + 'a,
) -> impl Iterator<Item = String> + 'a {
    triggers.flat_map(|t| t.names.iter().cloned())
}

fn app_triggers(conn: &Connection) -> Result<Vec<AppTrigger>> {
    let what = "reading the app's triggers";
    let rows: Vec<(String, String, String)> = conn
        .prepare_cached("select name, tbl_name, sql from sqlite_schema where type = 'trigger'")
        .or_fault(what)?
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
        .or_fault(what)?
        .collect::<rusqlite::Result<_>>()
        .or_fault(what)?;
    Ok(rows
        .into_iter()
        .filter(|(name, ..)| !is_ours(name))
        .map(|(_, on, sql)| {
            // A name that reads like a keyword only makes the answer err towards yes.
            let words = tokens::words(&sql);
            let body = words.iter().position(|w| w == "begin").unwrap_or(0);
            AppTrigger {
                on: on.to_ascii_lowercase(),
                // Without either word a trigger is a BEFORE trigger.
                before: !words[..body].iter().any(|w| w == "after"),
                update: words[..body].iter().any(|w| w == "update"),
                names: words[body..].iter().cloned().collect(),
            }
        })
        .collect())
}
