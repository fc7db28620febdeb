//! Offline for long: being out of reach is never an attempt, and the queue drains soon after.

use crate::sides;
use crate::stories::{messages, through};
use crate::support::cli::Device;
use crate::support::proxy::{Mode, Proxy};
use crate::support::server::{Schema, start};
use crate::support::wait::{PATIENCE, eventually};
use std::time::{Duration, Instant};
use tidewater::throwaway::Options;

const POLL: Duration = Duration::from_millis(50);
const FAST: &str =
    "[upload]\npoll_interval_seconds = 0.05\n\n[download]\npoll_interval_seconds = 0.05\n";
/// From the remote's return to an empty queue.
const SOON: Duration = Duration::from_secs(10);
const ROWS: usize = 1_000;

fn write(device: &Device, from: usize) {
    let to = from + ROWS - 1;
    device.sql(&format!(
        "with recursive c(i) as (select {from} union all select i + 1 from c where i < {to}) \
         insert into messages select 'm' || i, 'body ' || i, i from c"
    ));
}

/// Waits until `polls` intervals have passed and the remote was looked for meanwhile; every item of
/// the queue is still without an attempt then.
#[track_caller]
fn stay_offline(device: &Device, polls: u32, looked_for: impl Fn() -> bool) {
    let began = Instant::now();
    eventually(PATIENCE * 2, "the polls while offline", || {
        began.elapsed() > POLL * polls && looked_for()
    });
    let items = sides::queue(device, &["--limit", "100000"]);
    let waiting: Vec<_> = items.iter().filter(|i| i["status"] != "synced").collect();
    assert!(waiting.len() >= ROWS, "{} items wait", waiting.len());
    for item in waiting {
        assert_eq!(item["attempts"], 0, "{item}");
        assert!(item["error"].is_null(), "{item}");
    }
}

#[test]
fn fifty_polls_without_a_remote_use_no_attempt_and_everything_drains_soon() {
    let schema = Schema::new();
    let proxy = Proxy::shared_server();
    let device = messages(&schema, &through(&schema, &proxy), "a", FAST);
    device.sql("insert into messages values ('m0', 'online', 0)");
    let service = device.spawn(&["run"]);
    eventually(PATIENCE, "the service at work", || {
        schema.one("select count(*) from messages") == "1"
    });

    proxy.set(Mode::Refuse);
    proxy.reset_stats();
    write(&device, 1);
    // More looks than the five attempts that an answer of the server would be given.
    stay_offline(&device, 50, || proxy.stats().connections >= 6);
    write(&device, 10_001);
    assert_eq!(device.json(&["status"])["mode"], "offline");

    proxy.set(Mode::Pass);
    let back = Instant::now();
    eventually(SOON, "an empty queue", || {
        schema.one("select count(*) from messages") == (2 * ROWS + 1).to_string()
    });
    println!("drained {:?} after the return", back.elapsed());
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();
    sides::sync(&device);
    sides::assert_equal(&device, &schema);
    let failed = device.json(&["status"])["upload"]["failed"].clone();
    assert_eq!(failed, 0);
}

#[test]
fn a_server_that_crashes_and_returns_costs_no_attempt() {
    let server = start(Options {
        fsync: true,
        ..Options::default()
    });
    let schema = Schema::on(&server.url());
    let device = messages(&schema, schema.url(), "a", FAST);
    device.sql("insert into messages values ('m0', 'online', 0)");
    let service = device.spawn(&["run"]);
    eventually(PATIENCE, "the service at work", || {
        schema.one("select count(*) from messages") == "1"
    });
    server.stop_immediate().unwrap();
    write(&device, 1);
    stay_offline(&device, 50, || {
        device.json(&["status"])["mode"] == "offline"
    });
    server.start_again().unwrap();
    eventually(SOON, "an empty queue", || {
        schema.one("select count(*) from messages") == (ROWS + 1).to_string()
    });
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();
    sides::sync(&device);
    sides::assert_equal(&device, &schema);
    sides::verify(&device);
}

#[test]
fn a_server_that_is_full_costs_no_attempt() {
    let server = start(Options {
        settings: vec![
            ("max_connections".into(), "4".into()),
            ("superuser_reserved_connections".into(), "0".into()),
            ("max_wal_senders".into(), "0".into()),
            ("autovacuum".into(), "off".into()),
        ],
        ..Options::default()
    });
    let schema = Schema::on(&server.url());
    let device = messages(&schema, schema.url(), "a", "");
    sides::sync(&device);
    write(&device, 1);
    // Every connection is taken.
    let mut taken = Vec::new();
    while let Ok(client) = crate::support::server::Client::try_connect(&server.url()) {
        taken.push(client);
        assert!(taken.len() < 20, "the server is never full");
    }
    let said = device.tw(&["--json", "now"]).expect_code(3).json();
    assert_eq!(said["error"]["code"], "SYNC-001", "{said}");
    stay_offline(&device, 0, || true);
    drop(taken);
    eventually(PATIENCE, "a free connection", || {
        device.tw(&["now"]).code == 0
    });
    assert_eq!(
        schema.one("select count(*) from messages"),
        ROWS.to_string()
    );
    sides::assert_equal(&device, &schema);
}
