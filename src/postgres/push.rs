//! One batch, one transaction, exactly once (PROTOCOL section 5, PUSH).
//!
//! The fast path is one pipeline and a commit. Whenever anything is out of the ordinary (a row that did
//! not come back, a tombstone under an upserted key, a refused row), the transaction rolls back and the
//! slow path does the same work step by step, with savepoints, and asks the model who wins.
//!
//! An error after `commit` was sent means that the outcome is unknown: the caller sends the same batch
//! again and the ledger answers.

use super::PgRemote;
use super::decode::get;
use super::encode::{check, wire_of};
use super::erase;
use super::ledger;
use super::push_sql::{self, Group};
use super::quote::Statement;
use super::session::Session;
use super::slow::Slow;
use super::typed;
use crate::error::{Code, Disposition, Error, Result};
use crate::model::{Column, Op, Wire};
use crate::remote::{Batch, Item, Outcome, PushAnswer, Refusal, Tracked};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// A batch with its tables, in the order in which it is applied.
pub struct Plan<'a> {
    /// The batch.
    pub batch: &'a Batch,
    tables: BTreeMap<&'a str, (usize, &'a Tracked)>,
    /// Places in `batch.items`, deletes first, then upserts from parents to children.
    pub order: Vec<usize>,
    /// Items that cannot be sent at all.
    misfits: Vec<(usize, Refusal)>,
}

impl<'a> Plan<'a> {
    fn new(batch: &'a Batch, tables: &'a [Tracked]) -> Result<Self> {
        let by_name: BTreeMap<&str, (usize, &Tracked)> = tables
            .iter()
            .enumerate()
            .map(|(rank, t)| (t.table.name.as_str(), (rank, t)))
            .collect();
        let mut plan = Plan {
            batch,
            tables: by_name,
            order: Vec::with_capacity(batch.items.len()),
            misfits: Vec::new(),
        };
        for (i, item) in batch.items.iter().enumerate() {
            match fits(plan.tracked(item)?, item)? {
                None => plan.order.push(i),
                Some(refusal) => plan.misfits.push((i, refusal)),
            }
        }
        let mut order = std::mem::take(&mut plan.order);
        if !crate::failpoint::is_planted("unsorted_batch") {
            order.sort_by_cached_key(|i| plan.place(&batch.items[*i], tables));
        }
        plan.order = order;
        Ok(plan)
    }

    fn tracked(&self, item: &Item) -> Result<&'a Tracked> {
        self.tables
            .get(item.table.as_str())
            .map(|(_, t)| *t)
            .ok_or_else(|| {
                Error::new(
                    Code::SchemasDiffer,
                    "the table has no mirror on the remote",
                    "it is looked at again at the next contact",
                )
                .on_table(&item.table)
                .with_disposition(Disposition::SchemaDrift)
            })
    }

    /// Deletes go before upserts, children before parents; with foreign keys on the mirrors the
    /// deletes of parents go last. Rows go by key, so that two devices lock in one order.
    fn place(&self, item: &Item, tables: &[Tracked]) -> (u8, Reverse<usize>, usize, String) {
        let Some((rank, tracked)) = self.tables.get(item.table.as_str()) else {
            return (0, Reverse(0), 0, String::new());
        };
        let key = item.key.encode();
        match item.op {
            Op::Upsert => (1, Reverse(0), *rank, key),
            Op::Delete => {
                let parent = tracked.mirror.has_foreign_keys
                    && tables.iter().any(|t| {
                        t.table
                            .foreign_keys
                            .iter()
                            .any(|f| f.parent == tracked.table.name)
                    });
                (if parent { 2 } else { 0 }, Reverse(*rank), 0, key)
            }
        }
    }

    /// The groups of a part of the order.
    pub fn groups(&self, part: &[usize]) -> Result<Vec<Group<'a>>> {
        let mut groups: Vec<Group<'a>> = Vec::new();
        for i in part {
            let item = &self.batch.items[*i];
            let tracked = self.tracked(item)?;
            let columns: Vec<&str> = item.row.0.iter().map(|(c, _)| c.as_str()).collect();
            // Only the last group: the order by key is the order of locks, and a change put into an
            // earlier group would break it (deadlocks between devices).
            let fits = groups.last_mut().filter(|g| {
                g.tracked.table.name == item.table
                    && g.op == item.op
                    && g.columns == columns
                    && *g.base == item.base
            });
            match fits {
                Some(g) => g.members.push(*i),
                None => groups.push(Group {
                    tracked,
                    op: item.op,
                    columns,
                    base: &item.base,
                    members: vec![*i],
                }),
            }
        }
        Ok(groups)
    }
}

/// Whether an item can be sent: a refusal of its own where a value does not fit its column, an error
/// of the table where a column is unknown on the other side.
fn fits(tracked: &Tracked, item: &Item) -> Result<Option<Refusal>> {
    if item.key.has_null() {
        return Ok(Some(Refusal {
            sqlstate: "23502".into(),
            message: "the primary key is NULL, which identifies nothing".into(),
            later: false,
        }));
    }
    for (column, value) in tracked.table.key.iter().zip(&item.key.0) {
        if let Some(Wire::Typed(t)) = tracked.mirror.wires.get(column)
            && let Some(a) = tracked.table.column(column).map(Column::affinity)
            && !t.reproduces(t.default_form(a), a, None, value)
        {
            return Ok(Some(Refusal {
                sqlstate: "22P02".into(),
                message: format!(
                    "column {column}: a key of type uuid is written in lower case with hyphens, or is \
                     a blob of 16 bytes where the column is declared BLOB"
                ),
                later: false,
            }));
        }
    }
    let key = tracked.table.key.iter().zip(&item.key.0);
    let row = item.row.0.iter().map(|(c, v)| (c, v));
    for (column, value) in key.chain(row) {
        let wire = wire_of(&tracked.mirror, column).map_err(|r| {
            Error::new(
                Code::SchemasDiffer,
                r.message,
                "it is looked at again at the next contact",
            )
            .on_table(&item.table)
            .with_sqlstate(r.sqlstate)
            .with_disposition(Disposition::SchemaDrift)
        })?;
        let limit = tracked.mirror.limits.get(column).copied();
        if let Err(refusal) = check(column, wire, limit, value) {
            return Ok(Some(refusal));
        }
    }
    Ok(None)
}

/// See `Remote::push`. A schema that does not fit, or too little time, makes the caller take the batch
/// apart, which must never happen to one that was applied before: the ledger is asked first.
pub async fn push(remote: &PgRemote, batch: &Batch, tables: &[Tracked]) -> Result<PushAnswer> {
    match send(remote, batch, tables).await {
        Err(e)
            if matches!(
                e.disposition,
                Some(Disposition::SchemaDrift | Disposition::TooSlow)
            ) =>
        {
            // Without an answer of the ledger the batch stays as it is.
            let settled = settled(remote, batch).await;
            let settled = settled.map_err(|e| e.with_disposition(Disposition::OutcomeUnknown))?;
            settled.ok_or(e)
        }
        other => other,
    }
}

/// What the ledger says of a batch; `None` where it still expects it.
async fn settled(remote: &PgRemote, batch: &Batch) -> Result<Option<PushAnswer>> {
    let session = remote.session().await?;
    let advance = [ledger::advance(&remote.schema, batch)];
    let rows = session
        .pipeline(&remote.begin(), &advance, "asking the ledger")
        .await?;
    let answer = if rows.first().is_none_or(Vec::is_empty) {
        Some(ledger::explain(&session, &remote.schema, batch).await?)
    } else {
        None
    };
    roll_back(session).await;
    Ok(answer)
}

async fn send(remote: &PgRemote, batch: &Batch, tables: &[Tracked]) -> Result<PushAnswer> {
    let plan = Plan::new(batch, tables)?;
    if batch.whole {
        if plan.misfits.is_empty()
            && let Some(answer) = fast(remote, &plan).await?
        {
            return Ok(answer);
        }
        // Only the ledger knows whether it was applied before.
        let settled = settled(remote, batch).await;
        let settled = settled.map_err(|e| e.with_disposition(Disposition::OutcomeUnknown))?;
        return Ok(settled.unwrap_or(PushAnswer::Apart));
    }
    let ordinary = plan.misfits.is_empty()
        && batch
            .items
            .iter()
            .all(|i| i.seen.is_empty() && !(i.erase && i.op == Op::Delete) && !i.bury);
    // A tombstone where nothing stands must not meet an insert that is on its way: see `grave::bury`.
    let turn = if batch.items.iter().any(|i| i.bury) {
        Turn::Alone
    } else {
        Turn::Shared
    };
    let beside = async {
        if ordinary && let Some(answer) = fast(remote, &plan).await? {
            return Ok(answer);
        }
        slow(remote, &plan, turn).await
    };
    match beside.await {
        Err(e) if e.sqlstate.as_deref() == Some("40P01") => {
            tracing::info!("a push met another one and goes on by itself");
            slow(remote, &plan, Turn::Alone).await
        }
        other => other,
    }
}

/// What every push begins with: local settings, and unique constraints deferred so that rows may swap
/// their values within the batch.
fn begin(remote: &PgRemote) -> String {
    format!("{}; set constraints all deferred", remote.begin())
}

/// How a push stands to the pushes of other devices.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Beside the others: keys are locked in one order.
    Shared,
    /// After a deadlock (unique values and deletes are locked in no such order): alone.
    Alone,
}

/// Takes the turn, for the length of the transaction.
fn take_turn(schema: &str, turn: Turn) -> Statement {
    let mut s = Statement::default();
    let name = s.text(&format!("tidewater push:{schema}"));
    let lock = match turn {
        Turn::Shared => "pg_advisory_xact_lock_shared",
        Turn::Alone => "pg_advisory_xact_lock",
    };
    s.sql = format!("select {lock}(hashtextextended({name}, 0))::text");
    s
}

/// Keeps every push out, for the length of the transaction.
pub fn alone(schema: &str) -> Statement {
    take_turn(schema, Turn::Alone)
}

/// The ordinary case; `None` where anything is out of the ordinary and nothing was done.
async fn fast(remote: &PgRemote, plan: &Plan<'_>) -> Result<Option<PushAnswer>> {
    let (schema, batch) = (&remote.schema, plan.batch);
    let groups = plan.groups(&plan.order)?;
    let mut statements = vec![
        take_turn(schema, Turn::Shared),
        ledger::advance(schema, batch),
    ];
    // What must come back: rows of the ledger, rows written, tombstones and foreign triggers found.
    let mut expected: Vec<Expect> = vec![Expect::Anything, Expect::Rows(1)];
    for g in &groups {
        match g.op {
            Op::Upsert => {
                let Ok(s) = push_sql::upsert(schema, batch, g, false) else {
                    return Ok(None);
                };
                statements.push(s);
                expected.push(Expect::Rows(g.members.len()));
                statements.push(push_sql::count_tombstones(schema, batch, g));
                expected.push(Expect::Zero);
                let erasing = g.items(batch).filter(|i| i.erase);
                let pks: Vec<String> = erasing.map(|i| i.key.encode()).collect();
                if !pks.is_empty() {
                    statements.push(erase::count(schema, &g.tracked.table.name, pks));
                    expected.push(Expect::Zero);
                }
            }
            Op::Delete => {
                let Ok(s) = push_sql::delete(schema, batch, g, false) else {
                    return Ok(None);
                };
                statements.push(s);
                expected.push(Expect::Rows(g.members.len()));
                statements.push(push_sql::own_tombstones(schema, batch, g));
                expected.push(Expect::Anything);
            }
        }
    }
    for s in groups
        .iter()
        .flat_map(|g| typed::keep(schema, batch, g, |_| true))
    {
        statements.push(s);
        expected.push(Expect::Anything);
    }
    let tables: BTreeSet<&str> = groups
        .iter()
        .filter(|g| g.op == Op::Upsert)
        .map(|g| g.tracked.table.name.as_str())
        .collect();
    let tables: Vec<&str> = tables.into_iter().collect();
    statements.push(push_sql::count_meddlers(schema, &tables));
    expected.push(Expect::Zero);
    statements.push(Statement::fixed("set constraints all immediate"));
    expected.push(Expect::Anything);
    let session = remote.session().await?;
    crate::failpoint::hit("push_before_send");
    let answers = match session
        .pipeline(&begin(remote), &statements, "sending a batch")
        .await
    {
        Ok(answers) => answers,
        Err(e)
            if matches!(
                e.disposition,
                Some(Disposition::Row | Disposition::RowLater | Disposition::Unknown)
            ) =>
        {
            roll_back(session).await;
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    crate::failpoint::hit("push_sent");
    for (rows, expect) in answers.iter().zip(&expected) {
        let as_expected = match expect {
            Expect::Rows(n) => rows.len() == *n,
            Expect::Zero => rows.first().map(|r| get::<i64>(r, 0)).transpose()? == Some(0),
            Expect::Anything => true,
        };
        if !as_expected {
            roll_back(session).await;
            return Ok(None);
        }
    }
    crate::failpoint::hit("push_before_commit");
    session.commit("committing a batch").await?;
    crate::failpoint::hit("push_after_commit");
    session.done();
    Ok(Some(PushAnswer::Done {
        outcomes: vec![Outcome::Applied; batch.items.len()],
        conflicts: 0,
    }))
}

/// What a statement of the fast path must answer.
enum Expect {
    Rows(usize),
    Zero,
    Anything,
}

/// Rolls back and gives the connection back where that worked; where not, it is closed.
async fn roll_back(session: Session) {
    if session
        .batch("rollback", "rolling back a batch")
        .await
        .is_ok()
    {
        session.done();
    }
}

/// The whole rule, step by step.
async fn slow(remote: &PgRemote, plan: &Plan<'_>, turn: Turn) -> Result<PushAnswer> {
    let (schema, batch) = (&remote.schema, plan.batch);
    let session = remote.session().await?;
    let advanced = session
        .pipeline(
            &begin(remote),
            &[take_turn(schema, turn), ledger::advance(schema, batch)],
            "sending a batch",
        )
        .await?;
    if advanced.get(1).is_none_or(Vec::is_empty) {
        let answer = ledger::explain(&session, schema, batch).await;
        roll_back(session).await;
        return answer;
    }
    let mut outcomes: Vec<Option<Outcome>> = vec![None; batch.items.len()];
    for (i, refusal) in &plan.misfits {
        outcomes[*i] = Some(Outcome::Refused(refusal.clone()));
    }
    let mut slow = Slow {
        session: &session,
        schema,
        plan,
        outcomes: &mut outcomes,
        conflicts: 0,
    };
    slow.bisect().await?;
    let conflicts = slow.conflicts;
    let outcomes: Vec<Outcome> = outcomes
        .into_iter()
        .map(|o| o.unwrap_or(Outcome::Applied))
        .collect();
    for (item, outcome) in batch.items.iter().zip(&outcomes) {
        if item.erase && !matches!(outcome, Outcome::Refused(_)) {
            erase::content(&session, schema, &plan.tracked(item)?.table, item).await?;
        }
    }
    session
        .query(
            &ledger::remember(schema, batch, &outcomes),
            "sending a batch",
        )
        .await?;
    crate::failpoint::hit("push_before_commit");
    session.commit("committing a batch").await?;
    crate::failpoint::hit("push_after_commit");
    session.done();
    Ok(PushAnswer::Done {
        outcomes,
        conflicts,
    })
}

/// What one part of a batch came to.
#[derive(Default)]
pub struct Done {
    /// Outcomes by place in the batch.
    pub outcomes: Vec<(usize, Outcome)>,
    /// Conflicts recorded.
    pub conflicts: u32,
}
