//! Mirror tables in the catalogue: found, adopted, created, widened.
//!
//! A table that cannot be mirrored is refused by itself, inside a savepoint; the others go on.

use super::decode::get;
use super::mirror_sql;
use super::quote::{Statement, ident, qualified};
use super::session::Session;
use crate::error::{Code, Error, Result};
use crate::model::{Table, Wire};
use crate::remote::{Hello, Mirror, MirrorState};
use std::collections::BTreeMap;
use tokio_postgres::types::Type;

/// A table as the catalogue shows it.
#[derive(Default)]
struct Found {
    /// Column name to type name.
    columns: BTreeMap<String, String>,
    /// Primary key columns in key order.
    key: Vec<String>,
    has_foreign_keys: bool,
    /// Whether the primary key is deferrable, which no ON CONFLICT can name.
    deferrable_key: bool,
}

impl Found {
    /// Whether it carries tidewater's own columns.
    fn is_mirror(&self) -> bool {
        ["tidewater_change", "tidewater_xid", "tidewater_device"]
            .iter()
            .all(|c| self.columns.contains_key(*c))
    }
}

/// The mirror that tidewater would create for a table.
fn fresh(table: &Table, id: i32) -> Mirror {
    Mirror {
        id,
        epoch: 0,
        wires: table
            .columns
            .iter()
            .filter(|c| !c.generated)
            .map(|c| (c.name.clone(), Wire::default_for(&c.declared)))
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
            .filter_map(|(n, u)| mirror_sql::unique(schema, table, id, n, u)),
    );
    out.extend(mirror_sql::instrument(schema, table, &fresh(table, id)));
    out
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
    let (mut mirrors, mut refused) = (BTreeMap::new(), Vec::new());
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
            Ok(mirror) => {
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
                let e = with_cure(session, schema, &table.name, e).await?;
                refused.push(e.on_table(table.name.clone()));
            }
        }
    }
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
                table,
                &found,
                &missing.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
            )?;
            (mirror.id, mirror.epoch) = (id, epoch);
            Ok(mirror)
        }
        (Some(_), None) => Err(gone()),
        (None, Some(found)) => {
            let mut mirror = fit(table, &found, &[])?;
            mirror.id = enter(session, schema, hello, table).await?;
            let add = mirror_sql::add_metadata(schema, &table.name);
            session.batch(&add, "adopting a table").await?;
            for sql in mirror_sql::instrument(schema, table, &mirror) {
                session.batch(&sql, "adopting a table").await?;
            }
            // The trigger stamps what stood there before.
            let stamp = format!(
                "update {} set tidewater_xid = null where tidewater_xid is null",
                qualified(schema, &table.name)
            );
            session.batch(&stamp, "adopting a table").await?;
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
                    match fit(t, f, &missing) {
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

/// The mirror of an existing table, or why its columns do not fit.
fn fit(table: &Table, found: &Found, added: &[&str]) -> Result<Mirror> {
    if found.key != table.key {
        return Err(Error::new(
            Code::SchemasDiffer,
            format!(
                "the primary key on the server is ({}), here it is ({})",
                found.key.join(", "),
                table.key.join(", ")
            ),
            "give both the same primary key, in the same order",
        ));
    }
    if found.deferrable_key {
        return Err(Error::new(
            Code::SchemasDiffer,
            "the primary key on the server is deferrable, so no upsert can name it",
            "drop the constraint on the server and add it again without DEFERRABLE",
        ));
    }
    let mut wires = BTreeMap::new();
    for c in table.columns.iter().filter(|c| !c.generated) {
        if added.contains(&c.name.as_str()) {
            wires.insert(c.name.clone(), Wire::default_for(&c.declared));
            continue;
        }
        let Some(pg_type) = found.columns.get(&c.name) else {
            if c.redacted {
                continue;
            }
            return Err(Error::new(
                Code::SchemasDiffer,
                format!("column {} does not exist on the server", c.name),
                format!(
                    "alter table on the server: add column {} {}",
                    ident(&c.name),
                    Wire::default_for(&c.declared).pg_type()
                ),
            ));
        };
        let default = Wire::default_for(&c.declared);
        let wire = if pg_type_name(default) == pg_type {
            Some(default)
        } else {
            Wire::for_pg(pg_type, c.affinity())
        };
        let wire = wire.ok_or_else(|| {
            Error::new(
                Code::SchemasDiffer,
                format!(
                    "column {} is {pg_type} on the server, which cannot carry the values of {} unchanged",
                    c.name,
                    if c.declared.is_empty() { "an untyped column" } else { &c.declared }
                ),
                format!(
                    "alter table on the server: alter column {} type {}",
                    ident(&c.name),
                    default.pg_type()
                ),
            )
        })?;
        wires.insert(c.name.clone(), wire);
    }
    Ok(Mirror {
        id: 0,
        epoch: 0,
        wires,
        has_foreign_keys: found.has_foreign_keys,
    })
}

/// The catalogue's name of the type that a wire form has by default.
fn pg_type_name(wire: Wire) -> &'static str {
    match wire {
        Wire::Int => "int8",
        Wire::Real => "float8",
        Wire::Text | Wire::Affine => "text",
        Wire::Bytes => "bytea",
        Wire::Numeric => "numeric",
        Wire::Dynamic => "jsonb",
    }
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

async fn catalogue(
    session: &Session,
    schema: &str,
    names: &[String],
) -> Result<BTreeMap<String, Found>> {
    let mut s = Statement::default();
    let schema = s.text(schema);
    let names = s.bind(names.to_vec(), Type::TEXT_ARRAY);
    s.sql = format!(
        "select c.relname::text, a.attname::text, t.typname::text, \
         coalesce(array_position(x.indkey::smallint[], a.attnum), -1)::integer, \
         exists (select 1 from pg_constraint k where k.contype = 'f' \
         and (k.conrelid = c.oid or k.confrelid = c.oid)), coalesce(not x.indimmediate, false) \
         from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
         join pg_type t on t.oid = a.atttypid \
         left join pg_index x on x.indrelid = c.oid and x.indisprimary \
         where n.nspname = {schema} and c.relname = any({names}::text[]) and c.relkind in ('r', 'p')"
    );
    let mut found: BTreeMap<String, (Found, BTreeMap<i32, String>)> = BTreeMap::new();
    for row in session.query(&s, "reading the catalogue").await? {
        let (table, column, ty): (String, String, String) =
            (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
        let (position, fks): (i32, bool) = (get(&row, 3)?, get(&row, 4)?);
        let (f, key) = found.entry(table).or_default();
        if position >= 0 {
            key.insert(position, column.clone());
        }
        f.columns.insert(column, ty);
        f.has_foreign_keys = fks;
        f.deferrable_key = get(&row, 5)?;
    }
    Ok(found
        .into_iter()
        .map(|(name, (mut f, key))| {
            f.key = key.into_values().collect();
            (name, f)
        })
        .collect())
}
