//! The outbox: batches formed, and sent again as they were formed.
//!
//! Invariants: at most one entry of a row is uploading and at most one other waits; a batch's members
//! are on disk before the first byte is sent and never change until its outcome is known; each batch
//! names the one before it, so those formed behind it hold only if it does. What ends a batch is in
//! `ended`.

pub use super::ended::{Acknowledged, Retry, acknowledge, postpone, release};
use super::fault::OrFault;
use super::local::{Local, load_tables};
use super::notes;
use super::private;
use super::recall::{self, RECONCILED};
use super::state;
use crate::error::{Code, Error, Result};
use crate::model::{ChangeKey, Key, Op, Policy, Row};
use crate::remote::{Batch, Item};
use rusqlite::{Connection, OptionalExtension, params};

const WHAT: &str = "working the outbox";

/// With more unsent changes of a table than this, nothing is decided about its unique values.
const BESIDE: usize = 1_000;

/// What may go into a batch now (`?1`: due until then). In the order of its ids a batch takes all of
/// it up to one entry.
const READY: &str = "status = 'pending' and coalesce(next_attempt_at, 0) not between ?1 + 1 and ?1 + 7200000 \
                     and tbl in (select name from tidewater_table where mirror is not null)";

/// And beside a batch that is under way: never a second change of one of its rows.
const APART: &str = " and not exists (select 1 from tidewater_outbox u where u.tbl = \
                     tidewater_outbox.tbl and u.pk = tidewater_outbox.pk and +u.status = 'uploading')";

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
    form(local, limits)?;
    under_way(&local.conn, policy)
}

/// A new batch from what is ready, behind the one that is under way; `None` where nothing is. It may be
/// sent once that one has its outcome, and until then it may be released.
pub fn batch_behind(
    local: &mut Local,
    limits: BatchLimits,
    policy: &dyn Fn(&str) -> Policy,
) -> Result<Option<Batch>> {
    match form(local, limits)? {
        Some(seq) => load(&local.conn, seq, policy),
        None => Ok(None),
    }
}

/// Forms a batch at the end of the chain; its number.
fn form(local: &mut Local, limits: BatchLimits) -> Result<Option<i64>> {
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
    let before = last_key(&tx)?;
    let apart = if before.is_some() { APART } else { "" };
    let ready = format!("{READY}{apart}");
    let Some(last) = last_of_batch(&tx, &ready, due, limits)? else {
        return Ok(None);
    };
    let seq = state::number(&tx, "push_seq")?;
    let key = crate::world::ulid().to_string();
    let prev = match before {
        Some(key) => Some(key),
        None => state::get(&tx, "chain_key")?,
    };
    tx.execute(
        "insert into tidewater_batch (seq, batch_key, prev_key) values (?1, ?2, ?3)",
        params![seq, key, prev],
    )
    .or_fault(WHAT)?;
    tx.prepare_cached(&format!(
        "update tidewater_outbox set status = 'uploading', batch = ?2 where {ready} and id <= ?3"
    ))
    .and_then(|mut s| s.execute(params![due, seq, last]))
    .or_fault(WHAT)?;
    state::set_number(&tx, "push_seq", seq + 1)?;
    tx.commit().or_fault(WHAT)?;
    Ok(Some(seq))
}

/// The key of the last batch that is under way.
fn last_key(conn: &Connection) -> Result<Option<String>> {
    conn.query_row(
        "select batch_key from tidewater_batch order by seq desc limit 1",
        [],
        |r| r.get(0),
    )
    .optional()
    .or_fault(WHAT)
}

/// The last of the entries that go into the next batch; `None` where nothing is ready.
fn last_of_batch(
    tx: &Connection,
    ready: &str,
    due: i64,
    limits: BatchLimits,
) -> Result<Option<i64>> {
    let mut s = tx
        .prepare_cached(&format!(
            "select id, bytes from tidewater_outbox where {ready} order by id limit ?2"
        ))
        .or_fault(WHAT)?;
    let items = i64::try_from(limits.items).unwrap_or(i64::MAX);
    let mut rows = s.query(params![due, items]).or_fault(WHAT)?;
    let (mut last, mut total) = (None, 0_usize);
    while let Some(r) = rows.next().or_fault(WHAT)? {
        let bytes: i64 = r.get(1).or_fault(WHAT)?;
        total = total.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
        if total > limits.bytes && last.is_some() {
            break;
        }
        last = Some(r.get(0).or_fault(WHAT)?);
    }
    Ok(last)
}

/// Whether a batch was formed before and its outcome is not known.
pub fn is_under_way(conn: &Connection) -> Result<bool> {
    conn.query_row("select exists (select 1 from tidewater_batch)", [], |r| {
        r.get(0)
    })
    .or_fault(WHAT)
}

/// The oldest batch that was formed and is not acknowledged, exactly as it was formed.
pub fn under_way(conn: &Connection, policy: &dyn Fn(&str) -> Policy) -> Result<Option<Batch>> {
    let oldest: Option<i64> = conn
        .query_row(
            "select min(seq) from tidewater_batch where first_table is null",
            [],
            |r| r.get(0),
        )
        .or_fault(WHAT)?;
    match oldest {
        Some(seq) => load(conn, seq, policy),
        None => Ok(None),
    }
}

/// A batch exactly as it was formed.
fn load(conn: &Connection, seq: i64, policy: &dyn Fn(&str) -> Policy) -> Result<Option<Batch>> {
    let found: Option<(String, Option<String>)> = conn
        .query_row(
            "select batch_key, prev_key from tidewater_batch where seq = ?1",
            [seq],
            |r| Ok((r.get(0)?, r.get(1)?)),
        )
        .optional()
        .or_fault(WHAT)?;
    let Some((key, prev)) = found else {
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
/// to be named, or some that were not claimed yet.
fn unsent_beside(conn: &Connection, table: &str, seq: i64) -> Result<Option<Vec<String>>> {
    let logged: bool = conn
        .prepare_cached("select exists (select 1 from tidewater_log where tbl = ?1)")
        .and_then(|mut s| s.query_row([table], |r| r.get(0)))
        .or_fault(WHAT)?;
    if logged {
        return Ok(None);
    }
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
