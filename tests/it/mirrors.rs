//! Mirror tables: made by several devices at once, adopted where they stand, refused alone where they
//! do not fit; and what unique constraints and foreign keys of theirs do to a batch.

use crate::support::cli::Device;
use crate::support::fleet::{self, Fleet};
use crate::support::server::Schema;
use crate::support::wait::{PATIENCE, eventually};
use std::thread;

#[test]
pub fn two_devices_that_start_at_once_make_one_workspace() {
    let schema = Schema::new();
    let devices: Vec<Device> = (0..4)
        .map(|n| {
            let device = Device::new(&schema, &format!("d{n}"));
            device.sql(&format!(
                "create table note (id text primary key, body text); \
                 create table tag (id integer primary key, name text unique); \
                 insert into note values ('n{n}', 'by {n}')"
            ));
            device
        })
        .collect();
    thread::scope(|s| {
        for device in &devices {
            s.spawn(|| device.tw(&["init"]).ok());
        }
    });
    thread::scope(|s| {
        for device in &devices {
            s.spawn(|| device.tw(&["now"]).ok());
        }
    });
    for device in &devices {
        device.tw(&["now"]).ok();
        assert_eq!(device.rows("select count(*) from note"), [["4"]]);
    }
    assert_eq!(schema.one("select count(*) from tidewater_devices"), "4");
    assert_eq!(schema.one("select count(*) from tidewater_tables"), "2");
}

#[test]
fn an_existing_table_is_adopted_with_its_rows_types_and_defaults() {
    let schema = Schema::new();
    schema.exec(
        "create table note (id integer primary key, body varchar(200), stars smallint, \
         made_at timestamptz not null default now()); \
         insert into note (id, body, stars) values (1, 'here already', 5), (2, 'equal', 2), (3, 'theirs', 3)",
    );
    let device = Device::new(&schema, "adopter");
    device.sql(
        "create table note (id integer primary key, body text, stars integer); \
         insert into note values (2, 'equal', 2), (3, 'ours', 3), (4, 'new', 4)",
    );
    device.tw(&["init"]).ok();
    let report = device.json(&["now"]);
    // An import never beats what stands there: row 3 lost, row 2 is equal, row 4 is new.
    assert_eq!(report["conflicts"], 1, "{report}");
    let expected = [
        ["1", "here already", "5"],
        ["2", "equal", "2"],
        ["3", "theirs", "3"],
        ["4", "new", "4"],
    ];
    let query = "select id, body, stars from note order by id";
    assert_eq!(device.rows(query), expected);
    assert_eq!(schema.rows(query), expected);
    assert_eq!(
        schema.one("select count(*) from note where made_at is not null"),
        "4",
        "the server's default is left alone"
    );
    let conflicts = fleet::conflicts(&device);
    assert_eq!(conflicts[0]["local"]["body"], "ours");
    // What somebody writes there later arrives like any edit.
    schema.exec("update note set body = 'by sql' where id = 1");
    device.tw(&["now"]).ok();
    assert_eq!(
        device.rows("select body from note where id = 1"),
        [["by sql"]]
    );
}

#[test]
fn a_table_whose_columns_do_not_fit_is_refused_alone() {
    let schema = Schema::new();
    schema.exec("create table bad (id bigint primary key, at inet)");
    let device = Device::new(&schema, "d");
    device.sql(
        "create table bad (id integer primary key, at text); insert into bad values (1, 'noon'); \
         create table good (id integer primary key); insert into good values (1)",
    );
    device.tw(&["init"]).ok();
    device.tw(&["now"]).ok();
    assert_eq!(schema.one("select count(*) from good"), "1");
    assert_eq!(schema.one("select count(*) from bad"), "0");
    let status = device.json(&["status"]);
    let problem = &status["problems"][0];
    assert_eq!(problem["code"], "SYNC-009", "{status}");
    let said = format!("{} {}", problem["message"], problem["remedy"]);
    assert!(said.contains("bad") && said.contains("alter"), "{said}");
    assert_eq!(status["upload"]["pending"], 1, "nothing of it is lost");
    // The remedy that was told cures it.
    schema.exec("alter table bad alter column at type text");
    device.tw(&["now"]).ok();
    assert_eq!(schema.one("select at from bad"), "noon");
}

#[test]
pub fn unique_values_that_swap_rows_travel_in_one_batch() {
    let fleet = Fleet::new("create table seat (id text primary key, place text unique)");
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into seat values ('x', 'window'), ('y', 'aisle')");
    a.tw(&["now"]).ok();
    b.tw(&["now"]).ok();
    a.sql(
        "begin; update seat set place = 'tmp' where id = 'x'; update seat set place = 'window' where id = 'y'; \
         update seat set place = 'aisle' where id = 'x'; commit",
    );
    let report = a.json(&["now"]);
    assert_eq!(
        (&report["uploaded"], &report["failed"]),
        (&2.into(), &0.into())
    );
    b.tw(&["now"]).ok();
    fleet.expect_equal(&[&a, &b], "select id, place from seat order by id");
    assert_eq!(b.rows("select place from seat where id = 'x'"), [["aisle"]]);
    // The mirror does carry the constraint.
    let client = fleet.schema.client();
    assert!(
        client
            .try_exec("insert into seat values ('z', 'aisle')")
            .is_err()
    );
}

#[test]
fn parents_and_children_of_adopted_tables_travel_in_an_order_that_their_foreign_keys_allow() {
    let schema = Schema::new();
    schema.exec(
        "create table parent (id integer primary key, name text); \
         create table child (id integer primary key, parent integer not null references parent (id))",
    );
    let device = Device::new(&schema, "d");
    device.sql(
        "create table parent (id integer primary key, name text); \
         create table child (id integer primary key, parent integer not null references parent (id))",
    );
    device.tw(&["init"]).ok();
    // The child is written before its parent, as an app without foreign keys enforced may do.
    device.sql(
        "pragma foreign_keys = off; insert into child values (1, 10); insert into parent values (10, 'p'), (11, 'q'); \
         insert into child values (2, 11)",
    );
    let report = device.json(&["now"]);
    assert_eq!(
        (&report["uploaded"], &report["failed"]),
        (&4.into(), &0.into()),
        "{report}"
    );
    // The child moves and its former parent goes, in one batch.
    device.sql("pragma foreign_keys = off; update child set parent = 11 where id = 1; delete from parent where id = 10");
    let report = device.json(&["now"]);
    assert_eq!(
        (&report["uploaded"], &report["failed"]),
        (&2.into(), &0.into()),
        "{report}"
    );
    assert_eq!(
        schema.one("select string_agg(parent::text, ',') from child"),
        "11,11"
    );
    // A child whose parent is missing waits, blocks nothing, and goes once the parent is there.
    device.sql("pragma foreign_keys = off; insert into child values (3, 99); insert into parent values (12, 'r')");
    let report = device.json(&["now"]);
    assert_eq!(
        (&report["uploaded"], &report["pending"]),
        (&1.into(), &1.into()),
        "{report}"
    );
    let item = &device.json(&["queue"])["items"][0];
    assert_eq!(
        (&item["attempts"], &item["error"]["sqlstate"]),
        (&1.into(), &"23503".into())
    );
    schema.exec("insert into parent values (99, 'by sql')");
    // Its waiting time is at most a second after the first refusal.
    eventually(PATIENCE, "the child arrives", || {
        device.tw(&["now"]).ok();
        schema.one("select count(*) from child") == "3"
    });
}

#[test]
fn conflicts_that_fill_a_page_to_the_last_place_do_not_hold_the_feed() {
    let fleet = Fleet::new("create table note (id integer primary key, body text)");
    let (a, mut b) = (fleet.device("a"), fleet.device("b"));
    b.set_env("TIDEWATER_DOWNLOAD__PAGE_SIZE", "10");
    a.sql(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 10) \
         insert into note select i, 'first' from n",
    );
    a.tw(&["now"]).ok();
    b.tw(&["now"]).ok();
    a.sql("update note set body = 'by a'");
    b.sql("update note set body = 'by b'");
    a.tw(&["now"]).ok();
    let report = b.json(&["now", "--timeout", "60"]);
    assert_eq!(report["conflicts"], 10, "{report}");
    fleet.converge(&[&a, &b], "select id, body from note order by id");
}

#[test]
fn what_was_logged_of_a_table_that_is_away_is_sent_when_it_is_back() {
    let fleet = Fleet::new("create table note (id text primary key, body text)");
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into note values ('n1', 'one'), ('n2', 'two'), ('n3', 'three')");
    a.tw(&["now"]).ok();
    b.tw(&["now"]).ok();
    // A rebuild without a transaction, looked at in the middle.
    a.sql("delete from note where id = 'n1'; update note set body = 'edited' where id = 'n2'");
    a.sql("create table new_note (id text primary key, body text, extra text)");
    a.sql("insert into new_note select id, body, null from note; drop table note");
    a.tw(&["now"]).ok();
    a.sql("alter table new_note rename to note");
    a.tw(&["now"]).ok();
    a.tw(&["now"]).ok();
    b.tw(&["now"]).ok();
    assert_eq!(
        b.rows("select id, body from note order by id"),
        [["n2", "edited"], ["n3", "three"]]
    );
}

#[test]
fn a_key_of_nineteen_digits_in_a_date_column_is_deleted_by_its_own_tombstone() {
    let fleet = Fleet::new("create table event (at timestamp primary key, body text)");
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into event values (1700000000123456789, 'ns'), (2.5, 'half'), ('noon', 'text')");
    a.tw(&["now"]).ok();
    b.tw(&["now"]).ok();
    assert_eq!(b.rows("select count(*) from event"), [["3"]]);
    fleet.schema.exec("delete from event");
    a.tw(&["now"]).ok();
    b.tw(&["now"]).ok();
    for device in [&a, &b] {
        assert_eq!(device.rows("select count(*) from event"), [["0"]]);
    }
}
