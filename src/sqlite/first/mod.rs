//! The existing rows of a table at its first `init`: sent in pages, past the outbox.
//!
//! Each such row has a row in the key log (op B), like any other that is to be sent; those of one table
//! stand together, from `first_from` to `first_to`. The claim leaves that part alone. A page is a batch
//! of the device's chain (number, key and its part of the log are on disk before it is sent); its content
//! is read from the app's table when it goes, and its log rows go with the acknowledgement. So the log
//! itself says how far the upload is, and whatever is wrong with a page, or with all of this, its rows
//! are left to the claim and go like any change.
//!
//! Invariants:
//! - the log row `first_to` stands there until the end: new log rows have higher numbers then, and
//!   nothing that the app logs is ever overlooked in that part;
//! - a page goes whole or not at all, and whole only where nothing of anybody else stands under its keys;
//! - a page whose outcome is unknown may be read again: only one of the two can be applied, and what the
//!   app wrote in between is logged and goes afterwards.

mod page;

pub use page::{Page, acknowledge, leave, next_page, release};

use super::fault::OrFault;
use super::state;
use crate::error::Result;
use crate::model::{Key, Privacy, Table};
use rusqlite::{Connection, OptionalExtension, ToSql, params};
use std::collections::BTreeSet;

const WHAT: &str = "sending the existing rows";

/// Fewer rows than this go through the outbox, which keeps a history of each.
const FEW: i64 = 10_000;

/// A part of the key log, both ends included.
pub type Part = (i64, i64);

/// The end of the key log.
pub fn log_end(tx: &Connection) -> Result<i64> {
    tx.query_row("select coalesce(max(id), 0) from tidewater_log", [], |r| {
        r.get(0)
    })
    .or_fault(WHAT)
}

/// Keeps what was just logged of a new table, behind `before`, for pages of its own. Rows of which
/// anything stays here are left to the claim, which judges them one by one.
pub fn keep(tx: &Connection, table: &Table, before: i64) -> Result<()> {
    let whole = table.privacy == Privacy::Full && table.rows.is_none() && table.redact().is_empty();
    let end = log_end(tx)?;
    if !whole || end - before < FEW {
        return Ok(());
    }
    tx.execute(
        "update tidewater_table set first_from = ?2, first_to = ?3, \
         first_mark = (select coalesce(max(id), 0) from tidewater_outbox) where name = ?1",
        params![table.name, before + 1, end],
    )
    .or_fault(WHAT)?;
    Ok(())
}

/// The parts of the log that are kept for pages, in order.
fn parts(conn: &Connection) -> Result<Vec<Part>> {
    conn.prepare_cached(
        "select first_from, first_to from tidewater_table where first_from is not null order by 1",
    )
    .and_then(|mut s| {
        s.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?
            .collect::<rusqlite::Result<_>>()
    })
    .or_fault(WHAT)
}

/// The parts of the log that are the claim's: all but those kept for pages.
pub fn claimed(conn: &Connection) -> Result<Vec<Part>> {
    let mut out = Vec::new();
    let mut from = i64::MIN;
    for (first, last) in parts(conn)? {
        if from < first {
            out.push((from, first - 1));
        }
        from = last.saturating_add(1);
    }
    out.push((from, i64::MAX));
    Ok(out)
}

/// Tables whose existing rows are on their way in pages.
pub fn tables(conn: &Connection) -> Result<BTreeSet<String>> {
    conn.prepare_cached("select name from tidewater_table where first_from is not null")
        .and_then(|mut s| {
            s.query_map([], |r| r.get(0))?
                .collect::<rusqlite::Result<_>>()
        })
        .or_fault(WHAT)
}

/// Whether any page can be sent now, or one is under way.
pub fn waits(conn: &Connection) -> Result<bool> {
    conn.query_row(
        "select exists (select 1 from tidewater_table where first_from is not null \
         and mirror is not null) or exists (select 1 from tidewater_batch where first_table is not null)",
        [],
        |r| r.get(0),
    )
    .or_fault(WHAT)
}

/// How many rows are still to be sent in pages.
pub fn left(conn: &Connection) -> Result<u64> {
    let rows: i64 = parts(conn)?.iter().map(|(from, to)| to - from + 1).sum();
    Ok(u64::try_from(rows).unwrap_or(0))
}

/// Whether an entry of the outbox, made since the rows were logged, carries what a row holds.
pub fn is_carried(conn: &Connection, table: &str, pk: &str) -> Result<bool> {
    conn.prepare_cached(
        "select exists (select 1 from tidewater_outbox o join tidewater_table t on t.name = o.tbl \
         where o.tbl = ?1 and o.pk = ?2 and o.id > t.first_mark)",
    )
    .and_then(|mut s| s.query_row([table, pk], |r| r.get(0)))
    .or_fault(WHAT)
}

/// Leaves everything to the claim: whatever is to be compared, or has changed its shape, is easier
/// judged row by row. A page under way goes on as a batch of nothing, so that the chain stays whole;
/// its rows are claimed whether it was applied or not, and are the device's own if it was.
pub fn give_up(tx: &Connection) -> Result<()> {
    tx.execute_batch(
        "update tidewater_table set first_from = null, first_to = null where first_from is not null; \
         update tidewater_batch set first_table = null, first_to = null where first_table is not null",
    )
    .or_fault(WHAT)
}

/// What [`put_back`] needs to know.
pub type Kept = Vec<(String, Option<i64>, Option<i64>, Option<i64>)>;

/// The parts by table, while the list of tables is written anew.
pub fn kept(tx: &Connection) -> Result<Kept> {
    tx.prepare(
        "select name, first_from, first_to, first_mark from tidewater_table \
         where first_mark is not null",
    )
    .and_then(|mut s| {
        s.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?
            .collect::<rusqlite::Result<_>>()
    })
    .or_fault(WHAT)
}

/// Writes the parts back to the tables that are still tracked.
pub fn put_back(tx: &Connection, kept: &Kept) -> Result<()> {
    for (name, from, to, mark) in kept {
        tx.execute(
            "update tidewater_table set first_from = ?2, first_to = ?3, first_mark = ?4 \
             where name = ?1",
            params![name, from, to, mark],
        )
        .or_fault(WHAT)?;
    }
    Ok(())
}

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

/// How many rows went in pages on one day (UTC): no entry of the outbox tells.
fn count(tx: &Connection, sent: i64, now_ms: i64) -> Result<()> {
    let day = now_ms.div_euclid(DAY);
    let before = sent_on(tx, day)?;
    state::set(tx, "first_sent", &format!("{day} {}", before + sent))
}

/// How many rows went in pages on the day that began at `midnight` (ms since 1970).
pub fn sent_since(conn: &Connection, midnight: i64) -> Result<u64> {
    sent_on(conn, midnight.div_euclid(DAY)).map(|n| u64::try_from(n).unwrap_or(0))
}

fn sent_on(conn: &Connection, day: i64) -> Result<i64> {
    let stored = state::get(conn, "first_sent")?.unwrap_or_default();
    Ok(match stored.split_once(' ') {
        Some((d, n)) if d.parse() == Ok(day) => n.parse().unwrap_or(0),
        _ => 0,
    })
}

fn part_of(conn: &Connection, table: &str) -> Result<Option<Part>> {
    conn.prepare_cached(
        "select first_from, first_to from tidewater_table \
         where name = ?1 and first_from is not null",
    )
    .and_then(|mut s| {
        s.query_row([table], |r| Ok((r.get(0)?, r.get(1)?)))
            .optional()
    })
    .or_fault(WHAT)
}

fn move_to_end(tx: &Connection, id: i64) -> Result<()> {
    let columns: Vec<String> = tx
        .prepare_cached("select * from tidewater_log limit 0")
        .or_fault(WHAT)?
        .column_names()
        .filter(|c| *c != "id")
        .map(str::to_owned)
        .collect();
    let columns = columns.join(", ");
    let sql = format!(
        "insert into tidewater_log ({columns}) select {columns} from tidewater_log where id = ?1"
    );
    tx.prepare_cached(&sql)
        .and_then(|mut s| s.execute([id]))
        .or_fault(WHAT)?;
    forget(tx, id)
}

fn forget(tx: &Connection, id: i64) -> Result<()> {
    tx.prepare_cached("delete from tidewater_log where id = ?1")
        .and_then(|mut s| s.execute([id]))
        .or_fault(WHAT)?;
    Ok(())
}

/// Removes the log rows of a page.
fn remove(tx: &Connection, table: &str, from: i64, to: i64) -> Result<()> {
    tx.execute(
        "delete from tidewater_log where id between ?1 and ?2 and tbl = ?3 and op = 'B'",
        params![from, to, table],
    )
    .or_fault(WHAT)?;
    Ok(())
}

/// The part begins at `from` now, and ends with the last row that stands there.
fn advance(tx: &Connection, table: &str, from: i64) -> Result<()> {
    let Some((_, to)) = part_of(tx, table)? else {
        return Ok(());
    };
    let last: Option<i64> = tx
        .query_row(
            "select id from tidewater_log where id between ?1 and ?2 and tbl = ?3 and op = 'B' \
             order by id desc limit 1",
            params![from, to, table],
            |r| r.get(0),
        )
        .optional()
        .or_fault(WHAT)?;
    tx.execute(
        "update tidewater_table set first_from = case when ?3 is null then null else ?2 end, \
         first_to = ?3 where name = ?1",
        params![table, from, last],
    )
    .or_fault(WHAT)?;
    Ok(())
}

/// The row was given up by its user: what stood there at init is not sent either.
pub fn forget_key(tx: &Connection, table: &str, key: &Key) -> Result<()> {
    let Some((from, to)) = part_of(tx, table)? else {
        return Ok(());
    };
    let same: String = (1..=key.0.len())
        .map(|i| format!(" and k{i} is ?{}", i + 3))
        .collect();
    let mut params: Vec<&dyn ToSql> = vec![&from, &to, &table];
    params.extend(key.0.iter().map(|v| v as &dyn ToSql));
    tx.execute(
        &format!(
            "delete from tidewater_log where id between ?1 and ?2 and tbl = ?3 and op = 'B'{same}"
        ),
        params.as_slice(),
    )
    .or_fault(WHAT)?;
    advance(tx, table, from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;
    use crate::sqlite::local::Local;

    /// A log of seven rows: 2 to 4 and 6 to 7 are kept for pages.
    fn kept_parts() -> Connection {
        let conn = Connection::open_in_memory().expect("opens");
        Local::migrate(&conn).expect("migrates");
        conn.execute_batch(
            "insert into tidewater_log (id, tbl, op, at, k1) values (1, 'x', 'U', 5, 'a'),
               (2, 't', 'B', 0, 'a'), (3, 't', 'B', 0, 'b'), (4, 't', 'B', 0, 'c'),
               (5, 'x', 'I', 5, 'b'), (6, 'u', 'B', 0, 1), (7, 'u', 'B', 0, 2);
             insert into tidewater_table (name, rank, spec, first_from, first_to, first_mark) values
               ('t', 0, '', 2, 4, 0), ('u', 1, '', 6, 7, 0), ('x', 2, '', null, null, null);",
        )
        .expect("fills");
        conn
    }

    #[test]
    fn the_claim_has_all_but_the_kept_parts() {
        let conn = kept_parts();
        assert_eq!(
            claimed(&conn).expect("reads"),
            [(i64::MIN, 1), (5, 5), (8, i64::MAX)]
        );
        assert_eq!(left(&conn).expect("reads"), 5);
        give_up(&conn).expect("gives up");
        assert_eq!(claimed(&conn).expect("reads"), [(i64::MIN, i64::MAX)]);
    }

    #[test]
    fn the_last_row_of_a_part_stands_until_the_end() {
        let conn = kept_parts();
        let last = |table: &str| part_of(&conn, table).expect("reads");
        // What the app logs next must come behind the part, whatever left it.
        forget_key(&conn, "u", &Key(vec![Value::Int(2)])).expect("forgets");
        assert_eq!(last("u"), Some((6, 6)));
        forget_key(&conn, "u", &Key(vec![Value::Int(1)])).expect("forgets");
        assert_eq!(last("u"), None);
        move_to_end(&conn, 4).expect("moves");
        advance(&conn, "t", 2).expect("advances");
        assert_eq!(last("t"), Some((2, 3)));
        assert_eq!(
            claimed(&conn).expect("reads"),
            [(i64::MIN, 1), (4, i64::MAX)]
        );
    }
}
