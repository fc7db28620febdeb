//! One device: a real SQLite file, the app that writes to it, and the sync core at work on it, stopped
//! wherever it waits for the server.

use super::ghost::{Cell, Ghost, Id};
use super::remote::{Line, SimRemote, lock};
use super::server::{Server, tail};
use super::world::{Crash, SimWorld};
use rusqlite::{Connection, types::ValueRef};
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use tidewater::config::Config;
use tidewater::error::{Code, Disposition, Error, Result};
use tidewater::report::{NoProgress, NowReport};
use tidewater::sqlite::local::Local;
use tidewater::sync::ops::InitOptions;
use tidewater::sync::{Device, parts};
use tokio_util::sync::CancellationToken;

/// The app's tables.
pub const SCHEMA: &str = "create table items (id integer primary key, v text, n); \
     create table links (a text not null, b integer not null, v text, n real, primary key (a, b)) \
     without rowid;";

pub const TABLES: [&str; 2] = ["items", "links"];

type Running = Pin<Box<dyn Future<Output = (Device<SimRemote>, Result<NowReport>)>>>;

/// What a step of the core came to.
#[derive(Debug)]
pub enum Step {
    /// It waits at a gate.
    Waits,
    /// The sync is over.
    Done(Result<NowReport>),
    /// The process ended.
    Crashed,
}

pub struct Node {
    pub path: PathBuf,
    pub app: Option<Connection>,
    resting: Option<Device<SimRemote>>,
    running: Option<Running>,
    pub line: Arc<Mutex<Line>>,
    pub skew: i64,
    pub config: Config,
    /// The version that stands in the file under each key, as the outside knows it.
    pub holds: BTreeMap<Cell, Id>,
    /// A backup: the file's bytes, what stood in it, and how many versions there were.
    pub backup: Option<(PathBuf, BTreeMap<Cell, Id>, usize)>,
}

impl Node {
    pub fn new(number: usize, folder: &Path, config: &Config) -> Self {
        let path = folder.join(format!("{number}.db"));
        let mut config = config.clone();
        config.local.path = Some(path.clone());
        config.device.name = format!("device{number}");
        Node {
            path,
            app: None,
            resting: None,
            running: None,
            line: Arc::default(),
            skew: 0,
            config,
            holds: BTreeMap::new(),
            backup: None,
        }
    }

    pub fn create(&mut self, wal: bool) {
        let app = Connection::open(&self.path).expect("a file");
        let mode = if wal { "wal" } else { "delete" };
        app.execute_batch(&format!(
            "pragma journal_mode = {mode}; pragma synchronous = off; {SCHEMA}"
        ))
        .expect("the schema");
        self.app = Some(app);
        let mut local = Local::open(&self.path).expect("the file opens");
        parts::install(&self.config, &InitOptions::default(), &mut local).expect("init");
    }

    pub fn app(&mut self) -> &mut Connection {
        let path = &self.path;
        self.app.get_or_insert_with(|| {
            let app = Connection::open(path).expect("the app's file");
            app.execute_batch("pragma synchronous = off").expect("set");
            app
        })
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts a sync.
    pub fn start(
        &mut self,
        server: &Arc<Mutex<Server>>,
        request: parts::Request,
        stop: bool,
    ) -> Result<()> {
        let mut device = match self.resting.take() {
            Some(device) => device,
            None => self.open(server)?,
        };
        let cancel = CancellationToken::new();
        if stop {
            cancel.cancel();
        }
        self.running = Some(Box::pin(async move {
            let done = parts::sync(&mut device, &request, &cancel, &NoProgress).await;
            let told = device
                .report_problems(done.as_ref().err())
                .and_then(|()| device.prune_if_due());
            let done = match (done, told) {
                (Ok(_), Err(e)) => Err(e),
                (done, _) => done,
            };
            (device, done)
        }));
        Ok(())
    }

    fn open(&self, server: &Arc<Mutex<Server>>) -> Result<Device<SimRemote>> {
        let remote = SimRemote {
            server: Arc::clone(server),
            line: Arc::clone(&self.line),
        };
        let local = Local::open(&self.path)?;
        Device::new(local, remote, self.config.clone())
    }

    /// Lets the core run until it waits, ends or dies.
    pub fn poll(&mut self, world: &SimWorld) -> Step {
        let Some(running) = self.running.as_mut() else {
            return Step::Waits;
        };
        world.skew.set(self.skew);
        let mut context = Context::from_waker(Waker::noop());
        let polled = catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(&mut context)));
        world.points.set(0);
        match polled {
            Ok(Poll::Pending) => Step::Waits,
            Ok(Poll::Ready((device, done))) => {
                self.running = None;
                let reopen = matches!(&done, Err(e) if e.code == Code::LocalUnusable
                    || e.disposition == Some(Disposition::Reconnect));
                if !reopen {
                    self.resting = Some(device);
                }
                Step::Done(done)
            }
            Err(end) if end.is::<Crash>() => {
                self.kill();
                Step::Crashed
            }
            Err(fault) => resume_unwind(fault),
        }
    }

    /// The process ends here; the file is closed.
    pub fn kill(&mut self) {
        self.running = None;
        self.resting = None;
        let mut line = lock(&self.line);
        line.at = None;
        line.fate = None;
    }

    /// Works on the file as a command of the program would.
    pub fn with_local<T>(&self, world: &SimWorld, work: impl FnOnce(&mut Local) -> T) -> T {
        world.skew.set(self.skew);
        let mut local = Local::open(&self.path).expect("the file opens");
        work(&mut local)
    }

    /// Puts the bytes of a file at rest elsewhere.
    pub fn copy_to(&mut self, to: &Path) {
        self.app = None;
        self.kill();
        for suffix in ["", "-wal", "-journal"] {
            let from = PathBuf::from(format!("{}{suffix}", self.path.display()));
            let to = PathBuf::from(format!("{}{suffix}", to.display()));
            let _ = std::fs::remove_file(&to);
            if from.exists() {
                std::fs::copy(&from, &to).expect("a copy");
            }
        }
    }

    /// Learns what the last step has changed: which change carries which version, what was installed.
    pub fn absorb(
        &mut self,
        ghost: &mut Ghost,
        server: &Mutex<Server>,
    ) -> std::result::Result<(), String> {
        let app = {
            self.app();
            self.app.as_ref().expect("open")
        };
        {
            let mut s = app
                .prepare_cached(
                    "select change_key, tbl, pk from tidewater_outbox where status <> 'synced'",
                )
                .expect("the outbox");
            let mut rows = s.query([]).expect("the outbox");
            while let Some(r) = rows.next().expect("an entry") {
                let change: String = r.get(0).expect("key");
                let cell: Cell = (r.get(1).expect("table"), r.get(2).expect("key"));
                if let Some(id) = self.holds.get(&cell) {
                    ghost.travels(tail(&change), *id);
                }
            }
        }
        let there = contents(app);
        let delivered = lock(&self.line).delivered.clone();
        let mut cells: Vec<Cell> = there.keys().chain(self.holds.keys()).cloned().collect();
        cells.extend(delivered.keys().cloned());
        cells.sort();
        cells.dedup();
        for cell in cells {
            let mark = there.get(&cell).and_then(|(m, _)| m.clone());
            let held = self
                .holds
                .get(&cell)
                .map(|i| ghost.versions[*i].mark.clone());
            let delivery = delivered.get(&cell).and_then(Option::as_ref);
            let by_delivery = delivery
                .filter(|v| v.row.is_none() == mark.is_none())
                .and_then(|v| ghost.of_tail(tail(&v.change)));
            if held.clone().flatten() == mark {
                // Nothing to see; but a tombstone over an absent row was heard of all the same.
                let known = self.holds.get(&cell).map(|i| &ghost.versions[*i].seen);
                if mark.is_none()
                    && by_delivery.is_none_or(|d| known.is_none_or(|k| !k.contains(&d)))
                    && let Some(id) = by_delivery
                    && self.holds.get(&cell) != Some(&id)
                    && is_applied(app, delivery.map_or("", |v| &v.change))
                {
                    self.holds.insert(cell, id);
                }
                continue;
            }
            let last = || {
                let server = lock(server);
                let table = server.data.tables.get(&cell.0)?.0;
                let last = server.data.last.get(&(table, cell.1.clone()))?;
                ghost.of_tail(last)
            };
            let id = match &mark {
                Some(m) if !Ghost::is_shared(m) => ghost.of_mark(&cell, m),
                Some(m) => by_delivery.or_else(|| ghost.of_mark(&cell, m)),
                None => by_delivery.or_else(last),
            };
            match id {
                Some(id) => {
                    self.holds.insert(cell, id);
                }
                None if mark.is_none() => {
                    self.holds.remove(&cell);
                }
                None => return Err(format!("I2 nobody wrote {mark:?} to {cell:?}")),
            }
        }
        Ok(())
    }
}

fn is_applied(app: &Connection, change: &str) -> bool {
    app.prepare_cached(
        "select exists (select 1 from tidewater_inbox where status = 'applied' and change_key = ?1)",
    )
    .and_then(|mut s| s.query_row([change], |r| r.get(0)))
    .unwrap_or(false)
}

pub fn text(v: ValueRef<'_>) -> String {
    match v {
        ValueRef::Null => "null".into(),
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Real(r) => format!("r{:x}", r.to_bits()),
        ValueRef::Text(t) => format!("'{}'", String::from_utf8_lossy(t)),
        ValueRef::Blob(b) => format!("x{b:?}"),
    }
}

/// Every row of the app: its key, its mark, and its whole content with types.
pub fn contents(app: &Connection) -> BTreeMap<Cell, (Option<String>, String)> {
    use tidewater::model::{Key, Value};
    let mut out = BTreeMap::new();
    for (table, sql) in [
        ("items", "select id, null, v, n from items"),
        ("links", "select a, b, v, n from links"),
    ] {
        let mut s = app.prepare_cached(sql).expect("a table");
        let mut rows = s.query([]).expect("rows");
        while let Some(r) = rows.next().expect("a row") {
            let key = if table == "items" {
                Key(vec![Value::Int(r.get(0).expect("id"))])
            } else {
                Key(vec![
                    Value::Text(r.get(0).expect("a")),
                    Value::Int(r.get(1).expect("b")),
                ])
            };
            let mark: Option<String> = r.get(2).expect("v");
            let whole = format!(
                "{} {}",
                text(r.get_ref(2).expect("v")),
                text(r.get_ref(3).expect("n"))
            );
            out.insert((table.to_owned(), key.encode()), (mark, whole));
        }
    }
    out
}

/// Whether an error says only that the server is away.
pub fn is_harmless(e: &Error) -> bool {
    e.is_offline()
        || matches!(
            e.disposition,
            Some(
                Disposition::OutcomeUnknown
                    | Disposition::RetryNow
                    | Disposition::TooSlow
                    | Disposition::Unreached
            )
        )
}
