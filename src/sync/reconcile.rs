//! The server went back in time (PROTOCOL section 5, SYNC-007): both sides are compared, and what it lost
//! is sent again.
//!
//! A clean row that differs either is newer here, by the history of this file: then it is queued under its
//! own change key, a delete too; or nobody can tell: then the server's version stands, and what gives way
//! is kept as a conflict. Nothing is decided here that another device might have changed: that is the
//! push's business, as ever.
//!
//! Everything found is on disk as an entry, a note or a conflict, so memory stays small. The file is bound
//! to the server of before until the last transaction, so nothing can be exchanged meanwhile, and whatever
//! interrupts the reconcile, it is made again.

use super::compare::{self, Pair};
use super::device::{Device, now_ms};
use super::{first, relist};
use crate::error::{Code, Error, Result};
use crate::failpoint;
use crate::model::{Key, Kind, Policy, Side, Token};
use crate::remote::{Head, Hello, Remote, Tracked};
use crate::report::{NoProgress, Progress};
use crate::sqlite::fault::OrFault;
use crate::sqlite::journal::{self, Detail, Place};
use crate::sqlite::local::{Local, Tx, load_tables};
use crate::sqlite::{notes, queue, recall, state};
use std::collections::BTreeMap;

const WHAT: &str = "comparing with a server that went back in time";

/// Keys that are looked up at once.
const PAGE: usize = 500;

/// What a reconcile found.
#[derive(Debug, Default, Clone, Copy)]
struct Found {
    /// Versions queued again.
    again: u64,
    /// Rows whose server version is fetched.
    fetched: u64,
    /// Rows whose content here gave way and is kept.
    kept: u64,
}

/// Meets the server again after `why`.
pub async fn reconcile<R: Remote>(
    device: &mut Device<R>,
    why: &Error,
    progress: &dyn Progress,
) -> Result<()> {
    let Some(known) = state::identity(device.local.conn())? else {
        return Err(why.clone());
    };
    let started = std::time::Instant::now();
    device.monitor.error(Code::RemoteWentBack.as_str());
    tracing::warn!(
        code = Code::RemoteWentBack.as_str(),
        error = %why.message,
        "the server went back in time; everything is compared, and what it lost is sent again"
    );
    progress.begin("comparing", None);
    first::give_up(device)?;
    device.claim_all(&NoProgress)?;
    let hello = Hello {
        device: device.id()?,
        name: state::get(device.local.conn(), "device_name")?.unwrap_or_default(),
        tables: load_tables(device.local.conn())?
            .into_iter()
            .map(|k| k.table)
            .collect(),
        user_version: device.local.user_version()?,
        former: None,
        // Nothing is made or widened here; `prepare` judges the tables.
        dropped: BTreeMap::new(),
    };
    let former = state::former_instances(device.local.conn())?;
    let registered = device.remote.rejoin(&hello, &known, &former).await?;
    let tx = device.local.begin()?;
    recall::begin(&tx)?;
    tx.commit().or_fault(WHAT)?;
    if !registered {
        // An id that the ledger does not know starts anew, for what it wrote may stand there.
        queue::take_new_identity(&mut device.local, queue::FORGOTTEN, now_ms())?;
    }
    failpoint::hit("reconcile_begun");
    device.reconciling = true;
    let done = walk(device, &known).await;
    device.reconciling = false;
    progress.end();
    let (mut found, head) = done?;
    let tables: Vec<_> = device.tables.iter().map(|t| t.table.clone()).collect();
    let tx = device.local.begin()?;
    found.kept += recall::unheard(&tx, &tables, now_ms())?;
    arrive(&tx, &head, &known.instance, why)?;
    failpoint::hit("reconcile_before_commit");
    tx.commit().or_fault(WHAT)?;
    failpoint::hit("reconcile_after_commit");
    device.reload()?;
    tracing::warn!(
        code = Code::RemoteWentBack.as_str(),
        queued = found.again,
        fetched = found.fetched,
        conflicts = found.kept,
        seconds = started.elapsed().as_secs(),
        "compared with the server that went back in time; syncing goes on"
    );
    Ok(())
}

/// Compares all tables; returns the head from before the first of them.
async fn walk<R: Remote>(
    device: &mut Device<R>,
    known: &crate::remote::Identity,
) -> Result<(Found, Head)> {
    device.prepare().await?;
    let id = device.id()?;
    let head = device.remote.head(&id).await?;
    if !head.flushed {
        device.remote.flush(&id).await?;
    }
    // In the same numbering of transactions the collection mark says what was forgotten meanwhile.
    let same_place = known.table_oid == head.identity.table_oid
        && known.database_oid == head.identity.database_oid
        && known.system_identifier == head.identity.system_identifier;
    let before = recall::before(device.local.conn())?.unwrap_or_else(Token::empty);
    let forgetful = same_place && before != Token::empty() && before.last.xmin() < head.gc_xid;
    let mut found = Found::default();
    for t in device.tables.clone() {
        compare::walk(device, &t, |local, pairs| {
            judge(local, &t, pairs, forgetful, &mut found)
        })
        .await?;
        if !forgetful {
            bury(device, &t, &mut found).await?;
        }
        failpoint::hit("reconcile_queued");
    }
    Ok((found, head))
}

/// Judges rows that differ.
fn judge(
    local: &mut Local,
    t: &Tracked,
    pairs: &[Pair],
    forgetful: bool,
    found: &mut Found,
) -> Result<()> {
    let tx = local.begin()?;
    let base = notes::intern(&tx, &Token::empty())?;
    for p in pairs.iter().filter(|p| !p.private && !p.agrees()) {
        let pk = p.key.encode();
        if recall::takes_no_part(&tx, &t.table, &p.key)? {
            notes::leave(&tx, &t.table.name, &pk, base)?;
            continue;
        }
        let history = recall::history(&tx, &t.table.name, &pk)?;
        let newest = history.newest.filter(|n| n.deleted == p.here.is_none());
        let there = p.change.as_deref().map(tail);
        let forgotten = forgetful && there.is_none();
        match newest {
            // The server is where this file left it.
            Some(n) if there == Some(n.change.tail()) => {
                notes::leave(&tx, &t.table.name, &pk, base)?;
                found.fetched += 1;
            }
            Some(n) if !forgotten => {
                let again = recall::queue_again(&tx, &t.table, &p.key, Some(&n.change), now_ms())?;
                found.again += u64::from(again);
            }
            None if there.is_none() && !forgotten => {
                let again = recall::queue_again(&tx, &t.table, &p.key, None, now_ms())?;
                found.again += u64::from(again);
            }
            _ => {
                found.kept += u64::from(gives_way(&tx, t, p)?);
                notes::leave(&tx, &t.table.name, &pk, base)?;
                found.fetched += 1;
            }
        }
    }
    tx.commit().or_fault(WHAT)
}

/// The identity of a change: its last sixteen characters.
fn tail(change: &str) -> &str {
    crate::model::ChangeKey::parse(change).map_or(change, |_| &change[change.len().min(10)..])
}

/// Keeps what stands here before the server's version takes its place.
fn gives_way(tx: &Tx<'_>, t: &Tracked, p: &Pair) -> Result<bool> {
    if p.here.is_none() {
        return Ok(false);
    }
    let now = now_ms();
    recall::keep(
        tx,
        &crate::remote::ConflictRecord {
            id: crate::world::ulid().to_string(),
            table: t.table.name.clone(),
            key: p.key.clone(),
            kind: if p.there.is_some() {
                Kind::UpdateUpdate
            } else {
                Kind::UpdateDelete
            },
            policy: Policy::LastWriteWins,
            winner: Side::Remote,
            local: p.here.clone(),
            remote: p.there.clone(),
            local_change: String::new(),
            remote_change: p.change.clone().unwrap_or_default(),
            remote_device: p.by.clone(),
            detected_at: now,
        },
    )
}

/// Queues deletes again that the server does not know: it holds neither the row nor a tombstone, and
/// another device may bring the row back.
async fn bury<R: Remote>(device: &mut Device<R>, t: &Tracked, found: &mut Found) -> Result<()> {
    let id = device.id()?;
    let mut after = String::new();
    loop {
        let (last, keys) = recall::buried(device.local.conn(), &t.table, &after, PAGE)?;
        let Some(last) = last else { return Ok(()) };
        after = last;
        if keys.is_empty() {
            continue;
        }
        // What did not fit into the answer is there.
        let (_, answer) = device
            .remote
            .fetch(&id, &Token::empty(), t, &keys, 1)
            .await?;
        let gone: Vec<Key> = answer
            .into_iter()
            .filter(|f| f.version.is_none())
            .map(|f| f.key)
            .collect();
        let tx = device.local.begin()?;
        for key in &gone {
            if let Some(change) = recall::is_deleted(&tx, &t.table, key)? {
                let again = recall::queue_again(&tx, &t.table, key, Some(&change), now_ms())?;
                found.again += u64::from(again);
            }
        }
        tx.commit().or_fault(WHAT)?;
    }
}

/// Binds the file to the server as it is now, in the transaction that stores the cursor.
fn arrive(tx: &Tx<'_>, head: &Head, before: &str, why: &Error) -> Result<()> {
    recall::end(tx)?;
    relist::forget(tx)?;
    let seq = head.push_seq.max(0);
    state::set_number(tx, "push_seq", seq)?;
    state::set_number(tx, "confirmed", seq)?;
    state::put(tx, "chain_key", head.last_batch.as_deref())?;
    if before != head.identity.instance {
        let mut former = state::former_instances(tx)?;
        former.push(before.to_owned());
        let json = serde_json::to_string(&former).unwrap_or_default();
        state::set(tx, "former_instances", &json)?;
    }
    state::set_identity(tx, &head.identity)?;
    state::set_number(tx, "reconciled_at", now_ms())?;
    relist::arrive(tx, &Token::at(head.snapshot.clone()), head.insert_lsn)?;
    let detail = Detail {
        code: Some(Code::RemoteWentBack.as_str().to_owned()),
        message: Some(why.message.clone()),
        ..Detail::default()
    };
    journal::record(
        tx,
        now_ms(),
        journal::Kind::WentBack,
        Place::Device,
        None,
        &detail,
    )
}
