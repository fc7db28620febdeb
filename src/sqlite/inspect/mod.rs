//! What the tidewater tables of the app's file say: counts, queues, conflicts, one row's status.
//!
//! Reads only, but for [`mark_seen`]; never touches the app's tables. Every list is limited and no
//! list loads a payload, so memory does not grow with the backlog (conflicts carry two rows each and
//! have a limit of their own). A caller that needs several answers to agree opens a transaction around
//! them; [`overview`] does so itself. Fails with SYNC-012 where the file cannot be read, and with
//! SYNC-013 where a person named something that is not there.

mod conflicts;
mod explain;
mod glance;
mod privacy;
mod queue;
mod row;

pub use conflicts::{CONFLICTS_MAX, conflict, conflicts, mark_seen};
pub use explain::{change_key, explain, queue_detail};
pub use glance::{glance, usable};
pub use privacy::table_privacy;
pub use queue::{Which, inbox, item_of_row, queue, queue_item};
pub use row::{parse_key, row_status, table_named};

use super::brake;
use super::fault::OrFault;
use super::first;
use crate::error::{Code, Error, Result};
use crate::model::{Column, Key, Privacy, Value};
use crate::report::{
    Circuit, ConflictCounts, Device, Download, Mode, Problem, RemoteStatus, Service, StatusReport,
    TableStatus, Time, Upload,
};
use rusqlite::{Connection, OptionalExtension, Row};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Problems shown at most; a device has a handful.
const PROBLEMS_MAX: usize = 100;

/// The local half of `status`, from one snapshot of the file.
#[derive(Debug, Clone)]
pub struct Overview {
    /// The device.
    pub device: Device,
    /// Whether somebody said `pause`.
    pub paused: bool,
    /// Uploads.
    pub upload: Upload,
    /// Downloads.
    pub download: Download,
    /// Conflicts.
    pub conflicts: ConflictCounts,
    /// The tracked tables by name.
    pub tables: Vec<TableStatus>,
    /// What the service left to be said.
    pub problems: Vec<Problem>,
}

impl Overview {
    /// The whole report, with what only the caller can find out.
    pub fn into_report(
        self,
        service: Service,
        remote: RemoteStatus,
        circuit: Circuit,
    ) -> StatusReport {
        let mode = if self.paused {
            Mode::Paused
        } else if remote.reachable {
            Mode::Online
        } else {
            Mode::Offline
        };
        StatusReport {
            device: self.device,
            mode,
            service,
            remote,
            upload: self.upload,
            download: self.download,
            conflicts: self.conflicts,
            circuit,
            tables: self.tables,
            problems: self.problems,
        }
    }
}

/// Reads everything that `status` shows of this side.
pub fn overview(conn: &Connection, now: Time) -> Result<Overview> {
    let tx = conn
        .unchecked_transaction()
        .or_fault("reading the status")?;
    let unclaimed = unclaimed_by_table(&tx)?;
    let overview = Overview {
        device: device(&tx)?,
        paused: paused(&tx)?,
        upload: upload(&tx, now, unclaimed.values().sum())?,
        download: download(&tx, now)?,
        conflicts: conflict_counts(&tx)?,
        tables: tables(&tx, &unclaimed)?,
        problems: problems(&tx)?,
    };
    tx.commit().or_fault("reading the status")?;
    Ok(overview)
}

/// A value of `tidewater_state`.
pub fn state(conn: &Connection, name: &str) -> Result<Option<String>> {
    conn.prepare_cached("select value from tidewater_state where name = ?1")
        .and_then(|mut s| s.query_row([name], |r| r.get(0)).optional())
        .map(Option::flatten)
        .or_fault("reading the state of the device")
}

/// The device.
pub fn device(conn: &Connection) -> Result<Device> {
    Ok(Device {
        id: state(conn, "device_id")?.unwrap_or_default(),
        name: state(conn, "device_name")?.unwrap_or_default(),
    })
}

/// Whether somebody said `pause`.
pub fn paused(conn: &Connection) -> Result<bool> {
    Ok(state(conn, "paused")?.as_deref() == Some("1"))
}

/// What the service left to be said. What cannot be read is left out: a status that fails because
/// of a remark helps nobody.
pub fn problems(conn: &Connection) -> Result<Vec<Problem>> {
    let mut problems: Vec<Problem> = state(conn, "problems")?
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    problems.extend(brake::problems(conn)?);
    problems.truncate(PROBLEMS_MAX);
    Ok(problems)
}

/// Conflicts, counted.
pub fn conflict_counts(conn: &Connection) -> Result<ConflictCounts> {
    conn.query_row(
        "select count(*), count(case when seen = 0 then 1 end) from tidewater_conflict",
        [],
        |r| {
            Ok(ConflictCounts {
                total: count(r, 0)?,
                unseen: count(r, 1)?,
            })
        },
    )
    .or_fault("counting conflicts")
}

fn time_of(conn: &Connection, name: &str) -> Result<Option<Time>> {
    let text = state(conn, name)?;
    Ok(text.and_then(|t| t.parse().ok()).map(Time::from_ms))
}

/// When rows that stood in a table before its capture were last listed: how long they wait at least.
fn listed_at(conn: &Connection) -> Result<Option<Time>> {
    Ok(match time_of(conn, "listed_at")? {
        None => time_of(conn, "initialised_at")?,
        listed => listed,
    })
}

fn upload(conn: &Connection, now: Time, unclaimed: u64) -> Result<Upload> {
    let mut up = Upload {
        synced_total: state(conn, "synced_total")?
            .and_then(|t| t.parse().ok())
            .unwrap_or(0),
        last_push_at: time_of(conn, "last_push_at")?,
        ..Upload::default()
    };
    let what = "counting the outbox";
    let (in_outbox, ready) = conn
        .query_row(
            "select count(*), count(case when coalesce(next_attempt_at, 0) not between ?1 + 1 and ?1 + 7200000 then 1 end)
             from tidewater_outbox where status = 'pending'",
            [now.ms()],
            |r| Ok((count(r, 0)?, count(r, 1)?)),
        )
        .or_fault(what)?;
    up.pending = in_outbox + unclaimed;
    up.ready = ready + unclaimed;
    up.uploading = by_status(conn, "uploading")?;
    up.failed = by_status(conn, "failed")?;
    up.synced_today = conn
        .query_row(
            "select count(*) from tidewater_outbox where status = 'synced' and synced_at >= ?1 and error_code is null",
            [now.midnight().ms()],
            |r| count(r, 0),
        )
        .or_fault(what)?;
    up.synced_today += first::sent_since(conn, now.midnight().ms())?;
    // A time of zero was not recorded: the row stood there before capture, and waits since then.
    let oldest: Option<i64> = conn
        .query_row(
            "select min(at) from (
               select min(case when edited_at > 0 then edited_at else created_at end) as at
                 from tidewater_outbox where status in ('pending', 'uploading')
               union all
               select min(at) from tidewater_log where typeof(at) = 'integer' and at > 0
               union all
               select ?1 where exists (select 1 from tidewater_log where at = 0))",
            [listed_at(conn)?.map(Time::ms)],
            |r| r.get(0),
        )
        .or_fault(what)?;
    up.oldest_pending_at = oldest.map(Time::from_ms);
    up.lag_seconds = oldest.map_or(0.0, |ms| now.ms().saturating_sub(ms).max(0) as f64 / 1000.0);
    Ok(up)
}

fn by_status(conn: &Connection, status: &str) -> Result<u64> {
    conn.query_row(
        "select count(*) from tidewater_outbox where status = ?1",
        [status],
        |r| count(r, 0),
    )
    .or_fault("counting the outbox")
}

fn download(conn: &Connection, now: Time) -> Result<Download> {
    let what = "counting the inbox";
    // A row that could not be applied leaves a note too; it is counted once, as failed.
    let pending = conn
        .query_row(
            "select count(*) from tidewater_note n where not exists (
               select 1 from tidewater_inbox i
               where i.tbl = n.tbl and i.pk = n.pk and i.status = 'failed')",
            [],
            |r| count(r, 0),
        )
        .or_fault(what)?;
    let (failed, applied_today) = conn
        .query_row(
            "select (select count(*) from tidewater_inbox where status = 'failed'),
                    (select count(*) from tidewater_inbox where status = 'applied' and at >= ?1)",
            [now.midnight().ms()],
            |r| Ok((count(r, 0)?, count(r, 1)?)),
        )
        .or_fault(what)?;
    Ok(Download {
        pending,
        failed,
        applied_today,
        last_pull_at: time_of(conn, "last_pull_at")?,
    })
}

fn tables(conn: &Connection, unclaimed: &BTreeMap<String, u64>) -> Result<Vec<TableStatus>> {
    let what = "reading the tracked tables";
    let mut statement = conn
        .prepare(
            "select t.name, t.spec,
               (select count(*) from tidewater_outbox o where o.tbl = t.name and o.status = 'pending'),
               (select count(*) from tidewater_outbox o where o.tbl = t.name and o.status = 'failed')
             from tidewater_table t order by t.name",
        )
        .or_fault(what)?;
    let rows = statement
        .query_map([], |r| {
            let (name, spec): (String, String) = (r.get(0)?, r.get(1)?);
            Ok((name, spec, count(r, 2)?, count(r, 3)?))
        })
        .or_fault(what)?;
    rows.map(|row| {
        let (name, spec, pending, failed) = row.or_fault(what)?;
        Ok(TableStatus {
            privacy: Spec::read(&name, &spec)?.privacy.as_str().to_owned(),
            pending: pending + unclaimed.get(&name).copied().unwrap_or(0),
            failed,
            name,
        })
    })
    .collect()
}

/// Rows of the key log, folded by key: one pending change each.
fn unclaimed_by_table(conn: &Connection) -> Result<BTreeMap<String, u64>> {
    let keys = log_keys(conn)?.join(", ");
    let what = "counting the key log";
    let mut statement = conn
        .prepare(&format!(
            "select tbl, count(*) from (select distinct tbl, {keys} from tidewater_log) group by tbl"
        ))
        .or_fault(what)?;
    let rows = statement
        .query_map([], |r| Ok((r.get(0)?, count(r, 1)?)))
        .or_fault(what)?;
    rows.collect::<rusqlite::Result<_>>().or_fault(what)
}

/// The key columns that the key log has by now: k1 to kn.
fn log_keys(conn: &Connection) -> Result<Vec<String>> {
    let n = conn
        .query_row(
            "select count(*) from pragma_table_info('tidewater_log') where name glob 'k[0-9]*'",
            [],
            |r| count(r, 0),
        )
        .or_fault("reading the key log")?;
    Ok((1..=n).map(|i| format!("k{i}")).collect())
}

/// What is needed here of a table's description.
#[derive(Deserialize)]
struct Spec {
    key: Vec<String>,
    columns: Vec<Column>,
    privacy: Privacy,
}

impl Spec {
    fn read(name: &str, text: &str) -> Result<Spec> {
        serde_json::from_str(text).map_err(|e| {
            Error::new(
                Code::LocalUnusable,
                format!("the description of the table cannot be read: {e}"),
                "run `tidewater init` again; it describes the tables anew",
            )
            .on_table(name)
        })
    }

    fn of(conn: &Connection, table: &str) -> Result<Option<Spec>> {
        conn.prepare_cached("select spec from tidewater_table where name = ?1")
            .and_then(|mut s| s.query_row([table], |r| r.get::<_, String>(0)).optional())
            .or_fault("reading the tracked tables")?
            .map(|text| Spec::read(table, &text))
            .transpose()
    }
}

/// The values of a key from its canonical text; a text that is not one is shown as it stands.
fn key_values(text: String) -> Vec<Value> {
    match Key::decode(&text) {
        Some(key) => key.0,
        None => vec![Value::Text(text)],
    }
}

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column)
        .map(|n| u64::try_from(n).unwrap_or(0))
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Time>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Time::from_ms))
}

fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
