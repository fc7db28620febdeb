//! Migrations of the app that take something away or call it by another name.

use crate::support::cli::Device;
use crate::support::fleet::{self, Fleet};

const NOTES: &str = "create table note (id text primary key, body text, n integer);
    create table other (id text primary key);";

fn two(rows: &str) -> (Fleet, Device, Device) {
    let fleet = Fleet::new(NOTES);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql(rows);
    a.tw(&["now"]).ok();
    b.tw(&["now"]).ok();
    (fleet, a, b)
}

/// The one problem of a device: its message and its remedy.
#[track_caller]
fn problem(device: &Device) -> (String, String) {
    let status = device.json(&["status"]);
    let problem = &status["problems"][0];
    assert_eq!(problem["code"], "SYNC-009", "{status}");
    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    (text("message"), text("remedy"))
}

/// Runs the command that a remedy names, as a person would.
#[track_caller]
fn cure(fleet: &Fleet, remedy: &str) {
    let sql = remedy.strip_prefix("on the server: ").expect(remedy);
    fleet.schema.exec(sql.split(';').next().expect("a command"));
}

#[test]
fn a_dropped_column_stops_its_table_alone_until_the_server_drops_it_too() {
    let (fleet, a, b) = two("insert into note values ('n1', 'one', 1), ('n2', 'two', 2)");
    a.sql("alter table note drop column n; update note set body = 'edited' where id = 'n1'");
    a.sql("insert into other values ('flows')");
    a.tw(&["now"]).ok();
    assert_eq!(fleet.server("select id from other"), [["flows"]]);
    assert_eq!(
        fleet.server("select body, n from note where id = 'n1'"),
        [["one", "1"]]
    );
    let (message, remedy) = problem(&a);
    assert!(
        message.contains("table note") && message.contains("column n"),
        "{message}"
    );
    // The device that has the column goes on.
    b.sql("update note set n = 20 where id = 'n2'");
    b.tw(&["now"]).ok();
    assert_eq!(fleet.server("select n from note where id = 'n2'"), [["20"]]);

    b.sql("alter table note drop column n");
    cure(&fleet, &remedy);
    fleet.converge(&[&a, &b], "select id, body from note order by id");
    assert_eq!(b.rows("select body from note"), [["edited"], ["two"]]);
    assert_eq!(a.json(&["status"])["problems"], serde_json::json!([]));
    assert_eq!(fleet.conflicts(), 0);
}

#[test]
fn a_renamed_column_arrives_beside_the_old_one_with_its_values() {
    let (fleet, a, b) = two("insert into note values ('n1', 'one', 1), ('n2', 'two', 2)");
    a.sql("alter table note rename column body to content");
    a.sql("update note set content = 'by a' where id = 'n1'");
    a.tw(&["now"]).ok();
    assert_eq!(
        fleet.server("select id, body, content from note order by id"),
        [["n1", "one", "by a"], ["n2", "two", "two"]]
    );
    // Written under the old name after the other device had left it.
    b.sql("update note set body = 'by b' where id = 'n2'");
    b.tw(&["now"]).ok();
    a.tw(&["now"]).ok();
    b.sql("alter table note rename column body to content");
    fleet.converge(&[&a, &b], "select id, content, n from note order by id");
    // Two values of one column: one stands, and the other is kept whole.
    let kept = serde_json::Value::from(fleet::conflicts(&b)).to_string();
    let stands = b.rows("select content from note where id = 'n2'")[0][0].clone();
    for value in ["two", "by b"] {
        assert!(
            stands == value || kept.contains(value),
            "{value}: {stands}, {kept}"
        );
    }
    assert_eq!(a.json(&["status"])["problems"], serde_json::json!([]));
}

#[test]
fn a_renamed_table_is_a_new_one_and_deletes_nothing() {
    let (fleet, a, b) = two("insert into note values ('n1', 'one', 1), ('n2', 'two', 2)");
    a.sql("update note set body = 'edited' where id = 'n1'; alter table note rename to memo");
    a.sql("insert into memo values ('n3', 'three', 3)");
    a.tw(&["now"]).ok();
    a.tw(&["now"]).ok();
    let all = "select id, body, n from memo order by id";
    fleet.expect_equal(&[&a], all);
    assert_eq!(fleet.server("select count(*) from note"), [["2"]]);
    b.sql("insert into note values ('n4', 'by b', 4)");
    b.tw(&["now"]).ok();
    assert_eq!(b.rows("select count(*) from note"), [["3"]]);
    b.sql("alter table note rename to memo");
    fleet.converge(&[&a, &b], all);
    assert_eq!(a.rows("select count(*) from memo"), [["4"]]);
    // Neither device knows when its rows of a new table were written: one stands, and the other is kept.
    let kept = serde_json::Value::from(fleet::conflicts(&b)).to_string();
    let stands = b.rows("select body from memo where id = 'n1'")[0][0].clone();
    for value in ["one", "edited"] {
        assert!(
            stands == value || kept.contains(value),
            "{value}: {stands}, {kept}"
        );
    }
}

#[test]
fn a_type_that_cannot_carry_the_values_stops_its_table_with_the_command_that_helps() {
    let (fleet, a, _b) = two("insert into note values ('n1', 'one', 1)");
    a.sql(
        "create table new__note (id text primary key, body text, n text);
         insert into new__note select * from note; drop table note;
         alter table new__note rename to note; insert into note values ('n2', 'two', 'words');
         insert into other values ('flows')",
    );
    a.tw(&["now"]).ok();
    assert_eq!(fleet.server("select id from other"), [["flows"]]);
    let (message, remedy) = problem(&a);
    assert!(
        message.contains("table note") && message.contains("column n"),
        "{message}"
    );
    cure(&fleet, &remedy);
    a.tw(&["now"]).ok();
    a.tw(&["now"]).ok();
    fleet.expect_equal(&[&a], "select id, body, n from note order by id");
    assert_eq!(a.json(&["status"])["problems"], serde_json::json!([]));
}

#[test]
fn a_passing_copy_of_a_table_is_no_table_of_the_app() {
    let (fleet, a, _b) = two("insert into note values ('n1', 'one', 1)");
    a.sql("create table _alembic_tmp_note (id text primary key, body text, n integer)");
    a.sql("insert into _alembic_tmp_note select * from note");
    // Looked at in the middle.
    a.tw(&["now"]).ok();
    a.sql("drop table note; alter table _alembic_tmp_note rename to note");
    a.tw(&["now"]).ok();
    fleet.expect_equal(&[&a], "select id, body, n from note order by id");
    let copies = "select count(*) from tidewater_tables where name like '%alembic%'";
    assert_eq!(fleet.server(copies), [["0"]]);
}
