//! A look at the server for `doctor`: what it is, what the login may, how the mirrors stand. Read-only:
//! nothing is made, registered or repaired. A question that the server refuses ends the look.

use super::PgRemote;
use super::decode::get;
use super::mirror;
use super::quote::{Statement, ident};
use super::session::Session;
use super::workspace;
use crate::error::Result;
use crate::model::Table;
use crate::remote::Examined;
use std::time::Instant;
use tokio_postgres::types::Type;

const WHAT: &str = "looking at the server";

/// A connection of ours is younger than this when it is asked; an older session was somebody's before.
const FRESH_MS: i64 = 1_000;

/// See `Remote::examine`.
pub async fn examine(remote: &PgRemote, tables: &[Table]) -> Result<Examined> {
    let begun = Instant::now();
    let session = remote.session().await?;
    let schema = &remote.schema;
    let mut s = Statement::default();
    let name = s.text(schema);
    s.sql = format!(
        "select current_setting('server_version'), current_setting('server_version_num')::integer, \
         pg_is_in_recovery(), current_setting('transaction_read_only')::boolean, \
         (select case when ssl then version || ', ' || cipher end from pg_stat_ssl \
         where pid = pg_backend_pid()), current_user::text, \
         (extract(epoch from clock_timestamp()) * 1000)::bigint, \
         exists (select 1 from pg_namespace where nspname = {name}), \
         exists (select 1 from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where n.nspname = {name} and c.relname = 'tidewater_workspace'), \
         coalesce(has_database_privilege(current_database(), 'create'), false), \
         coalesce((select has_schema_privilege(n.oid, 'usage') and has_schema_privilege(n.oid, 'create') \
         from pg_namespace n where n.nspname = {name}), false), current_database()::text, \
         (select (extract(epoch from clock_timestamp() - backend_start) * 1000)::bigint \
         from pg_stat_activity where pid = pg_backend_pid()), inet_server_port()"
    );
    let rows = session.query(&s, WHAT).await?;
    let age_here = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
    let row = rows.first().ok_or_else(|| workspace::no_answer(WHAT))?;
    let full: &str = get(row, 0)?;
    let login: String = get(row, 5)?;
    let (has_schema, has_workspace): (bool, bool) = (get(row, 7)?, get(row, 8)?);
    let (may_create_schema, may_use): (bool, bool) = (get(row, 9)?, get(row, 10)?);
    let database: String = get(row, 11)?;
    let mut lacks = Vec::new();
    if !has_schema && !may_create_schema {
        lacks.push((
            format!("{login} may not create the schema {schema}"),
            format!(
                "create schema {} authorization {}; or grant create on database {} to {}",
                ident(schema),
                ident(&login),
                ident(&database),
                ident(&login)
            ),
        ));
    }
    if has_schema && !may_use {
        lacks.push((
            format!("{login} may not use or create in the schema {schema}"),
            format!(
                "grant usage, create on schema {} to {}",
                ident(schema),
                ident(&login)
            ),
        ));
    }
    let mut out = Examined {
        server_version: full.split_whitespace().next().unwrap_or(full).to_owned(),
        version_is_enough: get::<i32>(row, 1)? >= workspace::VERSION_MIN,
        standby: get(row, 2)?,
        read_only: get(row, 3)?,
        tls: get(row, 4)?,
        now_ms: get(row, 6)?,
        between: between(remote, get(row, 12)?, age_here, get(row, 13)?),
        has_schema,
        protocol: None,
        speaks: true,
        mirrors: std::collections::BTreeMap::new(),
        bare: Vec::new(),
        lacks,
        login,
    };
    owned(&session, schema, tables, &mut out).await?;
    if may_use {
        if has_workspace {
            let s = Statement::fixed(format!(
                "select protocol from {}.tidewater_workspace",
                ident(schema)
            ));
            let rows = session.query(&s, WHAT).await?;
            out.protocol = rows.first().map(|r| get(r, 0)).transpose()?;
            out.speaks = out.protocol.is_none_or(workspace::speaks);
        }
        if out.speaks {
            out.mirrors = mirror::states(&session, schema, tables, has_workspace).await?;
        }
    }
    session.done();
    Ok(out)
}

/// Tables that belong to others, and mirrors whose triggers do not work.
async fn owned(
    session: &Session,
    schema: &str,
    tables: &[Table],
    out: &mut Examined,
) -> Result<()> {
    let mut names: Vec<String> = tables.iter().map(|t| t.name.clone()).collect();
    names.push("tidewater_workspace".into());
    let mut s = Statement::default();
    let (schema_name, names) = (s.text(schema), s.bind(names, Type::TEXT_ARRAY));
    s.sql = format!(
        "select c.relname::text, pg_has_role(c.relowner, 'usage'), \
         c.relname <> 'tidewater_workspace' and exists (select 1 from pg_attribute a \
         where a.attrelid = c.oid and a.attname = 'tidewater_xid' and not a.attisdropped) \
         and 6 > (select count(*) from pg_trigger g where g.tgrelid = c.oid and not g.tgisinternal \
         and (g.tgname like '~tidewater%' or g.tgname like 'tidewater%') and g.tgenabled in ('O', 'A')) \
         from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where n.nspname = {schema_name} and c.relname = any({names}::text[]) \
         and c.relkind in ('r', 'p') order by 1"
    );
    for row in session.query(&s, WHAT).await? {
        let (table, ours, bare): (String, bool, bool) =
            (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
        if !ours {
            out.lacks.push((
                format!("the table {table} belongs to another role"),
                format!(
                    "alter table {}.{} owner to {}",
                    ident(schema),
                    ident(&table),
                    ident(&out.login)
                ),
            ));
        }
        if bare {
            out.bare.push(table);
        }
    }
    Ok(())
}

/// What tells that something stands between this device and the server.
fn between(
    remote: &PgRemote,
    age: Option<i64>,
    age_here: i64,
    port: Option<i32>,
) -> Option<String> {
    if age.is_some_and(|a| a > age_here.saturating_add(FRESH_MS)) {
        return Some("a pooler: the server's session is older than this connection".into());
    }
    // Of several hosts nobody knows here which one answered.
    match remote.dialer.conn().targets.as_slice() {
        [target] if matches!(target.host, crate::config::Host::Tcp(_)) => {
            let (dialled, port) = (target.port, port?);
            (port != i32::from(dialled)).then(|| {
                format!(
                    "a pooler, proxy or port mapping: port {dialled} was dialled, the server listens on {port}"
                )
            })
        }
        _ => None,
    }
}
