//! Rows that arrived and cannot be tried beside others: a trigger of the app answers them with
//! RAISE(ROLLBACK), which ends the whole transaction and takes every row of the slice with it.
//!
//! The slice is done again without such a row, which then waits in the inbox like any other that cannot
//! be applied. Kept in memory only, and forgotten as soon as anybody else commits to the file: what the
//! app changed may be the cure, so the row is tried again.

use super::fault::OrFault;
use crate::error::Result;
use crate::model::Key;
use crate::remote::Version;
use rusqlite::Connection;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// Why a row was barred.
struct Bar {
    /// The change that was tried; empty where the row itself had to make room.
    change: String,
    message: String,
    /// Whether the inbox does not hold it yet.
    fresh: bool,
}

/// The rows that end transactions.
#[derive(Default)]
pub struct Barred {
    rows: RefCell<HashMap<(String, String), Bar>>,
    /// The row that ended the last transaction, until somebody asks.
    last: RefCell<Option<(String, String)>>,
    data_version: Cell<i64>,
}

impl Barred {
    /// Forgets everything where another connection has committed since.
    pub fn look(&self, conn: &Connection) -> Result<()> {
        let version: i64 = conn
            .query_row("pragma data_version", [], |r| r.get(0))
            .or_fault("looking for changes")?;
        if self.data_version.replace(version) != version {
            self.rows.borrow_mut().clear();
        }
        Ok(())
    }

    /// Bars a row for this version of it.
    pub fn bar(&self, table: &str, pk: &str, version: &Version, message: String) {
        let place = (table.to_owned(), pk.to_owned());
        let bar = Bar {
            change: version.change.clone(),
            message,
            fresh: true,
        };
        self.rows.borrow_mut().insert(place.clone(), bar);
        *self.last.borrow_mut() = Some(place);
    }

    /// The row that ended the transaction just now.
    pub fn take_last(&self) -> Option<(String, String)> {
        self.last.borrow_mut().take()
    }

    /// Why this version of a row must not be tried, and whether the inbox has to be told.
    pub fn find(&self, table: &str, key: &Key, version: &Version) -> Option<(String, bool)> {
        let rows = self.rows.borrow();
        if rows.is_empty() {
            return None;
        }
        rows.get(&(table.to_owned(), key.encode()))
            .filter(|b| b.change.is_empty() || b.change == version.change)
            .map(|b| (b.message.clone(), b.fresh))
    }

    /// What was told to the inbox is committed.
    pub fn told(&self) {
        for bar in self.rows.borrow_mut().values_mut() {
            bar.fresh = false;
        }
    }
}
