//! Rows that only fit together: each holds a unique value that another of them is to have.
//!
//! All or nothing for each round of it; what stands in columns that the arriving rows do not carry, and
//! what must not be overwritten, outlives the replacement.

use super::app_row;
use super::apply::Applied;
use super::fault::{OrFault, fault};
use super::install::{Late, Slice, is_constraint};
use super::private::{self, Admitted};
use crate::error::Result;
use crate::model::{Key, Row, Table};
use crate::remote::Version;
use std::collections::HashSet;

const WHAT: &str = "applying remote rows";

/// Attempts to write rows that only fit together, each without those that failed before.
const SWAPS: usize = 8;

impl Slice<'_> {
    /// Removes the local versions of the rows, then writes all of them; a row that cannot be written
    /// even so is left as it was and the others are done without it. Returns what is left. One row
    /// alone has nobody to swap with.
    pub(super) fn swap<'r>(
        &self,
        mut rows: Vec<Late<'r>>,
        done: &mut Applied,
    ) -> Result<Vec<Late<'r>>> {
        let mut left = Vec::new();
        for _ in 0..SWAPS {
            if rows.len() < 2 {
                break;
            }
            self.tx
                .execute_batch("savepoint tidewater_swap")
                .or_fault(WHAT)?;
            let mut part = Applied::default();
            let stuck = self.take_out_and_write(&rows, &mut part)?;
            if stuck.is_empty() {
                self.tx
                    .execute_batch("release tidewater_swap")
                    .or_fault(WHAT)?;
                done.corrected += part.corrected;
                done.untriggered += part.untriggered;
                for (table, key, version) in &rows {
                    self.installed(table, key, version)?;
                    done.installed += 1;
                }
                return Ok(left);
            }
            self.tx
                .execute_batch("rollback to tidewater_swap; release tidewater_swap")
                .or_fault(WHAT)?;
            let mut n = 0;
            rows.retain(|row| {
                n += 1;
                let stays = !stuck.contains(&(n - 1));
                if !stays {
                    left.push(*row);
                }
                stays
            });
        }
        left.extend(rows);
        Ok(left)
    }

    /// Places of the rows that could not be taken out or written.
    fn take_out_and_write(&self, rows: &[Late<'_>], done: &mut Applied) -> Result<HashSet<usize>> {
        let gone = Version {
            change: String::new(),
            device: String::new(),
            row: None,
        };
        let mut stuck = HashSet::new();
        let mut stays = Vec::new();
        for (table, key, own) in rows {
            stays.push(self.stays(self.table(table)?, key, own)?);
        }
        for out in [true, false] {
            for (i, (table, key, own)) in rows.iter().enumerate() {
                if stuck.contains(&i) {
                    continue;
                }
                let (table, (admitted, kept)) = (self.table(table)?, &stays[i]);
                let own = admitted.as_ref().map_or(*own, |a| &a.version);
                let mut wrote =
                    self.write_whole(table, key, if out { &gone } else { own }, done)?;
                if !out && wrote.is_ok() {
                    wrote = self.put_back(table, key, kept);
                    if let Some(a) = admitted {
                        a.settle(self.tx, table, &key.encode())?;
                    }
                }
                match wrote {
                    Ok(()) => {}
                    Err(e) if is_constraint(&e) => {
                        stuck.insert(i);
                    }
                    Err(e) => return Err(fault(e, WHAT)),
                }
            }
        }
        Ok(stuck)
    }

    /// What of the row here outlives its replacement: the part of the version that may be written, and
    /// what stands in columns that it does not carry.
    fn stays(&self, table: &Table, key: &Key, own: &Version) -> Result<(Option<Admitted>, Row)> {
        let admitted = private::admit(self.tx, table, key, own)?;
        let version = admitted.as_ref().map_or(own, |a| &a.version);
        let Some(row) = &version.row else {
            return Ok((admitted, Row::default()));
        };
        let others: Vec<&str> = table
            .columns
            .iter()
            .filter(|c| !c.generated && row.get(&c.name).is_none())
            .map(|c| c.name.as_str())
            .collect();
        let kept = if others.is_empty() {
            None
        } else {
            app_row::read_columns(self.tx, table, key, &others).or_fault(WHAT)?
        };
        Ok((admitted, kept.unwrap_or_default()))
    }

    fn put_back(&self, table: &Table, key: &Key, kept: &Row) -> rusqlite::Result<()> {
        if kept.0.is_empty() {
            return Ok(());
        }
        let columns: Vec<_> = kept.0.iter().map(|(c, v)| (c.as_str(), v)).collect();
        self.without_triggers(|| app_row::update(self.tx, table, key, &columns))
    }
}
