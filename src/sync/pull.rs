//! What happens when others have written: page, apply, cursor; then the notes whose keys are clean.
//!
//! Pull never decides a conflict and never overwrites a row with an unsent change; both are the
//! business of `sqlite::apply` and of the push.

use super::device::{Device, now_ms};
use super::{account, compare, tell};
use crate::error::{Disposition, Result};
use crate::failpoint;
use crate::model::{Key, Token};
use crate::remote::{Page, PageRequest, Remote, Tracked};
use crate::report::{NoProgress, Progress};
use crate::sqlite::apply::{self, Applied, Slicing};
use crate::sqlite::local::load_tables;
use crate::sqlite::{family, inbox, notes, state};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The longest that the app waits for a slice of ours.
const SLICE: Duration = Duration::from_millis(8);

/// Rows that are fetched by key at once, however small a page is: rows that swapped their unique
/// values can only be applied together.
const FETCHED: usize = 500;

/// How many pages' bytes are fetched at once of rows that did not fit alone.
const TOGETHER: usize = 4;

/// An idle cursor is stored again once the server is so many transactions ahead, so that a poll never
/// scans long over what this device wrote itself.
const STALE_XIDS: u64 = 500;

/// What a pull came to.
#[derive(Debug, Default, Clone)]
pub struct Pulled {
    /// Rows installed or deleted here.
    pub downloaded: u64,
    /// Conflicts that became known.
    pub conflicts: u64,
    /// Rows that cannot be applied for now.
    pub failed: u64,
}

impl Pulled {
    fn add<R: Remote>(&mut self, a: &Applied, device: &Device<R>) {
        self.downloaded += a.installed;
        self.conflicts += a.conflicts.len() as u64;
        device.monitor.downloaded(a.installed, a.failed);
        for c in &a.conflicts {
            tell::conflict(device, c);
        }
        if a.corrected > 0 {
            tracing::warn!(
                rows = a.corrected,
                "triggers of the app changed rows that arrived; the rows were put right"
            );
        }
        if a.untriggered > 0 {
            tracing::warn!(
                rows = a.untriggered,
                "triggers that only the app can run were left out for rows that arrived; see `tidewater doctor`"
            );
        }
    }
}

/// How rows are applied beside a living app.
pub fn beside_app() -> Slicing {
    Slicing {
        time: SLICE,
        rows: 1_000,
        history: true,
        now_ms: now_ms(),
    }
}

/// Reads the feed to its end, then fetches what notes ask for.
pub async fn drain<R: Remote>(
    device: &mut Device<R>,
    slicing: Slicing,
    stop: &CancellationToken,
    progress: &dyn Progress,
) -> Result<Pulled> {
    let mut pulled = Pulled::default();
    let mut drifted = false;
    // A round that an earlier process left half read ends where its target was frozen; what was
    // committed since comes with the next one.
    let mut resumed = state::token(device.local.conn())?.target.is_some();
    loop {
        device.local.still_there()?;
        device.prepare_if_needed().await?;
        let token = state::token(device.local.conn())?;
        let epoch = state::epoch(device.local.conn())?;
        let asked_at = now_ms();
        let request = PageRequest {
            device: device.id()?,
            former: state::former_ids(device.local.conn())?,
            identity: state::identity(device.local.conn())?,
            token: token.clone(),
            rows: device.config.download.page_size,
            bytes: device.config.download.page_bytes_max,
            tables: device.tables.clone(),
        };
        let page = match device.remote.page(&request).await {
            Ok(page) => page,
            Err(e) if e.disposition == Some(Disposition::SchemaDrift) && !drifted => {
                drifted = true;
                device.prepare().await?;
                continue;
            }
            Err(e) => return Err(e),
        };
        failpoint::hit("page_received");
        let verdict = device.check_head(&page.head, asked_at)?;
        if !device.settle(verdict).await? {
            continue;
        }
        match truncated(device, &page).await {
            Err(e) if e.disposition == Some(Disposition::SchemaDrift) && !drifted => {
                drifted = true;
                device.prepare().await?;
                continue;
            }
            other => other?,
        }
        // What an idle device tells is stored first: deletes are collected by what it tells.
        if !device.wrote && idle(&page, &token) && !account::is_due(device)? {
            break;
        }
        if !page.head.flushed && !failpoint::is_planted("no_flush") {
            // A cursor may only be stored once the log up to its snapshot is on disk: a commit of our
            // own, after that snapshot, carries everything before it.
            device.remote.flush(&request.device).await?;
        }
        failpoint::hit("cursor_before_store");
        let rows = page.rows.len() as u64;
        let applied = match apply::page(&mut device.local, &page, &token, epoch, slicing) {
            Err(e) if e.disposition == Some(Disposition::SchemaDrift) => {
                device.heal_capture()?;
                continue;
            }
            other => other?,
        };
        failpoint::hit("cursor_after_store");
        pulled.add(&applied, device);
        // A new device's first fill is as old as its rows.
        if !applied.stale && !applied.claim_first && token.last != crate::model::Snapshot::empty() {
            tell::arrived(device, &page.rows);
        }
        device.wrote &= applied.stale || applied.claim_first || page.more;
        progress.advance(rows);
        if applied.claim_first {
            device.claim_all(&NoProgress)?;
            continue;
        }
        if applied.stale || page.more || std::mem::take(&mut resumed) {
            if stop.is_cancelled() {
                return Ok(pulled);
            }
            continue;
        }
        break;
    }
    family::note(&mut device.local)?;
    heal_tables(device).await?;
    fetch_notes(device, slicing, &mut pulled).await?;
    account::keep(device, pulled.downloaded > 0).await;
    // The rows are kept in the conflicts table in any case: a folder that is full stops nothing.
    if let Err(e) = device.preserve() {
        tracing::warn!(code = e.code.as_str(), error = %e.message, remedy = %e.remedy, "a conflict's file is missing");
    }
    // Each row once, and none that met a constraint in its page and was applied by key in the end.
    pulled.failed = inbox::failed_since(device.local.conn(), slicing.now_ms)?;
    tell::stuck(device, pulled.failed);
    device.monitor.pulled(crate::report::Time::now());
    Ok(pulled)
}

/// Whether a page brings nothing that is worth a write.
fn idle(page: &Page, token: &Token) -> bool {
    page.rows.is_empty()
        && page.conflicts.is_empty()
        && token.target.is_none()
        && page.next.last.xmax() < token.last.xmax() + STALE_XIDS
        && token.last != crate::model::Snapshot::empty()
}

/// Mirrors whose epoch was raised by TRUNCATE are compared: a repeatable read snapshot of the feed may
/// have hidden the rows that it removed.
async fn truncated<R: Remote>(device: &mut Device<R>, page: &Page) -> Result<()> {
    let raised: Vec<(Tracked, i64)> = device
        .tables
        .iter()
        .filter_map(|t| {
            let now = page.head.epochs.get(&t.mirror.id)?;
            (*now > t.mirror.epoch).then(|| (t.clone(), *now))
        })
        .collect();
    for (t, epoch) in raised {
        compare::leave_notes(device, &t).await?;
        let mut mirror = t.mirror.clone();
        mirror.epoch = epoch;
        crate::sqlite::local::set_mirror(device.local.conn(), &t.table.name, Some(&mirror))?;
        device.reload()?;
    }
    Ok(())
}

/// Tables whose capture was bare are compared, and what was written meanwhile is queued.
async fn heal_tables<R: Remote>(device: &mut Device<R>) -> Result<()> {
    for k in load_tables(device.local.conn())?
        .into_iter()
        .filter(|k| k.heal)
    {
        let tracked = device
            .tables
            .iter()
            .find(|t| t.table.name == k.table.name)
            .cloned();
        if let Some(t) = tracked {
            compare::heal(device, &t).await?;
        }
    }
    Ok(())
}

/// Fetches, by key, rows that were noted and are clean now.
async fn fetch_notes<R: Remote>(
    device: &mut Device<R>,
    slicing: Slicing,
    pulled: &mut Pulled,
) -> Result<()> {
    if !notes::any(device.local.conn())? {
        return Ok(());
    }
    let mut after: Option<(String, String)> = None;
    let mut apart = false;
    loop {
        let found = notes::clean(device.local.conn(), after.as_ref(), FETCHED)?;
        let Some((table, pk, _)) = found.last() else {
            break;
        };
        after = Some((table.clone(), pk.clone()));
        apart |= fetch_all(device, &found, 1, slicing, pulled).await?;
    }
    if apart {
        // Large rows came one by one, and those that swapped their unique values fit only together.
        let stuck = notes::stuck(device.local.conn(), FETCHED)?;
        fetch_all(device, &stuck, TOGETHER, slicing, pulled).await?;
    }
    Ok(())
}

/// Fetches rows by key in pages of `pages` times the configured bytes; whether any table took several.
async fn fetch_all<R: Remote>(
    device: &mut Device<R>,
    found: &[(String, String, Key)],
    pages: usize,
    slicing: Slicing,
    pulled: &mut Pulled,
) -> Result<bool> {
    let bytes = device.config.download.page_bytes_max.saturating_mul(pages);
    let mut apart = false;
    for t in device.tables.clone() {
        let mut keys: Vec<Key> = found
            .iter()
            .filter(|(table, _, _)| *table == t.table.name)
            .map(|(_, _, key)| key.clone())
            .collect();
        while !keys.is_empty() {
            keys = fetch(device, &t, &keys, bytes, slicing, pulled).await?;
            apart |= !keys.is_empty();
        }
    }
    Ok(apart)
}

/// One page of rows by key; returns the keys whose rows did not fit into it.
async fn fetch<R: Remote>(
    device: &mut Device<R>,
    t: &Tracked,
    keys: &[Key],
    bytes: usize,
    slicing: Slicing,
    pulled: &mut Pulled,
) -> Result<Vec<Key>> {
    let token = state::token(device.local.conn())?;
    let epoch = state::epoch(device.local.conn())?;
    let asked_at = now_ms();
    let id = device.id()?;
    let (head, rows) = match device.remote.fetch(&id, &token, t, keys, bytes).await {
        Err(e) if e.disposition == Some(Disposition::SchemaDrift) => {
            // The notes stay, and the next pull asks again.
            device.prepare().await?;
            return Ok(Vec::new());
        }
        other => other?,
    };
    failpoint::hit("fetch_received");
    let verdict = device.check_head(&head, asked_at)?;
    if !device.settle(verdict).await? {
        return Ok(Vec::new());
    }
    if !head.flushed && !failpoint::is_planted("no_flush") {
        device.remote.flush(&id).await?;
    }
    match apply::fetched(&mut device.local, &t.table.name, &rows, epoch, slicing) {
        // Stale or too long a log: the notes stay and the next pull asks again.
        Ok(applied) => pulled.add(&applied, device),
        Err(e) if e.disposition == Some(Disposition::SchemaDrift) => {
            device.heal_capture()?;
            return Ok(Vec::new());
        }
        Err(e) => return Err(e),
    }
    if rows.is_empty() || rows.len() >= keys.len() {
        return Ok(Vec::new());
    }
    let came: BTreeSet<String> = rows.iter().map(|f| f.key.encode()).collect();
    let left = keys.iter().filter(|k| !came.contains(&k.encode()));
    Ok(left.cloned().collect())
}
