//! The library: the engine inside another program, beside the commands.

use crate::support::cli::Device;
use crate::support::http::Endpoint;
use crate::support::server::{Schema, start as start_server};
use crate::support::wait::{PATIENCE, eventually};
use std::future::Future;
use std::sync::OnceLock;
use tidewater::config::HostPort;
use tidewater::report::Mode;
use tidewater::throwaway::Options;
use tidewater::{Code, Config, Engine};

const APP: &str = "create table notes (id text primary key, body text);
                   insert into notes values ('n1', 'milk');";

/// An app with a file that tidewater has never seen.
fn app(schema: &Schema) -> Device {
    let device = Device::with_url(schema.url(), schema.name(), "app", "");
    device.sql(APP);
    device
}

fn config(device: &Device, schema: &Schema) -> Config {
    let mut config = Config::new(device.db(), schema.url()).expect("a configuration");
    config.remote.schema = schema.name().to_owned();
    config.device.name = "embedded".into();
    config
}

/// Waits for one call, as a program without a runtime around its main function does.
fn go<T>(work: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| tokio::runtime::Runtime::new().expect("a runtime"))
        .block_on(work)
}

/// Prepares the file and starts, as an app does.
fn begin(config: &Config) -> Engine {
    go(Engine::init(config)).expect("prepared");
    go(Engine::start(config.clone())).expect("started")
}

#[test]
fn an_app_embeds_the_engine_without_the_command_line() {
    let schema = Schema::new();
    let device = app(&schema);
    let config = config(&device, &schema);
    let report = go(Engine::init(&config)).expect("prepared");
    assert_eq!(report.tables.len(), 1);
    assert_eq!(report.tables[0].rows, 1);
    let engine = go(Engine::start(config.clone())).expect("started");

    // By itself, in both directions.
    device.sql("insert into notes values ('n2', 'bread')");
    eventually(PATIENCE, "both rows on the server", || {
        schema.client().try_rows("select count(*) from notes").ok() == Some(vec![vec!["2".into()]])
    });
    schema.exec("insert into notes values ('p1', 'by hand')");
    let done = go(engine.sync_now()).expect("synced");
    assert_eq!(done.pending, 0, "{done:?}");
    assert_eq!(device.rows("select count(*) from notes"), [["3"]]);

    let status = go(engine.status()).expect("a status");
    assert!(status.service.running && status.remote.reachable);
    assert_eq!(status.service.pid, Some(std::process::id()));
    assert_eq!(status.device.name, "embedded");
    assert_eq!(status.upload.synced_total, 2);
    go(engine.stop()).expect("stopped");
    assert!(
        std::fs::read_to_string("/proc/self/status")
            .expect("the state of this process")
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:\t"))
            .and_then(|mask| u64::from_str_radix(mask, 16).ok())
            .is_some_and(|mask| mask & (1 << (libc::SIGTERM - 1) | 1 << (libc::SIGINT - 1)) == 0),
        "a signal handler was installed"
    );
}

#[test]
fn init_is_safe_to_repeat_and_works_offline() {
    let server = start_server(Options::default());
    let schema = Schema::on(&server.url());
    let device = app(&schema);
    let config = config(&device, &schema);
    server.stop_immediate().expect("stopped");
    let first = go(Engine::init(&config)).expect("prepared offline");
    let engine = go(Engine::start(config.clone())).expect("starts offline");
    let refused = go(engine.sync_now()).expect_err("no server");
    assert_eq!(refused.code, Code::Connection, "{refused}");
    assert!(!refused.remedy.is_empty());
    assert_eq!(go(engine.status()).expect("a status").mode, Mode::Offline);
    server.start_again().expect("started again");
    eventually(PATIENCE * 2, "the row after the server's return", || {
        schema.client().try_rows("select count(*) from notes").ok() == Some(vec![vec!["1".into()]])
    });
    let second = go(Engine::init(&config)).expect("again");
    assert_eq!(first.device.id, second.device.id);
    go(engine.stop()).expect("stopped");
    assert!(
        !std::path::Path::new("tidewater.toml").exists(),
        "a configuration was written into the program's folder"
    );
}

#[test]
fn one_engine_per_device_and_the_commands_work_beside_it() {
    let schema = Schema::new();
    let device = app(&schema);
    let config = config(&device, &schema);
    let engine = begin(&config);
    let second = go(Engine::start(config.clone())).expect_err("held");
    assert_eq!(second.code, Code::AnotherInstance, "{second}");
    assert_eq!(second.code.as_str(), "SYNC-010");
    device.tw(&["run"]).expect_code(5);

    // The command works through the engine, and the engine sees the command.
    device.sql("insert into notes values ('n2', 'bread')");
    assert_eq!(device.json(&["now"])["pending"], 0);
    assert_eq!(schema.one("select count(*) from notes"), "2");
    assert_eq!(device.json(&["pause"])["mode"], "paused");
    assert_eq!(go(engine.status()).expect("a status").mode, Mode::Paused);
    assert_eq!(go(engine.resume()).expect("resumed").mode, Mode::Online);
    assert_eq!(go(engine.pause()).expect("paused").mode, Mode::Paused);
    device.sql("insert into notes values ('n3', 'butter')");
    let status = go(engine.status()).expect("a status");
    assert_eq!((status.mode, status.upload.pending), (Mode::Paused, 1));
    assert_eq!(go(engine.sync_now()).expect("in spite of it").uploaded, 1);
    go(engine.stop()).expect("stopped");

    // Let go: the next one holds it.
    let next = go(Engine::start(config.clone())).expect("started again");
    go(next.stop()).expect("stopped");
}

#[test]
fn a_stopped_engine_says_so_to_every_handle() {
    let schema = Schema::new();
    let device = app(&schema);
    let config = config(&device, &schema);
    let engine = begin(&config);
    let other = engine.clone();
    go(engine.stop()).expect("stopped");
    go(other.stop()).expect("stopped before");
    go(other.ended()).expect("ended well");
    let refused = go(other.sync_now()).expect_err("stopped");
    assert!(refused.message.contains("stopped"), "{refused}");
    // What stands in the file can still be asked for.
    assert!(!go(other.status()).expect("a status").service.running);
}

#[test]
fn dropping_the_last_handle_stops_the_engine() {
    let schema = Schema::new();
    let device = app(&schema);
    let config = config(&device, &schema);
    let engine = begin(&config);
    let other = engine.clone();
    drop(engine);
    assert!(go(other.status()).expect("a status").service.running);
    drop(other);
    eventually(PATIENCE, "the device to be let go", || {
        device.json(&["status"])["service"]["running"] == false
    });
}

#[test]
fn what_cannot_start_says_why_at_once() {
    let schema = Schema::new();
    let device = app(&schema);
    let mut config = config(&device, &schema);
    let bare = go(Engine::start(config.clone())).expect_err("not prepared");
    assert_eq!(bare.code, Code::LocalUnusable, "{bare}");
    let file = config
        .local
        .path
        .replace(device.folder().join("missing.db"));
    let missing = go(Engine::start(config.clone())).expect_err("no file");
    assert_eq!(missing.code, Code::LocalUnusable, "{missing}");
    let missing = go(Engine::init(&config)).expect_err("no file");
    assert_eq!(missing.code, Code::LocalUnusable, "{missing}");
    config.local.path = file;
    config.upload.batch_size = 0;
    let wrong = go(Engine::start(config)).expect_err("impossible");
    assert_eq!(wrong.code, Code::Configuration, "{wrong}");
}

#[test]
fn a_file_that_becomes_unusable_ends_the_engine_with_its_error() {
    let schema = Schema::new();
    let device = app(&schema);
    let config = config(&device, &schema);
    let engine = begin(&config);
    go(engine.sync_now()).expect("at work");
    // A file that was never initialised takes its place.
    let other = device.folder().join("other.db");
    rusqlite::Connection::open(&other)
        .and_then(|c| c.execute_batch("create table t (id integer primary key)"))
        .expect("another file");
    std::fs::rename(&other, device.db()).expect("replaced");
    let ended = go(async { tokio::time::timeout(PATIENCE, engine.ended()).await })
        .expect("ends")
        .expect_err("with the error");
    assert_eq!(ended.code, Code::LocalUnusable, "{ended}");
    assert_eq!(go(engine.stop()), Err(ended));
}

#[test]
fn a_port_is_opened_only_where_it_is_asked_for() {
    let schema = Schema::new();
    let device = app(&schema);
    let mut config = config(&device, &schema);
    assert_eq!(config.metrics.listen, None);
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("an address").port();
    config.metrics.listen = HostPort::parse(&format!("127.0.0.1:{port}"));

    // Taken: said at the start.
    go(Engine::init(&config)).expect("prepared");
    let refused = go(Engine::start(config.clone())).expect_err("the port is taken");
    assert_eq!(refused.code, Code::Configuration, "{refused}");
    drop(free);

    let engine = go(Engine::start(config)).expect("started");
    let endpoint = Endpoint { port };
    endpoint.get("/healthz").expect(200);
    eventually(PATIENCE, "readiness", || {
        endpoint.get("/readyz").status == 200
    });
    go(engine.stop()).expect("stopped");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}
