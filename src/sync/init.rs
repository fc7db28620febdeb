//! `init`: capture in the file, a configuration where there is none, the workspace where it is in reach.
//!
//! Everything local is one transaction. Safe to run again: what is there stays, what is missing is made.

use super::adopt;
use super::device::{Device, now_ms};
use super::observer::Observer;
use super::ops::{InitOptions, InitOutcome};
use super::{connect, first, heal, lock, mount};
use crate::config::Config;
use crate::config::template::{self, Template};
use crate::error::{Code, Error, Result};
use crate::model::Table;
use crate::remote::Standing;
use crate::report::{InitReport, InitTable, Progress, Skipped, Warning};
use crate::sqlite::capture;
use crate::sqlite::fault::OrFault;
use crate::sqlite::introspect::{self, Introspection};
use crate::sqlite::local::{Local, Tx, count, load_tables, migrations_sql};
use crate::sqlite::{first as first_rows, state, status_view};
use std::path::Path;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// See `ops::init`.
pub async fn init(
    config: &Config,
    opts: &InitOptions,
    progress: &dyn Progress,
) -> Result<InitOutcome> {
    if opts.adopt_remote {
        return adopt::adopt(config, opts, progress).await;
    }
    if opts.dry_run {
        let local = Local::open(config.path()?)?;
        return dry_run(config, opts, &local, None).map(InitOutcome::DryRun);
    }
    let report = install_and_meet(config, opts, true, true, progress).await?;
    Ok(InitOutcome::Done(report))
}

/// Installs capture, and makes the workspace where the remote is in reach. `write`: a configuration
/// too, where there is none. What is to be sent is left to the service.
pub async fn prepare(
    config: &Config,
    opts: &InitOptions,
    write: bool,
    progress: &dyn Progress,
) -> Result<InitReport> {
    install_and_meet(config, opts, write, false, progress).await
}

async fn install_and_meet(
    config: &Config,
    opts: &InitOptions,
    write: bool,
    upload: bool,
    progress: &dyn Progress,
) -> Result<InitReport> {
    let started = Instant::now();
    let mut local = Local::open(config.path()?)?;
    mount::require_local(config, local.path())?;
    progress.begin("installing capture", None);
    let found = install(config, opts, &mut local)?;
    progress.end();
    if write && config.source.is_none() {
        write_config(config, &opts.tables, Path::new(crate::config::FILE_NAME))?;
    }
    let report = report(&local, &found, started)?;
    if let Err(e) = contact(config, local, upload, progress).await {
        if !e.is_offline() {
            return Err(e);
        }
        tracing::warn!(
            code = e.code.as_str(),
            error = %e.message,
            "the remote is out of reach; what needs it is done at first contact"
        );
    }
    Ok(InitReport {
        elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(0),
        ..report
    })
}

/// Installs capture; returns what is tracked.
pub fn install(config: &Config, opts: &InitOptions, local: &mut Local) -> Result<Introspection> {
    install_where(config, opts, local, |_, _| Ok(()))
}

/// Installs capture where `may` agrees, in one transaction with what it looks at and writes.
pub fn install_where(
    config: &Config,
    opts: &InitOptions,
    local: &mut Local,
    may: impl FnOnce(&Tx<'_>, &Introspection) -> Result<()>,
) -> Result<Introspection> {
    let chosen = choice(config, opts, local)?;
    let settings = heal::settings(config, &chosen);
    let tx = local.begin()?;
    let found = introspect::tables(&tx, &settings)?;
    some_are_meant(opts, &found)?;
    Local::migrate(&tx)?;
    may(&tx, &found)?;
    name_device(&tx, &config.device.name)?;
    if !opts.tables.is_empty() {
        heal::store_choice(&tx, config, &opts.tables)?;
    }
    let bare = heal::install(&tx, &found, &settings)?;
    tx.commit().or_fault("installing capture")?;
    for t in bare {
        tracing::warn!(
            table = t,
            "capture was missing; the table is compared at the next contact"
        );
    }
    Ok(found)
}

/// Refuses globs that mean none of the tables there are: a slip of the fingers must not end the
/// replication of all that was tracked.
fn some_are_meant(opts: &InitOptions, found: &Introspection) -> Result<()> {
    if opts.tables.is_empty() || !found.tables.is_empty() || skipped(found).is_empty() {
        return Ok(());
    }
    Err(Error::new(
        Code::Configuration,
        format!(
            "no table that can be tracked matches --tables {}",
            opts.tables.join(",")
        ),
        "correct the names or globs, or leave --tables out to track what can be tracked",
    ))
}

/// The tables that were asked for, now or by an earlier `init --tables`.
pub fn choice(config: &Config, opts: &InitOptions, local: &Local) -> Result<Vec<String>> {
    if opts.tables.is_empty() {
        heal::stored_choice(local, config)
    } else {
        Ok(opts.tables.clone())
    }
}

/// Gives the device its id once, and its present name.
pub fn name_device(tx: &Tx<'_>, name: &str) -> Result<()> {
    if state::get(tx, "device_id")?.is_none() {
        state::set(tx, "device_id", &crate::world::ulid().to_string())?;
        state::set_number(tx, "initialised_at", now_ms())?;
    }
    state::set(tx, "device_name", name)
}

/// Every statement for both databases; those for the remote as if nothing stood there, or by what does.
pub fn dry_run(
    config: &Config,
    opts: &InitOptions,
    local: &Local,
    standing: Option<&Standing>,
) -> Result<Vec<(String, String)>> {
    local.require_known()?;
    let found = introspect::tables(
        local.conn(),
        &heal::settings(config, &choice(config, opts, local)?),
    )?;
    some_are_meant(opts, &found)?;
    let mut out: Vec<(String, String)> = Vec::new();
    if !local.is_initialised()? {
        out.extend(
            migrations_sql()
                .into_iter()
                .map(|sql| ("sqlite".into(), sql)),
        );
    }
    let triggers = capture::wanted(local.conn(), &found.tables)?;
    out.extend(triggers.into_iter().map(|t| ("sqlite".to_owned(), t.sql)));
    let view = status_view::statements(&found.tables);
    out.extend(view.into_iter().map(|sql| ("sqlite".to_owned(), sql)));
    let remote = connect::dry_run(config, &found.tables, standing);
    out.extend(remote.into_iter().map(|sql| ("postgres".into(), sql)));
    Ok(out)
}

/// Writes what was set by flags and environment into a new configuration; one that exists is left alone.
/// `tables` replaces the configured globs where it is not empty.
pub fn write_config(config: &Config, tables: &[String], file: &Path) -> Result<()> {
    if file.exists() {
        return Ok(());
    }
    let text = Template {
        path: template::path_from(file, config.path()?),
        tables: if tables.is_empty() {
            config.local.tables.clone()
        } else {
            tables.to_vec()
        },
        exclude: config.local.exclude.clone(),
        device: Some(config.device.name.clone()),
        url: None,
        schema: Some(config.remote.schema.clone()),
    };
    let text = match &config.remote.conn {
        Some(conn) => text.with_conn(conn),
        None => text,
    };
    template::write_new(file, &text)
}

/// What was installed, for the report.
pub fn report(local: &Local, found: &Introspection, started: Instant) -> Result<InitReport> {
    let tables = found
        .tables
        .iter()
        .map(|t| {
            Ok(InitTable {
                name: t.name.clone(),
                rows: count(local.conn(), &t.name)?,
                columns: t.columns.len() as u64,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(InitReport {
        device: crate::sqlite::inspect::device(local.conn())?,
        tables,
        skipped: skipped(found),
        warnings: found.tables.iter().filter_map(key_warning).collect(),
        elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(0),
    })
}

/// Of a table whose keys the database hands out.
pub fn key_warning(table: &Table) -> Option<Warning> {
    table.assigns_keys().then(|| Warning {
        table: table.name.clone(),
        message: "the database hands out its keys, and two devices hand out the same".to_owned(),
        remedy: "let the app make the keys (a UUID or ULID as text), or give each device a range of its own"
            .to_owned(),
    })
}

/// What is left out, for people.
pub fn skipped(found: &Introspection) -> Vec<Skipped> {
    found
        .skipped
        .iter()
        // Nobody asked about tidewater's own tables.
        .filter(|s| !s.name.starts_with("tidewater_"))
        .map(|s| Skipped {
            name: s.name.clone(),
            reason: if s.remedy.is_empty() {
                s.reason.clone()
            } else {
                format!("{}; {}", s.reason, s.remedy)
            },
        })
        .collect()
}

/// Makes workspace and mirrors where the remote is in reach; `upload` sends what fills them, too, where
/// there is much of it.
async fn contact(
    config: &Config,
    local: Local,
    upload: bool,
    progress: &dyn Progress,
) -> Result<()> {
    if config.remote.conn.is_none() {
        tracing::warn!("no remote is configured yet; set [remote] url");
        return Ok(());
    }
    progress.begin("preparing the workspace", None);
    let remote = connect::remote(config)?;
    let mut device = Device::new(local, remote, config.clone())?;
    let prepared = device.prepare().await;
    progress.end();
    prepared?;
    if let Some(e) = device.refused.first() {
        let untouched = load_tables(device.local.conn())?
            .iter()
            .filter(|k| k.mirror.is_some())
            .count();
        if untouched == 0 {
            return Err(e.clone());
        }
    }
    let refused = device.refused.len();
    if refused > 0 {
        device.report_problems(None)?;
        tracing::warn!(
            tables = refused,
            "some tables are not mirrored; see `tidewater status`"
        );
    }
    let waits = upload && first_rows::waits(device.local.conn())?;
    if !waits || state::paused(device.local.conn())? {
        return Ok(());
    }
    // A service that holds the device does it.
    if let Ok(_held) = lock::take(config.path()?, false)? {
        first::upload(&mut device, &CancellationToken::new(), progress).await?;
    }
    Ok(())
}

/// Waits until the app's file and at least one table to track are there, then initialises.
pub async fn wait_and_init(
    config: &Config,
    stop: &CancellationToken,
    observer: &dyn Observer,
) -> Result<bool> {
    let mut told = false;
    loop {
        match ready(config) {
            Ok(true) => {
                let (all, quiet) = (InitOptions::default(), crate::report::NoProgress);
                prepare(config, &all, false, &quiet).await?;
                keep_config(config);
                return Ok(true);
            }
            Ok(false) => {}
            Err(e) if e.code == Code::LocalUnusable => {}
            Err(e) => return Err(e),
        }
        if !told {
            const WAITING: &str = "waiting for the app's file and its tables";
            tracing::info!("{WAITING}");
            observer.state(WAITING);
            told = true;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            () = tokio::time::sleep(std::time::Duration::from_millis(500)) => {}
        }
    }
}

/// Writes the configuration where there is none. A service goes on without: it often runs in a folder that
/// it may not write to, with all it needs in its environment.
fn keep_config(config: &Config) {
    if config.source.is_some() {
        return;
    }
    if let Err(e) = write_config(config, &[], Path::new(crate::config::FILE_NAME)) {
        tracing::warn!(
            code = e.code.as_str(),
            error = %e.message,
            "no configuration is written; the settings are those of flags and environment"
        );
    }
}

fn ready(config: &Config) -> Result<bool> {
    let path = config.path()?;
    if !path.exists() {
        return Ok(false);
    }
    let local = Local::open(path)?;
    let found = introspect::tables(local.conn(), &heal::settings(config, &[]))?;
    Ok(!found.tables.is_empty())
}

/// The error of a command that needs a remote where none is configured.
pub fn no_tables() -> Error {
    Error::new(
        Code::CannotTrack,
        "the workspace has no tables",
        "run `tidewater init` on a device that has the data",
    )
}
