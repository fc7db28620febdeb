//! The real remote: one PostgreSQL schema, reached through a small pool. The only importer of
//! `tokio_postgres` and `deadpool_postgres`.
//!
//! No session state survives a unit of work: `set local` only, no named prepared statements, advisory
//! locks of a transaction only. Every round trip has a deadline of its own.

mod conflict_record;
mod connect;
mod decode;
mod encode;
mod fault;
mod feed;
mod fetch;
mod head;
mod judge;
mod ledger;
mod mirror;
mod mirror_sql;
mod push;
mod push_sql;
mod quote;
mod rival;
mod session;
mod sqlstate;
mod tls;
mod workspace;

pub use connect::connect;

use crate::error::{Code, Disposition, Error, Result};
use crate::model::{Key, Table, Token};
use crate::remote::{
    Batch, Fetched, Head, Hello, Page, PageRequest, PushAnswer, Remote, Tracked, Workspace,
};
use deadpool_postgres::{
    Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, Timeouts,
};
use session::Session;
use std::time::Duration;

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

/// Every statement that a first `init` would run on the remote, for `--dry-run`.
pub fn dry_run(schema: &str, tables: &[Table]) -> Vec<String> {
    workspace::dry_run(schema, tables)
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
    connect_timeout: Duration,
    /// For explaining a certificate that is refused.
    conn: crate::config::Conn,
}

impl PgRemote {
    /// Prepares the pool; nothing is connected yet.
    fn new<T>(
        conn: &crate::config::Conn,
        config: tokio_postgres::Config,
        tls: T,
        options: Options,
    ) -> Result<Self>
    where
        T: tokio_postgres::tls::MakeTlsConnect<tokio_postgres::Socket>
            + Clone
            + Sync
            + Send
            + 'static,
        T::Stream: Sync + Send,
        T::TlsConnect: Sync + Send,
        <T::TlsConnect as tokio_postgres::tls::TlsConnect<tokio_postgres::Socket>>::Future: Send,
    {
        let manager = Manager::from_config(
            config,
            tls,
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(options.pool_size)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(options.statement_timeout),
                create: Some(options.connect_timeout),
                recycle: Some(options.connect_timeout),
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
            connect_timeout: options.connect_timeout,
            conn: conn.clone(),
        })
    }

    /// Borrows a connection.
    async fn session(&self) -> Result<Session> {
        let what = format!("connecting to {}", self.conn.display());
        match self.pool.get().await {
            Ok(object) => Ok(Session::new(object, self.deadline)),
            Err(PoolError::Backend(e)) => {
                if let Some(error) = tls::explain(&e, &self.conn) {
                    return Err(error.with_disposition(Disposition::Unreached));
                }
                let mut error = fault::fault(&e, &what);
                // Whatever a server says before the login is done, no item is at fault.
                if error.code != Code::RemoteNotUsable {
                    error.code = Code::Connection;
                }
                Err(error.with_disposition(Disposition::Unreached))
            }
            Err(PoolError::Timeout(_)) => Err(Error::new(
                Code::Connection,
                format!(
                    "{what}: no answer within {} s",
                    self.connect_timeout.as_secs_f32()
                ),
                "check host, port and network; nothing is lost, it is tried again",
            )
            .with_disposition(Disposition::Unreached)),
            Err(e) => Err(Error::new(
                Code::Connection,
                format!("{what}: {e}"),
                "it is tried again by itself",
            )
            .with_disposition(Disposition::Unreached)),
        }
    }

    /// What every transaction of ours begins with. Read committed, whatever the server's default is:
    /// under any other level a statement does not see what it has just waited for.
    fn begin(&self) -> String {
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

impl Remote for PgRemote {
    async fn prepare(&self, hello: &Hello) -> Result<Workspace> {
        workspace::prepare(self, hello).await
    }

    async fn push(&self, batch: &Batch, tables: &[Tracked]) -> Result<PushAnswer> {
        push::push(self, batch, tables).await
    }

    async fn page(&self, request: &PageRequest) -> Result<Page> {
        feed::page(self, request).await
    }

    async fn fetch(
        &self,
        device: &str,
        token: &Token,
        table: &Tracked,
        keys: &[Key],
        bytes: usize,
    ) -> Result<(Head, Vec<Fetched>)> {
        fetch::fetch(self, device, token, table, keys, bytes).await
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
        fetch::list(self, device, token, table, after, rows, bytes).await
    }

    async fn head(&self, device: &str) -> Result<Head> {
        let session = self.session().await?;
        let head = head::read(&session, &self.schema, device).await?;
        session.done();
        Ok(head)
    }

    async fn flush(&self, device: &str) -> Result<()> {
        ledger::touch(self, device).await
    }

    async fn describe(&self) -> Result<(Vec<Table>, i64)> {
        workspace::describe(self).await
    }
}
