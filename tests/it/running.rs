//! The service: one instance, pause and resume, requests of other processes, its start and its end.

use crate::sides;
use crate::stories::{messages, through};
use crate::support::cli::{Device, Running};
use crate::support::proxy::{Mode, Proxy};
use crate::support::server::Schema;
use crate::support::wait::{PATIENCE, eventually};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const FAST: &str =
    "[upload]\npoll_interval_seconds = 0.05\n\n[download]\npoll_interval_seconds = 0.05\n";

fn count(schema: &Schema) -> String {
    schema.one("select count(*) from messages")
}

fn stop(service: Running) {
    service.signal(libc::SIGTERM);
    let ended = service.wait(PATIENCE).ok();
    assert!(!ended.stderr.contains("panicked"), "{ended:#?}");
}

/// A running service that has sent one row, so that it is known to be at work.
fn at_work(device: &Device, schema: &Schema) -> Running {
    device.sql("insert into messages values ('first', 'awake', 0)");
    let service = device.spawn(&["run"]);
    eventually(PATIENCE, "the service at work", || count(schema) == "1");
    service
}

/// Pauses, and waits until whatever the service had in hand is done: it answers between two turns.
fn pause(device: &Device) {
    assert_eq!(device.json(&["pause"])["mode"], "paused");
    device.json(&["now", "--pull"]);
}

#[test]
fn a_paused_service_sends_and_receives_nothing_until_it_is_resumed() {
    let schema = Schema::new();
    let device = messages(&schema, schema.url(), "a", FAST);
    let service = at_work(&device, &schema);
    pause(&device);
    device.sql("insert into messages values ('m1', 'kept', 1), ('m2', 'back', 2)");
    schema.exec("insert into messages values ('p1', 'by hand', 3)");

    // A request is answered in a turn of the service: after thirty of them, each of which looks at the
    // remote without sending, thirty turns have had their chance to send by themselves.
    for turn in 0..30 {
        device.json(&["now", "--pull"]);
        assert_eq!(count(&schema), "2", "sent while paused, turn {turn}");
        if turn == 0 {
            schema.exec("update messages set n = 4 where id = 'p1'");
        }
    }
    let status = device.json(&["status"]);
    assert_eq!(status["mode"], "paused", "{status}");
    assert_eq!(status["upload"]["pending"], 2, "{status}");
    assert_eq!(status["service"]["running"], true, "{status}");

    assert_eq!(device.json(&["resume"])["mode"], "online");
    eventually(PATIENCE, "what was written while paused", || {
        count(&schema) == "4"
    });
    stop(service);
    sides::sync(&device);
    sides::assert_equal(&device, &schema);
}

#[test]
fn a_paused_service_receives_nothing_by_itself() {
    let schema = Schema::new();
    let proxy = Proxy::shared_server();
    let device = messages(&schema, &through(&schema, &proxy), "a", FAST);
    let service = at_work(&device, &schema);
    device.tw(&["pause"]).ok();
    // Whatever was under way when the pause was written comes to its end.
    let mut last = proxy.stats().requests;
    let mut since = std::time::Instant::now();
    eventually(PATIENCE, "a second without a request", || {
        let now = proxy.stats().requests;
        if now != last {
            (last, since) = (now, std::time::Instant::now());
        }
        since.elapsed() > Duration::from_secs(1)
    });
    schema.exec("insert into messages values ('p1', 'by hand', 1)");
    device.tw(&["resume"]).ok();
    eventually(PATIENCE, "the row after the pause", || {
        device.rows("select count(*) from messages") == [["2"]]
    });
    stop(service);
}

#[test]
fn a_pause_outlives_the_service() {
    let schema = Schema::new();
    let device = messages(&schema, schema.url(), "a", FAST);
    let service = at_work(&device, &schema);
    device.tw(&["pause"]).ok();
    stop(service);
    device.sql("insert into messages values ('m1', 'kept', 1)");
    let service = device.spawn(&["run"]);
    eventually(PATIENCE, "the service again", || {
        device.json(&["status"])["service"]["running"] == true
    });
    device.json(&["now", "--pull"]);
    device.json(&["now", "--pull"]);
    assert_eq!(count(&schema), "1");
    device.tw(&["resume"]).ok();
    eventually(PATIENCE, "the row", || count(&schema) == "2");
    stop(service);
}

#[test]
fn now_works_through_a_paused_service() {
    let schema = Schema::new();
    let device = messages(&schema, schema.url(), "a", FAST);
    let service = at_work(&device, &schema);
    pause(&device);
    device.sql("insert into messages values ('m1', 'now', 1)");
    schema.exec("insert into messages values ('p1', 'by hand', 2)");
    let done = sides::sync(&device);
    assert_eq!(done["uploaded"], 1, "{done}");
    assert_eq!(done["downloaded"], 1, "{done}");
    sides::assert_equal(&device, &schema);
    let status = device.json(&["status"]);
    assert_eq!(status["mode"], "paused", "{status}");
    assert_eq!(status["service"]["pid"], service.pid(), "{status}");
    stop(service);
}

#[test]
fn now_through_a_running_service_reads_its_own_writes() {
    let schema = Schema::new();
    // Timers so long that only the request and the commits wake it.
    let slow =
        "[upload]\npoll_interval_seconds = 3600\n\n[download]\npoll_interval_seconds = 3600\n";
    let device = messages(&schema, schema.url(), "a", slow);
    let service = at_work(&device, &schema);
    for i in 0..20 {
        device.sql(&format!("insert into messages values ('m{i}', 'x', {i})"));
        schema.exec(&format!("insert into messages values ('p{i}', 'x', {i})"));
        sides::sync(&device);
        assert_eq!(
            schema.one(&format!("select count(*) from messages where id = 'm{i}'")),
            "1"
        );
        assert_eq!(
            device.rows(&format!("select count(*) from messages where id = 'p{i}'")),
            [["1"]]
        );
    }
    stop(service);
}

#[test]
fn a_commit_wakes_the_service_without_a_poll() {
    let schema = Schema::new();
    let slow = "[upload]\npoll_interval_seconds = 3600\n";
    let device = messages(&schema, schema.url(), "a", slow);
    let service = at_work(&device, &schema);
    device.sql("insert into messages values ('m1', 'wake up', 1)");
    eventually(PATIENCE, "the commit", || count(&schema) == "2");
    stop(service);
}

#[test]
fn a_stop_finishes_the_batch_in_hand_and_leaves_the_rest_queued() {
    let schema = Schema::new();
    let device = messages(&schema, schema.url(), "a", FAST);
    let service = at_work(&device, &schema);
    let conn = device.sqlite();
    conn.execute_batch(
        "begin; with recursive c(i) as (select 1 union all select i + 1 from c where i < 20000) \
         insert into messages select 'm' || i, 'body of ' || i, i from c; commit",
    )
    .unwrap();
    eventually(PATIENCE, "the first batches", || count(&schema) != "1");
    stop(service);
    // Nothing is half done: what was sent is acknowledged, the rest waits.
    assert_eq!(device.json(&["status"])["upload"]["uploading"], 0);
    let sent: u64 = count(&schema).parse().unwrap();
    let status = device.json(&["status"]);
    assert_eq!(
        status["upload"]["pending"].as_u64(),
        Some(20_001 - sent),
        "{status}"
    );
    sides::sync(&device);
    sides::assert_equal(&device, &schema);
}

#[test]
fn a_second_service_is_refused_and_the_first_goes_on() {
    let schema = Schema::new();
    let device = messages(&schema, schema.url(), "a", FAST);
    let service = at_work(&device, &schema);
    let said = device.tw(&["--json", "run"]).expect_code(5).json();
    assert_eq!(said["error"]["code"], "SYNC-010", "{said}");
    let message = said["error"]["message"].as_str().unwrap();
    assert!(message.contains(&service.pid().to_string()), "{said}");
    assert!(!said["error"]["remedy"].as_str().unwrap().is_empty());
    let human = device.tw(&["run"]).expect_code(5);
    assert!(human.stderr.contains("SYNC-010"), "{human:#?}");
    device.sql("insert into messages values ('m1', 'still here', 1)");
    eventually(PATIENCE, "the first service's work", || {
        count(&schema) == "2"
    });
    stop(service);
    // The lock went with it.
    let next = device.spawn(&["run"]);
    device.sql("insert into messages values ('m2', 'next', 2)");
    eventually(PATIENCE, "the next service's work", || {
        count(&schema) == "3"
    });
    stop(next);
}

#[test]
fn what_is_written_after_a_pause_is_not_sent_by_the_turn_in_hand() {
    let schema = Schema::new();
    let proxy = Proxy::shared_server();
    // No poll of the feed that could be what the silence catches.
    let more = "[download]\npoll_interval_seconds = 3600\n";
    let device = messages(&schema, &through(&schema, &proxy), "a", more);
    let service = at_work(&device, &schema);
    sides::sync(&device);
    proxy.set(Mode::BlackHole);
    device.sql("insert into messages values ('m1', 'in hand', 1)");
    eventually(PATIENCE, "a batch in hand", || {
        sides::queue(&device, &[])
            .iter()
            .any(|i| i["status"] == "uploading")
    });
    device.tw(&["pause"]).ok();
    device.sql("insert into messages values ('m2', 'later', 2)");
    proxy.set(Mode::Pass);
    eventually(PATIENCE, "the batch in hand", || count(&schema) == "2");
    device.json(&["now", "--pull"]);
    device.json(&["now", "--pull"]);
    assert_eq!(count(&schema), "2");
    device.tw(&["resume"]).ok();
    eventually(PATIENCE, "the rest", || count(&schema) == "3");
    stop(service);
}

#[test]
fn asking_for_the_status_never_keeps_a_service_from_starting() {
    let schema = Schema::new();
    let device = messages(&schema, schema.url(), "a", FAST);
    stop(at_work(&device, &schema));
    // A look at the lock, as `status` has it, again and again.
    let lock = File::open(device.folder().join(".tidewater/app.db.lock")).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&done);
    let looking = std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            if lock.try_lock_shared().is_ok() {
                std::thread::sleep(Duration::from_millis(2));
                lock.unlock().unwrap();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    for i in 2..8 {
        device.sql(&format!("insert into messages values ('m{i}', 'x', {i})"));
        let mut service = device.spawn(&["run"]);
        eventually(PATIENCE, "the service at work", || {
            assert!(service.is_running(), "{}", service.stderr());
            count(&schema) == i.to_string()
        });
        stop(service);
    }
    done.store(true, Ordering::Relaxed);
    looking.join().unwrap();
}

#[test]
fn a_service_starts_while_the_remote_is_down_and_syncs_when_it_is_up() {
    let schema = Schema::new();
    let proxy = Proxy::shared_server();
    proxy.set(Mode::Refuse);
    let device = messages(&schema, &through(&schema, &proxy), "a", FAST);
    device.sql("insert into messages values ('m1', 'patient', 1)");
    proxy.reset_stats();
    let mut service = device.spawn(&["run"]);
    eventually(PATIENCE, "a few attempts", || {
        proxy.stats().connections >= 3
    });
    device.sql("insert into messages values ('m2', 'more', 2)");
    assert!(service.is_running(), "{}", service.stderr());
    let status = device.json(&["status"]);
    assert_eq!(status["service"]["running"], true, "{status}");
    assert_eq!(status["mode"], "offline", "{status}");
    assert_eq!(status["upload"]["pending"], 2, "{status}");
    let codes: Vec<&str> = status["problems"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|p| p["code"].as_str())
        .collect();
    assert!(codes.contains(&"SYNC-001"), "{status}");

    proxy.set(Mode::Pass);
    eventually(PATIENCE, "both rows", || {
        schema.one("select count(*) from pg_tables where schemaname = current_schema and tablename = 'messages'") == "1"
            && count(&schema) == "2"
    });
    stop(service);
    sides::verify(&device);
    assert_eq!(device.json(&["status"])["problems"], serde_json::json!([]));
}
