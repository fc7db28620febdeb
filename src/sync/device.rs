//! One device at work: its file, its remote, and what both agreed on.

use super::repeat::Repeats;
use super::{compare, forms, heal, preserve, relist, retention, tell};
use crate::config::Config;
use crate::error::{Code, Disposition, Error, Result};
use crate::metrics::Monitor;
use crate::model::{Token, Wire};
use crate::remote::{Head, Hello, Mirror, Remote, Tracked, WORKSPACE_FORM};
use crate::report::Progress;
use crate::sqlite::claim::{ClaimLimits, Claimed, claim};
use crate::sqlite::fault::OrFault;
use crate::sqlite::journal::{self, Detail, Kind, Place};
use crate::sqlite::local::{Known, Local, load_tables, set_mirror, stopped, tracked};
use crate::sqlite::queue;
use crate::sqlite::state::{self, Problem};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// Log rows of one claim: as many as take a few milliseconds of the app's write lock, within these
/// bounds. With fewer than the lower one the commit itself would be most of the wait.
const CLAIM_SLICE: RangeInclusive<usize> = 500..=4_000;

/// A slice of the log that took less is followed by one twice as long, one that took more than the double
/// by one half as long.
const SLICE_TIME: Duration = Duration::from_millis(4);

/// How often the retention is applied, ms.
const PRUNE_EVERY_MS: i64 = 3_600_000;

/// A clock offset that is shown (SYNC-006), ms.
const OFFSET_SHOWN: i64 = 60_000;

/// An offset is stored again when it moved by more than this, ms: every store is a write.
const OFFSET_NOISE: i64 = 250;

pub use crate::world::now_ms;

/// A device: the file, the remote, the configuration.
pub struct Device<R> {
    /// The SQLite side.
    pub local: Local,
    /// The Postgres side; shared with the batch that is under way.
    pub remote: Arc<R>,
    /// The configuration.
    pub config: Config,
    /// The tables that are usable on both sides.
    pub tables: Vec<Tracked>,
    /// The item cap of the next batch: grows under backlog, halves on a timeout.
    pub batch_cap: usize,
    /// Items of a batch that was not done in time and are not settled since: until they are, the cap
    /// does not grow.
    pub slow_items: usize,
    /// Errors of single tables, until they are usable.
    pub refused: Vec<Error>,
    /// Whether this device wrote to the workspace since its cursor was stored: the cursor is then
    /// worth moving past its own rows, which every poll would look through otherwise.
    pub wrote: bool,
    /// Whether a pause ends a push between two batches; `now` works in spite of one.
    pub heeds_pause: bool,
    /// When a push makes way for a pull that is due, and goes on after it: a long backlog must not keep
    /// other devices' changes out.
    pub push_until: Option<std::time::Instant>,
    /// Whether the last push made way before it had claimed the whole key log.
    pub cut_short: bool,
    /// Where the work is reported to.
    pub monitor: Arc<Monitor>,
    /// Log rows of the next claim.
    claim_slice: usize,
    /// Errors of tables that were told.
    pub(super) repeats: Repeats,
    /// Rows that the last pull could not apply.
    pub(super) stuck: u64,
    /// Whether the clock was said to be off.
    pub(super) clock_told: bool,
    /// Whether the server went back in time and is being met again: what was known of it does not count.
    pub(super) reconciling: bool,
    /// Whether the remote was prepared in this process.
    prepared: bool,
}

impl<R: Remote> Device<R> {
    /// Puts an initialised file and its remote together.
    pub fn new(local: Local, remote: R, config: Config) -> Result<Self> {
        local.require_initialised()?;
        // Before anything is made there: a slip in a name must not send a whole file elsewhere.
        if let Some(home) = state::get(local.conn(), "schema")?
            && home != config.remote.schema
        {
            return Err(astray(&home, &config.remote.schema));
        }
        let tables = tracked(&load_tables(local.conn())?);
        Ok(Device {
            batch_cap: config.upload.batch_size,
            local,
            remote: Arc::new(remote),
            config,
            tables,
            slow_items: 0,
            refused: Vec::new(),
            wrote: false,
            heeds_pause: false,
            push_until: None,
            cut_short: false,
            monitor: Arc::new(Monitor::new()?),
            claim_slice: *CLAIM_SLICE.start(),
            repeats: Repeats::default(),
            stuck: 0,
            clock_told: false,
            reconciling: false,
            prepared: false,
        })
    }

    /// Reports to `monitor` from now on.
    pub fn report_to(&mut self, monitor: Arc<Monitor>) {
        let waits = Arc::clone(&monitor);
        self.local
            .tell_waits(Box::new(move |wait| waits.lock_waited(wait)));
        self.monitor = monitor;
    }

    /// The device's id.
    pub fn id(&self) -> Result<String> {
        state::device_id(self.local.conn())
    }

    /// Reads the tracked tables again.
    pub fn reload(&mut self) -> Result<()> {
        self.tables = tracked(&load_tables(self.local.conn())?);
        Ok(())
    }

    /// Claims everything that is in the key log now, in short slices. Returns how many log rows it took.
    /// Where the schema moved, capture is installed again first.
    pub fn claim_all(&mut self, progress: &dyn Progress) -> Result<usize> {
        // Bounded by what was there at the start: an app that writes without pause cannot hold this up.
        let rows = queue::log_rows(self.local.conn())?;
        self.claim_some(usize::try_from(rows).unwrap_or(0), progress)
    }

    /// Claims at least so many rows of the key log, as far as there are any.
    pub fn claim_some(&mut self, rows: usize, progress: &dyn Progress) -> Result<usize> {
        let mut claimed = 0;
        while claimed < rows && queue::log_waits(self.local.conn())? {
            let limits = ClaimLimits {
                log_rows: self.claim_slice,
                row_bytes_max: self.config.upload.row_bytes_max,
                now_ms: now_ms(),
            };
            match claim(&mut self.local, limits) {
                Ok(done) if done.log_rows == 0 => break,
                Ok(done) => {
                    claimed += done.log_rows;
                    self.size_slice(done);
                    progress.advance(done.log_rows as u64);
                }
                Err(e) if e.disposition == Some(Disposition::SchemaDrift) => self.heal_capture()?,
                Err(e) => return Err(e),
            }
        }
        Ok(claimed)
    }

    fn size_slice(&mut self, done: Claimed) {
        let rows = if done.took > 2 * SLICE_TIME {
            self.claim_slice / 2
        } else if done.took < SLICE_TIME && done.log_rows == self.claim_slice {
            self.claim_slice * 2
        } else {
            self.claim_slice
        };
        self.claim_slice = rows.clamp(*CLAIM_SLICE.start(), *CLAIM_SLICE.end());
    }

    /// The app changed its schema: look again and reinstall capture.
    pub fn heal_capture(&mut self) -> Result<()> {
        heal::reinstall(&mut self.local, &self.config)?;
        self.monitor.error(Code::SchemasDiffer.as_str());
        // Columns that changed have to meet their mirror before anything else is exchanged.
        self.prepared = false;
        self.reload()
    }

    /// Makes workspace and mirrors where anything of them is missing, and learns them.
    pub async fn prepare(&mut self) -> Result<()> {
        let known = load_tables(self.local.conn())?;
        let mut dropped = BTreeMap::new();
        for k in known.iter().filter(|k| k.mirror.is_none()) {
            if let Some(stopped) = stopped(self.local.conn(), &k.table.name)? {
                dropped.insert(k.table.name.clone(), stopped.dropped(&k.table));
            }
        }
        let hello = Hello {
            device: self.id()?,
            name: state::get(self.local.conn(), "device_name")?.unwrap_or_default(),
            tables: known.iter().map(|k| k.table.clone()).collect(),
            user_version: self.local.user_version()?,
            former: relist::former(&self.local)?,
            dropped,
        };
        let mut workspace = self.remote.prepare(&hello).await?;
        self.monitor.reached();
        let seen_before = state::identity(self.local.conn())?;
        if let Some(before) = seen_before.as_ref().filter(|_| !self.reconciling) {
            check_identity(before, &workspace.identity)?;
        }
        let has_read = state::token(self.local.conn())? != Token::empty();
        // Before the mirror is stored: a crash in between does it again.
        for k in &known {
            let Some(mirror) = workspace.mirrors.get(&k.table.name).cloned() else {
                continue;
            };
            match self.meet_mirror(k, mirror, has_read).await {
                Err(e) if e.sqlstate.is_some() && !e.is_offline() => {
                    workspace.mirrors.remove(&k.table.name);
                    workspace.refused.push(e.on_table(&k.table.name));
                }
                met => {
                    workspace.mirrors.insert(k.table.name.clone(), met?);
                }
            }
        }
        let tx = self.local.begin()?;
        for k in &known {
            let fresh = workspace.mirrors.get(&k.table.name).cloned();
            let fresh = fresh.map(|mut m| {
                // A raised epoch is dealt with by the comparison, not forgotten here.
                if let Some(old) = k.mirror.as_ref().filter(|_| !self.reconciling) {
                    m.epoch = old.epoch;
                }
                m
            });
            if fresh != k.mirror {
                set_mirror(&tx, &k.table.name, fresh.as_ref())?;
            }
        }
        if seen_before.is_none() {
            state::set_identity(&tx, &workspace.identity)?;
        }
        if state::get(&tx, "schema")?.is_none() {
            state::set(&tx, "schema", &self.config.remote.schema)?;
        }
        if state::number(&tx, "workspace_form")? < WORKSPACE_FORM {
            state::set_number(&tx, "workspace_form", WORKSPACE_FORM)?;
        }
        tx.commit().or_fault("storing the workspace")?;
        let before = std::mem::replace(&mut self.refused, workspace.refused);
        tell::refused(self, &before);
        self.prepared = true;
        self.reload()
    }

    /// What a mirror asks of this device before it is stored; returns it with the forms that hold.
    async fn meet_mirror(&mut self, k: &Known, mirror: Mirror, has_read: bool) -> Result<Mirror> {
        let mut t = Tracked {
            table: k.table.clone(),
            mirror,
        };
        t.mirror = forms::offer(self, &t).await?;
        let wires = &t.mirror.wires;
        let recast = |old: &Mirror| {
            let changed = |(c, w): (&String, &Wire)| wires.get(c).is_some_and(|now| now != w);
            old.wires.iter().any(changed)
        };
        match &k.mirror {
            // It had one, and this device may have filled it before it ever read.
            None if has_read || stopped(self.local.conn(), &k.table.name)?.is_some() => {
                compare::catch_up(self, &t).await?;
            }
            Some(old) if recast(old) => compare::recast(self, &t).await?,
            _ => {}
        }
        Ok(t.mirror)
    }

    /// Prepares where nothing was ever learned, or a table lacks its mirror and this process has not
    /// asked yet.
    pub async fn prepare_if_needed(&mut self) -> Result<()> {
        if self.is_unprepared()? {
            self.prepare().await?;
        }
        Ok(())
    }

    /// See [`Device::prepare_if_needed`].
    pub fn is_unprepared(&self) -> Result<bool> {
        let never = state::identity(self.local.conn())?.is_none();
        let missing = load_tables(self.local.conn())?
            .iter()
            .any(|k| k.mirror.is_none());
        // Of an older program: the workspace lacks what this one writes into it.
        let older = state::number(self.local.conn(), "workspace_form")? < WORKSPACE_FORM;
        Ok(never || older || (missing && !self.prepared))
    }

    /// Lets the next sync ask the workspace again.
    pub fn forget_prepared(&mut self) {
        self.prepared = false;
    }

    /// Checks the head of a pull before anything of it is used: the server, the ledger, the clock.
    pub fn check_head(&mut self, head: &Head, asked_at: i64) -> Result<Verdict> {
        let latency = u64::try_from(now_ms() - asked_at).unwrap_or(0);
        self.monitor
            .met(&head.server_version, Duration::from_millis(latency));
        let conn = self.local.conn();
        if let Some(known) = state::identity(conn)? {
            check_identity(&known, &head.identity)?;
        }
        let lsn = u64::try_from(state::number(conn, "insert_lsn")?).unwrap_or(0);
        let token = state::token(conn)?;
        if head.insert_lsn < lsn || head.snapshot.xmax() < token.last.xmax() {
            return Err(went_back(
                "its log or its transactions are behind what was seen before",
            ));
        }
        let confirmed = state::number(conn, "confirmed")?;
        let chain = state::get(conn, "chain_key")?;
        let own = head.push_seq == confirmed && head.last_batch == chain;
        let sent = queue::was_sent(conn, head.push_seq - 1, head.last_batch.as_deref())?;
        if !own && !sent && !crate::failpoint::is_planted("no_pull_check") {
            if head.push_seq.max(0) < confirmed {
                return Err(went_back(
                    "it has forgotten batches that it had acknowledged",
                ));
            }
            return Ok(if head.push_seq < 0 {
                Verdict::Unregistered
            } else {
                Verdict::Copied
            });
        }
        if token.last.xmin() < head.gc_xid && token != Token::empty() {
            return Ok(Verdict::Gone);
        }
        let back_at = now_ms();
        let offset = head.now_ms - (asked_at + back_at) / 2;
        let stored = state::number(conn, "clock_offset_ms")?;
        // A long answer says no more of the clock than its half.
        if (offset - stored).abs() > OFFSET_NOISE.max((back_at - asked_at) / 2) {
            let tx = self.local.begin()?;
            state::set_number(&tx, "clock_offset_ms", offset)?;
            tx.commit().or_fault("storing the clock offset")?;
        }
        Ok(Verdict::Fine)
    }

    /// Acts on a verdict; whether what was read may be used.
    pub async fn settle(&mut self, verdict: Verdict) -> Result<bool> {
        match verdict {
            Verdict::Fine => return Ok(true),
            Verdict::Copied => self.take_new_identity().await?,
            Verdict::Gone => relist::relist(self).await?,
            Verdict::Unregistered => self.prepare().await?,
        }
        Ok(false)
    }

    /// This file was copied or restored (SYNC-008): take a new identity and keep what was not sent.
    pub async fn take_new_identity(&mut self) -> Result<()> {
        let former = self.id()?;
        self.monitor.error(Code::FileCopied.as_str());
        let id = queue::take_new_identity(&mut self.local, queue::COPIED, now_ms())?;
        tracing::warn!(
            code = Code::FileCopied.as_str(),
            former,
            device = id,
            "this file was copied or restored; the device goes on under a new identity"
        );
        let tx = self.local.begin()?;
        state::set_number(&tx, "reidentified_at", now_ms())?;
        tx.commit().or_fault("storing the new identity")?;
        self.prepare().await
    }

    /// Writes down what a person should know of.
    pub fn report_problems(&mut self, last: Option<&Error>) -> Result<()> {
        let offset = state::number(self.local.conn(), "clock_offset_ms")?;
        tell::clock(self, offset, offset.abs() > OFFSET_SHOWN);
        let conn = self.local.conn();
        let mut problems: Vec<Problem> = last.map(Problem::from).into_iter().collect();
        problems.extend(self.refused.iter().map(Problem::from));
        problems.extend(state::unfit(conn)?);
        if offset.abs() > OFFSET_SHOWN {
            problems.push(Problem {
                code: Code::Clock.as_str().into(),
                message: format!(
                    "this device's clock is {} s off the server's",
                    -offset / 1000
                ),
                remedy: "set the clock; edits are stamped with the corrected time meanwhile".into(),
            });
        }
        let reidentified = state::number(conn, "reidentified_at")?;
        if reidentified > now_ms() - 7 * 86_400_000 && reidentified > 0 {
            problems.push(Problem {
                code: Code::FileCopied.as_str().into(),
                message: "this file was copied or restored and got a new device id".into(),
                remedy: "nothing to do; make copies with `tidewater clone`".into(),
            });
        }
        let reconciled = state::number(conn, "reconciled_at")?;
        if reconciled > now_ms() - 86_400_000 && reconciled > 0 {
            problems.push(Problem {
                code: Code::RemoteWentBack.as_str().into(),
                message: "the server went back in time; what it lacked was queued again".into(),
                remedy: "nothing to do; look at `tidewater conflicts` for rows that met others"
                    .into(),
            });
        }
        if state::problems_are(conn, &problems)? {
            return Ok(());
        }
        let back = Code::RemoteWentBack.as_str();
        let went_back = last.filter(|e| e.code == Code::RemoteWentBack);
        let told = state::get(conn, "problems")?.is_some_and(|t| t.contains(back));
        let tx = self.local.begin()?;
        if let Some(e) = went_back.filter(|_| !told) {
            let detail = Detail {
                code: Some(back.to_owned()),
                message: Some(e.message.clone()),
                ..Detail::default()
            };
            journal::record(&tx, now_ms(), Kind::WentBack, Place::Device, None, &detail)?;
        }
        state::set_problems(&tx, &problems)?;
        tx.commit().or_fault("storing problems")
    }

    /// Applies the retention where an hour has passed since the last time, in slices between which the
    /// app gets its turn.
    pub fn prune_if_due(&mut self) -> Result<()> {
        let now = now_ms();
        if now - state::number(self.local.conn(), "pruned_at")? < PRUNE_EVERY_MS {
            return Ok(());
        }
        let done = retention::apply(&mut self.local, &self.config.retention, now)?;
        if !done.is_empty() {
            tracing::debug!(?done, "the retention was applied");
        }
        Ok(())
    }

    /// Writes the files of conflicts that have none yet, where that is configured.
    pub fn preserve(&mut self) -> Result<()> {
        preserve::write_missing(&mut self.local, &self.config)
    }
}

/// What the ledger says of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is where this file left it.
    Fine,
    /// Another life of this file wrote to it (SYNC-008).
    Copied,
    /// The workspace does not know this device yet.
    Unregistered,
    /// Deletes that this file has not read are not remembered any more.
    Gone,
}

/// The configuration names another workspace than the one that this device belongs to.
fn astray(home: &str, named: &str) -> Error {
    Error::new(
        Code::RemoteWentBack,
        format!("this device belongs to the workspace {home}, not to {named}"),
        format!(
            "set [remote] schema (or --schema) back to {home}; to move the device, run `tidewater detach` \
             and `tidewater init`"
        ),
    )
}

/// SYNC-007.
fn went_back(why: &str) -> Error {
    Error::new(
        Code::RemoteWentBack,
        format!("the remote is not in the state that this device knows: {why}"),
        "it was restored, failed over or reloaded, or it is another one; nothing is lost: see \
         docs/recovery.md",
    )
}

/// Any change of what the cursor is bound to is SYNC-007.
pub fn check_identity(
    known: &crate::remote::Identity,
    now: &crate::remote::Identity,
) -> Result<()> {
    if known == now {
        return Ok(());
    }
    Err(went_back(
        "it is another server, timeline, database or workspace",
    ))
}
