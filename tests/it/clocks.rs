//! Clocks of devices that are years off, or jump: nothing is lost or held up for it, a later edit is the
//! later one all the same, and the clock is told. libfaketime moves the clocks of the processes.

use crate::support::cli::Device;
use crate::support::fleet::{ALL, Fleet, ITEMS, conflicts};
use crate::support::http::Endpoint;
use crate::support::server::Schema;
use crate::support::wait::{PATIENCE, eventually, next_millisecond};
use serde_json::Value as Json;
use std::process::Command;

const YEAR_MS: i64 = 365 * 86_400_000;
/// What the app of a device is told, see [`app_with_its_own_clock`].
const APP_FILE: &str = "TIDEWATER_TEST_APP_FILE";
const APP_SQL: &str = "TIDEWATER_TEST_APP_SQL";

/// The library, or a reason to skip.
fn library() -> Option<String> {
    let found = std::env::var("TIDEWATER_FAKETIME").ok().or_else(|| {
        let usual = glob::glob("/usr/lib/*/faketime/libfaketime.so.1").ok()?;
        Some(usual.flatten().next()?.to_str()?.to_owned())
    });
    if found.is_none() {
        let missing = "libfaketime is missing: scripts/ensure-faketime installs it";
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{missing}");
        println!("SKIPPED: {missing}");
    }
    found
}

/// A clock and the variables that give it to a process.
#[derive(Clone)]
struct Clock {
    library: String,
    /// In libfaketime's words: `+10y`; empty for the machine's own.
    off: String,
}

impl Clock {
    fn new(library: &str, off: &str) -> Clock {
        Clock {
            library: library.to_owned(),
            off: off.to_owned(),
        }
    }

    fn variables(&self) -> Vec<(&str, &str)> {
        if self.off.is_empty() {
            return Vec::new();
        }
        vec![
            ("LD_PRELOAD", &self.library),
            ("FAKETIME", &self.off),
            // What waits by the monotonic clock is not to wait for years.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    }

    /// From now on the program runs by this clock.
    fn set(&self, device: &mut Device) {
        for name in ["LD_PRELOAD", "FAKETIME", "FAKETIME_DONT_FAKE_MONOTONIC"] {
            device.unset_env(name);
        }
        for (name, value) in self.variables() {
            device.set_env(name, value);
        }
    }

    /// The device's app writes, in a process that has this clock.
    #[track_caller]
    fn app(&self, device: &Device, sql: &str) {
        let program = std::env::current_exe().expect("this program");
        let wrote = Command::new(program)
            .args(["--ignored", "--exact", "clocks::app_with_its_own_clock"])
            .env(APP_FILE, device.db())
            .env(APP_SQL, sql)
            .envs(self.variables())
            .output()
            .expect("the app");
        assert!(wrote.status.success(), "{wrote:?}");
        next_millisecond();
    }
}

/// The time of a change is taken by the trigger, in the app's process: its clock must be off too.
#[test]
#[ignore = "not a test: the app of the tests here, started with another clock"]
fn app_with_its_own_clock() {
    let (Ok(file), Ok(sql)) = (std::env::var(APP_FILE), std::env::var(APP_SQL)) else {
        return;
    };
    let app = rusqlite::Connection::open(file).expect("the app's file");
    app.busy_timeout(PATIENCE).expect("a busy timeout");
    app.execute_batch(&sql).expect("a write");
}

/// How far `status` says the clock is off, and whether it names the problem.
fn told(device: &Device) -> (i64, bool) {
    let status = device.json(&["status"]);
    let problems = status["problems"].as_array().expect("problems");
    (
        status["remote"]["clock_offset_ms"].as_i64().expect("ms"),
        problems.iter().any(|p| p["code"] == "SYNC-006"),
    )
}

/// The values of `body` that lost a conflict, as a device lists them.
fn losers(device: &Device) -> Vec<String> {
    let loser = |c: &Json| {
        let side = if c["winner"] == "local" {
            "remote"
        } else {
            "local"
        };
        c[side]["body"].as_str().expect("a body").to_owned()
    };
    conflicts(device).iter().map(loser).collect()
}

/// What is captured and not claimed yet was written a minute earlier: an offset is measured no better than
/// to half of a round trip, and on a busy machine that may be seconds.
fn a_minute_ago(device: &Device) {
    device.sql("update tidewater_log set at = at - 60000");
}

#[test]
fn the_later_edit_wins_however_far_the_clocks_are_off() {
    let Some(library) = library() else { return };
    let (ahead, back, right) = (
        Clock::new(&library, "+10y"),
        Clock::new(&library, "-3y"),
        Clock::new(&library, ""),
    );
    let fleet = Fleet::new(ITEMS);
    let (mut a, mut b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into items values ('1', 'old', 0), ('2', 'old', 0), ('3', 'old', 0)");
    fleet.converge(&[&a, &b], ALL);
    assert!(!told(&a).1 && !told(&b).1);

    // One is ten years ahead: its earlier edit is the earlier one.
    ahead.set(&mut a);
    a.json(&["now"]);
    let (off, named) = told(&a);
    assert!(named && (off + 10 * YEAR_MS).abs() < YEAR_MS, "{off}");
    let doctor = a.tw(&["--json", "doctor"]).expect_code(1).json();
    let checks = doctor["checks"].as_array().expect("checks");
    let clock = checks.iter().find(|c| c["name"] == "clock").expect("it");
    assert_eq!(clock["ok"], false, "{clock}");
    assert!(clock["remedy"].is_string(), "{clock}");
    ahead.app(&a, "update items set body = 'a earlier' where id = '1'");
    a_minute_ago(&a);
    right.app(&b, "update items set body = 'b later' where id = '1'");
    a.json(&["now"]);
    b.json(&["now"]);
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(
        b.rows("select body from items where id = '1'"),
        [["b later"]]
    );
    assert_eq!(losers(&a), ["a earlier"]);
    assert_eq!(losers(&b), ["a earlier"]);

    // The other jumps back by three years: its later edit is still the later one.
    back.set(&mut b);
    b.json(&["now"]);
    let (off, named) = told(&b);
    assert!(named && (off - 3 * YEAR_MS).abs() < YEAR_MS, "{off}");
    ahead.app(
        &a,
        "update items set body = 'a earlier still' where id = '2'",
    );
    a_minute_ago(&a);
    back.app(&b, "update items set body = 'b later still' where id = '2'");
    a.json(&["now"]);
    b.json(&["now"]);
    fleet.converge(&[&a, &b], ALL);
    let stands = a.rows("select body from items where id = '2'");
    assert_eq!(stands, [["b later still"]]);

    // Both are set right, and nobody has measured since: whichever wins, the other is kept.
    for device in [&mut a, &mut b] {
        right.set(device);
    }
    right.app(&a, "update items set body = 'a unmeasured' where id = '3'");
    right.app(&b, "update items set body = 'b unmeasured' where id = '3'");
    b.json(&["now"]);
    a.json(&["now"]);
    fleet.converge(&[&a, &b], ALL);
    let stands = a
        .rows("select body from items where id = '3'")
        .remove(0)
        .remove(0);
    let mut lost = vec!["a unmeasured".to_owned(), "b unmeasured".to_owned()];
    lost.retain(|body| *body != stands);
    assert_eq!(lost.len(), 1, "{stands}");
    let expected = [
        &["a earlier".to_owned(), "a earlier still".to_owned()][..],
        &lost,
    ]
    .concat();
    assert_eq!(losers(&a), expected);
    assert_eq!(losers(&b), expected);
    assert!(!told(&a).1 && !told(&b).1);
    for device in [&a, &b] {
        device.tw(&["verify"]).ok();
    }
}

#[test]
fn a_change_that_waits_does_not_wait_for_a_clock_that_was_set_back() {
    let Some(library) = library() else { return };
    let schema = Schema::new();
    let waits = "[retry]\nbase_delay_seconds = 3600\nmax_delay_seconds = 3600\n";
    let mut device = Device::with_url(schema.url(), schema.name(), "a", waits);
    device.sql(
        "create table parent (id integer primary key);
         create table child (id integer primary key, parent integer);",
    );
    device.tw(&["init"]).ok();
    device.json(&["now"]);
    schema.exec("alter table child add foreign key (parent) references parent (id)");
    Clock::new(&library, "+10y").set(&mut device);
    device.sql("insert into child values (1, 99)");
    // Refused until its parent is there, and put off: by a clock that is ten years ahead.
    let put_off = "select count(*) from tidewater_outbox where status = 'pending' and attempts > 0";
    device.tw(&["now"]);
    assert_eq!(device.rows(put_off), [["1"]]);

    Clock::new(&library, "").set(&mut device);
    schema.exec("insert into parent values (99)");
    assert_eq!(device.json(&["queue", "--ready"])["total"], 1);
    assert_eq!(device.json(&["status"])["upload"]["ready"], 1);
    let now = device.json(&["now"]);
    assert_eq!(now["uploaded"], 1, "{now}");
    assert_eq!(schema.one("select count(*) from child"), "1");
}

#[test]
fn a_service_goes_on_while_its_clock_jumps() {
    let Some(library) = library() else { return };
    let schema = Schema::new();
    let polls =
        "[upload]\npoll_interval_seconds = 0.1\n\n[download]\npoll_interval_seconds = 0.1\n";
    let mut device = Device::with_url(schema.url(), schema.name(), "a", polls);
    device.set_env("TIDEWATER_METRICS__LISTEN", "127.0.0.1:0");
    device.sql(ITEMS);
    device.tw(&["init"]).ok();
    let clock = device.folder().join("clock");
    let jump = |off: &str| {
        let next = device.folder().join("clock.next");
        std::fs::write(&next, off).expect("the clock");
        std::fs::rename(&next, &clock).expect("the clock");
    };
    jump("+0");
    let mut command = device.command(&["run"]);
    command
        .env("LD_PRELOAD", &library)
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let service = crate::support::cli::Running::spawn(command);
    let endpoint = Endpoint::of(&service);
    let way = |off_seconds: f64, there: &str, here: &str| {
        device.sql(&format!(
            "insert into items values ('{there}', 'from here', 1)"
        ));
        eventually(PATIENCE, "a row on the server", || {
            let found = schema.one(&format!("select count(*) from items where id = '{there}'"));
            found == "1"
        });
        schema.exec(&format!(
            "insert into items values ('{here}', 'from there', 2)"
        ));
        eventually(PATIENCE, "a row from the server", || {
            !device
                .rows(&format!("select 1 from items where id = '{here}'"))
                .is_empty()
        });
        eventually(PATIENCE, "the offset to be shown", || {
            let shown = endpoint.metrics().find("tidewater_clock_offset_seconds");
            shown.is_some_and(|s| (s - off_seconds).abs() < 86_400.0)
        });
    };
    way(0.0, "1", "2");
    let year = 365.0 * 86_400.0;
    for (off, seconds, there, here) in [
        ("+10y", -10.0 * year, "3", "4"),
        ("-3y", 3.0 * year, "5", "6"),
        ("+0", 0.0, "7", "8"),
    ] {
        jump(off);
        way(seconds, there, here);
    }
    for words in ["SYNC-006", "agrees with the server's again"] {
        eventually(PATIENCE, words, || service.stderr().contains(words));
    }
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();
    assert!(conflicts(&device).is_empty());
    device.tw(&["verify"]).ok();
}
