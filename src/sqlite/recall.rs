//! What this file remembers of versions that the server held once, for a server that went back in time
//! (SYNC-007): the history of a row, and what is queued again of it.
//!
//! Invariants: a version goes again under its own change key, so that of several devices that bring it one
//! is written and the others find it there; its base is empty and the changes of its history count as
//! seen. A row with an unsent change is left as it is, and one that never left takes no part.

use super::app_row;
use super::conflicts;
use super::fault::OrFault;
use super::heal_log;
use super::local::forget_stops;
use super::notes;
use super::private::{self, Leaves};
use super::queue;
use super::state;
use super::status_view;
use crate::error::Result;
use crate::failpoint;
use crate::model::{ChangeKey, Key, Kind, Policy, Row, Side, Table, Token};
use crate::remote::ConflictRecord;
use rusqlite::{Connection, params};

const WHAT: &str = "recalling what the server held";

/// `tidewater_outbox.carried` of what a server that went back in time is to be told: the whole history of
/// the row counts as seen, and a delete leaves a tombstone even where nothing stands.
pub const RECONCILED: i64 = 2;

/// The state's name for the token from before, while a reconcile is under way.
const BEFORE: &str = "reconciling";

/// The version that stands here, as far as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest {
    /// The change that made it.
    pub change: ChangeKey,
    /// Whether it was a delete.
    pub deleted: bool,
}

/// What is remembered of a row.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The last version that was acknowledged or installed; `None` where it is not known or lost a conflict,
    /// so that what stands here never was a version of the server.
    pub newest: Option<Newest>,
    /// Tails of all versions that are remembered.
    pub tails: Vec<String>,
}

/// Begins: no batch, base or cursor of before counts any more. May be done any number of times; nothing
/// is exchanged before the end, for the file stays bound to the server of before.
pub fn begin(tx: &Connection) -> Result<()> {
    if state::get(tx, BEFORE)?.is_none() {
        state::set(tx, BEFORE, &state::token(tx)?.to_json())?;
    }
    queue::dissolve(tx)?;
    let empty = notes::intern(tx, &Token::empty())?;
    unbind(tx, empty)?;
    tx.execute("update tidewater_note set base = ?1", [empty])
        .or_fault(WHAT)?;
    forget_stops(tx)?;
    state::set_token(tx, &Token::empty())
}

/// What waits has seen nothing but the history of its row.
fn unbind(tx: &Connection, empty: i64) -> Result<()> {
    tx.execute(
        "update tidewater_outbox set base = ?1, known = 0, carried = ?2 where status <> 'synced'",
        [empty, RECONCILED],
    )
    .or_fault(WHAT)?;
    Ok(())
}

/// What the file had seen before; `None` where no reconcile is under way.
pub fn before(conn: &Connection) -> Result<Option<Token>> {
    Ok(state::get(conn, BEFORE)?.and_then(|t| Token::from_json(&t).ok()))
}

/// Ends, in the transaction that stores the new cursor. What was claimed meanwhile is like the rest.
pub fn end(tx: &Connection) -> Result<()> {
    let empty = notes::intern(tx, &Token::empty())?;
    unbind(tx, empty)?;
    state::put(tx, BEFORE, None)
}

/// What is remembered of a row.
pub fn history(conn: &Connection, table: &str, pk: &str) -> Result<History> {
    if failpoint::is_planted("no_history") {
        return Ok(History::default());
    }
    let mut s = conn
        .prepare_cached(
            // By epochs, for a clock may have been set back. What an older program wrote has none, comes
            // before all others, and is known by its time alone.
            "select change_key, op, error_code is not null, coalesce(epoch, -1), \
             case when epoch is null then synced_at else 1 end, id \
             from tidewater_outbox where tbl = ?1 and pk = ?2 and status = 'synced' \
             union all select change_key, op, 0, coalesce(epoch, -1), \
             case when epoch is null then at else 0 end, id from tidewater_inbox \
             where tbl = ?1 and pk = ?2 and status = 'applied' \
             order by 4 desc, 5 desc, 6 desc limit 200",
        )
        .or_fault(WHAT)?;
    let mut rows = s.query([table, pk]).or_fault(WHAT)?;
    let mut out = History::default();
    let mut first = true;
    while let Some(r) = rows.next().or_fault(WHAT)? {
        let change: Option<String> = r.get(0).or_fault(WHAT)?;
        let (op, lost): (String, bool) = (r.get(1).or_fault(WHAT)?, r.get(2).or_fault(WHAT)?);
        let change = change.and_then(|c| ChangeKey::parse(&c));
        if let Some(c) = &change {
            out.tails.push(c.tail().to_owned());
        }
        if std::mem::take(&mut first) && !lost {
            out.newest = change.map(|change| Newest {
                change,
                deleted: op == "delete",
            });
        }
    }
    Ok(out)
}

/// Whether a change waits for the row in any way, or the row stays here.
pub fn takes_no_part(tx: &Connection, table: &Table, key: &Key) -> Result<bool> {
    Ok(private::is_private(tx, table, &key.encode())? || heal_log::is_unsent(tx, table, key)?)
}

/// Queues what stands here under the change that made it, or as an import where that is not known.
/// Whether anything of it leaves.
pub fn queue_again(
    tx: &Connection,
    table: &Table,
    key: &Key,
    change: Option<&ChangeKey>,
    now_ms: i64,
) -> Result<bool> {
    let pk = key.encode();
    let row = app_row::read(tx, table, key).or_fault(WHAT)?;
    let Leaves::Change { op, row, erase, .. } = private::at_claim(tx, table, &pk, "U", row)? else {
        return Ok(false);
    };
    let change = match change {
        Some(change) => change.clone(),
        None => ChangeKey::new(0, crate::world::ulid().random()),
    };
    let payload = row.map(|r| r.to_json());
    let bytes = payload.as_ref().map_or(pk.len(), String::len);
    let base = notes::intern(tx, &Token::empty())?;
    // Where it loses, the feed does not bring the winner: the new cursor may have it behind it.
    notes::leave(tx, &table.name, &pk, base)?;
    // It waits again, so it is not among what was sent.
    tx.prepare_cached(
        "delete from tidewater_outbox where tbl = ?1 and pk = ?2 and change_key = ?3 \
         and status = 'synced'",
    )
    .and_then(|mut s| s.execute([&table.name, &pk, change.as_str()]))
    .or_fault(WHAT)?;
    tx.prepare_cached(
        "insert into tidewater_outbox (change_key, tbl, pk, op, payload, bytes, base, known, carried, \
         status, created_at, edited_at, k, ki, erase) \
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, 'pending', ?9, ?10, ?11, ?11, ?12)",
    )
    .and_then(|mut s| {
        s.execute(params![
            change.as_str(),
            table.name,
            pk,
            op.as_str(),
            payload,
            i64::try_from(bytes).unwrap_or(i64::MAX),
            base,
            RECONCILED,
            now_ms,
            change.millis(),
            status_view::shown(key),
            erase
        ])
    })
    .or_fault(WHAT)?;
    Ok(true)
}

/// Keeps content that gives way to what the server holds; whether it was not kept before.
pub fn keep(tx: &Connection, record: &ConflictRecord) -> Result<bool> {
    let kept: bool = tx
        .prepare_cached(
            "select exists (select 1 from tidewater_conflict where tbl = ?1 and pk = ?2 \
             and local is ?3 and remote_change = ?4)",
        )
        .and_then(|mut s| {
            s.query_row(
                params![
                    record.table,
                    record.key.encode(),
                    record.local.as_ref().map(crate::model::Row::to_json),
                    record.remote_change
                ],
                |r| r.get(0),
            )
        })
        .or_fault(WHAT)?;
    Ok(!kept && conflicts::store(tx, record)?)
}

/// Keeps what lost a conflict that this file never heard of: the server that decided it has forgotten it,
/// or has it where the new cursor does not come by. Content that stands here all the same is judged as
/// that. How many were kept.
pub fn unheard(tx: &Connection, tables: &[Table], now_ms: i64) -> Result<u64> {
    type Lost = (String, String, Option<String>, String);
    let lost: Vec<Lost> = tx
        .prepare(
            "select tbl, pk, payload, change_key from tidewater_outbox \
             where status = 'synced' and outcome = 'lost' order by id",
        )
        .and_then(|mut s| {
            s.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?
                .collect()
        })
        .or_fault(WHAT)?;
    let mut kept = 0;
    for (name, pk, payload, change) in lost {
        let table = tables.iter().find(|t| t.name == name);
        let (Some(table), Some(key)) = (table, Key::decode(&pk)) else {
            continue;
        };
        let stands = app_row::read(tx, table, &key).or_fault(WHAT)?;
        let local = payload.and_then(|p| Row::from_json(&p).ok());
        if local.is_some() && stands == local {
            continue;
        }
        let record = ConflictRecord {
            id: ulid::Ulid::generate().to_string(),
            table: name,
            key,
            kind: if local.is_some() {
                Kind::UpdateUpdate
            } else {
                Kind::DeleteUpdate
            },
            policy: Policy::LastWriteWins,
            winner: Side::Remote,
            local,
            // What won is no better known than by what stands here now.
            remote: stands,
            local_change: change,
            remote_change: String::new(),
            remote_device: String::new(),
            detected_at: now_ms,
        };
        kept += u64::from(conflicts::store(tx, &record)?);
    }
    tx.execute(
        "update tidewater_outbox set payload = null, outcome = null \
         where status = 'synced' and outcome = 'lost'",
        [],
    )
    .or_fault(WHAT)?;
    Ok(kept)
}

/// Keys of a table, after `after`, whose deletes are remembered; the last one looked at comes first.
pub fn buried(
    conn: &Connection,
    table: &Table,
    after: &str,
    limit: usize,
) -> Result<(Option<String>, Vec<Key>)> {
    let mut s = conn
        .prepare_cached(
            "select pk from (select pk from tidewater_outbox where tbl = ?1 and pk > ?2 \
             and op = 'delete' and status = 'synced' union select pk from tidewater_inbox \
             where tbl = ?1 and pk > ?2 and op = 'delete' and status = 'applied') order by pk limit ?3",
        )
        .or_fault(WHAT)?;
    let pks: Vec<String> = s
        .query_map(
            params![table.name, after, i64::try_from(limit).unwrap_or(i64::MAX)],
            |r| r.get(0),
        )
        .and_then(Iterator::collect)
        .or_fault(WHAT)?;
    let mut keys = Vec::new();
    for pk in &pks {
        if let Some(key) = Key::decode(pk)
            && is_deleted(conn, table, &key)?.is_some()
        {
            keys.push(key);
        }
    }
    Ok((pks.last().cloned(), keys))
}

/// The delete that a row ended with, where it is gone here and nothing waits for it.
pub fn is_deleted(conn: &Connection, table: &Table, key: &Key) -> Result<Option<ChangeKey>> {
    if takes_no_part(conn, table, key)? || app_row::exists(conn, table, key).or_fault(WHAT)? {
        return Ok(None);
    }
    let newest = history(conn, &table.name, &key.encode())?.newest;
    Ok(newest.filter(|n| n.deleted).map(|n| n.change))
}
