//! One schedule: a seed, a profile, and the steps that follow from them.

use super::ghost::{Cell, Ghost, Id};
use super::node::{Node, Step, TABLES, is_harmless};
use super::profile::Profile;
use super::remote::{Fate, Gate, lock};
use super::server::{Data, Handle, Server, Txn, Version, tail};
use super::world::SimWorld;
use super::writer::{self, cells};
use fastrand::Rng;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use tidewater::config::Config;
use tidewater::model::{Key, Row};
use tidewater::sqlite::queue;
use tidewater::sync::parts::Request;

pub const HOUR: i64 = 3_600_000;

/// What a violated invariant is told as: its number and what was seen.
pub type Fault = String;

/// A transaction of the server-side writer.
pub struct Writer {
    pub handle: Handle,
    pub versions: Vec<Id>,
}

pub struct Sim {
    pub profile: &'static Profile,
    pub rng: Rng,
    pub world: Rc<SimWorld>,
    pub server: Arc<Mutex<Server>>,
    pub nodes: Vec<Node>,
    pub ghost: Ghost,
    pub writers: Vec<Writer>,
    pub discarded: Vec<String>,
    pub cells: Vec<(&'static str, Key)>,
    folder: PathBuf,
    config: Config,
    saved: Option<Data>,
    pub trace: Vec<String>,
    pub faults: usize,
}

impl Sim {
    pub fn new(
        seed: u64,
        profile: &'static Profile,
        bug: &'static str,
        config: &Config,
        folder: PathBuf,
    ) -> Self {
        let mut rng = Rng::with_seed(seed);
        let world = Rc::new(SimWorld::new(rng.u64(..), bug));
        tidewater::world::simulated::enter(Some(
            Rc::clone(&world) as Rc<dyn tidewater::world::simulated::World>
        ));
        let server = Arc::new(Mutex::new(Server::new(rng.u64(..), bug)));
        let mut config = config.clone();
        config.download.page_size = profile.page;
        config.upload.batch_size = profile.batch;
        config.upload.batch_size_max = profile.batch * 4;
        config.conflict.policy = profile.policy;
        config.retention.tombstone_days = 1;
        config.retention.synced_days = 365;
        config.retry.max_attempts = 2;
        let mut sim = Sim {
            profile,
            rng,
            world,
            server,
            nodes: Vec::new(),
            ghost: Ghost::default(),
            writers: Vec::new(),
            discarded: Vec::new(),
            cells: cells(profile.keys),
            folder,
            config,
            saved: None,
            trace: Vec::new(),
            faults: 0,
        };
        for n in 0..sim.rng.usize(profile.devices.0..=profile.devices.1) {
            let mut node = Node::new(n, &sim.folder, &sim.config);
            node.create(sim.rng.bool());
            sim.nodes.push(node);
        }
        sim
    }

    fn chance(&mut self, of_100: u32) -> bool {
        self.rng.u32(0..100) < of_100
    }

    pub fn told(&mut self, what: impl FnOnce() -> String) {
        self.trace.append(&mut lock(&self.server).log);
        self.trace.push(what());
    }

    /// The steps, then rest, then judgement.
    pub fn run(&mut self) -> Result<(), Fault> {
        for _ in 0..self.profile.steps {
            self.step()?;
        }
        self.settle()?;
        self.judge()
    }

    fn step(&mut self) -> Result<(), Fault> {
        let pass = self.rng.i64(1..40);
        self.pass_time(pass);
        let p = self.profile;
        let weights = [
            p.write,
            p.sync,
            p.poll,
            p.server_write,
            p.clock,
            p.park,
            p.backup,
            p.copy,
            p.server_backup,
            p.server_crash,
            p.day,
            2,
        ];
        let mut drawn = self.rng.u32(0..weights.iter().sum());
        let mut step = 0;
        while drawn >= weights[step] {
            drawn -= weights[step];
            step += 1;
        }
        let n = self.rng.usize(0..self.nodes.len());
        match step {
            0 => writer::app(self, n),
            1 => self.start(n)?,
            2 => return self.poll_one(n),
            3 => writer::server(self),
            4 => {
                self.nodes[n].skew = self.rng.i64(-HOUR..HOUR);
            }
            5 => self.park(n, false)?,
            6 => self.backup_or_restore(n),
            7 => self.copy(n),
            8 => self.server_backup_or_restore()?,
            9 => self.server_crash()?,
            10 => {
                let days = self.rng.i64(8..60) * HOUR;
                self.pass_time(days);
                self.told(|| format!("time passes: {} h", days / HOUR));
            }
            _ => self.orphans(false),
        }
        Ok(())
    }

    pub fn pass_time(&mut self, ms: i64) {
        self.world.now.set(self.world.now.get() + ms);
        lock(&self.server).now = self.world.now.get();
    }

    fn start(&mut self, n: usize) -> Result<(), Fault> {
        if self.nodes[n].is_running() {
            return Ok(());
        }
        let (push, pull) = match self.rng.u8(0..4) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        let request = Request {
            push,
            pull,
            force: self.chance(20),
        };
        let stop = self.chance(5);
        self.world.skew.set(self.nodes[n].skew);
        self.nodes[n]
            .start(&self.server, request, stop)
            .map_err(|e| format!("I6 the device {n} cannot be opened: {e}"))
    }

    fn poll_one(&mut self, n: usize) -> Result<(), Fault> {
        let running: Vec<usize> = (0..self.nodes.len())
            .map(|i| (i + n) % self.nodes.len())
            .filter(|i| self.nodes[*i].is_running())
            .collect();
        let Some(n) = running.first().copied() else {
            return self.start(n);
        };
        let gate = lock(&self.nodes[n].line).at;
        let fate = gate.map(|g| self.fate(g));
        if self.chance(self.profile.crashes) {
            let points = self.rng.u32(1..14);
            self.world.points.set(points);
        }
        self.poll(n, fate)
    }

    /// What happens to a message.
    fn fate(&mut self, gate: Gate) -> Fate {
        if !self.chance(self.profile.faults) {
            return Fate::Pass;
        }
        self.faults += 1;
        match (gate, self.rng.u8(0..4)) {
            (Gate::Request, 0 | 1) => Fate::Unreached,
            (Gate::Lock, 0 | 1) => Fate::TooSlow,
            (Gate::Commit, 0) => Fate::Again,
            (Gate::Commit, 1 | 2) => Fate::LateCommit,
            _ => Fate::Broken,
        }
    }

    pub fn poll(&mut self, n: usize, fate: Option<Fate>) -> Result<(), Fault> {
        lock(&self.nodes[n].line).fate = fate;
        let step = self.nodes[n].poll(&self.world);
        let gate = lock(&self.nodes[n].line).at;
        self.nodes[n].absorb(&mut self.ghost, &self.server)?;
        let came_to = match &step {
            // Without how long it took, which is never the same.
            Step::Done(Ok(r)) => format!(
                "done, sent {} got {} failed {} pending {}",
                r.uploaded, r.downloaded, r.failed, r.pending
            ),
            Step::Done(Err(e)) => format!("failed: {e}"),
            step => format!("{step:?}"),
        };
        self.told(|| format!("device {n} {fate:?}: {came_to} at {gate:?}"));
        match step {
            Step::Crashed => {
                self.faults += 1;
                Ok(())
            }
            Step::Done(Err(e)) if !is_harmless(&e) && !self.profile.loose => {
                Err(format!("I6 device {n}: {e}"))
            }
            _ => Ok(()),
        }
    }

    /// A person looks at what was refused.
    pub fn park(&mut self, n: usize, gives_up: bool) -> Result<(), Fault> {
        if self.nodes[n].is_running() {
            return Ok(());
        }
        let discards = gives_up || self.chance(30);
        let now = self.world.now.get() + self.nodes[n].skew;
        let done = self.nodes[n].with_local(&self.world, |local| {
            if !discards {
                return queue::retry_failed(local, &[], true, now).map(|_| Vec::new());
            }
            let mut keys = queue::failed_before(local.conn(), i64::MAX)?;
            if !gives_up {
                keys.truncate(1);
            }
            queue::discard(local, &keys, now)
        });
        let keys = done.map_err(|e| format!("I6 device {n}: {e}"))?;
        self.discarded
            .extend(keys.iter().map(|k| tail(k).to_owned()));
        self.nodes[n].absorb(&mut self.ghost, &self.server)
    }

    fn backup_or_restore(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if let Some((from, holds, count)) = node.backup.take() {
            node.app = None;
            node.kill();
            for suffix in ["", "-wal", "-journal", "-shm"] {
                let from = PathBuf::from(format!("{}{suffix}", from.display()));
                let to = PathBuf::from(format!("{}{suffix}", node.path.display()));
                let _ = std::fs::remove_file(&to);
                if from.exists() {
                    std::fs::rename(&from, &to).expect("a restore");
                }
            }
            node.holds = holds;
            lock(&node.line).delivered.clear();
            for v in &mut self.ghost.versions[count..] {
                v.excused |= v.file == Some(n);
            }
            self.faults += 1;
            self.told(|| format!("device {n}: an older file is put back"));
        } else {
            let to = self.folder.join(format!("{n}.backup"));
            node.copy_to(&to);
            node.backup = Some((to, node.holds.clone(), self.ghost.versions.len()));
            self.told(|| format!("device {n}: backed up"));
        }
    }

    fn copy(&mut self, n: usize) {
        if self.nodes.len() >= 5 {
            return;
        }
        let number = self.nodes.len();
        let mut twin = Node::new(number, &self.folder, &self.config);
        self.nodes[n].copy_to(&twin.path);
        twin.holds = self.nodes[n].holds.clone();
        twin.skew = self.nodes[n].skew;
        self.nodes.push(twin);
        self.faults += 1;
        self.told(|| format!("device {n}: copied to {number}"));
    }

    fn server_backup_or_restore(&mut self) -> Result<(), Fault> {
        match self.saved.take() {
            // Once in a schedule: `docs/reliability.md` says what a second one may come to.
            None if lock(&self.server).timeline > 1 => Ok(()),
            None => {
                self.saved = Some(lock(&self.server).data.clone());
                self.told(|| "the server is backed up".into());
                Ok(())
            }
            Some(data) => {
                lock(&self.server).restore(data);
                // Nobody but a device can bring back what it wrote.
                for v in &mut self.ghost.versions {
                    v.excused |= v.file.is_none();
                }
                self.faults += 1;
                self.told(|| "the server is restored".into());
                self.cut_all()
            }
        }
    }

    fn server_crash(&mut self) -> Result<(), Fault> {
        let before = lock(&self.server).data.last.clone();
        lock(&self.server).crash();
        let after = lock(&self.server).data.last.clone();
        for (cell, was) in before {
            if after.get(&cell) != Some(&was)
                && let Some(id) = self.ghost.of_tail(&was)
            {
                // Committed without waiting for the disk, and not read by anybody since.
                self.excuse(id);
            }
        }
        self.faults += 1;
        self.told(|| "the server crashes".into());
        self.cut_all()
    }

    fn excuse(&mut self, id: Id) {
        for i in self.ghost.versions[id].seen.clone() {
            let v = &mut self.ghost.versions[i];
            v.excused |= v.file.is_none();
        }
        let v = &mut self.ghost.versions[id];
        v.excused |= v.file.is_none();
    }

    /// All connections break, and what was open on the server is gone.
    fn cut_all(&mut self) -> Result<(), Fault> {
        for w in std::mem::take(&mut self.writers) {
            for id in w.versions {
                self.ghost.versions[id].excused = true;
            }
        }
        for n in 0..self.nodes.len() {
            lock(&self.nodes[n].line).orphans.clear();
            if self.nodes[n].is_running() && lock(&self.nodes[n].line).at.is_some() {
                self.poll(n, Some(Fate::Broken))?;
            }
        }
        Ok(())
    }

    /// Transactions without a connection come to their end.
    pub fn orphans(&mut self, all: bool) {
        for n in 0..self.nodes.len() {
            let orphans = std::mem::take(&mut lock(&self.nodes[n].line).orphans);
            for (handle, commits) in orphans {
                if all || self.rng.bool() {
                    lock(&self.server).end(handle, commits);
                } else {
                    lock(&self.nodes[n].line).orphans.push((handle, commits));
                }
            }
        }
    }

    /// Writes one version into a transaction of the server-side writer.
    pub fn server_put(&mut self, txn: &mut Txn, table: &str, key: &Key, row: Option<Row>) -> Id {
        let mut server = lock(&self.server);
        let number = server.data.tables[table].0;
        let cell = (number, key.encode());
        let before = txn.last.get(&cell).or_else(|| server.data.last.get(&cell));
        let over = before.and_then(|t| self.ghost.of_tail(t));
        let replaced = server.row(txn, &cell).map(|v| v.change);
        let mut change = server.change();
        if let Some(old) = replaced.filter(|old| old[..10] > change[..10]) {
            change = format!("{}{}", &old[..10], tail(&change));
        }
        let mark = row.as_ref().and_then(writer::mark_of);
        let ghost_cell: Cell = (table.to_owned(), key.encode());
        let id = self.ghost.write(ghost_cell, mark, over, None);
        self.ghost.travels(tail(&change), id);
        let version = Version {
            key: key.clone(),
            row,
            change: change.clone(),
            xid: txn.xid,
            device: "0".into(),
        };
        txn.last.insert(cell.clone(), tail(&change).to_owned());
        txn.locks.insert(cell.clone());
        if version.row.is_some() {
            txn.rows.insert(cell.clone(), Some(version));
            txn.graves.insert(cell, None);
        } else {
            txn.rows.insert(cell.clone(), None);
            txn.graves.insert(cell, Some(version));
        }
        server.keep(txn.clone());
        id
    }

    /// Whether the server knows the tables by now.
    pub fn server_is_ready(&self) -> bool {
        lock(&self.server).data.tables.len() == TABLES.len()
    }
}
