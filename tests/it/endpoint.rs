//! The endpoint of a running service: what it answers, to whom, and what it says when things are bad.

use crate::support::cli::{Device, Running};
use crate::support::fleet::{Fleet, ITEMS};
use crate::support::http::{Endpoint, Metrics};
use crate::support::proxy::{Mode, Proxy};
use crate::support::wait::{PATIENCE, eventually, eventually_some};
use std::net::{TcpListener, TcpStream};

/// Quick polls and probes.
const QUICK: &str = "[upload]\npoll_interval_seconds = 0.2\n\n[download]\npoll_interval_seconds = 0.2\n\n\
                     [retry]\nbase_delay_seconds = 0.05\nmax_delay_seconds = 0.2\n";

/// What must be seen nowhere.
const CANARY: &str = "canary-3f9a";

/// The service with an endpoint on a port of its own.
fn run(device: &mut Device) -> (Running, Endpoint) {
    device.set_env("TIDEWATER_METRICS__LISTEN", "127.0.0.1:0");
    let service = device.spawn(&["run"]);
    let endpoint = Endpoint::of(&service);
    (service, endpoint)
}

#[track_caller]
fn ready(endpoint: Endpoint) {
    eventually(PATIENCE, "readiness", || {
        endpoint.get("/readyz").status == 200
    });
}

#[track_caller]
fn stop(service: Running) {
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();
}

#[test]
fn it_answers_what_the_contract_names_and_nothing_else() {
    let fleet = Fleet::configured(ITEMS, QUICK);
    let mut device = fleet.device("a");
    let (service, endpoint) = run(&mut device);
    ready(endpoint);
    endpoint.get("/healthz").expect(200);
    let scrape = endpoint.get("/metrics").expect(200);
    assert_eq!(
        scrape.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let page = endpoint.get("/").expect(200);
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(page.headers["content-security-policy"].contains("default-src 'none'"));
    assert!(page.body.contains("online") && page.body.contains("items"));
    endpoint.get("/metrics?x=1").expect(200);
    for path in ["/metrics/", "/status", "/favicon.ico", "/../metrics", "//"] {
        endpoint.get(path).expect(404);
    }
    let named = format!("localhost:{}", endpoint.port);
    for path in ["/", "/metrics", "/healthz", "/readyz"] {
        let head = endpoint.ask("HEAD", path, &named).expect(200);
        assert_eq!(head.body, "");
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let refused = endpoint.ask(method, path, &named).expect(405);
            assert_eq!(refused.headers["allow"], "GET, HEAD");
        }
    }
    stop(service);
    // It went with the service.
    assert!(TcpStream::connect(("127.0.0.1", endpoint.port)).is_err());
}

#[test]
fn only_names_that_mean_it_are_answered() {
    let fleet = Fleet::configured(ITEMS, QUICK);
    let mut device = fleet.device("a");
    device.set_env("TIDEWATER_METRICS__ALLOWED_HOSTS", "device-a:9842");
    let (service, endpoint) = run(&mut device);
    for path in ["/", "/metrics", "/healthz", "/readyz", "/else"] {
        for host in ["rebound.example", "rebound.example:9842", "device-a:80", ""] {
            let refused = endpoint.ask("GET", path, host).expect(421);
            assert!(refused.body.contains("allowed_hosts"), "{refused:?}");
        }
    }
    for host in ["localhost", "[::1]:1", "device-a:9842"] {
        endpoint.ask("GET", "/healthz", host).expect(200);
    }
    let without = endpoint.try_raw("GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    without.expect(421);
    stop(service);
}

#[test]
fn readiness_follows_the_server_and_health_does_not() {
    let fleet = Fleet::configured(ITEMS, QUICK);
    let proxy = Proxy::shared_server();
    let mut device = fleet.device_through(&proxy, "a", "");
    proxy.set(Mode::Refuse);
    // It starts without the server.
    let (service, endpoint) = run(&mut device);
    let unready = eventually_some(PATIENCE, "the first contact to fail", || {
        let answer = endpoint.get("/readyz").expect(503);
        answer.body.contains("SYNC-001").then_some(answer)
    });
    assert!(unready.body.len() > "SYNC-001".len(), "{unready:?}");
    endpoint.get("/healthz").expect(200);
    let metrics = endpoint.metrics();
    assert_eq!(metrics.value("tidewater_remote_up"), 0.0);
    eventually(PATIENCE, "the circuit to open", || {
        endpoint
            .metrics()
            .value("tidewater_circuit_state{state=\"closed\"}")
            == 0.0
    });
    assert!(metrics.value("tidewater_errors_total{code=\"SYNC-001\"}") >= 1.0);
    assert!(endpoint.get("/").body.contains("offline"));

    proxy.set(Mode::Pass);
    ready(endpoint);
    reaches(endpoint, "tidewater_circuit_state{state=\"closed\"}", 1.0);
    eventually(PATIENCE, "a whole pull", || {
        endpoint
            .metrics()
            .value("tidewater_last_pull_timestamp_seconds")
            > 1e9
    });
    let metrics = endpoint.metrics();
    assert_eq!(metrics.value("tidewater_remote_up"), 1.0);
    assert!(metrics.value("tidewater_retries_total") >= 1.0);

    proxy.set(Mode::Refuse);
    eventually(PATIENCE, "the loss to be seen", || {
        endpoint.get("/readyz").status == 503
    });
    stop(service);
}

#[test]
fn a_file_that_is_locked_or_gone_is_a_number_and_never_a_failed_scrape() {
    let fleet = Fleet::configured(ITEMS, QUICK);
    let mut device = fleet.device("a");
    let (service, endpoint) = run(&mut device);
    ready(endpoint);
    assert_eq!(endpoint.metrics().value("tidewater_local_up"), 1.0);
    let app = device.sqlite();
    app.execute_batch("begin exclusive").unwrap();
    let scrape = endpoint.metrics();
    assert_eq!(scrape.value("tidewater_local_up"), 0.0);
    assert_eq!(scrape.find("tidewater_paused"), None, "an old number lies");
    assert_eq!(scrape.value("tidewater_remote_up"), 1.0);
    let unready = endpoint.get("/readyz").expect(503);
    assert!(unready.body.contains("SYNC-012"), "{unready:?}");
    assert!(endpoint.get("/").expect(200).body.contains("SYNC-012"));
    endpoint.get("/healthz").expect(200);
    app.execute_batch("rollback").unwrap();
    ready(endpoint);

    let aside = device.folder().join("aside.db");
    std::fs::rename(device.db(), &aside).unwrap();
    assert_eq!(endpoint.metrics().value("tidewater_local_up"), 0.0);
    std::fs::rename(&aside, device.db()).unwrap();
    assert_eq!(endpoint.metrics().value("tidewater_local_up"), 1.0);
    drop(service);
}

#[test]
fn a_port_in_use_is_said_at_the_start() {
    let fleet = Fleet::configured(ITEMS, QUICK);
    let mut device = fleet.device("a");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    device.set_env("TIDEWATER_METRICS__LISTEN", &listen);
    let refused = device.tw(&["--json", "run"]).expect_code(2).json();
    let error = &refused["error"];
    assert_eq!(error["code"], "SYNC-013", "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains(&listen) && message.contains("another program"),
        "{error}"
    );
    assert!(
        error["remedy"]
            .as_str()
            .unwrap()
            .contains("[metrics] listen"),
        "{error}"
    );
    // Nothing but the service opens it.
    for command in ["now", "status", "queue"] {
        device.tw(&[command]).ok();
    }
    device.set_env("TIDEWATER_METRICS__LISTEN", "192.0.2.1:9842");
    let refused = device.tw(&["--json", "run"]).expect_code(2).json();
    assert_eq!(refused["error"]["code"], "SYNC-013", "{refused}");

    // Where the port is the first service's, what has to be said is that there is one.
    drop(taken);
    device.set_env("TIDEWATER_METRICS__LISTEN", &listen);
    let service = device.spawn(&["run"]);
    ready(Endpoint::of(&service));
    let second = device.tw(&["--json", "run"]).expect_code(5).json();
    assert_eq!(second["error"]["code"], "SYNC-010", "{second}");
    stop(service);
}

#[test]
fn the_endpoint_is_there_while_the_service_waits_for_the_file() {
    let fleet = Fleet::configured(ITEMS, QUICK);
    let url = fleet.schema.url();
    let mut device = Device::with_url(url, fleet.schema.name(), "a", QUICK);
    device.set_env("TIDEWATER_METRICS__LISTEN", "127.0.0.1:0");
    let service = device.spawn(&["run", "--init"]);
    let endpoint = Endpoint::of(&service);
    endpoint.get("/healthz").expect(200);
    let unready = endpoint.get("/readyz").expect(503);
    assert!(unready.body.contains("SYNC-012"), "{unready:?}");
    assert_eq!(endpoint.metrics().value("tidewater_local_up"), 0.0);
    device.sql(ITEMS);
    ready(endpoint);
    assert_eq!(
        endpoint
            .metrics()
            .value("tidewater_table_outbox_depth{status=\"pending\",table=\"items\"}"),
        0.0
    );
    stop(service);
}

/// Waits for a scrape in which `sample` has this value.
#[track_caller]
fn reaches(endpoint: Endpoint, sample: &str, value: f64) -> Metrics {
    let what = format!("{sample} to be {value}");
    eventually_some(PATIENCE, &what, || {
        let scrape = endpoint.metrics();
        (scrape.find(sample) == Some(value)).then_some(scrape)
    })
}

#[test]
fn the_numbers_are_those_of_the_work_and_show_no_row() {
    let fleet = Fleet::configured(ITEMS, QUICK);
    let (mut a, b) = (fleet.device("a"), fleet.device("b"));
    let (service, endpoint) = run(&mut a);
    ready(endpoint);
    let applied = "tidewater_changes_total{direction=\"upload\",outcome=\"applied\"}";
    let insert = |key: &str| format!("insert into items values ('{key}-{CANARY}', '{CANARY}', 1);");
    a.sql(&format!("begin; {} {} commit;", insert("k1"), insert("k2")));
    reaches(endpoint, applied, 2.0);
    // Families are gathered one after the other: what was counted before is in the next scrape.
    let scrape = endpoint.metrics();
    assert_eq!(scrape.value("tidewater_batch_rows_sum"), 2.0);
    assert!(scrape.value("tidewater_batch_bytes_sum") > 2.0 * CANARY.len() as f64);
    assert!(scrape.value("tidewater_batch_seconds_count") >= 1.0);
    let lag = scrape.value("tidewater_lag_seconds_sum{direction=\"upload\"}");
    assert!((0.0..60.0).contains(&lag), "{lag}");
    assert!(scrape.value("tidewater_local_lock_wait_seconds_count") >= 1.0);
    assert!(scrape.value("tidewater_last_push_timestamp_seconds") > 1e9);

    // From another device.
    b.json(&["now"]);
    b.sql(&insert("k3"));
    b.json(&["now"]);
    let arrived = "tidewater_changes_total{direction=\"download\",outcome=\"applied\"}";
    reaches(endpoint, arrived, 1.0);
    let lag = "tidewater_lag_seconds_count{direction=\"download\"}";
    reaches(endpoint, lag, 1.0);

    // A row that the server refuses.
    a.sql(&format!(
        "insert into items values ('k4-{CANARY}', '{CANARY}', 'no number')"
    ));
    let failed = "tidewater_outbox_depth{status=\"failed\"}";
    // The file knows first: what the process counts follows its commit.
    reaches(endpoint, failed, 1.0);
    reaches(endpoint, "tidewater_errors_total{code=\"SYNC-005\"}", 1.0);

    // A conflict, and what waits during a pause.
    a.tw(&["pause"]).ok();
    reaches(endpoint, "tidewater_paused", 1.0);
    a.sql(&format!(
        "update items set body = 'a-{CANARY}' where id = 'k1-{CANARY}'"
    ));
    let scrape = reaches(endpoint, "tidewater_outbox_depth{status=\"pending\"}", 1.0);
    assert!(scrape.value("tidewater_oldest_pending_age_seconds") > 0.0);
    b.sql(&format!(
        "update items set body = 'b-{CANARY}' where id = 'k1-{CANARY}'"
    ));
    b.json(&["now"]);
    a.tw(&["resume"]).ok();
    reaches(endpoint, "tidewater_conflicts_unseen", 1.0);
    eventually(PATIENCE, "the conflict to be counted", || {
        let scrape = endpoint.metrics();
        let won = |side| scrape.value(&format!("tidewater_conflicts_total{{winner=\"{side}\"}}"));
        won("local") + won("remote") == 1.0
    });

    let page = endpoint.get("/").expect(200).body;
    for part in [
        "1 failed",
        "SYNC-005",
        "Last pushes",
        "Latest conflicts",
        "update update",
    ] {
        assert!(page.contains(part), "{part}\n{page}");
    }
    for (what, text) in [
        ("the page", page),
        ("the scrape", endpoint.metrics().0),
        ("the log", service.stderr()),
    ] {
        assert!(!text.contains(CANARY), "{what} shows a row\n{text}");
    }
    stop(service);
}

#[test]
fn a_migration_and_a_copy_leave_their_time() {
    let fleet = Fleet::configured(ITEMS, QUICK);
    let mut device = fleet.device("a");
    device.json(&["now"]);
    let copy = std::fs::read(device.db()).unwrap();
    let (service, endpoint) = run(&mut device);
    ready(endpoint);
    let (healed, renewed) = (
        "tidewater_capture_healed_timestamp_seconds",
        "tidewater_identity_renewed_timestamp_seconds",
    );
    let scrape = endpoint.metrics();
    assert_eq!((scrape.value(healed), scrape.value(renewed)), (0.0, 0.0));
    device.sql(
        "begin; create table items_new (id text primary key, body text, n integer);
         insert into items_new select * from items; drop table items;
         alter table items_new rename to items; commit; insert into items values ('k', 'x', 1)",
    );
    eventually(PATIENCE, "capture to be put back", || {
        endpoint.metrics().value(healed) > 1e9
    });
    let done = "tidewater_outbox_depth{status=\"synced\"}";
    eventually(PATIENCE, "the row to be sent", || {
        endpoint.metrics().value(done) >= 1.0
    });
    stop(service);

    // The backup of before is put back.
    std::fs::write(device.db(), copy).unwrap();
    let (service, endpoint) = run(&mut device);
    eventually(PATIENCE, "the new identity", || {
        endpoint.metrics().value(renewed) > 1e9
    });
    stop(service);
}
