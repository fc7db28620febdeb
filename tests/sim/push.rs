//! One batch judged, as `src/postgres/{push,rival,ledger}.rs` judge it.

use super::server::{Account, Cell, Conflict, Handle, Server, Txn, Version, grave_place, seen};
use tidewater::error::{Code, Error, Result};
use tidewater::model::{ChangeKey, Kind, Op, Policy, Side, Stamp, TOMBSTONES, decide, kind_of};
use tidewater::remote::{Batch, Item, Outcome, PushAnswer, Refusal, Tracked};

/// What a push came to before its commit.
pub enum Judged {
    /// Answered without a transaction.
    Answer(PushAnswer),
    /// Another transaction holds what it needs.
    Blocked,
    /// A transaction that is open; the answer holds once it has committed.
    Open(Handle, PushAnswer),
}

pub fn went_back(why: &str) -> Error {
    Error::new(Code::RemoteWentBack, why, "reconcile")
}

/// A row that a constraint of the server refuses.
pub fn is_bad(item: &Item) -> bool {
    use tidewater::model::Value;
    matches!(item.row.get("v"), Some(Value::Text(t)) if t.starts_with("bad"))
}

/// Why the ledger does not take a batch; `None` where it does.
pub fn settled(server: &Server, batch: &Batch) -> Result<Option<PushAnswer>> {
    if server.bug == "no_ledger" {
        return Ok(None);
    }
    let account = server.data.ledger.get(&batch.device);
    let known = server.is_known(&batch.server);
    let oldest = batch
        .items
        .iter()
        .filter(|i| i.known)
        .filter_map(|i| i.base.last.parts().map(|p| p.0))
        .min()
        .unwrap_or(u64::MAX);
    let fits = account.is_some_and(|a| a.push_seq == batch.seq && a.last_batch == batch.prev);
    if fits && known && server.data.gc_xid <= oldest {
        return Ok(None);
    }
    if !known {
        return Err(went_back("another server, or behind"));
    }
    if account.map_or(0, |a| a.push_seq) < batch.confirmed {
        return Err(went_back("it has forgotten batches"));
    }
    let Some(account) = account else {
        return Ok(Some(PushAnswer::Mismatch));
    };
    if let Some((key, exceptions)) = account.outcomes.get(&batch.seq)
        && *key == batch.key
    {
        let outcomes = batch
            .items
            .iter()
            .map(|i| {
                let stored = exceptions.get(i.change.tail()).cloned();
                stored.unwrap_or(Outcome::Applied)
            })
            .collect();
        return Ok(Some(PushAnswer::Done {
            outcomes,
            conflicts: 0,
        }));
    }
    Ok(Some(if batch.seq > account.push_seq {
        PushAnswer::Behind
    } else if fits {
        PushAnswer::Gone
    } else {
        PushAnswer::Mismatch
    }))
}

pub fn push(server: &mut Server, batch: &Batch, tables: &[Tracked]) -> Result<Judged> {
    if server.pushes(&batch.device) {
        return Ok(Judged::Blocked);
    }
    if let Some(answer) = settled(server, batch)? {
        return Ok(Judged::Answer(answer));
    }
    let mut order: Vec<(u8, i32, String, usize)> = Vec::new();
    for (n, item) in batch.items.iter().enumerate() {
        let id = id_of(tables, item)?;
        let first = u8::from(item.op == Op::Upsert);
        order.push((first, id, item.key.encode(), n));
    }
    order.sort();
    if order
        .iter()
        .any(|(_, id, pk, _)| server.is_locked(&(*id, pk.clone()), None))
    {
        return Ok(Judged::Blocked);
    }
    let mut txn = server.begin();
    let mut outcomes = vec![Outcome::Applied; batch.items.len()];
    let mut conflicts = 0;
    let refuses = batch.items.iter().any(is_bad);
    for (_, id, pk, n) in order {
        let item = &batch.items[n];
        let cell = (id, pk);
        txn.locks.insert(cell.clone());
        if is_bad(item) {
            outcomes[n] = Outcome::Refused(Refusal {
                sqlstate: "23514".into(),
                message: "a check was violated".into(),
                later: false,
            });
            continue;
        }
        if refuses && server.bug == "bisection_drops" {
            continue;
        }
        let mut judge = Judge {
            server,
            txn: &mut txn,
            batch,
            item,
            cell,
            conflicts: 0,
        };
        outcomes[n] = judge.apply();
        conflicts += judge.conflicts;
    }
    if batch.whole && outcomes.iter().any(|o| *o != Outcome::Applied) {
        server.open.remove(&txn.xid);
        return Ok(Judged::Answer(PushAnswer::Apart));
    }
    let plain = outcomes.iter().all(|o| *o == Outcome::Applied) && conflicts == 0;
    if batch.whole && !plain {
        server.end((txn.xid, server.life), false);
        return Ok(Judged::Answer(PushAnswer::Apart));
    }
    let exceptions = batch
        .items
        .iter()
        .zip(&outcomes)
        .filter(|(_, o)| **o != Outcome::Applied)
        .map(|(i, o)| (i.change.tail().to_owned(), o.clone()))
        .collect();
    let before = server.data.ledger.get(&batch.device);
    let mut kept = before.map(|a| a.outcomes.clone()).unwrap_or_default();
    kept.retain(|seq, _| *seq >= batch.confirmed);
    if server.bug != "no_window" {
        kept.insert(batch.seq, (batch.key.clone(), exceptions));
    }
    let state = before.map_or("active", |a| a.state);
    let account = Account {
        push_seq: batch.seq + 1,
        last_batch: Some(batch.key.clone()),
        outcomes: kept,
        cursor: Some(batch.cursor.clone()),
        last_seen: server.now,
        state: if ["expired", "retired"].contains(&state) {
            "active"
        } else {
            state
        },
    };
    txn.account = Some((batch.device.clone(), account));
    for (i, o) in batch.items.iter().zip(&outcomes) {
        let (tail, key, mark) = (i.change.tail(), i.key.encode(), i.row.get("v"));
        server.log.push(format!(
            "  push {} of {}: {} {key} {mark:?} {tail} base {:?} seen {:?}: {o:?}",
            txn.xid, batch.device, i.table, i.base.last.0, i.seen
        ));
    }
    let handle = (txn.xid, server.life);
    server.keep(txn);
    Ok(Judged::Open(
        handle,
        PushAnswer::Done {
            outcomes,
            conflicts,
        },
    ))
}

fn id_of(tables: &[Tracked], item: &Item) -> Result<i32> {
    tables
        .iter()
        .find(|t| t.table.name == item.table)
        .map(|t| t.mirror.id)
        .ok_or_else(|| Error::new(Code::SchemasDiffer, "no mirror", "look again"))
}

struct Judge<'a> {
    server: &'a mut Server,
    txn: &'a mut Txn,
    batch: &'a Batch,
    item: &'a Item,
    cell: Cell,
    conflicts: u32,
}

impl Judge<'_> {
    fn apply(&mut self) -> Outcome {
        let row = self.server.row(self.txn, &self.cell);
        let grave = self.server.grave(self.txn, &self.cell);
        let plain = match &row {
            Some(there) => {
                self.is_seen(there)
                    && (self.item.op == Op::Delete || there.tail() != self.item.change.tail())
            }
            None => self.item.op == Op::Upsert,
        };
        if plain {
            let Some(grave) = grave.filter(|_| self.item.op == Op::Upsert) else {
                self.write(row.as_ref());
                return Outcome::Applied;
            };
            if !self.is_seen(&grave) && !self.was_seen(&grave) {
                if self.wins(&grave) {
                    self.record(&grave, true);
                } else {
                    self.record(&grave, false);
                    return Outcome::Lost;
                }
            }
            self.write(row.as_ref());
            return Outcome::Applied;
        }
        self.meet(row, grave)
    }

    /// See `Rivals::meet`.
    fn meet(&mut self, row: Option<Version>, grave: Option<Version>) -> Outcome {
        let Some(rival) = row.clone().or(grave) else {
            if self.item.bury {
                let grave = self.version(None);
                self.bury(grave);
            } else {
                self.txn.idle.push(self.item.change.tail().to_owned());
            }
            return Outcome::Applied;
        };
        if rival.tail() == self.item.change.tail() {
            return Outcome::Applied;
        }
        if self.is_seen(&rival) || self.was_seen(&rival) {
            if rival.row.is_none() && self.item.op == Op::Delete {
                self.txn.idle.push(self.item.change.tail().to_owned());
                return Outcome::Applied;
            }
            self.write(row.as_ref());
            return Outcome::Applied;
        }
        let equal = match (&rival.row, self.item.op) {
            (None, Op::Delete) => true,
            (Some(r), Op::Upsert) => self.item.row.agrees_with(r),
            _ => false,
        };
        if equal {
            self.txn.same.push(self.item.change.tail().to_owned());
            return Outcome::Same;
        }
        let wins = self.wins(&rival);
        self.record(&rival, wins);
        if wins {
            self.write(row.as_ref());
            Outcome::Applied
        } else {
            Outcome::Lost
        }
    }

    fn is_seen(&self, there: &Version) -> bool {
        let (stream, place) = match there.row {
            Some(_) => (self.cell.0, self.cell.1.clone()),
            None => (TOMBSTONES, grave_place(&self.cell)),
        };
        there.device == self.batch.device || seen(&self.item.base, stream, there.xid, &place)
    }

    /// By a former identity of the file.
    fn was_seen(&self, there: &Version) -> bool {
        self.item.seen.iter().any(|t| t == there.tail())
    }

    fn wins(&self, rival: &Version) -> bool {
        let pushed = Stamp::new(&self.item.change, &self.batch.device, &self.server.time10());
        let there = Stamp {
            time10: rival.change[..10].to_owned(),
            tail: rival.tail().to_owned(),
            device: rival.device.clone(),
        };
        let policy = if self.item.seen.is_empty() {
            self.item.policy
        } else {
            Policy::LastWriteWins
        };
        decide(policy, &pushed, &there) == Side::Local
    }

    /// The pushed version, its time cut to the server's now and no older than what it replaces.
    fn version(&self, replaced: Option<&Version>) -> Version {
        let now = self.server.time10();
        let own = self.item.change.time10().min(&now).to_owned();
        let time = replaced.map_or(own.clone(), |r| own.max(r.change[..10].to_owned()));
        Version {
            key: self.item.key.clone(),
            row: (self.item.op == Op::Upsert).then(|| self.item.row.clone()),
            change: format!("{time}{}", self.item.change.tail()),
            xid: self.txn.xid,
            device: self.batch.device.clone(),
        }
    }

    fn write(&mut self, replaced: Option<&Version>) {
        let version = self.version(replaced);
        match self.item.op {
            Op::Upsert => {
                let last = version.tail().to_owned();
                self.txn.last.insert(self.cell.clone(), last);
                self.txn.rows.insert(self.cell.clone(), Some(version));
                self.txn.graves.insert(self.cell.clone(), None);
            }
            Op::Delete => self.bury(version),
        }
    }

    fn bury(&mut self, grave: Version) {
        let last = grave.tail().to_owned();
        self.txn.last.insert(self.cell.clone(), last);
        self.txn.rows.insert(self.cell.clone(), None);
        self.txn.graves.insert(self.cell.clone(), Some(grave));
    }

    fn record(&mut self, rival: &Version, pushed_won: bool) {
        let op = if rival.row.is_some() {
            Op::Upsert
        } else {
            Op::Delete
        };
        let kind: Kind = kind_of(self.item.op, self.item.known, op);
        let loser = if pushed_won {
            rival.tail()
        } else {
            self.item.change.tail()
        };
        let (table, key) = (&self.item.table, &self.item.key);
        if self.server.is_recorded(self.txn, table, key, loser) {
            return;
        }
        let id = ChangeKey::new(self.server.now, self.server.rng.u128(..)).to_string();
        self.txn.conflicts.push(Conflict {
            id,
            table: table.clone(),
            key: key.clone(),
            kind,
            policy: self.item.policy,
            pushed_won,
            pushed_device: self.batch.device.clone(),
            server_device: rival.device.clone(),
            pushed_change: self.item.change.to_string(),
            server_change: rival.change.clone(),
            pushed_row: (self.item.op == Op::Upsert).then(|| self.item.row.clone()),
            server_row: rival.row.clone(),
            at: self.server.now,
            xid: self.txn.xid,
        });
        self.conflicts += 1;
    }
}
