//! A file of the version before, with work in every queue, and a file of a version to come.
//!
//! `data/migration_1.sql` was dumped from a file that version 0.1 had made and worked with, offline: a
//! claimed change that was edited again, one that was parked for its size, captured ones that were not
//! claimed, a row that could not be applied, a conflict.

use crate::support::cli::Device;
use crate::support::server::Schema;
use serde_json::json;

const DUMP: &str = include_str!("data/migration_1.sql");

/// A device whose file is of migration 1.
fn of_before(schema: &Schema) -> Device {
    let device = Device::new(schema, "old");
    device.sql(DUMP);
    // A dump is another file: its schema was made in other steps.
    device.sql(
        "update tidewater_state set value = (select schema_version from pragma_schema_version) \
         where name = 'schema_version'",
    );
    assert_eq!(migration(&device), "1");
    device
}

#[track_caller]
fn migration(device: &Device) -> String {
    device
        .rows("select value from tidewater_state where name = 'migration'")
        .remove(0)
        .remove(0)
}

#[track_caller]
fn expect_everything_waits(device: &Device) {
    assert_eq!(
        device
            .rows("select table_name, pk, typeof(pk), status from tidewater_status order by 1, 2"),
        [
            ["items", "claimed", "text", "pending"],
            ["items", "large", "text", "failed"],
            ["items", "logged", "text", "pending"],
            ["items", "stood", "text", "pending"],
            ["items", "stuck", "text", "failed"],
            ["pair", "[\"p\",7]", "text", "pending"],
            ["pair", "[\"q\",8]", "text", "pending"],
        ]
    );
}

#[test]
fn looking_at_a_file_of_the_version_before_brings_it_up_to_date() {
    let schema = Schema::new();
    let device = of_before(&schema);
    let said = device.json(&["status"]);
    assert_eq!(migration(&device), "3");
    // The claimed change and the one in the log are one row, each is counted where it stands.
    assert_eq!(
        (&said["upload"]["pending"], &said["upload"]["failed"]),
        (&json!(6), &json!(1))
    );
    assert_eq!(said["conflicts"]["unseen"], 1);
    expect_everything_waits(&device);
    let again = device.rows("select count(*) from sqlite_schema");
    device.json(&["status"]);
    assert_eq!(device.rows("select count(*) from sqlite_schema"), again);
}

#[test]
fn whatever_waited_in_it_is_sent() {
    for words in [&["now"][..], &["run"]] {
        let schema = Schema::new();
        let device = of_before(&schema);
        if words == ["now"] {
            device.tw(words).ok();
        } else {
            let service = device.spawn(words);
            crate::support::wait::eventually(crate::support::wait::PATIENCE, "all sent", || {
                schema
                    .client()
                    .try_rows("select id from items union all select a from pair")
                    .is_ok_and(|rows| rows.len() == 5)
            });
            service.signal(libc::SIGTERM);
            service.wait(crate::support::wait::PATIENCE).ok();
        }
        assert_eq!(migration(&device), "3");
        assert_eq!(
            schema.rows("select id, body, n from items order by id"),
            [
                ["claimed", "first", "11"],
                ["logged", "not claimed", "3"],
                ["stood", "before init", "0"]
            ]
        );
        assert_eq!(schema.rows("select a, b, v from pair order by a").len(), 2);
        // Parked it was, and parked it stays until somebody acts.
        let failed = device.json(&["queue", "--errors"]);
        assert_eq!(failed["items"][0]["pk"], json!(["large"]), "{failed}");
        assert_eq!(device.json(&["retry"])["results"][0]["outcome"], "synced");
        assert_eq!(device.json(&["conflicts"])["total"], 1);
    }
}

#[test]
fn a_file_of_a_newer_version_is_refused_by_every_command() {
    let schema = Schema::new();
    let device = of_before(&schema);
    device.sql("update tidewater_state set value = '99' where name = 'migration'");
    let before = device.rows("select name, sql from sqlite_schema order by name");
    for words in [
        &["init"][..],
        &["init", "--dry-run"],
        &["run"],
        &["now"],
        &["now", "--dry-run"],
        &["status"],
        &["status", "items", "stood"],
        &["status", "--watch"],
        &["queue"],
        &["queue", "--inbox"],
        &["queue", "show", "0"],
        &["retry"],
        &["discard", "0", "--yes"],
        &["pause"],
        &["resume"],
        &["conflicts"],
        &["conflicts", "show", "0"],
        &["conflicts", "restore", "0"],
        &["conflicts", "ack", "--all"],
        &["verify"],
        &["explain", "items", "stood"],
        &["prune"],
        &["detach", "--yes"],
    ] {
        let refused = device.tw(&[&["--json"], words].concat());
        assert_eq!(refused.code, 4, "{words:?}: {refused:?}");
        let error = &refused.json()["error"];
        assert_eq!(error["code"], "SYNC-012", "{words:?}");
        let remedy = error["remedy"].as_str().unwrap_or_default();
        assert!(remedy.contains("upgrade"), "{words:?}: {error}");
    }
    assert_eq!(
        device.rows("select name, sql from sqlite_schema order by name"),
        before
    );
}
