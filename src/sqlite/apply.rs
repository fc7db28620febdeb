//! What happens when remote rows arrive (PROTOCOL section 5, APPLY and FETCH).
//!
//! One IMMEDIATE transaction per slice holds the dirty check, the guard, the rows, the notes and the
//! position together; a crash between two slices repeats nothing and skips nothing. A row with an unsent
//! local change is never overwritten: it leaves a note. A row that cannot be applied leaves a note and
//! its error in the inbox, and blocks nothing.

use super::barred::Barred;
use super::conflicts;
use super::fault::OrFault;
use super::inbox;
use super::install::Slice;
use super::local::Local;
use super::notes;
use super::state;
use crate::error::Result;
use crate::failpoint;
use crate::model::Token;
use crate::remote::{ConflictRecord, FeedRow, Fetched, Page, Version};
use crate::world;
use rusqlite::Connection;
use std::time::Duration;

const WHAT: &str = "applying remote rows";

/// How an apply is sliced.
#[derive(Debug, Clone, Copy)]
pub struct Slicing {
    /// A slice ends after this time, so that the app never waits long.
    pub time: Duration,
    /// And after so many rows.
    pub rows: usize,
    /// Whether applied rows leave a history entry; `clone` has no use for it.
    pub history: bool,
    /// Now, ms since 1970.
    pub now_ms: i64,
}

/// What an apply did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Rows installed or deleted.
    pub installed: u64,
    /// Rows that left a note because the row is dirty here.
    pub noted: u64,
    /// Rows that could not be applied.
    pub failed: u64,
    /// Conflicts that were new to this device.
    pub conflicts: Vec<ConflictRecord>,
    /// Rows that the app's triggers changed, and that are put right.
    pub corrected: u64,
    /// Rows that were written without the app's triggers, which cannot run outside the app.
    pub untriggered: u64,
    /// The page was stale and nothing more of it was used; ask again.
    pub stale: bool,
    /// The key log is long: claim first, then ask again.
    pub claim_first: bool,
}

impl Applied {
    fn add(&mut self, part: Applied) {
        self.installed += part.installed;
        self.noted += part.noted;
        self.failed += part.failed;
        self.corrected += part.corrected;
        self.untriggered += part.untriggered;
        self.conflicts.extend(part.conflicts);
    }
}

/// Applies a page that was asked for with `asked` at epoch `epoch`.
pub fn page(
    local: &mut Local,
    page: &Page,
    asked: &Token,
    epoch: i64,
    slicing: Slicing,
) -> Result<Applied> {
    let barred = std::mem::take(&mut local.barred);
    let done = page_beside(local, &barred, page, asked, epoch, slicing);
    local.barred = barred;
    done
}

fn page_beside(
    local: &mut Local,
    barred: &Barred,
    page: &Page,
    asked: &Token,
    epoch: i64,
    slicing: Slicing,
) -> Result<Applied> {
    let mut done = Applied::default();
    let target = page
        .next
        .target
        .clone()
        .unwrap_or_else(|| page.next.last.clone());
    let mut expected = asked.clone();
    let too_early = failpoint::is_planted("cursor_before_apply");
    if too_early {
        let tx = local.begin()?;
        state::set_token(&tx, &page.next)?;
        tx.commit().or_fault(WHAT)?;
        expected = page.next.clone();
    }
    let mut rest: &[FeedRow] = &page.rows;
    let mut most = slicing.rows;
    loop {
        barred.look(&local.conn)?;
        if crate::failpoint::is_planted("guard_survives_kill") {
            super::aside::guard(&local.conn, true)?;
        }
        let tx = local.begin()?;
        if state::epoch(&tx)? != epoch || state::token(&tx)? != expected {
            done.stale = true;
            return Ok(done);
        }
        let before = notes::intern(&tx, &expected)?;
        let Some(slice) = Slice::begin(&tx, barred, slicing, Some(before))? else {
            done.claim_first = true;
            return Ok(done);
        };
        let mut part = Applied::default();
        let n = match fill(&tx, &slice, rest, most, before, slicing, &mut part) {
            Ok(n) => n,
            Err(e) => {
                let (table, pk) = barred.take_last().ok_or(e)?;
                // What stood before it is done and committed first, so that it is done only twice.
                most = rest
                    .iter()
                    .position(|r| r.table == table && r.key.encode() == pk)
                    .filter(|n| *n > 0)
                    .unwrap_or(slicing.rows);
                continue;
            }
        };
        most = slicing.rows;
        let (now, later) = rest.split_at(n);
        rest = later;
        let last = rest.is_empty();
        let token = match now.last() {
            _ if last => page.next.clone(),
            Some(row) if !too_early => Token {
                last: asked.last.clone(),
                target: Some(target.clone()),
                pos: Some(row.pos.clone()),
            },
            _ => page.next.clone(),
        };
        if last {
            for c in &page.conflicts {
                if conflicts::store(&tx, c)? {
                    part.conflicts.push(c.clone());
                }
            }
            state::set_number(&tx, "last_pull_at", slicing.now_ms)?;
            let lsn = i64::try_from(page.head.insert_lsn).unwrap_or(0);
            state::set_number(&tx, "insert_lsn", lsn)?;
        }
        state::set_token(&tx, &token)?;
        expected = token;
        slice.end()?;
        failpoint::hit("apply_before_commit");
        tx.commit().or_fault(WHAT)?;
        failpoint::hit("apply_after_commit");
        barred.told();
        done.add(part);
        if last {
            return Ok(done);
        }
    }
}

/// Installs rows from the beginning of `rest` until the time is over; returns how many it went through.
fn fill(
    tx: &Connection,
    slice: &Slice<'_>,
    rest: &[FeedRow],
    most: usize,
    before: i64,
    slicing: Slicing,
    done: &mut Applied,
) -> Result<usize> {
    let started = world::instant();
    let mut late = Vec::new();
    let mut n = 0;
    while n < rest.len() && n < most && (n == 0 || world::instant() - started < slicing.time) {
        let row = &rest[n];
        n += 1;
        if slice.is_dirty(&row.table, &row.key)? {
            if !failpoint::is_planted("no_note") {
                notes::leave(tx, &row.table, &row.key.encode(), before)?;
            }
            done.noted += 1;
        } else if let Some((why, _)) = slice.is_barred(&row.table, &row.key, &row.version) {
            let pk = row.key.encode();
            notes::leave(tx, &row.table, &pk, before)?;
            inbox::failed(tx, &row.table, &pk, &row.version, &why, slicing.now_ms)?;
            done.failed += 1;
        } else if !slice.install(&row.table, &row.key, &row.version, done)? {
            late.push((row.table.as_str(), &row.key, &row.version));
        }
    }
    slice.install_late(&late, done, |table, pk| notes::leave(tx, table, pk, before))?;
    Ok(n)
}

/// Applies rows that were fetched by key for `table`; notes go with what is settled.
pub fn fetched(
    local: &mut Local,
    table: &str,
    rows: &[Fetched],
    epoch: i64,
    slicing: Slicing,
) -> Result<Applied> {
    let barred = std::mem::take(&mut local.barred);
    let done = loop {
        let done = fetched_beside(local, &barred, table, rows, epoch, slicing);
        // Once more without the row that ended the transaction: the others may only fit together.
        if done.is_err() && barred.take_last().is_some() {
            continue;
        }
        break done;
    };
    local.barred = barred;
    done
}

fn fetched_beside(
    local: &mut Local,
    barred: &Barred,
    table: &str,
    rows: &[Fetched],
    epoch: i64,
    slicing: Slicing,
) -> Result<Applied> {
    let mut done = Applied::default();
    barred.look(&local.conn)?;
    let tx = local.begin()?;
    if state::epoch(&tx)? != epoch {
        done.stale = true;
        return Ok(done);
    }
    // Rows by key come one by one, after all others: what is noted again here would never come to rest.
    let Some(slice) = Slice::begin(&tx, barred, slicing, None)? else {
        done.claim_first = true;
        return Ok(done);
    };
    let gone = Version {
        change: String::new(),
        device: String::new(),
        row: None,
    };
    let mut late = Vec::new();
    for f in rows {
        let pk = f.key.encode();
        if notes::find(&tx, table, &pk)?.is_none() || slice.is_dirty(table, &f.key)? {
            continue;
        }
        if !f.seen {
            // Newer than the token: the feed brings it.
            notes::remove(&tx, table, &pk)?;
            inbox::settle(&tx, table, &pk)?;
            continue;
        }
        let version = f.version.as_ref().unwrap_or(&gone);
        if slice.holds(table, &f.key, version)? {
            notes::remove(&tx, table, &pk)?;
            inbox::settle(&tx, table, &pk)?;
        } else if let Some((why, fresh)) = slice.is_barred(table, &f.key, version) {
            if fresh || !inbox::is_failed(&tx, table, &pk)? {
                inbox::failed(&tx, table, &pk, version, &why, slicing.now_ms)?;
                done.failed += 1;
            }
        } else if !slice.install(table, &f.key, version, &mut done)? {
            late.push((table, &f.key, version));
        }
    }
    slice.install_late(&late, &mut done, |_, _| Ok(()))?;
    slice.end()?;
    tx.commit().or_fault(WHAT)?;
    failpoint::hit("fetch_applied");
    barred.told();
    Ok(done)
}
