//! The seam to the side that fails.
//!
//! One trait, implemented over PostgreSQL in `postgres`. Each call is one unit of work with a deadline
//! of its own; an error says by its `Disposition` what may follow. Invariants of every implementation:
//!
//! - `push` is exactly-once: the same batch (device, seq, key) may be sent any number of times and is
//!   applied once; its stored outcome comes back.
//! - `push` decides conflicts, and nothing else does. Winner, loser and ledger are one commit.
//! - a batch that says `whole` is applied where each of its changes simply applies, else not at all.
//! - answers of `push` carry outcomes, never rows; rows reach a device through `page` and `fetch` alone.
//! - `page` never skips a row whose transaction commits late.

mod looks;

pub use looks::{Examined, Member, MirrorState};

use crate::error::Result;
use crate::model::{
    ChangeKey, Form, Key, Kind, Limit, Op, Policy, Position, Row, Side, Snapshot, Table, Token,
    Wire,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// The workspace's last migration that this program knows; an older form is brought up to date.
pub const WORKSPACE_FORM: i64 = 2;

/// What a device learned of one mirror table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// The table's number in the workspace; its stream in the feed.
    pub id: i32,
    /// Raised by TRUNCATE: a device that knows a lower one compares the table.
    pub epoch: i64,
    /// The replicated columns that exist on both sides, with their wire form.
    pub wires: BTreeMap<String, Wire>,
    /// The forms in which the workspace's apps write the values of typed columns, as far as learned.
    #[serde(default)]
    pub forms: BTreeMap<String, Form>,
    /// What columns keep less of than their types could.
    #[serde(default)]
    pub limits: BTreeMap<String, Limit>,
    /// Whether the mirror has foreign keys (only adopted tables do).
    pub has_foreign_keys: bool,
}

/// A tracked table with its mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    /// The local side.
    pub table: Table,
    /// The remote side.
    pub mirror: Mirror,
}

impl Tracked {
    /// Whether two versions of a row differ, but only in how the values of typed columns are written.
    pub fn means_same(&self, a: &Row, b: &Row) -> bool {
        a.0.iter()
            .all(|(c, v)| match (b.get(c), self.mirror.wires.get(c)) {
                (None, _) => true,
                (Some(o), _) if o == v => true,
                (Some(o), Some(Wire::Typed(t))) => t.means_same(v, o),
                _ => false,
            })
    }
}

/// What ties a cursor to one server in one state; any change of it is SYNC-007.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The random id of the workspace row.
    pub instance: String,
    /// `tableoid` of that row: a dump and reload changes it.
    pub table_oid: u32,
    /// The cluster.
    pub system_identifier: String,
    /// The first eight characters of the current WAL file name.
    pub timeline: String,
    /// The database.
    pub database_oid: u32,
}

/// The state in which a device has seen the server. A server that is behind it, or another one, must
/// apply nothing: it went back in time (SYNC-007).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerState {
    /// The server.
    pub identity: Identity,
    /// The first transaction that was not handed out yet.
    pub xmax: u64,
    /// WAL insert position in bytes.
    pub insert_lsn: u64,
}

/// What a device tells of itself when it first meets the workspace.
#[derive(Debug, Clone)]
pub struct Hello {
    /// The device's id.
    pub device: String,
    /// Its name.
    pub name: String,
    /// The tables it tracks, parents before children.
    pub tables: Vec<Table>,
    /// `PRAGMA user_version` of the app's file.
    pub user_version: i64,
    /// The id that this file had before, where it gave that up for good.
    pub former: Option<String>,
    /// By table: exchanged columns that its app has dropped; refused while the server has one of them.
    pub dropped: BTreeMap<String, BTreeSet<String>>,
}

/// The workspace as it stands after [`Remote::prepare`].
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The server it is on.
    pub identity: Identity,
    /// The mirrors by table name.
    pub mirrors: BTreeMap<String, Mirror>,
    /// Tables that could not be mirrored, with the reason (SYNC-009, SYNC-011, SYNC-014).
    pub refused: Vec<crate::error::Error>,
    /// This device's row in the ledger: the next seq it expects and the key of the batch before.
    pub push_seq: i64,
    /// The key of the last batch that was applied for this device.
    pub last_batch: Option<String>,
}

/// What stands in the schema before a device joins it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The tables of the workspace; `None` where there is none yet.
    pub mirrors: Option<BTreeSet<String>>,
    /// Every table of the schema, those that would be adopted included.
    pub tables: BTreeSet<String>,
}

/// One change of a batch.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its idempotency key.
    pub change: ChangeKey,
    /// The table.
    pub table: String,
    /// The row.
    pub key: Key,
    /// What happens to it.
    pub op: Op,
    /// The content of an upsert, key columns included.
    pub row: Row,
    /// What the device had seen when the app wrote.
    pub base: Token,
    /// Whether the device knew the row before this change.
    pub known: bool,
    /// Set where a unique value that another row holds is to be decided: the rows of the table that have
    /// unsent changes on the device outside this batch, in canonical text. Those may yet free the value.
    pub settle: Option<Vec<String>>,
    /// Tails of changes of this row that a former identity of this file had acknowledged.
    pub seen: Vec<String>,
    /// How a conflict is decided.
    pub policy: Policy,
    /// Whether a delete leaves a tombstone even where nothing stands: the server lost the row, the delete
    /// or both, and others may bring the row again.
    pub bury: bool,
    /// Whether it keeps content here that the other side may still hold: all of the row for a delete,
    /// the redact columns for an upsert. What conflicts have kept of that goes, too.
    pub erase: bool,
}

/// A batch as it was formed; never recomposed once sent.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The device.
    pub device: String,
    /// The server that the batch is for, and how far it had come.
    pub server: ServerState,
    /// Its number in the device's chain.
    pub seq: i64,
    /// Its own key (ULID).
    pub key: String,
    /// The key of the batch before it in the chain.
    pub prev: Option<String>,
    /// The lowest number that the device has not confirmed; the ledger forgets outcomes below.
    pub confirmed: i64,
    /// What the device has read, told with the push: tombstones below the cursors of all may go.
    pub cursor: Snapshot,
    /// Its changes, at most one a row.
    pub items: Vec<Item>,
    /// Whether it is applied whole or not at all: only where each of its changes simply applies.
    pub whole: bool,
}

/// Why the server refused one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// SQLSTATE.
    pub sqlstate: String,
    /// What the server said, without row values.
    pub message: String,
    /// Whether it may succeed later without anyone touching the row.
    pub later: bool,
}

/// What became of one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is the version on the server, or was.
    Applied,
    /// The server holds the same content from somebody else; that version stays.
    Same,
    /// It lost a conflict and is kept there; the winner comes through the feed.
    Lost,
    /// It lost a unique value to another row and is kept among the conflicts; its own row is as it was.
    Collided,
    /// The server refused it.
    Refused(Refusal),
}

/// The answer to a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushAnswer {
    /// Committed, now or before; one outcome for each item, in the order of the items.
    Done {
        /// The outcomes.
        outcomes: Vec<Outcome>,
        /// Conflicts that this push recorded (0 when the outcome was stored before).
        conflicts: u32,
    },
    /// An earlier batch of the chain is missing: resend from the oldest unresolved.
    Behind,
    /// The chain is broken: this file was copied or restored (SYNC-008).
    Mismatch,
    /// The base of a change is older than the tombstones that are kept.
    Gone,
    /// The batch is to be applied whole and cannot be; nothing of it was, and its number is free.
    Apart,
}

/// What is read at the head of every pull, in one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The server.
    pub identity: Identity,
    /// The ledger: next expected number, and the key of the last batch.
    pub push_seq: i64,
    /// See `push_seq`.
    pub last_batch: Option<String>,
    /// Tombstones of transactions below were collected.
    pub gc_xid: u64,
    /// The snapshot of this statement.
    pub snapshot: Snapshot,
    /// Whether the WAL up to that snapshot is on disk: only then may a cursor be stored.
    pub flushed: bool,
    /// WAL insert position in bytes: going back is SYNC-007.
    pub insert_lsn: u64,
    /// The server's clock, ms since 1970.
    pub now_ms: i64,
    /// The server's version, as in `15.18`.
    pub server_version: String,
    /// Epochs of the mirrors, by table id.
    pub epochs: BTreeMap<i32, i64>,
}

/// A request for one page of the feed.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// The asking device; its own rows are left out.
    pub device: String,
    /// Ids that this file had before: conflicts filed under them concern it as well.
    pub former: Vec<String>,
    /// The server that the token belongs to; `None` at the very first contact.
    pub identity: Option<Identity>,
    /// What was seen so far.
    pub token: Token,
    /// At most so many rows.
    pub rows: usize,
    /// At most so many bytes of content, but always at least one row.
    pub bytes: usize,
    /// The tables to read.
    pub tables: Vec<Tracked>,
}

/// One version of a row on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The change that wrote it.
    pub change: String,
    /// The device that wrote it; `0` for anybody else.
    pub device: String,
    /// The content; `None` for a tombstone.
    pub row: Option<Row>,
}

/// One row of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedRow {
    /// The table.
    pub table: String,
    /// The row's key.
    pub key: Key,
    /// What is there now.
    pub version: Version,
    /// Its place in the round: stored in the same transaction as the row.
    pub pos: Position,
}

/// A conflict that concerns the asking device, seen from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictRecord {
    /// ULID.
    pub id: String,
    /// The table.
    pub table: String,
    /// The row.
    pub key: Key,
    /// What met what, `local` first.
    pub kind: Kind,
    /// The policy that decided.
    pub policy: Policy,
    /// Who won, seen from this device.
    pub winner: Side,
    /// This device's content; `None` for a delete.
    pub local: Option<Row>,
    /// The other side's content.
    pub remote: Option<Row>,
    /// The change keys.
    pub local_change: String,
    /// See `local_change`.
    pub remote_change: String,
    /// The other device.
    pub remote_device: String,
    /// When it was decided, server time in ms.
    pub detected_at: i64,
}

/// The answer to a page request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Head of the same snapshot.
    pub head: Head,
    /// Rows in the feed's order.
    pub rows: Vec<FeedRow>,
    /// Conflicts that became visible; only with the last page of a round.
    pub conflicts: Vec<ConflictRecord>,
    /// The token after the whole page; equals the request's where nothing was new.
    pub next: Token,
    /// Whether the round goes on.
    pub more: bool,
}

/// What the server holds under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The key that was asked for.
    pub key: Key,
    /// The version there; `None` where there is neither row nor tombstone.
    pub version: Option<Version>,
    /// Whether the version is the device's own or seen by its token.
    pub seen: bool,
}

/// The side that fails.
pub trait Remote: Send + Sync + 'static {
    /// Makes what is missing in the workspace, registers the device and learns the mirrors.
    /// Safe to call again, and by several devices at once.
    fn prepare(&self, hello: &Hello) -> impl Future<Output = Result<Workspace>> + Send;

    /// Meets a workspace again that went back in time: makes what is missing of it, and gives it a new
    /// instance id unless another device did so since `known` was seen. After a dump and reload the rows
    /// are stamped anew in the same transaction. `former` are instances that `known` took the place of.
    /// Refuses a workspace with rows of its own that has nothing to do with any of them. Returns whether
    /// its ledger knows the device.
    fn rejoin(
        &self,
        hello: &Hello,
        known: &Identity,
        former: &[String],
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Applies one batch exactly once.
    fn push(
        &self,
        batch: &Batch,
        tables: &[Tracked],
    ) -> impl Future<Output = Result<PushAnswer>> + Send;

    /// Reads one page of the feed. One round trip where nothing is new.
    fn page(&self, request: &PageRequest) -> impl Future<Output = Result<Page>> + Send;

    /// Reads rows by key, judged by `token`. At most a page's worth of keys; content ends at `bytes`, but
    /// at least one row has it. Keys whose rows did not fit are missing in the answer: they are asked for
    /// again.
    fn fetch(
        &self,
        device: &str,
        token: &Token,
        table: &Tracked,
        keys: &[Key],
        bytes: usize,
    ) -> impl Future<Output = Result<(Head, Vec<Fetched>)>> + Send;

    /// Lists rows of a mirror in its own key order after `after`, for comparisons.
    fn list(
        &self,
        device: &str,
        token: &Token,
        table: &Tracked,
        after: Option<&Key>,
        rows: usize,
        bytes: usize,
    ) -> impl Future<Output = Result<Vec<Fetched>>> + Send;

    /// Reads the head alone: who the server is, its clock, the ledger.
    fn head(&self, device: &str) -> impl Future<Output = Result<Head>> + Send;

    /// Looks at server, rights and mirrors without changing anything.
    fn examine(&self, tables: &[Table]) -> impl Future<Output = Result<Examined>> + Send;

    /// Commits a trifle durably, which flushes all WAL before it.
    fn flush(&self, device: &str) -> impl Future<Output = Result<()>> + Send;

    /// Calls `heard` whenever others may have written, on a connection of its own, until that ends or
    /// where it cannot be had. Never the only way to learn of a change.
    fn listen(
        &self,
        device: &str,
        heard: Arc<dyn Fn() + Send + Sync>,
    ) -> impl Future<Output = Result<()>> + Send + 'static;
    /// Tells the ledger that this device lives and how far it has read. Called rarely: every call is
    /// a write. Does nothing where the cursor is older than the tombstones that are kept.
    fn tell(&self, device: &str, cursor: &Snapshot) -> impl Future<Output = Result<()>> + Send;

    /// Removes tombstones that are older than `days` and below the cursor of every live device, raises
    /// the collection mark, and marks devices that were unseen for longer as expired, `device` never.
    /// Does nothing where another device did so within `every`. Returns how many went.
    fn collect(
        &self,
        device: &str,
        days: u32,
        every: Duration,
    ) -> impl Future<Output = Result<u64>> + Send;

    /// The devices of the workspace, the last one registered last.
    fn devices(&self, days: u32) -> impl Future<Output = Result<Vec<Member>>> + Send;

    /// Lets the tombstones go on without a device.
    fn retire(&self, id: &str) -> impl Future<Output = Result<()>> + Send;

    /// Ends the login of a device that has one of its own.
    fn revoke(&self, id: &str) -> impl Future<Output = Result<()>> + Send;

    /// Offers the forms in which this device's app writes values of a table's typed columns; the first
    /// to be offered stays. Returns those that hold.
    fn offer_forms(
        &self,
        table: &Tracked,
        forms: &BTreeMap<String, Form>,
    ) -> impl Future<Output = Result<BTreeMap<String, Form>>> + Send;

    /// The tables of the workspace as their first device described them, and the app's `user_version`.
    fn describe(&self) -> impl Future<Output = Result<(Vec<Table>, i64)>> + Send;

    /// What stands in the schema before a device joins it; makes nothing.
    fn standing(&self) -> impl Future<Output = Result<Standing>> + Send;
}
