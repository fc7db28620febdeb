//! Files that are copied, and put back from a copy, while services run on them: each is recognised at its
//! next contact, and what either side wrote arrives.

use crate::support::cli::{Device, Running};
use crate::support::fleet::{Fleet, ITEMS, id};
use crate::support::wait::{PATIENCE, eventually};
use std::fs;
use std::path::Path;

const QUICK: &str =
    "[upload]\npoll_interval_seconds = 0.1\n\n[download]\npoll_interval_seconds = 0.1\n";
const BODIES: &str = "select body from items order by body";

/// A copy of the device's file as `VACUUM INTO` makes it.
fn copy(device: &Device, to: &Path) {
    device.sql(&format!("vacuum into '{}'", to.display()));
}

/// Waits until both the server and the device hold these bodies, and nothing else.
#[track_caller]
fn holds(fleet: &Fleet, devices: &[&Device], bodies: &[&str]) {
    let wanted: Vec<Vec<String>> = bodies.iter().map(|b| vec![(*b).to_owned()]).collect();
    eventually(PATIENCE * 2, &format!("{bodies:?} everywhere"), || {
        fleet.server(BODIES) == wanted && devices.iter().all(|d| d.rows(BODIES) == wanted)
    });
}

fn stop(service: Running) {
    service.signal(libc::SIGTERM);
    let ended = service.wait(PATIENCE * 2).ok();
    assert!(!ended.stderr.contains("panicked"), "{ended:#?}");
}

#[test]
fn a_file_that_runs_on_two_machines_becomes_two_devices() {
    let fleet = Fleet::configured(ITEMS, QUICK);
    let first = fleet.device("first");
    first.sql("insert into items values ('1', 'before', 0)");
    let service = first.spawn(&["run"]);
    holds(&fleet, &[&first], &["before"]);
    first.json(&["now"]);

    let second = Device::with_url(fleet.schema.url(), fleet.schema.name(), "second", QUICK);
    copy(&first, &second.db());
    // Neither knows of the other yet, and both write under one identity.
    second.sql("insert into items values ('2', 'second offline', 0)");
    first.sql("insert into items values ('3', 'first online', 0)");
    let other = second.spawn(&["run"]);
    let both = [&first, &second];
    holds(&fleet, &both, &["before", "first online", "second offline"]);
    eventually(PATIENCE, "two identities", || id(&first) != id(&second));
    eventually(PATIENCE, "the fact to be told", || {
        format!("{}{}", service.stderr(), other.stderr()).contains("SYNC-008")
    });

    first.sql("update items set body = 'a' where id = '1'");
    holds(&fleet, &both, &["a", "first online", "second offline"]);
    second.sql("update items set body = 'b' where id = '1'");
    holds(&fleet, &both, &["b", "first online", "second offline"]);
    stop(service);
    stop(other);
    for device in both {
        device.tw(&["verify"]).ok();
        assert_eq!(device.json(&["status"])["upload"]["failed"], 0);
    }
}

#[test]
fn an_older_file_put_back_under_the_service_gets_what_it_lacks() {
    let fleet = Fleet::configured(ITEMS, QUICK);
    let device = fleet.device("a");
    device.sql("insert into items values ('1', 'old', 0), ('2', 'kept', 0)");
    let service = device.spawn(&["run"]);
    holds(&fleet, &[&device], &["kept", "old"]);
    device.json(&["now"]);
    let earlier = device.folder().join("earlier.db");
    copy(&device, &earlier);

    device.sql("update items set body = 'new' where id = '1'");
    device.sql("insert into items values ('3', 'sent since', 0)");
    holds(&fleet, &[&device], &["kept", "new", "sent since"]);
    device.json(&["now"]);
    let before = id(&device);
    for end in ["-wal", "-shm"] {
        let _ = fs::remove_file(device.folder().join(format!("app.db{end}")));
    }
    fs::rename(&earlier, device.db()).expect("the file of before");

    // An app that opens the file while another process lets go of the one before may be told of an error:
    // SQLite finds the log by its name.
    eventually(PATIENCE, "the other file to be noticed", || {
        service.stderr().contains("replaced by another file")
    });
    device.sql("insert into items values ('4', 'written in the old file', 0)");
    holds(
        &fleet,
        &[&device],
        &["kept", "new", "sent since", "written in the old file"],
    );
    eventually(PATIENCE, "another identity", || id(&device) != before);
    eventually(PATIENCE, "the fact to be told", || {
        service.stderr().contains("SYNC-008")
    });
    stop(service);
    device.tw(&["verify"]).ok();
}
