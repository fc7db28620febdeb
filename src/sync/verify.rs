//! `verify`: both sides compared table by table, and repaired where that is asked for.

use super::device::{Device, now_ms};
use super::ops::{self, NowOptions};
use super::{compare, connect, now as syncing, repair};
use crate::config::Config;
use crate::error::{Code, Disposition, Error, Result};
use crate::remote::{Remote, Tracked};
use crate::report::{NoProgress, Progress, Repaired, VerifyReport};
use crate::sqlite::inspect;

/// Rounds of a repair: a row that moved in between is left for the next one.
const ROUNDS: usize = 3;

/// See `ops::verify`.
pub async fn verify(
    config: &Config,
    tables: &[String],
    repair: bool,
    progress: &dyn Progress,
) -> Result<VerifyReport> {
    let mut device = Device::new(ops::open(config)?, connect::remote(config)?, config.clone())?;
    let repaired = if repair {
        Some(repair_all(&mut device, tables, progress).await?)
    } else {
        None
    };
    meet(&mut device).await?;
    let mut report = VerifyReport {
        identical: true,
        tables: Vec::new(),
        repaired,
    };
    for t in chosen(&device, tables)? {
        progress.begin(&t.table.name, None);
        let table = match compare::verify(&mut device, &t, progress).await {
            Err(e) if e.disposition == Some(Disposition::SchemaDrift) => {
                device.prepare().await?;
                let name = std::slice::from_ref(&t.table.name);
                let again = chosen(&device, name)?.pop().unwrap_or(t);
                compare::verify(&mut device, &again, progress).await?
            }
            other => other?,
        };
        progress.end();
        report.identical &= table.is_identical();
        report.tables.push(table);
    }
    Ok(report)
}

/// A comparison with another server than the one that is known would only mislead.
async fn meet<R: Remote>(device: &mut Device<R>) -> Result<()> {
    device.prepare_if_needed().await?;
    let asked_at = now_ms();
    let head = device.remote.head(&device.id()?).await?;
    device.check_head(&head, asked_at)?;
    Ok(())
}

/// The tables that were named, or all.
fn chosen<R: Remote>(device: &Device<R>, names: &[String]) -> Result<Vec<Tracked>> {
    // As SQLite has it, names know no case.
    let is = |t: &Tracked, name: &String| t.table.name.eq_ignore_ascii_case(name);
    for name in names {
        if !device.tables.iter().any(|t| is(t, name)) {
            return Err(Error::new(
                Code::Configuration,
                "the table is not tracked on both sides",
                "see the tracked tables with `tidewater status`",
            )
            .on_table(name));
        }
    }
    let wanted = |t: &&Tracked| names.is_empty() || names.iter().any(|n| is(t, n));
    Ok(device.tables.iter().filter(wanted).cloned().collect())
}

async fn repair_all<R: Remote>(
    device: &mut Device<R>,
    tables: &[String],
    progress: &dyn Progress,
) -> Result<Repaired> {
    let before = inspect::conflict_counts(device.local.conn())?.total;
    let mut all = Repaired::default();
    // What is on its way arrives first: it is not damage.
    sync(device, progress).await?;
    for _ in 0..ROUNDS {
        let mut round = Repaired::default();
        for t in chosen(device, tables)? {
            progress.begin(&t.table.name, None);
            round.add(&repair::table(device, &t).await?);
            progress.end();
        }
        if round == Repaired::default() {
            break;
        }
        all.add(&round);
        sync(device, progress).await?;
    }
    let after = inspect::conflict_counts(device.local.conn())?.total;
    all.conflicts = after.saturating_sub(before);
    Ok(all)
}

/// One sync, through the running service if there is one.
async fn sync<R: Remote>(device: &mut Device<R>, progress: &dyn Progress) -> Result<()> {
    progress.begin("syncing", None);
    let done = syncing::now(&device.config, &NowOptions::default(), false, &NoProgress).await;
    progress.end();
    done?;
    device.reload()
}
