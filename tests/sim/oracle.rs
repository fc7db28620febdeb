//! The judgement, from the outside: files, server and conflicts against what every writer knew.

use super::ghost::{Cell, Ghost, Id};
use super::node::{Step, contents};
use super::remote::{Fate, Gate, lock};
use super::schedule::{Fault, HOUR, Sim};
use super::server::tail;
use super::writer::{self, mark_of};
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};
use tidewater::model::{Row, Value};
use tidewater::sync::parts::Request;

/// Rounds after the last fault within which everything comes to rest.
const ROUNDS: usize = 14;

/// Messages of one round.
const MESSAGES: usize = 4_000;

impl Sim {
    /// No more faults: everything drains.
    pub fn settle(&mut self) -> Result<(), Fault> {
        while !self.writers.is_empty() {
            writer::end(self, 0, false);
        }
        self.orphans(true);
        lock(&self.server).flush();
        self.told(|| "the last fault is over".into());
        let mut quiet = 0;
        for round in 0..ROUNDS {
            self.pass_time(3 * HOUR);
            let moved = self.round(round)?;
            let waits: i64 = self.nodes.iter_mut().map(|n| unsettled(n.app())).sum();
            quiet = if moved || waits > 0 { 0 } else { quiet + 1 };
            if quiet == 2 {
                return Ok(());
            }
            for n in 0..self.nodes.len() {
                self.park(n, round > 3)?;
            }
        }
        let left: Vec<i64> = self.nodes.iter_mut().map(|n| unsettled(n.app())).collect();
        Err(format!("I6 it does not come to rest: {left:?}"))
    }

    /// Every device syncs once; whether anything moved.
    fn round(&mut self, round: usize) -> Result<bool, Fault> {
        let mut moved = false;
        for n in 0..self.nodes.len() {
            if !self.nodes[n].is_running() {
                let all = Request {
                    push: true,
                    pull: true,
                    force: false,
                };
                self.world.skew.set(self.nodes[n].skew);
                self.nodes[n]
                    .start(&self.server, all, false)
                    .map_err(|e| format!("I6 the device {n} cannot be opened: {e}"))?;
            }
        }
        for _ in 0..MESSAGES {
            let running: Vec<usize> = (0..self.nodes.len())
                .filter(|n| self.nodes[*n].is_running())
                .collect();
            if running.is_empty() {
                return Ok(moved);
            }
            self.orphans(true);
            for n in running {
                let gate = lock(&self.nodes[n].line).at;
                lock(&self.nodes[n].line).fate = gate.map(|_: Gate| Fate::Pass);
                let step = self.nodes[n].poll(&self.world);
                self.nodes[n].absorb(&mut self.ghost, &self.server)?;
                self.told(|| format!("device {n} goes on"));
                match step {
                    Step::Done(Ok(report)) => {
                        moved |= report.uploaded + report.downloaded + report.failed > 0;
                    }
                    Step::Done(Err(e)) => {
                        moved = true;
                        self.told(|| format!("device {n}: {e:?}"));
                        if round > 3 {
                            return Err(format!("I6 device {n}: {e}"));
                        }
                    }
                    _ => {}
                }
            }
        }
        Err("I6 a sync does not end".into())
    }

    pub fn judge(&mut self) -> Result<(), Fault> {
        self.converged()?;
        self.nothing_lost()?;
        for n in 0..self.nodes.len() {
            let app = self.nodes[n].app();
            let ok: String = app
                .query_row("pragma integrity_check", [], |r| r.get(0))
                .map_err(|e| e.to_string())?;
            if ok != "ok" {
                return Err(format!("I7 device {n}: {ok}"));
            }
        }
        if !self.profile.loose {
            self.conflicts_are_real()?;
            self.installed_once()?;
        }
        Ok(())
    }

    /// I2: every file holds what the server holds, with its types.
    fn converged(&mut self) -> Result<(), Fault> {
        let mut there: BTreeMap<Cell, String> = BTreeMap::new();
        {
            let server = lock(&self.server);
            for (table, (id, _)) in &server.data.tables {
                for ((t, pk), v) in &server.data.rows {
                    if t == id
                        && let Some(row) = &v.row
                    {
                        there.insert((table.clone(), pk.clone()), whole(row));
                    }
                }
            }
        }
        for n in 0..self.nodes.len() {
            let here: BTreeMap<Cell, String> = contents(self.nodes[n].app())
                .into_iter()
                .map(|(cell, (_, whole))| (cell, whole))
                .collect();
            if here != there {
                return Err(format!(
                    "I2 device {n} holds {here:?}, the server {there:?}"
                ));
            }
        }
        Ok(())
    }

    /// I1: every version is final, was seen by whoever wrote over it, or is kept as a loser.
    fn nothing_lost(&mut self) -> Result<(), Fault> {
        let mut covered: BTreeSet<Id> = BTreeSet::new();
        let mut roots: Vec<Id> = Vec::new();
        {
            let server = lock(&self.server);
            let tails = server.data.last.values().chain(&server.same);
            let tails = tails.chain(&server.idle).chain(&self.discarded);
            roots.extend(tails.filter_map(|t| self.ghost.of_tail(t)));
            for c in &server.ever_conflicts {
                roots.extend(self.ghost.of_tail(c.loser()));
                self.content_kept(
                    c.loser(),
                    if c.pushed_won {
                        &c.server_row
                    } else {
                        &c.pushed_row
                    },
                )?;
            }
        }
        for n in 0..self.nodes.len() {
            for (cell, row, change) in kept_here(self.nodes[n].app()) {
                let mark = row.as_ref().and_then(mark_of);
                roots.extend(change.as_ref().and_then(|c| self.ghost.of_tail(tail(c))));
                if mark.is_some() {
                    roots.extend(self.ghost.like(&cell, mark.as_deref()));
                }
            }
        }
        let final_rows = contents(self.nodes[0].app());
        for (i, v) in self.ghost.versions.iter().enumerate() {
            let is_final = final_rows.get(&v.cell).and_then(|(m, _)| m.clone()) == v.mark;
            if is_final {
                roots.push(i);
            }
        }
        for root in roots {
            covered.insert(root);
            covered.extend(&self.ghost.versions[root].seen);
        }
        // What several wrote alike is kept where one of them is.
        let alike: BTreeSet<(Cell, String)> = covered
            .iter()
            .filter_map(|i| {
                let v = &self.ghost.versions[*i];
                Some((v.cell.clone(), v.mark.clone()?))
            })
            .collect();
        for (i, v) in self.ghost.versions.iter().enumerate() {
            let Some(mark) = v.mark.as_ref().filter(|m| Ghost::is_shared(m)) else {
                continue;
            };
            if alike.contains(&(v.cell.clone(), mark.clone())) {
                covered.insert(i);
                covered.extend(&v.seen);
            }
        }
        for (i, v) in self.ghost.versions.iter().enumerate() {
            if !covered.contains(&i) && !v.excused {
                let v = v.clone();
                let told = self.history(&v.cell, &covered);
                self.trace.append(&mut lock(&self.server).log);
                self.trace.extend(told);
                return Err(format!(
                    "I1 lost: {:?} {:?} of {:?}",
                    v.cell, v.mark, v.file
                ));
            }
        }
        Ok(())
    }

    /// Everything that was ever written under a key, for whoever looks for the reason.
    fn history(&mut self, cell: &Cell, covered: &BTreeSet<Id>) -> Vec<String> {
        let versions = self.ghost.versions.iter().enumerate();
        let mut out: Vec<String> = versions
            .filter(|(_, v)| v.cell == *cell)
            .map(|(i, v)| {
                let (file, seen) = (v.file, &v.seen);
                let tails = self.ghost.tails(i);
                let kept = covered.contains(&i);
                format!(
                    "{i} {:?} by {file:?} over {seen:?} as {tails:?} kept {kept}",
                    v.mark
                )
            })
            .collect();
        let server = lock(&self.server);
        for c in server
            .ever_conflicts
            .iter()
            .filter(|c| c.key.encode() == cell.1)
        {
            out.push(format!("{c:?}"));
        }
        drop(server);
        for (n, node) in self.nodes.iter_mut().enumerate() {
            for sql in [
                "select 'sent', id, change_key, op, status, carried, outcome from tidewater_outbox \
                 where tbl = ?1 and pk = ?2",
                "select 'came', id, change_key, op, status, at, device from tidewater_inbox \
                 where tbl = ?1 and pk = ?2",
                "select 'told', id, at, kind, change_key, detail from tidewater_event \
                 where tbl is null or (tbl = ?1 and pk = ?2)",
            ] {
                out.extend(
                    dump(node.app(), sql, cell)
                        .into_iter()
                        .map(|l| format!("{n}: {l}")),
                );
            }
        }
        out
    }

    /// A loser is kept with its content.
    fn content_kept(&self, loser: &str, row: &Option<Row>) -> Result<(), Fault> {
        let Some(id) = self.ghost.of_tail(loser) else {
            return Ok(());
        };
        let mark = row.as_ref().and_then(mark_of);
        if self.ghost.versions[id].mark == mark {
            Ok(())
        } else {
            let v = &self.ghost.versions[id];
            Err(format!(
                "I5 {:?} {:?} lost and is kept as {mark:?}",
                v.cell, v.mark
            ))
        }
    }

    /// I4: nobody is told of a conflict who had seen the other side; each loser is told once, and both
    /// devices hear of it.
    fn conflicts_are_real(&mut self) -> Result<(), Fault> {
        let server = lock(&self.server);
        let mut losers: BTreeMap<Id, usize> = BTreeMap::new();
        for c in &server.data.conflicts {
            let (Some(loser), Some(winner)) = (
                self.ghost.of_tail(c.loser()),
                self.ghost.of_tail(c.winner()),
            ) else {
                continue;
            };
            let (l, w) = (&self.ghost.versions[loser], &self.ghost.versions[winner]);
            let shared = |m: &Option<String>| m.as_deref().is_some_and(Ghost::is_shared);
            if shared(&l.mark) || shared(&w.mark) {
                continue;
            }
            if l.seen.contains(&winner) || w.seen.contains(&loser) || loser == winner {
                return Err(format!(
                    "I4 no conflict: {:?} {:?} and {:?} had been seen",
                    l.cell, l.mark, w.mark
                ));
            }
            *losers.entry(loser).or_default() += 1;
        }
        if let Some((id, _)) = losers.iter().find(|(_, n)| **n > 1) {
            let v = &self.ghost.versions[*id];
            return Err(format!("I4 {:?} {:?} lost twice", v.cell, v.mark));
        }
        let told: Vec<(String, String, String)> = server
            .data
            .conflicts
            .iter()
            .map(|c| {
                (
                    c.id.clone(),
                    c.pushed_device.clone(),
                    c.server_device.clone(),
                )
            })
            .collect();
        drop(server);
        for n in 0..self.nodes.len() {
            let app = self.nodes[n].app();
            let id: String = app
                .query_row(
                    "select value from tidewater_state where name = 'device_id'",
                    [],
                    |r| r.get(0),
                )
                .map_err(|e| e.to_string())?;
            for (conflict, pushed, there) in &told {
                if *pushed != id && *there != id {
                    continue;
                }
                let heard: bool = app
                    .query_row(
                        "select exists (select 1 from tidewater_conflict where id = ?1)",
                        [conflict],
                        |r| r.get(0),
                    )
                    .map_err(|e| e.to_string())?;
                if !heard {
                    return Err(format!(
                        "I5 device {n} never heard of the conflict {conflict}"
                    ));
                }
            }
            let renamed: i64 = app
                .query_row(
                    "select count(*) from tidewater_event where kind = 'new_identity'",
                    [],
                    |r| r.get(0),
                )
                .map_err(|e| e.to_string())?;
            if renamed > 0 {
                return Err(format!("I4 device {n} took a new identity for nothing"));
            }
        }
        Ok(())
    }

    /// I3: no change is installed twice.
    fn installed_once(&mut self) -> Result<(), Fault> {
        for n in 0..self.nodes.len() {
            let app = self.nodes[n].app();
            let twice: Option<String> = app
                .query_row(
                    "select max(tbl || pk || change_key) from (select tbl, pk, change_key \
                     from tidewater_inbox i where status = 'applied' and not exists (select 1 \
                     from tidewater_conflict c where c.tbl = i.tbl and c.pk = i.pk \
                     and c.kind = 'discarded') \
                     group by 1, 2, 3 having count(*) > 1)",
                    [],
                    |r| r.get(0),
                )
                .map_err(|e| e.to_string())?;
            if let Some(change) = twice {
                return Err(format!("I3 device {n} installed {change} twice"));
            }
        }
        Ok(())
    }
}

/// Rows as text.
fn dump(app: &Connection, sql: &str, cell: &Cell) -> Vec<String> {
    let Ok(mut s) = app.prepare(sql) else {
        return vec![format!("cannot read: {sql}")];
    };
    let columns = s.column_count();
    s.query_map([&cell.0, &cell.1], |r| {
        let fields = (0..columns).map(|i| r.get_ref(i).map(super::node::text));
        fields.collect::<rusqlite::Result<Vec<_>>>()
    })
    .and_then(|rows| rows.map(|r| r.map(|f| f.join(" "))).collect())
    .unwrap_or_default()
}

/// Everything that is not at rest in a file.
fn unsettled(app: &Connection) -> i64 {
    app.query_row(
        "select (select count(*) from tidewater_outbox where status <> 'synced') \
         + (select count(*) from tidewater_log) + (select count(*) from tidewater_note) \
         + (select count(*) from tidewater_inbox where status = 'failed') \
         + (select count(*) from tidewater_batch)",
        [],
        |r| r.get(0),
    )
    .unwrap_or(1)
}

/// Losers that a file keeps: key, content, change.
fn kept_here(app: &Connection) -> Vec<(Cell, Option<Row>, Option<String>)> {
    let mut s = app
        .prepare_cached(
            "select tbl, pk, case winner when 'remote' then local else remote end, \
             case winner when 'remote' then local_change else remote_change end \
             from tidewater_conflict",
        )
        .expect("the conflicts");
    let rows = s.query_map([], |r| {
        let row: Option<String> = r.get(2)?;
        Ok((
            (r.get(0)?, r.get(1)?),
            row.and_then(|t| Row::from_json(&t).ok()),
            r.get(3)?,
        ))
    });
    rows.and_then(Iterator::collect).expect("the conflicts")
}

/// A row's content in the form of `node::contents`.
fn whole(row: &Row) -> String {
    let text = |c: &str| match row.get(c) {
        Some(Value::Int(n)) => n.to_string(),
        Some(Value::Real(r)) => format!("r{:x}", r.to_bits()),
        Some(Value::Text(t)) => format!("'{t}'"),
        Some(Value::Blob(b)) => format!("x{b:?}"),
        _ => "null".into(),
    };
    format!("{} {}", text("v"), text("n"))
}
