//! `init --adopt-remote`: the app made its tables, the workspace has the rows.
//!
//! A plain `init` whose feed is read at once, with a promise: nothing that stood in the file before is
//! sent. So a tracked table that holds rows is refused, inside the transaction that installs capture.
//! The remote is asked before the file is touched. From then on this is an ordinary device whose first
//! pull has begun: killed anywhere, the next run goes on, and so do `now` and `run`.

use super::device::Device;
use super::init;
use super::ops::{InitOptions, InitOutcome};
use super::pull;
use super::{connect, heal, lock, mount};
use crate::config::{Config, FILE_NAME};
use crate::error::{Code, Error, Result};
use crate::remote::{Remote, Standing};
use crate::report::{Progress, Skipped};
use crate::sqlite::apply::Slicing;
use crate::sqlite::introspect::{self, Introspection};
use crate::sqlite::local::{Connection, Local, has_rows};
use crate::sqlite::state;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// The tables that this command has found empty once, and fills.
const ADOPTED: &str = "adopted_tables";

/// Tables that a message names.
const NAMED: usize = 5;

/// See `ops::init`.
pub async fn adopt(
    config: &Config,
    opts: &InitOptions,
    progress: &dyn Progress,
) -> Result<InitOutcome> {
    let started = Instant::now();
    let mut local = Local::open(config.path()?)?;
    mount::require_local(config, local.path())?;
    local.require_known()?;
    let chosen = init::choice(config, opts, &local)?;
    let found = introspect::tables(local.conn(), &heal::settings(config, &chosen))?;
    // Before the network is asked; what counts is the second look, under the write lock.
    require_empty(local.conn(), &found)?;
    let remote = connect::remote(config)?;
    progress.begin("asking the workspace", None);
    let standing = remote.standing().await;
    progress.end();
    let standing = standing?;
    let lacking = compare(config, &found, &standing)?;
    if opts.dry_run {
        for s in &lacking {
            tracing::warn!(table = s.name, "{}", s.reason);
        }
        return init::dry_run(config, opts, &local, Some(&standing)).map(InitOutcome::DryRun);
    }
    let _held = lock::take_for_command(config.path()?)?;
    progress.begin("installing capture", None);
    let found = init::install_where(config, opts, &mut local, |tx, found| {
        require_empty(tx, found)?;
        mark(tx, found)
    });
    progress.end();
    let found = found?;
    if config.source.is_none() {
        init::write_config(config, &opts.tables, Path::new(FILE_NAME))?;
    }
    let mut device = Device::new(local, remote, config.clone())?;
    let filled = fill(&mut device, progress).await;
    progress.end();
    let done = device.report_problems(filled.as_ref().err());
    let missing = filled.inspect_err(|_| {
        tracing::warn!(
            "capture is installed and what came so far is kept; `tidewater init --adopt-remote` goes on, \
             and so do `tidewater now` and `tidewater run`"
        );
    })?;
    done?;
    let mut report = init::report(&device.local, &found, started)?;
    report.skipped.extend(lacking);
    report.skipped.extend(device.refused.iter().map(unfilled));
    Ok(if missing || !device.refused.is_empty() {
        InitOutcome::Partly(report)
    } else {
        InitOutcome::Done(report)
    })
}

/// Reads the feed to its end in the slices of a guest; whether anything of it cannot be applied.
async fn fill<R: Remote>(device: &mut Device<R>, progress: &dyn Progress) -> Result<bool> {
    progress.begin("preparing the workspace", None);
    device.prepare().await?;
    if device.tables.is_empty()
        && let Some(e) = device.refused.first()
    {
        return Err(e.clone());
    }
    progress.begin("downloading rows", None);
    // The history would say of every row that it came with the first fill.
    let slicing = Slicing {
        history: false,
        ..pull::beside_app()
    };
    let pulled = pull::drain(device, slicing, &CancellationToken::new(), progress).await?;
    if pulled.failed > 0 {
        tracing::warn!(
            rows = pulled.failed,
            "some rows cannot be applied and wait; see `tidewater queue --inbox --errors`"
        );
    }
    Ok(pulled.failed > 0)
}

/// The tables that were found empty by an earlier run: what is in them now came from the workspace, or
/// from the app since then.
fn marked(conn: &Connection) -> Result<BTreeSet<String>> {
    if !crate::sqlite::local::has_table(conn, "tidewater_state")? {
        return Ok(BTreeSet::new());
    }
    Ok(state::get(conn, ADOPTED)?
        .and_then(|t| serde_json::from_str(&t).ok())
        .unwrap_or_default())
}

fn mark(conn: &Connection, found: &Introspection) -> Result<()> {
    let mut names = marked(conn)?;
    names.extend(found.tables.iter().map(|t| t.name.clone()));
    let json = serde_json::to_string(&names).unwrap_or_default();
    state::set(conn, ADOPTED, &json)
}

fn require_empty(conn: &Connection, found: &Introspection) -> Result<()> {
    let marked = marked(conn)?;
    let mut full = Vec::new();
    for t in found.tables.iter().filter(|t| !marked.contains(&t.name)) {
        if has_rows(conn, &t.name)? {
            full.push(t.name.as_str());
        }
    }
    let Some(first) = full.first() else {
        return Ok(());
    };
    let e = Error::new(
        Code::Configuration,
        format!(
            "`--adopt-remote` fills empty tables, and {} {} rows",
            listed(&full),
            if full.len() == 1 { "holds" } else { "hold" }
        ),
        "run plain `tidewater init`: it queues these rows, and where the workspace holds another version \
         of one, that one stays and this one is kept as a conflict; or empty the tables first",
    );
    Err(if full.len() == 1 {
        e.on_table(*first)
    } else {
        e
    })
}

/// `a`, `a and b`, `a, b and 3 more`.
fn listed(names: &[&str]) -> String {
    let (shown, more) = names.split_at(names.len().min(NAMED));
    match (shown, more.len()) {
        ([all @ .., last], 0) if !all.is_empty() => format!("{} and {last}", all.join(", ")),
        (_, 0) => shown.concat(),
        (_, n) => format!("{} and {n} more", shown.join(", ")),
    }
}

/// What the workspace has and the file lacks; an error where they share nothing.
fn compare(config: &Config, found: &Introspection, standing: &Standing) -> Result<Vec<Skipped>> {
    if !found
        .tables
        .iter()
        .any(|t| standing.tables.contains(&t.name))
    {
        let schema = &config.remote.schema;
        let message = match &standing.mirrors {
            None => {
                format!("there is no workspace in schema {schema}, and none of this file's tables")
            }
            Some(_) => format!("the workspace in schema {schema} has none of this file's tables"),
        };
        return Err(Error::new(
            Code::RemoteNotUsable,
            message,
            "correct --schema, or have the app make its tables first; `tidewater clone` makes a file from a \
             workspace",
        ));
    }
    let here = |name: &str| {
        found.tables.iter().any(|t| t.name == name) || found.skipped.iter().any(|s| s.name == name)
    };
    Ok(standing
        .mirrors
        .iter()
        .flatten()
        .filter(|name| !here(name))
        .map(|name| Skipped {
            name: name.clone(),
            reason:
                "the workspace has it and this file does not; once the app has made it, its rows \
                     arrive by themselves"
                    .to_owned(),
        })
        .collect())
}

/// A table that the workspace refused.
fn unfilled(e: &Error) -> Skipped {
    Skipped {
        name: e.table.clone().unwrap_or_default(),
        reason: format!("{}; {}", e.message, e.remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_told_in_few_words() {
        assert_eq!(listed(&["a"]), "a");
        assert_eq!(listed(&["a", "b"]), "a and b");
        assert_eq!(listed(&["a", "b", "c"]), "a, b and c");
        let many = ["a", "b", "c", "d", "e", "f", "g"];
        assert_eq!(listed(&many), "a, b, c, d, e and 2 more");
    }
}
