//! The workspace's devices: listed, retired, and what the ledger keeps account of.

use super::support::cli::{Device, tidewater};
use super::support::fleet::{ALL, Fleet, ITEMS, id, state};
use serde_json::Value;

/// The lines of `devices`.
#[track_caller]
fn devices(device: &Device) -> Vec<Value> {
    device.json(&["devices"])["devices"]
        .as_array()
        .expect("a list")
        .clone()
}

/// The line of the device of this name.
#[track_caller]
fn line(of: &Device, name: &str) -> Value {
    devices(of)
        .into_iter()
        .find(|d| d["name"] == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn every_device_is_listed_with_how_far_it_is_behind() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = (fleet.device("laptop"), fleet.device("phone"));
    fleet.converge(&[&a, &b], ALL);
    let mine = line(&a, "laptop");
    assert_eq!(mine["this"], true);
    assert_eq!(mine["id"], id(&a));
    assert_eq!(mine["state"], "active");
    assert_eq!(mine["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(mine["login"], "postgres");
    let theirs = line(&a, "phone");
    assert_eq!(theirs["this"], false);
    assert_eq!(theirs["behind_rows"], 0);
    assert_eq!(theirs["behind_seconds"], 0.0);

    // Changes of others, a delete among them; not one's own.
    a.sql("insert into items values ('1', 'x', 0), ('2', 'x', 0), ('3', 'x', 0)");
    a.json(&["now"]);
    a.sql("delete from items where id = '3'");
    a.json(&["now"]);
    assert_eq!(line(&a, "phone")["behind_rows"], 3);
    assert!(line(&a, "phone")["behind_seconds"].as_f64() > Some(0.0));
    assert_eq!(line(&b, "laptop")["behind_rows"], 0);
    b.json(&["now"]);
    assert_eq!(line(&a, "phone")["behind_rows"], 0);

    let text = a.tw(&["devices"]).ok().stdout;
    assert!(text.contains("laptop (this one)"), "{text}");
}

#[test]
fn an_administrator_needs_no_file_and_an_ambiguous_name_is_refused() {
    let fleet = Fleet::new(ITEMS);
    let (_a, b) = (fleet.device("shelf-1"), fleet.device("shelf-2"));
    let folder = tempfile::tempdir().expect("a folder");
    let url = fleet.schema.url();
    let say = |words: &[&str]| {
        let head = ["--json", "--remote", url, "--schema", fleet.schema.name()];
        tidewater(folder.path(), &[&head, words].concat())
    };
    let all = say(&["devices"]).ok().json();
    assert_eq!(all["devices"].as_array().map(Vec::len), Some(2));
    let unclear = say(&["devices", "retire", "shelf"]).expect_code(2).json();
    let message = unclear["error"]["message"].as_str().expect("text");
    assert!(message.contains(&id(&b)), "{message}");
    let done = say(&["devices", "retire", "shelf-2"]).ok().json();
    assert_eq!(done["devices"][0]["state"], "retired");
    say(&["devices", "retire", "nobody"]).expect_code(2);
}

#[test]
fn a_retired_device_that_speaks_is_active_again() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    fleet.converge(&[&a, &b], ALL);
    a.json(&["devices", "retire", &id(&b)[..]]);
    assert_eq!(line(&a, "b")["state"], "retired");
    let before = id(&b);
    b.sql("insert into items values ('1', 'b', 0)");
    b.json(&["now"]);
    assert_eq!(line(&a, "b")["state"], "active");
    assert_eq!(id(&b), before, "nothing was collected meanwhile");
    fleet.converge(&[&a, &b], ALL);
}

#[test]
fn a_device_that_shares_its_login_keeps_it() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    let refused = a
        .tw(&["--json", "devices", "revoke", &id(&b)])
        .expect_code(2)
        .json();
    let error = &refused["error"];
    assert_eq!(error["code"], "SYNC-013");
    let message = error["message"].as_str().expect("text");
    assert!(message.contains("shares its login"), "{message}");
    assert!(
        error["remedy"]
            .as_str()
            .expect("text")
            .contains("provision")
    );
    b.json(&["now"]);
}

#[test]
fn an_idle_sync_tells_the_workspace_nothing_within_the_hour() {
    let fleet = Fleet::new(ITEMS);
    let a = fleet.device("a");
    a.json(&["now"]);
    a.json(&["now"]);
    let seen = fleet
        .schema
        .one("select last_seen::text from tidewater_devices");
    a.json(&["now"]);
    assert_eq!(
        fleet
            .schema
            .one("select last_seen::text from tidewater_devices"),
        seen
    );
    // An hour later it says that it lives.
    a.sql("update tidewater_state set value = '1' where name = 'told_at'");
    a.json(&["now"]);
    assert_ne!(
        fleet
            .schema
            .one("select last_seen::text from tidewater_devices"),
        seen
    );
}

/// The workspace as version 0.1 made it.
const OLDER: &str = include_str!("../../migrations/postgres/0001_workspace.sql");

#[test]
fn a_workspace_of_the_older_form_is_brought_up_to_date_and_still_takes_older_programs() {
    let fleet = Fleet::new(ITEMS);
    let name = fleet.schema.name();
    fleet
        .schema
        .exec(&OLDER.replace(":\"schema\"", &format!("\"{name}\"")));
    fleet.schema.exec(
        "insert into tidewater_workspace (protocol, migration) values (1, 1); \
         insert into tidewater_devices (id, name, version) values ('01OLD', 'old', '0.1.0')",
    );
    let folder = tempfile::tempdir().expect("a folder");
    let words = [
        "--json",
        "--remote",
        fleet.schema.url(),
        "--schema",
        name,
        "devices",
    ];
    let old = tidewater(folder.path(), &words).expect_code(6).json();
    assert_eq!(old["error"]["code"], "SYNC-016");
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into items values ('1', 'x', 0)");
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(
        fleet
            .schema
            .one("select migration from tidewater_workspace"),
        "2"
    );
    assert_eq!(line(&a, "b")["behind_rows"], 0);
    assert!(line(&a, "old")["behind_rows"].is_null());
    // What an older program compares before it goes on.
    assert_eq!(
        fleet.schema.one("select protocol from tidewater_workspace"),
        "1"
    );
    // A file that an older program prepared asks again, once.
    b.sql("delete from tidewater_state where name = 'workspace_form'");
    b.json(&["now"]);
    assert_eq!(state(&b, "workspace_form"), "2");
}
