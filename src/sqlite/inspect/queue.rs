//! The outbox and the inbox as lists.

use super::{Spec, count, key_values, limit_of, listed_at, log_keys, time};
use crate::error::{Code, Result};
use crate::model::{Key, Value};
use crate::report::{InboxItem, InboxReport, ItemError, QueueItem, QueueReport, Time};
use crate::sqlite::brake;
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
    /// What failed, and what waits for a later attempt.
    Refused,
    /// What a sync would send: what is ready, and the batch whose outcome is not known.
    Sendable,
}

/// The outbox in its order, then what is captured and not claimed yet, folded by key. Acknowledged
/// items are history, not queue; [`queue_item`] finds them.
pub fn queue(conn: &Connection, which: Which, limit: usize, now: Time) -> Result<QueueReport> {
    let what = "reading the outbox";
    let filter = match which {
        Which::All => "status in ('pending', 'uploading', 'failed') and ?1 is not null",
        Which::Errors => "status = 'failed' and ?1 is not null",
        Which::Ready => {
            "status = 'pending' \
             and coalesce(next_attempt_at, 0) not between ?1 + 1 and ?1 + 7200000"
        }
        Which::Refused => {
            "(status = 'failed' or (status = 'pending' and next_attempt_at is not null)) \
             and ?1 is not null"
        }
        Which::Sendable => {
            "(status = 'uploading' or (status = 'pending' \
             and coalesce(next_attempt_at, 0) not between ?1 + 1 and ?1 + 7200000))"
        }
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
    if !matches!(which, Which::Errors | Which::Refused) {
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

/// An item of a row by its change key; where that is gone, the row's newest one, an open one before
/// those that are acknowledged.
pub fn item_of_row(conn: &Connection, of: &QueueItem) -> Result<Option<QueueItem>> {
    conn.query_row(
        &format!(
            "select {ITEM} from tidewater_outbox where tbl = ?1 and pk = ?2 \
             order by change_key = ?3 desc, status = 'synced', id desc limit 1"
        ),
        rusqlite::params![of.table, Key(of.pk.clone()).encode(), of.key],
        item,
    )
    .optional()
    .or_fault("reading the outbox")
}

/// Downloaded rows: those that could not be applied, those that are known and wait to be fetched, then
/// the newest that were applied. `errors`: only the first.
pub fn inbox(conn: &Connection, errors: bool, limit: usize) -> Result<InboxReport> {
    let what = "reading the inbox";
    let rest = if errors {
        ""
    } else {
        " union all select 2, 0, null, n.tbl, n.pk, null, 'pending', null, null, 0, null \
         from tidewater_note n where not exists (select 1 \
         from tidewater_inbox f where f.tbl = n.tbl and f.pk = n.pk and f.status = 'failed') \
         union all select 3, id, change_key, tbl, pk, op, status, device, error, \
         coalesce(length(payload), 0), at from tidewater_inbox where status = 'applied'"
    };
    let all = format!(
        "select 1 as part, id, change_key, tbl, pk, op, status, device, error, \
         coalesce(length(payload), 0) as bytes, at from tidewater_inbox where status = 'failed'{rest}"
    );
    let total = conn
        .query_row(&format!("select count(*) from ({all})"), [], |r| {
            count(r, 0)
        })
        .or_fault(what)?;
    let mut statement = conn
        .prepare(&format!(
            "select change_key, tbl, pk, op, status, device, error, bytes, at from ({all}) \
             order by part, id desc limit ?1"
        ))
        .or_fault(what)?;
    let rows = statement
        .query_map([limit_of(limit)], |r| {
            let message: Option<String> = r.get(6)?;
            Ok(InboxItem {
                key: r.get::<_, Option<String>>(0)?.filter(|k| !k.is_empty()),
                table: r.get(1)?,
                pk: key_values(r.get(2)?),
                op: r.get::<_, Option<String>>(3)?,
                status: r.get(4)?,
                attempts: 0,
                next_attempt_at: None,
                bytes: count(r, 7)?,
                device: r.get::<_, Option<String>>(5)?.filter(|d| !d.is_empty()),
                error: message.map(not_applied),
                created_at: time(r, 8)?,
            })
        })
        .or_fault(what)?;
    let items = rows.collect::<rusqlite::Result<_>>().or_fault(what)?;
    Ok(InboxReport { items, total })
}

/// Why a row that arrived could not be applied.
pub(super) fn not_applied(message: String) -> ItemError {
    ItemError {
        code: Code::InvalidPayload.as_str().to_owned(),
        sqlstate: None,
        message,
        remedy: "make room for the row in the app's table; it is applied with the next sync"
            .to_owned(),
    }
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
    let listed_at = listed_at(conn)?;
    let mut rows = statement.query([]).or_fault(what)?;
    let mut widths = HashMap::new();
    while let Some(row) = rows.next().or_fault(what)? {
        let mut item = log_item(row, n).or_fault(what)?;
        item.created_at = item.created_at.or(listed_at);
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
        op: if op.as_str().is_ok_and(|op| op == "D" || op == brake::HELD) {
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
