//! What the triggers record, and what the app must never notice of them.

use super::*;
use crate::model::{Key, Table, Value};
use crate::sqlite::introspect::{TrackSettings, tables};
use crate::sqlite::value;
use rusqlite::Connection;

/// A file with tidewater's tables and a schema of the app, not yet captured.
pub(super) fn app(sql: &str) -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    for migration in [
        include_str!("../../../migrations/sqlite/0001_tidewater.sql"),
        include_str!("../../../migrations/sqlite/0002_operations.sql"),
        include_str!("../../../migrations/sqlite/0003_schemas.sql"),
    ] {
        conn.execute_batch(migration).unwrap();
    }
    conn.execute_batch(sql).unwrap();
    conn
}

pub(super) fn tracked(conn: &Connection) -> Vec<Table> {
    tables(conn, &TrackSettings::default()).unwrap().tables
}

pub(super) fn captured(sql: &str) -> Connection {
    let conn = app(sql);
    install(&conn, &tracked(&conn)).unwrap();
    conn
}

/// The log as `op key`, and forgets it.
pub(super) fn log(conn: &Connection) -> Vec<String> {
    let width = conn
        .prepare("select * from tidewater_log")
        .unwrap()
        .column_count()
        - 4;
    let out = conn
        .prepare("select * from tidewater_log order by id")
        .unwrap()
        .query_map([], |r| {
            let key: Key = value::key(r, 4, width)?;
            let key = key
                .0
                .into_iter()
                .filter(|v| !matches!(v, Value::Null))
                .collect();
            Ok(format!("{}{}", r.get::<_, String>(2)?, Key(key).encode()))
        })
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    conn.execute("delete from tidewater_log", []).unwrap();
    out
}

pub(super) fn run(conn: &Connection, sql: &str) -> Vec<String> {
    conn.execute_batch(sql).unwrap();
    log(conn)
}

#[test]
fn the_triggers_of_an_ordinary_table_read_exactly_so() {
    let conn = app("create table note (id text primary key, body)");
    let sql: Vec<String> = trigger_sql(&tracked(&conn)[0], false)
        .into_iter()
        .map(|t| t.sql)
        .collect();
    const AT: &str = "cast((julianday('now') - 2440587.5) * 86400000 + 0.5 as integer)";
    const GUARD: &str = "when (select v from tidewater_guard where id = 1) is not 1";
    assert_eq!(
        sql,
        [
            format!(
                "create trigger \"tidewater_ai_note\" after insert on \"note\"\n{GUARD}\nbegin\n  insert into tidewater_log (tbl, op, at, k1) values ('note', 'I', {AT}, new.\"id\");\nend"
            ),
            format!(
                "create trigger \"tidewater_au_note\" after update on \"note\"\n{GUARD}\nbegin\n  insert into tidewater_log (tbl, op, at, k1) select 'note', 'D', {AT}, old.\"id\" where old.\"id\" is not new.\"id\" collate binary or typeof(old.\"id\") <> typeof(new.\"id\");\n  insert into tidewater_log (tbl, op, at, k1) values ('note', 'U', {AT}, new.\"id\");\nend"
            ),
            format!(
                "create trigger \"tidewater_ad_note\" after delete on \"note\"\n{GUARD}\nbegin\n  insert into tidewater_log (tbl, op, at, k1) values ('note', 'D', {AT}, old.\"id\");\nend"
            ),
        ]
    );
}

#[test]
fn the_triggers_of_a_hostile_table_read_exactly_so() {
    let conn = app(
        "create table \"a'b\"\"; --\" (\"k \"\"1\" integer, k2 text collate nocase, u int not null default 3, gone,
           primary key (\"k \"\"1\", k2)) without rowid;
         create unique index \"u'x\" on \"a'b\"\"; --\" (u) where gone is null",
    );
    let all = trigger_sql(&tracked(&conn)[0], false);
    let of = |tag: &str| {
        all.iter()
            .find(|t| t.name == format!("tidewater_{tag}_a'b\"; --"))
            .map(|t| t.sql.clone())
            .unwrap()
    };
    const AT: &str = "cast((julianday('now') - 2440587.5) * 86400000 + 0.5 as integer)";
    const GUARD: &str = "when (select v from tidewater_guard where id = 1) is not 1";
    let exact = "e.\"k \"\"1\" = c.k1 collate binary and typeof(e.\"k \"\"1\") = typeof(c.k1) and e.\"k2\" = c.k2 collate \"NOCASE\" and e.\"k2\" = c.k2 collate binary and typeof(e.\"k2\") = typeof(c.k2)";
    let other = "e.\"k \"\"1\" is not new.\"k \"\"1\" collate binary or typeof(e.\"k \"\"1\") <> typeof(new.\"k \"\"1\") or e.\"k2\" is not new.\"k2\" collate binary or typeof(e.\"k2\") <> typeof(new.\"k2\")";
    let note = "insert into tidewater_candidate (tbl, k1, k2) select 'a''b\"; --', e.\"k \"\"1\", e.\"k2\" from \"a'b\"\"; --\" as e where";
    assert_eq!(
        of("bi"),
        format!(
            "create trigger \"tidewater_bi_a'b\"\"; --\" before insert on \"a'b\"\"; --\"\n{GUARD}\nbegin\n  \
             {note} e.\"k \"\"1\" = new.\"k \"\"1\" collate \"BINARY\" and e.\"k2\" = new.\"k2\" collate \"NOCASE\" and ({other});\n  \
             {note} e.\"u\" = new.\"u\" collate \"BINARY\" and (gone is null) and ({other});\n  \
             {note} (new.\"u\" is null) and (gone is null) and ({other});\nend"
        )
    );
    assert_eq!(
        of("ai"),
        format!(
            "create trigger \"tidewater_ai_a'b\"\"; --\" after insert on \"a'b\"\"; --\"\n{GUARD}\nbegin\n  \
             insert into tidewater_log (tbl, op, at, k1, k2) select c.tbl, 'D', {AT}, c.k1, c.k2 from tidewater_candidate as c where c.tbl = 'a''b\"; --' and not exists (select 1 from \"a'b\"\"; --\" as e where {exact});\n  \
             delete from tidewater_candidate where tbl = 'a''b\"; --';\n  \
             insert into tidewater_log (tbl, op, at, k1, k2) values ('a''b\"; --', 'I', {AT}, new.\"k \"\"1\", new.\"k2\");\nend"
        )
    );
    let conn = conn;
    install(&conn, &tracked(&conn)).unwrap();
    assert_eq!(
        run(
            &conn,
            "insert into \"a'b\"\"; --\" values (1, 'x', 3, null); replace into \"a'b\"\"; --\" values (2, 'y', null, null)"
        ),
        ["I[1,\"x\"]", "D[1,\"x\"]", "I[2,\"y\"]"]
    );
}

#[test]
fn keys_keep_their_type_and_a_changed_key_is_a_delete_and_an_upsert() {
    let conn = captured(
        "create table i (id integer primary key, v);
         create table t (id text primary key, v);
         create table b (id blob primary key, v);
         create table x (id primary key, v);
         create table w (a int, b text, v, primary key (a, b)) without rowid;
         create table n (id text primary key collate nocase, v);",
    );
    for (sql, want) in [
        ("insert into i (v) values (1), (2)", vec!["I[1]", "I[2]"]),
        ("update i set v = 3 where id = 2", vec!["U[2]"]),
        ("update i set id = 9 where id = 2", vec!["D[2]", "U[9]"]),
        ("delete from i", vec!["D[1]", "D[9]"]),
        ("insert into t values (5, 0)", vec!["I[\"5\"]"]),
        (
            "insert into b values (x'00ff', 0), (1, 0)",
            vec!["I[{\"hex\":\"00ff\"}]", "I[1]"],
        ),
        (
            "update b set id = 1.0 where id = 1",
            vec!["D[1]", "U[{\"real\":\"3ff0000000000000\"}]"],
        ),
        (
            "insert into x values (1, 0), ('1', 0), (x'31', 0)",
            vec!["I[1]", "I[\"1\"]", "I[{\"hex\":\"31\"}]"],
        ),
        (
            "replace into x values (1.0, 0)",
            vec!["D[1]", "I[{\"real\":\"3ff0000000000000\"}]"],
        ),
        ("insert into w values (1, 'a', 0)", vec!["I[1,\"a\"]"]),
        ("update w set b = 'b'", vec!["D[1,\"a\"]", "U[1,\"b\"]"]),
        ("insert into n values ('a', 0)", vec!["I[\"a\"]"]),
        ("update n set id = 'A'", vec!["D[\"a\"]", "U[\"A\"]"]),
        (
            "insert or replace into n values ('a', 1)",
            vec!["D[\"A\"]", "I[\"a\"]"],
        ),
        // A key that is NULL is recorded as such; nothing fails.
        (
            "insert into t values (null, 0), (null, 1)",
            vec!["I[]", "I[]"],
        ),
    ] {
        assert_eq!(run(&conn, sql), want, "{sql}");
    }
}

#[test]
fn times_are_milliseconds_of_now() {
    let conn = captured("create table t (id integer primary key)");
    conn.execute_batch("insert into t values (1)").unwrap();
    let at: i64 = conn
        .query_row("select at from tidewater_log", [], |r| r.get(0))
        .unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as i64;
    assert!((now - at).abs() < 2_000, "{at} against {now}");
}

#[test]
fn the_guard_silences_and_its_absence_captures() {
    let conn = captured("create table t (id integer primary key, u unique)");
    let guarded =
        "update tidewater_guard set v = 1; insert into t values (1, 1); update t set u = 2;
                   replace into t values (2, 2); delete from t; update tidewater_guard set v = 0";
    assert_eq!(run(&conn, guarded), Vec::<String>::new());
    let left: i64 = conn
        .query_row("select count(*) from tidewater_candidate", [], |r| r.get(0))
        .unwrap();
    assert_eq!(left, 0);
    assert_eq!(run(&conn, "insert into t values (1, 1)"), ["I[1]"]);
    assert_eq!(
        run(&conn, "update tidewater_guard set v = null; delete from t"),
        ["D[1]"]
    );
    assert_eq!(
        run(
            &conn,
            "delete from tidewater_guard; insert into t values (1, 1)"
        ),
        ["I[1]"]
    );
}

#[test]
fn no_conflict_clause_of_the_app_suppresses_capture() {
    for clause in ["ignore", "replace", "fail", "abort", "rollback"] {
        let conn = captured(
            "create table t (id integer primary key, u unique);
             create table w (id text primary key) without rowid;",
        );
        let sql = format!(
            "insert or {clause} into t values (1, 1), (2, 2); update or {clause} t set u = u + 5"
        );
        assert_eq!(
            run(&conn, &sql),
            ["I[1]", "I[2]", "U[1]", "U[2]"],
            "{clause}"
        );
        assert_eq!(
            run(&conn, &format!("insert or {clause} into w values ('a')")),
            ["I[\"a\"]"]
        );
        // The log's keys are reused after OR FAIL; what matters is that no entry goes missing.
        let stopped = conn.execute_batch(&format!(
            "insert or {clause} into t values (3, 3), (4, 6), (5, 5)"
        ));
        let want: &[&str] = match clause {
            "ignore" => &["I[3]", "I[5]"],
            "replace" => &["I[3]", "D[1]", "I[4]", "I[5]"],
            "fail" => &["I[3]"],
            _ => &[],
        };
        assert_eq!(log(&conn), want, "{clause}");
        assert_eq!(stopped.is_ok(), ["ignore", "replace"].contains(&clause));
    }
}

#[test]
fn rows_evicted_by_replace_are_recorded() {
    let conn = captured(
        "create table t (id integer primary key, u unique, d int not null default 7 unique);
         insert into t values (-1, 'a', 1), (1, 'b', 2), (2, 'c', 7)",
    );
    log(&conn);
    // Row -1 has the key that SQLite shows before it assigns one.
    assert_eq!(
        run(&conn, "replace into t (u, d) values ('a', 3)"),
        ["D[-1]", "I[3]"]
    );
    // NULL becomes the default, which is that of row 2.
    assert_eq!(
        run(&conn, "insert or replace into t values (9, 'z', null)"),
        ["D[2]", "I[9]"]
    );
    assert_eq!(
        run(&conn, "update or replace t set u = 'b' where id = 9"),
        ["D[1]", "U[9]"]
    );
    assert_eq!(
        run(
            &conn,
            "insert into t values (10, 'b', 50) on conflict (u) do update set d = 60"
        ),
        ["U[9]"]
    );
}

#[test]
fn a_partial_index_is_used_to_find_its_rows() {
    let conn = captured(
        "create table t (id integer primary key, u, gone);
         create unique index live on t (u) where gone is null",
    );
    let sql = trigger_sql(&tracked(&conn)[0], false)
        .into_iter()
        .find(|t| t.name == "tidewater_bi_t")
        .unwrap()
        .sql;
    let select = sql
        .split("select 't', e.\"id\"")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    let plan: String = conn
        .query_row(
            &format!(
                "explain query plan select e.\"id\"{}",
                select
                    .replace("new.\"u\"", "?1")
                    .replace("new.\"id\"", "?2")
            ),
            [1, 2],
            |r| r.get(3),
        )
        .unwrap();
    assert!(plan.contains("USING INDEX live"), "{plan}");
    assert_eq!(
        run(
            &conn,
            "insert into t values (1, 'a', 'x'), (2, 'a', null); replace into t values (3, 'a', null)"
        ),
        ["I[1]", "I[2]", "D[2]", "I[3]"]
    );
}

#[test]
fn rows_that_stand_there_are_recorded_once_with_their_types() {
    let conn = captured("create table x (id primary key, v)");
    conn.execute_batch("insert into x values (1, 0), ('1', 0), (x'31', 0), (1.5, 0)")
        .unwrap();
    log(&conn);
    assert_eq!(snapshot_rows(&conn, &tracked(&conn)[0]).unwrap(), 4);
    let zero: i64 = conn
        .query_row("select sum(at) from tidewater_log", [], |r| r.get(0))
        .unwrap();
    assert_eq!(zero, 0);
    let mut found = log(&conn);
    found.sort();
    assert_eq!(
        found,
        [
            "B[\"1\"]",
            "B[1]",
            "B[{\"hex\":\"31\"}]",
            "B[{\"real\":\"3ff8000000000000\"}]"
        ]
    );
}

#[test]
fn candidates_are_bounded_and_pruned() {
    let conn = captured(
        "create table t (id integer primary key, u unique);
         create trigger app before insert on t begin delete from t where id = 0; end;
         insert into t values (1, 'a')",
    );
    install(&conn, &tracked(&conn)).unwrap();
    for i in 10..100 {
        conn.execute("insert or ignore into t values (?1, 'a')", [i])
            .unwrap();
    }
    assert_eq!(prune_candidates(&conn).unwrap(), 1);
    assert_eq!(prune_candidates(&conn).unwrap(), 0);
}

#[test]
fn only_what_runs_before_or_amid_an_eviction_counts_as_nested() {
    let nested = |sql: &str| {
        let conn = app(sql);
        super::nesting::nested(&conn, &tracked(&conn))
            .unwrap()
            .into_iter()
            .collect::<Vec<_>>()
    };
    let t = "create table t (id integer primary key, u unique);
             create table o (id integer primary key, p references t(id) on delete cascade);";
    for (sql, want) in [
        ("", vec![]),
        // The usual stamp of the time, and a search index.
        (
            "create trigger s after update on t begin update t set u = 1 where id = new.id; end",
            vec![],
        ),
        (
            "create virtual table t_fts using fts5(u); create trigger s before update on t begin insert into t_fts (u) values ('t'); end",
            vec!["t"],
        ),
        (
            "create virtual table t_fts using fts5(u); create trigger s before update on t begin insert into t_fts (u) values (new.u); end",
            vec![],
        ),
        (
            "create trigger s update on \"T\" begin delete from [t]; end",
            vec!["t"],
        ),
        (
            "create trigger s after delete on o begin update T set u = 1; end",
            vec!["t"],
        ),
        (
            "create table s (id integer primary key, up references s(id))",
            vec!["s"],
        ),
        (
            "create view v as select 1; create trigger a before insert on t begin insert into v values (1); end; create trigger b instead of insert on v begin insert into t values (1, 1); end",
            vec!["t"],
        ),
    ] {
        assert_eq!(nested(&format!("{t}{sql}")), want, "{sql}");
    }
}
