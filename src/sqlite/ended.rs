//! How a batch ends: acknowledged with the outcomes of its items, or taken back.
//!
//! Invariants: only an outcome of the server ends an entry; a batch is taken back only where it never
//! left, or the server has provably rolled it back, and those formed behind it before it. Each is one
//! transaction.

use super::conflicts;
use super::fault::OrFault;
use super::journal::{self, Place};
use super::local::Local;
use super::notes;
use super::private;
use super::refusal::{fold, refuse};
use super::state;
use crate::error::{Code, Error, Result};
use crate::remote::{Batch, Outcome, Refusal};
use rusqlite::{Connection, params};
use std::collections::HashMap;

const WHAT: &str = "working the outbox";

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
    if outcomes.len() != batch.items.len() {
        // Nothing may end without an outcome of its own; the batch is sent again.
        return Err(Error::new(
            Code::Connection,
            format!(
                "the server answered for {} of {} changes of a batch",
                outcomes.len(),
                batch.items.len()
            ),
            "nothing is lost, it is tried again",
        ));
    }
    let mut result = Acknowledged::default();
    let tx = local.begin()?;
    let moment = Moment {
        at: retry.now_ms,
        epoch: state::epoch(&tx)?,
    };
    // What is out of the ordinary one by one, and then all the rest at once.
    let apart = outcomes.iter().any(|o| *o != Outcome::Applied);
    let entries = if apart {
        entries_of(&tx, batch.seq)?
    } else {
        HashMap::new()
    };
    for (item, outcome) in batch.items.iter().zip(outcomes) {
        let Some(entry) = entries.get(item.change.as_str()) else {
            continue;
        };
        match outcome {
            Outcome::Applied => {}
            Outcome::Same => {
                let same = Ended {
                    outcome: Some("same"),
                    ..Ended::default()
                };
                end(&tx, entry.id, &moment, &same)?;
                result.uploaded += 1;
                result.same += 1;
            }
            Outcome::Lost | Outcome::Collided => {
                // Until the record of the conflict arrives with the feed, nobody but the server has its
                // content, and a server that goes back in time forgets it: so it stays here that long
                // (`recall::unheard`).
                let unheard = !conflicts::is_known(&tx, item)?;
                let lost = Ended {
                    outcome: unheard.then_some("lost"),
                    ..LOST
                };
                end(&tx, entry.id, &moment, &lost)?;
                if *outcome == Outcome::Collided {
                    // No version of this row won, so the feed brings none: the row returns to what is
                    // there, and where nothing is, it goes.
                    let current = notes::intern(&tx, &state::token(&tx)?)?;
                    notes::leave(&tx, &item.table, &item.key.encode(), current)?;
                }
                result.lost += 1;
            }
            Outcome::Refused(refusal) => {
                refuse(&tx, entry, item, refusal, true, retry, &mut result)?;
            }
        }
    }
    let applied = tx
        .prepare_cached(
            "update tidewater_outbox set status = 'synced', payload = null, batch = null, \
             synced_at = ?2, error_code = null, sqlstate = null, error = null, remedy = null, \
             outcome = null, epoch = ?3 where status = 'uploading' and batch = ?1",
        )
        .and_then(|mut s| s.execute([batch.seq, moment.at, moment.epoch]))
        .or_fault(WHAT)?;
    result.uploaded += applied as u64;
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

/// What an entry says of itself once it has ended.
#[derive(Default)]
struct Ended {
    code: Option<&'static str>,
    why: Option<&'static str>,
    remedy: Option<&'static str>,
    outcome: Option<&'static str>,
}

/// What lost is no longer queued either, and says so: it stands among the conflicts.
const LOST: Ended = Ended {
    code: Some("SYNC-003"),
    why: Some("lost a conflict; the change is kept among the conflicts"),
    remedy: Some("see `tidewater conflicts`"),
    outcome: None,
};

/// When an entry ends: by the clock, and in the order of what this file settled.
struct Moment {
    at: i64,
    epoch: i64,
}

/// Ends one entry.
fn end(tx: &Connection, id: i64, moment: &Moment, ended: &Ended) -> Result<()> {
    tx.prepare_cached(
        "update tidewater_outbox set status = 'synced', \
         payload = case when ?6 is 'lost' then payload end, batch = null, \
         synced_at = ?2, error_code = ?3, sqlstate = null, error = ?4, remedy = ?5, \
         outcome = ?6, epoch = ?7 where id = ?1",
    )
    .and_then(|mut s| {
        s.execute(params![
            id,
            moment.at,
            ended.code,
            ended.why,
            ended.remedy,
            ended.outcome,
            moment.epoch
        ])
    })
    .or_fault(WHAT)?;
    Ok(())
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
