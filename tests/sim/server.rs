//! The server in memory: rows, tombstones, ledger and conflicts under transactions and snapshots, a log
//! that is flushed late, backups, a crash.
//!
//! It keeps the rules of `src/postgres`, one level up: a push is judged in one step (`push`), but its
//! transaction may stay open, hold its locks and its id, and commit or roll back later. `conformance`
//! holds it against PostgreSQL. What a device never sees, such as which version came last under a key, is
//! kept beside for the oracle.

use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use tidewater::model::{ChangeKey, Key, Kind, Policy, Row, Snapshot, Table, Token};
use tidewater::remote::{Head, Identity, Outcome, ServerState};

/// A table's number and a key in canonical text.
pub type Cell = (i32, String);

#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    pub key: Key,
    /// The content; `None` for a tombstone.
    pub row: Option<Row>,
    pub change: String,
    pub xid: u64,
    pub device: String,
}

impl Version {
    pub fn tail(&self) -> &str {
        tail(&self.change)
    }
}

/// The identity of a change key.
pub fn tail(change: &str) -> &str {
    &change[change.len().min(10)..]
}

#[derive(Debug, Clone)]
pub struct Conflict {
    pub id: String,
    pub table: String,
    pub key: Key,
    pub kind: Kind,
    pub policy: Policy,
    pub pushed_won: bool,
    pub pushed_device: String,
    pub server_device: String,
    pub pushed_change: String,
    pub server_change: String,
    pub pushed_row: Option<Row>,
    pub server_row: Option<Row>,
    pub at: i64,
    pub xid: u64,
}

impl Conflict {
    pub fn loser(&self) -> &str {
        tail(if self.pushed_won {
            &self.server_change
        } else {
            &self.pushed_change
        })
    }

    pub fn winner(&self) -> &str {
        tail(if self.pushed_won {
            &self.pushed_change
        } else {
            &self.server_change
        })
    }
}

/// A device's row in the ledger.
#[derive(Debug, Clone)]
pub struct Account {
    pub push_seq: i64,
    pub last_batch: Option<String>,
    /// By number: the batch's key and what is not plain `applied`, by tail.
    pub outcomes: BTreeMap<i64, (String, BTreeMap<String, Outcome>)>,
    pub cursor: Option<Snapshot>,
    pub last_seen: i64,
    pub state: &'static str,
}

/// What a backup holds.
#[derive(Debug, Clone)]
pub struct Data {
    pub next_xid: u64,
    pub lsn: u64,
    pub tables: BTreeMap<String, (i32, i64)>,
    pub rows: BTreeMap<Cell, Version>,
    pub graves: BTreeMap<Cell, Version>,
    pub conflicts: Vec<Conflict>,
    pub ledger: BTreeMap<String, Account>,
    pub instance: String,
    pub instances: Vec<String>,
    pub gc_xid: u64,
    pub collected_at: Option<i64>,
    /// The tail of the last version under each key, for the oracle.
    pub last: BTreeMap<Cell, String>,
}

/// A transaction and the life of the server that it belongs to.
pub type Handle = (u64, u32);

/// A transaction under way.
#[derive(Debug, Clone)]
pub struct Txn {
    pub xid: u64,
    /// What stands under a key when it commits: a row, a tombstone, or neither.
    pub rows: BTreeMap<Cell, Option<Version>>,
    pub graves: BTreeMap<Cell, Option<Version>>,
    pub locks: BTreeSet<Cell>,
    pub conflicts: Vec<Conflict>,
    pub account: Option<(String, Account)>,
    pub last: BTreeMap<Cell, String>,
    /// Tails whose content stood there already, and of deletes that found nothing.
    pub same: Vec<String>,
    pub idle: Vec<String>,
    /// Whether its commit waits for the disk.
    pub synchronous: bool,
}

pub struct Server {
    pub data: Data,
    /// What a crash leaves; `None` where everything is on disk.
    unflushed: Option<Data>,
    pub open: BTreeMap<u64, Txn>,
    pub timeline: u32,
    /// How often it came back from the dead: a handle of before is worth nothing.
    pub life: u32,
    pub now: i64,
    pub rng: Rng,
    pub bug: &'static str,
    /// For the oracle: never rolled back.
    pub ever_conflicts: Vec<Conflict>,
    pub same: BTreeSet<String>,
    pub idle: BTreeSet<String>,
    /// What it did, for whoever reads a trace.
    pub log: Vec<String>,
}

impl Server {
    pub fn new(seed: u64, bug: &'static str) -> Self {
        Server {
            data: Data {
                next_xid: 700,
                lsn: 1_000,
                tables: BTreeMap::new(),
                rows: BTreeMap::new(),
                graves: BTreeMap::new(),
                conflicts: Vec::new(),
                ledger: BTreeMap::new(),
                instance: "first".into(),
                instances: Vec::new(),
                gc_xid: 0,
                collected_at: None,
                last: BTreeMap::new(),
            },
            unflushed: None,
            open: BTreeMap::new(),
            timeline: 1,
            life: 0,
            now: 1_700_000_000_000,
            rng: Rng::with_seed(seed),
            bug,
            ever_conflicts: Vec::new(),
            same: BTreeSet::new(),
            idle: BTreeSet::new(),
            log: Vec::new(),
        }
    }

    pub fn identity(&self) -> Identity {
        Identity {
            instance: self.data.instance.clone(),
            table_oid: 16_400,
            system_identifier: "7".into(),
            timeline: format!("{:08}", self.timeline),
            database_oid: 5,
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        let next = self.data.next_xid;
        let open: Vec<String> = self.open.keys().map(u64::to_string).collect();
        let least = self.open.keys().next().copied().unwrap_or(next);
        Snapshot(format!("{least}:{next}:{}", open.join(",")))
    }

    pub fn is_known(&self, state: &ServerState) -> bool {
        state.identity == self.identity()
            && self.data.next_xid >= state.xmax
            && self.data.lsn >= state.insert_lsn
    }

    pub fn head(&self, device: &str) -> Head {
        let account = self.data.ledger.get(device);
        Head {
            identity: self.identity(),
            push_seq: account.map_or(-1, |a| a.push_seq),
            last_batch: account.and_then(|a| a.last_batch.clone()),
            gc_xid: self.data.gc_xid,
            snapshot: self.snapshot(),
            flushed: self.unflushed.is_none(),
            insert_lsn: self.data.lsn,
            now_ms: self.now,
            server_version: "15.18".into(),
            epochs: self.data.tables.values().copied().collect(),
        }
    }

    /// The ten characters of the server's time.
    pub fn time10(&self) -> String {
        ChangeKey::new(self.now, 0).time10().to_owned()
    }

    /// A change key that no device made.
    pub fn change(&mut self) -> String {
        let random = self.rng.u128(..);
        ChangeKey::new(self.now, random).to_string()
    }

    pub fn begin(&mut self) -> Txn {
        let xid = self.data.next_xid;
        self.data.next_xid += 1;
        let txn = Txn {
            xid,
            rows: BTreeMap::new(),
            graves: BTreeMap::new(),
            locks: BTreeSet::new(),
            conflicts: Vec::new(),
            account: None,
            last: BTreeMap::new(),
            same: Vec::new(),
            idle: Vec::new(),
            synchronous: true,
        };
        self.open.insert(xid, txn.clone());
        txn
    }

    /// Keeps what a transaction has done so far.
    pub fn keep(&mut self, txn: Txn) {
        self.open.insert(txn.xid, txn);
    }

    pub fn is_locked(&self, cell: &Cell, but: Option<u64>) -> bool {
        self.open
            .values()
            .any(|t| Some(t.xid) != but && t.locks.contains(cell))
    }

    /// Whether a push of the device is in progress.
    pub fn pushes(&self, device: &str) -> bool {
        self.open
            .values()
            .any(|t| t.account.as_ref().is_some_and(|(d, _)| d == device))
    }

    /// The row under a key as the transaction sees it.
    pub fn row(&self, txn: &Txn, cell: &Cell) -> Option<Version> {
        match txn.rows.get(cell) {
            Some(own) => own.clone(),
            None => self.data.rows.get(cell).cloned(),
        }
    }

    pub fn grave(&self, txn: &Txn, cell: &Cell) -> Option<Version> {
        match txn.graves.get(cell) {
            Some(own) => own.clone(),
            None => self.data.graves.get(cell).cloned(),
        }
    }

    fn commit(&mut self, xid: u64) {
        let Some(txn) = self.open.remove(&xid) else {
            return;
        };
        if !txn.synchronous && self.unflushed.is_none() {
            self.unflushed = Some(self.data.clone());
        }
        for (cell, row) in txn.rows {
            set(&mut self.data.rows, cell, row);
        }
        for (cell, grave) in txn.graves {
            set(&mut self.data.graves, cell, grave);
        }
        self.data.last.extend(txn.last);
        self.ever_conflicts.extend(txn.conflicts.iter().cloned());
        self.data.conflicts.extend(txn.conflicts);
        self.same.extend(txn.same);
        self.idle.extend(txn.idle);
        if let Some((device, account)) = txn.account {
            self.data.ledger.insert(device, account);
        }
        self.data.lsn += 10;
        if txn.synchronous {
            self.flush();
        }
    }

    /// Ends a transaction of this life or an earlier one.
    pub fn end(&mut self, handle: Handle, commits: bool) {
        let (xid, life) = handle;
        if life != self.life {
            return;
        }
        if commits {
            self.commit(xid);
        } else {
            self.open.remove(&xid);
        }
    }

    pub fn flush(&mut self) {
        self.data.lsn += 1;
        self.unflushed = None;
    }

    /// The process ends and comes back: what was not on disk is gone, and its ids are handed out again.
    pub fn crash(&mut self) {
        self.open.clear();
        self.life += 1;
        if let Some(data) = self.unflushed.take() {
            // Ids of transactions that had begun when the log was flushed last are on disk.
            self.data = data;
        }
    }

    /// An older state takes the place of this one, on a timeline of its own.
    pub fn restore(&mut self, data: Data) {
        self.open.clear();
        self.life += 1;
        self.unflushed = None;
        self.data = data;
        self.timeline += 1;
    }

    /// What is recorded once: a conflict by its loser.
    pub fn is_recorded(&self, txn: &Txn, table: &str, key: &Key, loser: &str) -> bool {
        self.data
            .conflicts
            .iter()
            .chain(&txn.conflicts)
            .any(|c| c.table == table && c.key == *key && c.loser() == loser)
    }

    /// Old tombstones go (`src/postgres/collect.rs`).
    pub fn collect(&mut self, device: &str, days: u32, every: i64) -> u64 {
        if self
            .data
            .collected_at
            .is_some_and(|at| at > self.now - every)
        {
            return 0;
        }
        self.data.collected_at = Some(self.now);
        let horizon_at = self.now - i64::from(days) * 86_400_000;
        for (id, a) in &mut self.data.ledger {
            if a.state == "active" && id != device && a.last_seen < horizon_at {
                a.state = "expired";
            }
        }
        let mut horizon = self.snapshot().xmin();
        if self.bug != "collected_early" {
            for a in self.data.ledger.values().filter(|a| a.state == "active") {
                horizon = horizon.min(a.cursor.as_ref().map_or(0, Snapshot::xmin));
            }
        }
        let old = ChangeKey::new(horizon_at, 0);
        let early = self.bug == "collected_early";
        let gone: Vec<Cell> = self
            .data
            .graves
            .iter()
            .filter(|(_, g)| g.xid < horizon && (early || g.change[..10] < *old.time10()))
            .map(|(cell, _)| cell.clone())
            .collect();
        for cell in &gone {
            if let Some(g) = self.data.graves.remove(cell)
                && !early
            {
                // Whoever inserts a row that it never knew needs to know nothing of this.
                self.idle.insert(g.tail().to_owned());
                self.data.gc_xid = self.data.gc_xid.max(g.xid + 1);
            }
        }
        gone.len() as u64
    }
}

fn set(map: &mut BTreeMap<Cell, Version>, cell: Cell, to: Option<Version>) {
    match to {
        Some(v) => map.insert(cell, v),
        None => map.remove(&cell),
    };
}

/// Whether a token has seen what stands in a stream under a transaction and a place.
pub fn seen(token: &Token, stream: i32, xid: u64, place: &str) -> bool {
    if token.last.sees(xid) {
        return true;
    }
    let (Some(target), Some(pos)) = (&token.target, &token.pos) else {
        return false;
    };
    target.sees(xid)
        && (pos.stream > stream
            || (pos.stream == stream && (xid, place) <= (pos.xid, &*place_of(pos))))
}

/// A position's place in its stream as text that orders like the stream.
pub fn place_of(pos: &tidewater::model::Position) -> String {
    Key(pos.key.clone()).encode()
}

/// The place of a tombstone.
pub fn grave_place(cell: &Cell) -> String {
    place_of(&tidewater::model::Position::tombstone(cell.0, 0, &cell.1))
}

/// The mirror of a table.
pub fn mirror(id: i32, epoch: i64, table: &Table) -> tidewater::remote::Mirror {
    tidewater::remote::Mirror {
        id,
        epoch,
        wires: table
            .columns
            .iter()
            .filter(|c| !c.generated)
            .map(|c| (c.name.clone(), c.wire()))
            .collect(),
        forms: BTreeMap::new(),
        limits: BTreeMap::new(),
        has_foreign_keys: false,
    }
}
