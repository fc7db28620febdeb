//! One borrowed connection: deadlines, pipelines, transactions.
//!
//! Invariant: a connection goes back to the pool only in a clean state. Whatever ends early (an error,
//! a deadline, a dropped future) closes it instead, so no open transaction is ever handed on.

use super::fault::fault;
use super::quote::Statement;
use crate::error::{Code, Disposition, Error, Result};
use deadpool_postgres::Object;
use futures_util::future::join_all;
use std::future::Future;
use std::time::Duration;
use tokio_postgres::Row;

/// A connection borrowed for one unit of work.
pub struct Session {
    object: Option<Object>,
    deadline: Duration,
    clean: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.clean
            && let Some(object) = self.object.take()
        {
            // Out of the pool: dropping the client closes the connection.
            drop(Object::take(object));
        }
    }
}

/// The error of a round trip that did not come back in time.
fn too_late(what: &str, deadline: Duration) -> Error {
    Error::new(
        Code::Connection,
        format!("{what}: no answer within {} s", deadline.as_secs_f32()),
        "check the network; nothing is lost, it is tried again. A slow server needs a larger \
         [remote] statement_timeout_seconds",
    )
    .with_disposition(Disposition::TooSlow)
}

impl Session {
    /// Wraps a pooled connection; every round trip ends within `deadline`.
    pub fn new(object: Object, deadline: Duration) -> Self {
        Session {
            object: Some(object),
            deadline,
            clean: false,
        }
    }

    /// Gives what follows on this connection a longer deadline, for the rare work on whole tables.
    pub fn take_time(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// Says that the connection is in a clean state and may be used again.
    pub fn done(mut self) {
        self.clean = true;
    }

    fn client(&self, what: &str) -> Result<&tokio_postgres::Client> {
        self.object.as_deref().map(|o| &**o).ok_or_else(|| {
            Error::new(
                Code::Connection,
                format!("{what}: connection closed"),
                "it is tried again",
            )
            .with_disposition(Disposition::OutcomeUnknown)
        })
    }

    async fn within<T>(
        &self,
        what: &str,
        work: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        match tokio::time::timeout(self.deadline, work).await {
            Ok(r) => r.map_err(|e| fault(&e, what)),
            Err(_) => Err(too_late(what, self.deadline)),
        }
    }

    /// Runs fixed SQL without parameters, possibly several statements.
    pub async fn batch(&self, sql: &str, what: &str) -> Result<()> {
        self.within(what, self.client(what)?.batch_execute(sql))
            .await
    }

    /// Commits. What happens from here on proves nothing unless the server says so.
    pub async fn commit(&self, what: &str) -> Result<()> {
        self.batch("commit", what).await.map_err(|e| {
            if e.sqlstate.is_some() {
                e
            } else {
                e.with_disposition(Disposition::OutcomeUnknown)
            }
        })
    }

    /// Runs one statement.
    pub async fn query(&self, statement: &Statement, what: &str) -> Result<Vec<Row>> {
        let params = statement.params();
        self.within(
            what,
            self.client(what)?.query_typed(&statement.sql, &params),
        )
        .await
    }

    /// Sends `begin` and all statements without waiting between them; one round trip.
    /// The first error counts; what came behind it was not executed by the server.
    pub async fn pipeline(
        &self,
        begin: &str,
        statements: &[Statement],
        what: &str,
    ) -> Result<Vec<Vec<Row>>> {
        let client = self.client(what)?;
        let params: Vec<_> = statements.iter().map(Statement::params).collect();
        let rest = join_all(
            statements
                .iter()
                .zip(&params)
                .map(|(s, p)| client.query_typed(&s.sql, p)),
        );
        // `join!` polls in order, and the driver queues a request at its first poll.
        let both = async { Ok(tokio::join!(client.batch_execute(begin), rest)) };
        let (begun, rows) = self.within(what, both).await?;
        begun.map_err(|e| fault(&e, what))?;
        rows.into_iter()
            .map(|r| r.map_err(|e| fault(&e, what)))
            .collect()
    }
}
