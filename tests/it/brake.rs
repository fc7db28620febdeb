//! Deletes that come with a schema change and are too many wait for the user's word (SYNC-015).

use crate::support::cli::Device;
use crate::support::fleet::{self, Fleet};

const NOTES: &str = "create table notes (id integer primary key, body text);";
const SCHEMA: &str = "create table notes (id integer primary key, body text);
    create table other (id text primary key, body text);";
const ALL: &str = "select id, body from notes order by id";
const COUNT: &str = "select count(*) from notes";

fn fill(device: &Device, rows: u32) {
    device.sql(&format!(
        "insert into notes with recursive n(i) as (select 1 union all select i + 1 from n where i < {rows}) \
         select i, 'note ' || i from n"
    ));
    device.tw(&["now"]).ok();
}

fn held(device: &Device) -> u64 {
    let queue = device.json(&["queue", "--errors", "--limit", "1"]);
    if let Some(item) = queue["items"].get(0) {
        assert_eq!(item["error"]["code"], "SYNC-015", "{queue}");
        assert_eq!(item["op"], "delete", "{queue}");
    }
    queue["total"].as_u64().expect("a number")
}

/// Two devices with 2,000 rows, and the table of the first emptied by a migration.
fn emptied() -> (Fleet, Device, Device) {
    let fleet = Fleet::new(SCHEMA);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    fill(&a, 2_000);
    b.tw(&["now"]).ok();
    a.sql(&format!("drop table notes; {NOTES}"));
    a.sql("insert into other values ('o1', 'flows')");
    let done = a.tw(&["now"]).ok();
    assert_eq!(
        done.stderr.matches("code=\"SYNC-015\"").count(),
        1,
        "{done:#?}"
    );
    let again = a.tw(&["now"]).ok();
    assert!(!again.stderr.contains("SYNC-015"), "told once: {again:#?}");
    assert_eq!(fleet.server(COUNT), [["2000"]]);
    assert_eq!(fleet.server("select id from other"), [["o1"]]);
    assert_eq!(held(&a), 2_000);
    let status = a.json(&["status"]);
    let problem = &status["problems"][0];
    assert_eq!(problem["code"], "SYNC-015", "{status}");
    for word in ["notes", "2000"] {
        assert!(
            problem["message"].as_str().unwrap().contains(word),
            "{status}"
        );
    }
    for command in [
        "tidewater retry SYNC-015",
        "tidewater discard SYNC-015 --yes",
    ] {
        assert!(
            problem["remedy"].as_str().unwrap().contains(command),
            "{status}"
        );
    }
    (fleet, a, b)
}

#[test]
fn a_table_that_was_dropped_and_made_again_empties_nothing_until_it_is_let_go() {
    let (fleet, a, b) = emptied();
    a.sql("insert into notes values (7, 'written again'), (9000, 'new')");
    let results = a.json(&["retry", "SYNC-015"]);
    let results = results["results"].as_array().expect("a list");
    assert_eq!(results.len(), 2_000);
    assert!(results.iter().all(|r| r["outcome"] == "synced"));
    assert_eq!(a.json(&["status"])["problems"], serde_json::json!([]));
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(b.rows(ALL), [["7", "written again"], ["9000", "new"]]);
}

#[test]
fn the_rows_come_back_from_the_workspace_where_the_deletes_are_given_up() {
    let (fleet, a, b) = emptied();
    a.tw(&["discard", "SYNC-015"]).expect_code(2);
    assert_eq!(held(&a), 2_000, "not without --yes");
    let results = a.json(&["discard", "SYNC-015", "--yes"]);
    assert_eq!(results["results"].as_array().map(Vec::len), Some(2_000));
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(a.rows(COUNT), [["2000"]]);
    assert_eq!(a.json(&["status"])["problems"], serde_json::json!([]));
    a.tw(&["verify"]).ok();
}

#[test]
fn what_a_dropped_parent_cascades_away_is_held_too() {
    let fleet = Fleet::new(
        "create table parents (id integer primary key);
         create table notes (id integer primary key, body text,
           parent integer default 1 references parents (id) on delete cascade);",
    );
    let a = fleet.device("a");
    a.sql("insert into parents values (1)");
    a.sql(
        "insert into notes (id, body) with recursive n(i) as (select 1 union all select i + 1 from n \
         where i < 1500) select i, 'note' from n",
    );
    a.tw(&["now"]).ok();
    // The classic slip of a rebuild: foreign keys are on.
    a.sql(
        "pragma foreign_keys = on; begin; create table new_parents (id integer primary key, name text); \
         insert into new_parents (id) select id from parents; drop table parents; \
         alter table new_parents rename to parents; commit",
    );
    assert_eq!(a.rows(COUNT), [["0"]]);
    a.tw(&["now"]).ok();
    assert_eq!(fleet.server(COUNT), [["1500"]]);
    assert_eq!(held(&a), 1_500);
    // The app's own later deletes are its own.
    a.sql("insert into notes (id) values (1), (2); delete from notes where id = 1");
    a.tw(&["now"]).ok();
    assert_eq!(fleet.server(COUNT), [["1499"]]);
    a.json(&["discard", "SYNC-015", "--yes"]);
    fleet.converge(&[&a], "select id, body, parent from notes order by id");
    assert_eq!(a.rows(COUNT), [["1499"]]);
}

#[test]
fn deletes_without_a_schema_change_are_never_held() {
    let fleet = Fleet::new(SCHEMA);
    let a = fleet.device("a");
    fill(&a, 2_000);
    // Tidying up afterwards moves the schema's version, and is no change of it.
    a.sql("delete from notes where id > 10; vacuum; analyze");
    a.tw(&["now"]).ok();
    assert_eq!(held(&a), 0);
    fleet.expect_equal(&[&a], ALL);
    assert_eq!(a.rows(COUNT), [["10"]]);
}

#[test]
fn small_tables_and_small_parts_of_large_ones_go_through() {
    let fleet = Fleet::new(SCHEMA);
    let a = fleet.device("a");
    fill(&a, 1_000);
    a.sql(&format!("drop table notes; {NOTES}"));
    a.tw(&["now"]).ok();
    assert_eq!(held(&a), 0);
    assert_eq!(fleet.server(COUNT), [["0"]]);

    fill(&a, 2_000);
    let rebuild = "create table new_notes (id integer primary key, body text); \
        insert into new_notes select * from notes where id > 300; drop table notes; \
        alter table new_notes rename to notes";
    a.sql(rebuild);
    a.tw(&["now"]).ok();
    assert_eq!(held(&a), 0);
    fleet.expect_equal(&[&a], ALL);
    assert_eq!(fleet.server(COUNT), [["1700"]]);
}

#[test]
fn a_comparison_that_is_killed_holds_nothing_that_it_had_not_counted() {
    let fleet = Fleet::new(SCHEMA);
    let a = fleet.device("a");
    fill(&a, 2_000);
    a.sql(
        "create table new_notes (id integer primary key, body text); \
         insert into new_notes select * from notes where id > 300; drop table notes; \
         alter table new_notes rename to notes",
    );
    fleet::crash(&a, "heal_page", &["now"]);
    a.tw(&["now"]).ok();
    assert_eq!(held(&a), 0);
    fleet.expect_equal(&[&a], ALL);
    assert_eq!(fleet.server(COUNT), [["1700"]]);
}
