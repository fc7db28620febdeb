//! `clone`: a new device from nothing but the workspace.
//!
//! The file is built under a temporary name beside its place and renamed when it is complete; whatever
//! ends early leaves nothing under the name.

use super::connect;
use super::device::{Device, now_ms};
use super::init;
use super::mount;
use super::ops::InitOptions;
use super::pull;
use crate::config::{Config, Env, FILE_NAME, Overrides};
use crate::error::{Code, Error, Result};
use crate::model::Table;
use crate::remote::Remote;
use crate::report::{InitReport, Progress};
use crate::sqlite::apply::Slicing;
use crate::sqlite::build;
use crate::sqlite::local::Local;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Removes the unfinished file, whatever happens.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut name = self.0.clone().into_os_string();
            name.push(suffix);
            let _ = std::fs::remove_file(PathBuf::from(name));
        }
    }
}

fn refused(message: String, remedy: &str) -> Error {
    Error::new(Code::Configuration, message, remedy)
}

/// See `ops::clone_in`.
pub async fn clone(
    config_path: Option<PathBuf>,
    remote: Option<String>,
    schema: Option<String>,
    file: &Path,
    env: &Env,
    progress: &dyn Progress,
) -> Result<InitReport> {
    let started = Instant::now();
    if file.exists() {
        return Err(refused(
            format!("{} exists already", file.display()),
            "name a file that does not exist; an existing file is initialised with `tidewater init`",
        ));
    }
    let (config_file, existing) = config_place(config_path.as_deref(), file)?;
    let overrides = Overrides {
        no_file: !existing,
        no_endpoint: false,
        config: existing.then(|| config_file.clone()),
        db: Some(std::path::absolute(file).unwrap_or_else(|_| file.to_owned())),
        remote,
        schema,
    };
    let config = Config::load_in(&overrides, env)?;
    if let Some(folder) = file.parent().filter(|f| !f.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|e| {
            Error::new(
                Code::LocalUnusable,
                format!("{}: {e}", folder.display()),
                "choose a folder that can be written",
            )
        })?;
    }
    let remote = connect::remote(&config)?;
    let (tables, user_version) = remote.describe().await?;
    if tables.is_empty() {
        return Err(init::no_tables());
    }
    let mut part = file.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let part = Unfinished(PathBuf::from(part));
    let report = fill(&config, remote, &part.0, &tables, user_version, progress).await?;
    std::fs::rename(&part.0, file).map_err(|e| {
        Error::new(
            Code::LocalUnusable,
            format!("{}: {e}", file.display()),
            "choose a place that can be written",
        )
    })?;
    if !existing {
        init::write_config(&config, &[], &config_file)?;
    }
    Ok(InitReport {
        elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(0),
        ..report
    })
}

/// Where the configuration goes, and whether it is there already.
fn config_place(named: Option<&Path>, file: &Path) -> Result<(PathBuf, bool)> {
    match named {
        Some(path) => Ok((path.to_owned(), path.exists())),
        None => {
            let folder = file.parent().unwrap_or(Path::new(""));
            let path = folder.join(FILE_NAME);
            if path.exists() {
                return Err(refused(
                    format!(
                        "{} exists already and may belong to another device",
                        path.display()
                    ),
                    "name a configuration with --config, or another folder for the file",
                ));
            }
            Ok((path, false))
        }
    }
}

async fn fill(
    config: &Config,
    remote: impl Remote,
    part: &Path,
    tables: &[Table],
    user_version: i64,
    progress: &dyn Progress,
) -> Result<InitReport> {
    let mut local = Local::create(part)?;
    mount::require_local(config, part)?;
    build::create(&mut local, tables, user_version)?;
    let found = init::install(config, &InitOptions::default(), &mut local)?;
    let mut device = Device::new(local, remote, config.clone())?;
    device.prepare().await?;
    if let Some(e) = device.refused.first() {
        return Err(e.clone());
    }
    progress.begin("downloading rows", None);
    let slicing = Slicing {
        time: Duration::from_secs(3600),
        rows: 5_000,
        history: false,
        now_ms: now_ms(),
    };
    build::fast(&device.local)?;
    pull::drain(&mut device, slicing, &CancellationToken::new(), progress).await?;
    progress.end();
    build::settle(&mut device.local)?;
    init::report(&device.local, &found, Instant::now())
}
