//! Mirror tables in the catalogue: found, adopted, created, widened.
//!
//! A table that cannot be mirrored is refused by itself, inside a savepoint; the others go on.

use super::adopt::{self, Plan};
use super::decode::get;
use super::mirror_sql;
use super::quote::{Statement, ident, qualified};
use super::session::Session;
use super::shape::{Found, catalogue, fit, refuse_dropped};
use super::typed;
use crate::error::{Code, Error, Result};
use crate::model::{Limit, Table};
use crate::remote::{Hello, Mirror, MirrorState};
use std::collections::BTreeMap;

/// The mirror that tidewater would create for a table.
fn fresh(table: &Table, id: i32) -> Mirror {
    Mirror {
        id,
        epoch: 0,
        wires: table
            .columns
            .iter()
            .filter(|c| !c.generated)
            .map(|c| (c.name.clone(), c.wire()))
            .collect(),
        forms: BTreeMap::new(),
        limits: table
            .columns
            .iter()
            .filter_map(|c| Some((c.name.clone(), Limit::of(c.pg_type?.catalogue(), -1)?)))
            .collect(),
        has_foreign_keys: false,
    }
}

/// Every statement that creates a mirror from nothing.
pub fn creation(schema: &str, table: &Table, id: i32) -> Vec<String> {
    let mut out = vec![mirror_sql::create_table(schema, table)];
    out.extend(
        table
            .uniques
            .iter()
            .enumerate()
            .filter_map(|(n, u)| mirror_sql::unique(schema, table, id, &n.to_string(), u)),
    );
    // What no device can hold together, the workspace must not either.
    let key = table.key_exclusion();
    out.extend(key.and_then(|u| mirror_sql::unique(schema, table, id, "key", &u)));
    out.push(adopt::feed_index(schema, table, id, false));
    out.extend(mirror_sql::instrument(schema, table, &fresh(table, id)));
    out
}

/// Every statement that makes a mirror of a table that is there.
pub fn adoption(schema: &str, table: &Table, id: i32) -> Vec<String> {
    adopt::statements(schema, table, &fresh(table, id))
}

/// Makes sure that every table of the device has its mirror; returns what is usable and what is not.
pub async fn ensure(
    session: &Session,
    schema: &str,
    hello: &Hello,
) -> Result<(BTreeMap<String, Mirror>, Vec<Error>)> {
    let names: Vec<String> = hello.tables.iter().map(|t| t.name.clone()).collect();
    let mut found = catalogue(session, schema, &names).await?;
    let registered = registered(session, schema).await?;
    let mut forms = typed::forms(session, schema).await?;
    let (mut mirrors, mut refused) = (BTreeMap::new(), Vec::new());
    let waited = adopt::be_polite(session).await?;
    for table in &hello.tables {
        session
            .batch("savepoint tidewater_mirror", "making a mirror")
            .await?;
        let known = registered.get(&table.name).copied();
        match ensure_one(
            session,
            schema,
            hello,
            table,
            known,
            found.remove(&table.name),
        )
        .await
        {
            Ok(mut mirror) => {
                mirror.forms = forms.remove(&mirror.id).unwrap_or_default();
                session
                    .batch("release savepoint tidewater_mirror", "making a mirror")
                    .await?;
                mirrors.insert(table.name.clone(), mirror);
            }
            Err(e) if e.is_offline() => return Err(e),
            Err(e) => {
                session
                    .batch("rollback to savepoint tidewater_mirror", "making a mirror")
                    .await?;
                let e = adopt::in_use(with_cure(session, schema, &table.name, e).await?);
                refused.push(e.on_table(table.name.clone()));
            }
        }
    }
    adopt::end_politeness(session, &waited).await?;
    Ok((mirrors, refused))
}

/// A table that belongs to somebody else can be neither altered nor instrumented: the statement that
/// cures it, for whoever may run it.
async fn with_cure(session: &Session, schema: &str, table: &str, mut e: Error) -> Result<Error> {
    if e.code == Code::MissingPrivilege {
        let who = Statement::fixed("select current_user::text");
        let rows = session.query(&who, "making a mirror").await?;
        if let Some(row) = rows.first() {
            e.remedy = format!(
                "have its owner or a superuser run `alter table {} owner to {}`",
                qualified(schema, table),
                ident(get(row, 0)?)
            );
        }
    }
    Ok(e)
}

async fn ensure_one(
    session: &Session,
    schema: &str,
    hello: &Hello,
    table: &Table,
    known: Option<(i32, i64)>,
    found: Option<Found>,
) -> Result<Mirror> {
    match (known, found) {
        (Some(_), Some(found)) if !found.is_mirror() => Err(displaced()),
        (Some((id, epoch)), Some(found)) => {
            if let Some(dropped) = hello.dropped.get(&table.name) {
                refuse_dropped(schema, table, &found, dropped)?;
            }
            let missing: Vec<_> = table
                .replicated()
                .filter(|c| !found.columns.contains_key(&c.name))
                .collect();
            for c in &missing {
                let sql = format!(
                    "alter table {} add column {}",
                    qualified(schema, &table.name),
                    mirror_sql::column_definition(table, c)
                );
                session.batch(&sql, "adding a column to a mirror").await?;
            }
            let mut mirror = fit(
                schema,
                table,
                &found,
                &missing.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
            )?;
            (mirror.id, mirror.epoch) = (id, epoch);
            Ok(mirror)
        }
        (Some(_), None) => Err(gone()),
        (None, Some(found)) => {
            let mut mirror = fit(schema, table, &found, &[])?;
            mirror.id = enter(session, schema, hello, table).await?;
            let plan = Plan {
                schema,
                table,
                mirror: &mirror,
                size: found.size,
                is_partitioned: found.kind == "p",
                was_mirror: found.was_mirror(),
            };
            adopt::adopt(session, &plan).await?;
            Ok(mirror)
        }
        (None, None) => {
            let id = enter(session, schema, hello, table).await?;
            for sql in creation(schema, table, id) {
                session.batch(&sql, "creating a mirror").await?;
            }
            Ok(fresh(table, id))
        }
    }
}

/// How tables stand in the catalogue, without changing anything.
pub async fn states(
    session: &Session,
    schema: &str,
    tables: &[Table],
    has_workspace: bool,
) -> Result<BTreeMap<String, MirrorState>> {
    let names: Vec<String> = tables.iter().map(|t| t.name.clone()).collect();
    let found = catalogue(session, schema, &names).await?;
    let registered = if has_workspace {
        registered(session, schema).await?
    } else {
        BTreeMap::new()
    };
    Ok(tables
        .iter()
        .map(|t| {
            let known = registered.contains_key(&t.name);
            let state = match found.get(&t.name) {
                None if known => MirrorState::Unfit(gone()),
                None => MirrorState::Absent,
                Some(f) if known && !f.is_mirror() => MirrorState::Unfit(displaced()),
                Some(f) => {
                    // Only to a mirror are columns added; a table to adopt must have them.
                    let missing: Vec<&str> = t
                        .replicated()
                        .map(|c| c.name.as_str())
                        .filter(|c| known && !f.columns.contains_key(*c))
                        .collect();
                    match fit(schema, t, f, &missing) {
                        Ok(_) => {
                            MirrorState::Fits(missing.into_iter().map(str::to_owned).collect())
                        }
                        Err(e) => MirrorState::Unfit(e),
                    }
                }
            };
            (t.name.clone(), state)
        })
        .collect())
}

fn displaced() -> Error {
    Error::new(
        Code::SchemasDiffer,
        "another table stands on the server where the mirror of this table was",
        "restore the mirror, or delete its row from tidewater_tables in the workspace to have the \
         table adopted",
    )
}

fn gone() -> Error {
    Error::new(
        Code::SchemasDiffer,
        "the mirror of this table was dropped or renamed on the server",
        "restore it, or delete its row from tidewater_tables in the workspace to have it made anew",
    )
}

/// Registers a table and returns its number.
async fn enter(session: &Session, schema: &str, hello: &Hello, table: &Table) -> Result<i32> {
    let spec = serde_json::to_string(table).unwrap_or_default();
    let mut s = Statement::default();
    let (name, spec) = (s.text(&table.name), s.text(&spec));
    let device = s.text(&hello.device);
    s.sql = format!(
        "insert into {}.tidewater_tables (name, spec, created_by) \
         values ({name}, {spec}, {device}) returning id",
        ident(schema)
    );
    let rows = session.query(&s, "registering a table").await?;
    let row = rows
        .first()
        .ok_or_else(|| super::workspace::no_answer("registering a table"))?;
    get(row, 0)
}

async fn registered(session: &Session, schema: &str) -> Result<BTreeMap<String, (i32, i64)>> {
    let s = Statement::fixed(format!(
        "select name, id, epoch from {}.tidewater_tables",
        ident(schema)
    ));
    session
        .query(&s, "reading the workspace's tables")
        .await?
        .iter()
        .map(|r| Ok((get(r, 0)?, (get(r, 1)?, get(r, 2)?))))
        .collect()
}
