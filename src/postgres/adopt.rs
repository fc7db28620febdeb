//! A table that somebody else made becomes a mirror where it stands, while others use it.
//!
//! Invariants: no row of it is written, so no trigger of its owner's fires and nothing is rewritten; it is
//! locked for the moment that new columns take, and never waited for longer than [`LOCK`], because
//! whoever comes after a waiting ALTER TABLE waits with it. Its rows become part of the feed as of the
//! adopting transaction. The index of the feed is built without blocking writers where building takes
//! noticeable time; the mirror works without it, only slower.

use super::PgRemote;
use super::decode::get;
use super::mirror_sql;
use super::quote::{Statement, ident, qualified};
use super::session::Session;
use crate::error::{Code, Error, Result};
use crate::model::Table;
use crate::remote::Mirror;
use std::collections::BTreeMap;
use tokio_postgres::types::Type;

const WHAT: &str = "adopting a table";

/// The longest wait for a table's lock, ms.
const LOCK: u64 = 2_000;

/// Up to this size an index is built in less time than a person notices, bytes.
const SMALL: i64 = 8 << 20;

/// How an existing table is to be adopted.
pub struct Plan<'a> {
    pub schema: &'a str,
    pub table: &'a Table,
    /// What it becomes, its number included.
    pub mirror: &'a Mirror,
    /// Its size in bytes.
    pub size: i64,
    /// Whether its index can be built while others write.
    pub is_partitioned: bool,
    /// Whether it was a mirror before and kept columns of that time.
    pub was_mirror: bool,
}

/// The statements of an adoption, for `--dry-run`.
pub fn statements(schema: &str, table: &Table, mirror: &Mirror) -> Vec<String> {
    let mut out = add_metadata(schema, table, &ulid::Ulid::generate().to_string()).to_vec();
    out.extend(mirror_sql::instrument(schema, table, mirror));
    out.push(feed_index(schema, table, mirror.id, true));
    out
}

/// The three columns of a mirror. The values of the rows that are there are defaults that the server
/// stores once, with the column; then the defaults go, for a mirror has none.
fn add_metadata(schema: &str, table: &Table, change: &str) -> [String; 2] {
    let t = qualified(schema, &table.name);
    [
        format!(
            "alter table {t} \
             add column if not exists tidewater_change text collate \"C\" default '{change}', \
             add column if not exists tidewater_xid xid8 default pg_current_xact_id(), \
             add column if not exists tidewater_device text collate \"C\" default '0'"
        ),
        format!(
            "alter table {t} alter column tidewater_change drop default, \
             alter column tidewater_xid drop default, alter column tidewater_device drop default"
        ),
    ]
}

/// The index by which the feed is read.
pub fn feed_index(schema: &str, table: &Table, id: i32, concurrently: bool) -> String {
    let key: Vec<String> = table.key.iter().map(|c| ident(c)).collect();
    format!(
        "create index {}if not exists tidewater_feed_{id} on {} (tidewater_xid, {})",
        if concurrently { "concurrently " } else { "" },
        qualified(schema, &table.name),
        key.join(", ")
    )
}

/// Makes a mirror of an existing table. Inside the transaction that made the workspace.
pub async fn adopt(session: &Session, plan: &Plan<'_>) -> Result<()> {
    let change = Statement::fixed(format!(
        "select {0}.tidewater_time10(clock_timestamp()) || {0}.tidewater_tail16()",
        ident(plan.schema)
    ));
    let rows = session.query(&change, WHAT).await?;
    let change: String = match rows.first() {
        Some(row) => get(row, 0)?,
        None => return Err(super::workspace::no_answer(WHAT)),
    };
    for sql in add_metadata(plan.schema, plan.table, &change) {
        session.batch(&sql, WHAT).await?;
    }
    for sql in mirror_sql::instrument(plan.schema, plan.table, plan.mirror) {
        session.batch(&sql, WHAT).await?;
    }
    if plan.was_mirror {
        // The columns were there, and the rows that were written without them have no default.
        let stamp = format!(
            "update {} set tidewater_xid = null where tidewater_xid is null",
            qualified(plan.schema, &plan.table.name)
        );
        session.batch(&stamp, WHAT).await?;
    }
    if plan.size <= SMALL || plan.is_partitioned {
        let index = feed_index(plan.schema, plan.table, plan.mirror.id, false);
        session.batch(&index, WHAT).await?;
    }
    Ok(())
}

/// Waits for locks of others' tables no longer than is polite; returns what was set before.
pub async fn be_polite(session: &Session) -> Result<String> {
    let before = Statement::fixed("select current_setting('lock_timeout')");
    let rows = session.query(&before, WHAT).await?;
    let before = match rows.first() {
        Some(row) => get(row, 0)?,
        None => return Err(super::workspace::no_answer(WHAT)),
    };
    session
        .batch(&format!("set local lock_timeout = {LOCK}"), WHAT)
        .await?;
    Ok(before)
}

/// Waits for locks as `before` said.
pub async fn end_politeness(session: &Session, before: &str) -> Result<()> {
    let mut s = Statement::default();
    let before = s.text(before);
    s.sql = format!("select set_config('lock_timeout', {before}, true)");
    session.query(&s, WHAT).await.map(|_| ())
}

/// The error of a table that somebody held for too long; any other stays as it is.
pub fn in_use(e: Error) -> Error {
    if e.sqlstate.as_deref() != Some("55P03") {
        return e;
    }
    Error::new(
        Code::Batch,
        format!(
            "the table is in use on the server: a transaction kept its lock for {} s, and to wait longer \
             would hold up everybody's queries [55P03]",
            LOCK / 1000
        ),
        "nothing is lost, and it is tried again by itself at the next contact; a transaction that is open \
         for long is found in pg_stat_activity",
    )
    .with_sqlstate("55P03")
}

/// Builds the feed's index for mirrors that lack it, one after the other, while others write. What is not
/// done in time goes on by itself on the server; what fails is done at the next contact.
pub async fn build_indexes(
    remote: &PgRemote,
    session: &Session,
    tables: &[Table],
    mirrors: &BTreeMap<String, Mirror>,
) -> Result<()> {
    let mut s = Statement::default();
    let schema = s.text(&remote.schema);
    let names = s.bind(
        mirrors.keys().cloned().collect::<Vec<_>>(),
        Type::TEXT_ARRAY,
    );
    // Whoever builds an index of a table holds this lock on it, and so does VACUUM, which ends.
    s.sql = format!(
        "select t.name, i.relname is not null, exists (select 1 from pg_locks l \
         where l.relation = c.oid and l.database = (select oid from pg_database \
         where datname = current_database()) and l.mode = 'ShareUpdateExclusiveLock') \
         from {own}.tidewater_tables t \
         join pg_namespace n on n.nspname = {schema} \
         join pg_class c on c.relnamespace = n.oid and c.relname = t.name and c.relkind = 'r' \
         left join pg_class i on i.relnamespace = n.oid and i.relname = 'tidewater_feed_' || t.id \
         where t.name = any({names}::text[]) and not exists \
         (select 1 from pg_index x where x.indexrelid = i.oid and x.indisvalid)",
        own = ident(&remote.schema)
    );
    for row in session.query(&s, "looking for indexes").await? {
        let (name, broken, busy): (String, bool, bool) =
            (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
        let (Some(table), Some(mirror)) =
            (tables.iter().find(|t| t.name == name), mirrors.get(&name))
        else {
            continue;
        };
        if busy {
            continue;
        }
        tracing::info!(
            table = name,
            "building an index on the server; nobody is blocked"
        );
        if broken {
            let sql = format!(
                "drop index concurrently if exists {}.tidewater_feed_{}",
                ident(&remote.schema),
                mirror.id
            );
            session.batch(&sql, "dropping an unfinished index").await?;
        }
        let sql = feed_index(&remote.schema, table, mirror.id, true);
        session.batch(&sql, "building an index").await?;
    }
    Ok(())
}
