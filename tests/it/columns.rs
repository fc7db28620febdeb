//! Columns that come to the devices at different times, and tables that are built anew.

use crate::support::fleet::{self, Fleet};
use crate::support::proxy::{Mode, Proxy};
use crate::support::wait::{PATIENCE, eventually};
use std::time::Duration;

#[test]
fn a_value_that_was_never_received_is_not_blanked_by_an_edit_of_its_row() {
    let fleet = Fleet::new("create table note (id text primary key, body text)");
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into note values ('n1', 'one'), ('n2', 'two')");
    a.tw(&["now"]).ok();
    b.tw(&["now"]).ok();
    a.sql("alter table note add column colour text; update note set colour = 'red'");
    a.tw(&["now"]).ok();
    // The rows arrive without the column, which this file does not have yet.
    b.tw(&["now"]).ok();
    b.sql("alter table note add column colour text; update note set body = 'by b' where id = 'n1'");
    b.tw(&["now"]).ok();
    a.tw(&["now"]).ok();
    fleet.expect_equal(&[&a, &b], "select id, body, colour from note order by id");
    assert_eq!(
        b.rows("select colour from note where id = 'n2'"),
        [["red"]],
        "a row that was not edited here is filled in"
    );
    // The edit and the value cannot both be had; what lost is kept whole.
    let conflicts = fleet::conflicts(&b);
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    let kept = [&conflicts[0]["local"], &conflicts[0]["remote"]];
    assert!(kept.iter().any(|row| row["colour"] == "red"), "{kept:?}");
    assert!(kept.iter().any(|row| row["body"] == "by b"), "{kept:?}");
}

#[test]
fn a_batch_that_never_left_waits_again() {
    let fleet = Fleet::new("create table note (id text primary key, body text)");
    let mut a = fleet.device("a");
    a.tw(&["now"]).ok();
    a.sql("insert into note values ('n1', 'one')");
    let url = "postgres://nobody@127.0.0.1:1/nowhere?sslmode=disable";
    a.set_env("TIDEWATER_REMOTE__URL", url);
    a.tw(&["now"]).expect_code(3);
    let upload = a.json(&["status"])["upload"].clone();
    assert_eq!(
        (&upload["pending"], &upload["uploading"]),
        (&1.into(), &0.into())
    );
    a.unset_env("TIDEWATER_REMOTE__URL");
    a.tw(&["now"]).ok();
    assert_eq!(fleet.server("select body from note"), [["one"]]);
}

/// As many rows here as were met on the other side does not mean that all of them were met.
#[test]
fn a_row_written_without_triggers_is_found_though_another_goes_meanwhile() {
    let fleet = Fleet::new("create table note (id text primary key, body text)");
    let proxy = Proxy::shared_server();
    let a = fleet.device_through(&proxy, "a", "");
    a.sql("insert into note values ('n1', 'one'), ('n2', 'two'), ('n3', 'three')");
    a.tw(&["now"]).ok();
    // A migration that builds the table anew takes the triggers with it.
    a.sql(
        "create table fresh (id text primary key, body text); insert into fresh select * from note;
         drop table note; alter table fresh rename to note; insert into note values ('n4', 'bare')",
    );
    // Slow enough for an edit between the page that shows n1 and the one that ends the comparison.
    proxy.set(Mode::Delay(Duration::from_millis(300)));
    let now = a.spawn(&["now"]);
    let server = fleet.schema.client();
    let next_page = format!(
        "select count(*) from pg_stat_activity where pid <> pg_backend_pid() \
         and query like '%\"{}\".\"note\" m where (m.\"id\") > (%'",
        fleet.schema.name()
    );
    eventually(PATIENCE, "the next page is asked for", || {
        server.one(&next_page) != "0"
    });
    a.sql("delete from note where id = 'n1'");
    proxy.set(Mode::Pass);
    now.wait(PATIENCE).ok();
    a.tw(&["now"]).ok();
    let held = fleet.server("select id from note order by id");
    assert_eq!(held, [["n2"], ["n3"], ["n4"]]);
}

#[test]
fn a_rebuild_that_adds_a_column_later_than_others_blanks_nothing() {
    const NEW: &str = "create table new__note (id text primary key, body text, colour text);
        insert into new__note (id, body) select id, body from note; drop table note;
        alter table new__note rename to note;";
    let fleet = Fleet::new("create table note (id text primary key, body text)");
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into note values ('n1', 'one')");
    a.tw(&["now"]).ok();
    b.tw(&["now"]).ok();
    // Written while capture was bare, so without a time: nothing but the rules keeps it standing.
    let more: Vec<String> = (2..30).map(|i| format!("('n{i}', 'x', 'red')")).collect();
    a.sql(&format!(
        "{NEW} insert into note values {}",
        more.join(", ")
    ));
    a.tw(&["now"]).ok();
    b.tw(&["now"]).ok();
    b.sql(&format!(
        "{NEW} update note set body = 'by b' where id = 'n1'"
    ));
    fleet.converge(&[&a, &b], "select id, body, colour from note order by id");
    let red = "select count(*) from note where colour = 'red'";
    assert_eq!(
        (b.rows(red), fleet.conflicts()),
        (vec![vec!["28".to_owned()]], 0)
    );
    assert_eq!(b.rows("select body from note where id = 'n1'"), [["by b"]]);
}
