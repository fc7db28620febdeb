//! `init --adopt-remote`: an app's empty tables are filled from the workspace, and nothing of the file
//! is sent.

use crate::sides;
use crate::support::cli::Device;
use crate::support::fleet::{self, Fleet};
use crate::support::proxy::{Mode, Proxy};
use crate::support::server::Schema;

const DDL: &str = "create table folder (id text primary key, name text not null); \
    create table note (id integer primary key, folder text references folder (id), body text unique, \
    stars real); create index by_folder on note (folder); \
    create table touched (id text primary key, at text)";

const NOTES: &str = "select id, folder, body, stars from note order by id";

const ADOPT: [&str; 2] = ["init", "--adopt-remote"];

/// A workspace with `notes` notes, and another device whose app has made its tables.
fn workspace(notes: u32) -> (Fleet, Device, Device) {
    let fleet = Fleet::new(DDL);
    let a = fleet.device("a");
    a.sql(&format!(
        "insert into folder values ('f1', 'one'), ('f2', 'two'); \
         with recursive n(i) as (select 1 union all select i + 1 from n where i < {notes}) \
         insert into note select i, 'f' || (1 + i % 2), 'note ' || i, i + 0.125 from n"
    ));
    a.tw(&["now"]).ok();
    let b = Device::new(&fleet.schema, "b");
    b.sql(DDL);
    (fleet, a, b)
}

/// What the app made: its schema without tidewater's part.
fn own_schema(device: &Device) -> Vec<Vec<String>> {
    device.rows(
        "select type, name, sql from sqlite_schema where name not like 'tidewater%' \
         and name not like 'sqlite_%' order by name",
    )
}

fn xids(fleet: &Fleet) -> Vec<Vec<String>> {
    fleet.server("select id, tidewater_xid, tidewater_change from note order by id")
}

#[test]
fn empty_tables_are_filled_and_nothing_comes_back_as_an_upload() {
    let (fleet, a, b) = workspace(250);
    b.sql(
        "create trigger on_note after insert on note begin \
         insert or replace into touched values ('last', new.body); end; pragma user_version = 12",
    );
    let (made, before) = (own_schema(&b), xids(&fleet));
    let report = b.json(&ADOPT);
    assert_eq!(
        report["skipped"].as_array().map(Vec::len),
        Some(0),
        "{report}"
    );
    let rows: Vec<_> = report["tables"]
        .as_array()
        .expect("tables")
        .iter()
        .map(|t| (t["name"].as_str().expect("a name"), t["rows"].as_u64()))
        .collect();
    assert!(rows.contains(&("note", Some(250))), "{report}");
    fleet.expect_equal(&[&a, &b], NOTES);
    assert_eq!(own_schema(&b), made);
    assert_eq!(b.rows("pragma user_version"), [["12"]]);
    // Nothing waits, and nothing is sent: the rows on the server are the ones that stood there.
    let done = b.json(&["now"]);
    assert_eq!(
        (&done["uploaded"], &done["downloaded"], &done["pending"]),
        (&0.into(), &0.into(), &0.into()),
        "{done}"
    );
    assert_eq!(xids(&fleet), before);
    // The feed goes on without a gap, in both directions.
    a.sql("update note set body = 'by a' where id = 7; delete from note where id = 8; insert into note values (900, 'f1', 'new', 0.1)");
    b.sql("update note set body = 'by b' where id = 9");
    fleet.converge(&[&a, &b], NOTES);
    assert_eq!(fleet.conflicts(), 0);
    assert_eq!(
        b.rows("select count(*) from note where body in ('by a', 'by b', 'new')"),
        [["3"]]
    );
    // Again: nothing to do, nothing refused.
    b.json(&ADOPT);
    sides::verify(&b);
}

#[test]
fn a_table_that_holds_rows_is_refused_by_name_and_the_file_stays_as_it_was() {
    let (fleet, _a, b) = workspace(3);
    b.sql("insert into note values (77, null, 'mine', 1); insert into folder values ('own', 'x')");
    for arguments in [&ADOPT[..], &["init", "--adopt-remote", "--dry-run"]] {
        let out = b.tw(arguments).expect_code(2);
        for said in [
            "SYNC-013",
            "folder and note hold rows",
            "plain `tidewater init`",
        ] {
            assert!(out.stderr.contains(said), "{said}: {}", out.stderr);
        }
    }
    assert_eq!(
        b.rows("select count(*) from sqlite_schema where name like 'tidewater%'"),
        [["0"]]
    );
    assert_eq!(
        fleet.server("select count(*) from tidewater_devices"),
        [["1"]]
    );
    b.sql("delete from folder");
    let error = b
        .tw(&["--json", "init", "--adopt-remote"])
        .expect_code(2)
        .json();
    assert_eq!(error["error"]["table"], "note", "{error}");
    // The remedy that it names: both sides have rows, and neither overwrites the other.
    b.tw(&["init"]).ok();
    b.tw(&["now"]).ok();
    assert_eq!(b.rows("select count(*) from note"), [["4"]]);
    assert_eq!(fleet.server("select count(*) from note"), [["4"]]);
    // An ordinary device has nothing to adopt any more.
    b.tw(&ADOPT).expect_code(2);
}

#[test]
fn tables_that_the_file_lacks_are_said_and_not_made() {
    let (fleet, _a, _) = workspace(3);
    let b = Device::new(&fleet.schema, "b");
    b.sql("create table note (id integer primary key, folder text, body text, stars real); create table own (id text primary key)");
    let report = b.json(&ADOPT);
    let skipped: Vec<_> = report["skipped"]
        .as_array()
        .expect("skipped")
        .iter()
        .map(|s| s["name"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(skipped, ["folder", "touched"], "{report}");
    assert_eq!(b.rows("select count(*) from note"), [["3"]]);
    assert_eq!(
        b.rows("select count(*) from sqlite_schema where name = 'folder'"),
        [["0"]]
    );
    // The app makes it later: its rows come by themselves.
    b.sql("create table folder (id text primary key, name text not null)");
    b.tw(&["now"]).ok();
    assert_eq!(b.rows("select count(*) from folder"), [["2"]]);
}

#[test]
fn without_the_remote_the_file_is_not_touched() {
    let (_fleet, _a, mut b) = workspace(3);
    b.set_env(
        "TIDEWATER_REMOTE__URL",
        "postgres://nobody@127.0.0.1:1/nowhere?sslmode=disable",
    );
    b.tw(&ADOPT).expect_code(3);
    assert_eq!(
        b.rows("select count(*) from sqlite_schema where name like 'tidewater%'"),
        [["0"]]
    );
    assert!(!b.folder().join(".tidewater").exists());
    b.unset_env("TIDEWATER_REMOTE__URL");
    b.tw(&ADOPT).ok();
    assert_eq!(b.rows("select count(*) from note"), [["3"]]);
}

#[test]
fn where_there_is_nothing_to_adopt_nothing_is_made() {
    let schema = Schema::new();
    let b = Device::new(&schema, "b");
    b.sql(DDL);
    let out = b.tw(&ADOPT).expect_code(6);
    assert!(out.stderr.contains("no workspace"), "{}", out.stderr);
    assert_eq!(
        schema
            .one("select count(*) from pg_class where relnamespace = current_schema::regnamespace"),
        "0"
    );
    assert_eq!(
        b.rows("select count(*) from sqlite_schema where name like 'tidewater%'"),
        [["0"]]
    );
    let (fleet, ..) = workspace(1);
    let c = Device::new(&fleet.schema, "c");
    c.sql("create table other (id text primary key)");
    let out = c.tw(&ADOPT).expect_code(6);
    assert!(
        out.stderr.contains("none of this file's tables"),
        "{}",
        out.stderr
    );
}

#[test]
fn tables_that_only_postgres_has_are_adopted_on_the_way() {
    let schema = Schema::new();
    schema.exec(
        "create table note (id integer primary key, folder text, body varchar(40), stars double precision); \
         insert into note select i, null, 'row ' || i, i + 0.125 from generate_series(1, 20) i",
    );
    let b = Device::new(&schema, "b");
    b.sql("create table note (id integer primary key, folder text, body text, stars real)");
    let report = b.json(&ADOPT);
    assert_eq!(report["tables"][0]["rows"], 20, "{report}");
    assert_eq!(b.rows(NOTES), schema.rows(NOTES));
}

#[test]
fn killed_halfway_it_is_run_again_beside_an_app_that_writes() {
    let (fleet, a, mut b) = workspace(120);
    b.set_env("TIDEWATER_DOWNLOAD__PAGE_SIZE", "10");
    for point in ["apply_before_commit", "apply_after_commit", "page_received"] {
        fleet::crash(&b, &format!("{point}:4"), &ADOPT);
    }
    let half: u32 = b.rows("select count(*) from note")[0][0]
        .parse()
        .expect("a number");
    assert!(half > 0 && half < 120, "{half}");
    // The app uses what is there already, and what it adds is an edit like any other.
    b.sql("update note set stars = 99.5 where id = (select min(id) from note); insert into note values (500, null, 'meanwhile', 1.5)");
    b.tw(&ADOPT).ok();
    assert_eq!(b.rows("select count(*) from note"), [["121"]]);
    assert_eq!(b.json(&["status"])["upload"]["pending"], 2);
    fleet.converge(&[&a, &b], NOTES);
    assert_eq!(fleet.conflicts(), 0);
    assert_eq!(
        a.rows("select count(*) from note where stars = 99.5 or id = 500"),
        [["2"]]
    );
}

#[test]
fn a_connection_that_breaks_halfway_leaves_a_device_that_goes_on() {
    let (fleet, a, _) = workspace(120);
    let proxy = Proxy::shared_server();
    let url = fleet.schema.url_through(proxy.host(), proxy.port());
    let mut b = Device::with_url(&url, fleet.schema.name(), "b", "");
    b.sql(DDL);
    b.set_env("TIDEWATER_DOWNLOAD__PAGE_SIZE", "10");
    proxy.set(Mode::CutBefore("pg_visible_in_snapshot".into()));
    let out = b.tw(&ADOPT).expect_code(3);
    assert!(
        out.stderr.contains("capture is installed"),
        "{}",
        out.stderr
    );
    proxy.set(Mode::Pass);
    b.tw(&["now"]).ok();
    fleet.expect_equal(&[&a, &b], NOTES);
}

#[test]
fn a_running_service_is_not_disturbed() {
    let (fleet, a, b) = workspace(5);
    b.tw(&ADOPT).ok();
    let service = b.spawn(&["run"]);
    crate::support::wait::eventually(crate::support::wait::PATIENCE, "the service runs", || {
        b.json(&["status"])["service"]["running"] == true
    });
    let out = b.tw(&ADOPT).expect_code(5);
    assert!(out.stderr.contains("SYNC-010"), "{}", out.stderr);
    drop(service);
    fleet.expect_equal(&[&a, &b], NOTES);
}

#[test]
fn a_row_that_does_not_fit_waits_and_is_counted() {
    let (_fleet, _a, _) = workspace(5);
    let b = Device::new(&_fleet.schema, "b");
    b.sql(
        "create table folder (id text primary key, name text not null check (name <> 'two')); \
         create table note (id integer primary key, folder text, body text, stars real); \
         create table touched (id text primary key, at text)",
    );
    let out = b.tw(&["--json", "init", "--adopt-remote"]).expect_code(1);
    assert_eq!(out.json()["tables"].as_array().map(Vec::len), Some(3));
    assert!(out.stderr.contains("--inbox"), "{}", out.stderr);
    assert_eq!(b.rows("select count(*) from note"), [["5"]]);
    assert_eq!(sides::queue(&b, &["--inbox", "--errors"]).len(), 1);
}

#[test]
fn a_dry_run_says_what_would_be_done_to_what_is_there() {
    let (fleet, _a, b) = workspace(3);
    fleet
        .schema
        .exec("create table plain (id text primary key, body text)");
    b.sql("create table plain (id text primary key, body text); create table fresh (id text primary key)");
    let report = b.json(&["init", "--adopt-remote", "--dry-run"]);
    let text = |database: &str| -> String {
        report["statements"]
            .as_array()
            .expect("statements")
            .iter()
            .filter(|s| s["database"] == database)
            .map(|s| format!("{}\n", s["sql"].as_str().expect("SQL")))
            .collect()
    };
    let remote = text("postgres");
    assert!(text("sqlite").contains("create trigger"));
    assert!(
        !remote.contains("create schema") && !remote.contains("\"note\""),
        "{remote}"
    );
    assert!(
        remote.contains(&format!(
            "create table \"{}\".\"fresh\"",
            fleet.schema.name()
        )),
        "{remote}"
    );
    assert!(
        remote.contains("add column if not exists tidewater_xid"),
        "{remote}"
    );
    assert_eq!(
        b.rows("select count(*) from sqlite_schema where name like 'tidewater%'"),
        [["0"]]
    );
    assert_eq!(
        fleet.server("select count(*) from tidewater_tables"),
        [["3"]]
    );
}
