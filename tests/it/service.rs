//! The service and what happens around it: signals, a remote that is down, a sudden end, a file and a
//! schema that change underneath.

use crate::support::cli::{Device, Running};
use crate::support::proxy::{Mode, Proxy};
use crate::support::server::{Schema, start};
use crate::support::wait::{PATIENCE, eventually};
use std::time::{Duration, Instant};
use tidewater::throwaway::Options;

const APP: &str = "create table items (id integer primary key, body text not null);
                   insert into items values (1, 'one'), (2, 'two'), (3, 'three');";
const ALL: &str = "select id, body from items order by id";
/// Quick polls, so that a test does not wait for one.
const QUICK: &str =
    "[upload]\npoll_interval_seconds = 1\n\n[download]\npoll_interval_seconds = 1\n";

/// Polls so rare that only a commit wakes the service.
const RARE: &str =
    "[upload]\npoll_interval_seconds = 600\n\n[download]\npoll_interval_seconds = 600\n";

fn device(url: &str, schema: &Schema, polls: &str) -> Device {
    let device = Device::with_url(url, schema.name(), "app", polls);
    device.sql(APP);
    device.tw(&["init"]).ok();
    device
}

/// A service that has sent everything.
fn running(device: &Device, schema: &Schema) -> Running {
    let service = device.spawn(&["run"]);
    arrives(device, schema, ALL);
    service
}

/// Waits until the server holds what the file holds.
#[track_caller]
fn arrives(device: &Device, schema: &Schema, query: &str) {
    let local = device.rows(query);
    let mut there = Vec::new();
    let client = schema.client();
    eventually(PATIENCE, &format!("{local:?} on the server"), || {
        // The table or a column may not be there yet.
        there = client.try_rows(query).unwrap_or_default();
        there == local
    });
}

/// A service with a batch under way that the network swallows.
fn stuck(proxy: &Proxy, device: &Device, schema: &Schema) -> Running {
    let service = running(device, schema);
    // Answered between two turns: no poll is under way that would be swallowed in place of the batch.
    device.json(&["now"]);
    proxy.set(Mode::BlackHole);
    device.sql("insert into items values (10, 'ten')");
    eventually(PATIENCE, "a batch under way", || {
        device.rows("select count(*) from tidewater_batch") == [["1"]]
    });
    service
}

#[test]
fn a_second_signal_ends_at_once_and_loses_nothing() {
    let schema = Schema::new();
    let proxy = Proxy::shared_server();
    let device = device(
        &schema.url_through(proxy.host(), proxy.port()),
        &schema,
        RARE,
    );
    let mut service = stuck(&proxy, &device, &schema);

    service.signal(libc::SIGTERM);
    eventually(PATIENCE, "the first signal to be heard", || {
        service.stderr().contains("a second signal ends at once")
    });
    assert!(service.is_running(), "the batch in hand is not done");
    service.signal(libc::SIGTERM);
    // Far below the deadline of the round trip that it waits for.
    service.wait(Duration::from_secs(10)).expect_code(130);

    proxy.set(Mode::Pass);
    device.json(&["now"]);
    arrives(&device, &schema, ALL);
}

#[test]
fn a_service_that_waits_for_a_command_ends_in_order() {
    let schema = Schema::new();
    let proxy = Proxy::shared_server();
    let device = device(
        &schema.url_through(proxy.host(), proxy.port()),
        &schema,
        RARE,
    );
    proxy.set(Mode::BlackHole);
    // Holds the device for as long as the network is silent.
    let now = device.spawn(&["now"]);
    let lock = device.folder().join(".tidewater/app.db.lock");
    eventually(PATIENCE, "the command to hold the device", || {
        std::fs::read_to_string(&lock).is_ok_and(|text| text.contains(&now.pid().to_string()))
    });
    let service = device.spawn(&["run"]);
    eventually(PATIENCE, "the service to listen for signals", || {
        caught(service.pid()) & (1 << (libc::SIGTERM - 1)) != 0
    });
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();
    proxy.set(Mode::Pass);
    now.wait(PATIENCE * 2).ok();
}

/// The signals that a process has a handler for, as bits.
fn caught(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigCgt:"));
    u64::from_str_radix(mask.unwrap_or("0").trim(), 16).expect("a mask")
}

#[test]
fn now_through_a_service_whose_remote_is_down_says_so_quickly() {
    let server = start(Options::default());
    let schema = Schema::on(&server.url());
    let device = device(schema.url(), &schema, QUICK);
    let mut service = running(&device, &schema);
    server.stop_immediate().unwrap();
    device.sql("insert into items values (4, 'four')");
    eventually(PATIENCE, "the service to miss the server", || {
        service.stderr().contains("SYNC-001")
    });

    let started = Instant::now();
    let now = device.tw(&["--json", "now"]).expect_code(3);
    assert_eq!(now.json()["error"]["code"], "SYNC-001");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(service.is_running());

    // It was asked although it was waiting, and goes on by itself.
    server.start_again().unwrap();
    arrives(&device, &schema, ALL);
}

#[test]
fn now_takes_over_from_a_service_that_is_killed() {
    let schema = Schema::new();
    let proxy = Proxy::shared_server();
    let device = device(
        &schema.url_through(proxy.host(), proxy.port()),
        &schema,
        RARE,
    );
    let service = stuck(&proxy, &device, &schema);

    let mut now = device.spawn(&["--json", "now"]);
    eventually(PATIENCE, "the request to be in the file", || {
        device.rows("select count(*) from tidewater_request where answer is null") == [["1"]]
    });
    assert!(now.is_running());
    service.kill();
    proxy.set(Mode::Pass);

    let now = now.wait(PATIENCE).ok().json();
    assert_eq!(now["uploaded"], 1, "{now}");
    assert_eq!(now["pending"], 0, "{now}");
    assert_eq!(
        device.rows("select count(*) from tidewater_request"),
        [["0"]],
        "the request was taken back"
    );
    arrives(&device, &schema, ALL);
}

#[test]
fn a_file_that_is_replaced_under_the_service_is_noticed() {
    let schema = Schema::new();
    let device = device(schema.url(), &schema, QUICK);
    let service = running(&device, &schema);
    // At rest: what the service writes after this would be missing in the copy.
    device.json(&["now"]);
    let copy = device.folder().join("copy.db");
    device.sql(&format!("vacuum into '{}'", copy.display()));
    rusqlite::Connection::open(&copy)
        .unwrap()
        .execute_batch("insert into items values (5, 'written before the rename')")
        .unwrap();
    std::fs::rename(&copy, device.db()).unwrap();

    arrives(&device, &schema, ALL);
    device.sql("insert into items values (6, 'written after it'); delete from items where id = 2");
    arrives(&device, &schema, ALL);
    schema.exec("insert into items values (7, 'from the server')");
    eventually(PATIENCE, "a row from the server", || {
        device.rows("select body from items where id = 7") == [["from the server"]]
    });
    assert!(
        service.stderr().contains("replaced by another file"),
        "{}",
        service.stderr()
    );
    drop(service);
    device.tw(&["verify"]).ok();
}

/// With the app away the service is alone with the file: what it opens anew has to be made anew, too.
#[cfg(target_os = "linux")]
#[test]
fn a_running_service_waits_for_a_full_disk() {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::CommandExt;
    let schema = Schema::new();
    let device = device(schema.url(), &schema, QUICK);
    let mut command = device.command(&["run"]);
    // Through a pipe its log is not held back with the rest.
    command.stderr(std::process::Stdio::piped());
    // SAFETY: signal is async-signal-safe. A write beyond the limit is to fail, not to kill.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            Ok(())
        });
    }
    let mut service = command.spawn().expect("the service");
    let said = BufReader::new(service.stderr.take().expect("a pipe"));
    let (tell, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in said.lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    arrives(&device, &schema, ALL);
    device.json(&["now"]);
    limit(service.id(), 0);
    device.sql("insert into items values (4, 'four')");
    let mut tries = 0;
    while tries < 4 {
        let line = heard.recv_timeout(PATIENCE).expect("a running service");
        tries += usize::from(line.contains("opening the file again"));
    }
    limit(service.id(), libc::RLIM_INFINITY);
    arrives(&device, &schema, ALL);
    let pid = i32::try_from(service.id()).expect("a process id");
    // SAFETY: kill has no memory effects; the child is not reaped yet, so the id is its own.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
    assert!(service.wait().expect("its end").success());
}

/// Lets no file of a process grow beyond `bytes`.
#[cfg(target_os = "linux")]
fn limit(pid: u32, bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    let pid = i32::try_from(pid).expect("a process id");
    // SAFETY: the limit outlives the call; the old one is not asked for.
    let set = unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &limit, std::ptr::null_mut()) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_column_that_the_app_adds_travels_with_its_values() {
    let schema = Schema::new();
    let device = device(schema.url(), &schema, QUICK);
    let service = running(&device, &schema);
    device.sql(
        "alter table items add column colour text;
         update items set colour = 'green' where id = 1;
         insert into items (id, body, colour) values (4, 'four', 'blue');",
    );
    let with_colour = "select id, body, colour from items order by id";
    arrives(&device, &schema, with_colour);
    schema.exec("update items set colour = 'red' where id = 2");
    eventually(PATIENCE, "a colour from the server", || {
        device.rows("select colour from items where id = 2") == [["red"]]
    });
    drop(service);
    device.tw(&["verify"]).ok();
}

#[test]
fn a_table_that_the_app_rebuilds_is_captured_again_and_what_was_missed_is_sent() {
    let schema = Schema::new();
    let device = device(schema.url(), &schema, QUICK);
    let service = running(&device, &schema);
    let triggers = "select count(*) from sqlite_schema where type = 'trigger' \
                    and tbl_name = 'items'";
    let before = device.rows(triggers);
    assert_ne!(before, [["0"]]);
    // One that the device has just sent, and that its cursor may not have passed yet.
    device.sql("insert into items values (9, 'nine')");
    arrives(&device, &schema, ALL);
    // As Django does it: the triggers go with the old table. What follows in the same transaction is
    // written while capture is bare, for certain.
    device.sql(
        "begin;
         create table new__items (id integer primary key, body text not null, note text);
         insert into new__items (id, body) select id, body from items;
         drop table items;
         alter table new__items rename to items;
         update items set body = 'changed while bare' where id = 1;
         delete from items where id in (2, 9);
         insert into items values (4, 'new while bare', 'noted');
         commit;",
    );
    let with_note = "select id, body, note from items order by id";
    arrives(&device, &schema, with_note);
    assert_eq!(device.rows(triggers), before);

    device.sql("update items set note = 'captured again' where id = 3");
    arrives(&device, &schema, with_note);
    assert_eq!(device.json(&["conflicts"])["total"], 0);
    drop(service);
    device.tw(&["verify"]).ok();
}
