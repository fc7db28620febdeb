//! Conflicts that concern this device, as they arrived with the feed, and the restoring of an original.

use super::app_row;
use super::fault::OrFault;
use super::journal::{self, Detail, Kind, Place};
use super::local::{Local, check_schema, load_tables};
use super::private;
use super::status_view;
use crate::error::{Code, Error, Result};
use crate::model::{self, ChangeKey, Key, Row, Side};
use crate::remote::ConflictRecord;
use rusqlite::{Connection, OptionalExtension, params};

const WHAT: &str = "keeping conflicts";

fn side(s: Side) -> &'static str {
    match s {
        Side::Local => "local",
        Side::Remote => "remote",
    }
}

/// The time of a change in ms; `None` where the key is none of ours.
fn millis(change: &str) -> Option<i64> {
    ChangeKey::parse(change).map(|c| c.millis())
}

/// Stores a conflict; whether it was new.
pub fn store(tx: &Connection, c: &ConflictRecord) -> Result<bool> {
    let n = tx
        .prepare_cached(
            "insert or ignore into tidewater_conflict (id, tbl, pk, kind, policy, winner, local, \
             remote, local_change, remote_change, local_at, remote_at, remote_device, detected_at, k, ki) \
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?15)",
        )
        .and_then(|mut s| {
            s.execute(params![
                c.id,
                c.table,
                c.key.encode(),
                c.kind.as_str(),
                c.policy.as_str(),
                side(c.winner),
                c.local.as_ref().map(Row::to_json),
                c.remote.as_ref().map(Row::to_json),
                // What a repair keeps has no change of this side yet.
                (!c.local_change.is_empty()).then_some(&c.local_change),
                c.remote_change,
                millis(&c.local_change),
                millis(&c.remote_change),
                c.remote_device,
                c.detected_at,
                status_view::shown(&c.key)
            ])
        })
        .or_fault(WHAT)?;
    Ok(n > 0)
}

/// Remembers where the loser was written as a file.
pub fn set_file(conn: &Connection, id: &str, path: &str) -> Result<()> {
    conn.execute(
        "update tidewater_conflict set original_file = ?2 where id = ?1",
        [id, path],
    )
    .or_fault(WHAT)?;
    Ok(())
}

/// Table, key, kind, winner and both sides as they are stored.
type Stored = (
    String,
    String,
    String,
    String,
    Option<String>,
    Option<String>,
);

/// A preserved original: what lost.
pub struct Original {
    /// The table.
    pub table: String,
    /// The row.
    pub key: Key,
    /// The losing content; `None` where a delete lost.
    pub row: Option<Row>,
}

/// The losing side of a conflict; `None` where no conflict has this id.
pub fn original(conn: &Connection, id: &str) -> Result<Option<Original>> {
    let found: Option<Stored> = conn
        .query_row(
            "select tbl, pk, kind, winner, local, remote from tidewater_conflict where id = ?1",
            [id],
            |r| {
                Ok((
                    r.get(0)?,
                    r.get(1)?,
                    r.get(2)?,
                    r.get(3)?,
                    r.get(4)?,
                    r.get(5)?,
                ))
            },
        )
        .optional()
        .or_fault(WHAT)?;
    let Some((table, pk, kind, winner, local, remote)) = found else {
        return Ok(None);
    };
    let (loser, deleted) = if winner == "local" {
        (remote, kind == model::Kind::UpdateDelete.as_str())
    } else {
        (
            local,
            [model::Kind::DeleteUpdate.as_str(), "discarded"].contains(&kind.as_str()),
        )
    };
    if loser.is_none() && !deleted {
        return Err(Error::new(
            Code::Configuration,
            "the original was removed: the row was made LOCAL_ONLY on the device that it came from",
            "nothing to do; acknowledge it with `tidewater conflicts ack`",
        )
        .on_table(&table));
    }
    let unreadable = |what: &str| {
        Error::new(
            Code::LocalUnusable,
            format!("a conflict's {what} cannot be read"),
            "restore the file from a backup",
        )
        .on_table(&table)
    };
    Ok(Some(Original {
        key: Key::decode(&pk).ok_or_else(|| unreadable("key"))?,
        row: loser
            .map(|t| Row::from_json(&t).map_err(|_| unreadable("row")))
            .transpose()?,
        table,
    }))
}

/// Writes the preserved original back as a new local edit: with the guard down, so that capture sees it
/// like any edit of the app. Marks the conflict as seen.
pub fn restore(local: &mut Local, id: &str, now_ms: i64) -> Result<()> {
    let tx = local.begin()?;
    check_schema(&tx)?;
    let original = original(&tx, id)?.ok_or_else(|| {
        Error::new(
            Code::Configuration,
            format!("there is no conflict {id}"),
            "list them with `tidewater conflicts`",
        )
    })?;
    let known = load_tables(&tx)?
        .into_iter()
        .find(|k| k.table.name == original.table)
        .ok_or_else(|| {
            Error::new(
                Code::SchemasDiffer,
                "the table is not tracked any more",
                "the preserved original stays under `tidewater conflicts show`",
            )
            .on_table(&original.table)
        })?;
    match &original.row {
        Some(row) => {
            let row = private::restorable(&tx, &known.table, &original.key, row)?;
            app_row::write(&tx, &known.table, &original.key, &row)
        }
        None => app_row::delete(&tx, &known.table, &original.key).map(|_| ()),
    }
    .map_err(|e| {
        if super::install::is_unique(&e) {
            Error::new(
                Code::Conflict,
                "another row here holds the unique value of the original",
                "change or delete that row in the app, then restore the original again",
            )
            .on_table(&original.table)
        } else {
            super::fault::fault(e, "restoring the original")
        }
    })?;
    let detail = Detail {
        conflict: Some(id.to_owned()),
        ..Detail::default()
    };
    let pk = original.key.encode();
    let place = Place::Row(&original.table, &pk);
    journal::record(&tx, now_ms, Kind::Restored, place, None, &detail)?;
    tx.execute("update tidewater_conflict set seen = 1 where id = ?1", [id])
        .or_fault(WHAT)?;
    tx.commit().or_fault(WHAT)?;
    Ok(())
}

/// Ids of conflicts whose loser has no file yet.
pub fn without_file(conn: &Connection, limit: usize) -> Result<Vec<String>> {
    let mut s = conn
        .prepare_cached("select id from tidewater_conflict where original_file is null limit ?1")
        .or_fault(WHAT)?;
    s.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |r| r.get(0))
        .and_then(Iterator::collect)
        .or_fault(WHAT)
}
