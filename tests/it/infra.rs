//! The tests' own ground: the throw-away server, the fault proxy, the search for PostgreSQL.

use crate::support::cli::{Device, Running};
use crate::support::proxy::{Mode, Proxy};
use crate::support::seed;
use crate::support::server::{Client, Schema, shared, start};
use crate::support::wait::{PATIENCE, eventually};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tidewater::throwaway::Options;

/// Set for the process that [`a_server_ends_with_the_process_that_started_it`] kills: where it
/// writes what it started.
const VICTIM: &str = "TIDEWATER_TEST_VICTIM";

fn through(proxy: &Proxy, schema: &Schema) -> Client {
    let client = Client::connect(&schema.url_through(proxy.host(), proxy.port()));
    client.exec(&format!("set search_path = {}", schema.name()));
    client
}

#[test]
fn the_shared_server_answers_and_a_schema_goes_with_its_test() {
    let schema = Schema::new();
    schema.exec("create table t (a int, b text); insert into t values (1, null), (2, 'x')");
    assert_eq!(
        schema.rows("select a, b from t order by a"),
        [["1", "NULL"], ["2", "x"]]
    );
    let name = schema.name().to_owned();
    drop(schema);
    let left = format!("select count(*) from pg_namespace where nspname = '{name}'");
    assert_eq!(Client::connect(&shared().url()).one(&left), "0");
}

#[test]
fn a_server_survives_its_crash_with_what_it_committed() {
    let server = start(Options {
        fsync: true,
        settings: vec![("application_name".into(), "it's here".into())],
        ..Options::default()
    });
    let schema = Schema::on(&server.url());
    assert_eq!(schema.one("show fsync"), "on");
    assert_eq!(schema.one("show application_name"), "it's here");
    schema.exec("create table t (a int); insert into t values (7)");

    server.stop_immediate().unwrap();
    assert!(Client::try_connect(&server.url()).is_err());
    server.start_again().unwrap();
    assert_eq!(schema.one("select a from t"), "7");
    server.restart().unwrap();
    assert_eq!(schema.one("select a from t"), "7");

    server.reload(&[("statement_timeout", "1234ms")]).unwrap();
    eventually(PATIENCE, "the new setting", || {
        Client::connect(&server.url()).one("show statement_timeout") == "1234ms"
    });

    let data = server.data_dir();
    let folder = data.parent().unwrap().to_owned();
    drop(schema);
    drop(server);
    assert!(!folder.exists());
}

#[test]
fn a_password_is_asked_for_where_one_is_set() {
    let server = start(Options {
        password: Some("tide".into()),
        ..Options::default()
    });
    assert_eq!(Client::connect(&server.url()).one("select 1"), "1");
    let wrong = server.url_for("postgres", Some("ebb"), "postgres");
    let refused = Client::try_connect(&wrong).err().expect("a refusal");
    assert_eq!(
        refused.code(),
        Some(&tokio_postgres::error::SqlState::INVALID_PASSWORD)
    );
}

#[test]
fn a_kept_server_goes_on_until_someone_stops_it() {
    let server = start(Options::default());
    let (url, data) = (server.url(), server.data_dir());
    let stop = server.keep().unwrap();
    assert_eq!(Client::connect(&url).one("select 1"), "1");
    let stopped = Command::new("sh").args(["-c", &stop]).status().unwrap();
    assert!(stopped.success(), "{stop}");
    let folder = data.parent().unwrap().to_owned();
    eventually(PATIENCE, "the folder gone", || !folder.exists());
}

#[test]
fn a_server_ends_with_the_process_that_started_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "infra::starts_a_server_and_waits", "--ignored"])
        .env(VICTIM, file.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = String::new();
    eventually(PATIENCE, "the victim's server", || {
        said = std::fs::read_to_string(file.path()).unwrap();
        said.ends_with('\n')
    });
    let (url, data) = said.trim().split_once(' ').unwrap();
    assert_eq!(Client::connect(url).one("select 1"), "1");

    // SIGKILL: the victim has no say in it.
    victim.kill().unwrap();
    victim.wait().unwrap();
    let folder = PathBuf::from(data).parent().unwrap().to_owned();
    eventually(PATIENCE, "the folder gone", || !folder.exists());
    assert!(Client::try_connect(url).is_err());
}

#[test]
#[ignore = "not a test: the process that another test kills"]
fn starts_a_server_and_waits() {
    let Some(file) = std::env::var_os(VICTIM) else {
        return;
    };
    let server = start(Options::default());
    let line = format!("{} {}\n", server.url(), server.data_dir().display());
    std::fs::write(file, line).unwrap();
    // Until the other end of the pipe goes, should the killer fail before it kills.
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn the_search_for_postgres_finds_the_folder_that_the_script_prints() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/ensure-postgres");
    let output = Command::new(script).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let folder = Path::new(printed.trim_end());
    assert!(folder.join("initdb").is_file(), "{printed}");
    assert_eq!(tidewater::throwaway::find().unwrap(), folder);
}

#[test]
fn a_commit_whose_answer_is_lost_is_committed_all_the_same() {
    let schema = Schema::new();
    schema.exec("create table t (a int primary key)");
    let proxy = Proxy::shared_server();
    let client = through(&proxy, &schema);
    proxy.set_times(Mode::CutAfterCommitReply, 1);
    client.exec("begin; insert into t values (1)");
    assert_eq!(client.one("select count(*) from t"), "1");
    assert!(client.try_exec("COMMIT;").is_err());
    assert_eq!(schema.one("select count(*) from t"), "1");
    assert_eq!(proxy.stats().cuts, 1);

    // The fault was for one commit: the next is answered.
    assert_eq!(proxy.mode(), Mode::Pass);
    through(&proxy, &schema).exec("begin; insert into t values (2)");
    let client = through(&proxy, &schema);
    client.exec("begin; insert into t values (3)");
    client.exec("commit");
    assert_eq!(schema.rows("select a from t order by a"), [["1"], ["3"]]);
}

#[test]
fn half_open_a_commit_is_done_and_its_client_hears_nothing() {
    let schema = Schema::new();
    schema.exec("create table t (n integer)");
    let proxy = Proxy::shared_server();
    let client = through(&proxy, &schema);
    client.exec("begin; insert into t values (1)");
    proxy.set(Mode::HalfOpen);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.try_exec("commit"));
        eventually(PATIENCE, "the commit", || {
            schema.one("select count(*) from t") == "1"
        });
        // What was swallowed is gone, so that the connection is of no use any more.
        proxy.set(Mode::Pass);
        proxy.cut_all();
        assert!(waiting.join().expect("the client").is_err());
    });
    through(&proxy, &schema).exec("insert into t values (2)");
}

#[test]
fn abandoned_a_transaction_keeps_its_locks_until_the_mode_is_set() {
    let schema = Schema::new();
    schema.exec("create table t (n integer); insert into t values (1)");
    let proxy = Proxy::shared_server();
    let client = through(&proxy, &schema);
    client.exec("begin; update t set n = 2");
    proxy.abandon_all();
    eventually(PATIENCE, "the client to be cut off", || {
        client.try_exec("").is_err()
    });
    let locked = "set lock_timeout = '50ms'; update t set n = 3";
    let other = through(&proxy, &schema);
    assert!(other.try_exec(locked).is_err());
    proxy.set(Mode::Pass);
    eventually(PATIENCE, "the lock to be free", || {
        other.try_exec(locked).is_ok()
    });
    assert_eq!(schema.one("select n from t"), "3");
}

#[test]
fn the_answer_to_a_commit_that_failed_is_passed_on() {
    let schema = Schema::new();
    let proxy = Proxy::shared_server();
    let client = through(&proxy, &schema);
    proxy.set(Mode::CutAfterCommitReply);
    client.exec("begin");
    assert!(client.try_exec("select 1/0").is_err());
    client.exec("commit");
    assert_eq!(client.one("select 1"), "1");
    assert_eq!(proxy.stats().cuts, 0);
}

#[test]
fn a_transaction_sent_at_once_is_cut_at_its_commit() {
    let schema = Schema::new();
    schema.exec("create table t (a int primary key)");
    let proxy = Proxy::shared_server();
    let client = through(&proxy, &schema);
    proxy.set(Mode::CutAfterCommitReply);
    let driver = client.driver();
    let (began, inserted, committed) = client.block_on(async {
        tokio::join!(
            driver.batch_execute("begin"),
            driver.execute_typed("insert into t values (1)", &[]),
            driver.batch_execute("commit"),
        )
    });
    assert!(began.is_ok() && inserted.is_ok());
    assert!(committed.is_err());
    assert_eq!(schema.one("select count(*) from t"), "1");
}

#[test]
fn a_request_is_cut_before_or_after_it_takes_effect() {
    let schema = Schema::new();
    schema.exec("create table t (a int primary key)");
    let proxy = Proxy::shared_server();
    let insert = "insert into t values (1)";
    for (mode, rows) in [
        (Mode::CutBefore("INSERT into t".into()), "0"),
        (Mode::CutAfterReplyTo("INSERT into t".into()), "1"),
    ] {
        let client = through(&proxy, &schema);
        proxy.set_times(mode, 1);
        let statement = client
            .block_on(client.driver().prepare("select 1"))
            .unwrap();
        client
            .block_on(client.driver().query(&statement, &[]))
            .unwrap();
        let done = client.block_on(client.driver().execute_typed(insert, &[]));
        assert!(done.is_err());
        assert_eq!(schema.one("select count(*) from t"), rows);
    }
}

#[test]
fn one_request_is_one_round_trip_and_so_is_a_burst() {
    let schema = Schema::new();
    let proxy = Proxy::shared_server();
    let client = through(&proxy, &schema);
    proxy.reset_stats();
    client.exec("select 1");
    let stats = proxy.stats();
    assert_eq!((stats.requests, stats.round_trips), (1, 1));
    assert_eq!((stats.messages_up, stats.bytes_up), (1, 14));
    assert!(stats.messages_down >= 3 && stats.bytes_down > 30);

    let rows = client
        .block_on(client.driver().query_typed("select 2", &[]))
        .unwrap();
    assert_eq!(rows.len(), 1);
    let stats = proxy.stats();
    assert_eq!((stats.requests, stats.round_trips), (2, 2));

    // A prepared statement costs one to prepare and one to execute.
    client
        .block_on(client.driver().query("select 3", &[]))
        .unwrap();
    assert_eq!(proxy.stats().round_trips, 4);
}

#[test]
fn bytes_are_cut_where_they_were_told_to_be() {
    let schema = Schema::new();
    let proxy = Proxy::shared_server();
    let mut random = seed::rng();
    for _ in 0..8 {
        let client = through(&proxy, &schema);
        // `select 1` is a message of 14 bytes, and its answer is longer than 20.
        let mode = match random.bool() {
            true => Mode::CutAfterBytes(random.u64(0..14)),
            false => Mode::CutAfterAnswerBytes(random.u64(0..20)),
        };
        proxy.set_times(mode.clone(), 1);
        assert!(client.try_exec("select 1").is_err(), "{mode:?}");
        assert_eq!(proxy.mode(), Mode::Pass);
    }
    assert_eq!(proxy.stats().cuts, 8);
}

#[test]
fn a_network_can_be_gone_silent_or_slow() {
    let schema = Schema::new();
    let proxy = Proxy::shared_server();
    let client = through(&proxy, &schema);

    proxy.set(Mode::BlackHole);
    let query = client.driver().batch_execute("select 1");
    let silent =
        client.block_on(async { tokio::time::timeout(Duration::from_millis(100), query).await });
    assert!(silent.is_err());

    proxy.set(Mode::Delay(Duration::from_millis(60)));
    let before = std::time::Instant::now();
    client.exec("select 1");
    assert!(before.elapsed() >= Duration::from_millis(120));

    proxy.set(Mode::Refuse);
    assert!(client.try_exec("select 1").is_err());
    let url = schema.url_through(proxy.host(), proxy.port());
    assert!(Client::try_connect(&url).is_err());

    proxy.set(Mode::Pass);
    let client = Client::connect(&url);
    proxy.cut_all();
    assert!(client.try_exec("select 1").is_err());
    assert_eq!(Client::connect(&url).one("select 1"), "1");
}

#[test]
fn a_device_runs_the_program_with_nothing_else_in_its_environment() {
    let schema = Schema::new();
    let mut device = Device::new(&schema, "laptop");
    device.set_env("TIDEWATER_UPLOAD__BATCH_SIZE", "7");
    device.sql("create table t (a, b); insert into t values (1, x'0aff'), (null, 'x')");
    assert_eq!(
        device.rows("select a, b from t order by rowid"),
        [["1", "x'0aff'"], ["NULL", "x"]]
    );
    let command = device.command(&["--version"]);
    let mut names: Vec<_> = command.get_envs().map(|(n, _)| n.to_owned()).collect();
    names.retain(|n| n != "TMPDIR" && n != "TIDEWATER_PG_BIN");
    assert_eq!(
        names,
        [
            "HOME",
            "PATH",
            "TIDEWATER_CONFIG",
            "TIDEWATER_UPLOAD__BATCH_SIZE"
        ]
    );
    device.tw(&["--version"]).ok();
}

#[test]
fn a_process_in_the_background_is_signalled_and_waited_for() {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "trap 'echo bye; exit 5' TERM; echo up; while :; do read x <\"$1\"; done",
    ]);
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let mut running = Running::spawn({
        command.arg("sh").arg(&fifo);
        command
    });
    eventually(PATIENCE, "the trap", || running.stdout() == "up\n");
    assert!(running.is_running());
    running.signal(libc::SIGTERM);
    let output = running.wait(PATIENCE).expect_code(5);
    assert_eq!(output.stdout, "up\nbye\n");
}
