//! The examples, run as they stand against a device that has something to show.

use crate::support::cli::{Device, Running};
use crate::support::fleet::{Fleet, ITEMS};
use crate::support::wait::PATIENCE;
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One row of each kind: sent, refused, in conflict, not sent.
fn device(fleet: &Fleet) -> Device {
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into items values ('1', 'one', 1), ('2', 'two', 2), ('3', 'three', 3)");
    a.tw(&["now"]).ok();
    b.tw(&["now"]).ok();
    b.sql("update items set body = 'b' where id = '3'");
    a.sql("update items set body = 'a' where id = '3'");
    b.tw(&["now"]).ok();
    a.tw(&["now"]).ok();
    fleet
        .schema
        .exec("alter table items add constraint sane check (n > 0)");
    a.sql("update items set n = -1 where id = '2'");
    a.tw(&["now"]).expect_code(1);
    a.sql("insert into items values ('4', 'four', 4)");
    a
}

#[track_caller]
fn expect_badges(said: &str) {
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert_eq!(lines[0], "1  ✓");
    assert!(lines[1].starts_with("2  ✗ failed: SYNC-005: "), "{said}");
    assert_eq!(lines[2..], ["3  ≠ in conflict", "4  ○ not sent yet"]);
}

#[test]
fn badges_by_python() {
    let fleet = Fleet::new(ITEMS);
    let device = device(&fleet);
    let mut python = Command::new("python3");
    python
        .arg(root().join("examples/unsynced_badge.py"))
        .arg(device.db())
        .arg("items")
        .env("PYTHONIOENCODING", "utf-8");
    expect_badges(&Running::spawn(python).wait(PATIENCE).ok().stdout);
}

#[test]
fn badges_by_rust() {
    let fleet = Fleet::new(ITEMS);
    let device = device(&fleet);
    // Cargo builds the examples before it runs the tests, beside the programs of the same profile.
    let program = Path::new(env!("CARGO_BIN_EXE_tidewater"))
        .with_file_name("examples")
        .join("unsynced_badge");
    let mut rust = Command::new(program);
    rust.arg(device.db()).arg("items");
    expect_badges(&Running::spawn(rust).wait(PATIENCE).ok().stdout);
}
