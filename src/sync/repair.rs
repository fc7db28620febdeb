//! `verify --repair`: what differs although nothing of it is on its way goes through the normal rules.
//!
//! Nothing is written into either side here. A row that only the remote has is noted and so fetched by
//! key. A row that is here, and there not at all, otherwise or deleted, is queued without a history: the
//! push takes it for concurrent with whatever another device wrote, decides, and keeps the loser. This
//! device's own version there would be written over without that question, so it is kept as a conflict
//! first. Nothing proves that a row here is merely old, so nothing here is simply overwritten either.
//!
//! Works beside a running service: each page is judged again under the write lock, and left for the next
//! round where the cursor or the row moved in between.

use super::compare::{Pair, Standing, standing, walk};
use super::device::{Device, now_ms};
use crate::error::Result;
use crate::model::{Kind, Side, Token};
use crate::remote::{ConflictRecord, Remote, Tracked};
use crate::report::Repaired;
use crate::sqlite::fault::OrFault;
use crate::sqlite::local::{Tx, schema_is_known};
use crate::sqlite::{app_row, conflicts, heal_log, notes, state};

const WHAT: &str = "repairing a table";

/// Queues and notes what differs in one table; the next sync carries it out.
pub async fn table<R: Remote>(device: &mut Device<R>, t: &Tracked) -> Result<Repaired> {
    let mut done = Repaired::default();
    let (id, policy) = (device.id()?, device.config.policy(&t.table.name));
    let token = state::token(device.local.conn())?;
    walk(device, t, |local, pairs| {
        if pairs.iter().all(Pair::agrees) {
            return Ok(());
        }
        let tx = local.begin()?;
        if state::token(&tx)? != token || !schema_is_known(&tx)? {
            return Ok(());
        }
        let current = notes::intern(&tx, &token)?;
        let empty = notes::intern(&tx, &Token::empty())?;
        for p in pairs.iter().filter(|p| !p.agrees()) {
            if !unmoved(&tx, t, p)? || standing(&tx, t, p)? != Standing::Settled {
                continue;
            }
            let pk = p.key.encode();
            let Some(here) = &p.here else {
                notes::leave(&tx, &t.table.name, &pk, current)?;
                done.fetched += 1;
                continue;
            };
            if p.own && p.there.is_some() {
                let kept = ConflictRecord {
                    id: crate::world::ulid().to_string(),
                    table: t.table.name.clone(),
                    key: p.key.clone(),
                    kind: Kind::UpdateUpdate,
                    policy,
                    winner: Side::Local,
                    local: Some(here.clone()),
                    remote: p.there.clone(),
                    local_change: String::new(),
                    remote_change: p.change.clone().unwrap_or_default(),
                    remote_device: id.clone(),
                    detected_at: now_ms(),
                };
                conflicts::store(&tx, &kept)?;
            }
            // The note brings the winner, should this one lose.
            notes::leave(&tx, &t.table.name, &pk, empty)?;
            heal_log::append_unknown(&tx, &t.table, &p.key)?;
            done.queued += 1;
        }
        tx.commit().or_fault(WHAT)
    })
    .await?;
    Ok(done)
}

/// Whether the row is still what it was when the two sides were compared.
fn unmoved(tx: &Tx<'_>, t: &Tracked, p: &Pair) -> Result<bool> {
    let now = app_row::read(tx, &t.table, &p.key).or_fault(WHAT)?;
    Ok(now == p.here)
}
