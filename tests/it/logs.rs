//! The log of a service: one line for each event that matters, the same as text and as JSON, no row values.

use crate::support::cli::{Device, Running};
use crate::support::fleet::{Fleet, ITEMS};
use crate::support::proxy::{Mode, Proxy};
use crate::support::wait::{PATIENCE, eventually};
use serde_json::Value;

const QUICK: &str = "[upload]\npoll_interval_seconds = 0.2\n\n[download]\npoll_interval_seconds = 0.2\n\n\
                     [retry]\nbase_delay_seconds = 0.02\nmax_delay_seconds = 0.05\n";

const CANARY: &str = "canary-77c1";

fn service(device: &Device) -> Running {
    device.spawn(&["--log-format", "json", "run"])
}

/// The lines so far, each of which is one document.
#[track_caller]
fn lines(service: &Running) -> Vec<Value> {
    let text = service.stderr();
    // The last one may be half written.
    let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

#[track_caller]
fn with(service: &Running, field: &str, value: &str) -> Vec<Value> {
    lines(service)
        .into_iter()
        .filter(|l| l["fields"][field] == value)
        .collect()
}

#[track_caller]
fn says(service: &Running, message: &str) -> Vec<Value> {
    lines(service)
        .into_iter()
        .filter(|l| {
            let said = l["fields"]["message"].as_str().unwrap_or_default();
            said.contains(message)
        })
        .collect()
}

#[track_caller]
fn stop(service: Running) -> String {
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok().stderr
}

#[test]
fn an_outage_is_its_beginning_and_its_end() {
    let fleet = Fleet::configured(ITEMS, QUICK);
    let proxy = Proxy::shared_server();
    let device = fleet.device_through(&proxy, "a", "");
    let service = service(&device);
    device.sql("insert into items values ('k', 'x', 1)");
    eventually(PATIENCE, "the row", || {
        fleet.schema.one("select count(*) from items") == "1"
    });
    proxy.reset_stats();
    proxy.set(Mode::Refuse);
    eventually(PATIENCE, "a dozen attempts", || {
        proxy.stats().connections >= 12
    });
    let failed = with(&service, "code", "SYNC-001");
    // Refused, and where it struck a sync in hand cut or reset: each of these once, not one for each attempt.
    let mut told: Vec<_> = failed
        .iter()
        .map(|l| l["fields"]["error"].to_string())
        .collect();
    told.sort();
    told.dedup();
    assert_eq!(told.len(), failed.len(), "told twice: {failed:#?}");
    assert!(
        (1..=proxy.stats().connections / 2).contains(&(failed.len() as u64)),
        "{failed:#?}"
    );
    assert!(
        failed.iter().all(|l| l["fields"]["remedy"].is_string()),
        "{failed:#?}"
    );
    assert!(says(&service, "works again").is_empty());
    proxy.set(Mode::Pass);
    eventually(PATIENCE, "the end to be told", || {
        says(&service, "works again").len() == 1
    });
    let over = says(&service, "works again").remove(0);
    assert!(over["fields"]["failures"].as_u64() >= Some(4), "{over}");
    assert!(over["fields"]["seconds"].is_u64(), "{over}");
    stop(service);
}

#[test]
fn each_conflict_is_one_line_and_what_was_refused_alike_is_one() {
    let fleet = Fleet::configured(ITEMS, QUICK);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    for key in ["k1", "k2", "k3"] {
        a.sql(&format!(
            "insert into items values ('{key}-{CANARY}', '{CANARY}', 1)"
        ));
    }
    a.json(&["now"]);
    b.json(&["now"]);
    b.sql(&format!("update items set body = 'b-{CANARY}'"));
    b.json(&["now"]);
    a.sql(&format!("update items set body = 'a-{CANARY}'"));
    a.sql(&format!(
        "begin; insert into items values ('k4-{CANARY}', '', 'no number');
         insert into items values ('k5-{CANARY}', '', 'nor this'); commit;"
    ));
    let service = service(&a);
    eventually(PATIENCE, "three conflicts", || {
        with(&service, "code", "SYNC-003").len() >= 3
    });
    eventually(PATIENCE, "two parked changes", || {
        !says(&service, "are parked").is_empty()
    });
    a.json(&["now"]);
    a.json(&["now"]);
    let conflicts = with(&service, "code", "SYNC-003");
    assert_eq!(conflicts.len(), 3, "{conflicts:#?}");
    for line in &conflicts {
        assert_eq!(line["fields"]["table"], "items", "{line}");
        for field in ["kind", "winner", "policy", "id"] {
            assert!(line["fields"][field].is_string(), "{field}: {line}");
        }
        assert!(
            line["timestamp"].is_string() && line["level"] == "WARN",
            "{line}"
        );
    }
    let parked = says(&service, "are parked");
    assert_eq!(parked.len(), 1, "{parked:#?}");
    assert_eq!(parked[0]["fields"]["changes"], 2, "{parked:#?}");
    assert_eq!(parked[0]["fields"]["code"], "SYNC-005", "{parked:#?}");
    let log = stop(service);
    assert!(!log.contains(CANARY), "{log}");
}

#[test]
fn a_pause_a_table_that_cannot_be_mirrored_and_the_stop_are_told_once() {
    let fleet = Fleet::configured(ITEMS, QUICK);
    // A table of the same name that does not fit.
    fleet
        .schema
        .exec("create table odd (id bigint primary key, at point)");
    let device = fleet.device("a");
    device.sql("create table odd (id integer primary key, at text)");
    let service = service(&device);
    eventually(PATIENCE, "the table to be refused", || {
        !says(&service, "not mirrored").is_empty()
    });
    device.tw(&["pause"]).ok();
    eventually(PATIENCE, "the pause", || {
        says(&service, "paused").len() == 1
    });
    device.tw(&["resume"]).ok();
    eventually(PATIENCE, "the end of it", || {
        says(&service, "resumed").len() == 1
    });
    for i in 0..5 {
        device.sql(&format!("insert into items values ('k{i}', 'x', 1)"));
        device.json(&["now"]);
    }
    let refused = says(&service, "not mirrored");
    assert_eq!(refused.len(), 1, "{refused:#?}");
    assert_eq!(refused[0]["fields"]["table"], "odd");
    fleet.schema.exec("drop table odd");
    eventually(PATIENCE, "the table to be mirrored", || {
        says(&service, "table is mirrored").len() == 1
    });
    let log = stop(service);
    assert_eq!(log.matches("tidewater stopped").count(), 1, "{log}");
}

/// A disk that is full takes the log first, where it is a file: the service goes on without it.
#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let fleet = Fleet::configured(ITEMS, QUICK);
    let device = fleet.device("a");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let mut command = device.command(&["-v", "run"]);
    command
        .stdout(std::process::Stdio::null())
        .stderr(full.expect("a device that is always full"));
    let mut service = command.spawn().expect("the service");
    device.sql("insert into items values ('1', 'sent', 1)");
    eventually(PATIENCE, "the row on the server", || {
        fleet.server("select id from items") == [["1"]]
    });
    assert!(service.try_wait().expect("its state").is_none());
    let pid = i32::try_from(service.id()).expect("a process id");
    // SAFETY: kill has no memory effects; the child is not reaped yet, so the id is its own.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
    assert!(service.wait().expect("its end").success());
}
