//! SIGKILL at every named point between claim, send, commit, acknowledgement, page, apply and cursor.
//!
//! Each written value is unique, so that afterwards every one can be accounted for: it stands there, or
//! somebody who saw it wrote over it, or it is the loser of a conflict. An audit trigger on the server
//! counts how often each arrived.

use crate::support::cli::Device;
use crate::support::seed;
use crate::support::server::Schema;
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tidewater::failpoint::NAMES;

const SEEDS: usize = 20;
/// How many seeds at least must reach a point for it to count as tested.
const HITS_MIN: usize = 18;
const THREADS: usize = 2;
/// Small, so that a few rows make several batches and pages.
const LIMITS: &str = "[upload]\nbatch_size = 3\n\n[download]\npage_size = 5\n";

#[test]
fn a_kill_at_any_point_loses_doubles_and_blocks_nothing() {
    let base = seed::seed();
    let next = AtomicUsize::new(0);
    let hits: Mutex<BTreeMap<&str, usize>> = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    if n >= SEEDS {
                        return;
                    }
                    for point in one_seed(base.wrapping_add(n as u64)) {
                        *hits.lock().unwrap().entry(point).or_default() += 1;
                    }
                }
            });
        }
    });
    let hits = hits.into_inner().unwrap();
    println!("seeds of {SEEDS} in which each point was hit: {hits:?}");
    for point in points() {
        let n = hits.get(point).copied().unwrap_or(0);
        assert!(
            n >= HITS_MIN,
            "{point} was hit in {n} of {SEEDS} seeds only"
        );
    }
}

/// The points of an ordinary sync; a first upload, `detach`, a reconcile and the comparison after a rebuild have tests of
/// their own.
fn points() -> Vec<&'static str> {
    let others = ["first_", "detach_", "rejoin_", "reconcile_", "heal_page"];
    let mut points = NAMES.to_vec();
    points.retain(|p| !others.iter().any(|own| p.starts_with(own)));
    points
}

/// All points with one seed, in one workspace; returns those that were hit.
fn one_seed(seed: u64) -> Vec<&'static str> {
    let mut world = World::new(seed);
    let mut points = points();
    world.rng.shuffle(&mut points);
    let mut hit = Vec::new();
    for point in points {
        world.what = format!("seed {seed}, killed at {point}");
        if world.round(point) {
            hit.push(point);
        }
    }
    hit
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Writer {
    A,
    B,
    Server,
}

/// A workspace with two devices, and what was ever written in it.
struct World {
    rng: Rng,
    what: String,
    schema: Schema,
    /// Where the audit trigger writes: outside of the workspace.
    audit: Schema,
    a: Device,
    b: Device,
    /// How many values and keys were made.
    made: u32,
    /// Every value ever written, and whether somebody who saw it wrote over it.
    values: HashMap<String, bool>,
    /// Keys of deleted rows.
    deleted: BTreeSet<String>,
    /// Who wrote to a row in this round.
    touched: HashMap<String, BTreeSet<Writer>>,
    /// Conflicts of earlier rounds.
    known_conflicts: HashSet<String>,
}

impl World {
    fn new(seed: u64) -> World {
        let (schema, audit) = (Schema::new(), Schema::new());
        let device = |name: &str| Device::with_url(schema.url(), schema.name(), name, LIMITS);
        let (a, b) = (device("a"), device("b"));
        a.sql("create table notes (id text primary key, v text not null, n integer)");
        let mut world = World {
            rng: Rng::with_seed(seed),
            what: String::new(),
            schema,
            audit,
            a,
            b,
            made: 0,
            values: HashMap::new(),
            deleted: BTreeSet::new(),
            touched: HashMap::new(),
            known_conflicts: HashSet::new(),
        };
        for _ in 0..20 {
            world.insert(Writer::A);
        }
        world.a.json(&["init"]);
        world.a.json(&["now"]);
        let audit = world.audit.name();
        world.audit.exec(&format!(
            "create table seen (v text);
             create function note() returns trigger language plpgsql as
             $$ begin insert into {audit}.seen values (new.v); return null; end $$"
        ));
        world.schema.exec(&format!(
            "create trigger audit after insert or update of v on notes
             for each row execute function {audit}.note()"
        ));
        let config = world.b.config();
        let config = config.to_str().unwrap();
        world.b.json(&["clone", "--config", config, "app.db"]);
        world
    }

    /// One kill at `point` among concurrent edits; whether it was hit.
    fn round(&mut self, point: &str) -> bool {
        self.touched.clear();
        // The rows that both sides change; the later write is B's.
        let mut both: Vec<String> = self.keys(Writer::A);
        self.rng.shuffle(&mut both);
        both.truncate(2);
        for key in &both {
            self.update(Writer::A, key);
        }
        for _ in 0..self.rng.usize(5..8) {
            self.edit(Writer::A);
        }
        let clock = now_ms();
        while now_ms() == clock {
            std::hint::spin_loop();
        }
        for key in &both {
            self.update(Writer::B, key);
        }
        for _ in 0..self.rng.usize(6..9) {
            self.edit(Writer::B);
        }
        self.insert(Writer::B);
        for _ in 0..self.rng.usize(2..4) {
            self.edit(Writer::Server);
        }
        self.b.json(&["now"]);
        // A row that is unsent when the feed passes it leaves a note, which is fetched afterwards. But a
        // pull also claims and reads the feed, which the points of claim and feed need to be undone.
        let of_fetch = point.starts_with("fetch_");
        let undone = ["claim_", "page_", "apply_", "cursor_"];
        let undone = undone.iter().any(|p| point.starts_with(p));
        if of_fetch || (!undone && self.rng.bool()) {
            self.a.json(&["now", "--pull"]);
        }

        let hit = self.kill(point);

        // The app did not notice, and goes on.
        if self.rng.bool() {
            for _ in 0..self.rng.usize(1..4) {
                self.edit(Writer::A);
            }
        }
        self.drain();
        self.check();
        hit
    }

    /// Runs `now` on A until it dies at the n-th pass of the point; whether it did.
    fn kill(&mut self, point: &str) -> bool {
        // A claim and a fetch happen once in a small run; batches, pages and their parts twice.
        let most = if ["claim_", "fetch_"].iter().any(|p| point.starts_with(p)) {
            1
        } else {
            2
        };
        let n = self.rng.usize(1..=most);
        let log = self.a.folder().join("hits");
        let _ = std::fs::remove_file(&log);
        self.a
            .set_env("TIDEWATER_FAILPOINT", &format!("{point}:{n}"));
        self.a
            .set_env("TIDEWATER_FAILPOINT_LOG", log.to_str().unwrap());
        let ended = self.a.tw(&["now"]);
        self.a.unset_env("TIDEWATER_FAILPOINT");
        self.a.unset_env("TIDEWATER_FAILPOINT_LOG");
        let logged = std::fs::read_to_string(&log).unwrap_or_default();
        let hit = logged == format!("{point}\n");
        let wanted = if hit { -libc::SIGKILL } else { 0 };
        assert_eq!(ended.code, wanted, "{}:{n}: {ended:#?}", self.what);
        assert_eq!(
            self.a.rows("pragma integrity_check"),
            [["ok"]],
            "{}",
            self.what
        );
        hit
    }

    /// Syncs both until there is nothing to do.
    fn drain(&mut self) {
        for _ in 0..8 {
            let mut moved = 0;
            for device in [&self.a, &self.b] {
                let now = device.tw(&["--json", "now"]);
                assert_eq!(now.code, 0, "{}: {now:#?}", self.what);
                let now = now.json();
                for field in ["uploaded", "downloaded", "conflicts", "failed", "pending"] {
                    moved += now[field].as_u64().unwrap();
                }
            }
            if moved == 0 {
                return;
            }
        }
        panic!("{}: it never comes to rest", self.what);
    }

    fn check(&mut self) {
        let what = self.what.clone();
        let rows = "select id, v, coalesce(n, -1) from notes order by id";
        let here = self.a.rows(rows);
        assert_eq!(here, self.b.rows(rows), "{what}: the devices differ");
        let there = self
            .schema
            .rows(&rows.replace("order by id", "order by id collate \"C\""));
        assert_eq!(here, there, "{what}: PostgreSQL differs");

        let mut conflicts = Vec::new();
        for device in [&self.a, &self.b] {
            for stuck in [
                "select * from tidewater_log",
                "select * from tidewater_outbox where status <> 'synced'",
                "select * from tidewater_batch",
                "select * from tidewater_note",
                "select * from tidewater_inbox where status = 'failed'",
                "select * from tidewater_guard where v <> 0",
                // One conflict is told once, however often its batch was sent.
                "select local_change, remote_change, count(*) from tidewater_conflict
                 group by 1, 2 having count(*) > 1",
            ] {
                assert_eq!(
                    device.rows(stuck),
                    Vec::<Vec<String>>::new(),
                    "{what}: {stuck}"
                );
            }
            conflicts.extend(device.rows("select id, pk, local, remote from tidewater_conflict"));
            // The program's own comparison; ours above is the one that counts.
            if self.made.is_multiple_of(4) {
                let verify = device.tw(&["--json", "verify"]);
                assert_eq!(verify.code, 0, "{what}: {verify:#?}");
            }
        }

        let standing: HashSet<&str> = here.iter().map(|row| row[1].as_str()).collect();
        let lost_fairly: String = conflicts.iter().map(|c| c[2..].concat()).collect();
        for (value, overwritten) in &self.values {
            let kept = *overwritten || standing.contains(value.as_str());
            assert!(
                kept || lost_fairly.contains(value.as_str()),
                "{what}: {value} is lost"
            );
        }
        for key in &self.deleted {
            let back = here.iter().any(|row| row[0] == *key);
            let fairly = conflicts
                .iter()
                .any(|c| c[1].contains(key.as_str()) && c[2..].contains(&"NULL".to_owned()));
            assert!(!back || fairly, "{what}: the deleted row {key} is back");
        }
        for c in &conflicts {
            if !self.known_conflicts.insert(c[0].clone()) {
                continue;
            }
            let writers = self
                .touched
                .iter()
                .find(|(key, _)| c[1].contains(key.as_str()));
            let real = writers.is_some_and(|(_, w)| w.len() > 1);
            assert!(real, "{what}: a conflict of one writer with itself: {c:?}");
        }
        let twice = "select v, count(*) from seen group by v having count(*) > 1";
        assert_eq!(
            self.audit.rows(twice),
            Vec::<Vec<String>>::new(),
            "{what}: a value arrived twice"
        );
    }

    // What the writers do.

    fn edit(&mut self, writer: Writer) {
        let keys = self.keys(writer);
        let key = keys[self.rng.usize(..keys.len())].clone();
        match self.rng.u32(..10) {
            0..=2 => self.insert(writer),
            3 if keys.len() > 10 => self.delete(writer, &key),
            _ => self.update(writer, &key),
        }
    }

    fn insert(&mut self, writer: Writer) {
        let (key, value) = (format!("r{:06}", self.made), self.value());
        let n = self.rng.i32(..1000);
        self.write(
            writer,
            &key,
            &format!("insert into notes (id, v, n) values ('{key}', '{value}', {n})"),
        );
    }

    fn update(&mut self, writer: Writer, key: &str) {
        self.overwrite(writer, key);
        let value = self.value();
        let sql = format!("update notes set v = '{value}' where id = '{key}'");
        self.write(writer, key, &sql);
    }

    fn delete(&mut self, writer: Writer, key: &str) {
        self.overwrite(writer, key);
        self.deleted.insert(key.to_owned());
        self.write(
            writer,
            key,
            &format!("delete from notes where id = '{key}'"),
        );
    }

    /// A new value, which nobody wrote before.
    fn value(&mut self) -> String {
        self.made += 1;
        let value = format!("<{}>", self.made);
        self.values.insert(value.clone(), false);
        value
    }

    /// The writer sees a value and is about to write over it.
    fn overwrite(&mut self, writer: Writer, key: &str) {
        let seen = self.rows(writer, &format!("select v from notes where id = '{key}'"));
        let value = seen.first().unwrap_or_else(|| panic!("no row {key}"))[0].clone();
        self.values.insert(value, true);
    }

    fn write(&mut self, writer: Writer, key: &str, sql: &str) {
        self.touched
            .entry(key.to_owned())
            .or_default()
            .insert(writer);
        match writer {
            // A kill loses nothing that the system has; the app's own writes need not wait for the disk.
            Writer::A => self.a.sql(&format!("pragma synchronous = off; {sql}")),
            Writer::B => self.b.sql(&format!("pragma synchronous = off; {sql}")),
            Writer::Server => self.schema.exec(sql),
        }
    }

    fn keys(&self, writer: Writer) -> Vec<String> {
        let rows = self.rows(writer, "select id from notes");
        let mut keys: Vec<String> = rows.into_iter().map(|mut row| row.remove(0)).collect();
        keys.sort();
        keys
    }

    fn rows(&self, writer: Writer, query: &str) -> Vec<Vec<String>> {
        match writer {
            Writer::A => self.a.rows(query),
            Writer::B => self.b.rows(query),
            Writer::Server => self.schema.rows(query),
        }
    }
}

fn now_ms() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis()
}
