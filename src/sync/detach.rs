//! `detach`: tidewater out of the app's file; the app's data stay.
//!
//! One write transaction holds the look at what is unsent, its writing down and the removal together.
//! The JSON file is on disk before that transaction commits, so a crash anywhere either leaves the
//! device as it was or has kept everything.

use super::device::now_ms;
use super::{heal, lock};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::failpoint;
use crate::report::{DetachReport, Time};
use crate::sqlite::detach::{self, Left};
use crate::sqlite::fault::OrFault;
use crate::sqlite::inspect;
use crate::sqlite::local::{Local, Tx};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// See `ops::detach`.
pub fn detach(config: &Config, yes: bool) -> Result<DetachReport> {
    let path = config.path()?.to_owned();
    let mut local = Local::open(&path)?;
    local.require_initialised()?;
    let held = lock::take_for_command(&path)?;
    // What an app wrote to a table that it had rebuilt is in no log: look first.
    if !heal::is_current(&local, config)? {
        heal::reinstall(&mut local, config)?;
    }
    let tx = local.begin()?;
    let device = inspect::device(&tx)?;
    let now = Time::from_ms(now_ms());
    let left = detach::left(&tx, now)?;
    let written = match (left.is_empty(), yes) {
        (true, _) => None,
        (false, true) => Some(write_down(&tx, config, now)?),
        (false, false) => return Err(refusal(&left, config)?),
    };
    failpoint::hit("detach_written");
    let removed = detach::remove(&tx)?;
    failpoint::hit("detach_before_commit");
    tx.commit().or_fault("taking tidewater out of the file")?;
    failpoint::hit("detach_after_commit");
    drop(local);
    drop(std::fs::remove_dir(config.conflict_directory()?));
    lock::remove(&path, held);
    Ok(DetachReport {
        device,
        triggers: removed.triggers,
        views: removed.views,
        tables: removed.tables,
        unsent: left.unsent,
        failed: left.failed,
        conflicts: left.conflicts,
        written: written.map(|p| p.to_string_lossy().into_owned()),
    })
}

fn refusal(left: &Left, config: &Config) -> Result<Error> {
    let many = |n: u64, one: &str, more: &str| match n {
        0 => None,
        1 => Some(format!("1 {one}")),
        n => Some(format!("{n} {more}")),
    };
    let mut what: Vec<String> = [
        many(left.unsent, "change is not sent", "changes are not sent"),
        many(left.failed, "change failed", "changes failed"),
        many(
            left.conflicts,
            "conflict is not acknowledged",
            "conflicts are not acknowledged",
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !left.uncompared.is_empty() {
        what.push(format!(
            "{} must be compared with the remote first, for it was rebuilt",
            left.uncompared.join(", ")
        ));
    }
    Ok(Error::new(
        Code::Configuration,
        format!("{}; nothing was removed", what.join(", ")),
        format!(
            "`tidewater now` sends, `tidewater queue --errors` and `tidewater conflicts` show the rest; or \
             repeat the command with --yes, which first writes all of it as JSON under {}",
            config.conflict_directory()?.display()
        ),
    ))
}

/// Writes what would be lost as one JSON file, owner only, and has it on disk before it returns.
fn write_down(tx: &Tx<'_>, config: &Config, now: Time) -> Result<PathBuf> {
    let folder = config.conflict_directory()?;
    let name = format!("detached-{}.json", ulid::Ulid::generate());
    let path = std::path::absolute(folder.join(name)).map_err(|e| unwritable(&folder, &e))?;
    let failed = |e: std::io::Error| unwritable(&path, &e);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(failed)?;
    let temporary = path.with_extension("json.part");
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    let mut out = BufWriter::new(file);
    detach::write(tx, &inspect::device(tx)?, now, &mut out)?;
    out.flush().map_err(failed)?;
    out.get_ref().sync_all().map_err(failed)?;
    std::fs::rename(&temporary, &path).map_err(failed)?;
    // The name is on disk only with its folder.
    File::open(&folder)
        .and_then(|f| f.sync_all())
        .map_err(failed)?;
    Ok(path)
}

fn unwritable(path: &Path, e: &std::io::Error) -> Error {
    Error::new(
        Code::LocalUnusable,
        format!("writing {}: {e}", path.display()),
        "make room, or name another folder in [conflict] directory; nothing was removed",
    )
}
