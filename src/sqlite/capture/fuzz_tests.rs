//! Capture against the truth: random statements of an app, and a replica that only ever sees what is claimed.
//!
//! After at most twenty statements the changes are claimed, by the real claim, on a file that the app holds
//! open in another connection; the replica takes the entries of the outbox and must then equal the tables, by
//! value and type. The same statements with plain triggers alone must diverge, or the fuzz would prove
//! nothing. Some seeds are always run and others are new each time; `TIDEWATER_SEED` replays one of them,
//! `TIDEWATER_STATEMENTS` sets how many statements there are in all.

use super::fuzz_shapes::{SHAPES, Shape};
use super::install::install_as;
use super::tests::{app, tracked};
use super::triggers::Candidates;
use super::{install, ledger};
use crate::model::{Key, Row, Table};
use crate::sqlite::app_row;
use crate::sqlite::claim::{ClaimLimits, claim};
use crate::sqlite::introspect::{TrackSettings, tables};
use crate::sqlite::local::{Local, schema_version, store_tables};
use crate::sqlite::state;
use fastrand::Rng;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

const CLAUSES: [&str; 6] = [
    "",
    "or replace",
    "or ignore",
    "or fail",
    "or abort",
    "or rollback",
];

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(..from.len())]
}

impl Shape {
    fn tuple(&self, rng: &mut Rng) -> String {
        let values: Vec<&str> = self.columns.iter().map(|(_, v)| pick(rng, v)).collect();
        format!("({})", values.join(", "))
    }

    fn assignment(&self, rng: &mut Rng) -> String {
        let (column, values) = self.columns[rng.usize(..self.columns.len())];
        format!("{column} = {}", pick(rng, values))
    }

    fn condition(&self, rng: &mut Rng) -> String {
        let (column, values) = self.columns[rng.usize(..self.columns.len())];
        format!(
            "{column} {} {}",
            pick(rng, &["=", "is", ">", "<", "is not"]),
            pick(rng, values)
        )
    }

    fn statement(&self, rng: &mut Rng) -> String {
        let clause = if rng.bool() {
            "or replace"
        } else {
            pick(rng, &CLAUSES)
        };
        let names: Vec<&str> = self.columns.iter().map(|(c, _)| *c).collect();
        let names = names.join(", ");
        match rng.u32(..100) {
            0..35 => {
                let n = rng.usize(1..4);
                let tuples: Vec<String> = (0..n).map(|_| self.tuple(rng)).collect();
                format!(
                    "insert {clause} into t ({names}) values {}",
                    tuples.join(", ")
                )
            }
            // A subset of the columns, so that keys are assigned and defaults are taken.
            35..42 => {
                let from = rng.usize(..self.columns.len());
                let some: Vec<_> = self.columns[from..].iter().collect();
                let columns: Vec<&str> = some.iter().map(|(c, _)| *c).collect();
                let values: Vec<&str> = some.iter().map(|(_, v)| pick(rng, v)).collect();
                format!(
                    "insert {clause} into t ({}) values ({})",
                    columns.join(", "),
                    values.join(", ")
                )
            }
            42..49 => {
                let changed = rng.usize(..self.columns.len());
                let select: Vec<&str> = self
                    .columns
                    .iter()
                    .enumerate()
                    .map(|(i, (c, v))| if i == changed { pick(rng, v) } else { *c })
                    .collect();
                format!(
                    "insert {clause} into t ({names}) select {} from t where {} limit 3",
                    select.join(", "),
                    self.condition(rng)
                )
            }
            49..59 => {
                let action = if rng.bool() {
                    "nothing".to_owned()
                } else {
                    format!("update set {}", self.assignment(rng))
                };
                format!(
                    "insert into t ({names}) values {}, {} on conflict do {action}",
                    self.tuple(rng),
                    self.tuple(rng)
                )
            }
            59..75 => {
                let more = if rng.bool() {
                    format!(", {}", self.assignment(rng))
                } else {
                    String::new()
                };
                format!(
                    "update {clause} t set {}{more} where {}",
                    self.assignment(rng),
                    self.condition(rng)
                )
            }
            75..82 => format!(
                "update {clause} t set {} where {}",
                pick(rng, self.shift),
                self.condition(rng)
            ),
            82..84 => format!("update {clause} t set {}", pick(rng, self.shift)),
            84..89 => format!("delete from t where {}", self.condition(rng)),
            89..91 => "begin".to_owned(),
            91..93 => "commit".to_owned(),
            93..94 => "rollback".to_owned(),
            94..96 => "savepoint s".to_owned(),
            96..98 => "release s".to_owned(),
            _ => "rollback to s".to_owned(),
        }
    }
}

/// What a device knows that has only had the outbox: rows as JSON, by table and canonical key.
type Replica = BTreeMap<(String, String), String>;

/// A device in the middle of the game: the service's side of a file.
struct Game {
    local: Local,
    tables: Vec<Table>,
    replica: Replica,
    /// In memory where the system has such a place: commits wait for no disk.
    _folder: tempfile::TempDir,
}

impl Game {
    fn begin(shape: &Shape, capture: impl Fn(&Connection, &[Table])) -> (Game, Connection) {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        }
        .unwrap();
        let path = folder.path().join("app.db");
        let app = Connection::open(&path).unwrap();
        app.execute_batch("pragma journal_mode = wal; pragma synchronous = off")
            .unwrap();
        app.execute_batch(shape.sql).unwrap();
        let mut local = Local::open(&path).unwrap();
        let tx = local.begin().unwrap();
        Local::migrate(&tx).unwrap();
        let tables = tables(&tx, &TrackSettings::default()).unwrap().tables;
        capture(&tx, &tables);
        store_tables(&tx, &tables).unwrap();
        state::set_number(&tx, "schema_version", schema_version(&tx).unwrap()).unwrap();
        tx.commit().unwrap();
        let mut game = Game {
            local,
            tables,
            replica: Replica::new(),
            _folder: folder,
        };
        game.replica = game.truth();
        (game, app)
    }

    /// Claims all that was logged, `slice` log rows at a time.
    fn claim(&mut self, slice: usize) {
        let limits = ClaimLimits {
            log_rows: slice,
            row_bytes_max: 1 << 20,
            now_ms: 1_741_000_000_000,
        };
        while claim(&mut self.local, limits).unwrap().log_rows > 0 {}
        let conn = self.local.conn();
        let mut entries = conn
            .prepare_cached("select tbl, pk, op, payload from tidewater_outbox where status = 'pending' order by id")
            .unwrap();
        let mut rows = entries.query([]).unwrap();
        while let Some(r) = rows.next().unwrap() {
            let key: (String, String) = (r.get(0).unwrap(), r.get(1).unwrap());
            // A NULL identifies nothing: the push parks it.
            if Key::decode(&key.1).unwrap().has_null() {
                continue;
            }
            match r.get::<_, String>(2).unwrap().as_str() {
                "delete" => self.replica.remove(&key),
                _ => self.replica.insert(key, r.get(3).unwrap()),
            };
        }
        drop(rows);
        drop(entries);
        // As if acknowledged.
        conn.execute("delete from tidewater_outbox", []).unwrap();
    }

    fn truth(&self) -> Replica {
        let conn = self.local.conn();
        let mut out = Replica::new();
        for t in &self.tables {
            let (keys, _) = app_row::keys(conn, t, None, 10_000).unwrap();
            for key in keys.iter().filter(|k| !k.has_null()) {
                let row = app_row::read(conn, t, key).unwrap();
                let text = row.as_ref().map(Row::to_json).unwrap();
                out.insert((t.name.clone(), key.encode()), text);
            }
        }
        out
    }
}

#[derive(Default)]
struct Outcome {
    statements: usize,
    succeeded: usize,
    divergences: usize,
    first: Option<String>,
}

fn play(
    shape: &Shape,
    seed: u64,
    statements: usize,
    settings: &str,
    capture: impl Fn(&Connection, &[Table]),
) -> Outcome {
    let mut rng = Rng::with_seed(seed);
    let (mut game, app) = Game::begin(shape, capture);
    app.execute_batch("pragma foreign_keys = on").unwrap();
    app.execute_batch(settings).unwrap();
    let mut out = Outcome::default();
    let mut history = Vec::new();
    let mut until = 20;
    while out.statements < statements {
        let sql = shape.statement(&mut rng);
        let ok = app.execute_batch(&sql);
        out.statements += 1;
        out.succeeded += usize::from(ok.is_ok());
        history.push(format!("{sql}; -- {ok:?}"));
        if history.len() < until {
            continue;
        }
        if !app.is_autocommit() {
            // A deferred violation would refuse the commit; then nothing of it is to be seen.
            let end = if rng.u8(..4) > 0 {
                "commit"
            } else {
                "rollback"
            };
            if app.execute_batch(end).is_err() {
                app.execute_batch("rollback").unwrap();
            }
        }
        game.claim(if rng.u8(..8) > 0 {
            5_000
        } else {
            rng.usize(1..16)
        });
        let truth = game.truth();
        if game.replica != truth {
            out.divergences += 1;
            out.first.get_or_insert_with(|| {
                format!(
                    "replica {:?}\ntable   {truth:?}\n{}",
                    game.replica,
                    history.join("\n")
                )
            });
            game.replica = truth;
        }
        history.clear();
        until = rng.usize(10..=20);
    }
    out
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The capture that ships.
fn whole(conn: &Connection, tables: &[Table]) {
    install(conn, tables).unwrap();
    ledger::arrange(conn, tables, &[], &[]).unwrap();
}

/// How the app's own connection is set: schema trusted or not, REPLACE seen by delete triggers or not.
fn settings(seed: u64) -> &'static str {
    [
        "pragma trusted_schema = off",
        "pragma recursive_triggers = on",
        "pragma recursive_triggers = off",
        "pragma trusted_schema = off; pragma recursive_triggers = on",
    ][usize::try_from(seed % 4).unwrap_or(0)]
}

#[test]
fn a_replica_that_has_only_what_is_claimed_equals_the_tables() {
    let seeds = match number("TIDEWATER_SEED") {
        Some(seed) => vec![seed],
        // Of each remainder one, and two that nobody has seen.
        None => vec![8, 2, fastrand::u64(..), fastrand::u64(..)],
    };
    println!("TIDEWATER_SEED={seeds:?}");
    let all = number("TIDEWATER_STATEMENTS").map_or(200_000, |n| n as usize);
    let each = all.div_ceil(SHAPES.len() * seeds.len());
    let games = SHAPES
        .iter()
        .flat_map(|s| seeds.iter().map(move |n| (s, *n)));
    let games = Mutex::new(games);
    let found = Mutex::new(BTreeMap::<&str, Outcome>::new());
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                loop {
                    let next = games.lock().unwrap().next();
                    let Some((shape, seed)) = next else { return };
                    let one = play(shape, seed, each, settings(seed), whole);
                    let mut found = found.lock().unwrap();
                    let sum = found.entry(shape.name).or_default();
                    sum.statements += one.statements;
                    sum.succeeded += one.succeeded;
                    sum.divergences += one.divergences;
                    if let (Some(first), None) = (one.first, &sum.first) {
                        sum.first = Some(format!("TIDEWATER_SEED={seed}\n{first}"));
                    }
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    let (mut statements, mut succeeded) = (0, 0);
    for (name, sum) in &found {
        println!(
            "{name}: {} statements, {} succeeded, {} divergences",
            sum.statements, sum.succeeded, sum.divergences
        );
        statements += sum.statements;
        succeeded += sum.succeeded;
    }
    println!("{statements} statements, {succeeded} succeeded");
    for (name, sum) in &found {
        assert!(
            sum.divergences == 0,
            "{name}: {} divergences, the first: {}",
            sum.divergences,
            sum.first.as_deref().unwrap_or_default()
        );
        assert!(
            sum.succeeded * 3 > sum.statements,
            "{name}: too few statements succeed"
        );
    }
    assert!(statements >= all);
}

#[test]
fn plain_triggers_diverge_by_the_same_statements() {
    for shape in &SHAPES {
        let found = play(shape, 1, 1_500, "", |conn, tables| {
            install(conn, &[]).unwrap();
            for t in tables {
                install_as(conn, t, Candidates::Unneeded);
            }
        });
        println!("{}: {} divergences", shape.name, found.divergences);
        assert_eq!(found.divergences > 0, shape.bites, "{}", shape.name);
    }
}

#[test]
fn triggers_without_the_ledger_diverge_where_it_is_kept() {
    let takes = |shape: &&Shape| {
        let conn = app(shape.sql);
        !ledger::wanted(&conn, &tracked(&conn)).unwrap().is_empty()
    };
    let names: Vec<&str> = SHAPES
        .iter()
        .filter(takes)
        .map(|shape| {
            let found = play(shape, 1, 3_000, "", |conn, tables| {
                install(conn, tables).unwrap();
            });
            println!("{}: {} divergences", shape.name, found.divergences);
            // Here a trigger touches nothing but rows that are logged by that.
            let spared = shape.name.starts_with("before triggers");
            assert_eq!(found.divergences > 0, !spared, "{}", shape.name);
            shape.name
        })
        .collect();
    assert_eq!(names.len(), 7, "{names:?}");
}

#[test]
fn forgetting_candidates_early_diverges_where_the_table_is_written_in_between() {
    let shape = SHAPES
        .iter()
        .find(|s| s.name.starts_with("before triggers"))
        .unwrap();
    let found = play(shape, 1, 6_000, "", |conn, tables| {
        for t in tables {
            install_as(conn, t, Candidates::Cleared);
        }
    });
    println!("{}: {} divergences", shape.name, found.divergences);
    assert!(found.divergences > 0);
}
