//! Two rows that claim one unique value: one conflict, the loser whole on both sides, and everybody holds
//! the same.

use crate::support::cli::Device;
use crate::support::fleet::{Fleet, conflicts};
use serde_json::json;

const PEOPLE: &str = "create table people (id text primary key, email text unique, name text);";
const QUERY: &str = "select id, email, name from people order by id";

/// Two devices of which each has given the address to another row, the first one earlier.
fn claimed(fleet: &Fleet) -> (Device, Device) {
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into people values ('both', 'both@x', 'as agreed')");
    fleet.converge(&[&a, &b], QUERY);
    a.sql("insert into people values ('ann', 'one@x', 'Ann')");
    b.sql("insert into people values ('bob', 'one@x', 'Bob')");
    (a, b)
}

#[test]
fn two_rows_with_one_unique_value_are_one_conflict_and_converge() {
    for (policy, winner) in [
        ("last_write_wins", "bob"),
        ("local_wins", "bob"),
        ("remote_wins", "ann"),
    ] {
        let fleet = Fleet::configured(PEOPLE, &format!("[conflict]\npolicy = \"{policy}\"\n"));
        let (a, b) = claimed(&fleet);
        a.json(&["now"]);
        let report = b.json(&["now"]);
        assert_eq!(
            (&report["pending"], &report["failed"], &report["conflicts"]),
            (&0.into(), &0.into(), &1.into()),
            "{policy}: {report}"
        );
        fleet.converge(&[&a, &b], QUERY);
        let ids = a.rows("select id from people where email = 'one@x'");
        assert_eq!(ids, [[winner]], "{policy}");
        assert_eq!(fleet.conflicts(), 1, "{policy}");
        let ann = json!({"id": "ann", "email": "one@x", "name": "Ann"});
        let bob = json!({"id": "bob", "email": "one@x", "name": "Bob"});
        let loser = if winner == "bob" { "ann" } else { "bob" };
        for (device, mine, other, local) in [(&a, &ann, &bob, "ann"), (&b, &bob, &ann, "bob")] {
            let listed = conflicts(device);
            assert_eq!(listed.len(), 1, "{policy}: {listed:#?}");
            let c = &listed[0];
            assert_eq!(
                (&c["kind"], &c["local"], &c["remote"], &c["pk"]),
                (&"unique_collision".into(), mine, other, &json!([loser])),
                "{policy}: {c:#}"
            );
            let side = if local == winner { "local" } else { "remote" };
            assert_eq!(c["winner"], side, "{policy}: {c:#}");
        }
        for device in [&a, &b] {
            assert_eq!(device.json(&["verify"])["identical"], true, "{policy}");
            assert_eq!(device.json(&["status"])["download"]["failed"], 0);
            assert!(
                device.json(&["queue", "--errors"])["items"]
                    .as_array()
                    .unwrap()
                    .is_empty()
            );
        }
    }
}

#[test]
fn what_lost_comes_back_as_a_new_edit_once_the_value_is_free() {
    let fleet = Fleet::new(PEOPLE);
    let (a, b) = claimed(&fleet);
    a.json(&["now"]);
    b.json(&["now"]);
    fleet.converge(&[&a, &b], QUERY);
    let id = conflicts(&a)[0]["id"].as_str().unwrap().to_owned();
    // Taken: it is told, and nothing is evicted.
    let said = a
        .tw(&["--json", "conflicts", "restore", &id])
        .expect_code(1)
        .json();
    assert_eq!(said["error"]["code"], "SYNC-003", "{said}");
    assert_eq!(
        a.rows("select id from people where email = 'one@x'"),
        [["bob"]]
    );
    a.sql("update people set email = 'two@x' where id = 'bob'");
    a.tw(&["conflicts", "restore", &id]).ok();
    fleet.converge(&[&a, &b], QUERY);
    assert_eq!(
        b.rows(QUERY),
        [
            ["ann", "one@x", "Ann"],
            ["bob", "two@x", "Bob"],
            ["both", "both@x", "as agreed"]
        ]
    );
}

#[test]
fn an_update_that_loses_returns_to_what_the_row_was() {
    let fleet = Fleet::configured(PEOPLE, "[conflict]\npolicy = \"remote_wins\"\n");
    let (a, b) = claimed(&fleet);
    b.sql("delete from people where id = 'bob'; update people set email = 'one@x', name = 'late' where id = 'both'");
    a.json(&["now"]);
    b.json(&["now"]);
    fleet.converge(&[&a, &b], QUERY);
    assert_eq!(
        b.rows(QUERY),
        [["ann", "one@x", "Ann"], ["both", "both@x", "as agreed"]]
    );
    assert_eq!(conflicts(&b)[0]["local"]["name"], "late");
}

#[test]
fn a_value_that_a_queued_change_sets_free_is_no_collision() {
    let fleet = Fleet::configured(PEOPLE, "[upload]\nbatch_size = 2\nbatch_size_max = 2\n");
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into people values ('x', '1', 'x'), ('y', '2', 'y'), ('z', '3', 'z')");
    fleet.converge(&[&a, &b], QUERY);
    // The two that swap their values do not fit into the first batch together.
    b.sql(
        "begin; insert into people values ('f', 'f', 'first'); update people set email = null where id = 'x'; \
         update people set email = '1' where id = 'y'; update people set email = '2' where id = 'x'; commit",
    );
    assert_eq!(b.json(&["now"])["pending"], 0);
    fleet.converge(&[&a, &b], QUERY);
    let emails = a.rows("select email from people where id in ('x', 'y') order by id");
    assert_eq!(emails, [["2"], ["1"]]);
    assert_eq!(fleet.conflicts(), 0);
}

#[test]
fn nothing_is_decided_against_a_row_whose_own_change_is_parked() {
    let fleet = Fleet::configured(
        PEOPLE,
        "[retry]\nmax_attempts = 2\nbase_delay_seconds = 0.001\n",
    );
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into people values ('x', '1', 'x'), ('y', '2', 'y')");
    fleet.converge(&[&a, &b], QUERY);
    fleet
        .schema
        .exec("alter table people add constraint sane check (name <> 'odd')");
    b.sql("update people set email = '3', name = 'odd' where id = 'x'; update people set email = '1' where id = 'y'");
    b.tw(&["now"]);
    b.tw(&["now"]);
    assert_eq!(fleet.conflicts(), 0);
    assert_eq!(
        fleet.schema.one("select email from people where id = 'x'"),
        "1"
    );
    // The app's correction lets both go.
    b.sql("update people set name = 'even' where id = 'x'");
    b.tw(&["now"]);
    b.tw(&["retry"]);
    fleet.converge(&[&a, &b], QUERY);
    assert_eq!(
        a.rows("select email from people order by id"),
        [["3"], ["1"]]
    );
    assert_eq!(fleet.conflicts(), 0);
}

#[test]
fn a_constraint_of_the_servers_own_stays_a_refusal() {
    let fleet = Fleet::configured(
        PEOPLE,
        "[retry]\nmax_attempts = 2\nbase_delay_seconds = 0.001\n",
    );
    let (a, b) = claimed(&fleet);
    fleet
        .schema
        .exec("alter table people add constraint theirs unique (name)");
    b.sql("update people set email = 'free@x', name = 'Ann' where id = 'bob'");
    a.json(&["now"]);
    b.tw(&["now"]);
    b.tw(&["now"]);
    let queue = b.json(&["queue", "--errors"]);
    assert_eq!(queue["items"][0]["error"]["sqlstate"], "23505", "{queue}");
    assert_eq!(fleet.conflicts(), 0);
    assert_eq!(
        fleet
            .schema
            .one("select email from people where id = 'ann'"),
        "one@x"
    );
}
