//! What the app must never notice, and what its migrations do to capture.

use super::tests::{app, captured, run, tracked};
use super::*;
use crate::model::Table;
use rusqlite::Connection;

#[test]
fn the_app_notices_nothing() {
    for sql in [
        "insert into t (u) values ('q')",
        "insert or replace into t values (5, 'a', 1)",
        "update t set v = 2",
        "delete from t where id = 1",
        "insert into t values (50, 'a', 1) on conflict (u) do update set v = 9",
        "insert or ignore into t values (60, 'a', 1)",
    ] {
        let state = |capture: bool| {
            let conn = app("create table t (id integer primary key, u unique, v);
                insert into t values (1, 'a', 0), (2, 'b', 0), (3, 'c', 0)");
            if capture {
                install(&conn, &tracked(&conn)).unwrap();
            }
            let changed = conn.execute(sql, []).unwrap();
            (changed, conn.last_insert_rowid(), conn.changes())
        };
        assert_eq!(state(true), state(false), "{sql}");
    }
}

#[test]
fn an_untrusted_schema_captures_too() {
    let conn = captured("create table t (id text primary key collate nocase, u unique)");
    conn.execute_batch("pragma trusted_schema = off").unwrap();
    assert_eq!(
        run(
            &conn,
            "insert into t values ('a', 1); update t set u = 2; replace into t values ('b', 2); delete from t"
        ),
        ["I[\"a\"]", "U[\"a\"]", "D[\"a\"]", "I[\"b\"]", "D[\"b\"]"]
    );
}

#[test]
fn the_app_can_still_change_its_tables() {
    let conn = captured(
        "create table t (id integer primary key, u unique, v, w);
         create table n (id text primary key, a, b);",
    );
    conn.execute_batch(
        "alter table t drop column v; alter table n drop column a; alter table t add column z;
         alter table t rename column u to uu",
    )
    .unwrap();
    assert_eq!(
        run(
            &conn,
            "insert into t values (1, 1, 1, 1); replace into t values (2, 1, 1, 1)"
        ),
        ["I[1]", "D[1]", "I[2]"]
    );
    assert_eq!(
        verify(&conn, &tracked(&conn)).unwrap(),
        Vec::<String>::new()
    );
    conn.execute_batch("alter table n rename to m").unwrap();
    assert_eq!(verify(&conn, &tracked(&conn)).unwrap(), ["m"]);
    assert_eq!(install(&conn, &tracked(&conn)).unwrap().changed, ["m"]);
    let stale: i64 = conn
        .query_row(
            "select count(*) from sqlite_schema where name glob 'tidewater_??_n'",
            [],
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!(stale, 0);
    // A migration that rebuilds the table takes the triggers with it.
    conn.execute_batch(
        "create table m2 (id text primary key, b); drop table m; alter table m2 rename to m",
    )
    .unwrap();
    assert_eq!(verify(&conn, &tracked(&conn)).unwrap(), ["m"]);
    assert_eq!(install(&conn, &tracked(&conn)).unwrap().changed, ["m"]);
    assert_eq!(run(&conn, "insert into m values ('a', 1)"), ["I[\"a\"]"]);
}

/// What docs/orms.md says of a migration that drops a unique column.
#[test]
fn a_column_of_a_unique_index_can_be_dropped_behind_our_triggers() {
    let conn = captured(
        "create table users (id text primary key, email, v); create unique index u on users (email)",
    );
    let drops = "drop index u; alter table users drop column email";
    let refused = conn.execute_batch(&format!("begin; {drops}")).unwrap_err();
    assert!(
        refused.to_string().contains("error in trigger tidewater_b"),
        "{refused}"
    );
    conn.execute_batch("rollback").unwrap();
    conn.execute_batch(&format!(
        "begin; drop trigger if exists tidewater_bi_users; drop trigger if exists tidewater_bu_users; {drops}; commit"
    ))
    .unwrap();
    assert_eq!(verify(&conn, &tracked(&conn)).unwrap(), ["users"]);
    assert_eq!(install(&conn, &tracked(&conn)).unwrap().changed, ["users"]);
    assert_eq!(
        run(&conn, "insert into users values ('a', 1)"),
        ["I[\"a\"]"]
    );
}

#[test]
fn install_is_idempotent_follows_the_tables_and_leaves_nothing_behind() {
    let conn = app("create table t (a, b, c, primary key (a, b, c));
         create table T2 (id text primary key);
         create trigger tidewater_log_audit after insert on t begin select 1; end;
         create trigger mine after insert on t begin select 1; end;");
    let all = tracked(&conn);
    assert!(all.iter().any(|t| t.name == "t" && t.has_app_triggers));
    let changed = install(&conn, &all).unwrap().changed;
    assert_eq!(changed, ["T2", "t"]);
    let version = |c: &Connection| {
        c.query_row("pragma schema_version", [], |r| r.get::<_, i64>(0))
            .unwrap()
    };
    let before = version(&conn);
    assert_eq!(install(&conn, &all).unwrap(), Installed::default());
    assert_eq!(version(&conn), before);
    conn.execute_batch("drop trigger tidewater_au_t").unwrap();
    assert_eq!(verify(&conn, &all).unwrap(), ["t"]);
    // A table that is no longer tracked loses its triggers and is not reported.
    let only: Vec<Table> = all.iter().filter(|t| t.name == "t").cloned().collect();
    assert_eq!(install(&conn, &only).unwrap().changed, ["t"]);
    assert_eq!(
        run(
            &conn,
            "insert into T2 values ('x'); insert into t values (1, 2, 3)"
        ),
        ["I[1,2,3]"]
    );
    remove(&conn).unwrap();
    let left: Vec<String> = conn
        .prepare("select name from sqlite_schema where type = 'trigger' order by name")
        .unwrap()
        .query_map([], |r| r.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(left, ["mine", "tidewater_log_audit"]);
}
