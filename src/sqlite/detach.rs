//! Taking tidewater out of the app's file again, and writing down what would be lost with it.
//!
//! Everything runs in the one write transaction of the caller, so nothing can be captured between the
//! look and the removal, and the app sees all of it or nothing. The app's tables are never written: not
//! a page of their rows changes. What is removed is what the migrations make, the capture triggers, and
//! views and indexes under the reserved prefix; a table of the app that only has such a name stays.

use super::app_row;
use super::capture;
use super::fault::OrFault;
use super::inspect;
use super::local::{load_tables, own_tables};
use super::quote::ident;
use super::value;
use crate::error::{Code, Error, Result};
use crate::model::{Key, Row, Table, Value};
use crate::report::{Device, Time};
use rusqlite::Connection;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;

const WHAT: &str = "taking tidewater out of the file";

/// What nobody but this file knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    /// Changes that were not sent, claimed or not.
    pub unsent: u64,
    /// Changes that were refused.
    pub failed: u64,
    /// Conflicts that nobody acknowledged.
    pub conflicts: u64,
    /// Tables whose capture was bare and that were not compared since: what was written is not known.
    pub uncompared: Vec<String>,
}

impl Left {
    /// Whether nothing would be lost.
    pub fn is_empty(&self) -> bool {
        *self == Left::default()
    }
}

/// Counts what nobody but this file knows.
pub fn left(conn: &Connection, now: Time) -> Result<Left> {
    let queued = |status: &str| -> Result<u64> {
        conn.query_row(
            &format!("select count(*) from tidewater_outbox where status in ({status})"),
            [],
            |r| r.get::<_, i64>(0),
        )
        .map(|n| u64::try_from(n).unwrap_or(0))
        .or_fault(WHAT)
    };
    let unclaimed = inspect::queue(conn, inspect::Which::All, 0, now)?.total;
    let failed = queued("'failed'")?;
    let claimed = queued("'pending', 'uploading'")?;
    Ok(Left {
        // The list counts all of the outbox and the key log, folded by key.
        unsent: unclaimed.saturating_sub(failed).max(claimed),
        failed,
        conflicts: inspect::conflict_counts(conn)?.unseen,
        uncompared: load_tables(conn)?
            .into_iter()
            .filter(|k| k.heal)
            .map(|k| k.table.name)
            .collect(),
    })
}

/// A change of the outbox as it is written down.
#[derive(Serialize)]
struct Claimed {
    key: String,
    table: String,
    pk: Vec<Value>,
    op: String,
    status: String,
    created_at: Time,
    error: Option<String>,
}

/// A key of the key log, with the row as it stands.
#[derive(Serialize)]
struct Logged {
    table: String,
    pk: Vec<Value>,
    op: &'static str,
    row: Option<Row>,
}

fn unwritten(e: impl std::fmt::Display) -> Error {
    Error::new(
        Code::LocalUnusable,
        format!("writing down what was not sent: {e}"),
        "make room, or name another folder in [conflict] directory; nothing was removed",
    )
}

/// One JSON document: the device, the outbox without what was acknowledged, the keys that were captured
/// and not claimed, the conflicts that were not acknowledged. Memory does not grow with it.
pub fn write(conn: &Connection, device: &Device, now: Time, out: &mut impl Write) -> Result<()> {
    let head = serde_json::to_string(device).unwrap_or_default();
    let at = serde_json::to_string(&now).unwrap_or_default();
    write!(
        out,
        "{{\"device\":{head},\"detached_at\":{at},\n\"outbox\":["
    )
    .map_err(unwritten)?;
    outbox(conn, out)?;
    out.write_all(b"],\n\"captured\":[").map_err(unwritten)?;
    captured(conn, out)?;
    out.write_all(b"],\n\"conflicts\":[").map_err(unwritten)?;
    conflicts(conn, out)?;
    out.write_all(b"]}\n").map_err(unwritten)
}

fn entry(out: &mut impl Write, first: &mut bool, item: &impl Serialize) -> Result<()> {
    let comma: &[u8] = if *first { b"\n" } else { b",\n" };
    *first = false;
    out.write_all(comma).map_err(unwritten)?;
    serde_json::to_writer(out, item).map_err(unwritten)
}

fn outbox(conn: &Connection, out: &mut impl Write) -> Result<()> {
    let mut s = conn
        .prepare(
            "select change_key, tbl, pk, op, status, payload, created_at, error from tidewater_outbox \
             where status <> 'synced' order by id",
        )
        .or_fault(WHAT)?;
    let mut rows = s.query([]).or_fault(WHAT)?;
    let mut first = true;
    while let Some(r) = rows.next().or_fault(WHAT)? {
        let pk: String = r.get(2).or_fault(WHAT)?;
        let payload: Option<String> = r.get(5).or_fault(WHAT)?;
        let item = Claimed {
            key: r.get(0).or_fault(WHAT)?,
            table: r.get(1).or_fault(WHAT)?,
            pk: Key::decode(&pk).map(|k| k.0).unwrap_or_default(),
            op: r.get(3).or_fault(WHAT)?,
            status: r.get(4).or_fault(WHAT)?,
            created_at: Time::from_ms(r.get(6).or_fault(WHAT)?),
            error: r.get(7).or_fault(WHAT)?,
        };
        // The payload is JSON already: it goes in as it is, behind the other fields.
        let text = serde_json::to_string(&item).unwrap_or_default();
        let comma = if std::mem::take(&mut first) {
            "\n"
        } else {
            ",\n"
        };
        let open = text.strip_suffix('}').unwrap_or(&text);
        let row = payload.as_deref().unwrap_or("null");
        write!(out, "{comma}{open},\"row\":{row}}}").map_err(unwritten)?;
    }
    Ok(())
}

fn captured(conn: &Connection, out: &mut impl Write) -> Result<()> {
    let tables: BTreeMap<String, Table> = load_tables(conn)?
        .into_iter()
        .map(|k| (k.table.name.clone(), k.table))
        .collect();
    let columns: Vec<String> = conn
        .prepare("select * from tidewater_log")
        .or_fault(WHAT)?
        .column_names()
        .filter(|c| {
            c.strip_prefix('k')
                .is_some_and(|n| n.parse::<u32>().is_ok())
        })
        .map(str::to_owned)
        .collect();
    let mut s = conn
        .prepare(&format!(
            "select distinct tbl, {} from tidewater_log",
            columns.join(", ")
        ))
        .or_fault(WHAT)?;
    let mut rows = s.query([]).or_fault(WHAT)?;
    let mut first = true;
    while let Some(r) = rows.next().or_fault(WHAT)? {
        let name: String = r.get(0).or_fault(WHAT)?;
        let table = tables.get(&name);
        let width = table.map_or(columns.len(), |t| t.key.len());
        let key = value::key(r, 1, width).or_fault(WHAT)?;
        // A table that cannot be read (gone, or another shape by now) has its rows in the file still.
        let row = table.and_then(|t| app_row::read(conn, t, &key).ok().flatten());
        let item = Logged {
            table: name,
            pk: key.0,
            op: if row.is_some() { "upsert" } else { "delete" },
            row,
        };
        entry(out, &mut first, &item)?;
    }
    Ok(())
}

fn conflicts(conn: &Connection, out: &mut impl Write) -> Result<()> {
    let mut s = conn
        .prepare("select id from tidewater_conflict where seen = 0 order by detected_at, id")
        .or_fault(WHAT)?;
    let mut rows = s.query([]).or_fault(WHAT)?;
    let mut first = true;
    while let Some(r) = rows.next().or_fault(WHAT)? {
        let id: String = r.get(0).or_fault(WHAT)?;
        entry(out, &mut first, &inspect::conflict(conn, &id)?)?;
    }
    Ok(())
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Triggers on the app's tables.
    pub triggers: u64,
    /// Views.
    pub views: u64,
    /// Tables.
    pub tables: u64,
}

/// Removes everything of tidewater's.
pub fn remove(tx: &Connection) -> Result<Removed> {
    let before = count(tx, "trigger")?;
    capture::remove(tx)?;
    let mut done = Removed {
        triggers: before - count(tx, "trigger")?,
        ..Removed::default()
    };
    // Views first: they look at the tables. Indexes of our own tables go with them.
    for name in reserved(tx, "view")? {
        drop_one(tx, "view", &name)?;
        done.views += 1;
    }
    for name in reserved(tx, "index")? {
        drop_one(tx, "index", &name)?;
    }
    for name in own_tables()? {
        if super::local::has_table(tx, &name)? {
            drop_one(tx, "table", &name)?;
            done.tables += 1;
        }
    }
    Ok(done)
}

fn count(conn: &Connection, kind: &str) -> Result<u64> {
    conn.query_row(
        "select count(*) from sqlite_schema where type = ?1",
        [kind],
        |r| r.get::<_, i64>(0),
    )
    .map(|n| u64::try_from(n).unwrap_or(0))
    .or_fault(WHAT)
}

/// Objects of a kind under the reserved prefix; those that a constraint made have no text.
fn reserved(conn: &Connection, kind: &str) -> Result<Vec<String>> {
    let mut s = conn
        .prepare(
            "select name from sqlite_schema where type = ?1 and sql is not null \
             and name >= 'tidewater_' and name < 'tidewater`' order by name",
        )
        .or_fault(WHAT)?;
    s.query_map([kind], |r| r.get(0))
        .and_then(Iterator::collect)
        .or_fault(WHAT)
}

fn drop_one(tx: &Connection, kind: &str, name: &str) -> Result<()> {
    tx.execute_batch(&format!("drop {kind} {}", ident(name)))
        .or_fault(WHAT)
}
