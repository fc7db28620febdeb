//! Which tables take a ledger, and what it tells.

use super::tests::{app, captured, run, tracked};
use super::{install, ledger};
use crate::model::{Key, Value};
use crate::sqlite::apply::Slicing;
use crate::sqlite::barred::Barred;
use crate::sqlite::install::Slice;
use crate::sqlite::local::{schema_version, store_tables};
use crate::sqlite::state;
use std::time::Duration;

#[test]
fn what_takes_a_ledger_is_named_with_the_reason() {
    let wanted = |sql: &str| {
        let conn = app(sql);
        ledger::wanted(&conn, &tracked(&conn)).unwrap()
    };
    let t = "create table t (id integer primary key, a, b, g as (a + 1));";
    for (sql, why) in [
        (
            "create unique index p on t (a); create index x on t (lower(a))",
            None,
        ),
        (
            "create unique index e on t (a, lower(b))",
            Some("its unique index \"e\" is on an expression"),
        ),
        (
            "create unique index g on t (a, g)",
            Some("its unique index \"g\" is on a generated column"),
        ),
        (
            "create trigger x before update of a on t begin update T set b = 1; end",
            Some("a BEFORE UPDATE trigger of the app writes it"),
        ),
        (
            "create trigger x before insert on t begin update t set b = 1; end",
            None,
        ),
        (
            "create trigger x after update on t begin update t set b = 1; end",
            None,
        ),
    ] {
        let found = wanted(&format!("{t}{sql}"));
        assert_eq!(found.get("t").map(String::as_str), why, "{sql}");
    }
}

#[test]
fn a_ledger_names_exactly_the_rows_that_went_unseen() {
    let conn = captured(
        "create table t (id integer, n text collate nocase, a text, primary key (id, n));
         create unique index e on t (lower(a));
         insert into t values (1, 'x', 'a'), (1.5, 'x', 'b'), (null, 'x', 'c'), (2, 'Y', 'd')",
    );
    let tables = tracked(&conn);
    assert!(
        ledger::arrange(&conn, &tables, &[], &[])
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        ledger::kept(&conn).unwrap().into_iter().collect::<Vec<_>>(),
        ["t"]
    );
    let entered = || {
        let sql = "select count(*) from tidewater_ledger";
        let there: i64 = conn.query_row(sql, [], |r| r.get(0)).unwrap();
        assert_eq!(state::number(&conn, "ledger_keys t").unwrap(), there);
        there
    };
    assert_eq!(entered(), 3);
    assert!(ledger::gone(&conn, &tables[0]).unwrap().is_empty());
    // The triggers say nothing of the rows that had the values.
    assert_eq!(
        run(
            &conn,
            "replace into t values (3, 'z', 'A'), (4, 'z', 'B'), (5, 'z', 'C')"
        ),
        ["I[3,\"z\"]", "I[4,\"z\"]", "I[5,\"z\"]"]
    );
    for id in 3..=5 {
        let key = Key(vec![Value::Int(id), Value::Text("z".into())]);
        ledger::look(&conn, &tables[0], &key).unwrap();
    }
    let gone: Vec<String> = ledger::gone(&conn, &tables[0])
        .unwrap()
        .iter()
        .map(Key::encode)
        .collect();
    assert_eq!(
        gone,
        ["[1,\"x\"]", "[{\"real\":\"3ff8000000000000\"},\"x\"]"]
    );
    assert_eq!(entered(), 4);
    assert!(ledger::gone(&conn, &tables[0]).unwrap().is_empty());
    // A table that needs it no more has none.
    conn.execute_batch("drop index e").unwrap();
    let tables = tracked(&conn);
    ledger::arrange(&conn, &tables, &[], &[]).unwrap();
    assert_eq!((entered(), ledger::kept(&conn).unwrap().len()), (0, 0));
}

/// Between two claims rows arrive: one that the app has evicted must not come back by that.
#[test]
fn a_row_that_was_evicted_unseen_is_dirty_before_it_is_claimed() {
    let conn = app("create table t (id integer primary key, a text);
         create unique index e on t (lower(a));
         insert into t values (1, 'a'), (2, 'b')");
    let tables = tracked(&conn);
    install(&conn, &tables).unwrap();
    store_tables(&conn, &tables).unwrap();
    ledger::arrange(&conn, &tables, &[], &[]).unwrap();
    state::set_number(&conn, "schema_version", schema_version(&conn).unwrap()).unwrap();
    conn.execute_batch("replace into t values (3, 'A')")
        .unwrap();
    let slicing = Slicing {
        time: Duration::MAX,
        rows: 10,
        history: true,
        now_ms: 1_741_000_000_000,
    };
    let barred = Barred::default();
    let slice = Slice::begin(&conn, &barred, slicing, None)
        .unwrap()
        .unwrap();
    let dirty = |id| slice.is_dirty("t", &Key(vec![Value::Int(id)])).unwrap();
    assert_eq!([dirty(1), dirty(2), dirty(3)], [true, false, true]);
    slice.end().unwrap();
    // And its delete is logged now.
    assert_eq!(super::tests::log(&conn), ["I[3]", "D[1]"]);
}
