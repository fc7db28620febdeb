//! `Remote` over the server in memory. Every message passes gates at which the scheduler decides: it goes
//! on, it is lost, its answer is lost, its transaction outlives the connection.

use super::push::{self, Judged};
use super::server::{Account, Handle, Server, mirror};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tidewater::error::{Code, Disposition, Error, Result};
use tidewater::model::{Form, Key, Snapshot, Table, Token};
use tidewater::remote::{
    Batch, Examined, Fetched, Head, Hello, Identity, Member, Page, PageRequest, PushAnswer, Remote,
    Standing, Tracked, Version, Workspace,
};

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// It was sent and has not arrived.
    Request,
    /// It waits for a lock.
    Lock,
    /// Its work is done and is about to be committed.
    Commit,
    /// The answer is on its way.
    Answer,
}

/// What the scheduler lets happen at a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Pass,
    /// There was no connection to be had.
    Unreached,
    /// The connection breaks; a transaction that is open rolls back, now or later.
    Broken,
    /// The connection breaks behind the commit's back: it passes, later.
    LateCommit,
    /// The server rolls back and asks to try again.
    Again,
    /// The server gives up waiting.
    TooSlow,
}

/// The line of one device.
#[derive(Default)]
pub struct Line {
    /// Whether everything passes at once, without a scheduler.
    pub is_free: bool,
    pub at: Option<Gate>,
    pub fate: Option<Fate>,
    /// What the server has delivered last under each key.
    pub delivered: BTreeMap<(String, String), Option<Version>>,
    /// Transactions without a connection and whether they will commit.
    pub orphans: Vec<(Handle, bool)>,
}

#[derive(Clone)]
pub struct SimRemote {
    pub server: Arc<Mutex<Server>>,
    pub line: Arc<Mutex<Line>>,
}

pub fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken() -> Error {
    Error::new(
        Code::Connection,
        "the connection broke",
        "it is tried again",
    )
    .with_disposition(Disposition::OutcomeUnknown)
}

fn failed(fate: Fate) -> Error {
    match fate {
        Fate::Unreached => Error::new(Code::Connection, "no connection", "it is tried again")
            .with_disposition(Disposition::Unreached),
        Fate::Again => Error::new(Code::Batch, "try again", "it is tried again")
            .with_sqlstate("40001")
            .with_disposition(Disposition::RetryNow),
        Fate::TooSlow => Error::new(Code::Batch, "canceling due to lock timeout", "smaller")
            .with_sqlstate("55P03")
            .with_disposition(Disposition::TooSlow),
        _ => broken(),
    }
}

impl SimRemote {
    fn server(&self) -> MutexGuard<'_, Server> {
        lock(&self.server)
    }

    fn pass(&self, gate: Gate) -> impl Future<Output = Fate> + Send + use<> {
        let line = Arc::clone(&self.line);
        poll_fn(move |_| {
            let mut line = lock(&line);
            if line.is_free {
                return Poll::Ready(Fate::Pass);
            }
            match (line.at, line.fate.take()) {
                (Some(_), Some(fate)) => {
                    line.at = None;
                    Poll::Ready(fate)
                }
                _ => {
                    line.at = Some(gate);
                    Poll::Pending
                }
            }
        })
    }

    /// A question that changes nothing, or what may be repeated without harm.
    async fn ask<T>(&self, what: impl FnOnce(&mut Server) -> T) -> Result<T> {
        match self.pass(Gate::Request).await {
            Fate::Pass => {}
            fate => return Err(failed(fate)),
        }
        let answer = what(&mut self.server());
        match self.pass(Gate::Answer).await {
            Fate::Pass => Ok(answer),
            fate => Err(failed(fate)),
        }
    }

    fn deliver(&self, table: &str, key: &Key, version: Option<&Version>) {
        lock(&self.line)
            .delivered
            .insert((table.to_owned(), key.encode()), version.cloned());
    }

    fn orphan(&self, handle: Handle, commits: bool) {
        lock(&self.line).orphans.push((handle, commits));
    }
}

fn register(server: &mut Server, hello: &Hello) {
    let now = server.now;
    let mut next = server.data.tables.len() as i32;
    for t in &hello.tables {
        if !server.data.tables.contains_key(&t.name) {
            next += 1;
            server.data.tables.insert(t.name.clone(), (next, 0));
        }
    }
    server
        .data
        .ledger
        .entry(hello.device.clone())
        .or_insert_with(|| Account {
            push_seq: 0,
            last_batch: None,
            outcomes: BTreeMap::new(),
            cursor: None,
            last_seen: now,
            state: "active",
        })
        .last_seen = now;
    if let Some(former) = &hello.former
        && let Some(a) = server.data.ledger.get_mut(former)
    {
        a.state = "retired";
    }
}

impl Remote for SimRemote {
    async fn prepare(&self, hello: &Hello) -> Result<Workspace> {
        self.ask(|server| {
            register(server, hello);
            server.flush();
            let head = server.head(&hello.device);
            let mirrors = hello
                .tables
                .iter()
                .filter_map(|t| {
                    let (id, epoch) = *server.data.tables.get(&t.name)?;
                    Some((t.name.clone(), mirror(id, epoch, t)))
                })
                .collect();
            Workspace {
                identity: head.identity,
                mirrors,
                refused: Vec::new(),
                push_seq: head.push_seq,
                last_batch: head.last_batch,
            }
        })
        .await
    }

    async fn rejoin(&self, hello: &Hello, known: &Identity, former: &[String]) -> Result<bool> {
        self.ask(|server| {
            let told = format!("  rejoin of {}, known {}", hello.device, known.instance);
            server.log.push(told);
            for t in &hello.tables {
                let next = server.data.tables.len() as i32 + 1;
                server
                    .data
                    .tables
                    .entry(t.name.clone())
                    .or_insert((next, 0));
            }
            let registered = server.data.ledger.contains_key(&hello.device);
            let ours = |i: &String| *i == known.instance || former.contains(i);
            let data = &mut server.data;
            let related = registered || ours(&data.instance) || data.instances.iter().any(ours);
            let holds_anything = !data.rows.is_empty() || !data.graves.is_empty();
            if !related && holds_anything {
                return Err(push::went_back("it is another workspace"));
            }
            if !data.instances.contains(&known.instance) {
                let before = std::mem::take(&mut data.instance);
                data.instances.push(before);
                data.instances.extend(former.iter().cloned());
                data.instances.push(known.instance.clone());
                let change = server.change();
                server.data.instance = change;
            }
            server.flush();
            Ok(registered)
        })
        .await?
    }

    async fn push(&self, batch: &Batch, tables: &[Tracked]) -> Result<PushAnswer> {
        match self.pass(Gate::Request).await {
            Fate::Pass => {}
            fate => return Err(failed(fate)),
        }
        let (handle, answer) = loop {
            let judged = push::push(&mut self.server(), batch, tables)?;
            match judged {
                Judged::Open(handle, answer) => break (handle, answer),
                Judged::Answer(answer) => {
                    return match self.pass(Gate::Answer).await {
                        Fate::Pass => Ok(answer),
                        fate => Err(failed(fate)),
                    };
                }
                Judged::Blocked => match self.pass(Gate::Lock).await {
                    Fate::Pass => {}
                    Fate::TooSlow => {
                        // What takes a batch apart must not meet one that was applied before.
                        let server = self.server();
                        if server.pushes(&batch.device) {
                            return Err(broken());
                        }
                        return match push::settled(&server, batch)? {
                            Some(answer) => Ok(answer),
                            None => Err(failed(Fate::TooSlow)),
                        };
                    }
                    fate => return Err(failed(fate)),
                },
            }
        };
        if self.server().bug == "ack_before_commit" {
            let commits = self.server().rng.bool();
            self.orphan(handle, commits);
            return Ok(answer);
        }
        // Whoever is dropped here leaves a transaction without a connection.
        let orphaned = Orphaned(Some((self.clone(), handle)));
        let fate = self.pass(Gate::Commit).await;
        orphaned.settled();
        match fate {
            Fate::Pass => self.server().end(handle, true),
            Fate::LateCommit => self.orphan(handle, true),
            Fate::Broken => self.orphan(handle, false),
            _ => self.server().end(handle, false),
        }
        if fate != Fate::Pass {
            return Err(failed(fate));
        }
        match self.pass(Gate::Answer).await {
            Fate::Pass => Ok(answer),
            fate => Err(failed(fate)),
        }
    }

    async fn page(&self, request: &PageRequest) -> Result<Page> {
        let page = self.ask(|server| server.page(request)).await?;
        let keys: Vec<String> = page.rows.iter().map(|r| r.key.encode()).collect();
        let told = format!(
            "  page of {}: {keys:?} from {:?} to {:?}",
            request.device, request.token, page.next
        );
        self.server().log.push(told);
        for r in &page.rows {
            self.deliver(&r.table, &r.key, Some(&r.version));
        }
        Ok(page)
    }

    async fn fetch(
        &self,
        device: &str,
        token: &Token,
        table: &Tracked,
        keys: &[Key],
        bytes: usize,
    ) -> Result<(Head, Vec<Fetched>)> {
        let ask = self.ask(|server| server.fetch(device, token, table, keys));
        let (head, mut rows) = ask.await?;
        let mut left = bytes;
        let mut n = 0;
        rows.retain(|f| {
            let row = f.version.as_ref().and_then(|v| v.row.as_ref());
            let weight = row.map_or(0, tidewater::model::Row::weight);
            n += usize::from(row.is_some());
            let fits = weight <= left || (n == 1 && row.is_some());
            left = left.saturating_sub(weight);
            fits
        });
        for f in &rows {
            self.deliver(&table.table.name, &f.key, f.version.as_ref());
        }
        Ok((head, rows))
    }

    async fn list(
        &self,
        device: &str,
        token: &Token,
        table: &Tracked,
        after: Option<&Key>,
        rows: usize,
        _bytes: usize,
    ) -> Result<Vec<Fetched>> {
        let listed = self.ask(|server| server.list(device, token, table, after, rows));
        let listed = listed.await?;
        let keys: Vec<String> = listed.iter().map(|r| r.key.encode()).collect();
        let told = format!("  list of {device}: {} {keys:?}", table.table.name);
        self.server().log.push(told);
        Ok(listed)
    }

    async fn head(&self, device: &str) -> Result<Head> {
        self.ask(|server| server.head(device)).await
    }

    async fn examine(&self, _: &[Table]) -> Result<Examined> {
        Err(broken())
    }

    async fn flush(&self, _: &str) -> Result<()> {
        self.ask(Server::flush).await
    }

    fn listen(
        &self,
        _: &str,
        _: Arc<dyn Fn() + Send + Sync>,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        std::future::ready(Ok(()))
    }

    async fn tell(&self, device: &str, cursor: &Snapshot) -> Result<()> {
        self.ask(|server| {
            let now = server.now;
            if server.data.gc_xid <= cursor.xmin()
                && let Some(a) = server.data.ledger.get_mut(device)
            {
                a.last_seen = now;
                a.cursor = Some(cursor.clone());
                if ["expired", "retired"].contains(&a.state) {
                    a.state = "active";
                }
                server.flush();
            }
        })
        .await
    }

    async fn collect(&self, device: &str, days: u32, every: Duration) -> Result<u64> {
        let every = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
        self.ask(|server| {
            // A run keeps pushes out.
            if server.open.values().any(|t| t.account.is_some()) {
                return 0;
            }
            let gone = server.collect(device, days, every);
            server.flush();
            gone
        })
        .await
    }

    async fn devices(&self, _: u32) -> Result<Vec<Member>> {
        Ok(Vec::new())
    }

    async fn retire(&self, id: &str) -> Result<()> {
        self.ask(|server| {
            if let Some(a) = server.data.ledger.get_mut(id) {
                a.state = "retired";
            }
        })
        .await
    }

    async fn revoke(&self, _: &str) -> Result<()> {
        Ok(())
    }

    async fn offer_forms(
        &self,
        _: &Tracked,
        forms: &BTreeMap<String, Form>,
    ) -> Result<BTreeMap<String, Form>> {
        Ok(forms.clone())
    }

    async fn describe(&self) -> Result<(Vec<Table>, i64)> {
        Ok((Vec::new(), 0))
    }

    async fn standing(&self) -> Result<Standing> {
        Ok(Standing {
            mirrors: None,
            tables: std::collections::BTreeSet::new(),
        })
    }
}

/// A transaction whose client may vanish before it commits.
struct Orphaned(Option<(SimRemote, Handle)>);

impl Orphaned {
    fn settled(mut self) {
        self.0 = None;
    }
}

impl Drop for Orphaned {
    fn drop(&mut self) {
        if let Some((remote, handle)) = self.0.take() {
            // Whether the commit was sent before the end is anyone's guess.
            let commits = remote.server().rng.bool();
            remote.orphan(handle, commits);
        }
    }
}
