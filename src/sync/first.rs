//! The first upload: existing rows, page by page, before anything else is sent.
//!
//! Never decides anything about a row. A page that meets what others wrote, or a row that the server
//! refuses, is left to the claim and goes the way of every change. Ends early, with all that it sent on
//! disk, where a pull is due, a pause is asked for or the process stops; the next push goes on.

use super::device::{Device, now_ms};
use super::push::{self, Pushed};
use super::{flight, forms, relist, tell};
use crate::error::{Disposition, Error, Result};
use crate::remote::{Outcome, PushAnswer, Remote};
use crate::report::{NoProgress, Progress};
use crate::sqlite::fault::OrFault;
use crate::sqlite::first::{self, Page};
use crate::sqlite::outbox::{Acknowledged, BatchLimits};
use crate::sqlite::queue;
use crate::sqlite::state;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// What follows a page.
enum Next {
    /// Another one.
    Page,
    /// The rest goes the ordinary way, or later.
    End,
}

/// Sends the existing rows that wait for it.
pub async fn upload<R: Remote>(
    device: &mut Device<R>,
    stop: &CancellationToken,
    progress: &dyn Progress,
) -> Result<Pushed> {
    let mut pushed = Pushed::default();
    if !first::waits(device.local.conn())? {
        return Ok(pushed);
    }
    forms::settle(device).await?;
    progress.begin("first upload", Some(first::left(device.local.conn())?));
    let done = pages(device, stop, progress, &mut pushed).await;
    progress.end();
    done.map(|()| pushed)
}

async fn pages<R: Remote>(
    device: &mut Device<R>,
    stop: &CancellationToken,
    progress: &dyn Progress,
    pushed: &mut Pushed,
) -> Result<()> {
    let mut met = false;
    loop {
        // What the app writes meanwhile is queued, and the pages leave it to the queue.
        if queue::log_waits(device.local.conn())? {
            device.claim_all(&NoProgress)?;
        }
        if device.heeds_pause && state::paused(device.local.conn())? {
            return Ok(());
        }
        device.local.still_there()?;
        let limits = BatchLimits {
            items: device.batch_cap,
            bytes: device.config.upload.batch_bytes_max,
            now_ms: now_ms(),
            force: false,
        };
        let config = device.config.clone();
        let policy = |table: &str| config.policy(table);
        let row_bytes_max = config.upload.row_bytes_max;
        let page = match first::next_page(&mut device.local, limits, row_bytes_max, &policy) {
            Err(e) if e.disposition == Some(Disposition::SchemaDrift) => {
                device.heal_capture()?;
                return Ok(());
            }
            page => page?,
        };
        let Some(page) = page else {
            return Ok(());
        };
        if let Next::End = send(device, &page, &mut met, progress, pushed).await? {
            return Ok(());
        }
        let makes_way = device.push_until.is_some_and(|t| Instant::now() >= t);
        if makes_way || stop.is_cancelled() {
            return Ok(());
        }
    }
}

/// Sends one page until its outcome is known. `met`: whether the page before it could not go whole.
async fn send<R: Remote>(
    device: &mut Device<R>,
    page: &Page,
    met: &mut bool,
    progress: &dyn Progress,
    pushed: &mut Pushed,
) -> Result<Next> {
    let rows = page.batch.items.len();
    let full = rows >= device.batch_cap;
    let mut left_here = true;
    let sent = Instant::now();
    let (remote, tables) = (&*device.remote, &device.tables);
    match flight::send(remote, &page.batch, tables, &device.monitor, &mut left_here).await {
        Ok(PushAnswer::Done { .. }) => {
            first::acknowledge(&mut device.local, page, now_ms())?;
            let done = Acknowledged {
                uploaded: rows as u64,
                ..Acknowledged::default()
            };
            let outcomes = vec![Outcome::Applied; rows];
            tell::batch(device, &page.batch, &outcomes, &done, sent.elapsed());
            device.wrote = true;
            pushed.add(&done, 0);
            progress.advance(rows as u64);
            *met = false;
            if full && device.slow_items == 0 {
                let max = device.config.upload.batch_size_max;
                device.batch_cap = (device.batch_cap * 2).min(max);
            }
            Ok(Next::Page)
        }
        Ok(PushAnswer::Apart) => {
            // One page may hold a row that is refused; where the next one does not go either, others
            // fill the same table.
            let rest = std::mem::replace(met, true);
            first::leave(&mut device.local, page, rest)?;
            Ok(Next::Page)
        }
        Ok(PushAnswer::Mismatch) => {
            device.take_new_identity().await?;
            Ok(Next::Page)
        }
        Ok(PushAnswer::Behind) => Err(push::forgotten()),
        Ok(PushAnswer::Gone) => {
            first::release(&mut device.local, page)?;
            relist::relist(device).await?;
            Ok(Next::End)
        }
        Err(e) if e.disposition == Some(Disposition::SchemaDrift) => {
            first::leave(&mut device.local, page, true)?;
            Ok(Next::End)
        }
        Err(e) if e.disposition == Some(Disposition::TooSlow) => too_slow(device, page, e),
        Err(e) => {
            if left_here && !page.resumed {
                first::release(&mut device.local, page)?;
            }
            Err(e)
        }
    }
}

/// The server rolled the page back: the next ones are half as large, and a row that is too slow even
/// alone is left to the queue, which puts it off.
fn too_slow<R: Remote>(device: &mut Device<R>, page: &Page, e: Error) -> Result<Next> {
    let rows = page.batch.items.len();
    tracing::info!(rows, error = %e.message, "a page was not done in time");
    if rows > 1 {
        device.batch_cap = (rows / 2).max(1);
        first::release(&mut device.local, page)?;
    } else {
        first::leave(&mut device.local, page, false)?;
    }
    // Without an answer the line may be dead: the schedule decides when it is tried again.
    if e.sqlstate.is_none() {
        return Err(e);
    }
    Ok(Next::Page)
}

/// Leaves the existing rows to the queue: both sides are about to be compared row by row.
pub fn give_up<R>(device: &mut Device<R>) -> Result<()> {
    if first::tables(device.local.conn())?.is_empty() && !first::waits(device.local.conn())? {
        return Ok(());
    }
    let tx = device.local.begin()?;
    first::give_up(&tx)?;
    tx.commit()
        .or_fault("leaving the existing rows to the queue")
}
