//! The circuit breaker of the service, as other processes see it.

use crate::stories::{messages, through};
use crate::support::cli::Device;
use crate::support::proxy::{Mode, Proxy};
use crate::support::server::{Schema, start};
use crate::support::wait::{PATIENCE, eventually};
use std::time::{Duration, Instant};
use tidewater::throwaway::Options;

const FAST: &str =
    "[upload]\npoll_interval_seconds = 0.05\n\n[download]\npoll_interval_seconds = 0.05\n";
/// Polls so rare that only the circuit and what wakes it make the service ask.
const RARE: &str =
    "[upload]\npoll_interval_seconds = 3600\n\n[download]\npoll_interval_seconds = 3600\n";

fn circuit(device: &Device) -> String {
    device.json(&["status"])["circuit"]
        .as_str()
        .expect("a word")
        .to_owned()
}

/// The lock file as it stands, without a question to the remote.
fn told(device: &Device) -> String {
    std::fs::read_to_string(device.folder().join(".tidewater/app.db.lock")).unwrap_or_default()
}

#[test]
fn a_remote_that_is_away_opens_it_and_its_return_closes_it() {
    let schema = Schema::new();
    let proxy = Proxy::shared_server();
    let device = messages(&schema, &through(&schema, &proxy), "a", FAST);
    device.sql("insert into messages values ('m0', 'online', 0)");
    let service = device.spawn(&["run"]);
    eventually(PATIENCE, "the row", || {
        schema.one("select count(*) from messages") == "1"
    });
    assert_eq!(circuit(&device), "closed");
    proxy.set(Mode::Refuse);
    eventually(PATIENCE * 2, "an open circuit", || {
        circuit(&device) == "open"
    });
    eventually(PATIENCE * 2, "a probe", || {
        told(&device).contains("half_open")
    });
    proxy.set(Mode::Pass);
    eventually(PATIENCE * 2, "a closed circuit", || {
        circuit(&device) == "closed"
    });
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();
}

#[test]
fn a_write_and_a_resume_ask_a_remote_that_is_back_at_once() {
    let schema = Schema::new();
    let proxy = Proxy::shared_server();
    let device = messages(&schema, &through(&schema, &proxy), "a", RARE);
    device.sql("insert into messages values ('m0', 'online', 0)");
    let service = device.spawn(&["run"]);
    eventually(PATIENCE, "the row", || {
        schema.one("select count(*) from messages") == "1"
    });
    // The polls are an hour away: only the write makes it notice.
    proxy.set(Mode::Refuse);
    device.sql("insert into messages values ('m1', 'offline', 1)");
    eventually(PATIENCE * 2, "an open circuit", || {
        told(&device).contains(" open")
    });
    device.tw(&["pause"]).ok();
    // Nothing asks while it is paused.
    proxy.set(Mode::Pass);
    device.tw(&["resume"]).ok();
    eventually(PATIENCE, "the row after the resume", || {
        schema.one("select count(*) from messages") == "2"
    });
    device.sql("insert into messages values ('m2', 'online', 2)");
    eventually(PATIENCE, "the next row", || {
        schema.one("select count(*) from messages") == "3"
    });
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();
}

#[test]
fn a_refused_login_is_not_hammered_and_now_does_not_wait_for_it() {
    let server = start(Options {
        password: Some("secret".into()),
        ..Options::default()
    });
    let schema = Schema::on(&server.url());
    schema.exec(&format!(
        "create role phone login password 'first'; grant all on schema {} to phone",
        schema.name()
    ));
    let proxy = Proxy::start(server.host(), server.port());
    let url = server.url_for("phone", None, "postgres");
    let (_, rest) = url.split_once("@").expect("a user");
    let (_, tail) = rest.split_once('/').expect("a database");
    let url = format!("postgres://phone@{}:{}/{tail}", proxy.host(), proxy.port());
    let mut device = Device::with_url(&url, schema.name(), "a", FAST);
    device.sql("create table messages (id text primary key, body text, n integer)");
    device.set_env("PGPASSWORD", "first");
    device.tw(&["init"]).ok();
    schema.exec("alter role phone password 'second'");
    let service = device.spawn(&["run"]);
    eventually(PATIENCE, "an open circuit", || {
        told(&device).contains(" open")
    });
    proxy.reset_stats();
    // An app that goes on writing does not try the login.
    let (began, mut i) = (Instant::now(), 0);
    eventually(PATIENCE, "two seconds of writes", || {
        device.sql(&format!("insert into messages values ('m{i}', 'x', {i})"));
        i += 1;
        began.elapsed() > Duration::from_secs(2)
    });
    assert_eq!(proxy.stats().connections, 0, "{:?}", service.stderr());

    schema.exec("alter role phone password 'first'");
    // Another process logs in and gets an answer; the service is still waiting, and says so.
    let status = device.json(&["status"]);
    assert_eq!(status["circuit"], "open", "{status}");
    assert_eq!(status["remote"]["reachable"], true, "{status}");
    assert_eq!(device.json(&["now"])["uploaded"], i);
    assert_eq!(circuit(&device), "closed");
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();
}
