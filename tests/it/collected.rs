//! Old deletes are collected, and whoever was away meanwhile comes back without bringing rows back from
//! the dead (PROTOCOL F14). Times are set back in the server's tables; nothing waits.

use super::support::cli::Device;
use super::support::fleet::{ALL, Fleet, ITEMS, conflicts, crash, id};
use super::support::wait::{PATIENCE, eventually};

/// Makes every tombstone older than any retention.
fn age_deletes(fleet: &Fleet) {
    fleet.schema.exec(
        "update tidewater_tombstones set tidewater_change = '0000000001' || right(tidewater_change, 16)",
    );
}

/// The device was not heard of for longer than deletes are kept.
fn away(fleet: &Fleet, device: &Device) {
    fleet.schema.exec(&format!(
        "update tidewater_devices set last_seen = now() - interval '91 days' where id = '{}'",
        id(device)
    ));
}

/// Collects until nothing is left. Other tests' transactions may hold the server's horizon back for a
/// moment, and with it the devices' cursors.
fn collect_all(fleet: &Fleet, devices: &[&Device]) {
    eventually(PATIENCE, "the end of the tombstones", || {
        devices.iter().for_each(|d| collect(fleet, d));
        tombstones(fleet) == 0
    });
}

/// Lets a device collect at its next sync, and syncs it.
fn collect(fleet: &Fleet, device: &Device) {
    fleet
        .schema
        .exec("update tidewater_workspace set collected_at = null");
    device.sql("delete from tidewater_state where name in ('collected_at', 'told_at')");
    // One that has a parked change ends with 1.
    let ended = device.tw(&["now"]).code;
    assert!(matches!(ended, 0 | 1), "{ended}");
}

fn tombstones(fleet: &Fleet) -> u64 {
    let n = fleet
        .schema
        .one("select count(*) from tidewater_tombstones");
    n.parse().expect("a number")
}

fn state_of(fleet: &Fleet, device: &str) -> String {
    fleet.schema.one(&format!(
        "select state from tidewater_devices where id = '{device}'"
    ))
}

/// Two devices with the rows 1 to 4; then `a` deletes the first two, and these deletes are collected
/// while `b` is away.
fn forgotten() -> (Fleet, Device, Device) {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into items values ('1', 'x', 0), ('2', 'x', 0), ('3', 'x', 0), ('4', 'x', 0)");
    fleet.converge(&[&a, &b], ALL);
    a.sql("delete from items where id in ('1', '2')");
    a.json(&["now"]);
    age_deletes(&fleet);
    away(&fleet, &b);
    collect_all(&fleet, &[&a]);
    assert_eq!(state_of(&fleet, &id(&b)), "expired");
    (fleet, a, b)
}

#[test]
fn deletes_wait_for_their_age_and_for_every_live_device() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into items values ('1', 'x', 0), ('2', 'x', 0)");
    fleet.converge(&[&a, &b], ALL);
    a.sql("delete from items where id = '1'");
    fleet.converge(&[&a, &b], ALL);
    collect(&fleet, &b);
    collect(&fleet, &a);
    assert_eq!(tombstones(&fleet), 1, "too young");

    a.sql("delete from items where id = '2'");
    a.json(&["now"]);
    age_deletes(&fleet);
    collect(&fleet, &a);
    let second = "select count(*) from tidewater_tombstones where pk = '[\"2\"]'";
    assert_eq!(fleet.schema.one(second), "1", "b has read the first only");
    b.json(&["now"]);
    let before = id(&b);
    collect_all(&fleet, &[&b, &a]);
    assert_ne!(
        fleet.schema.one("select gc_xid from tidewater_workspace"),
        "0"
    );
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(id(&b), before, "who was there needs no listing");
    // From here on a program that does not compare its cursor has to stop.
    assert_eq!(
        fleet.schema.one("select protocol from tidewater_workspace"),
        "2"
    );
}

#[test]
fn a_retired_device_holds_nothing_back() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into items values ('1', 'x', 0)");
    fleet.converge(&[&a, &b], ALL);
    a.sql("delete from items where id = '1'");
    a.json(&["now"]);
    age_deletes(&fleet);
    collect(&fleet, &a);
    assert_eq!(tombstones(&fleet), 1);
    a.json(&["devices", "retire", &id(&b)]);
    collect_all(&fleet, &[&a]);
    fleet.converge(&[&b, &a], ALL);
    assert!(b.rows(ALL).is_empty());
}

#[test]
fn a_device_that_was_away_deletes_what_is_forgotten_and_keeps_what_it_wrote() {
    let (fleet, a, b) = forgotten();
    let former = id(&b);
    // One row that was deleted there is edited here, one is new, one that is there is edited.
    b.sql(
        "update items set body = 'mine' where id = '2'; \
         insert into items values ('5', 'new', 5); \
         update items set body = 'b' where id = '3'",
    );
    a.sql("update items set body = 'a' where id = '4'");
    a.json(&["now"]);
    fleet.converge(&[&b, &a], ALL);
    assert_eq!(
        fleet.server(ALL),
        [["3", "b", "0"], ["4", "a", "0"], ["5", "new", "5"]]
    );
    assert_ne!(id(&b), former);
    assert_eq!(state_of(&fleet, &former), "retired");
    assert_eq!(state_of(&fleet, &id(&b)), "active");
    // The edit of the deleted row is kept whole.
    let lost = conflicts(&b);
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!(lost[0]["kind"], "update_delete");
    assert_eq!(lost[0]["winner"], "remote");
    assert_eq!(lost[0]["local"]["body"], "mine");
    assert!(lost[0]["original_file"].is_string());
    assert!(b.json(&["verify"])["identical"].as_bool() == Some(true));
    // And can be taken back, as a new edit.
    b.json(&[
        "conflicts",
        "restore",
        lost[0]["id"].as_str().expect("an id"),
    ]);
    fleet.converge(&[&b, &a], ALL);
    assert_eq!(fleet.server(ALL)[0], ["2", "mine", "0"]);
}

#[test]
fn a_device_that_only_reads_deletes_what_is_forgotten() {
    let (fleet, a, b) = forgotten();
    b.json(&["now", "--pull"]);
    assert_eq!(b.rows(ALL), fleet.server(ALL));
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(fleet.conflicts(), 0);
    assert!(conflicts(&b).is_empty());
}

#[test]
fn a_parked_edit_older_than_the_mark_is_looked_at_before_it_is_sent() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into items values ('1', 'x', 0), ('2', 'x', 0)");
    fleet.converge(&[&a, &b], ALL);
    fleet
        .schema
        .exec("alter table items add constraint small check (n < 10)");
    b.sql("update items set n = 11");
    b.tw(&["now"]).expect_code(1);
    a.sql("delete from items where id = '1'");
    fleet.converge(&[&a, &b], "select id from items where id = '1' and false");
    age_deletes(&fleet);
    collect_all(&fleet, &[&b, &a]);
    fleet.schema.exec("alter table items drop constraint small");
    b.tw(&["retry"]).ok();
    fleet.converge(&[&b, &a], ALL);
    assert_eq!(fleet.server(ALL), [["2", "x", "11"]]);
    assert_eq!(conflicts(&b).len(), 1);
}

#[test]
fn rows_that_never_left_are_not_deleted_by_a_listing() {
    let (fleet, _a, b) = forgotten();
    // As a table with a privacy column has them: here only, and nobody else knows.
    b.sql(
        "update tidewater_guard set v = 1; insert into items values ('secret', 's', 0); \
         update tidewater_guard set v = 0; \
         insert into tidewater_private values ('items', '[\"secret\"]')",
    );
    b.json(&["now"]);
    assert_eq!(b.rows("select id from items"), [["3"], ["4"], ["secret"]]);
    assert_eq!(
        fleet.server("select id from items order by id"),
        [["3"], ["4"]]
    );
}

#[test]
fn a_listing_that_is_interrupted_is_made_again() {
    let (fleet, a, b) = forgotten();
    b.sql("update items set body = 'b' where id = '3'");
    crash(&b, "fetch_received", &["now"]);
    b.json(&["now"]);
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(fleet.server(ALL), [["3", "b", "0"], ["4", "x", "0"]]);
    assert_eq!(
        fleet.schema.one("select count(*) from tidewater_devices"),
        "3"
    );
}
