//! The outbox: batches formed, sent again, acknowledged; entries parked, retried, discarded.
//!
//! Invariants: at most one entry of a row is uploading and at most one other waits; a batch's members
//! are on disk before the first byte is sent and never change until its outcome is known; only an
//! outcome of the server, or the user's `discard`, ever ends an entry.

use super::conflicts;
use super::fault::OrFault;
use super::journal::{self, Place};
use super::local::{Local, load_tables};
use super::notes;
use super::private;
use super::recall::{self, RECONCILED};
use super::refusal::{fold, refuse};
use super::state;
use crate::error::{Code, Error, Result};
use crate::model::{ChangeKey, Key, Op, Policy, Row};
use crate::remote::{Batch, Item, Outcome, Refusal};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashMap;

const WHAT: &str = "working the outbox";

/// With more unsent changes of a table than this, nothing is decided about its unique values.
const BESIDE: usize = 1_000;

/// Caps of a batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Items at most.
    pub items: usize,
    /// Payload bytes at most; a single larger row goes alone.
    pub bytes: usize,
    /// Now, ms since 1970: entries that wait for a later attempt are left out.
    pub now_ms: i64,
    /// Whether waiting times are ignored.
    pub force: bool,
}

/// The batch that is under way, or a new one from what is ready. `None` where nothing is.
pub fn next_batch(
    local: &mut Local,
    limits: BatchLimits,
    policy: &dyn Fn(&str) -> Policy,
) -> Result<Option<Batch>> {
    if let Some(batch) = under_way(&local.conn, policy)? {
        return Ok(Some(batch));
    }
    // A page of existing rows has its own outcome first: the chain has one order.
    if is_under_way(&local.conn)? {
        return Ok(None);
    }
    // Looked at before the write lock is taken: an idle poll must not disturb the app.
    let idle: bool = local
        .conn
        .query_row(
            "select not exists (select 1 from tidewater_outbox where status = 'pending')",
            [],
            |r| r.get(0),
        )
        .or_fault(WHAT)?;
    if idle {
        return Ok(None);
    }
    let due = if limits.force {
        i64::MAX
    } else {
        limits.now_ms
    };
    let tx = local.begin()?;
    let mut members = Vec::new();
    {
        let mut s = tx
            .prepare_cached(
                "select id, bytes from tidewater_outbox where status = 'pending' \
                 and coalesce(next_attempt_at, 0) not between ?1 + 1 and ?1 + 7200000 and tbl in \
                 (select name from tidewater_table where mirror is not null) order by id limit ?2",
            )
            .or_fault(WHAT)?;
        let rows = s
            .query_map(
                params![due, i64::try_from(limits.items).unwrap_or(i64::MAX)],
                |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?)),
            )
            .or_fault(WHAT)?;
        let mut total = 0_usize;
        for row in rows {
            let (id, bytes) = row.or_fault(WHAT)?;
            total = total.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
            if total > limits.bytes && !members.is_empty() {
                break;
            }
            members.push(id);
        }
    }
    if members.is_empty() {
        return Ok(None);
    }
    let seq = state::number(&tx, "push_seq")?;
    let key = crate::world::ulid().to_string();
    let prev = state::get(&tx, "chain_key")?;
    tx.execute(
        "insert into tidewater_batch (seq, batch_key, prev_key) values (?1, ?2, ?3)",
        params![seq, key, prev],
    )
    .or_fault(WHAT)?;
    {
        let mut s = tx
            .prepare_cached(
                "update tidewater_outbox set status = 'uploading', batch = ?2 where id = ?1",
            )
            .or_fault(WHAT)?;
        for id in members {
            s.execute(params![id, seq]).or_fault(WHAT)?;
        }
    }
    state::set_number(&tx, "push_seq", seq + 1)?;
    tx.commit().or_fault(WHAT)?;
    under_way(&local.conn, policy)
}

/// Whether a batch was formed before and its outcome is not known.
pub fn is_under_way(conn: &Connection) -> Result<bool> {
    conn.query_row("select exists (select 1 from tidewater_batch)", [], |r| {
        r.get(0)
    })
    .or_fault(WHAT)
}

/// The batch that was formed and is not acknowledged, exactly as it was formed.
pub fn under_way(conn: &Connection, policy: &dyn Fn(&str) -> Policy) -> Result<Option<Batch>> {
    let found: Option<(i64, String, Option<String>)> = conn
        .query_row(
            "select seq, batch_key, prev_key from tidewater_batch where first_table is null \
             order by seq limit 1",
            [],
            |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)),
        )
        .optional()
        .or_fault(WHAT)?;
    let Some((seq, key, prev)) = found else {
        return Ok(None);
    };
    Ok(Some(Batch {
        device: state::device_id(conn)?,
        server: state::server(conn)?,
        seq,
        key,
        prev,
        confirmed: state::number(conn, "confirmed")?,
        cursor: state::token(conn)?.last,
        items: members(conn, seq, policy)?,
        whole: false,
    }))
}

fn members(conn: &Connection, seq: i64, policy: &dyn Fn(&str) -> Policy) -> Result<Vec<Item>> {
    let mut s = conn
        .prepare_cached(
            "select change_key, tbl, pk, op, payload, base, known, carried, erase, \
             coalesce(sqlstate = '23505', 0) from tidewater_outbox \
             where batch = ?1 and status = 'uploading' order by id",
        )
        .or_fault(WHAT)?;
    let known = load_tables(conn)?;
    let mut rows = s.query([seq]).or_fault(WHAT)?;
    let mut items = Vec::new();
    let mut bases: Vec<(i64, crate::model::Token)> = Vec::new();
    while let Some(r) = rows.next().or_fault(WHAT)? {
        let (change, table, pk): (String, String, String) = (
            r.get(0).or_fault(WHAT)?,
            r.get(1).or_fault(WHAT)?,
            r.get(2).or_fault(WHAT)?,
        );
        let op: String = r.get(3).or_fault(WHAT)?;
        let payload: Option<String> = r.get(4).or_fault(WHAT)?;
        let base_id: i64 = r.get(5).or_fault(WHAT)?;
        let base = match bases.iter().find(|(id, _)| *id == base_id) {
            Some((_, t)) => t.clone(),
            None => {
                let t = notes::base(conn, base_id)?;
                bases.push((base_id, t.clone()));
                t
            }
        };
        let mut erase: bool = r.get(8).or_fault(WHAT)?;
        // What takes a row back must not lose to anything.
        let takes_back = erase;
        let row = match payload.as_deref().map(Row::from_json) {
            None => Row::default(),
            Some(Ok(mut row)) => {
                if let Some(k) = known.iter().find(|k| k.table.name == table) {
                    erase |= private::narrow(&k.table, &mut row);
                }
                row
            }
            Some(Err(e)) => return Err(unreadable(&table, &e.to_string())),
        };
        let carried: i64 = r.get(7).or_fault(WHAT)?;
        let seen = match carried {
            0 => Vec::new(),
            RECONCILED => recall::history(conn, &table, &pk)?.tails,
            _ => acknowledged(conn, &table, &pk)?,
        };
        let settle = if r.get(9).or_fault(WHAT)? {
            unsent_beside(conn, &table, seq)?
        } else {
            None
        };
        items.push(Item {
            change: ChangeKey::parse(&change).ok_or_else(|| unreadable(&table, "change key"))?,
            key: Key::decode(&pk).ok_or_else(|| unreadable(&table, "primary key"))?,
            policy: if takes_back {
                Policy::LocalWins
            } else if carried != 0 {
                Policy::LastWriteWins
            } else {
                policy(&table)
            },
            table,
            op: if op == Op::Delete.as_str() {
                Op::Delete
            } else {
                Op::Upsert
            },
            row,
            base,
            known: r.get(6).or_fault(WHAT)?,
            settle,
            seen,
            bury: carried == RECONCILED && payload.is_none(),
            erase,
        });
    }
    Ok(items)
}

fn unreadable(table: &str, what: &str) -> Error {
    Error::new(
        Code::LocalUnusable,
        format!("an outbox entry cannot be read: {what}"),
        "restore the file from a backup",
    )
    .on_table(table)
}

/// Keys of a table's rows with unsent changes outside a batch; `None` where there are too many of them
/// to be named.
fn unsent_beside(conn: &Connection, table: &str, seq: i64) -> Result<Option<Vec<String>>> {
    let mut s = conn
        .prepare_cached(
            "select pk from tidewater_outbox where tbl = ?1 and status in ('pending', 'failed', \
             'uploading') and batch is not ?2 limit ?3",
        )
        .or_fault(WHAT)?;
    let limit = i64::try_from(BESIDE + 1).unwrap_or(i64::MAX);
    let keys: Vec<String> = s
        .query_map(params![table, seq, limit], |r| r.get(0))
        .and_then(Iterator::collect)
        .or_fault(WHAT)?;
    Ok((keys.len() <= BESIDE).then_some(keys))
}

/// Tails of this row's changes that the server had acknowledged to a former identity of this file.
fn acknowledged(conn: &Connection, table: &str, pk: &str) -> Result<Vec<String>> {
    let mut s = conn
        .prepare_cached(
            "select change_key from tidewater_outbox where tbl = ?1 and pk = ?2 \
             and status = 'synced' order by id desc limit 100",
        )
        .or_fault(WHAT)?;
    let rows = s
        .query_map([table, pk], |r| r.get::<_, String>(0))
        .or_fault(WHAT)?;
    let mut out = Vec::new();
    for row in rows {
        if let Some(change) = ChangeKey::parse(&row.or_fault(WHAT)?) {
            out.push(change.tail().to_owned());
        }
    }
    Ok(out)
}

/// Takes a batch back whose transaction the server has provably rolled back: its members wait again,
/// its number is free again.
pub fn release(local: &mut Local, batch: &Batch) -> Result<()> {
    let tx = local.begin()?;
    let entries = entries_of(&tx, batch.seq)?;
    for item in &batch.items {
        // A newer change of the row takes its place: the two would go in one batch, and content that
        // the newer one keeps here must not wait beside it.
        if let Some(entry) = entries.get(item.change.as_str()) {
            let pk = item.key.encode();
            if let Some((into, at)) = fold(&tx, item, entry)? {
                let place = Place::Row(&item.table, &pk);
                journal::folded(&tx, at, place, item.change.as_str(), &into)?;
            }
        }
    }
    private::forget_unsent(&tx)?;
    tx.execute(
        "update tidewater_outbox set status = 'pending', batch = null where batch = ?1 \
         and status = 'uploading'",
        [batch.seq],
    )
    .or_fault(WHAT)?;
    tx.execute("delete from tidewater_batch where seq = ?1", [batch.seq])
        .or_fault(WHAT)?;
    state::set_number(&tx, "push_seq", batch.seq)?;
    tx.commit().or_fault(WHAT)?;
    Ok(())
}

/// Takes a batch back whose transaction the server has provably rolled back, and puts its one row off;
/// whether that counts as an attempt depends on whose fault it was.
pub fn postpone(
    local: &mut Local,
    batch: &Batch,
    refusal: &Refusal,
    counts: bool,
    retry: &Retry<'_>,
) -> Result<Acknowledged> {
    let mut result = Acknowledged::default();
    let tx = local.begin()?;
    let entries = entries_of(&tx, batch.seq)?;
    for item in &batch.items {
        if let Some(entry) = entries.get(item.change.as_str()) {
            refuse(&tx, entry, item, refusal, counts, retry, &mut result)?;
        }
    }
    tx.execute("delete from tidewater_batch where seq = ?1", [batch.seq])
        .or_fault(WHAT)?;
    state::set_number(&tx, "push_seq", batch.seq)?;
    tx.commit().or_fault(WHAT)?;
    Ok(result)
}

/// What an acknowledgement came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// Changes that the server holds, or held until somebody overwrote them.
    pub uploaded: u64,
    /// Changes that lost a conflict.
    pub lost: u64,
    /// Of those uploaded, changes that the server held already from somebody else.
    pub same: u64,
    /// Changes parked now, with table and code for the log.
    pub failed: Vec<(String, &'static str)>,
    /// Changes that wait for a later attempt.
    pub later: u64,
}

/// How refusals are retried.
pub struct Retry<'a> {
    /// Answers of the server until an entry is parked.
    pub max_attempts: u32,
    /// The waiting time before attempt `n + 1`, in ms.
    pub delay_ms: &'a dyn Fn(u32) -> i64,
    /// Now, ms since 1970.
    pub now_ms: i64,
}

/// Acknowledges a batch: exactly its own entries, in one transaction (PROTOCOL section 5, ACK).
pub fn acknowledge(
    local: &mut Local,
    batch: &Batch,
    outcomes: &[Outcome],
    retry: &Retry<'_>,
) -> Result<Acknowledged> {
    let mut result = Acknowledged::default();
    let tx = local.begin()?;
    let epoch = state::epoch(&tx)?;
    let entries = entries_of(&tx, batch.seq)?;
    for (item, outcome) in batch.items.iter().zip(outcomes) {
        let Some(entry) = entries.get(item.change.as_str()) else {
            continue;
        };
        match outcome {
            Outcome::Applied | Outcome::Same | Outcome::Lost | Outcome::Collided => {
                // What lost is no longer queued either, and says so: it stands among the conflicts. Until
                // their record arrives with the feed, nobody but the server has its content, and a server
                // that goes back in time forgets it: so it stays here that long (`recall::unheard`).
                let is_lost = matches!(outcome, Outcome::Lost | Outcome::Collided);
                let (lost, why, remedy) = if is_lost {
                    (
                        Some("SYNC-003"),
                        Some("lost a conflict; the change is kept among the conflicts"),
                        Some("see `tidewater conflicts`"),
                    )
                } else {
                    (None, None, None)
                };
                let unheard = is_lost && !conflicts::is_known(&tx, item)?;
                tx.prepare_cached(
                    "update tidewater_outbox set status = 'synced', \
                     payload = case when ?6 is 'lost' then payload end, batch = null, \
                     synced_at = ?2, error_code = ?3, sqlstate = null, error = ?4, remedy = ?5, \
                     outcome = ?6, epoch = ?7 where id = ?1",
                )
                .and_then(|mut s| {
                    let said = match outcome {
                        Outcome::Same => Some("same"),
                        _ => unheard.then_some("lost"),
                    };
                    s.execute(params![
                        entry.id,
                        retry.now_ms,
                        lost,
                        why,
                        remedy,
                        said,
                        epoch
                    ])
                })
                .or_fault(WHAT)?;
                if *outcome == Outcome::Collided {
                    // No version of this row won, so the feed brings none: the row returns to what is
                    // there, and where nothing is, it goes.
                    let current = notes::intern(&tx, &state::token(&tx)?)?;
                    notes::leave(&tx, &item.table, &item.key.encode(), current)?;
                }
                if is_lost {
                    result.lost += 1;
                } else {
                    result.uploaded += 1;
                }
                result.same += u64::from(*outcome == Outcome::Same);
            }
            Outcome::Refused(refusal) => {
                refuse(&tx, entry, item, refusal, true, retry, &mut result)?;
            }
        }
    }
    tx.execute("delete from tidewater_batch where seq = ?1", [batch.seq])
        .or_fault(WHAT)?;
    state::set_number(&tx, "confirmed", batch.seq + 1)?;
    state::set(&tx, "chain_key", &batch.key)?;
    let total = state::number(&tx, "synced_total")?;
    let uploaded = i64::try_from(result.uploaded).unwrap_or(0);
    state::set_number(&tx, "synced_total", total + uploaded)?;
    state::set_number(&tx, "last_push_at", retry.now_ms)?;
    state::bump_epoch(&tx)?;
    crate::failpoint::hit("ack_before_commit");
    tx.commit().or_fault(WHAT)?;
    crate::failpoint::hit("ack_after_commit");
    Ok(result)
}

/// An entry that is uploading.
pub(super) struct Entry {
    pub id: i64,
    pub attempts: u32,
    pub base: i64,
    pub known: bool,
}

/// The entries of a batch by their change keys.
fn entries_of(tx: &Connection, seq: i64) -> Result<HashMap<String, Entry>> {
    let mut s = tx
        .prepare_cached(
            "select change_key, id, attempts, base, known from tidewater_outbox \
             where status = 'uploading' and batch = ?1",
        )
        .or_fault(WHAT)?;
    s.query_map([seq], |r| {
        let entry = Entry {
            id: r.get(1)?,
            attempts: r.get(2)?,
            base: r.get(3)?,
            known: r.get(4)?,
        };
        Ok((r.get(0)?, entry))
    })
    .and_then(Iterator::collect)
    .or_fault(WHAT)
}
