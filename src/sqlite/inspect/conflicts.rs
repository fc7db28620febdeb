//! Conflicts as lists.

use super::{conflict_counts, key_values, limit_of, time};
use crate::error::{Code, Error, Result};
use crate::model::Row as Content;
use crate::report::{Conflict, ConflictsReport, Time};
use crate::sqlite::fault::OrFault;
use rusqlite::types::Type;
use rusqlite::{Connection, Row, Transaction, TransactionBehavior};

/// Conflicts that one document carries at most: each holds two whole rows.
pub const CONFLICTS_MAX: usize = 500;

const WHAT: &str = "reading the conflicts";
const COLUMNS: &str = "id, tbl, pk, detected_at, policy, winner, kind, local, remote, local_change, \
                       remote_change, local_at, remote_at, remote_device, seen, original_file, \
                       coalesce(instr((select value from tidewater_state where name = 'former_ids'), \
                       '\"' || remote_device || '\"'), 0), restored";

/// The newest first, seen or not, at most `limit` and [`CONFLICTS_MAX`].
pub fn conflicts(conn: &Connection, limit: usize) -> Result<ConflictsReport> {
    let mut statement = conn
        .prepare(&format!(
            "select {COLUMNS} from tidewater_conflict order by detected_at desc, id desc limit ?1"
        ))
        .or_fault(WHAT)?;
    let rows = statement
        .query_map([limit_of(limit.min(CONFLICTS_MAX))], read)
        .or_fault(WHAT)?;
    Ok(ConflictsReport {
        conflicts: rows.collect::<rusqlite::Result<_>>().or_fault(WHAT)?,
        total: conflict_counts(conn)?.total,
        moved: None,
    })
}

/// One conflict, by its id or by a beginning of it that no other shares.
pub fn conflict(conn: &Connection, id: &str) -> Result<Conflict> {
    // Ids are ULIDs, capital letters and digits, so `~` comes after every continuation.
    let start = id.to_ascii_uppercase();
    let mut statement = conn
        .prepare_cached(&format!(
            "select {COLUMNS} from tidewater_conflict where id >= ?1 and id < ?1 || '~' order by id limit 2"
        ))
        .or_fault(WHAT)?;
    let rows = statement.query_map([&start], read).or_fault(WHAT)?;
    let mut found = rows.collect::<rusqlite::Result<Vec<_>>>().or_fault(WHAT)?;
    if id.is_empty() || found.is_empty() {
        return Err(Error::new(
            Code::Configuration,
            format!("there is no conflict {id}"),
            "`tidewater conflicts` lists them",
        ));
    }
    if found.len() > 1 && found[0].id != start {
        return Err(Error::new(
            Code::Configuration,
            format!("more than one conflict begins with {id}"),
            "give more of the id; `tidewater conflicts` lists them",
        ));
    }
    Ok(found.swap_remove(0))
}

/// Marks conflicts as seen and returns them as they stand now; without ids, all that were unseen.
pub fn mark_seen(conn: &Connection, ids: &[String]) -> Result<ConflictsReport> {
    let what = "marking conflicts as seen";
    // Immediate: a transaction that reads first and writes then can be refused without any wait.
    let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate).or_fault(what)?;
    let mut report = ConflictsReport::default();
    if ids.is_empty() {
        report = conflicts(&tx, CONFLICTS_MAX)?;
        report.conflicts.retain(|c| !c.seen);
        let changed = tx
            .execute("update tidewater_conflict set seen = 1 where seen = 0", [])
            .or_fault(what)?;
        report.total = changed as u64;
    } else {
        for id in ids {
            let conflict = conflict(&tx, id)?;
            tx.execute(
                "update tidewater_conflict set seen = 1 where id = ?1",
                [&conflict.id],
            )
            .or_fault(what)?;
            if report.conflicts.iter().all(|c| c.id != conflict.id) {
                report.conflicts.push(conflict);
            }
        }
        report.total = report.conflicts.len() as u64;
    }
    tx.commit().or_fault(what)?;
    for conflict in &mut report.conflicts {
        conflict.seen = true;
    }
    Ok(report)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Conflict> {
    Ok(Conflict {
        id: row.get(0)?,
        table: row.get(1)?,
        pk: key_values(row.get(2)?),
        detected_at: Time::from_ms(row.get(3)?),
        policy: row.get(4)?,
        winner: row.get(5)?,
        kind: row.get(6)?,
        local: content(row, 7)?,
        remote: content(row, 8)?,
        local_change_key: row.get(9)?,
        remote_change_key: row.get(10)?,
        local_at: time(row, 11)?,
        remote_at: time(row, 12)?,
        remote_device: row.get(13)?,
        seen: row.get(14)?,
        original_file: row.get(15)?,
        own: row.get::<_, i64>(16)? > 0,
        restored_as: row.get::<_, Option<String>>(17)?.map(key_values),
    })
}

fn content(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Content>> {
    row.get::<_, Option<String>>(column)?
        .map(|text| {
            Content::from_json(&text).map_err(|e| {
                rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(e))
            })
        })
        .transpose()
}
