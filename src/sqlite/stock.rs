//! The outbox when everything is listed anew: what was queued is judged by what can still be known.
//!
//! Below the collection mark the server does not remember deletes, so a queued edit of a row that is not
//! there is an edit of a deleted row. Nothing is dropped here: what gives way is kept as a conflict.

use super::fault::OrFault;
use super::notes;
use crate::error::Result;
use crate::model::ChangeKey;
use rusqlite::{Connection, OptionalExtension, params};

const WHAT: &str = "taking stock of the outbox";

/// Whether the row was never sent from here: such keys take no part in any comparison.
pub fn is_private(conn: &Connection, table: &str, pk: &str) -> Result<bool> {
    conn.prepare_cached(
        "select exists (select 1 from tidewater_private where tbl = ?1 and pk = ?2)",
    )
    .and_then(|mut s| s.query_row([table, pk], |r| r.get(0)))
    .or_fault(WHAT)
}

/// A queued edit of a row that others have deleted, so long ago that the delete is forgotten: the delete
/// wins, and the edit is kept as a conflict. Only where the row was known before the edit and what it had
/// seen lies below `mark`; a row that was new here was never deleted by anybody. Whether it gave way.
pub fn gives_way(tx: &Connection, table: &str, pk: &str, mark: u64, now_ms: i64) -> Result<bool> {
    let found: Option<(i64, String, Option<String>, bool, i64)> = tx
        .prepare_cached(
            "select id, change_key, payload, known, base from tidewater_outbox \
             where tbl = ?1 and pk = ?2 and status in ('pending', 'failed') order by id desc limit 1",
        )
        .and_then(|mut s| {
            s.query_row([table, pk], |r| {
                Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?))
            })
            .optional()
        })
        .or_fault(WHAT)?;
    let Some((id, change, payload, known, base)) = found else {
        return Ok(false);
    };
    if !known || notes::base(tx, base)?.last.xmin() >= mark {
        return Ok(false);
    }
    if payload.is_some() {
        tx.execute(
            "insert into tidewater_conflict (id, tbl, pk, kind, policy, winner, local, local_change, \
             local_at, detected_at) values (?1, ?2, ?3, 'update_delete', 'last_write_wins', 'remote', \
             ?4, ?5, ?6, ?7)",
            params![
                crate::world::ulid().to_string(),
                table,
                pk,
                payload,
                change,
                ChangeKey::parse(&change).map_or(0, |c| c.millis()),
                now_ms
            ],
        )
        .or_fault(WHAT)?;
    }
    tx.execute("delete from tidewater_outbox where id = ?1", [id])
        .or_fault(WHAT)?;
    Ok(true)
}

/// What is still queued with a base below `mark` was looked at: it may be sent in spite of its base.
pub fn clear(tx: &Connection, mark: u64) -> Result<()> {
    let mut bases: Vec<i64> = Vec::new();
    {
        let mut s = tx
            .prepare_cached(
                "select distinct base from tidewater_outbox where status in ('pending', 'failed') \
                 and known = 1",
            )
            .or_fault(WHAT)?;
        let rows = s.query_map([], |r| r.get(0)).or_fault(WHAT)?;
        for row in rows {
            bases.push(row.or_fault(WHAT)?);
        }
    }
    for base in bases {
        if notes::base(tx, base)?.last.xmin() < mark {
            tx.execute(
                "update tidewater_outbox set known = 0 where base = ?1 \
                 and status in ('pending', 'failed')",
                [base],
            )
            .or_fault(WHAT)?;
        }
    }
    Ok(())
}
