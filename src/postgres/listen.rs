//! LISTEN: hearing at once that somebody else wrote.
//!
//! Owns the channel's name, who tells, and who may listen. Nothing rests on it: a notification that is
//! lost costs one poll interval. A session of a pooler is shared, so that LISTEN would stay behind in it
//! for others and never answer here; it is only sent in a session that proves to be ours alone, by
//! carrying a mark that was set at login and nowhere else.

use super::PgRemote;
use super::connect::Heard;
use super::fault::fault;
use super::quote::ident;
use crate::error::{Code, Error, Result};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::{Client, SimpleQueryMessage};

/// The setting that carries the mark.
const MARK: &str = "tidewater.listener";

/// The channel of a workspace, as an expression; `schema` is an expression for its name. Bound to the
/// schema by its hash, for the name alone may be as long as a channel's name is allowed to be.
pub fn channel(schema: &str) -> String {
    format!("'tidewater_' || to_hex(hashtextextended({schema}, 0))")
}

/// What a push tells in its own transaction: that this device wrote.
pub fn tell(schema: &str, device: &str) -> String {
    format!("pg_notify({}, {device})::text", channel(schema))
}

/// See `Remote::listen`. Returns when the connection has ended.
pub fn listen(
    remote: &PgRemote,
    device: &str,
    heard: Arc<dyn Fn() + Send + Sync>,
) -> impl Future<Output = Result<()>> + Send + 'static {
    let dialer = Arc::clone(&remote.dialer);
    let (schema, device) = (remote.schema.clone(), device.to_owned());
    let deadline = remote.deadline;
    async move {
        let told: Heard = Arc::new(move |who| {
            if who != device {
                heard();
            }
        });
        let mark = ulid::Ulid::generate().to_string();
        let options = format!("-c {MARK}={mark}");
        let (client, task) = dialer.dial(Some(&options), Some(&told)).await?;
        let start = async {
            let marked = one(&client, &format!("select current_setting('{MARK}', true)")).await?;
            if marked.as_deref() != Some(&mark) {
                return Err(Error::new(
                    Code::Connection,
                    "the session is shared by a pooler",
                    "nothing to do: the server is polled",
                ));
            }
            // The name of a schema is quoted here as a value: simple queries bind none.
            let name = schema.replace('\'', "''");
            let sql = format!("select {}", channel(&format!("'{name}'::text")));
            let channel = one(&client, &sql).await?.unwrap_or_default();
            client
                .batch_execute(&format!("listen {}", ident(&channel)))
                .await
                .map_err(|e| fault(&e, "listening"))
        };
        within(deadline, start).await?;
        let _ = task.await;
        drop(client);
        Ok(())
    }
}

/// The text of the one value that a query answers with.
async fn one(client: &Client, sql: &str) -> Result<Option<String>> {
    let answer = client
        .simple_query(sql)
        .await
        .map_err(|e| fault(&e, "listening"))?;
    Ok(answer.iter().find_map(|m| match m {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}

async fn within(deadline: Duration, work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::time::timeout(deadline, work)
        .await
        .unwrap_or_else(|_| {
            Err(Error::new(
                Code::Connection,
                "listening: no answer in time",
                "nothing to do: the server is polled",
            ))
        })
}
