//! Work asked of a running service by another process, through the file itself: no socket, no port,
//! and it works wherever the file is shared. The asker writes a row and wakes the service by its commit;
//! the service writes the answer.

use super::fault::OrFault;
use super::local::Local;
use crate::error::Result;
use rusqlite::{OptionalExtension, params};

const WHAT: &str = "asking the running service";

/// Asks; returns the request's number.
pub fn ask(local: &mut Local, request: &str, now_ms: i64) -> Result<i64> {
    let tx = local.begin()?;
    tx.execute(
        "insert into tidewater_request (asked_at, request) values (?1, ?2)",
        params![now_ms, request],
    )
    .or_fault(WHAT)?;
    let id = tx.last_insert_rowid();
    tx.commit().or_fault(WHAT)?;
    Ok(id)
}

/// The oldest request without an answer.
pub fn next(local: &Local) -> Result<Option<(i64, String)>> {
    local
        .conn
        .prepare_cached(
            "select id, request from tidewater_request where answer is null order by id limit 1",
        )
        .and_then(|mut s| s.query_row([], |r| Ok((r.get(0)?, r.get(1)?))).optional())
        .or_fault(WHAT)
}

/// Answers a request, and forgets answers that nobody fetched within an hour.
pub fn answer(local: &mut Local, id: i64, answer: &str, now_ms: i64) -> Result<()> {
    let tx = local.begin()?;
    tx.execute(
        "update tidewater_request set answer = ?2 where id = ?1",
        params![id, answer],
    )
    .or_fault(WHAT)?;
    tx.execute(
        "delete from tidewater_request where asked_at < ?1",
        [now_ms - 3_600_000],
    )
    .or_fault(WHAT)?;
    tx.commit().or_fault(WHAT)?;
    Ok(())
}

/// The answer to a request, once it is there.
pub fn answered(local: &Local, id: i64) -> Result<Option<String>> {
    local
        .conn
        .prepare_cached("select answer from tidewater_request where id = ?1")
        .and_then(|mut s| {
            s.query_row([id], |r| r.get::<_, Option<String>>(0))
                .optional()
        })
        .map(Option::flatten)
        .or_fault(WHAT)
}

/// Takes a request back; with its answer where there was one.
pub fn forget(local: &mut Local, id: i64) -> Result<()> {
    let tx = local.begin()?;
    tx.execute("delete from tidewater_request where id = ?1", [id])
        .or_fault(WHAT)?;
    tx.commit().or_fault(WHAT)?;
    Ok(())
}
