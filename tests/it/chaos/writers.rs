//! Who writes: an app at each device, by a connection of its own, and somebody in PostgreSQL.
//!
//! Every value is written once in the history of the world, and each writer notes what it saw when it
//! wrote. So of every value it can be said afterwards whether it stands, or somebody who saw it wrote
//! over it, or it must be among the losers of a conflict.

use super::plan::Plan;
use crate::support::server::Client;
use fastrand::Rng;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub const TABLES: &str = "
    create table notes (id text primary key, v text not null, n integer, r real, b blob);
    create table pairs (a integer, b text, v text not null, n integer, primary key (a, b)) without rowid;
    create table sums (id integer primary key, v text not null, total numeric);
";

/// What the app of every device waits for a lock; it must never wait longer because of the service.
pub const BUSY: Duration = Duration::from_secs(5);

/// A row's place: its table and its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub table: &'static str,
    n: u32,
    /// Who alone writes there.
    owner: Option<usize>,
}

impl Place {
    /// The condition that names the row in both databases.
    fn condition(&self) -> String {
        match self.table {
            "notes" => format!("id = '{}'", self.id()),
            "pairs" => format!("a = {} and b = '{}'", self.n % 3, self.id()),
            _ => format!("id = {}", self.number()),
        }
    }

    fn id(&self) -> String {
        match self.owner {
            Some(w) => format!("own-{w}-{}", self.n),
            None => format!("k{}", self.n),
        }
    }

    fn number(&self) -> u64 {
        u64::from(self.n) + self.owner.map_or(0, |w| (w as u64 + 1) * 1_000_000_000)
    }

    /// The key as tidewater writes it in text.
    pub fn pk(&self) -> String {
        match self.table {
            "notes" => format!("[\"{}\"]", self.id()),
            "pairs" => format!("[{},\"{}\"]", self.n % 3, self.id()),
            _ => format!("[{}]", self.number()),
        }
    }

    fn columns(&self) -> &'static str {
        match self.table {
            "notes" => "id, v, n, r, b",
            "pairs" => "a, b, v, n",
            _ => "id, v, total",
        }
    }

    fn insert(&self, value: &str, rng: &mut Rng, postgres: bool) -> String {
        let key = match self.table {
            "notes" => format!("'{}'", self.id()),
            "pairs" => format!("{}, '{}'", self.n % 3, self.id()),
            _ => self.number().to_string(),
        };
        format!(
            "insert into {} ({}) values ({key}, '{value}', {})",
            self.table,
            self.columns(),
            extras(self.table, rng, postgres).join(", ")
        )
    }

    fn update(&self, value: &str, rng: &mut Rng, postgres: bool) -> String {
        let names: &[&str] = match self.table {
            "notes" => &["n", "r", "b"],
            "pairs" => &["n"],
            _ => &["total"],
        };
        let sets: Vec<String> = names
            .iter()
            .zip(extras(self.table, rng, postgres))
            .map(|(n, v)| format!("{n} = {v}"))
            .collect();
        format!(
            "update {} set v = '{value}', {} where {}",
            self.table,
            sets.join(", "),
            self.condition()
        )
    }

    fn delete(&self) -> String {
        format!("delete from {} where {}", self.table, self.condition())
    }

    fn read(&self) -> String {
        format!("select v from {} where {}", self.table, self.condition())
    }
}

/// Values of the other columns, of every type and at its edges.
fn extras(table: &str, rng: &mut Rng, postgres: bool) -> Vec<String> {
    let n = match rng.u8(..4) {
        0 => "NULL".to_owned(),
        1 => i64::MAX.to_string(),
        _ => rng.i64(-1000..1000).to_string(),
    };
    if table == "pairs" {
        return vec![n];
    }
    let r = match rng.u8(..4) {
        0 => "NULL".to_owned(),
        1 => "1e300".to_owned(),
        _ => format!("{:?}", f64::from(rng.i32(..)) / 7.0),
    };
    if table == "sums" {
        return vec![format!("{}.25", rng.i32(-1000..1000))];
    }
    let hex: String = (0..rng.usize(..40))
        .map(|_| format!("{:02x}", rng.u8(..)))
        .collect();
    let b = match (rng.u8(..4), postgres) {
        (0, _) => "NULL".to_owned(),
        (_, true) => format!("'\\x{hex}'::bytea"),
        (_, false) => format!("x'{hex}'"),
    };
    vec![n, r, b]
}

/// One write of one row.
#[derive(Debug, Clone)]
pub struct Write {
    pub place: Place,
    pub writer: usize,
    /// The value that the writer saw and wrote over; none where it saw no row.
    pub saw: Option<String>,
    /// The new value; none for a delete.
    pub value: Option<String>,
    /// The transaction's number in the audit, for a writer in PostgreSQL: whether it was committed is
    /// asked there, for an answer may have been lost.
    pub audit: Option<u64>,
    /// Before its commit, and after what it saw was read.
    pub at: Instant,
}

/// What the fault lanes ask of an app.
#[derive(Debug, Default)]
pub struct Asked {
    /// Hold the write lock for so long, once.
    pub hold: Mutex<Option<Duration>>,
    /// Writers end.
    pub stop: AtomicBool,
    /// Transactions so far.
    pub written: AtomicU64,
}

/// What a writer did.
#[derive(Debug, Default)]
pub struct Done {
    pub writes: Vec<Write>,
    /// Errors that an app must never see.
    pub complaints: Vec<String>,
    /// The longest that the app waited for one transaction.
    pub slowest: Duration,
}

/// How a writer writes.
pub struct Hand {
    pub writer: usize,
    pub rng: Rng,
    pub shared_keys: usize,
    /// Between two transactions, ms at most.
    pub pace: u64,
    pub deletes: bool,
    pub asynchronous: f64,
    made: u64,
    own: u32,
}

impl Hand {
    pub fn new(writer: usize, plan: &Plan) -> Hand {
        let of_server = writer == plan.devices;
        Hand {
            writer,
            rng: Rng::with_seed(plan.seed ^ (writer as u64 + 1)),
            shared_keys: plan.shared_keys,
            pace: if of_server {
                plan.server_pace
            } else {
                plan.pace
            },
            deletes: plan.deletes,
            asynchronous: plan.asynchronous,
            made: 0,
            own: 0,
        }
    }

    fn place(&mut self) -> Place {
        let table = ["notes", "notes", "pairs", "sums"][self.rng.usize(..4)];
        let own = self.rng.u8(..4) == 0;
        self.own += u32::from(own);
        let shared = u32::try_from(self.shared_keys).expect("few");
        Place {
            table,
            n: if own {
                // Some of its own rows are written again.
                self.own - self.rng.u32(..self.own.min(3))
            } else {
                self.rng.u32(..shared)
            },
            owner: own.then_some(self.writer),
        }
    }

    /// The rows of one transaction; PostgreSQL's writer takes one, and so is never part of a deadlock.
    fn places(&mut self, single: bool) -> Vec<Place> {
        let n = match self.rng.u8(..20) {
            _ if single => 1,
            0 => self.rng.usize(20..120),
            1..=4 => self.rng.usize(2..6),
            _ => 1,
        };
        let mut places: Vec<Place> = (0..n).map(|_| self.place()).collect();
        places.sort();
        places.dedup();
        self.rng.shuffle(&mut places);
        places
    }

    /// The statements for a row that now holds `saw`, and what they do.
    fn edit(&mut self, place: &Place, saw: Option<String>, postgres: bool) -> Vec<(String, Write)> {
        let writer = self.writer;
        let write = |saw: Option<String>, value: Option<String>| Write {
            place: place.clone(),
            writer,
            saw,
            value,
            audit: None,
            at: Instant::now(),
        };
        self.made += 1;
        let value = format!("<{writer}.{}>", self.made);
        let Some(seen) = saw else {
            let sql = place.insert(&value, &mut self.rng, postgres);
            return vec![(sql, write(None, Some(value)))];
        };
        match self.rng.u8(..20) {
            0..=3 if self.deletes => vec![(place.delete(), write(Some(seen), None))],
            4 if self.deletes => {
                let sql = place.insert(&value, &mut self.rng, postgres);
                vec![
                    (place.delete(), write(Some(seen), None)),
                    (sql, write(None, Some(value))),
                ]
            }
            _ => {
                let sql = place.update(&value, &mut self.rng, postgres);
                vec![(sql, write(Some(seen), Some(value)))]
            }
        }
    }

    /// People do not write without pause; without one a schedule would be one long backlog.
    fn pause(&mut self, asked: &Asked) {
        let end = Instant::now() + Duration::from_millis(self.rng.u64(1..=self.pace));
        while !asked.stop.load(Ordering::SeqCst) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

/// The app of one device, until it is told to stop.
pub fn app(mut hand: Hand, db: PathBuf, asked: &Asked) -> Done {
    let mut done = Done::default();
    let mut conn = Connection::open(db).expect("the app's file");
    conn.busy_timeout(BUSY).expect("a busy timeout");
    while !asked.stop.load(Ordering::SeqCst) {
        let hold = asked.hold.lock().expect("the hold").take();
        let places = hand.places(false);
        let began = Instant::now();
        match transaction(&mut hand, &mut conn, &places, hold) {
            Ok(writes) => {
                done.writes.extend(writes);
                asked.written.fetch_add(1, Ordering::SeqCst);
            }
            Err(e) => done.complaints.push(format!(
                "the app of device {} after {:?}: {e}",
                hand.writer,
                began.elapsed()
            )),
        }
        done.slowest = done
            .slowest
            .max(began.elapsed().saturating_sub(hold.unwrap_or_default()));
        hand.pause(asked);
    }
    done
}

fn transaction(
    hand: &mut Hand,
    conn: &mut Connection,
    places: &[Place],
    hold: Option<Duration>,
) -> rusqlite::Result<Vec<Write>> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut writes = Vec::new();
    for place in places {
        let saw: Option<String> = tx.query_row(&place.read(), [], |r| r.get(0)).optional()?;
        for (sql, write) in hand.edit(place, saw, false) {
            tx.execute_batch(&sql)?;
            writes.push(write);
        }
    }
    if let Some(time) = hold {
        std::thread::sleep(time);
    }
    tx.commit()?;
    Ok(writes)
}

/// Somebody in PostgreSQL, until told to stop. Where the server is away, it comes back to it.
pub fn postgres(
    mut hand: Hand,
    connect: impl Fn() -> Option<Client>,
    audit: &str,
    asked: &Asked,
) -> Done {
    let mut done = Done::default();
    let mut client = None;
    let mut number = 0;
    while !asked.stop.load(Ordering::SeqCst) {
        hand.pause(asked);
        let Some(server) = client.take().or_else(&connect) else {
            continue;
        };
        let place = hand.places(true).remove(0);
        number += 1;
        let mut begin =
            "begin; set local lock_timeout = '3s'; set local statement_timeout = '5s'".to_owned();
        if hand.rng.f64() < hand.asynchronous {
            // Acknowledged before it is on the server's disk: a crash may take it back.
            begin.push_str("; set local synchronous_commit = off");
        }
        let written = server.try_exec(&begin).and_then(|()| {
            let rows = server.try_rows(&format!("{} for update", place.read()))?;
            let saw = rows.into_iter().flatten().next();
            let mut writes = Vec::new();
            for (sql, mut write) in hand.edit(&place, saw, true) {
                server.try_exec(&sql)?;
                write.audit = Some(number);
                writes.push(write);
            }
            server.try_exec(&format!("insert into {audit}.committed values ({number})"))?;
            Ok(writes)
        });
        match written {
            Ok(writes) => {
                done.writes.extend(writes);
                if server.try_exec("commit").is_ok() {
                    client = Some(server);
                }
            }
            Err(_) if server.try_exec("rollback").is_ok() => client = Some(server),
            Err(_) => {}
        }
    }
    done
}
