//! What becomes of a change that the server refused: it folds into a newer one of its row, waits for a
//! later attempt, or is parked. Never drops it; each refusal is an event of the journal. Runs in the
//! transaction of the acknowledgement.

use super::ended::{Acknowledged, Entry, Retry};
use super::fault::OrFault;
use super::journal::{self, Detail, Kind, Place};
use crate::error::Result;
use crate::remote::{Item, Refusal};
use rusqlite::{Connection, OptionalExtension, params};

const WHAT: &str = "working the outbox";

/// What is put off through no fault of its own waits as long as after so many attempts.
const UNCOUNTED: u32 = 4;

/// The server's answer where another row holds the same unique value.
const TAKEN: &str = "23505";

/// Folds an entry that is not sent into a newer one of its row, if there is one: returns its change key
/// and when it was claimed.
pub(super) fn fold(tx: &Connection, item: &Item, entry: &Entry) -> Result<Option<(String, i64)>> {
    let newer: Option<(i64, String, i64)> = tx
        .query_row(
            // A newer one may be parked before it was ever sent, for its size.
            "select id, change_key, created_at from tidewater_outbox where tbl = ?1 and pk = ?2 \
             and status in ('pending', 'failed') limit 1",
            [&item.table, &item.key.encode()],
            |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)),
        )
        .optional()
        .or_fault(WHAT)?;
    let Some((newer, into, at)) = newer else {
        return Ok(None);
    };
    tx.execute("delete from tidewater_outbox where id = ?1", [entry.id])
        .or_fault(WHAT)?;
    // The place of the older one, freed just now, is the newer one's.
    tx.execute(
        "update tidewater_outbox set id = ?2, base = ?3, known = ?4 where id = ?1",
        params![newer, entry.id, entry.base, entry.known],
    )
    .or_fault(WHAT)?;
    Ok(Some((into, at)))
}

/// A refused entry: folds into a newer one of its row, waits, or is parked.
pub(super) fn refuse(
    tx: &Connection,
    entry: &Entry,
    item: &Item,
    refusal: &Refusal,
    counts: bool,
    retry: &Retry<'_>,
    result: &mut Acknowledged,
) -> Result<()> {
    let pk = item.key.encode();
    let &Entry { id, attempts, .. } = entry;
    let place = Place::Row(&item.table, &pk);
    let told = |kind: Kind, code: &str, attempt: Option<u32>| {
        let detail = Detail {
            code: Some(code.to_owned()),
            sqlstate: Some(refusal.sqlstate.clone()),
            message: Some(refusal.message.clone()),
            attempt,
            ..Detail::default()
        };
        let change = Some(item.change.as_str());
        journal::record(tx, retry.now_ms, kind, place, change, &detail)
    };
    if let Some((into, _)) = fold(tx, item, entry)? {
        let code = if refusal.later {
            "SYNC-004"
        } else {
            "SYNC-005"
        };
        told(Kind::Refused, code, counts.then_some(attempts + 1))?;
        return journal::folded(tx, retry.now_ms, place, item.change.as_str(), &into);
    }
    let tried = attempts + 1;
    let attempts = if counts { tried } else { attempts };
    let again = refusal.later && attempts < retry.max_attempts;
    let (code, remedy) = if refusal.sqlstate == "57014" {
        (
            "SYNC-004",
            "look for a slow trigger on the server, or raise [remote] statement_timeout_seconds, then \
             `tidewater retry`",
        )
    } else if refusal.later {
        (
            "SYNC-004",
            "correct the row or what it refers to, then `tidewater retry`",
        )
    } else if refusal.sqlstate.starts_with("22") {
        (
            "SYNC-005",
            "correct the value in the app; `tidewater doctor` says which type would carry it as it is",
        )
    } else {
        (
            "SYNC-005",
            "correct the row in the app, or the constraint on the server and then `tidewater retry`",
        )
    };
    let kind = if again { Kind::Refused } else { Kind::Parked };
    told(kind, code, counts.then_some(tried))?;
    let delay = (retry.delay_ms)(if counts { tried } else { UNCOUNTED });
    // Once more at once: then together with others that were refused alike, and it is decided.
    let at_once = refusal.sqlstate == TAKEN && tried == 1;
    let next = again.then(|| retry.now_ms + if at_once { 0 } else { delay });
    tx.execute(
        "update tidewater_outbox set status = ?2, batch = null, attempts = ?3, next_attempt_at = ?4, \
         error_code = ?5, sqlstate = ?6, error = ?7, remedy = ?8 where id = ?1",
        params![
            id,
            if again { "pending" } else { "failed" },
            attempts,
            next,
            code,
            refusal.sqlstate,
            refusal.message,
            remedy
        ],
    )
    .or_fault(WHAT)?;
    if again {
        result.later += 1;
    } else {
        result.failed.push((item.table.clone(), code));
    }
    Ok(())
}
