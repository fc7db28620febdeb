//! The idempotency ledger: one row per device, updated in the batch's own transaction.
//!
//! The update's WHERE is the whole check: number and chain must fit, and the server must be the one
//! that the batch was formed for. Zero rows never means "try something else" by itself; a new statement
//! reads why. That the update waits for a transaction of our own former connection is what makes a
//! resent batch safe: a plain select would not see it.

use super::PgRemote;
use super::decode::get;
use super::head;
use super::listen;
use super::quote::{Statement, ident};
use super::session::Session;
use super::workspace::no_answer;
use crate::error::{Code, Error, Result};
use crate::model::{ChangeKey, Snapshot};
use crate::remote::{Batch, Outcome, PushAnswer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tokio_postgres::types::Type;

/// What is kept of a batch until the device has confirmed it: the exceptions by tail.
#[derive(Serialize, Deserialize)]
struct Stored {
    key: String,
    x: BTreeMap<String, Outcome>,
}

fn stored_json(batch: &Batch, exceptions: BTreeMap<String, Outcome>) -> String {
    serde_json::to_string(&Stored {
        key: batch.key.clone(),
        x: exceptions,
    })
    .unwrap_or_default()
}

/// The tail of a change in the ledger's form.
fn tail(change: &ChangeKey) -> String {
    change.tail().to_owned()
}

/// Advances the device's row by this batch; returns one row where everything fits, none where not.
pub fn advance(schema: &str, batch: &Batch) -> Statement {
    let s = ident(schema);
    let mut st = Statement::default();
    let (id, key) = (st.text(&batch.device), st.text(&batch.key));
    let seq = st.bind(batch.seq, Type::INT8);
    let prev = st.bind(batch.prev.clone(), Type::TEXT);
    let confirmed = st.bind(batch.confirmed, Type::INT8);
    let stored = st.text(&stored_json(batch, BTreeMap::new()));
    let known = head::is_known(&mut st, &batch.server);
    let oldest = batch
        .items
        .iter()
        .filter(|i| i.known)
        .filter_map(|i| i.base.last.parts().map(|p| p.0))
        .min()
        .unwrap_or(u64::MAX);
    let oldest = st.text(&oldest.to_string());
    // With the commit: nobody is woken for what is not there yet, and nobody by a batch rolled back.
    let workspace = st.text(schema);
    let tell = listen::tell(&workspace, &id);
    let told = told(&mut st, &batch.cursor);
    st.sql = format!(
        "update {s}.tidewater_devices d set push_seq = {seq} + 1, last_batch = {key}, {told}, outcomes = coalesce((select jsonb_object_agg(e.key, e.value) \
         from jsonb_each(d.outcomes) e where e.key::bigint >= {confirmed}), '{{}}') \
         || jsonb_build_object({seq}::text, {stored}::text::jsonb) \
         where d.id = {id} and d.push_seq = {seq} and d.last_batch is not distinct from {prev} \
         and exists (select 1 from {s}.tidewater_workspace w where {known} \
         and w.gc_xid <= {oldest}::text::xid8) \
         returning true, {tell}"
    );
    st
}

/// The assignments by which a device tells that it lives and how far it has read. Whoever speaks is
/// neither expired nor retired any more; that its cursor still holds is checked beside it.
fn told(s: &mut Statement, cursor: &Snapshot) -> String {
    let c = s.text(&cursor.0);
    format!(
        "last_seen = clock_timestamp(), cursor = {c}::text::pg_snapshot, \
         cursor_at = case when d.cursor::text = {c}::text then d.cursor_at \
         else clock_timestamp() end, \
         state = case when d.state in ('expired', 'retired') then 'active' else d.state end"
    )
}

/// See `Remote::tell`.
pub async fn tell(remote: &PgRemote, device: &str, cursor: &Snapshot) -> Result<()> {
    const WHAT: &str = "telling the workspace how far this device has read";
    let session = remote.session().await?;
    let mut st = Statement::default();
    let id = st.text(device);
    let xmin = st.text(&cursor.xmin().to_string());
    let told = told(&mut st, cursor);
    st.sql = format!(
        "update {0}.tidewater_devices d set {told} where d.id = {id} and exists \
         (select 1 from {0}.tidewater_workspace w where w.gc_xid <= {xmin}::text::xid8)",
        ident(&remote.schema)
    );
    session.pipeline(&remote.begin(), &[st], WHAT).await?;
    session.batch("commit", WHAT).await?;
    session.done();
    Ok(())
}

/// Writes the outcomes that are not plain `applied`, in the batch's own transaction.
pub fn remember(schema: &str, batch: &Batch, outcomes: &[Outcome]) -> Statement {
    let exceptions = batch
        .items
        .iter()
        .zip(outcomes)
        .filter(|(_, o)| **o != Outcome::Applied)
        .map(|(i, o)| (tail(&i.change), o.clone()))
        .collect();
    let mut st = Statement::default();
    let id = st.text(&batch.device);
    let seq = st.bind(batch.seq, Type::INT8);
    let stored = st.text(&stored_json(batch, exceptions));
    st.sql = format!(
        "update {}.tidewater_devices set outcomes = outcomes \
         || jsonb_build_object({seq}::text, {stored}::text::jsonb) where id = {id}",
        ident(schema)
    );
    st
}

/// Why [`advance`] matched nothing: answered before, ahead of the chain, off the chain, another server.
pub async fn explain(session: &Session, schema: &str, batch: &Batch) -> Result<PushAnswer> {
    let s = ident(schema);
    let mut st = Statement::default();
    let id = st.text(&batch.device);
    let seq = st.bind(batch.seq, Type::INT8);
    let known = head::is_known(&mut st, &batch.server);
    st.sql = format!(
        "select coalesce({known}, false), d.push_seq, d.last_batch, (d.outcomes -> {seq}::text)::text \
         from {s}.tidewater_workspace w left join {s}.tidewater_devices d on d.id = {id}"
    );
    let rows = session.query(&st, "reading the ledger").await?;
    let row = rows
        .first()
        .ok_or_else(|| no_answer("reading the ledger"))?;
    if !get::<bool>(row, 0)? {
        return Err(went_back(
            "the server is not the one that the batch was formed for, or is behind it",
        ));
    }
    let push_seq: Option<i64> = get(row, 1)?;
    if push_seq.unwrap_or(0) < batch.confirmed {
        return Err(went_back(
            "it has forgotten batches that it had acknowledged",
        ));
    }
    let Some(push_seq) = push_seq else {
        return Ok(PushAnswer::Mismatch);
    };
    if let Some(text) = get::<Option<String>>(row, 3)?
        && let Ok(stored) = serde_json::from_str::<Stored>(&text)
        && stored.key == batch.key
    {
        let outcomes = batch
            .items
            .iter()
            .map(|i| {
                stored
                    .x
                    .get(i.change.tail())
                    .cloned()
                    .unwrap_or(Outcome::Applied)
            })
            .collect();
        return Ok(PushAnswer::Done {
            outcomes,
            conflicts: 0,
        });
    }
    let last: Option<String> = get(row, 2)?;
    Ok(if batch.seq > push_seq {
        PushAnswer::Behind
    } else if batch.seq == push_seq && last == batch.prev {
        // Number, chain and server fit, so it was the collection mark.
        PushAnswer::Gone
    } else {
        PushAnswer::Mismatch
    })
}

/// SYNC-007 with its remedy.
pub fn went_back(why: &str) -> Error {
    Error::new(
        Code::RemoteWentBack,
        format!("the remote is not in the state that this device knows: {why}"),
        "it was restored, failed over or reloaded, or it is another one; nothing is lost: see \
         docs/recovery.md",
    )
}

/// See `Remote::flush`.
pub async fn touch(remote: &PgRemote, device: &str) -> Result<()> {
    let session = remote.session().await?;
    let mut st = Statement::default();
    let id = st.text(device);
    st.sql = format!(
        "update {}.tidewater_devices set last_seen = clock_timestamp() where id = {id}",
        ident(&remote.schema)
    );
    session
        .pipeline(&remote.begin(), &[st], "flushing the server's log")
        .await?;
    session.batch("commit", "flushing the server's log").await?;
    session.done();
    Ok(())
}
