//! What must hold once everything has drained, judged from outside: from what the writers noted, the
//! rows of both sides, and what is kept of conflicts.

use super::world::{World, size};
use super::writers::{BUSY, Done, Place, Write};
use crate::sides;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

/// A service of a debug build; it does not grow with what passes through it.
const MEMORY_MAX_KB: u64 = 256 * 1024;
/// With the app's reader gone the log is written again from its start.
const WAL_MAX: u64 = 32 * 1024 * 1024;
/// The pool and the ear.
const CONNECTIONS_MAX: u32 = 3;

/// A conflict as the server keeps it. A side without a value is a delete.
struct Conflict {
    table: String,
    pk: String,
    loser: Option<String>,
    winner: Option<String>,
    /// Which devices, the loser's first; `0` is PostgreSQL.
    devices: (String, String),
}

/// Everything that is wrong; empty where all held. The services have ended.
pub fn judge(world: &World<'_>, done: &[Done]) -> Vec<String> {
    let mut wrong: Vec<String> = world.complaints.clone();
    wrong.extend(done.iter().flat_map(|d| d.complaints.iter().cloned()));
    let committed = committed(world, done);
    let mut conflicts = conflicts(world);
    if world.plan.restores() {
        // A record that the server has forgotten stands where it was heard of.
        conflicts.extend(heard(world));
    }
    let mut judged = History::new(world, &committed, &conflicts);
    if world.plan.restores() {
        // What PostgreSQL's writer did after the copy is gone, unless a device had it and sent it again.
        judged.possible = done.iter().flat_map(|d| &d.writes).collect();
    }
    judged.values(&mut wrong);
    judged.deletes(&mut wrong);
    if !world.plan.restores() {
        judged.conflicts(&mut wrong);
    }
    state(world, &mut wrong);
    // Deletes and unique values are locked in no common order; rows that are only written are.
    if !world.plan.deletes && deadlocks(world) > 0 {
        wrong.push(format!("{} deadlocks", deadlocks(world)));
    }
    wrong
}

/// The writes that were acknowledged to their writer, or turned out to be committed.
fn committed<'a>(world: &World<'_>, done: &'a [Done]) -> Vec<&'a Write> {
    let rows = world.audit.rows("select n from committed");
    let audited: HashSet<u64> = rows
        .iter()
        .map(|r| r[0].parse().expect("a number"))
        .collect();
    done.iter()
        .flat_map(|d| &d.writes)
        .filter(|w| w.audit.is_none_or(|n| audited.contains(&n)))
        .collect()
}

fn conflicts(world: &World<'_>) -> Vec<Conflict> {
    let rows = world.schema.rows(
        "select table_name, pk, pushed_won, pushed_device, server_device, \
         coalesce(pushed_row, ''), coalesce(server_row, '') from tidewater_conflicts",
    );
    rows.into_iter()
        .map(|r| {
            let (pushed, server) = ((value_in(&r[5]), &r[3]), (value_in(&r[6]), &r[4]));
            let (winner, loser) = match r[2].as_str() {
                "t" => (pushed, server),
                _ => (server, pushed),
            };
            Conflict {
                table: r[0].clone(),
                pk: r[1].clone(),
                loser: loser.0,
                winner: winner.0,
                devices: (loser.1.clone(), winner.1.clone()),
            }
        })
        .collect()
}

/// Conflicts as the devices list them.
fn heard(world: &World<'_>) -> Vec<Conflict> {
    let list = "select tbl, pk, winner, coalesce(local, ''), coalesce(remote, '') \
                from tidewater_conflict";
    let mut found = Vec::new();
    for r in world.sites.iter().flat_map(|s| s.device.rows(list)) {
        let (local, remote) = (value_in(&r[3]), value_in(&r[4]));
        let (winner, loser) = match r[2].as_str() {
            "local" => (local, remote),
            _ => (remote, local),
        };
        found.push(Conflict {
            table: r[0].clone(),
            pk: r[1].clone(),
            loser,
            winner,
            devices: Default::default(),
        });
    }
    found
}

/// The value `<writer.n>` in a row as it was kept.
fn value_in(row: &str) -> Option<String> {
    let (_, rest) = row.split_once('<')?;
    let (value, _) = rest.split_once('>')?;
    Some(format!("<{value}>"))
}

struct History<'a> {
    committed: &'a [&'a Write],
    /// What may have been committed besides.
    possible: Vec<&'a Write>,
    conflicts: &'a [Conflict],
    /// Each value's write.
    by_value: HashMap<&'a str, &'a Write>,
    /// What stands at the end, by table and key.
    standing: HashMap<(String, String), String>,
}

impl<'a> History<'a> {
    fn new(world: &World<'_>, committed: &'a [&'a Write], conflicts: &'a [Conflict]) -> Self {
        let mut standing = HashMap::new();
        for (table, key) in [
            ("notes", "'[\"' || id || '\"]'"),
            ("pairs", "'[' || a || ',\"' || b || '\"]'"),
            ("sums", "'[' || id || ']'"),
        ] {
            for mut row in world.schema.rows(&format!("select {key}, v from {table}")) {
                let value = row.remove(1);
                standing.insert((table.to_owned(), row.remove(0)), value);
            }
        }
        let by_value = committed
            .iter()
            .filter_map(|w| Some((w.value.as_deref()?, *w)))
            .collect();
        History {
            committed,
            possible: Vec::new(),
            conflicts,
            by_value,
            standing,
        }
    }

    fn standing_at(&self, place: &Place) -> Option<&str> {
        let key = (place.table.to_owned(), place.pk());
        self.standing.get(&key).map(String::as_str)
    }

    /// The values that led to this one, each seen by who wrote the next: up to where somebody saw no row.
    fn ancestors(&self, value: &str) -> Vec<&'a str> {
        let mut found = Vec::new();
        let mut at = self.by_value.get(value).and_then(|w| w.saw.as_deref());
        while let Some(value) = at {
            found.push(value);
            at = self.by_value.get(value).and_then(|w| w.saw.as_deref());
        }
        found
    }

    /// Every acknowledged value stands, was knowingly overwritten, or lost a conflict; nothing else stands.
    fn values(&self, wrong: &mut Vec<String>) {
        let overwritten: HashSet<&str> = self
            .committed
            .iter()
            .chain(&self.possible)
            .filter_map(|w| w.saw.as_deref())
            .collect();
        let lost: HashSet<&str> = self
            .conflicts
            .iter()
            .filter_map(|c| c.loser.as_deref())
            .collect();
        for write in self.committed {
            let Some(value) = write.value.as_deref() else {
                continue;
            };
            let stands = self.standing_at(&write.place) == Some(value);
            if !stands && !overwritten.contains(value) && !lost.contains(value) {
                wrong.push(format!("lost: {value} at {}", where_(&write.place)));
            }
        }
        let possible: HashSet<&str> = self
            .possible
            .iter()
            .filter_map(|w| w.value.as_deref())
            .collect();
        for ((table, pk), value) in &self.standing {
            let known = self.by_value.contains_key(value.as_str());
            if !known && !possible.contains(value.as_str()) {
                wrong.push(format!("nobody's: {value} at {table} {pk}"));
            }
        }
    }

    /// A deleted row is gone, or its deleter made it anew, or somebody did, or the delete lost a conflict.
    fn deletes(&self, wrong: &mut Vec<String>) {
        let lost: HashSet<(&str, &str)> = self
            .conflicts
            .iter()
            .filter(|c| c.loser.is_none())
            .map(|c| (c.table.as_str(), c.pk.as_str()))
            .collect();
        for (i, write) in self.committed.iter().enumerate() {
            let mut later = self.committed[i + 1..].iter();
            let mut all = self.committed.iter();
            // By its deleter, or by anybody who found no row after the delete.
            let anew = later.any(|w| w.writer == write.writer && w.place == write.place)
                || all.any(|w| w.place == write.place && w.saw.is_none() && w.at > write.at);
            if write.value.is_some() || anew {
                continue;
            }
            let (Some(stands), Some(saw)) = (self.standing_at(&write.place), write.saw.as_deref())
            else {
                continue;
            };
            // It stands although what it was made from was deleted.
            let made_from = stands == saw || self.ancestors(stands).contains(&saw);
            let pk = write.place.pk();
            if made_from && !lost.contains(&(write.place.table, pk.as_str())) {
                wrong.push(format!(
                    "risen: {stands} at {}, where writer {} deleted {saw}",
                    where_(&write.place),
                    write.writer
                ));
            }
        }
    }

    /// No conflict without concurrency, and no loser twice.
    fn conflicts(&self, wrong: &mut Vec<String>) {
        let mut losers = HashSet::new();
        for c in self.conflicts {
            let at = format!("{} {}", c.table, c.pk);
            if c.devices.0 == c.devices.1 {
                wrong.push(format!("a conflict of one with itself at {at}"));
            }
            if let Some(loser) = &c.loser
                && !losers.insert(loser)
            {
                wrong.push(format!("recorded twice: {loser} at {at}"));
            }
            let (Some(loser), Some(winner)) = (&c.loser, &c.winner) else {
                continue;
            };
            let knew = self.ancestors(winner).contains(&loser.as_str())
                || self.ancestors(loser).contains(&winner.as_str());
            if knew {
                wrong.push(format!("no conflict: {loser} and {winner} at {at}"));
            }
        }
    }
}

fn where_(place: &Place) -> String {
    format!("{} {}", place.table, place.pk())
}

/// Both sides hold the same, typed; files are sound; nothing has grown without bound.
fn state(world: &World<'_>, wrong: &mut Vec<String>) {
    let twice = "select v, count(*) from seen group by v having count(*) > 1";
    for row in world.audit.rows(twice) {
        if world.plan.restores() {
            break;
        }
        wrong.push(format!("{} arrived {} times", row[0], row[1]));
    }
    let undead = "select t.name, g.pk from tidewater_tombstones g \
        join tidewater_tables t on t.id = g.table_id where \
        (t.name = 'notes' and exists (select 1 from notes m where g.pk = '[\"' || m.id || '\"]')) or \
        (t.name = 'pairs' and exists (select 1 from pairs m where g.pk = '[' || m.a || ',\"' || m.b || '\"]')) or \
        (t.name = 'sums' and exists (select 1 from sums m where g.pk = '[' || m.id || ']'))";
    for row in world.schema.rows(undead) {
        wrong.push(format!("a row lives beside its tombstone: {row:?}"));
    }
    for (n, site) in world.sites.iter().enumerate() {
        let mut say = |what: String| wrong.push(format!("device {n}: {what}"));
        let sound = site.device.rows("pragma integrity_check");
        if sound != [["ok"]] {
            say(format!("integrity_check: {sound:?}"));
        }
        let verify = site.device.tw(&["--json", "verify"]);
        if verify.code != 0 {
            say(format!("verify: {} {}", verify.stdout, verify.stderr));
        }
        let compared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            sides::assert_equal(&site.device, &world.schema);
        }));
        if compared.is_err() {
            say("it differs from the server".into());
        }
        let twice = "select local_change, remote_change, count(*) from tidewater_conflict \
                     where kind <> 'discarded' group by 1, 2 having count(*) > 1";
        for row in site.device.rows(twice) {
            say(format!("it lists a conflict twice: {row:?}"));
        }
        for text in &site.said {
            for line in text.lines().filter(|l| l.contains("panicked at")) {
                say(line.to_owned());
            }
        }
        if site.memory > MEMORY_MAX_KB {
            say(format!("{} kB of memory", site.memory));
        }
        if site.wal > WAL_MAX || size(&site.device, "-wal") > WAL_MAX {
            say(format!("a log of {} bytes", site.wal));
        }
    }
}

/// How many connections each device has; more than it may have is wrong. Asked while the services run.
pub fn connections(world: &World<'_>) -> Option<String> {
    let rows = world.schema.rows(
        "select application_name, count(*) from pg_stat_activity \
         where application_name like 'tidewater/%' group by 1",
    );
    let mut said = String::new();
    for row in rows {
        if row[1].parse::<u32>().expect("a number") > CONNECTIONS_MAX {
            let _ = writeln!(said, "{} has {} connections", row[0], row[1]);
        }
    }
    (!said.is_empty()).then_some(said)
}

/// How many transactions the server ended because they waited for each other. Both come again, so that
/// it costs time and nothing else.
pub fn deadlocks(world: &World<'_>) -> usize {
    world.server.log().matches("deadlock detected").count()
}

/// What the longest wait of an app came to, for the account of a run.
pub fn slowest(done: &[Done]) -> String {
    let longest = done.iter().map(|d| d.slowest).max().unwrap_or_default();
    format!(
        "{:.1} s of {:.0} s",
        longest.as_secs_f64(),
        BUSY.as_secs_f64()
    )
}
