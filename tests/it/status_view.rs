//! The view `tidewater_status` in the app's own file: what it says, at every stage and in any SQLite.

use crate::support::cli::{Device, Running};
use crate::support::fleet::{Fleet, ITEMS};
use crate::support::proxy::{Mode, Proxy};
use crate::support::wait::PATIENCE;

/// The view as an app reads it: types beside the values, nothing of the schema trusted.
#[track_caller]
fn view(device: &Device) -> Vec<Vec<String>> {
    device.rows(
        "select table_name, pk, typeof(pk), status from tidewater_status order by table_name, pk",
    )
}

#[track_caller]
fn plan(device: &Device, query: &str) -> String {
    let rows = device.rows(&format!("explain query plan {query}"));
    let lines: Vec<&str> = rows
        .iter()
        .filter_map(|r| r.last())
        .map(String::as_str)
        .collect();
    lines.join("\n")
}

#[test]
fn a_row_is_pending_failed_in_conflict_and_then_gone_from_the_view() {
    let fleet = Fleet::new(ITEMS);
    let proxy = Proxy::shared_server();
    let a = fleet.device_through(&proxy, "a", "");
    let b = fleet.device("b");
    a.sql("insert into items values ('x', 'first', 1), ('7', 'digits', 2)");
    // Not claimed yet, and no service anywhere.
    let waiting = [
        ["items", "7", "text", "pending"],
        ["items", "x", "text", "pending"],
    ];
    assert_eq!(view(&a), waiting);
    let unclaimed =
        a.rows("select change_key, error, changed_at from tidewater_status where pk = 'x'");
    assert_eq!(unclaimed[0][..2], ["NULL", "NULL"]);
    let at: tidewater::report::Time =
        serde_json::from_value(unclaimed[0][2].clone().into()).expect("a time of RFC 3339");
    let age = tidewater::report::Time::now().ms() - at.ms();
    assert!((0..600_000).contains(&age), "{unclaimed:?}");

    // Claimed, and not to be sent; edited again, it is still one row.
    proxy.set(Mode::Refuse);
    a.tw(&["now"]).expect_code(3);
    a.sql("update items set n = 5 where id = 'x'");
    assert_eq!(view(&a), waiting);
    let claimed = a.rows("select change_key from tidewater_status where pk = 'x'");
    assert_eq!(claimed[0][0].len(), 26, "{claimed:?}");

    proxy.set(Mode::Pass);
    a.tw(&["now"]).ok();
    assert!(view(&a).is_empty(), "{:?}", view(&a));

    // Refused by the server.
    fleet
        .schema
        .exec("alter table items add constraint sane check (n <> -1)");
    a.sql("update items set n = -1 where id = 'x'");
    a.tw(&["now"]).expect_code(1);
    assert_eq!(view(&a), [["items", "x", "text", "failed"]]);
    let error = a
        .rows("select error from tidewater_status")
        .remove(0)
        .remove(0);
    assert!(
        error.starts_with("SYNC-005: ") && error.contains("sane"),
        "{error}"
    );
    a.sql("update items set n = 1 where id = 'x'");
    a.tw(&["now"]).ok();

    // A conflict that nobody has looked at.
    b.tw(&["now"]).ok();
    b.sql("update items set body = 'b' where id = 'x'");
    a.sql("update items set body = 'a' where id = 'x'");
    b.tw(&["now"]).ok();
    a.tw(&["now"]).ok();
    assert_eq!(view(&a), [["items", "x", "text", "conflict"]]);
    a.sql("update items set body = 'again' where id = 'x'");
    assert_eq!(view(&a), [["items", "x", "text", "pending"]]);
    a.tw(&["now"]).ok();
    a.tw(&["conflicts", "ack", "--all"]).ok();
    assert!(view(&a).is_empty(), "{:?}", view(&a));
}

#[test]
fn keys_have_the_form_of_the_app_before_and_after_the_claim() {
    let fleet = Fleet::new(
        "create table pair (a text, b integer, c blob, note text, primary key (a, b, c));
         create table whole (id integer primary key, v text);
         create table loose (id blob primary key, v text);",
    );
    let proxy = Proxy::shared_server();
    let device = fleet.device_through(&proxy, "a", "");
    proxy.set(Mode::Refuse);
    device.sql(
        "insert into pair values ('q\"\\' || char(10, 1) || 'é', -5, x'00ff', 'n'), ('p', 1, x'', 'n');
         delete from pair where a = 'p';
         insert into whole values (7, 'seven'); insert into loose values (x'0a', 'blob');",
    );
    let expected = [
        ["loose", "x'0a'", "blob", "pending"],
        ["pair", "[\"p\",1,{\"hex\":\"\"}]", "text", "pending"],
        [
            "pair",
            "[\"q\\\"\\\\\\n\\u0001é\",-5,{\"hex\":\"00ff\"}]",
            "text",
            "pending",
        ],
        ["whole", "7", "integer", "pending"],
    ];
    assert_eq!(view(&device), expected);
    device.tw(&["now"]).expect_code(3);
    assert_eq!(view(&device), expected);
    device
        .sql("update pair set note = 'other'; update whole set v = 'x'; update loose set v = 'y'");
    assert_eq!(view(&device), expected, "claimed and edited again");
    // Joins need nothing but the table's own key, and no trust.
    for (table, n) in [("whole", "1"), ("loose", "1")] {
        let untrusting = device.sqlite();
        untrusting
            .execute_batch("pragma trusted_schema = off")
            .expect("a pragma");
        let joined: String = untrusting
            .query_row(
                &format!(
                    "select count(s.status) from {table} t left join tidewater_status s \
                     on s.table_name = '{table}' and s.pk = t.id"
                ),
                [],
                |r| r.get::<_, i64>(0),
            )
            .expect("a join")
            .to_string();
        assert_eq!(joined, n, "{table}");
    }
    proxy.set(Mode::Pass);
    device.tw(&["now"]).ok();
    assert!(view(&device).is_empty(), "{:?}", view(&device));
}

/// Lookups by key search an index in every queue, whatever the type of the key.
#[test]
fn looking_a_row_up_scans_no_queue() {
    for (ddl, column) in [
        ("create table t (id text primary key, v text);", "k"),
        ("create table t (id integer primary key, v text);", "ki"),
    ] {
        let fleet = Fleet::new(ddl);
        let device = fleet.device("a");
        device.sql("insert into t values (1, 'v')");
        let lookup = plan(
            &device,
            "select t.id, (select s.status from tidewater_status s \
             where s.table_name = 't' and s.pk = t.id) from t",
        );
        for (alias, table) in [
            ("o", "tidewater_outbox"),
            ("i", "tidewater_inbox"),
            ("n", "tidewater_note"),
            ("c", "tidewater_conflict"),
        ] {
            let search = format!("SEARCH {alias} USING");
            let by = format!("INDEX {table}_k (tbl=? AND {column}=?)");
            assert!(
                lookup
                    .lines()
                    .any(|l| l.starts_with(&search) && l.ends_with(&by)),
                "{alias}: {lookup}"
            );
            assert!(!lookup.contains(&format!("SCAN {alias}\n")), "{lookup}");
        }
        // An outer join reads the view once, and finds each row in an index of its own.
        let badge = plan(
            &device,
            "select t.id, s.status from t left join tidewater_status s \
             on s.table_name = 't' and s.pk = t.id",
        );
        let found = "AUTOMATIC COVERING INDEX (table_name=? AND pk=?)";
        let partial = "AUTOMATIC PARTIAL COVERING INDEX (table_name=? AND pk=?)";
        assert!(badge.contains(found) || badge.contains(partial), "{badge}");
        assert!(
            badge.contains("SEARCH o USING INDEX tidewater_outbox_k (tbl=?)"),
            "{badge}"
        );
    }
}

/// Nothing in it that an old SQLite lacks or an app would not want to trust.
#[test]
fn the_view_is_plain_sql() {
    let fleet = Fleet::new("create table p (a text, b text, primary key (a, b));");
    let device = fleet.device("a");
    let text = device
        .rows("select sql from sqlite_schema where name = 'tidewater_status'")
        .remove(0)
        .remove(0);
    for word in [
        "json",
        " over ",
        "with ",
        "iif(",
        "printf",
        "format(",
        "(tbl, pk)",
        "true",
        "filter",
    ] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    // Installing again finds it as it should be, and leaves the app's prepared statements alone.
    let version = device.rows("pragma schema_version");
    device.tw(&["init"]).ok();
    assert_eq!(device.rows("pragma schema_version"), version);
    let printed = device.tw(&["init", "--dry-run"]).ok().stdout;
    assert!(
        printed.contains("CREATE VIEW tidewater_status"),
        "{printed}"
    );
}

/// How deep the parentheses of a text nest.
fn depth(text: &str) -> i32 {
    let (mut now, mut deepest) = (0, 0);
    for c in text.chars() {
        now += i32::from(c == '(') - i32::from(c == ')');
        deepest = deepest.max(now);
    }
    deepest
}

/// The parser of SQLite before 3.45 has a hundred states, and a call within a call takes three: a view
/// or a trigger that is too deep makes the whole file unreadable for the app.
#[test]
fn the_sqlite_of_the_system_reads_the_file() {
    let fleet = Fleet::new(
        "create table pair (a text, b integer, primary key (a, b));
         create table wide (a, b, c, d, e, f, v, primary key (a, b, c, d, e, f)) without rowid;
         create table items (id text primary key, body text, n integer unique);",
    );
    let device = fleet.device("a");
    device.sql(
        "insert into pair values ('q\"' || char(31), 1);
         insert into wide values (1, 2, 3, 4, 5, 6, 7);",
    );
    for object in device.rows("select name, sql from sqlite_schema where sql is not null") {
        assert!(depth(&object[1]) <= 20, "{object:?}");
    }
    let mut python = std::process::Command::new("python3");
    python
        .arg("-c")
        .arg(
            "import sqlite3, sys\n\
             file = sqlite3.connect(sys.argv[1])\n\
             file.execute(\"insert into items values ('i', 'b', 1)\")\n\
             file.commit()\n\
             for row in file.execute('select table_name, pk, status from tidewater_status order by 1'):\n\
             \x20   print(*row)",
        )
        .arg(device.db());
    assert_eq!(
        Running::spawn(python).wait(PATIENCE).ok().stdout,
        "items i pending\npair [\"q\\\"\\u001f\",1] pending\nwide [1,2,3,4,5,6] pending\n"
    );
}
