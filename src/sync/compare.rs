//! Both sides of a table compared row by row, in pages, with bounded memory.
//!
//! Serves several callers: `verify` counts, a truncated or newly tracked table leaves notes, a table
//! whose capture was bare queues what was written meanwhile, and `relist` takes stock of everything.
//! Server rows are listed in the server's order and looked up here by key; then local keys in SQLite's
//! order are looked up there. No order is shared, so none can differ.

use super::device::Device;
use super::tell;
use crate::error::{Code, Result};
use crate::failpoint;
use crate::model::{Key, Row, Token, Value, Wire};
use crate::remote::{Fetched, Remote, Tracked};
use crate::report::{Progress, VerifyTable};
use crate::sqlite::fault::OrFault;
use crate::sqlite::local::{Connection, Local, Stopped, count, set_heal};
use crate::sqlite::stopped::{self, stopped};
use crate::sqlite::{app_row, brake, heal_log, inbox, met, notes, private, queue, state};
use std::collections::BTreeSet;

const WHAT: &str = "comparing a table";

/// Rows of a page.
const PAGE: usize = 500;

/// One key on both sides.
pub(super) struct Pair {
    pub key: Key,
    pub here: Option<Row>,
    pub there: Option<Row>,
    /// The change that wrote what is there, a tombstone included; `None` where there is neither.
    pub change: Option<String>,
    /// Whether this device's token has seen what is there.
    pub seen: bool,
    /// Whether what is there is this device's own: a push then writes over it without a question.
    pub own: bool,
    /// Whether a device wrote what is there.
    by_device: bool,
    /// The device that wrote what is there.
    pub by: String,
    /// Whether the row stays here, so that its key was not asked for.
    pub private: bool,
}

impl Pair {
    fn private(key: Key) -> Pair {
        Pair {
            key,
            here: None,
            there: None,
            change: None,
            seen: true,
            own: false,
            by_device: false,
            by: String::new(),
            private: true,
        }
    }

    pub fn agrees(&self) -> bool {
        match (&self.here, &self.there) {
            (None, None) => true,
            (Some(a), Some(b)) => b.agrees_with(a),
            _ => false,
        }
    }

    /// Whether the sides differ only in how this app writes what the other side holds: after a column
    /// got another type. What the app wrote stays, and is sent again.
    fn is_only_written_otherwise(&self, t: &Tracked) -> bool {
        match (&self.here, &self.there) {
            (Some(a), Some(b)) => self.seen && self.by_device && t.means_same(b, a),
            _ => false,
        }
    }
}

/// How two versions differ that agree in the columns known before.
enum Beyond {
    /// Only this side holds anything in the new columns.
    FilledHere,
    /// The other side does too.
    Both,
}

impl Pair {
    /// How the sides differ beyond `columns`; `None` where they differ in those, or one is absent.
    fn beyond(&self, columns: &BTreeSet<String>) -> Option<Beyond> {
        let (here, there) = (self.here.as_ref()?, self.there.as_ref()?);
        let mut filled_here = true;
        for (c, v) in &there.0 {
            if here.get(c).is_none_or(|h| h == v) {
                continue;
            }
            if columns.contains(c) {
                return None;
            }
            filled_here &= *v == Value::Null;
        }
        Some(if filled_here {
            Beyond::FilledHere
        } else {
            Beyond::Both
        })
    }
}

impl Pair {
    /// Whether the other side holds a value in a column that was never received here.
    fn holds_unreceived(&self, columns: &BTreeSet<String>) -> bool {
        let (Some(here), Some(there)) = (&self.here, &self.there) else {
            return false;
        };
        there
            .0
            .iter()
            .any(|(c, v)| !columns.contains(c) && *v != Value::Null && here.get(c) != Some(v))
    }
}

/// Who holds anything in columns that only the other side was known to fill.
enum Filled {
    There,
    Both,
}

impl Pair {
    /// How the sides differ where they differ in no other columns than these; `None` where they do.
    fn differs_in(&self, columns: &BTreeSet<String>) -> Option<Filled> {
        let (here, there) = (self.here.as_ref()?, self.there.as_ref()?);
        let mut filled = Filled::There;
        for (c, v) in &there.0 {
            match here.get(c) {
                Some(h) if h != v && !columns.contains(c) => return None,
                Some(h) if h != v && *h != Value::Null => filled = Filled::Both,
                _ => {}
            }
        }
        Some(filled)
    }

    /// Whether the sides hold different values in a column that was renamed here.
    fn differs_in_renamed(&self, stopped: &Stopped) -> bool {
        let (Some(here), Some(there)) = (&self.here, &self.there) else {
            return false;
        };
        stopped.renamed.keys().any(|c| {
            let (here, there) = (here.get(c), there.get(c));
            here.is_some_and(|v| *v != Value::Null) && there.is_some() && here != there
        })
    }
}

/// Walks over all keys of both sides; `visit` gets a page of pairs at a time.
pub(super) async fn walk<R: Remote>(
    device: &mut Device<R>,
    t: &Tracked,
    mut visit: impl FnMut(&mut Local, &[Pair]) -> Result<()>,
) -> Result<()> {
    let (id, token) = (device.id()?, state::token(device.local.conn())?);
    let bytes = device.config.download.page_bytes_max;
    let before = device.local.data_version()?;
    let mut after: Option<Key> = None;
    let mut both = 0_u64;
    met::begin(&device.local)?;
    loop {
        let page = device
            .remote
            .list(&id, &token, t, after.as_ref(), PAGE, bytes)
            .await?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        met::met(&device.local, page.iter().map(|f| &f.key))?;
        both += pair_up(&mut device.local, t, &id, page, bytes, &mut visit)?;
    }
    // As many as were met above are no others, unless somebody wrote meanwhile: a row that was met may be
    // gone and one that was not be there in its place.
    let all = count(device.local.conn(), &t.table.name)? == both;
    if all && device.local.data_version()? == before {
        return Ok(());
    }
    let mut after = None;
    loop {
        let (keys, last) =
            app_row::keys(device.local.conn(), &t.table, after.as_deref(), PAGE).or_fault(WHAT)?;
        if keys.is_empty() {
            return Ok(());
        }
        after = last;
        let keys: Vec<Key> = keys.into_iter().filter(|k| !k.has_null()).collect();
        let (keys, private) = private::split(device.local.conn(), &t.table, keys)?;
        let private: Vec<Pair> = private.into_iter().map(Pair::private).collect();
        visit(&mut device.local, &private)?;
        let mut keys = met::unmet(&device.local, keys)?;
        while !keys.is_empty() {
            // Whatever is there by now was put there after its page was listed.
            let (_, found) = device.remote.fetch(&id, &token, t, &keys, bytes).await?;
            let came: BTreeSet<String> = found.iter().map(|f| f.key.encode()).collect();
            keys.retain(|k| !came.contains(&k.encode()));
            if came.is_empty() {
                break;
            }
            pair_up(&mut device.local, t, &id, found, bytes, &mut visit)?;
        }
    }
}

/// Pairs a page with the rows here, which may be larger: `visit` gets about `bytes` of them at a time.
/// Returns how many are here.
fn pair_up(
    local: &mut Local,
    t: &Tracked,
    id: &str,
    page: impl IntoIterator<Item = Fetched>,
    bytes: usize,
    visit: &mut impl FnMut(&mut Local, &[Pair]) -> Result<()>,
) -> Result<u64> {
    let (mut pairs, mut weight, mut here) = (Vec::new(), 0, 0);
    for f in page {
        let Some(p) = pair(local, t, id, f)? else {
            continue;
        };
        here += u64::from(p.here.is_some());
        weight += p.here.as_ref().map_or(0, Row::weight);
        pairs.push(p);
        if weight > bytes {
            visit(local, &pairs)?;
            (pairs, weight) = (Vec::new(), 0);
        }
    }
    if !pairs.is_empty() {
        visit(local, &pairs)?;
    }
    Ok(here)
}

/// Both sides of a key; `None` where the row here stays here and is another row than the one there.
fn pair(local: &Local, t: &Tracked, id: &str, f: Fetched) -> Result<Option<Pair>> {
    let (conn, pk) = (local.conn(), f.key.encode());
    if private::is_private(conn, &t.table, &pk)? {
        return Ok(None);
    }
    let by = f
        .version
        .as_ref()
        .map_or_else(String::new, |v| v.device.clone());
    let own = f.version.is_some() && by == id;
    let here = app_row::read(conn, &t.table, &f.key).or_fault(WHAT)?;
    let change = f.version.as_ref().map(|v| v.change.clone());
    let by_device = f.version.as_ref().is_some_and(|v| v.device != "0");
    let there = f.version.and_then(|v| v.row);
    Ok(Some(Pair {
        there: private::in_common(conn, &t.table, &pk, here.as_ref(), there)?,
        here,
        change,
        key: f.key,
        // The feed never brings what this device wrote: it is known here from the start.
        seen: f.seen || own,
        own,
        by_device,
        by,
        private: false,
    }))
}

/// Leaves a note for every key that differs: once it is clean, it is fetched by key.
pub async fn leave_notes<R: Remote>(device: &mut Device<R>, t: &Tracked) -> Result<()> {
    let name = t.table.name.clone();
    walk(device, t, |local, pairs| {
        let tx = local.begin()?;
        let base = notes::intern(&tx, &state::token(&tx)?)?;
        for p in pairs.iter().filter(|p| !p.agrees()) {
            if p.is_only_written_otherwise(t) {
                heal_log::append(&tx, &t.table, &p.key)?;
            } else {
                notes::leave(&tx, &name, &p.key.encode(), base)?;
            }
        }
        tx.commit().or_fault(WHAT)
    })
    .await
}

/// Sends again what a column's new type writes otherwise, before the mirror is stored.
pub async fn recast<R: Remote>(device: &mut Device<R>, t: &Tracked) -> Result<()> {
    walk(device, t, |local, pairs| {
        let tx = local.begin()?;
        for p in pairs.iter().filter(|p| !p.agrees()) {
            if p.is_only_written_otherwise(t) {
                heal_log::append(&tx, &t.table, &p.key)?;
            }
        }
        tx.commit().or_fault(WHAT)
    })
    .await
}

/// Brings a table up to date that had no mirror, before its mirror is stored. What the feed passed
/// meanwhile is noted with what was seen of it before. A column that is new on both sides holds nothing
/// there yet: what the app's migration put into it here is queued, not overwritten.
pub async fn catch_up<R: Remote>(device: &mut Device<R>, t: &Tracked) -> Result<()> {
    let name = t.table.name.clone();
    let stopped = stopped(device.local.conn(), &name)?;
    let missed = match &stopped {
        Some(s) => s.token != state::token(device.local.conn())?,
        None => true,
    };
    let columns = stopped.as_ref().map(|s| &s.columns);
    let widened = columns.is_some_and(|c| t.mirror.wires.keys().any(|w| !c.contains(w)));
    let typed = |w: &Wire| matches!(w, Wire::Typed(_));
    if !missed && !widened && !t.mirror.wires.values().any(typed) {
        return Ok(());
    }
    let base = stopped
        .as_ref()
        .map_or_else(Token::empty, |s| s.token.clone());
    if let Some(received) = columns.filter(|_| widened) {
        let mut unreceived: BTreeSet<String> = t.mirror.wires.keys().cloned().collect();
        unreceived.retain(|c| !received.contains(c));
        stopped::set_unreceived(device.local.conn(), &name, Some(&unreceived))?;
    }
    walk(device, t, |local, pairs| {
        let tx = local.begin()?;
        let base = notes::intern(&tx, &base)?;
        let unseen = notes::intern(&tx, &Token::empty())?;
        for p in pairs.iter().filter(|p| !p.agrees()) {
            if p.is_only_written_otherwise(t) {
                heal_log::append(&tx, &t.table, &p.key)?;
                continue;
            }
            if widened && columns.is_some_and(|c| p.holds_unreceived(c)) {
                // The row was seen, but not this value of it: an edit made here must not blank it.
                let pk = p.key.encode();
                if stopped.as_ref().is_some_and(|s| p.differs_in_renamed(s)) {
                    // What was written here under the old name is nowhere under the new one: the push
                    // decides, and keeps what loses.
                    heal_log::append_unknown(&tx, &t.table, &p.key)?;
                }
                notes::leave(&tx, &name, &pk, unseen)?;
                queue::rebase(&tx, &name, &pk, unseen)?;
                continue;
            }
            let difference = columns.and_then(|c| p.beyond(c));
            match difference {
                Some(Beyond::FilledHere) if p.seen => heal_log::append(&tx, &t.table, &p.key)?,
                None if !missed => {}
                _ => notes::leave(&tx, &name, &p.key.encode(), base)?,
            }
        }
        tx.commit().or_fault(WHAT)
    })
    .await
}

/// Queues what was written while capture was bare, then trusts capture again.
///
/// A row that is there, seen, and gone here was deleted meanwhile; one that was never seen or never
/// installed is left to the feed. What differs is queued with the smallest time: where it was not
/// concurrent it applies whatever its time, and where it was, a row that only looks older must not win.
pub async fn heal<R: Remote>(device: &mut Device<R>, t: &Tracked) -> Result<()> {
    let table = t.table.clone();
    let (mut found, mut gone, mut rows) = (0_u64, 0_u64, 0_u64);
    brake::forget_uncounted(device.local.conn(), &table.name)?;
    let unreceived = stopped::unreceived(device.local.conn(), &table.name)?;
    walk(device, t, |local, pairs| {
        rows += pairs.iter().filter(|p| p.there.is_some()).count() as u64;
        let tx = local.begin()?;
        for p in pairs.iter().filter(|p| p.private) {
            // The other side has heard nothing of it, or it would have listed it.
            if !private::is_private(&tx, &table, &p.key.encode())? {
                heal_log::append_new(&tx, &table, &p.key)?;
            }
        }
        for p in pairs.iter().filter(|p| !p.agrees()) {
            let noted = notes::find(&tx, &table.name, &p.key.encode())?.is_some();
            if p.here.is_some() {
                match p.differs_in(&unreceived) {
                    // The note brings what others filled in; this side has nothing to say to it.
                    Some(Filled::There) if noted => continue,
                    Some(Filled::Both) if noted => {
                        heal_log::append_unknown(&tx, &table, &p.key)?;
                    }
                    _ => heal_log::append(&tx, &table, &p.key)?,
                }
            } else if !p.seen || noted {
                continue;
            } else {
                gone += 1;
                if brake::is_held(&tx, &table.name, &p.key.encode())? {
                    continue;
                }
                heal_log::append_held(&tx, &table, &p.key)?;
            }
            found += 1;
        }
        tx.commit().or_fault(WHAT)?;
        failpoint::hit("heal_page");
        Ok(())
    })
    .await?;
    let held = brake::holds(gone, rows);
    let tx = device.local.begin()?;
    if !held {
        brake::release(&tx, &table.name)?;
    }
    set_heal(&tx, &table.name, false)?;
    stopped::set_unreceived(&tx, &table.name, None)?;
    tx.commit().or_fault(WHAT)?;
    if held {
        device.monitor.error(Code::MassDelete.as_str());
        tell::held(&table.name, gone);
    }
    tracing::warn!(
        code = "SYNC-009",
        table = t.table.name,
        rows = found,
        "capture was bare after a schema change; what was written meanwhile is queued"
    );
    Ok(())
}

/// How a row that differs stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// A change of it is on its way, in either direction.
    InFlight,
    /// It cannot be applied, or is parked: it differs until somebody acts.
    Stuck,
    /// Nothing is on its way.
    Settled,
}

/// Judges a row that differs.
pub(super) fn standing(conn: &Connection, t: &Tracked, p: &Pair) -> Result<Standing> {
    let (name, pk) = (&t.table.name, p.key.encode());
    Ok(
        if inbox::is_failed(conn, name, &pk)? || queue::is_parked(conn, name, &pk)? {
            Standing::Stuck
        } else if !p.seen || heal_log::is_dirty(conn, &t.table, &p.key)? {
            Standing::InFlight
        } else {
            Standing::Settled
        },
    )
}

/// Counts what differs.
pub async fn verify<R: Remote>(
    device: &mut Device<R>,
    t: &Tracked,
    progress: &dyn Progress,
) -> Result<VerifyTable> {
    let name = t.table.name.clone();
    let mut out = VerifyTable {
        name: name.clone(),
        local: count(device.local.conn(), &name)?,
        ..VerifyTable::default()
    };
    walk(device, t, |local, pairs| {
        for p in pairs {
            out.local -= u64::from(p.private);
            out.remote += u64::from(p.there.is_some());
            if p.agrees() {
                continue;
            }
            if standing(local.conn(), t, p)? == Standing::InFlight {
                out.in_flight += 1;
            } else if p.here.is_none() {
                out.missing_local += 1;
            } else if p.there.is_none() {
                out.missing_remote += 1;
            } else {
                out.different += 1;
            }
        }
        progress.advance(pairs.len() as u64);
        Ok(())
    })
    .await?;
    Ok(out)
}
