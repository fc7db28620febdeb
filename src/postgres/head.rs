//! The head of every pull: who the server is, what the ledger holds, the snapshot, the clock.
//!
//! One statement, so that all of it belongs to one snapshot. On a standby the WAL functions are not
//! called (they would fail) and the head is refused.

use super::decode::get;
use super::quote::{Statement, ident};
use super::session::Session;
use super::workspace;
use crate::error::{Code, Error, Result};
use crate::model::Snapshot;
use crate::remote::{Head, Identity, ServerState};
use std::collections::BTreeMap;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// The columns that the head occupies in its statement.
pub const COLUMNS: usize = 18;

/// The head's select list and from clause; `device` is a placeholder.
pub fn sql(schema: &str, device: &str, extra: &str) -> String {
    let s = ident(schema);
    format!(
        "select w.instance, w.tableoid::bigint, \
         (select system_identifier::text from pg_control_system()), \
         case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_lsn()), 8) end, \
         (select oid::bigint from pg_database where datname = current_database()), \
         w.protocol, w.gc_xid::text, d.push_seq, d.last_batch, pg_current_snapshot()::text, \
         i.lsn is not null and pg_current_wal_flush_lsn() >= i.lsn, \
         coalesce((i.lsn - '0/0'::pg_lsn)::bigint, 0), \
         (extract(epoch from clock_timestamp()) * 1000)::bigint, \
         current_setting('server_version'), \
         (select coalesce(json_object_agg(id, epoch), '{{}}')::text from {s}.tidewater_tables), \
         pg_is_in_recovery(), w.user_version, \
         current_setting('default_transaction_read_only') = 'on'{extra} \
         from {s}.tidewater_workspace w \
         left join {s}.tidewater_devices d on d.id = {device} \
         cross join (select case when not pg_is_in_recovery() then pg_current_wal_insert_lsn() end \
         as lsn) i"
    )
}

/// Whether the workspace row under `w` is on the server that a device knows, and that server not behind
/// the state in which the device has seen it.
pub fn is_known(s: &mut Statement, state: &ServerState) -> String {
    let id = &state.identity;
    let (instance, system) = (s.text(&id.instance), s.text(&id.system_identifier));
    let timeline = s.text(&id.timeline);
    let table = s.bind(i64::from(id.table_oid), Type::INT8);
    let database = s.bind(i64::from(id.database_oid), Type::INT8);
    let xmax = s.text(&state.xmax.to_string());
    let lsn = s.bind(
        i64::try_from(state.insert_lsn).unwrap_or(i64::MAX),
        Type::INT8,
    );
    format!(
        "(w.instance = {instance} and w.tableoid::bigint = {table} \
         and (select system_identifier::text from pg_control_system()) = {system} \
         and (select oid::bigint from pg_database where datname = current_database()) = {database} \
         and pg_snapshot_xmax(pg_current_snapshot()) >= {xmax}::text::xid8 \
         and case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_lsn()), 8) \
         = {timeline} and pg_current_wal_insert_lsn() - '0/0'::pg_lsn >= {lsn} end)"
    )
}

/// Where transaction ids are handed out: cluster, database and the workspace's own table, as text.
/// `table` is the oid of `tidewater_workspace`.
pub fn home(table: &str) -> String {
    format!(
        "(select system_identifier::text from pg_control_system()) || '/' || \
         (select oid::text from pg_database where datname = current_database()) || '/' || \
         {table}::bigint::text"
    )
}

/// Reads the head alone.
pub async fn read(session: &Session, schema: &str, device: &str) -> Result<Head> {
    let mut s = Statement::default();
    let device = s.text(device);
    s.sql = sql(schema, &device, "");
    let rows = session.query(&s, "reading the workspace").await?;
    parse(rows.first())
}

/// The head from its row.
pub fn parse(row: Option<&Row>) -> Result<Head> {
    let row = row.ok_or_else(|| workspace::no_answer("reading the workspace"))?;
    if get::<bool>(row, 15)? {
        return Err(workspace::standby_error());
    }
    if get::<bool>(row, 17)? {
        return Err(workspace::read_only_error());
    }
    let protocol: i32 = get(row, 5)?;
    if !workspace::speaks(protocol) {
        return Err(workspace::newer_workspace(protocol));
    }
    let oid =
        |i: usize| -> Result<u32> { Ok(u32::try_from(get::<i64>(row, i)?).unwrap_or_default()) };
    let epochs: BTreeMap<i32, i64> = serde_json::from_str(get::<&str>(row, 14)?).map_err(|e| {
        Error::new(
            Code::RemoteNotUsable,
            format!("the workspace's tables cannot be read: {e}"),
            "upgrade tidewater on this device",
        )
    })?;
    Ok(Head {
        identity: Identity {
            instance: get(row, 0)?,
            table_oid: oid(1)?,
            system_identifier: get(row, 2)?,
            timeline: get::<Option<String>>(row, 3)?.unwrap_or_default(),
            database_oid: oid(4)?,
        },
        push_seq: get::<Option<i64>>(row, 7)?.unwrap_or(-1),
        last_batch: get(row, 8)?,
        gc_xid: get::<&str>(row, 6)?.parse().unwrap_or(0),
        snapshot: Snapshot(get(row, 9)?),
        flushed: get::<Option<bool>>(row, 10)?.unwrap_or(false),
        insert_lsn: u64::try_from(get::<i64>(row, 11)?).unwrap_or(0),
        now_ms: get(row, 12)?,
        server_version: server_version(get(row, 13)?),
        epochs,
    })
}

/// `15.18 (Debian ...)` without what packagers add.
fn server_version(full: &str) -> String {
    full.split_whitespace().next().unwrap_or(full).to_owned()
}
