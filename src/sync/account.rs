//! What a device tells the workspace of itself, and the collection of old deletes. Both are book-keeping:
//! whatever fails here is tried again later and never fails a sync.
//!
//! An idle poll writes nothing: without news a device tells at most once an hour.

use super::device::{Device, now_ms};
use crate::error::{Code, Result};
use crate::remote::Remote;
use crate::sqlite::fault::OrFault;
use crate::sqlite::state;
use std::time::Duration;

/// How often an idle device tells that it lives, ms.
const IDLE_MS: i64 = 3_600_000;

/// How often a service tells how far it has read while rows keep coming, ms.
const BUSY_MS: i64 = 60_000;

/// How often a device looks whether deletes are to be collected, ms.
const COLLECT_MS: i64 = 86_400_000;

/// Tells and collects where that is due. `news`: the feed has just brought something.
pub async fn keep<R: Remote>(device: &mut Device<R>, news: bool) {
    if let Err(e) = tell(device, news).await {
        tracing::debug!(code = e.code.as_str(), error = %e.message, "the workspace is told later");
        return;
    }
    match collect(device).await {
        Ok(()) => {}
        // An outage has its own line, told by the sync that meets it next.
        Err(e) if e.code == Code::Connection => {
            tracing::debug!(code = e.code.as_str(), error = %e.message, "old deletes are collected later");
        }
        Err(e) => {
            tracing::warn!(code = e.code.as_str(), error = %e.message, "old deletes are collected later");
        }
    }
}

/// Whether an idle device has to tell that it lives.
pub fn is_due<R: Remote>(device: &Device<R>) -> Result<bool> {
    due(device, "told_at", IDLE_MS)
}

async fn tell<R: Remote>(device: &mut Device<R>, news: bool) -> Result<()> {
    let every = match (news, device.heeds_pause) {
        (false, _) => IDLE_MS,
        (true, true) => BUSY_MS,
        // Somebody asked for this sync, and may ask for the devices next.
        (true, false) => 0,
    };
    if !due(device, "told_at", every)? {
        return Ok(());
    }
    let cursor = state::token(device.local.conn())?.last;
    device.remote.tell(&device.id()?, &cursor).await?;
    done(device, "told_at")
}

async fn collect<R: Remote>(device: &mut Device<R>) -> Result<()> {
    let days = device.config.retention.tombstone_days;
    // More often only where deletes are kept for less than a day.
    let every = COLLECT_MS.min(i64::from(days) * COLLECT_MS);
    if !due(device, "collected_at", every)? {
        return Ok(());
    }
    let every = Duration::from_millis(u64::try_from(every).unwrap_or(0));
    let gone = device.remote.collect(&device.id()?, days, every).await?;
    if gone > 0 {
        tracing::info!(deletes = gone, "old deletes were collected");
    }
    done(device, "collected_at")
}

/// Whether so long has passed since the last time, by a clock that may have been set back.
fn due<R: Remote>(device: &Device<R>, name: &str, every: i64) -> Result<bool> {
    let last = state::number(device.local.conn(), name)?;
    let now = now_ms();
    Ok(now < last || now - last >= every)
}

fn done<R: Remote>(device: &mut Device<R>, name: &str) -> Result<()> {
    let tx = device.local.begin()?;
    state::set_number(&tx, name, now_ms())?;
    tx.commit().or_fault("keeping account")
}
