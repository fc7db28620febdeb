//! Capture against the truth: random statements, and a replica that only ever sees the key log.
//!
//! Every twenty statements the replica consumes the log as the claim does (fold the keys, read each
//! row by its exact key, present is an upsert and absent a delete, delete exactly the entries that
//! were read) and must equal the table. The same statements without candidates must diverge, or the
//! fuzz would prove nothing. `TIDEWATER_SEED` replays, `TIDEWATER_STATEMENTS` sets the number.

use super::fuzz_shapes::{SHAPES, Shape};
use super::install;
use super::install::{install_as, prune_candidates};
use super::tests::{app, tracked};
use super::triggers::Candidates;
use crate::model::{Key, Table};
use crate::sqlite::quote::{ident, idents};
use crate::sqlite::value;
use fastrand::Rng;
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};

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

/// What a device knows that has only read the log: rows by the text of their typed key.
type Replica = BTreeMap<String, String>;

struct Reader {
    consume: String,
    by_key: String,
    all: String,
    key: usize,
    width: usize,
}

impl Reader {
    fn new(table: &Table) -> Self {
        let keys: Vec<String> = (1..=table.key.len()).map(|i| format!("k{i}")).collect();
        let exact: Vec<String> = table
            .key
            .iter()
            .enumerate()
            .map(|(i, k)| {
                let (k, i) = (ident(k), i + 1);
                format!("{k} is ?{i} collate binary and typeof({k}) = typeof(?{i})")
            })
            .collect();
        let all = format!(
            "select {}, {} from {}",
            idents(table.key.iter().map(String::as_str)),
            idents(table.columns.iter().map(|c| c.name.as_str())),
            ident(&table.name)
        );
        Reader {
            consume: format!(
                "select id, {} from tidewater_log where tbl = '{}'",
                keys.join(", "),
                table.name
            ),
            by_key: format!("{all} where {}", exact.join(" and ")),
            all,
            key: table.key.len(),
            width: table.columns.len(),
        }
    }

    fn row(&self, r: &rusqlite::Row<'_>) -> rusqlite::Result<(Key, String)> {
        Ok((
            value::key(r, 0, self.key)?,
            value::key(r, self.key, self.width)?.encode(),
        ))
    }

    fn feed(&self, conn: &Connection, replica: &mut Replica) {
        let entries: Vec<(i64, Key)> = conn
            .prepare_cached(&self.consume)
            .unwrap()
            .query_map([], |r| Ok((r.get(0)?, value::key(r, 1, self.key)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let mut seen = BTreeSet::new();
        for (id, key) in entries {
            conn.prepare_cached("delete from tidewater_log where id = ?1")
                .unwrap()
                .execute([id])
                .unwrap();
            if key.has_null() || !seen.insert(key.encode()) {
                continue;
            }
            let found: Vec<String> = conn
                .prepare_cached(&self.by_key)
                .unwrap()
                .query_map(rusqlite::params_from_iter(&key.0), |r| Ok(self.row(r)?.1))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            match found.into_iter().next() {
                Some(row) => replica.insert(key.encode(), row),
                None => replica.remove(&key.encode()),
            };
        }
    }

    fn truth(&self, conn: &Connection) -> Replica {
        conn.prepare_cached(&self.all)
            .unwrap()
            .query_map([], |r| self.row(r))
            .unwrap()
            .map(Result::unwrap)
            .filter(|(key, _)| !key.has_null())
            .map(|(key, row)| (key.encode(), row))
            .collect()
    }
}

struct Outcome {
    succeeded: usize,
    divergences: usize,
    first: Option<String>,
}

fn play(
    shape: &Shape,
    seed: u64,
    statements: usize,
    capture: impl Fn(&Connection, &[Table]),
) -> Outcome {
    let mut rng = Rng::with_seed(seed);
    let conn = app(shape.sql);
    conn.execute_batch("pragma foreign_keys = on").unwrap();
    let tables = tracked(&conn);
    capture(&conn, &tables);
    let readers: Vec<(Reader, std::cell::RefCell<Replica>)> = tables
        .iter()
        .map(|t| {
            let reader = Reader::new(t);
            let replica = reader.truth(&conn);
            (reader, replica.into())
        })
        .collect();
    let mut out = Outcome {
        succeeded: 0,
        divergences: 0,
        first: None,
    };
    let mut history = Vec::new();
    for i in 1..=statements {
        let sql = shape.statement(&mut rng);
        let ok = conn.execute_batch(&sql);
        out.succeeded += usize::from(ok.is_ok());
        history.push(format!("{sql}; -- {ok:?}"));
        if i % 20 != 0 {
            continue;
        }
        if !conn.is_autocommit() {
            // A deferred violation would refuse the commit; then nothing of it is to be seen.
            let end = if rng.u8(..4) > 0 {
                "commit"
            } else {
                "rollback"
            };
            if conn.execute_batch(end).is_err() {
                conn.execute_batch("rollback").unwrap();
            }
        }
        for (reader, replica) in &readers {
            let mut replica = replica.borrow_mut();
            reader.feed(&conn, &mut replica);
            let truth = reader.truth(&conn);
            if *replica != truth {
                out.divergences += 1;
                out.first.get_or_insert_with(|| {
                    format!(
                        "replica {:?}\ntable   {truth:?}\n{}",
                        *replica,
                        history.join("\n")
                    )
                });
                *replica = truth;
            }
        }
        if rng.bool() {
            prune_candidates(&conn).unwrap();
        }
        history.clear();
    }
    out
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn a_replica_that_reads_only_the_log_equals_the_table() {
    let seed = number("TIDEWATER_SEED").unwrap_or_else(|| fastrand::u64(..));
    let each = number("TIDEWATER_STATEMENTS").map_or(60_000, |n| n as usize) / SHAPES.len();
    println!("TIDEWATER_SEED={seed}");
    let mut succeeded = 0;
    for shape in &SHAPES {
        let found = play(shape, seed, each, |conn, tables| {
            install(conn, tables).unwrap();
        });
        println!(
            "{}: {each} statements, {} succeeded, {} divergences",
            shape.name, found.succeeded, found.divergences
        );
        assert!(
            found.divergences == 0,
            "TIDEWATER_SEED={seed}, {}: {} divergences, the first:\n{}",
            shape.name,
            found.divergences,
            found.first.unwrap_or_default()
        );
        assert!(
            found.succeeded * 3 > each,
            "{}: too few statements succeed",
            shape.name
        );
        succeeded += found.succeeded;
    }
    println!("{succeeded} statements succeeded");
}

#[test]
fn without_candidates_the_same_statements_diverge() {
    let seed = 1;
    for shape in &SHAPES {
        let found = play(shape, seed, 3_000, |conn, tables| {
            for t in tables {
                install_as(conn, t, Candidates::Unneeded);
            }
        });
        println!("{}: {} divergences", shape.name, found.divergences);
        assert_eq!(found.divergences > 0, shape.bites, "{}", shape.name);
    }
}

#[test]
fn forgetting_candidates_early_diverges_where_the_table_is_written_in_between() {
    let seed = 1;
    let shape = SHAPES
        .iter()
        .find(|s| s.name.starts_with("before triggers"))
        .unwrap();
    let found = play(shape, seed, 6_000, |conn, tables| {
        for t in tables {
            install_as(conn, t, Candidates::Cleared);
        }
    });
    println!("{}: {} divergences", shape.name, found.divergences);
    assert!(found.divergences > 0);
}
