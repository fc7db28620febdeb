//! The app's own SQLite: one of 2014, the first with `trusted_schema`, and the newest.
//!
//! The old ones are their own shells (`scripts/ensure-old-sqlite` builds them), each script a session of an
//! app. Where they are missing these tests say so and pass, but not where CI=true.

use crate::support::cli::Device;
use crate::support::fleet::{Fleet, ITEMS};
use crate::support::seed;
use crate::support::wait::{PATIENCE, eventually};
use fastrand::Rng;
use rusqlite::{Connection, ErrorCode};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const OLD: [&str; 2] = ["3.8.7.1", "3.31.1"];

/// The shell of a version, or a reason to skip.
fn shell(version: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("TIDEWATER_OLD_SQLITE").map(PathBuf::from);
    let found = folder
        .map(|folder| folder.join(format!("sqlite-{version}")))
        .filter(|file| file.is_file());
    if found.is_none() {
        let missing = "an old SQLite is missing: scripts/ensure-old-sqlite builds it, \
                       TIDEWATER_OLD_SQLITE names its folder";
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{missing}");
        println!("SKIPPED: {missing}");
    }
    found
}

/// How the app opens its file.
enum App {
    Shell(PathBuf),
    Newest,
}

impl App {
    /// Runs each statement as the app, whether those before it failed or not; returns what was printed and
    /// the errors.
    #[track_caller]
    fn run(&self, file: &Path, setup: &str, statements: &[String]) -> (String, Vec<String>) {
        match self {
            App::Shell(program) => {
                let script = format!("{setup};\n{};\n", statements.join(";\n"));
                let mut shell = start(program, file);
                shell
                    .stdin
                    .take()
                    .unwrap()
                    .write_all(script.as_bytes())
                    .unwrap();
                let done = shell.wait_with_output().unwrap();
                let errors = String::from_utf8(done.stderr).unwrap();
                (
                    String::from_utf8(done.stdout).unwrap(),
                    errors.lines().map(str::to_owned).collect(),
                )
            }
            App::Newest => {
                let app = Connection::open(file).unwrap();
                app.execute_batch(setup).unwrap();
                let mut errors = Vec::new();
                for statement in statements {
                    if let Err(e) = app.execute_batch(statement) {
                        errors.push(e.to_string());
                        if !app.is_autocommit() {
                            app.execute_batch("rollback").unwrap();
                        }
                    }
                }
                (String::new(), errors)
            }
        }
    }
}

fn start(program: &Path, file: &Path) -> Child {
    Command::new(program)
        .arg("-batch")
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(..from.len())]
}

/// What an app does to its tables, conflicts included.
fn statement(rng: &mut Rng, newer: bool) -> String {
    const CLAUSES: [&str; 7] = [
        "",
        "or replace",
        "or replace",
        "or ignore",
        "or fail",
        "or abort",
        "or rollback",
    ];
    const WORDS: [&str; 8] = ["a", "A", "b", "B", "c", "C", "d", "D"];
    let or = pick(rng, &CLAUSES);
    let (word, other) = (pick(rng, &WORDS), pick(rng, &WORDS));
    let (n, m) = (rng.u8(..9), rng.u8(..9));
    let kinds = if newer { 13 } else { 11 };
    match rng.u8(..kinds) {
        0 => format!("insert {or} into items values ('{word}', {n}, 'x'), ('{other}', {m}, 'y')"),
        1 => format!("update {or} items set id = '{word}', n = {n} where n > {m}"),
        2 => format!("delete from items where n = {n}"),
        3 => format!("insert {or} into pair values ({n}, '{word}', {m}, 'x')"),
        4 => format!("update {or} pair set a = a + 1 where c < {n}"),
        5 => format!("insert {or} into node values ({n}, {m}, {m})"),
        6 => format!("update {or} node set id = {n} where id = {m}"),
        7 => format!("delete from node where id = {n}"),
        8 => format!("insert {or} into items select id || 'x', n + 1, v from items where n = {n}"),
        9 => format!(
            "begin; replace into items values ('{word}', {n}, 'z'); savepoint s; delete from pair; \
             rollback to s; {}",
            pick(rng, &["commit", "rollback"])
        ),
        10 => format!("update {or} items set v = v || '{word}'"),
        11 => format!("insert {or} into people (id, mail, a, b) values ({n}, '{word}', {m}, 1)"),
        _ => format!("update {or} people set mail = '{word}', a = a + 1 where id > {n}"),
    }
}

const TABLES: &str = "create table items (id text primary key collate nocase, n integer unique, v text);
     create table pair (a integer, b text, c integer, v text, primary key (b, a), unique (c, a)) without rowid;
     create table node (id integer primary key, p integer references node(id) on delete cascade on update cascade,
       u integer unique);
     create table touched (id text primary key, n integer);
     create trigger touch after insert on pair begin
       insert or ignore into touched values (new.b, 0); update touched set n = n + 1 where id = new.b; end;";

/// An expression needs SQLite 3.9, a generated column 3.31.
const NEWER: &str = "create table people (id integer primary key, mail text, a integer, b integer, g as (a % 5) unique);
     create unique index by_mail on people (lower(mail));";

const QUERIES: [&str; 5] = [
    "select id, n, v from items",
    "select a, b, c, v from pair",
    "select id, p, u from node",
    "select id, n from touched",
    "select id, mail, a, b from people",
];

const QUICK: &str =
    "[upload]\npoll_interval_seconds = 0.2\n\n[download]\npoll_interval_seconds = 0.2\n";

/// The statements of an app in this SQLite are captured whole, however its connection is set, and whether
/// or not the service runs meanwhile.
#[track_caller]
fn plays(version: &str, app: &App, newer: bool) {
    let mut rng = seed::rng();
    let more = if newer { NEWER } else { "" };
    let fleet = Fleet::configured(&format!("{TABLES}{more}"), QUICK);
    let device = fleet.device("a");
    if rng.bool() {
        device.sql("pragma journal_mode = wal");
    }
    let mut service = None;
    for (trusted, recursive, timeout) in [
        ("off", "off", 0),
        ("on", "on", 5_000),
        ("off", "on", 0),
        ("off", "off", 5_000),
    ] {
        let setup = format!(
            "pragma trusted_schema = {trusted}; pragma recursive_triggers = {recursive}; \
             pragma foreign_keys = on; pragma busy_timeout = {timeout}"
        );
        let statements: Vec<String> = (0..60).map(|_| statement(&mut rng, newer)).collect();
        let (_, errors) = app.run(&device.db(), &setup, &statements);
        for e in &errors {
            // The app's own conflicts, and the one thing that it may see of a second writer, with what comes
            // of it: a BEGIN that was refused, or a COMMIT, after which the transaction is still open.
            let expected = ["constraint failed", "database is locked"];
            let follows = [
                "no transaction is active",
                "no such savepoint",
                "cannot start a transaction within a transaction",
            ];
            assert!(
                expected.iter().chain(&follows).any(|x| e.contains(x)),
                "SQLite {version}: {e}"
            );
        }
        if service.is_none() {
            expect_view(app, &device, true);
        }
        device.json(&["now"]);
        for query in &QUERIES[..if newer { 5 } else { 4 }] {
            let (mut here, mut there) = (device.rows(query), fleet.server(query));
            here.sort();
            there.sort();
            assert_eq!(
                here,
                there,
                "SQLite {version}, {setup}, {query}\n{}",
                statements.join(";\n")
            );
        }
        expect_view(app, &device, false);
        if timeout > 0 && service.is_none() {
            service = Some(device.spawn(&["run"]));
            eventually(PATIENCE, "the service runs", || {
                device.json(&["status"])["service"]["running"] == true
            });
        }
    }
    assert_eq!(device.json(&["verify"])["identical"], true);
}

/// The app reads the view, and SQLite finds nothing wrong with the file.
#[track_caller]
fn expect_view(app: &App, device: &Device, waits: bool) {
    let App::Shell(_) = app else { return };
    let (out, errors) = app.run(
        &device.db(),
        "pragma trusted_schema = off",
        &[
            "select 'waits' from tidewater_status where status = 'pending' limit 1".to_owned(),
            "pragma integrity_check".to_owned(),
        ],
    );
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(out, if waits { "waits\nok\n" } else { "ok\n" });
}

#[test]
fn an_app_of_2014_is_captured_whole() {
    let Some(program) = shell(OLD[0]) else { return };
    plays(OLD[0], &App::Shell(program), false);
}

#[test]
fn an_app_of_the_first_sqlite_that_can_distrust_its_schema_is_captured_whole() {
    let Some(program) = shell(OLD[1]) else { return };
    plays(OLD[1], &App::Shell(program), true);
}

#[test]
fn an_app_of_the_newest_sqlite_is_captured_whole() {
    plays(rusqlite::version(), &App::Newest, true);
}

/// What an app that waits for no lock can see of tidewater: that its statement was refused as busy, now and
/// then. Nothing of such a statement is left, and once it succeeds it is captured.
#[test]
fn an_app_that_waits_for_no_lock_sees_busy_and_nothing_else() {
    for mode in ["wal", "delete"] {
        let fleet = Fleet::configured(ITEMS, QUICK);
        let (a, b) = (fleet.device("a"), fleet.device("b"));
        a.sql(&format!("pragma journal_mode = {mode}"));
        let _service = a.spawn(&["run"]);
        let app = a.sqlite();
        app.busy_timeout(Duration::ZERO).unwrap();
        let mut sent = None;
        for i in 0..150 {
            if i % 50 == 0 {
                // Rows that arrive are written between those of the app.
                b.sql(&format!(
                    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 200) \
                     insert into items select 'b{i}-' || i, 'from b', i from n"
                ));
                drop(sent.replace(b.spawn(&["now", "--push"])));
            }
            eventually(PATIENCE, "the app's turn", || {
                match app.execute(
                    "insert into items values (?1, 'from a', 1)",
                    [format!("a{i}")],
                ) {
                    Ok(n) => n == 1,
                    Err(e) => {
                        assert_eq!(
                            e.sqlite_error_code(),
                            Some(ErrorCode::DatabaseBusy),
                            "{mode}: {e}"
                        );
                        false
                    }
                }
            });
        }
        drop(app);
        b.tw(&["now"]).ok();
        let all = "select count(*), count(distinct id) from items";
        eventually(PATIENCE, "everything is on both sides", || {
            let there = fleet.server(all);
            there == [["750", "750"]] && a.rows(all) == there
        });
    }
}

/// The lock as tidewater holds it: an old app with a timeout waits for it, one without is told at once.
#[test]
fn a_busy_timeout_waits_for_the_lock() {
    for version in OLD {
        let Some(program) = shell(version) else {
            return;
        };
        let fleet = Fleet::new(ITEMS);
        let device = fleet.device("a");
        let lock = device.sqlite();
        lock.execute_batch("begin immediate").unwrap();
        let app = App::Shell(program.clone());
        let insert = "insert into items values ('1', 'once', 1)".to_owned();
        let (_, errors) = app.run(&device.db(), "pragma busy_timeout = 0", &[insert]);
        assert!(
            errors.len() == 1 && errors[0].contains("database is locked"),
            "{errors:?}"
        );
        let mut waits = start(&program, &device.db());
        write!(
            waits.stdin.take().unwrap(),
            ".timeout {}\nselect 'asks';\ninsert into items values ('1', 'waited', 1);\n",
            PATIENCE.as_millis()
        )
        .unwrap();
        let mut said = BufReader::new(waits.stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "asks");
        lock.execute_batch("commit").unwrap();
        let done = waits.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(done.stderr).unwrap(), "");
        device.json(&["now"]);
        assert_eq!(
            fleet.server("select id, body from items"),
            [["1", "waited"]]
        );
    }
}
