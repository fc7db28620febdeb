//! A full listing for a device that was away for longer than deletes are remembered (PROTOCOL section 5,
//! "GC mark passed / retired").
//!
//! The feed cannot say what was deleted and forgotten, so everything is compared once, under a snapshot
//! taken before. A clean row that differs leaves a note and is fetched by key like any other: what is not
//! there is deleted here. A row with an unsent change is kept, unless it was deleted there and known here:
//! then the delete wins and the change goes to the conflicts. Rows that were never sent take no part.
//!
//! Notes are on disk, so memory stays small, and the cursor moves only at the end: whatever interrupts
//! the listing, it is made again and nothing is lost.

use super::device::{Device, check_identity, now_ms};
use super::{compare, first};
use crate::error::Result;
use crate::model::Token;
use crate::remote::{Remote, Tracked};
use crate::report::NoProgress;
use crate::sqlite::fault::OrFault;
use crate::sqlite::local::{Local, Tx};
use crate::sqlite::{notes, queue, state, stock};

const WHAT: &str = "taking stock of a table";

/// The id that is given up, while a listing is under way.
const FORMER: &str = "relisting";

/// The id that this file had before the listing that is under way; `None` where none is.
pub fn former(local: &Local) -> Result<Option<String>> {
    let conn = local.conn();
    let id = state::device_id(conn)?;
    Ok(state::get(conn, FORMER)?.filter(|f| *f != id))
}

/// Lists everything and moves the cursor to the snapshot before it.
pub async fn relist<R: Remote>(device: &mut Device<R>) -> Result<()> {
    first::give_up(device)?;
    device.claim_all(&NoProgress)?;
    let id = device.id()?;
    let former = match state::get(device.local.conn(), FORMER)? {
        Some(former) => former,
        None => {
            state::set(device.local.conn(), FORMER, &id)?;
            id.clone()
        }
    };
    if former == id {
        // The server may have let go of the old one at any time; its row there is not relied on.
        let id = queue::take_new_identity(&mut device.local, queue::AWAY, now_ms())?;
        tracing::warn!(
            former,
            device = id,
            "this device was away for longer than deletes are remembered; it compares everything and \
             goes on under a new id"
        );
    }
    device.prepare().await?;
    let id = device.id()?;
    let head = device.remote.head(&id).await?;
    if let Some(known) = state::identity(device.local.conn())? {
        check_identity(&known, &head.identity)?;
    }
    if !head.flushed {
        device.remote.flush(&id).await?;
    }
    for t in device.tables.clone() {
        table(device, &t, head.gc_xid).await?;
    }
    let tx = device.local.begin()?;
    stock::clear(&tx, head.gc_xid)?;
    arrive(&tx, &Token::at(head.snapshot), head.insert_lsn)?;
    state::put(&tx, FORMER, None)?;
    tx.commit().or_fault(WHAT)
}

/// Forgets a listing that is under way: another one took its place.
pub fn forget(tx: &Tx<'_>) -> Result<()> {
    state::put(tx, FORMER, None)
}

/// Stores the cursor behind a full listing. What was asked for before it is stale.
pub(super) fn arrive(tx: &Tx<'_>, token: &Token, lsn: u64) -> Result<()> {
    state::set_token(tx, token)?;
    state::set_number(tx, "insert_lsn", i64::try_from(lsn).unwrap_or(0))?;
    state::bump_epoch(tx)
}

async fn table<R: Remote>(device: &mut Device<R>, t: &Tracked, mark: u64) -> Result<()> {
    let name = t.table.name.clone();
    let mut gave_way = 0_usize;
    compare::walk(device, t, |local, pairs| {
        let tx = local.begin()?;
        let base = notes::intern(&tx, &state::token(&tx)?)?;
        for p in pairs.iter().filter(|p| !p.agrees()) {
            let pk = p.key.encode();
            if stock::is_private(&tx, &name, &pk)? {
                continue;
            }
            if p.change.is_none() && stock::gives_way(&tx, &name, &pk, mark, now_ms())? {
                gave_way += 1;
            }
            notes::leave(&tx, &name, &pk, base)?;
        }
        tx.commit().or_fault(WHAT)
    })
    .await?;
    if gave_way > 0 {
        tracing::warn!(
            code = "SYNC-003",
            table = name,
            rows = gave_way,
            "rows were edited here after others had deleted them; the edits are kept as conflicts"
        );
    }
    Ok(())
}
