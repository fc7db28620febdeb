//! Old tombstones, collected.
//!
//! A tombstone goes when it is older than the retention and every live device has read it. Each slice is
//! one transaction that also raises the collection mark above the transactions whose tombstones went:
//! whoever has not read up to the mark is told so at its next contact, by its page or its push, and takes
//! a full listing. A slice excludes pushes, which otherwise could read the old mark and then miss a
//! tombstone. A device that never told its cursor holds everything back until it expires.

use super::PgRemote;
use super::decode::get;
use super::quote::{Statement, ident};
use super::workspace::PROTOCOL;
use crate::error::Result;
use std::time::Duration;
use tokio_postgres::types::Type;

/// Tombstones of one transaction: pushes wait for it.
const SLICE: i64 = 1_000;

/// Slices of one run; what is left goes at the next.
const SLICES: usize = 1_000;

const WHAT: &str = "collecting old deletes";

/// See `Remote::collect`.
pub async fn collect(remote: &PgRemote, device: &str, days: u32, every: Duration) -> Result<u64> {
    let days = i32::try_from(days).unwrap_or(i32::MAX);
    if !begin_run(remote, device, days, every).await? {
        return Ok(0);
    }
    let mut gone = 0;
    for _ in 0..SLICES {
        let n = slice(remote, days).await?;
        gone += n;
        if n == 0 {
            break;
        }
    }
    Ok(gone)
}

/// Notes the run where none was noted within `every`, and marks devices that are away for too long.
async fn begin_run(remote: &PgRemote, device: &str, days: i32, every: Duration) -> Result<bool> {
    let schema = ident(&remote.schema);
    let mut lock = Statement::default();
    let name = lock.text(&format!("tidewater collect:{}", remote.schema));
    lock.sql = format!("select pg_try_advisory_xact_lock(hashtextextended({name}, 0))");
    let mut due = Statement::default();
    let seconds = due.bind(every.as_secs_f64(), Type::FLOAT8);
    due.sql = format!(
        "select collected_at is null or collected_at <= clock_timestamp() \
         - make_interval(secs => {seconds}) from {schema}.tidewater_workspace"
    );
    let session = remote.session().await?;
    let answers = session
        .pipeline(&remote.begin(), &[lock, due], WHAT)
        .await?;
    let mut yes = true;
    for rows in &answers {
        yes &= rows.first().map(|r| get::<bool>(r, 0)).transpose()? == Some(true);
    }
    if yes {
        let note = Statement::fixed(format!(
            "update {schema}.tidewater_workspace set collected_at = clock_timestamp()"
        ));
        session.query(&note, WHAT).await?;
        let mut expire = Statement::default();
        let (days, me) = (expire.bind(days, Type::INT4), expire.text(device));
        expire.sql = format!(
            "update {schema}.tidewater_devices set state = 'expired' where state = 'active' \
             and id <> {me} and last_seen < clock_timestamp() - make_interval(days => {days})"
        );
        session.query(&expire, WHAT).await?;
    }
    session.batch("commit", WHAT).await?;
    session.done();
    Ok(yes)
}

/// One transaction's worth; returns how many went.
async fn slice(remote: &PgRemote, days: i32) -> Result<u64> {
    let schema = ident(&remote.schema);
    let alone = super::push::alone(&remote.schema);
    let mut sweep = Statement::default();
    let days = sweep.bind(days, Type::INT4);
    let limit = sweep.bind(SLICE, Type::INT8);
    let protocol = sweep.bind(PROTOCOL, Type::INT4);
    // There is neither min nor max of xid8 before PostgreSQL 16.
    sweep.sql = format!(
        "with horizon as (select pg_snapshot_xmin(pg_current_snapshot()) as xid union all \
         select coalesce(pg_snapshot_xmin(cursor), '0'::xid8) \
         from {schema}.tidewater_devices where state = 'active' order by 1 limit 1), \
         old as (select g.table_id, g.pk from {schema}.tidewater_tombstones g, horizon h \
         where left(g.tidewater_change, 10) < \
         (select {schema}.tidewater_time10(clock_timestamp() - make_interval(days => {days}))) \
         collate \"C\" and g.tidewater_xid < h.xid limit {limit}), \
         swept as (delete from {schema}.tidewater_tombstones g using old o \
         where g.table_id = o.table_id and g.pk = o.pk returning g.tidewater_xid), \
         raised as (update {schema}.tidewater_workspace w set protocol = greatest(protocol, {protocol}), \
         gc_xid = greatest(gc_xid, (s.top::text::numeric + 1)::text::xid8) \
         from (select tidewater_xid as top from swept order by 1 desc limit 1) s) \
         select count(*) from swept"
    );
    let session = remote.session().await?;
    let answers = session
        .pipeline(&remote.begin(), &[alone, sweep], WHAT)
        .await?;
    let n: i64 = match answers.get(1).and_then(|r| r.first()) {
        Some(r) => get(r, 0)?,
        None => 0,
    };
    session.batch("commit", WHAT).await?;
    session.done();
    Ok(u64::try_from(n).unwrap_or(0))
}
