//! The workspace met again after it went back in time: whether it is the same one, its new instance id,
//! and its rows stamped anew where another server hands out the transaction ids.
//!
//! Runs under the workspace's advisory lock and in one transaction, so that of several devices one does
//! it and no device reads a row between old and new stamps. Never touches the content of a row, nor a
//! workspace that holds rows and has no instance id in common with what the device knows.

use super::PgRemote;
use super::decode::get;
use super::head;
use super::ledger::went_back;
use super::quote::{Statement, ident, qualified};
use super::session::Session;
use super::workspace;
use crate::error::Result;
use crate::remote::{Hello, Identity};
use std::time::Duration;
use tokio_postgres::types::Type;

const WHAT: &str = "meeting the workspace again";

/// How long the stamping of every row may take.
const STAMPING: Duration = Duration::from_secs(3_600);

/// See `Remote::rejoin`.
pub async fn rejoin(
    remote: &PgRemote,
    hello: &Hello,
    known: &Identity,
    former: &[String],
) -> Result<bool> {
    let mut session = remote.session().await?;
    workspace::check_server(&session).await?;
    session
        .pipeline(&remote.begin(), &[workspace::lock(&remote.schema)], WHAT)
        .await?;
    workspace::migrate(&session, &remote.schema, hello).await?;
    let schema = ident(&remote.schema);
    let mut s = Statement::default();
    let device = s.text(&hello.device);
    s.sql = format!(
        "select w.instance, w.instances, w.home, {home}, w.tableoid::bigint, \
         exists (select 1 from {schema}.tidewater_devices d where d.id = {device}), \
         (select system_identifier::text from pg_control_system()), \
         (select oid::bigint from pg_database where datname = current_database()) \
         from {schema}.tidewater_workspace w",
        home = head::home("w.tableoid")
    );
    let rows = session.query(&s, WHAT).await?;
    let row = rows.first().ok_or_else(|| workspace::no_answer(WHAT))?;
    let (instance, instances): (String, Vec<String>) = (get(row, 0)?, get(row, 1)?);
    let (home, here): (Option<String>, String) = (get(row, 2)?, get(row, 3)?);
    let registered: bool = get(row, 5)?;
    let moved = match home {
        Some(home) => home != here,
        // Made by an older program, which did not say where: the device knows.
        None => {
            get::<i64>(row, 4)? != i64::from(known.table_oid)
                || get::<String>(row, 6)? != known.system_identifier
                || get::<i64>(row, 7)? != i64::from(known.database_oid)
        }
    };
    let is_ours = |i: &String| *i == known.instance || former.contains(i);
    let related = registered || is_ours(&instance) || instances.iter().any(is_ours);
    let mirrors = mirrors(&session, &remote.schema).await?;
    if !related && holds_anything(&session, &remote.schema, &mirrors).await? {
        return Err(went_back(
            "it is another workspace, which holds rows and never was the one that this device knows",
        ));
    }
    if moved {
        session.take_time(STAMPING);
        stamp(&session, &remote.schema, &mirrors).await?;
    }
    if moved || !instances.contains(&known.instance) {
        let mut s = Statement::default();
        let mut before = former.to_vec();
        before.push(known.instance.clone());
        let before = s.bind(before, Type::TEXT_ARRAY);
        s.sql = format!(
            "update {schema}.tidewater_workspace w set instance = gen_random_uuid()::text, \
             home = {home}, instances = (select array_agg(distinct i) \
             from unnest(w.instances || w.instance || {before}) i)",
            home = head::home("w.tableoid")
        );
        session.query(&s, WHAT).await?;
    }
    crate::failpoint::hit("rejoin_before_commit");
    session.batch("commit", WHAT).await?;
    session.done();
    Ok(registered)
}

/// The mirrors of the workspace that are there.
async fn mirrors(session: &Session, schema: &str) -> Result<Vec<String>> {
    let mut s = Statement::default();
    let name = s.text(schema);
    s.sql = format!(
        "select t.name from {}.tidewater_tables t join pg_class c on c.relname = t.name \
         join pg_namespace n on n.oid = c.relnamespace and n.nspname = {name} \
         where exists (select 1 from pg_attribute a where a.attrelid = c.oid \
         and a.attname = 'tidewater_xid' and not a.attisdropped) order by t.id",
        ident(schema)
    );
    let rows = session.query(&s, WHAT).await?;
    rows.iter().map(|r| get(r, 0)).collect()
}

async fn holds_anything(session: &Session, schema: &str, mirrors: &[String]) -> Result<bool> {
    let tombstones = "tidewater_tombstones".to_owned();
    for table in mirrors.iter().chain([&tombstones]) {
        let s = Statement::fixed(format!(
            "select exists (select 1 from {})",
            qualified(schema, table)
        ));
        let rows = session.query(&s, WHAT).await?;
        if rows.first().map(|r| get(r, 0)).transpose()? == Some(true) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Gives every row, tombstone and conflict this transaction's id. Nobody's trigger sees it: the rows
/// themselves do not change. What devices had read by the old ids says nothing any more.
async fn stamp(session: &Session, schema: &str, mirrors: &[String]) -> Result<()> {
    session
        .batch("set local statement_timeout = 0", WHAT)
        .await?;
    for table in mirrors {
        let target = qualified(schema, table);
        let mut s = Statement::default();
        let (namespace, name) = (s.text(schema), s.text(table));
        // tgtype: 16 update.
        s.sql = format!(
            "select t.tgname::text, t.tgenabled::text from pg_trigger t \
             join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace \
             where n.nspname = {namespace} and c.relname = {name} and not t.tgisinternal \
             and t.tgenabled <> 'D' and t.tgtype & 16 <> 0"
        );
        let mut back = Vec::new();
        for r in session.query(&s, WHAT).await? {
            let (trigger, enabled): (String, String) = (get(&r, 0)?, get(&r, 1)?);
            let how = match enabled.as_str() {
                "A" => "enable always",
                "R" => "enable replica",
                _ => "enable",
            };
            let trigger = ident(&trigger);
            session
                .batch(
                    &format!("alter table {target} disable trigger {trigger}"),
                    WHAT,
                )
                .await?;
            back.push(format!("alter table {target} {how} trigger {trigger}"));
        }
        session
            .batch(
                &format!("update {target} set tidewater_xid = pg_current_xact_id()"),
                WHAT,
            )
            .await?;
        for sql in back {
            session.batch(&sql, WHAT).await?;
        }
    }
    let s = ident(schema);
    session
        .batch(
            &format!(
                "update {s}.tidewater_tombstones set tidewater_xid = pg_current_xact_id(); \
                 update {s}.tidewater_conflicts set tidewater_xid = pg_current_xact_id(); \
                 update {s}.tidewater_devices set cursor = '1:1:' where cursor is not null; \
                 update {s}.tidewater_workspace set gc_xid = '0'"
            ),
            WHAT,
        )
        .await
}
