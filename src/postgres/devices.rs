//! The workspace's devices as people see them: listed, retired, their logins ended.
//!
//! How far a device is behind is counted from the cursor that it told last; nothing is asked of it.
//! Never ends a login that another device uses too.

use super::PgRemote;
use super::decode::get;
use super::quote::{Statement, ident, qualified};
use super::session::Session;
use super::workspace::{find, no_answer};
use crate::error::{Code, Error, Result};
use crate::remote::Member;
use tokio_postgres::types::Type;

/// Unread rows are counted up to this for each table: more is only "far behind".
const COUNTED: i64 = 10_000;

/// See `Remote::devices`. Only reads, so that any member of the workspace may look.
pub async fn list(remote: &PgRemote, days: u32) -> Result<Vec<Member>> {
    const WHAT: &str = "listing the devices";
    let session = remote.session().await?;
    if !find(&session, &remote.schema).await? {
        return Err(Error::new(
            Code::RemoteNotUsable,
            "the workspace was made by an older version, which did not keep account of its devices",
            "run `tidewater now` with this version on any device",
        ));
    }
    let schema = &remote.schema;
    let s = ident(schema);
    let mut tables = Statement::default();
    let name = tables.text(schema);
    // Only those that are there: a mirror may have been dropped on the server.
    tables.sql = format!(
        "select t.name from {s}.tidewater_tables t where exists (select 1 from pg_class c \
         join pg_namespace n on n.oid = c.relnamespace where n.nspname = {name} \
         and c.relname = t.name) order by t.id"
    );
    let mut sources = vec![format!("{s}.tidewater_tombstones")];
    for row in session.query(&tables, WHAT).await? {
        sources.push(qualified(schema, get(&row, 0)?));
    }
    let mut st = Statement::default();
    let cap = st.bind(COUNTED, Type::INT8);
    let days = st.bind(i32::try_from(days).unwrap_or(i32::MAX), Type::INT4);
    let unread: Vec<String> = sources
        .iter()
        .map(|t| {
            format!(
                "(select count(*) from (select 1 from {t} m \
                 where m.tidewater_xid >= pg_snapshot_xmin(d.cursor) \
                 and not pg_visible_in_snapshot(m.tidewater_xid, d.cursor) \
                 and m.tidewater_device <> d.id limit {cap}) x)"
            )
        })
        .collect();
    st.sql = format!(
        "select d.id, d.name, d.version, case when d.state = 'active' and d.last_seen < \
         clock_timestamp() - make_interval(days => {days}) then 'expired' else d.state end, d.login, \
         (extract(epoch from d.created_at) * 1000)::bigint, \
         (extract(epoch from d.last_seen) * 1000)::bigint, \
         case when d.cursor is not null then {} end, \
         extract(epoch from clock_timestamp() - coalesce(d.cursor_at, d.created_at))::double precision \
         from {s}.tidewater_devices d order by d.created_at, d.id",
        unread.join(" + ")
    );
    let rows = session.query(&st, WHAT).await?;
    session.done();
    rows.iter()
        .map(|r| {
            let behind_rows: Option<i64> = get(r, 7)?;
            let since: f64 = get(r, 8)?;
            Ok(Member {
                id: get(r, 0)?,
                name: get(r, 1)?,
                version: get(r, 2)?,
                state: get(r, 3)?,
                login: get(r, 4)?,
                registered_at: get(r, 5)?,
                last_seen: get(r, 6)?,
                behind_rows,
                behind_seconds: behind_rows.map(|n| if n == 0 { 0.0 } else { since.max(0.0) }),
            })
        })
        .collect()
}

/// See `Remote::retire`.
pub async fn retire(remote: &PgRemote, id: &str) -> Result<()> {
    const WHAT: &str = "retiring a device";
    let session = remote.session().await?;
    let mut st = Statement::default();
    let id = st.text(id);
    st.sql = format!(
        "update {}.tidewater_devices set state = 'retired' where id = {id} and state <> 'revoked'",
        ident(&remote.schema)
    );
    session.pipeline(&remote.begin(), &[st], WHAT).await?;
    session.batch("commit", WHAT).await?;
    session.done();
    Ok(())
}

/// See `Remote::revoke`. The login ends in the transaction that says so; connections that are open are
/// ended after it.
pub async fn revoke(remote: &PgRemote, id: &str) -> Result<()> {
    let session = remote.session().await?;
    session
        .batch(&remote.begin_as_login(), "ending a login")
        .await?;
    let login = own_login(&session, &remote.schema, id).await?;
    session
        .batch(
            &format!("alter role {} nologin", ident(&login)),
            "ending a login",
        )
        .await
        .map_err(|e| needs_administrator(e, &login))?;
    let mut st = Statement::default();
    let me = st.text(id);
    st.sql = format!(
        "update {}.tidewater_devices set state = 'revoked' where id = {me}",
        ident(&remote.schema)
    );
    session.query(&st, "ending a login").await?;
    session.batch("commit", "ending a login").await?;
    let mut end = Statement::default();
    let role = end.text(&login);
    end.sql = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = {role}"
    );
    session
        .query(&end, "ending connections")
        .await
        .map_err(|e| {
            Error::new(
                e.code,
                format!(
                    "the login {} is ended, but its open connections are not: {}",
                    ident(&login),
                    e.message
                ),
                format!(
                    "have a superuser or a member of pg_signal_backend run `select \
                 pg_terminate_backend(pid) from pg_stat_activity where usename = '{}'`",
                    login.replace('\'', "''")
                ),
            )
        })?;
    session.done();
    Ok(())
}

/// The role that this device alone logs in with; an error with the remedy where there is none.
async fn own_login(session: &Session, schema: &str, id: &str) -> Result<String> {
    let mut st = Statement::default();
    let me = st.text(id);
    st.sql = format!(
        "select d.login, d.login = session_user, (select count(*) from {0}.tidewater_devices o \
         where o.id <> d.id and o.login = d.login and o.state not in ('retired', 'revoked')), \
         (select count(*) from pg_roles r where r.rolname = d.login) \
         from {0}.tidewater_devices d where d.id = {me}",
        ident(schema)
    );
    let rows = session.query(&st, "ending a login").await?;
    let row = rows.first().ok_or_else(|| no_answer("ending a login"))?;
    let (login, mine): (Option<String>, Option<bool>) = (get(row, 0)?, get(row, 1)?);
    let (others, roles): (i64, i64) = (get(row, 2)?, get(row, 3)?);
    let Some(login) = login else {
        return Err(Error::new(
            Code::Configuration,
            "it is not known with which role this device logs in: it registered with an older version",
            "end the role in psql with `alter role ... nologin`, or `devices retire` the device",
        ));
    };
    let role = ident(&login);
    if others > 0 {
        return Err(Error::new(
            Code::Configuration,
            format!(
                "the device shares its login {role} with {others} other {}, and ending it would end them all",
                if others == 1 { "device" } else { "devices" }
            ),
            format!(
                "give each device a login of its own with `tidewater provision`, or change the password \
                 of {role} and tell it to the others"
            ),
        ));
    }
    if mine == Some(true) {
        return Err(Error::new(
            Code::Configuration,
            format!("the device logs in as {role}, and so does this command"),
            "run it as an administrator: `--remote` names another user, PGPASSWORD holds the password",
        ));
    }
    if roles == 0 {
        return Err(Error::new(
            Code::Configuration,
            format!("the login {role} does not exist on this server any more"),
            "nothing can log in with it; `tidewater devices retire` takes the device off the list",
        ));
    }
    Ok(login)
}

fn needs_administrator(mut e: Error, login: &str) -> Error {
    if e.code == Code::MissingPrivilege {
        e.remedy = format!(
            "run it as a superuser, or as a role with CREATEROLE that may alter {}: `--remote` names \
             the user, PGPASSWORD holds the password",
            ident(login)
        );
    }
    e
}
