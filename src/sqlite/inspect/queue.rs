//! The outbox and the inbox as lists.

use super::{Spec, count, key_values, limit_of, log_keys, time};
use crate::error::Result;
use crate::model::Value;
use crate::report::{InboxItem, InboxReport, ItemError, QueueItem, QueueReport, Time};
use crate::sqlite::fault::OrFault;
use crate::sqlite::value;
use rusqlite::{Connection, OptionalExtension, Row};
use std::collections::HashMap;

const ITEM: &str = "change_key, tbl, pk, op, status, attempts, next_attempt_at, bytes, created_at, \
                    error_code, sqlstate, error, remedy";

/// Which items of the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Everything that is not acknowledged.
    All,
    /// What failed.
    Errors,
    /// What waits and is not held back.
    Ready,
}

/// The outbox in its order, then what is captured and not claimed yet, folded by key. Acknowledged
/// items are history, not queue; [`queue_item`] finds them.
pub fn queue(conn: &Connection, which: Which, limit: usize, now: Time) -> Result<QueueReport> {
    let what = "reading the outbox";
    let filter = match which {
        Which::All => "status in ('pending', 'uploading', 'failed') and ?1 is not null",
        Which::Errors => "status = 'failed' and ?1 is not null",
        Which::Ready => "status = 'pending' and (next_attempt_at is null or next_attempt_at <= ?1)",
    };
    let mut total = conn
        .query_row(
            &format!("select count(*) from tidewater_outbox where {filter}"),
            [now.ms()],
            |r| count(r, 0),
        )
        .or_fault(what)?;
    let mut statement = conn
        .prepare(&format!(
            "select {ITEM} from tidewater_outbox where {filter} order by id limit ?2"
        ))
        .or_fault(what)?;
    let rows = statement
        .query_map([now.ms(), limit_of(limit)], item)
        .or_fault(what)?;
    let mut items = rows.collect::<rusqlite::Result<Vec<_>>>().or_fault(what)?;
    if which != Which::Errors {
        total += unclaimed(conn, limit.saturating_sub(items.len()), &mut items)?;
    }
    Ok(QueueReport { items, total })
}

/// One item by its change key, acknowledged ones included.
pub fn queue_item(conn: &Connection, change_key: &str) -> Result<Option<QueueItem>> {
    conn.query_row(
        &format!(
            "select {ITEM} from tidewater_outbox where change_key = ?1 order by id desc limit 1"
        ),
        [change_key],
        item,
    )
    .optional()
    .or_fault("reading the outbox")
}

/// Downloaded rows, those that could not be applied first, then the newest.
pub fn inbox(conn: &Connection, limit: usize) -> Result<InboxReport> {
    let what = "reading the inbox";
    let total = conn
        .query_row("select count(*) from tidewater_inbox", [], |r| count(r, 0))
        .or_fault(what)?;
    let mut statement = conn
        .prepare(
            "select change_key, tbl, pk, op, status, device, error, at from tidewater_inbox
             order by status = 'failed' desc, id desc limit ?1",
        )
        .or_fault(what)?;
    let rows = statement
        .query_map([limit_of(limit)], |r| {
            Ok(InboxItem {
                key: r.get(0)?,
                table: r.get(1)?,
                pk: key_values(r.get(2)?),
                op: r.get(3)?,
                status: r.get(4)?,
                device: r.get(5)?,
                error: r.get(6)?,
                created_at: Time::from_ms(r.get(7)?),
            })
        })
        .or_fault(what)?;
    let items = rows.collect::<rusqlite::Result<_>>().or_fault(what)?;
    Ok(InboxReport { items, total })
}

/// Appends at most `limit` keys of the key log and returns how many there are.
fn unclaimed(conn: &Connection, limit: usize, items: &mut Vec<QueueItem>) -> Result<u64> {
    let what = "reading the key log";
    let columns = log_keys(conn)?;
    let (n, keys) = (columns.len(), columns.join(", "));
    let total = conn
        .query_row(
            &format!("select count(*) from (select distinct tbl, {keys} from tidewater_log)"),
            [],
            |r| count(r, 0),
        )
        .or_fault(what)?;
    if limit == 0 || total == 0 {
        return Ok(total);
    }
    // With max() alone, SQLite takes the bare columns from the row that holds it: the last edit.
    let mut statement = conn
        .prepare(&format!(
            "select max(id), tbl, op, at, {keys} from tidewater_log
             group by tbl, {keys} order by 1 limit {}",
            limit_of(limit)
        ))
        .or_fault(what)?;
    let mut rows = statement.query([]).or_fault(what)?;
    let mut widths = HashMap::new();
    while let Some(row) = rows.next().or_fault(what)? {
        let mut item = log_item(row, n).or_fault(what)?;
        let width = match widths.get(&item.table) {
            Some(width) => *width,
            None => {
                let width = Spec::of(conn, &item.table)?.map(|s| s.key.len());
                widths.insert(item.table.clone(), width);
                width
            }
        };
        match width {
            Some(width) => item.pk.truncate(width),
            // No longer tracked: NULL is never part of a key, so what follows the last value is padding.
            None => {
                while matches!(item.pk.last(), Some(Value::Null)) {
                    item.pk.pop();
                }
            }
        }
        items.push(item);
    }
    Ok(total)
}

fn log_item(row: &Row<'_>, width: usize) -> rusqlite::Result<QueueItem> {
    let (op, at) = (row.get_ref(2)?, row.get_ref(3)?);
    Ok(QueueItem {
        key: None,
        table: row.get(1)?,
        pk: value::values(row, 4, width)?,
        op: if op.as_str().is_ok_and(|op| op == "D") {
            "delete"
        } else {
            "upsert"
        }
        .to_owned(),
        status: "pending".to_owned(),
        attempts: 0,
        next_attempt_at: None,
        bytes: 0,
        created_at: at.as_i64().ok().filter(|ms| *ms > 0).map(Time::from_ms),
        error: None,
    })
}

fn item(row: &Row<'_>) -> rusqlite::Result<QueueItem> {
    Ok(QueueItem {
        key: row.get(0)?,
        table: row.get(1)?,
        pk: key_values(row.get(2)?),
        op: row.get(3)?,
        status: row.get(4)?,
        attempts: u32::try_from(row.get::<_, i64>(5)?).unwrap_or(0),
        next_attempt_at: time(row, 6)?,
        bytes: count(row, 7)?,
        created_at: time(row, 8)?,
        error: item_error(row, 9)?,
    })
}

/// The error in columns `from..from + 4`: code, SQLSTATE, message, remedy.
pub(super) fn item_error(row: &Row<'_>, from: usize) -> rusqlite::Result<Option<ItemError>> {
    let code: Option<String> = row.get(from)?;
    let message: Option<String> = row.get(from + 2)?;
    if code.is_none() && message.is_none() {
        return Ok(None);
    }
    Ok(Some(ItemError {
        code: code.unwrap_or_default(),
        sqlstate: row.get(from + 1)?,
        message: message.unwrap_or_default(),
        remedy: row.get::<_, Option<String>>(from + 3)?.unwrap_or_default(),
    }))
}
