//! What rows keep here: which keys were never sent, and which columns this device does not send.
//!
//! Owns `tidewater_private` and `tidewater_redacted`. Invariants: a row whose own level is LOCAL_ONLY
//! never leaves, nor does its key unless it left under an earlier level; the redact columns of a
//! REDACTED row never leave and are never overwritten by what arrives; only this device's own app can
//! raise what leaves of content that only this device holds. It fails only where the file does.

use super::app_row;
use super::fault::OrFault;
use super::heal_log;
use crate::error::Result;
use crate::model::{Key, Op, Privacy, Row, Table, Value};
use crate::remote::Version;
use rusqlite::{Connection, OptionalExtension, params};

const WHAT: &str = "looking at the privacy of rows";

/// Rows that are looked at in one step.
const PAGE: usize = 500;

/// Whether the key was never sent, or was taken back: it takes no part in anything beyond this device.
pub fn is_private(conn: &Connection, table: &Table, pk: &str) -> Result<bool> {
    if table.rows.is_none() {
        return Ok(false);
    }
    conn.prepare_cached(
        "select exists (select 1 from tidewater_private where tbl = ?1 and pk = ?2)",
    )
    .and_then(|mut s| s.query_row([table.name.as_str(), pk], |r| r.get(0)))
    .or_fault(WHAT)
}

/// How many keys of a table stay here.
pub fn count(conn: &Connection, table: &str) -> Result<u64> {
    conn.query_row(
        "select count(*) from tidewater_private where tbl = ?1",
        [table],
        |r| r.get::<_, i64>(0),
    )
    .map(|n| u64::try_from(n).unwrap_or(0))
    .or_fault(WHAT)
}

fn add(tx: &Connection, table: &str, pk: &str) -> Result<()> {
    tx.prepare_cached("insert or ignore into tidewater_private (tbl, pk) values (?1, ?2)")
        .and_then(|mut s| s.execute([table, pk]))
        .or_fault(WHAT)?;
    Ok(())
}

fn remove(tx: &Connection, table: &str, pk: &str) -> Result<()> {
    tx.prepare_cached("delete from tidewater_private where tbl = ?1 and pk = ?2")
        .and_then(|mut s| s.execute([table, pk]))
        .or_fault(WHAT)?;
    Ok(())
}

/// Why the redact columns of a row are not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// It arrived without them: what they hold is not this device's to send.
    Absent,
    /// Another device raised the level of content that is held here.
    Held,
}

fn mark_of(conn: &Connection, table: &str, pk: &str) -> Result<Option<Mark>> {
    conn.prepare_cached("select held from tidewater_redacted where tbl = ?1 and pk = ?2")
        .and_then(|mut s| s.query_row([table, pk], |r| r.get::<_, bool>(0)).optional())
        .map(|held| held.map(|h| if h { Mark::Held } else { Mark::Absent }))
        .or_fault(WHAT)
}

fn set_mark(tx: &Connection, table: &str, pk: &str, mark: Option<Mark>) -> Result<()> {
    tx.prepare_cached("delete from tidewater_redacted where tbl = ?1 and pk = ?2")
        .and_then(|mut s| s.execute([table, pk]))
        .or_fault(WHAT)?;
    if let Some(mark) = mark {
        tx.prepare_cached("insert into tidewater_redacted (tbl, pk, held) values (?1, ?2, ?3)")
            .and_then(|mut s| s.execute(params![table, pk, mark == Mark::Held]))
            .or_fault(WHAT)?;
    }
    Ok(())
}

/// What a claim makes of a row's changes.
pub enum Leaves {
    /// Nothing leaves.
    Nothing,
    /// A change leaves.
    Change {
        /// What it does.
        op: Op,
        /// The content that may leave.
        row: Option<Row>,
        /// Whether it takes the row back.
        erase: bool,
        /// Whether the row was never there, whatever was done to it here.
        unknown: bool,
    },
}

/// Decides at the claim, in its transaction, from the row as it is then. `first_op` is the first
/// operation that was logged.
pub fn at_claim(
    tx: &Connection,
    table: &Table,
    pk: &str,
    first_op: &str,
    row: Option<Row>,
) -> Result<Leaves> {
    let name = table.name.as_str();
    let change = |op, row| Leaves::Change {
        op,
        row,
        erase: false,
        unknown: false,
    };
    if table.rows.is_none() {
        let op = if row.is_some() {
            Op::Upsert
        } else {
            Op::Delete
        };
        return Ok(change(op, row));
    }
    let stayed = is_private(tx, table, pk)?;
    let Some(mut row) = row else {
        set_mark(tx, name, pk, None)?;
        if stayed {
            // What takes the row back, if anything does, goes on its way.
            remove(tx, name, pk)?;
            return Ok(Leaves::Nothing);
        }
        if was_sent(tx, name, pk, first_op)? {
            return Ok(change(Op::Delete, None));
        }
        // Written and deleted between two claims: nobody knows at what level.
        forget_waiting(tx, name, pk)?;
        return Ok(Leaves::Nothing);
    };
    let level = table.level_of(&row);
    if level == Privacy::LocalOnly {
        if stayed {
            return Ok(Leaves::Nothing);
        }
        let sent = was_sent(tx, name, pk, first_op)?;
        add(tx, name, pk)?;
        if !sent {
            forget_waiting(tx, name, pk)?;
            return Ok(Leaves::Nothing);
        }
        return Ok(Leaves::Change {
            op: Op::Delete,
            row: None,
            erase: true,
            unknown: false,
        });
    }
    if stayed {
        remove(tx, name, pk)?;
    }
    let mark = mark_of(tx, name, pk)?;
    if level == Privacy::Redacted {
        table.strip(&mut row);
        if mark == Some(Mark::Held) {
            // The app lowered it here: from now on its own word counts again.
            set_mark(tx, name, pk, None)?;
        }
    } else if mark.is_some() {
        table.strip(&mut row);
    }
    Ok(Leaves::Change {
        op: Op::Upsert,
        row: Some(row),
        erase: false,
        unknown: stayed,
    })
}

/// Whether the server may know the key: it was sent, or came from there.
fn was_sent(tx: &Connection, table: &str, pk: &str, first_op: &str) -> Result<bool> {
    let (sent, waits, arrived): (bool, bool, bool) = tx
        .prepare_cached(
            "select exists (select 1 from tidewater_outbox where tbl = ?1 and pk = ?2 \
             and (status in ('uploading', 'synced') or known = 1 or carried = 1)), \
             exists (select 1 from tidewater_outbox where tbl = ?1 and pk = ?2), \
             exists (select 1 from tidewater_inbox where tbl = ?1 and pk = ?2 and status = 'applied')",
        )
        .and_then(|mut s| s.query_row([table, pk], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))))
        .or_fault(WHAT)?;
    // An entry that only ever waited says that the row was new here, whatever is logged of it since.
    Ok(sent || arrived || (!waits && matches!(first_op, "U" | "D" | "R" | "H")))
}

/// Takes a change that was never sent out of the queue; the row itself stays as it is.
fn forget_waiting(tx: &Connection, table: &str, pk: &str) -> Result<()> {
    tx.prepare_cached(
        "delete from tidewater_outbox where tbl = ?1 and pk = ?2 and status in ('pending', 'failed')",
    )
    .and_then(|mut s| s.execute([table, pk]))
    .or_fault(WHAT)?;
    Ok(())
}

/// Takes out of a payload what the app dropped or somebody made private since the claim; whether the
/// other side is to hold nothing in its redact columns.
pub fn narrow(table: &Table, row: &mut Row) -> bool {
    row.0
        .retain(|(c, _)| table.replicated().any(|r| r.name == *c));
    let blank = table.rows.is_some() && table.level_of(row) != Privacy::Full;
    if blank {
        table.blank_out(row);
    }
    blank
}

/// What would take back a row that in the end was never sent.
pub fn forget_unsent(tx: &Connection) -> Result<()> {
    tx.prepare_cached(
        "delete from tidewater_outbox where erase = 1 and known = 0 and carried = 0 \
         and status = 'pending'",
    )
    .and_then(|mut s| s.execute([]))
    .or_fault(WHAT)?;
    Ok(())
}

/// A version as it may be written over what stands here.
pub struct Admitted {
    /// The version without the columns that are not to be written.
    pub version: Version,
    mark: Option<Mark>,
}

impl Admitted {
    /// Remembers what the version left open, once it is written.
    pub fn settle(&self, tx: &Connection, table: &Table, pk: &str) -> Result<()> {
        if mark_of(tx, &table.name, pk)? == self.mark {
            return Ok(());
        }
        set_mark(tx, &table.name, pk, self.mark)
    }
}

/// What of a version may be written here; `None`: all of it, with nothing to remember.
///
/// A redact column that arrives is written only where the arriving row is FULL, and never over content
/// of a row that is not.
pub fn admit(
    tx: &Connection,
    table: &Table,
    key: &Key,
    version: &Version,
) -> Result<Option<Admitted>> {
    if table.redact().is_empty() {
        return Ok(None);
    }
    let mark = mark_of(tx, &table.name, &key.encode())?;
    let mut out = version.clone();
    let Some(row) = &mut out.row else {
        return Ok(mark.is_some().then_some(Admitted {
            version: out,
            mark: None,
        }));
    };
    let full = |row: &Row| table.level_of(row) == Privacy::Full;
    let here = app_row::read(tx, table, key).or_fault(WHAT)?;
    let mark = match (&here, mark) {
        (Some(_), Some(Mark::Absent)) | (None, _) if full(row) => None,
        (None, _) => {
            table.strip(row);
            Some(Mark::Absent)
        }
        (Some(_), Some(Mark::Absent)) => {
            table.strip(row);
            mark
        }
        (Some(here), mark) if full(here) && mark.is_none() => {
            if full(row) {
                None
            } else {
                table.strip(row);
                // Nobody in particular holds the content that a plain write in Postgres redacts.
                (version.device != "0").then_some(Mark::Absent)
            }
        }
        (Some(here), mark) => keep_original(table, here, row, mark),
    };
    Ok(Some(Admitted { version: out, mark }))
}

/// The row here holds content that never left: it stays, and is not sent on another's word.
fn keep_original(table: &Table, here: &Row, row: &mut Row, mark: Option<Mark>) -> Option<Mark> {
    if table.level_of(row) != Privacy::Full {
        table.strip(row);
        return mark;
    }
    let mut held = mark;
    row.0.retain(|(c, arriving)| {
        let content = here.get(c).filter(|_| table.redact().contains(c));
        let content = content.filter(|v| !table.column(c).is_none_or(|col| col.is_blank(v)));
        match content {
            None => true,
            Some(content) => {
                if content != arriving {
                    held = Some(Mark::Held);
                }
                false
            }
        }
    });
    held
}

/// What of a preserved original may be written back: never its redact columns over content that it
/// does not hold.
pub fn restorable(tx: &Connection, table: &Table, key: &Key, original: &Row) -> Result<Row> {
    let mut row = original.clone();
    let here = app_row::read(tx, table, key).or_fault(WHAT)?;
    let hidden = here
        .iter()
        .chain([original])
        .any(|r| table.level_of(r) != Privacy::Full);
    if hidden {
        table.strip(&mut row);
    }
    Ok(row)
}

/// Whether a row waits for its content: what arrives is then written even if it looks the same.
pub fn waits_for_content(conn: &Connection, table: &Table, pk: &str) -> Result<bool> {
    Ok(!table.redact().is_empty() && mark_of(conn, &table.name, pk)?.is_some())
}

/// What both sides of a key have in common, for a comparison: the version there, without the redact
/// columns where either side does not show them.
pub fn in_common(
    conn: &Connection,
    table: &Table,
    pk: &str,
    here: Option<&Row>,
    there: Option<Row>,
) -> Result<Option<Row>> {
    let (Some(here), Some(mut there)) = (here, there.clone()) else {
        return Ok(there);
    };
    if table.redact().is_empty() {
        return Ok(Some(there));
    }
    let hidden = [here, &there]
        .iter()
        .any(|row| table.level_of(row) != Privacy::Full);
    if hidden || mark_of(conn, &table.name, pk)?.is_some() {
        table.strip(&mut there);
    }
    Ok(Some(there))
}

/// Splits keys into those that may be asked for elsewhere, and those that stay here.
pub fn split(conn: &Connection, table: &Table, keys: Vec<Key>) -> Result<(Vec<Key>, Vec<Key>)> {
    if table.rows.is_none() {
        return Ok((keys, Vec::new()));
    }
    let (mut open, mut private) = (Vec::new(), Vec::new());
    for key in keys {
        let stays = is_private(conn, table, &key.encode())?
            || level_here(conn, table, &key)? == Some(Privacy::LocalOnly);
        if stays { &mut private } else { &mut open }.push(key);
    }
    Ok((open, private))
}

fn level_here(conn: &Connection, table: &Table, key: &Key) -> Result<Option<Privacy>> {
    let row = app_row::read(conn, table, key).or_fault(WHAT)?;
    Ok(row.map(|r| table.level_of(&r)))
}

/// Logs the rows that are not FULL, so that the next claim judges them by settings that changed.
/// Returns how many.
pub fn judge_again(tx: &Connection, table: &Table) -> Result<u64> {
    let (mut after, mut n): (Option<Vec<Value>>, u64) = (None, 0);
    loop {
        let (keys, last) = app_row::keys(tx, table, after.as_deref(), PAGE).or_fault(WHAT)?;
        if keys.is_empty() {
            return Ok(n);
        }
        after = last;
        for key in keys.iter().filter(|k| !k.has_null()) {
            let level = level_here(tx, table, key)?;
            if level.is_some_and(|l| l != Privacy::Full) {
                heal_log::append(tx, table, key)?;
                n += 1;
            }
        }
    }
}
