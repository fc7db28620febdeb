//! The operations behind the commands, one function each.
//!
//! The command line knows nothing else of the engine. Each takes the configuration, opens what it
//! needs, and returns the document of its command or the error that ends it.

use super::device::now_ms;
use super::observer::Observer;
use super::{
    connect, devices as members, heal, init as initialise, lock, now as syncing,
    provision as roles, service,
};
use crate::config::{Config, Env};
use crate::error::{Code, Result};
use crate::metrics::Monitor;
use crate::remote::Remote;
use crate::report::{
    Circuit, ConflictsReport, DetachReport, DevicesReport, DoctorReport, InitReport, ItemResult,
    Mode, ModeReport, NoProgress, NowReport, PrivacyReport, Progress, ProvisionReport, PruneReport,
    QueueItem, RemoteStatus, ResultsReport, Service, StatusReport, Time, VerifyReport,
};
use crate::sqlite::inspect::{self, Which};
use crate::sqlite::journal::{self, Detail, Kind, Place};
use crate::sqlite::local::Local;
use crate::sqlite::{introspect, queue as outbox, restore, state};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

pub use super::look::{QueueFilter, explain, inbox, queue, queue_detail, row_status, would_send};

/// What `init` was asked for.
#[derive(Debug, Clone, Default)]
pub struct InitOptions {
    /// Globs that replace `[local] tables`; empty: as configured.
    pub tables: Vec<String>,
    /// Only say what would be executed.
    pub dry_run: bool,
    /// Fill the app's empty tables from the workspace at once.
    pub adopt_remote: bool,
}

/// What `init` ended with.
#[derive(Debug, Clone)]
pub enum InitOutcome {
    /// Capture is installed.
    Done(InitReport),
    /// The same, but a table or a row of the workspace could not be adopted.
    Partly(InitReport),
    /// Nothing was changed: database (`sqlite`, `postgres`) and statement, in their order.
    DryRun(Vec<(String, String)>),
}

/// What `now` was asked for. Neither `push` nor `pull` means both.
#[derive(Debug, Clone, Default)]
pub struct NowOptions {
    /// Only send.
    pub push: bool,
    /// Only receive.
    pub pull: bool,
    /// Give up after so long.
    pub timeout: Option<Duration>,
}

/// How long `status` waits for the remote.
const GLANCE: Duration = Duration::from_secs(3);

/// Conflicts of a list.
const CONFLICTS: usize = 500;

/// The initialised file of a configuration.
pub(super) fn open(config: &Config) -> Result<Local> {
    let local = Local::open(config.path()?)?;
    local.require_initialised()?;
    Ok(local)
}

/// `init`.
pub async fn init(
    config: &Config,
    opts: &InitOptions,
    progress: &dyn Progress,
) -> Result<InitOutcome> {
    initialise::init(config, opts, progress).await
}

/// `init` inside another program: no configuration is written.
pub async fn install(config: &Config, progress: &dyn Progress) -> Result<InitReport> {
    initialise::prepare(config, &InitOptions::default(), false, progress).await
}

/// `run`; ends when `stop` is cancelled and the batch in hand is finished. Reports to `monitor`.
pub async fn run(
    config: &Config,
    init: bool,
    stop: CancellationToken,
    observer: &dyn Observer,
    monitor: Arc<Monitor>,
) -> Result<()> {
    service::run(config, init, stop, observer, monitor).await
}

/// Fails where another service holds the device (SYNC-010).
pub fn not_held(config: &Config) -> Result<()> {
    let path = config.path()?;
    match lock::holder(path) {
        Some(holder) if holder.service => Err(lock::taken(path, holder)),
        _ => Ok(()),
    }
}

/// `now`.
pub async fn now(config: &Config, opts: &NowOptions, progress: &dyn Progress) -> Result<NowReport> {
    syncing::now(config, opts, false, progress).await
}

/// `status`.
pub async fn status(config: &Config) -> Result<StatusReport> {
    let local = open(config)?;
    let overview = inspect::overview(local.conn(), Time::now())?;
    let holder = lock::holder(config.path()?).filter(|h| h.service);
    let service = Service {
        running: holder.is_some(),
        pid: holder.and_then(|h| h.pid),
    };
    let id = state::device_id(local.conn())?;
    let offset = state::number(local.conn(), "clock_offset_ms")?;
    let remote = glance(config, &id, offset).await;
    // The service's own word; without one, this look at the remote was the last try.
    let circuit = match holder {
        Some(h) => h.circuit,
        None if remote.reachable => Circuit::Closed,
        None => Circuit::Open,
    };
    let reachable = remote.reachable;
    let mut report = overview.into_report(service, remote, circuit);
    if reachable {
        // Told by the last sync, and no longer so.
        report
            .problems
            .retain(|p| p.code != Code::Connection.as_str());
    }
    Ok(report)
}

/// A short look at the remote; whatever fails only means that it is not in reach.
async fn glance(config: &Config, id: &str, offset: i64) -> RemoteStatus {
    let mut out = RemoteStatus {
        reachable: false,
        server_version: None,
        schema: config.remote.schema.clone(),
        latency_ms: None,
        clock_offset_ms: None,
    };
    let Ok(remote) = connect::remote(config) else {
        return out;
    };
    // The first answer carries the login; the second one alone is the latency.
    let answer = tokio::time::timeout(GLANCE, remote.head(id)).await;
    // A server that refuses the question (no workspace yet, a standby) has been reached.
    if let Ok(Err(e)) = &answer {
        out.reachable = !e.is_offline();
    }
    if let Ok(Ok(head)) = answer {
        out.reachable = true;
        out.server_version = Some(head.server_version);
        out.clock_offset_ms = Some(offset);
        let started = Instant::now();
        if let Ok(Ok(head)) = tokio::time::timeout(GLANCE, remote.head(id)).await {
            let latency = started.elapsed();
            out.latency_ms = Some((latency.as_secs_f64() * 1e4).round() / 10.0);
            let half = i64::try_from(latency.as_millis() / 2).unwrap_or(0);
            out.clock_offset_ms = Some(head.now_ms - now_ms() + half);
        }
    }
    out
}

/// What became of entries, by the change keys that were asked for and their rows. An entry that is gone
/// was taken up by a later change of its row, and that one's fate is the answer.
fn results(local: &Local, asked: &[QueueItem]) -> Result<ResultsReport> {
    let mut report = ResultsReport::default();
    for item in asked {
        // Gone without a successor, its row's change waits in the key log.
        let found = inspect::item_of_row(local.conn(), item)?;
        let mut result = result_of(found.unwrap_or_else(|| QueueItem {
            status: "pending".to_owned(),
            error: None,
            ..item.clone()
        }));
        result.key = item.key.clone().unwrap_or_default();
        report.results.push(result);
    }
    Ok(report)
}

/// An item as it stands.
pub(super) fn result_of(item: QueueItem) -> ItemResult {
    ItemResult {
        key: item.key.unwrap_or_default(),
        table: item.table,
        pk: item.pk,
        outcome: if item.status == "uploading" {
            "pending".into()
        } else {
            item.status
        },
        error: item.error,
    }
}

/// The items that were named by their keys or beginnings of them, or by the code that they failed with;
/// without any, all that failed, and
/// with `waiting_too` those that wait for a later attempt.
fn chosen(local: &Local, keys: &[String], waiting_too: bool) -> Result<Vec<QueueItem>> {
    let conn = local.conn();
    if keys.is_empty() {
        let which = if waiting_too {
            Which::Refused
        } else {
            Which::Errors
        };
        return Ok(inspect::queue(conn, which, usize::MAX, Time::now())?.items);
    }
    let mut items: Vec<QueueItem> = Vec::new();
    for key in keys {
        if let Some(code) = Code::parse(&key.to_ascii_uppercase()) {
            let failed = inspect::queue(conn, Which::Errors, usize::MAX, Time::now())?.items;
            let with = |i: &QueueItem| i.error.as_ref().is_some_and(|e| e.code == code.as_str());
            items.extend(failed.into_iter().filter(with));
            continue;
        }
        let key = inspect::change_key(conn, key)?;
        if items.iter().all(|i| i.key.as_ref() != Some(&key)) {
            items.extend(inspect::queue_item(conn, &key)?);
        }
    }
    Ok(items)
}

fn keys_of(items: &[QueueItem]) -> Vec<String> {
    items.iter().filter_map(|i| i.key.clone()).collect()
}

/// `retry`; without keys, all failed items.
pub async fn retry(config: &Config, keys: &[String], force: bool) -> Result<ResultsReport> {
    let mut local = open(config)?;
    let items = chosen(&local, keys, force)?;
    if items.is_empty() {
        return Ok(ResultsReport::default());
    }
    outbox::retry_failed(&mut local, &keys_of(&items), force, now_ms())?;
    match syncing::now(config, &NowOptions::default(), force, &NoProgress).await {
        Ok(_) => {}
        // The items wait and are tried as soon as the remote is there.
        Err(e) if e.is_offline() => {
            tracing::warn!(code = e.code.as_str(), error = %e.message, "the items wait")
        }
        Err(e) => return Err(e),
    }
    results(&local, &items)
}

/// `discard`.
pub async fn discard(config: &Config, keys: &[String]) -> Result<ResultsReport> {
    let mut local = open(config)?;
    let items = chosen(&local, keys, false)?;
    let mut report = results(&local, &items)?;
    let done = outbox::discard(&mut local, &keys_of(&items), now_ms())?;
    let done: HashSet<String> = done.into_iter().collect();
    for r in &mut report.results {
        if done.contains(&r.key) {
            r.outcome = "discarded".into();
            r.error = None;
        }
    }
    if !done.is_empty() {
        // The row returns to the remote's state: its note is fetched now, or at the next contact.
        let pull = NowOptions {
            pull: true,
            ..NowOptions::default()
        };
        match syncing::now(config, &pull, false, &NoProgress).await {
            Ok(_) => {}
            Err(e) if e.is_offline() || e.code == Code::Configuration => {
                tracing::warn!(code = e.code.as_str(), error = %e.message, "the row returns to the remote's state at the next contact");
            }
            Err(e) => return Err(e),
        }
    }
    Ok(report)
}

/// Pauses or resumes through the file itself; a running service sees the commit.
fn set_paused(config: &Config, paused: bool) -> Result<ModeReport> {
    let mut local = open(config)?;
    let tx = local.begin()?;
    if state::paused(&tx)? != paused {
        let kind = if paused { Kind::Paused } else { Kind::Resumed };
        journal::record(&tx, now_ms(), kind, Place::Device, None, &Detail::default())?;
    }
    state::set(&tx, "paused", if paused { "1" } else { "0" })?;
    tx.commit()
        .map_err(|e| crate::sqlite::fault::fault(e, "storing the mode"))?;
    Ok(ModeReport {
        mode: if paused { Mode::Paused } else { Mode::Online },
    })
}

/// `pause`.
pub fn pause(config: &Config) -> Result<ModeReport> {
    set_paused(config, true)
}

/// `resume`.
pub fn resume(config: &Config) -> Result<ModeReport> {
    set_paused(config, false)
}

/// `conflicts`.
pub fn conflicts(config: &Config) -> Result<ConflictsReport> {
    inspect::conflicts(open(config)?.conn(), CONFLICTS)
}

/// `conflicts show ID`.
pub fn conflict(config: &Config, id: &str) -> Result<ConflictsReport> {
    let local = open(config)?;
    Ok(ConflictsReport {
        conflicts: vec![inspect::conflict(local.conn(), id)?],
        total: 1,
        moved: None,
    })
}

/// `conflicts restore ID`.
pub fn restore(config: &Config, id: &str) -> Result<ConflictsReport> {
    let mut local = open(config)?;
    let id = inspect::conflict(local.conn(), id)?.id;
    let done = restore::restore(&mut local, &id, now_ms())?;
    let conflicts: Vec<_> = done
        .conflicts
        .iter()
        .map(|id| inspect::conflict(local.conn(), id))
        .collect::<Result<_>>()?;
    Ok(ConflictsReport {
        total: conflicts.len() as u64,
        conflicts,
        moved: (done.moved > 0).then_some(done.moved),
    })
}

/// `conflicts ack ID...`; without ids, all of them.
pub fn acknowledge(config: &Config, ids: &[String]) -> Result<ConflictsReport> {
    inspect::mark_seen(open(config)?.conn(), ids)
}

/// `provision`: the answer holds the passwords of new logins, and nothing else does.
pub async fn provision(config: &Config, devices: &[String]) -> Result<ProvisionReport> {
    roles::provision(config, devices).await
}

/// `provision --dry-run`.
pub fn provision_statements(config: &Config, devices: &[String]) -> Result<Vec<String>> {
    connect::provision_statements(config, devices)
}

/// `devices`.
pub async fn devices(config: &Config) -> Result<DevicesReport> {
    members::list(config).await
}

/// `devices retire ID`.
pub async fn retire(config: &Config, id: &str) -> Result<DevicesReport> {
    members::retire(config, id).await
}

/// `devices revoke ID`.
pub async fn revoke(config: &Config, id: &str) -> Result<DevicesReport> {
    members::revoke(config, id).await
}

/// `clone`.
pub async fn clone(
    config_path: Option<PathBuf>,
    remote: Option<String>,
    schema: Option<String>,
    file: &Path,
    progress: &dyn Progress,
) -> Result<InitReport> {
    clone_in(config_path, remote, schema, file, &Env::process(), progress).await
}

/// `clone` in given surroundings.
pub async fn clone_in(
    config_path: Option<PathBuf>,
    remote: Option<String>,
    schema: Option<String>,
    file: &Path,
    env: &Env,
    progress: &dyn Progress,
) -> Result<InitReport> {
    super::clone::clone(config_path, remote, schema, file, env, progress).await
}

/// `prune`; failed items of more than `failed_days` only where they are asked for, and only with `yes`.
pub async fn prune(config: &Config, failed_days: Option<u32>, yes: bool) -> Result<PruneReport> {
    super::retention::prune(config, failed_days, yes).await
}

/// `privacy`: what the settings of today come to, whether or not the file is initialised.
pub fn privacy(config: &Config) -> Result<PrivacyReport> {
    let local = Local::open(config.path()?)?;
    let settings = if local.is_initialised()? {
        heal::current(&local, config)?
    } else {
        heal::settings(config, &[])
    };
    let found = introspect::tables(local.conn(), &settings)?;
    let tables = found.tables.iter();
    Ok(PrivacyReport {
        tables: tables
            .map(|t| inspect::table_privacy(local.conn(), t))
            .collect::<Result<_>>()?,
        stay: initialise::skipped(&found),
    })
}

/// `doctor`.
pub async fn doctor(config: &Config, progress: &dyn Progress) -> Result<DoctorReport> {
    super::doctor::doctor(config, progress).await
}

/// `detach`.
pub fn detach(config: &Config, yes: bool) -> Result<DetachReport> {
    super::detach::detach(config, yes)
}

/// `verify`; without tables, all of them. `repair` also queues or fetches what is missing.
pub async fn verify(
    config: &Config,
    tables: &[String],
    repair: bool,
    progress: &dyn Progress,
) -> Result<VerifyReport> {
    super::verify::verify(config, tables, repair, progress).await
}
