//! Exit codes, signals, the service seen from outside, and how connections name themselves.

use super::{DDL, NOWHERE, synced};
use crate::support::cli::{Device, Running, command};
use crate::support::fleet::Fleet;
use crate::support::http::Endpoint;
use crate::support::proxy::{Mode, Proxy};
use crate::support::server::Schema;
use crate::support::wait::{PATIENCE, eventually};

#[test]
fn a_service_is_seen_and_holds_its_device_and_ends_with_0() {
    let (fleet, device) = synced();
    for (signal, words) in [
        (libc::SIGTERM, &["run"][..]),
        (libc::SIGINT, &["run", "--json", "--log-format", "json"]),
    ] {
        let service = device.spawn(words);
        let running = || device.json(&["status"])["service"]["running"] == true;
        eventually(PATIENCE, "a service", running);
        let seen = device.json(&["status"]);
        assert_eq!(seen["service"]["pid"], service.pid(), "{seen}");
        let second = device.tw(&["--json", "run"]).expect_code(5).json();
        assert_eq!(second["error"]["code"], "SYNC-010");
        device.tw(&["detach"]).expect_code(5);
        // Everything else goes on beside it.
        device.sql(&format!("insert into messages values ('s{signal}', '', 0)"));
        assert_eq!(device.json(&["now", "--timeout", "60"])["pending"], 0);
        device.tw(&["init"]).ok();
        device.tw(&["verify"]).ok();
        let names = fleet.server(&format!(
            "select distinct application_name from pg_stat_activity \
             where application_name like '%{} laptop'",
            env!("CARGO_PKG_VERSION")
        ));
        assert_eq!(
            names,
            [[format!("tidewater/{} laptop", env!("CARGO_PKG_VERSION"))]]
        );
        service.signal(signal);
        let ended = service.wait(PATIENCE).ok();
        assert!(ended.stdout.is_empty(), "logs go to stderr: {ended:?}");
        let after = device.json(&["status"]);
        assert_eq!(
            after["service"],
            serde_json::json!({"running": false, "pid": null})
        );
    }
}

#[test]
fn a_command_that_is_interrupted_ends_with_130() {
    let fleet = Fleet::new(DDL);
    let proxy = Proxy::shared_server();
    let device = fleet.device_through(&proxy, "a", "");
    device.sql("insert into messages values ('m1', 'one', 1)");
    proxy.set(Mode::BlackHole);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let before = proxy.stats().connections;
        let now = device.spawn(&["now"]);
        eventually(PATIENCE, "a connection", || {
            proxy.stats().connections > before
        });
        now.signal(signal);
        now.wait(PATIENCE).expect_code(130);
    }
    // A deadline of one's own is the remote's fault.
    device.tw(&["now", "--timeout", "0.2"]).expect_code(3);
    proxy.set(Mode::Pass);
    assert_eq!(device.json(&["now"])["uploaded"], 1);
}

#[test]
fn a_local_database_that_cannot_be_used_is_4() {
    let schema = Schema::new();
    let device = Device::new(&schema, "a");
    let refused = |words: &[&str]| {
        let said = device
            .tw(&[&["--json"], words].concat())
            .expect_code(4)
            .json();
        assert_eq!(said["error"]["code"], "SYNC-012", "{said}");
    };
    for words in [
        &["init"][..],
        &["run"],
        &["now"],
        &["status"],
        &["queue"],
        &["doctor"],
    ] {
        if words != ["doctor"] {
            refused(words);
        }
        assert!(!device.db().exists(), "{words:?} made a file");
    }
    device.sql(DDL);
    for words in [
        &["run"][..],
        &["now"],
        &["status"],
        &["queue"],
        &["pause"],
        &["resume"],
        &["conflicts"],
        &["verify"],
        &["retry"],
        &["explain", "messages", "m1"],
        &["prune"],
        &["detach"],
    ] {
        refused(words);
    }
    std::fs::write(device.db(), "this is no database, and was never one").expect("a file");
    refused(&["init"]);
    for words in [
        &["--db", ".", "status"][..],
        &["--db", "nosuch/app.db", "init"],
    ] {
        refused(words);
    }
}

#[test]
fn an_uninitialised_file_is_initialised_by_run_where_it_is_asked_for() {
    let schema = Schema::new();
    let device = Device::new(&schema, "a");
    let service = device.spawn(&["run", "--init"]);
    device.sql(DDL);
    device.sql("insert into messages values ('m1', 'one', 1)");
    eventually(PATIENCE, "the row in the workspace", || {
        let found = schema
            .client()
            .try_rows(&format!("select id from \"{}\".messages", schema.name()));
        found.is_ok_and(|rows| rows == [["m1"]])
    });
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();
}

#[cfg(target_os = "linux")]
#[test]
fn a_service_whose_folder_cannot_be_written_needs_no_configuration_file() {
    let schema = Schema::new();
    let device = Device::new(&schema, "a");
    device.sql(DDL);
    device.sql("insert into messages values ('m1', 'one', 1)");
    // A folder in which not even the superuser makes a file.
    let mut command = command(std::path::Path::new("/proc"));
    command
        .env("TIDEWATER_LOCAL__PATH", device.db())
        .env("TIDEWATER_REMOTE__URL", schema.url())
        .env("TIDEWATER_REMOTE__SCHEMA", schema.name())
        .args(["run", "--init"]);
    let service = Running::spawn(command);
    eventually(PATIENCE, "the row in the workspace", || {
        let query = format!("select id from \"{}\".messages", schema.name());
        schema
            .client()
            .try_rows(&query)
            .is_ok_and(|rows| rows == [["m1"]])
    });
    service.signal(libc::SIGTERM);
    let log = service.wait(PATIENCE).ok().stderr;
    assert!(log.contains("no configuration is written"), "{log}");
}

#[test]
fn the_endpoint_is_where_it_is_configured() {
    let (_fleet, mut device) = synced();
    device.set_env("TIDEWATER_METRICS__LISTEN", "127.0.0.1:0");
    let service = device.spawn(&["run"]);
    let endpoint = Endpoint::of(&service);
    for (path, code) in [
        ("/healthz", 200),
        ("/metrics", 200),
        ("/", 200),
        ("/nosuch", 404),
    ] {
        endpoint.get(path).expect(code);
    }
    eventually(PATIENCE, "readiness", || {
        endpoint.get("/readyz").status == 200
    });
    let metrics = endpoint.get("/metrics").body;
    assert!(
        metrics
            .lines()
            .filter(|l| !l.starts_with('#'))
            .all(|l| { l.starts_with("tidewater_") || l.starts_with("process_") })
    );
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();
    // Items that failed are no fault of a status, and retry without the server keeps them.
    device.tw(&[&NOWHERE[..], &["retry"]].concat()).ok();
}
