//! A row's whole life, put together from what the queues, the conflicts and the journal know.

use super::queue::{item_error, queue_item};
use super::row::{log_condition, row_status};
use super::time;
use crate::error::{Code, Error, Result};
use crate::model::{Key, Row as Content};
use crate::report::{Event, ExplainReport, QueueDetail, Time};
use crate::sqlite::fault::OrFault;
use crate::sqlite::journal::Detail;
use rusqlite::types::Type;
use rusqlite::{Connection, Row, params, params_from_iter};

const WHAT: &str = "reading the life of a row";

/// Events of one answer at most, the newest ones of each source.
const EVENTS_MAX: i64 = 1_000;

/// Everything that is known of one row, the oldest first.
pub fn explain(conn: &Connection, table: &str, key: &Key) -> Result<ExplainReport> {
    let pk = key.encode();
    let mut events = outbox(conn, table, &pk)?;
    events.extend(log(conn, table, key)?);
    events.extend(inbox(conn, table, &pk)?);
    events.extend(conflicts(conn, table, &pk)?);
    events.extend(journal(conn, table, &pk)?);
    let told = |e: &Event| {
        events
            .iter()
            .any(|o| o.kind == "not_applied" && o.code == e.code && o.change_key == e.change_key)
    };
    // What waits in the inbox stands in the journal too, unless an older version left it there.
    let late: Vec<Event> = stuck(conn, table, &pk)?
        .into_iter()
        .filter(|e| !told(e))
        .collect();
    events.extend(late);
    // What happened around the row counts from its own first event on.
    let began = events.iter().filter(|e| e.at.is_some()).map(|e| e.at).min();
    if let Some(began) = began {
        let around = around(conn, table)?;
        events.extend(around.into_iter().filter(|e| e.at >= began));
    }
    order(&mut events);
    let status = match row_status(conn, table, key) {
        Ok(status) => Some(status.status),
        Err(e) if e.code == Code::Configuration => None,
        Err(e) => return Err(e),
    };
    Ok(ExplainReport {
        table: table.to_owned(),
        key: key.0.clone(),
        status,
        events,
    })
}

/// One item of the outbox, by its change key or a beginning of it that no other shares.
pub fn queue_detail(conn: &Connection, change: &str) -> Result<QueueDetail> {
    let change = change_key(conn, change)?;
    let Some(item) = queue_item(conn, &change)? else {
        return Err(unknown(&change));
    };
    let (edited, synced_at, row) = conn
        .query_row(
            "select edited_at, synced_at, payload from tidewater_outbox where change_key = ?1 \
             order by id desc limit 1",
            [&change],
            |r| Ok((r.get::<_, i64>(0)?, time(r, 1)?, content(r, 2)?)),
        )
        .or_fault("reading the outbox")?;
    let pk = Key(item.pk.clone()).encode();
    let mut events = outbox(conn, &item.table, &pk)?;
    events.extend(journal(conn, &item.table, &pk)?);
    events.retain(|e| e.change_key.as_ref() == Some(&change));
    order(&mut events);
    Ok(QueueDetail {
        item,
        edited_at: (edited > 0).then(|| Time::from_ms(edited)),
        synced_at,
        row,
        events,
    })
}

/// The whole change key from a beginning of it.
pub fn change_key(conn: &Connection, beginning: &str) -> Result<String> {
    // Change keys are ULIDs, capital letters and digits, so `~` comes after every continuation.
    let start = beginning.to_ascii_uppercase();
    let mut found = conn
        .prepare(
            "select distinct change_key from tidewater_outbox \
             where change_key >= ?1 and change_key < ?1 || '~' order by 1 limit 2",
        )
        .and_then(|mut s| {
            s.query_map([&start], |r| r.get(0))?
                .collect::<rusqlite::Result<Vec<String>>>()
        })
        .or_fault("reading the outbox")?;
    if beginning.is_empty() || found.is_empty() {
        return Err(unknown(beginning));
    }
    if found.len() > 1 && found[0] != start {
        return Err(Error::new(
            Code::Configuration,
            format!("more than one item of the queue begins with {beginning}"),
            "give more of the key; `tidewater queue` lists them",
        ));
    }
    Ok(found.swap_remove(0))
}

fn unknown(change: &str) -> Error {
    Error::new(
        Code::Configuration,
        format!("there is no item {change} in the queue"),
        "`tidewater queue` lists them, `tidewater queue --errors` those that failed",
    )
}

/// What follows what, where both were written in one millisecond.
fn order(events: &mut [Event]) {
    const PLACES: [&str; 3] = ["captured", "claimed", "folded"];
    let place = |kind: &str| {
        PLACES
            .iter()
            .position(|p| *p == kind)
            .unwrap_or(PLACES.len())
    };
    events.sort_by_key(|e| (e.at.unwrap_or(Time::EPOCH), place(&e.kind)));
}

fn event(kind: &str, at: Option<Time>, change: Option<String>) -> Event {
    Event {
        at,
        kind: kind.to_owned(),
        change_key: change,
        ..Event::default()
    }
}

/// Captured, claimed and, where it came to that, how it ended.
fn outbox(conn: &Connection, table: &str, pk: &str) -> Result<Vec<Event>> {
    let mut out = Vec::new();
    let mut statement = conn
        .prepare_cached(
            "select change_key, edited_at, created_at, synced_at, status, outcome, error_code, \
             sqlstate, error, remedy from tidewater_outbox where tbl = ?1 and pk = ?2 \
             order by id desc limit ?3",
        )
        .or_fault(WHAT)?;
    let mut rows = statement
        .query(params![table, pk, EVENTS_MAX])
        .or_fault(WHAT)?;
    while let Some(r) = rows.next().or_fault(WHAT)? {
        let read = || -> rusqlite::Result<Vec<Event>> {
            let change: Option<String> = r.get(0)?;
            let edited: i64 = r.get(1)?;
            let captured = (edited > 0).then(|| Time::from_ms(edited));
            let mut out = vec![
                event("captured", captured, change.clone()),
                event("claimed", time(r, 2)?, change.clone()),
            ];
            if r.get_ref(4)?.as_str().is_ok_and(|s| s == "synced") {
                let error = item_error(r, 6)?;
                let same = r.get_ref(5)?.as_str().is_ok_and(|s| s == "same");
                let kind = match &error {
                    Some(_) => "lost",
                    None if same => "same",
                    None => "uploaded",
                };
                out.push(Event {
                    code: error.as_ref().map(|e| e.code.clone()),
                    message: match kind {
                        "lost" => error.map(|e| e.message),
                        "same" => Some("the server held this content already".to_owned()),
                        _ => None,
                    },
                    ..event(kind, time(r, 3)?, change)
                });
            }
            Ok(out)
        };
        out.extend(read().or_fault(WHAT)?);
    }
    Ok(out)
}

/// What is captured and not claimed yet.
fn log(conn: &Connection, table: &str, key: &Key) -> Result<Vec<Event>> {
    let (condition, values) = log_condition(conn, table, key)?;
    let mut statement = conn
        .prepare(&format!(
            "select at from tidewater_log where {condition} order by id desc limit {EVENTS_MAX}"
        ))
        .or_fault(WHAT)?;
    statement
        .query_map(params_from_iter(values), |r| {
            let at = r.get_ref(0)?.as_i64().ok().filter(|ms| *ms > 0);
            Ok(event("captured", at.map(Time::from_ms), None))
        })
        .and_then(Iterator::collect)
        .or_fault(WHAT)
}

fn inbox(conn: &Connection, table: &str, pk: &str) -> Result<Vec<Event>> {
    let mut statement = conn
        .prepare_cached(
            "select change_key, device, op, at from tidewater_inbox \
             where tbl = ?1 and pk = ?2 and status = 'applied' order by id desc limit ?3",
        )
        .or_fault(WHAT)?;
    statement
        .query_map(params![table, pk, EVENTS_MAX], |r| {
            let deleted = r.get_ref(2)?.as_str().is_ok_and(|op| op == "delete");
            Ok(Event {
                device: text(r, 1)?,
                message: deleted.then(|| "deleted".to_owned()),
                ..event("applied", time(r, 3)?, text(r, 0)?)
            })
        })
        .and_then(Iterator::collect)
        .or_fault(WHAT)
}

fn stuck(conn: &Connection, table: &str, pk: &str) -> Result<Vec<Event>> {
    let mut statement = conn
        .prepare_cached(
            "select change_key, device, error, at from tidewater_inbox \
             where tbl = ?1 and pk = ?2 and status = 'failed'",
        )
        .or_fault(WHAT)?;
    statement
        .query_map([table, pk], |r| {
            Ok(Event {
                device: text(r, 1)?,
                code: Some(Code::InvalidPayload.as_str().to_owned()),
                message: r.get(2)?,
                ..event("not_applied", time(r, 3)?, text(r, 0)?)
            })
        })
        .and_then(Iterator::collect)
        .or_fault(WHAT)
}

fn conflicts(conn: &Connection, table: &str, pk: &str) -> Result<Vec<Event>> {
    let mut statement = conn
        .prepare_cached(
            "select id, kind, policy, winner, local_change, remote_device, detected_at \
             from tidewater_conflict where tbl = ?1 and pk = ?2 order by id desc limit ?3",
        )
        .or_fault(WHAT)?;
    statement
        .query_map(params![table, pk, EVENTS_MAX], |r| {
            let (kind, policy, winner): (String, String, String) =
                (r.get(1)?, r.get(2)?, r.get(3)?);
            let base = Event {
                conflict: Some(r.get(0)?),
                device: text(r, 5)?,
                ..event("conflict", time(r, 6)?, text(r, 4)?)
            };
            Ok(if kind == "discarded" {
                Event {
                    kind,
                    message: Some("given up; it is kept under conflicts".to_owned()),
                    ..base
                }
            } else {
                Event {
                    code: Some(Code::Conflict.as_str().to_owned()),
                    message: Some(format!("{kind}, {winner} won by {policy}")),
                    ..base
                }
            })
        })
        .and_then(Iterator::collect)
        .or_fault(WHAT)
}

/// What the journal says of the row.
fn journal(conn: &Connection, table: &str, pk: &str) -> Result<Vec<Event>> {
    journalled(conn, "tbl = ?1 and pk = ?2", &[table, pk])
}

/// What it says of the row's table and of the device.
fn around(conn: &Connection, table: &str) -> Result<Vec<Event>> {
    let mut out = journalled(conn, "tbl = ?1 and pk is null", &[table])?;
    out.extend(journalled(conn, "tbl is null", &[])?);
    Ok(out)
}

fn journalled(conn: &Connection, place: &str, values: &[&str]) -> Result<Vec<Event>> {
    let mut statement = conn
        .prepare_cached(&format!(
            "select at, kind, change_key, detail from tidewater_event where {place} \
             order by id desc limit {EVENTS_MAX}"
        ))
        .or_fault(WHAT)?;
    let mut found = statement
        .query_map(params_from_iter(values), |r| {
            let detail: Detail = text(r, 3)?
                .and_then(|t| serde_json::from_str(&t).ok())
                .unwrap_or_default();
            let kind: String = r.get(1)?;
            Ok(Event {
                device: detail.device,
                conflict: detail.conflict,
                code: detail.code,
                sqlstate: detail.sqlstate,
                message: match (detail.into, detail.attempt, detail.message) {
                    (Some(into), _, _) => Some(format!("taken up by {into}")),
                    (_, Some(n), Some(m)) => Some(format!("attempt {n}: {m}")),
                    (_, _, m) => m,
                },
                ..event(&kind, Some(Time::from_ms(r.get(0)?)), text(r, 2)?)
            })
        })
        .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
        .or_fault(WHAT)?;
    // Read from the end, so that the newest are kept; told from the beginning.
    found.reverse();
    Ok(found)
}

/// A text that may be missing; the empty one says nothing either.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(row
        .get::<_, Option<String>>(column)?
        .filter(|t| !t.is_empty()))
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
