//! Notes and interned tokens (PROTOCOL section 0).
//!
//! A row of the feed that was not installed leaves a note with the token from before its page. While
//! the note is there, every claim of that key takes the note's token as its base; once the key is
//! clean, the row is fetched by key. An older note always stays: it is the honest one.

use super::fault::OrFault;
use super::status_view;
use crate::error::{Code, Error, Result};
use crate::model::{Key, Token};
use rusqlite::{Connection, OptionalExtension, params};

const WHAT: &str = "keeping notes";

/// The id of an interned token.
pub fn intern(tx: &Connection, token: &Token) -> Result<i64> {
    let json = token.to_json();
    let found = tx
        .prepare_cached("select id from tidewater_base where token = ?1")
        .and_then(|mut s| s.query_row([&json], |r| r.get(0)).optional())
        .or_fault(WHAT)?;
    if let Some(id) = found {
        return Ok(id);
    }
    tx.prepare_cached("insert into tidewater_base (token) values (?1)")
        .and_then(|mut s| s.execute([&json]))
        .or_fault(WHAT)?;
    Ok(tx.last_insert_rowid())
}

/// An interned token.
pub fn base(conn: &Connection, id: i64) -> Result<Token> {
    let json: String = conn
        .prepare_cached("select token from tidewater_base where id = ?1")
        .and_then(|mut s| s.query_row([id], |r| r.get(0)))
        .or_fault(WHAT)?;
    Token::from_json(&json).map_err(|e| {
        Error::new(
            Code::LocalUnusable,
            format!("a stored token cannot be read: {e}"),
            "restore the file from a backup",
        )
    })
}

/// Forgets tokens that nothing refers to.
pub fn prune_bases(tx: &Connection) -> Result<()> {
    tx.execute(
        "delete from tidewater_base where id not in (select base from tidewater_note) \
         and id not in (select base from tidewater_outbox where status <> 'synced')",
        [],
    )
    .or_fault(WHAT)?;
    Ok(())
}

/// The base of a key's note.
pub fn find(conn: &Connection, table: &str, pk: &str) -> Result<Option<i64>> {
    conn.prepare_cached("select base from tidewater_note where tbl = ?1 and pk = ?2")
        .and_then(|mut s| s.query_row([table, pk], |r| r.get(0)).optional())
        .or_fault(WHAT)
}

/// Leaves a note; an older one stays.
pub fn leave(tx: &Connection, table: &str, pk: &str, base: i64) -> Result<()> {
    if find(tx, table, pk)?.is_none() {
        tx.prepare_cached(
            "insert into tidewater_note (tbl, pk, base, k, ki) values (?1, ?2, ?3, ?4, ?4)",
        )
        .and_then(|mut s| s.execute(params![table, pk, base, status_view::shown_of(pk)]))
        .or_fault(WHAT)?;
    }
    Ok(())
}

/// Removes a note.
pub fn remove(tx: &Connection, table: &str, pk: &str) -> Result<()> {
    tx.prepare_cached("delete from tidewater_note where tbl = ?1 and pk = ?2")
        .and_then(|mut s| s.execute([table, pk]))
        .or_fault(WHAT)?;
    Ok(())
}

/// Whether there is any note.
pub fn any(conn: &Connection) -> Result<bool> {
    conn.query_row("select exists (select 1 from tidewater_note)", [], |r| {
        r.get(0)
    })
    .or_fault(WHAT)
}

/// Keys with a note that do not stay here and are without an unsent change, after `after` in (table, key) order.
/// The key log is not looked at here; whoever applies looks again under the write lock.
pub fn clean(
    conn: &Connection,
    after: Option<&(String, String)>,
    limit: usize,
) -> Result<Vec<(String, String, Key)>> {
    let none = (String::new(), String::new());
    let (table, pk) = after.unwrap_or(&none);
    let mut s = conn
        .prepare_cached(
            "select n.tbl, n.pk from tidewater_note n where (n.tbl > ?1 or (n.tbl = ?1 and n.pk > ?2)) \
             and not exists (select 1 from tidewater_outbox o where o.tbl = n.tbl and o.pk = n.pk \
             and o.status <> 'synced') \
             and not exists (select 1 from tidewater_table t where t.name = n.tbl \
             and (t.heal = 1 or t.first_from is not null)) \
             and not exists (select 1 from tidewater_private p where p.tbl = n.tbl and p.pk = n.pk) \
             order by n.tbl, n.pk limit ?3",
        )
        .or_fault(WHAT)?;
    let rows = s
        .query_map(
            params![table, pk, i64::try_from(limit).unwrap_or(i64::MAX)],
            |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?)),
        )
        .or_fault(WHAT)?;
    keyed(rows)
}

/// Keys with a note whose rows could not be applied.
pub fn stuck(conn: &Connection, limit: usize) -> Result<Vec<(String, String, Key)>> {
    let mut s = conn
        .prepare_cached(
            "select n.tbl, n.pk from tidewater_note n where exists (select 1 from tidewater_inbox i \
             where i.tbl = n.tbl and i.pk = n.pk and i.status = 'failed') \
             order by n.tbl, n.pk limit ?1",
        )
        .or_fault(WHAT)?;
    let rows = s
        .query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |r| {
            Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?))
        })
        .or_fault(WHAT)?;
    keyed(rows)
}

fn keyed(
    rows: impl Iterator<Item = rusqlite::Result<(String, String)>>,
) -> Result<Vec<(String, String, Key)>> {
    let mut out = Vec::new();
    for row in rows {
        let (table, pk) = row.or_fault(WHAT)?;
        if let Some(key) = Key::decode(&pk) {
            out.push((table, pk, key));
        }
    }
    Ok(out)
}
