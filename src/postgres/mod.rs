//! The real remote: one PostgreSQL schema, reached through a small pool. The only importer of
//! `tokio_postgres` and `deadpool_postgres`.
//!
//! No session state survives a unit of work: `set local` only, no named prepared statements, advisory
//! locks of a transaction only. Every round trip has a deadline of its own.

mod adopt;
mod collect;
mod collision;
mod conflict_record;
mod connect;
mod decode;
mod devices;
mod encode;
mod erase;
mod examine;
mod fault;
mod feed;
mod fetch;
mod grave;
mod head;
mod judge;
mod kin;
mod ledger;
mod lineage;
mod listen;
mod mirror;
mod mirror_sql;
pub mod provision;
mod push;
mod push_sql;
mod quote;
mod recast;
mod rival;
mod session;
mod shape;
mod slow;
mod sqlstate;
mod tls;
mod typed;
mod workspace;

pub use connect::connect;

use crate::error::{Code, Disposition, Error, Result};
use crate::model::{Form, Key, Snapshot, Table, Token};
use crate::remote::{
    Batch, Examined, Fetched, Head, Hello, Identity, Member, Page, PageRequest, PushAnswer, Remote,
    Standing, Tracked, Workspace,
};
use connect::Dialer;
use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, Timeouts,
};
use session::Session;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How the remote is reached.
pub struct Options {
    /// The workspace.
    pub schema: String,
    /// Connections at most.
    pub pool_size: usize,
    /// For a new connection, login included.
    pub connect_timeout: Duration,
    /// For one round trip, and the server's `statement_timeout`.
    pub statement_timeout: Duration,
}

/// Every statement that a first `init` would run on the remote, for `--dry-run`; as if nothing stood
/// there, or by what does.
pub fn dry_run(schema: &str, tables: &[Table], standing: Option<&Standing>) -> Vec<String> {
    workspace::dry_run(schema, tables, standing)
}

/// Runs fixed SQL as any other client of the server would; nothing of the workspace's protocol.
pub async fn execute(conn: &crate::config::Conn, sql: &str) -> Result<()> {
    let options = Options {
        schema: String::new(),
        pool_size: 1,
        connect_timeout: conn.connect_timeout,
        statement_timeout: Duration::from_secs(30),
    };
    let session = connect(conn, "sql", options)?.session().await?;
    session.batch(sql, "running SQL on the remote").await?;
    session.done();
    Ok(())
}

/// A workspace in PostgreSQL.
pub struct PgRemote {
    pool: Pool,
    schema: String,
    deadline: Duration,
    dialer: Arc<Dialer>,
    /// When a connection was last borrowed.
    borrowed: Mutex<Instant>,
}

/// A connection that was unused for so long is asked whether it is still there before it is borrowed.
/// Less than the time after which any firewall forgets a connection, and more than the default poll
/// interval: polls cost one round trip.
const UNSURE: Duration = Duration::from_secs(50);

/// A unit of work that fails on a connection that was unused for so long has not met a fault of its
/// own: the connection was cut meanwhile.
const IDLE: Duration = Duration::from_secs(2);

impl PgRemote {
    /// Prepares the pool; nothing is connected yet.
    fn new(dialer: Arc<Dialer>, options: Options) -> Result<Self> {
        let recycling_method = RecyclingMethod::Fast;
        let manager = Manager::from_connect(
            tokio_postgres::Config::new(),
            connect::Shared(Arc::clone(&dialer)),
            ManagerConfig { recycling_method },
        );
        let limit = options.connect_timeout;
        let pool = Pool::builder(manager)
            .max_size(options.pool_size)
            .runtime(Runtime::Tokio1)
            .pre_recycle(Hook::async_fn(move |client, metrics| {
                Box::pin(async move {
                    if metrics.last_used() < UNSURE {
                        return Ok(());
                    }
                    match tokio::time::timeout(limit, client.batch_execute("")).await {
                        Ok(Ok(())) => Ok(()),
                        _ => Err(HookError::message("the connection was cut while idle")),
                    }
                })
            }))
            .timeouts(Timeouts {
                wait: Some(options.statement_timeout),
                // The dialer has a deadline for each address.
                create: None,
                recycle: None,
            })
            .build()
            .map_err(|e| {
                Error::new(
                    Code::Configuration,
                    format!("the connection pool: {e}"),
                    "check [remote] pool_size",
                )
            })?;
        Ok(PgRemote {
            pool,
            schema: options.schema,
            deadline: options.statement_timeout,
            dialer,
            borrowed: Mutex::new(Instant::now()),
        })
    }

    /// Borrows a connection.
    async fn session(&self) -> Result<Session> {
        let got = self.pool.get().await;
        *self.borrowed.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        got.map(|object| Session::new(object, self.deadline))
            .map_err(|e| {
                let unknown = || {
                    Error::new(
                        Code::Connection,
                        format!("connecting to {}: {e}", self.dialer.conn().display()),
                        "it is tried again by itself",
                    )
                };
                let reason = match e {
                    PoolError::Backend(_) => self.dialer.take_reason(),
                    _ => None,
                };
                reason
                    .unwrap_or_else(unknown)
                    .with_disposition(Disposition::Unreached)
            })
    }

    /// Does a unit of work, and does it once more where the connection turns out to have been cut while
    /// nobody used it. Every unit may be repeated: reads read again, and the ledger answers for a push.
    async fn steady<T, F>(&self, work: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let idle = self
            .borrowed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed();
        match work().await {
            Err(e)
                if idle >= IDLE
                    && e.sqlstate.is_none()
                    && matches!(
                        e.disposition,
                        Some(Disposition::OutcomeUnknown | Disposition::TooSlow)
                    ) =>
            {
                tracing::debug!(error = %e.message, "a connection was cut while idle");
                work().await
            }
            other => other,
        }
    }

    /// What every writing transaction of ours begins with: the settings, and the workspace's owner as the
    /// role where the login is a member of one. Local to the transaction, like all of it.
    fn begin(&self) -> String {
        format!("{}; {}", self.begin_as_login(), owner_role(&self.schema))
    }

    /// The same as the login itself. Read committed, whatever the server's default is: under any other
    /// level a statement does not see what it has just waited for.
    fn begin_as_login(&self) -> String {
        let ms = self.deadline.as_millis().max(4);
        // The server gives up before this side does, so that its reason is heard: first on a lock.
        let (statement, lock) = (ms * 9 / 10, ms / 2);
        format!(
            "begin isolation level read committed; set local statement_timeout = {statement}; \
             set local lock_timeout = {lock}; \
             set local idle_in_transaction_session_timeout = {ms}; \
             set local synchronous_commit = on"
        )
    }
}

/// Takes the role of the schema's owner for the transaction, where that is a role made to own: the login
/// is a member of it and not the role itself. Roles of the server's own (`pg_database_owner` owns
/// `public`) do not count, and a superuser, who passes for a member of everything, takes only a role that
/// nobody logs in with.
fn owner_role(schema: &str) -> String {
    format!(
        "select pg_catalog.set_config('role', r.rolname, true) from pg_catalog.pg_namespace n \
         join pg_catalog.pg_roles r on r.oid = n.nspowner \
         join pg_catalog.pg_roles me on me.rolname = session_user \
         where n.nspname = {} and r.rolname <> session_user and r.rolname !~ '^pg_' \
         and pg_catalog.pg_has_role(me.oid, r.oid, 'member') \
         and not (me.rolsuper and r.rolcanlogin)",
        quote::literal(schema)
    )
}

impl Remote for PgRemote {
    async fn prepare(&self, hello: &Hello) -> Result<Workspace> {
        self.steady(|| workspace::prepare(self, hello)).await
    }

    async fn rejoin(&self, hello: &Hello, known: &Identity, former: &[String]) -> Result<bool> {
        lineage::rejoin(self, hello, known, former).await
    }

    async fn push(&self, batch: &Batch, tables: &[Tracked]) -> Result<PushAnswer> {
        self.steady(|| push::push(self, batch, tables)).await
    }

    async fn page(&self, request: &PageRequest) -> Result<Page> {
        self.steady(|| feed::page(self, request)).await
    }

    async fn fetch(
        &self,
        device: &str,
        token: &Token,
        table: &Tracked,
        keys: &[Key],
        bytes: usize,
    ) -> Result<(Head, Vec<Fetched>)> {
        self.steady(|| fetch::fetch(self, device, token, table, keys, bytes))
            .await
    }

    async fn list(
        &self,
        device: &str,
        token: &Token,
        table: &Tracked,
        after: Option<&Key>,
        rows: usize,
        bytes: usize,
    ) -> Result<Vec<Fetched>> {
        self.steady(|| fetch::list(self, device, token, table, after, rows, bytes))
            .await
    }

    async fn head(&self, device: &str) -> Result<Head> {
        self.steady(|| async {
            let session = self.session().await?;
            let head = head::read(&session, &self.schema, device).await?;
            session.done();
            Ok(head)
        })
        .await
    }

    async fn examine(&self, tables: &[Table]) -> Result<Examined> {
        examine::examine(self, tables).await
    }

    async fn flush(&self, device: &str) -> Result<()> {
        self.steady(|| ledger::touch(self, device)).await
    }

    fn listen(
        &self,
        device: &str,
        heard: Arc<dyn Fn() + Send + Sync>,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        listen::listen(self, device, heard)
    }

    async fn tell(&self, device: &str, cursor: &Snapshot) -> Result<()> {
        ledger::tell(self, device, cursor).await
    }

    async fn collect(&self, device: &str, days: u32, every: Duration) -> Result<u64> {
        collect::collect(self, device, days, every).await
    }

    async fn devices(&self, days: u32) -> Result<Vec<Member>> {
        devices::list(self, days).await
    }

    async fn retire(&self, id: &str) -> Result<()> {
        devices::retire(self, id).await
    }

    async fn revoke(&self, id: &str) -> Result<()> {
        devices::revoke(self, id).await
    }

    async fn offer_forms(
        &self,
        table: &Tracked,
        forms: &BTreeMap<String, Form>,
    ) -> Result<BTreeMap<String, Form>> {
        self.steady(|| typed::offer(self, table, forms)).await
    }

    async fn describe(&self) -> Result<(Vec<Table>, i64)> {
        self.steady(|| workspace::describe(self)).await
    }

    async fn standing(&self) -> Result<Standing> {
        self.steady(|| workspace::standing(self)).await
    }
}
