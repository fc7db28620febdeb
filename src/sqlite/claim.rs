//! From the key log to the outbox, in one short IMMEDIATE transaction (PROTOCOL section 5, CLAIM).
//!
//! Repeated changes of one row fold into one; the row is read with its types; exactly the log rows that
//! were read are deleted, never "up to": rowids can be reused. Whether a change is an upsert or a delete
//! is decided by whether the row is there now, never by the log.

use super::app_row;
use super::brake;
use super::capture::ledger;
use super::fault::OrFault;
use super::first;
use super::journal::{self, Detail, Kind, Place};
use super::local::{Local, check_schema, load_tables, stopped};
use super::notes;
use super::private::{self, Leaves};
use super::queue;
use super::state;
use super::status_view;
use super::value;
use crate::error::{Code, Result};
use crate::failpoint;
use crate::model::{ChangeKey, Key, Op, Row, Table, Token};
use crate::world;
use rusqlite::{Connection, params};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

const WHAT: &str = "claiming changes";

/// What a claim did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// Log rows consumed.
    pub log_rows: usize,
    /// Outbox entries made or refreshed.
    pub entries: usize,
    /// How long the write lock was held until the commit.
    pub took: Duration,
}

/// One row's changes, folded: the place of the first, the time of the last.
struct Fold {
    table: String,
    key: Key,
    first_op: String,
    at: i64,
    /// Whether a delete of it waits for the user's word; the last operation says so.
    held: bool,
    /// Whether nothing is said but that the row stood there at init.
    stood: bool,
}

/// Bounds of a claim.
#[derive(Debug, Clone, Copy)]
pub struct ClaimLimits {
    /// Log rows at most, so that the app never waits long.
    pub log_rows: usize,
    /// A larger row fails and blocks nothing.
    pub row_bytes_max: usize,
    /// Now, ms since 1970.
    pub now_ms: i64,
}

/// Claims up to `limits.log_rows` log rows. Fails with `SchemaDrift` where the schema moved.
pub fn claim(local: &mut Local, limits: ClaimLimits) -> Result<Claimed> {
    let tx = local.begin()?;
    let begun = world::instant();
    let waiting = queue::log_waits(&tx)?;
    check_schema(&tx)?;
    // Inside our own write lock no statement of the app is under way, so no candidate is in use.
    super::capture::prune_candidates(&tx)?;
    if !waiting && !ledger::is_behind(&tx)? {
        return Ok(Claimed::default());
    }
    let known = load_tables(&tx)?;
    let mut apart = HashMap::new();
    for k in known.iter().filter(|k| k.mirror.is_none()) {
        let token = stopped(&tx, &k.table.name)?.map_or_else(Token::empty, |s| s.token);
        apart.insert(k.table.name.clone(), notes::intern(&tx, &token)?);
    }
    let tables: HashMap<String, Table> = known
        .into_iter()
        .map(|k| (k.table.name.clone(), k.table))
        .collect();
    let (ids, folds) = read_log(&tx, &tables, limits.log_rows)?;
    let token = state::token(&tx)?;
    let bases = Bases {
        current: notes::intern(&tx, &seen(token))?,
        empty: notes::intern(&tx, &Token::empty())?,
        apart,
        offset: state::number(&tx, "clock_offset_ms")?,
    };
    let mut entries = 0;
    for fold in &folds {
        if let Some(table) = tables.get(&fold.table) {
            entries += usize::from(enter(&tx, table, fold, &bases, limits)?);
        }
    }
    {
        let mut delete = tx
            .prepare_cached("delete from tidewater_log where id = ?1")
            .or_fault(WHAT)?;
        for id in &ids {
            delete.execute([id]).or_fault(WHAT)?;
        }
    }
    for fold in &evicted(&tx, &tables, &folds, limits)? {
        if let Some(table) = tables.get(&fold.table) {
            entries += usize::from(enter(&tx, table, fold, &bases, limits)?);
        }
    }
    let took = world::instant().saturating_duration_since(begun);
    crate::failpoint::hit("claim_before_commit");
    tx.commit().or_fault(WHAT)?;
    crate::failpoint::hit("claim_after_commit");
    Ok(Claimed {
        log_rows: ids.len(),
        entries,
        took,
    })
}

/// Reads the log in its order and folds it, without what goes in pages of its own.
fn read_log(
    tx: &Connection,
    tables: &HashMap<String, Table>,
    limit: usize,
) -> Result<(Vec<i64>, Vec<Fold>)> {
    let mut ids = Vec::new();
    let mut folds: Vec<Fold> = Vec::new();
    let mut places: HashMap<(String, String), usize> = HashMap::new();
    let mut s = tx
        .prepare_cached(&format!(
            // What was logged of a table that is not there stays: a rebuild may be half done.
            "select * from tidewater_log where tbl in (select name from tidewater_table) \
             and not {} and id between ?1 and ?2 order by id limit ?3",
            brake::UNCOUNTED
        ))
        .or_fault(WHAT)?;
    let first_key = s.column_index("k1").or_fault(WHAT)?;
    for (from, to) in first::claimed(tx)? {
        let more = i64::try_from(limit.saturating_sub(ids.len())).unwrap_or(i64::MAX);
        let mut rows = s.query([from, to, more]).or_fault(WHAT)?;
        while let Some(r) = rows.next().or_fault(WHAT)? {
            ids.push(r.get("id").or_fault(WHAT)?);
            let name: String = r.get("tbl").or_fault(WHAT)?;
            let Some(table) = tables.get(&name) else {
                // Not tracked any more: what was logged of it goes with it.
                continue;
            };
            let key = value::key(r, first_key, table.key.len()).or_fault(WHAT)?;
            let at: i64 = r.get::<_, Option<i64>>("at").or_fault(WHAT)?.unwrap_or(0);
            let op: String = r.get("op").or_fault(WHAT)?;
            let held = op == brake::HELD;
            let place = (name, key.encode());
            match places.get(&place) {
                // What a comparison logged has no time; an edit beside it keeps its own.
                Some(i) => {
                    folds[*i].held = held;
                    folds[*i].stood &= op == "B";
                    if at > 0 {
                        folds[*i].at = at;
                    }
                }
                None => {
                    folds.push(Fold {
                        table: place.0.clone(),
                        key,
                        stood: op == "B",
                        first_op: op,
                        at,
                        held,
                    });
                    places.insert(place, folds.len() - 1);
                }
            }
        }
    }
    Ok((ids, folds))
}

/// What a claim has seen.
fn seen(token: Token) -> Token {
    if failpoint::is_planted("round_not_seen") {
        return Token::at(token.last);
    }
    token
}

/// The rows that the app evicted unseen, told by the ledgers once the whole log is read. They went when the
/// last of the changes did that are claimed with them, or before.
fn evicted(
    tx: &Connection,
    tables: &HashMap<String, Table>,
    folds: &[Fold],
    limits: ClaimLimits,
) -> Result<Vec<Fold>> {
    let kept = ledger::kept(tx)?;
    if kept.is_empty() {
        return Ok(Vec::new());
    }
    let mut met = BTreeSet::new();
    let mut last = 0;
    for fold in folds.iter().filter(|f| kept.contains(&f.table)) {
        if let Some(table) = tables.get(&fold.table) {
            ledger::look(tx, table, &fold.key).or_fault(WHAT)?;
            met.insert(fold.table.clone());
            last = last.max(fold.at);
        }
    }
    if queue::log_waits(tx)? {
        ledger::set_behind(tx, true)?;
        return Ok(Vec::new());
    }
    let with_ledger = tables.values().filter(|t| kept.contains(&t.name));
    let at = if last > 0 { last } else { limits.now_ms };
    Ok(ledger::sweep(tx, with_ledger, &met)?
        .into_iter()
        .map(|(table, key)| Fold {
            table: table.name.clone(),
            key,
            first_op: "D".to_owned(),
            stood: false,
            at,
            held: false,
        })
        .collect())
}

struct Bases {
    current: i64,
    empty: i64,
    /// Of tables without a mirror: the feed goes on without them, so the token says nothing of them.
    apart: HashMap<String, i64>,
    offset: i64,
}

/// Makes or refreshes the outbox entry of one row; `false` where nothing of it leaves.
fn enter(
    tx: &Connection,
    table: &Table,
    fold: &Fold,
    bases: &Bases,
    limits: ClaimLimits,
) -> Result<bool> {
    let pk = fold.key.encode();
    if fold.stood && first::is_carried(tx, &table.name, &pk)? {
        return Ok(false);
    }
    let row = app_row::read(tx, table, &fold.key).or_fault(WHAT)?;
    let Leaves::Change {
        op,
        row,
        erase,
        unknown,
    } = private::at_claim(tx, table, &pk, &fold.first_op, row)?
    else {
        return Ok(false);
    };
    if erase {
        tracing::warn!(
            table = table.name,
            "a row that was sent is LOCAL_ONLY now; it is taken back from the workspace"
        );
        let (at, place) = (limits.now_ms, Place::Row(&table.name, &pk));
        journal::record(tx, at, Kind::TakenBack, place, None, &Detail::default())?;
    }
    // Its content, not how that is written down here: a blob takes twice its size as JSON.
    let size = row.as_ref().map_or(pk.len(), Row::weight);
    let payload = row.map(|r| r.to_json());
    let bytes = payload.as_ref().map_or(pk.len(), String::len);
    // A row that stood there at init carries the smallest time: an import never beats an edit.
    let edited = if fold.at == 0 {
        0
    } else {
        fold.at + bases.offset
    };
    let mut tail = crate::world::ulid().random();
    if fold.first_op == "R" {
        // Nor does what has no history beat another change without a time (`ChangeKey::is_repair`).
        tail >>= 16;
    }
    let change = ChangeKey::new(edited, tail);
    let too_large = size > limits.row_bytes_max;
    let held = fold.held && op == Op::Delete && !erase;
    let parked = too_large || held;
    let status = if parked { "failed" } else { "pending" };
    let (code, message, remedy) = if too_large {
        (
            Some("SYNC-005"),
            Some(format!(
                "the row takes {size} bytes, more than row_bytes_max ({})",
                limits.row_bytes_max
            )),
            Some("shrink the row, or raise [upload] row_bytes_max and run `tidewater retry`"),
        )
    } else if held {
        let code = Code::MassDelete.as_str();
        (Some(code), Some(brake::WHY.to_owned()), Some(brake::REMEDY))
    } else {
        (None, None, None)
    };
    let place = Place::Row(&table.name, &pk);
    if parked {
        let detail = Detail {
            code: code.map(str::to_owned),
            message: message.clone(),
            ..Detail::default()
        };
        let change = Some(change.as_str());
        journal::record(tx, limits.now_ms, Kind::Parked, place, change, &detail)?;
    }
    let Entered { waiting, any } = entered(tx, &table.name, &pk)?;
    if let Some((id, former)) = waiting {
        journal::folded(tx, limits.now_ms, place, &former, change.as_str())?;
        // Folds into the entry that waits or is parked: its place, base and history stay, and it is
        // tried again. This is how the user's fix heals a parked row.
        tx.prepare_cached(
            "update tidewater_outbox set change_key = ?2, op = ?3, payload = ?4, bytes = ?5, \
             status = ?6, attempts = 0, next_attempt_at = null, error_code = ?7, sqlstate = null, \
             error = ?8, remedy = ?9, edited_at = ?10, erase = ?11 where id = ?1",
        )
        .and_then(|mut s| {
            s.execute(params![
                id,
                change.as_str(),
                op.as_str(),
                payload,
                i64::try_from(bytes).unwrap_or(i64::MAX),
                status,
                code,
                message,
                remedy,
                edited,
                erase
            ])
        })
        .or_fault(WHAT)?;
        return Ok(true);
    }
    let noted = if failpoint::is_planted("token_after_pull") {
        None
    } else {
        notes::find(tx, &table.name, &pk)?
    };
    let base = match noted {
        Some(noted) => noted,
        None if matches!(fold.first_op.as_str(), "B" | "R") => bases.empty,
        None => *bases.apart.get(&table.name).unwrap_or(&bases.current),
    };
    let known = match fold.first_op.as_str() {
        _ if unknown => false,
        _ if erase => true,
        "U" | "D" | brake::HELD => true,
        "R" => false,
        _ => any || is_known(tx, &table.name, &pk)?,
    };
    tx.prepare_cached(
        "insert into tidewater_outbox (change_key, tbl, pk, op, payload, bytes, base, known, status, \
         error_code, error, remedy, created_at, edited_at, k, ki, erase) \
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?15, ?16)",
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
            known,
            status,
            code,
            message,
            remedy,
            limits.now_ms,
            edited,
            status_view::shown(&fold.key),
            erase
        ])
    })
    .or_fault(WHAT)?;
    Ok(true)
}

/// What the outbox holds of a row.
struct Entered {
    /// The entry that waits or is parked, with its change key: the newest, were there several.
    waiting: Option<(i64, String)>,
    /// Whether there is any entry, acknowledged ones included.
    any: bool,
}

fn entered(tx: &Connection, table: &str, pk: &str) -> Result<Entered> {
    let mut s = tx
        .prepare_cached(
            "select id, status, change_key from tidewater_outbox where tbl = ?1 and pk = ?2 \
             order by id desc",
        )
        .or_fault(WHAT)?;
    let mut rows = s.query([table, pk]).or_fault(WHAT)?;
    let mut found = Entered {
        waiting: None,
        any: false,
    };
    while let Some(r) = rows.next().or_fault(WHAT)? {
        found.any = true;
        let status = r.get_ref(1).or_fault(WHAT)?;
        if matches!(status.as_str(), Ok("pending" | "failed")) {
            let id = r.get(0).or_fault(WHAT)?;
            found.waiting = Some((id, r.get(2).or_fault(WHAT)?));
            break;
        }
    }
    Ok(found)
}

/// Whether the device has known a row without an entry before: a note or history of it.
fn is_known(tx: &Connection, table: &str, pk: &str) -> Result<bool> {
    tx.prepare_cached(
        "select exists (select 1 from tidewater_note where tbl = ?1 and pk = ?2) \
         or exists (select 1 from tidewater_inbox where tbl = ?1 and pk = ?2)",
    )
    .and_then(|mut s| s.query_row([table, pk], |r| r.get(0)))
    .or_fault(WHAT)
}
