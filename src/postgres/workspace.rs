//! The workspace itself: its schema, its own tables, the registration of devices.
//!
//! Made under an advisory lock of the transaction, for two devices may start at once. Never touches a
//! workspace that a newer program made.

use super::PgRemote;
use super::adopt;
use super::decode::get;
use super::head;
use super::mirror;
use super::quote::{Statement, ident};
use super::session::Session;
use crate::error::{Code, Disposition, Error, Result};
use crate::model::Table;
use crate::remote::{Hello, Standing, Workspace};
use std::collections::BTreeSet;
use tokio_postgres::types::Type;

/// The oldest server that the feed is sound on, as `server_version_num`.
pub const VERSION_MIN: i32 = 140_000;

/// The protocol between devices that this program speaks: 2 since tombstones are collected. A program
/// that does not compare its cursor with the collection mark would miss deletes.
pub const PROTOCOL: i32 = 2;

/// The protocol of a new workspace. The first collection raises it, and only then do older programs
/// have to stop.
const FIRST_PROTOCOL: i32 = 1;

/// The migrations of the workspace in their order; a released one is never edited.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/postgres/0001_workspace.sql"),
    include_str!("../../migrations/postgres/0002_operations.sql"),
];

/// Replaces the placeholder of the migration files by the quoted schema.
fn in_schema(sql: &str, schema: &str) -> String {
    sql.replace(":\"schema\"", &ident(schema))
}

/// What `init --dry-run` prints for the remote; without `standing`, as if nothing stood there. The
/// numbers of tables are given when they are made; those of an existing workspace are only near.
pub fn dry_run(schema: &str, tables: &[Table], standing: Option<&Standing>) -> Vec<String> {
    let mirrors = standing.and_then(|s| s.mirrors.as_ref());
    let mut out = Vec::new();
    if mirrors.is_none() {
        out.push(format!("create schema if not exists {}", ident(schema)));
        out.extend(MIGRATIONS.iter().map(|m| in_schema(m, schema)));
    }
    let mut number = mirrors.map_or(0, BTreeSet::len);
    for t in tables {
        if mirrors.is_some_and(|m| m.contains(&t.name)) {
            continue;
        }
        number += 1;
        let id = i32::try_from(number).unwrap_or(i32::MAX);
        if standing.is_some_and(|s| s.tables.contains(&t.name)) {
            out.extend(mirror::adoption(schema, t, id));
        } else {
            out.extend(mirror::creation(schema, t, id));
        }
    }
    out
}

/// See `Remote::prepare`.
pub async fn prepare(remote: &PgRemote, hello: &Hello) -> Result<Workspace> {
    let session = remote.session().await?;
    check_server(&session).await?;
    session
        .pipeline(
            &remote.begin(),
            &[lock(&remote.schema)],
            "locking the workspace",
        )
        .await?;
    let migrated = migrate(&session, &remote.schema, hello).await?;
    register(&session, &remote.schema, hello).await?;
    let (mirrors, refused) = mirror::ensure(&session, &remote.schema, hello).await?;
    let head = head::read(&session, &remote.schema, &hello.device).await?;
    session.batch("commit", "making the workspace").await?;
    match adopt::build_indexes(remote, &session, &hello.tables, &mirrors).await {
        Ok(()) => session.done(),
        // The connection goes with its deadline; the server goes on building.
        Err(e) => tracing::warn!(
            error = %e.message,
            "an index on the server is not finished yet; syncing goes on, slower meanwhile"
        ),
    }
    if migrated {
        tracing::info!(schema = %remote.schema, "workspace created");
    }
    Ok(Workspace {
        push_seq: head.push_seq,
        last_batch: head.last_batch,
        identity: head.identity,
        mirrors,
        refused,
    })
}

/// Keeps other devices from making or changing the workspace, for the length of the transaction.
pub fn lock(schema: &str) -> Statement {
    let mut s = Statement::default();
    let name = s.text(&format!("tidewater:{schema}"));
    s.sql = format!("select pg_advisory_xact_lock(hashtextextended({name}, 0))::text");
    s
}

/// Refuses servers that the feed would not be sound on.
pub async fn check_server(session: &Session) -> Result<()> {
    let s = Statement::fixed(
        "select current_setting('server_version_num')::integer, pg_is_in_recovery(), \
              current_setting('server_version'), \
              current_setting('default_transaction_read_only') = 'on'",
    );
    let rows = session.query(&s, "looking at the server").await?;
    let Some(row) = rows.first() else {
        return Err(no_answer("looking at the server"));
    };
    let (number, standby, version): (i32, bool, String) =
        (get(row, 0)?, get(row, 1)?, get(row, 2)?);
    if number < VERSION_MIN {
        return Err(Error::new(
            Code::RemoteNotUsable,
            format!("the server is PostgreSQL {version}; tidewater needs 14 or later"),
            "upgrade the server",
        ));
    }
    if standby {
        return Err(standby_error());
    }
    if get::<bool>(row, 3)? {
        return Err(read_only_error());
    }
    Ok(())
}

/// A standby's snapshots list no transactions in progress, so its feed would lose rows.
pub fn standby_error() -> Error {
    Error::new(
        Code::RemoteNotUsable,
        "the server is a standby in recovery",
        "point [remote] url at the primary, or name all servers in it (postgres://app@db1,db2/app): \
         the primary is found among them",
    )
    .with_disposition(Disposition::WrongServer)
}

/// A server whose transactions are read-only unless somebody insists, and nobody here does: it is a
/// sign that its owner wants no writes.
pub fn read_only_error() -> Error {
    Error::new(
        Code::RemoteNotUsable,
        "the server is read-only (default_transaction_read_only is on)",
        "point [remote] url at a server that takes writes, or have its owner turn \
         default_transaction_read_only off for this database and login",
    )
    .with_disposition(Disposition::WrongServer)
}

/// The server answered nothing where one row must come.
pub fn no_answer(what: &str) -> Error {
    Error::new(
        Code::RemoteNotUsable,
        format!("{what}: the server answered with no row"),
        "check that [remote] schema names the workspace",
    )
}

/// Makes what is missing of the workspace's own tables; whether anything was.
pub async fn migrate(session: &Session, schema: &str, hello: &Hello) -> Result<bool> {
    let mut s = Statement::default();
    let name = s.text(schema);
    s.sql = format!(
        "select exists (select 1 from pg_namespace where nspname = {name}), \
         exists (select 1 from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where n.nspname = {name} and c.relname = 'tidewater_workspace')"
    );
    let rows = session.query(&s, "looking for the workspace").await?;
    let row = rows
        .first()
        .ok_or_else(|| no_answer("looking for the workspace"))?;
    let (has_schema, has_workspace): (bool, bool) = (get(row, 0)?, get(row, 1)?);
    if !has_schema {
        session
            .batch(
                &format!("create schema {}", ident(schema)),
                "creating the schema",
            )
            .await
            .map_err(|mut e| {
                if e.code == Code::MissingPrivilege {
                    e.remedy = format!(
                        "have the database's owner run `create schema {} authorization LOGIN`, with \
                         the login of [remote] url",
                        ident(schema)
                    );
                }
                e
            })?;
    }
    let done: i32 = if has_workspace {
        let s = Statement::fixed(format!(
            "select protocol, migration from {}.tidewater_workspace",
            ident(schema)
        ));
        let rows = session.query(&s, "reading the workspace").await?;
        let row = rows
            .first()
            .ok_or_else(|| no_answer("reading the workspace"))?;
        let (protocol, migration): (i32, i32) = (get(row, 0)?, get(row, 1)?);
        if protocol > PROTOCOL {
            return Err(newer_workspace(protocol));
        }
        migration
    } else {
        0
    };
    let target = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    for sql in MIGRATIONS.iter().skip(usize::try_from(done).unwrap_or(0)) {
        session
            .batch(&in_schema(sql, schema), "creating the workspace")
            .await?;
    }
    if done == 0 {
        let mut s = Statement::default();
        let (p, m) = (
            s.bind(FIRST_PROTOCOL, Type::INT4),
            s.bind(target, Type::INT4),
        );
        let v = s.bind(hello.user_version, Type::INT8);
        let name = s.text(schema);
        s.sql = format!(
            "insert into {0}.tidewater_workspace (protocol, migration, user_version, home) \
             select {p}, {m}, {v}, {home} from pg_class w join pg_namespace n \
             on n.oid = w.relnamespace where n.nspname = {name} and w.relname = 'tidewater_workspace'",
            ident(schema),
            home = head::home("w.oid")
        );
        session.query(&s, "creating the workspace").await?;
    } else if done < target {
        let mut s = Statement::default();
        let m = s.bind(target, Type::INT4);
        s.sql = format!(
            "update {}.tidewater_workspace set migration = {m}",
            ident(schema)
        );
        session.query(&s, "migrating the workspace").await?;
    }
    Ok(done < target)
}

/// A workspace that a later version made.
pub fn newer_workspace(protocol: i32) -> Error {
    Error::new(
        Code::RemoteNotUsable,
        format!("the workspace speaks protocol {protocol}, this program only {PROTOCOL}"),
        "upgrade tidewater on this device; nothing is lost meanwhile",
    )
}

/// Whether a workspace's protocol is one that this program speaks.
pub fn speaks(protocol: i32) -> bool {
    protocol <= PROTOCOL
}

async fn register(session: &Session, schema: &str, hello: &Hello) -> Result<()> {
    let mut s = Statement::default();
    let (id, name) = (s.text(&hello.device), s.text(&hello.name));
    let version = s.text(env!("CARGO_PKG_VERSION"));
    s.sql = format!(
        "insert into {}.tidewater_devices as d (id, name, version, login) \
         values ({id}, {name}, {version}, session_user) \
         on conflict (id) do update set name = excluded.name, version = excluded.version, \
         login = excluded.login, last_seen = clock_timestamp()",
        ident(schema)
    );
    session.query(&s, "registering the device").await?;
    if let Some(former) = &hello.former {
        let mut s = Statement::default();
        let former = s.text(former);
        s.sql = format!(
            "update {}.tidewater_devices set state = 'retired' where id = {former} \
             and state <> 'revoked'",
            ident(schema)
        );
        session.query(&s, "registering the device").await?;
    }
    Ok(())
}

/// Fails where there is no workspace; whether this program's migrations have been run on it.
pub async fn find(session: &Session, schema: &str) -> Result<bool> {
    let mut s = Statement::default();
    let name = s.text(schema);
    s.sql = format!(
        "select exists (select 1 from pg_attribute a where a.attrelid = c.oid and a.attname = 'home') \
         from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where n.nspname = {name} and c.relname = 'tidewater_workspace'"
    );
    let rows = session.query(&s, "looking for the workspace").await?;
    let Some(row) = rows.first() else {
        return Err(Error::new(
            Code::RemoteNotUsable,
            format!("there is no workspace in schema {schema}"),
            "run `tidewater init` on a device that has the data, or correct --schema",
        ));
    };
    get(row, 0)
}

/// See `Remote::standing`.
pub async fn standing(remote: &PgRemote) -> Result<Standing> {
    let session = remote.session().await?;
    check_server(&session).await?;
    let mut s = Statement::default();
    let name = s.text(&remote.schema);
    s.sql = format!(
        "select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where n.nspname = {name} and c.relkind in ('r', 'p')"
    );
    let rows = session.query(&s, "looking at the schema").await?;
    let mut tables = rows
        .iter()
        .map(|r| get(r, 0))
        .collect::<Result<BTreeSet<String>>>()?;
    let has_workspace = tables.contains("tidewater_workspace");
    tables.retain(|t| !t.starts_with("tidewater_"));
    let mut mirrors = None;
    if has_workspace {
        let s = Statement::fixed(format!(
            "select name, (select protocol from {0}.tidewater_workspace) from {0}.tidewater_tables",
            ident(&remote.schema)
        ));
        let mut names = BTreeSet::new();
        for row in session.query(&s, "reading the workspace's tables").await? {
            let protocol = get(&row, 1)?;
            if !speaks(protocol) {
                return Err(newer_workspace(protocol));
            }
            names.insert(get(&row, 0)?);
        }
        mirrors = Some(names);
    }
    session.done();
    Ok(Standing { mirrors, tables })
}

/// See `Remote::describe`.
pub async fn describe(remote: &PgRemote) -> Result<(Vec<Table>, i64)> {
    let session = remote.session().await?;
    check_server(&session).await?;
    find(&session, &remote.schema).await?;
    let s = Statement::fixed(format!(
        "select protocol, user_version from {}.tidewater_workspace",
        ident(&remote.schema)
    ));
    let rows = session.query(&s, "reading the workspace").await?;
    let row = rows
        .first()
        .ok_or_else(|| no_answer("reading the workspace"))?;
    let (protocol, user_version): (i32, i64) = (get(row, 0)?, get(row, 1)?);
    if protocol > PROTOCOL {
        return Err(newer_workspace(protocol));
    }
    let s = Statement::fixed(format!(
        "select name, spec from {}.tidewater_tables order by id",
        ident(&remote.schema)
    ));
    let rows = session.query(&s, "reading the workspace's tables").await?;
    let mut tables = Vec::with_capacity(rows.len());
    for row in &rows {
        let (name, spec): (String, String) = (get(row, 0)?, get(row, 1)?);
        let table: Table = serde_json::from_str(&spec).map_err(|e| {
            Error::new(
                Code::RemoteNotUsable,
                format!("the description of a table in the workspace cannot be read: {e}"),
                "upgrade tidewater on this device",
            )
            .on_table(name)
        })?;
        tables.push(table);
    }
    session.done();
    Ok((tables, user_version))
}

#[cfg(test)]
mod tests {
    use super::MIGRATIONS;
    use crate::remote::WORKSPACE_FORM;

    #[test]
    fn the_form_of_a_workspace_is_the_number_of_its_last_migration() {
        assert_eq!(i64::try_from(MIGRATIONS.len()), Ok(WORKSPACE_FORM));
    }
}
