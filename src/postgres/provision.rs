//! A workspace made by an administrator: its owner role, and one login for each device (DESIGN section 7).
//!
//! Everything is one transaction and safe to run again: a role that is there keeps its password. What is
//! sent of a password is its SCRAM verifier, so it cannot be read in the server's log. A login of
//! another kind than a device's is never taken over.

use super::PgRemote;
use super::decode::get;
use super::quote::{Statement, ident, literal, qualified};
use super::session::Session;
use crate::config::Secret;
use crate::error::{Code, Error, Result};
use postgres_protocol::password::scram_sha_256;

const WHAT: &str = "making the workspace's roles";

/// The longest name of a role.
const NAME_MAX: usize = 63;

/// A login to be made.
pub struct Login {
    /// The device's name, as the administrator gave it.
    pub device: String,
    /// The role.
    pub role: String,
    /// Its password, where the role is new.
    pub password: Secret,
}

/// The owner's name of a workspace.
pub fn owner(schema: &str) -> Result<String> {
    named(&format!("{schema}_owner"))
}

/// The login's name of a device in a workspace.
pub fn login(schema: &str, device: &str) -> Result<String> {
    let plain: String = device
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => c,
            _ => '_',
        })
        .collect();
    named(&format!("{schema}_{plain}"))
}

fn named(role: &str) -> Result<String> {
    if role.len() <= NAME_MAX && !role.starts_with("pg_") {
        return Ok(role.to_owned());
    }
    Err(Error::new(
        Code::Configuration,
        format!("the role's name {role} is longer than {NAME_MAX} bytes, or begins with pg_"),
        "choose a shorter name of the schema or the device",
    ))
}

/// The statements for a server where nothing of it is there yet, without passwords.
pub fn statements(schema: &str, owner: &str, logins: &[String]) -> Vec<String> {
    let (s, o) = (ident(schema), ident(owner));
    let mut out = vec![
        format!("create role {o} nologin"),
        format!("grant {o} to current_user"),
        format!("create schema if not exists {s} authorization {o}"),
        format!("alter schema {s} owner to {o}"),
        format!("revoke all on schema {s} from public"),
    ];
    for l in logins {
        let l = ident(l);
        out.push(format!("create role {l} login"));
        out.push(format!("grant {o} to {l}"));
    }
    out
}

/// Makes what is missing; returns, for each login, whether it is new.
pub async fn provision(remote: &PgRemote, owner: &str, logins: &[Login]) -> Result<Vec<bool>> {
    let session = remote.session().await?;
    session.batch(&remote.begin_as_login(), WHAT).await?;
    let schema = &remote.schema;
    let (s, o) = (ident(schema), ident(owner));
    match role(&session, owner).await? {
        None => run(&session, &format!("create role {o} nologin")).await?,
        Some(true) => return Err(taken(owner, "can log in, so it cannot be the owner")),
        Some(false) => {}
    }
    run(&session, &format!("grant {o} to current_user")).await?;
    run(
        &session,
        &format!("create schema if not exists {s} authorization {o}"),
    )
    .await?;
    run(&session, &format!("alter schema {s} owner to {o}")).await?;
    run(&session, &format!("revoke all on schema {s} from public")).await?;
    adopt(&session, schema, &o).await?;
    let with = if version(&session).await? >= 160_000 {
        " with inherit true, set true"
    } else {
        ""
    };
    let mut fresh = Vec::with_capacity(logins.len());
    for l in logins {
        let new = match role(&session, &l.role).await? {
            None => {
                let verifier = scram_sha_256(l.password.expose().as_bytes());
                let sql = format!(
                    "create role {} login password {}",
                    ident(&l.role),
                    literal(&verifier)
                );
                run(&session, &sql).await?;
                true
            }
            Some(false) => return Err(taken(&l.role, "cannot log in")),
            Some(true) => false,
        };
        run(&session, &format!("grant {o} to {}{with}", ident(&l.role))).await?;
        fresh.push(new);
    }
    session.batch("commit", WHAT).await?;
    session.done();
    Ok(fresh)
}

async fn run(session: &Session, sql: &str) -> Result<()> {
    session.batch(sql, WHAT).await.map_err(|mut e| {
        if e.code == Code::MissingPrivilege {
            e.remedy =
                "run it as a superuser, or as a role with CREATEROLE that may create schemas: \
                        `--remote` names the user, PGPASSWORD holds the password"
                    .into();
        }
        e
    })
}

/// Whether a role is there, and whether it can log in.
async fn role(session: &Session, name: &str) -> Result<Option<bool>> {
    let mut st = Statement::default();
    let name = st.text(name);
    st.sql = format!("select rolcanlogin from pg_roles where rolname = {name}");
    let rows = session.query(&st, WHAT).await?;
    rows.first().map(|r| get(r, 0)).transpose()
}

async fn version(session: &Session) -> Result<i32> {
    let st = Statement::fixed("select current_setting('server_version_num')::integer");
    let rows = session.query(&st, WHAT).await?;
    rows.first().map_or(Ok(0), |r| get(r, 0))
}

/// What stands in the schema already belongs to the owner from now on.
async fn adopt(session: &Session, schema: &str, owner: &str) -> Result<()> {
    let mut tables = Statement::default();
    let name = tables.text(schema);
    // Indexes and the sequences of identity columns follow their tables.
    tables.sql = format!(
        "select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where n.nspname = {name} and c.relkind in ('r', 'p')"
    );
    for row in session.query(&tables, WHAT).await? {
        let table = qualified(schema, get(&row, 0)?);
        run(session, &format!("alter table {table} owner to {owner}")).await?;
    }
    let mut functions = Statement::default();
    let name = functions.text(schema);
    functions.sql = format!(
        "select p.oid::regprocedure::text from pg_proc p join pg_namespace n \
         on n.oid = p.pronamespace where n.nspname = {name} and p.proname like 'tidewater\\_%'"
    );
    for row in session.query(&functions, WHAT).await? {
        let function: String = get(&row, 0)?;
        run(
            session,
            &format!("alter function {function} owner to {owner}"),
        )
        .await?;
    }
    Ok(())
}

fn taken(role: &str, why: &str) -> Error {
    Error::new(
        Code::Configuration,
        format!("there is a role {} already, and it {why}", ident(role)),
        "choose another name of the schema or the device, or drop the role if nobody needs it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_named_after_workspace_and_device() {
        assert_eq!(owner("team").ok().as_deref(), Some("team_owner"));
        assert_eq!(
            login("team", "Anna's Laptop").ok().as_deref(),
            Some("team_anna_s_laptop")
        );
        assert!(login("team", &"x".repeat(70)).is_err());
    }
}
