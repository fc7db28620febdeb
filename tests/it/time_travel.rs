//! The server goes back in time: restored from a copy, loaded again elsewhere, failed over to a standby
//! that lagged, emptied. The devices meet it again by themselves, and whatever they had been told is
//! settled stays settled (PROTOCOL section 5, SYNC-007).

use super::support::cli::Device;
use super::support::fleet::{ALL, Fleet, ITEMS, conflicts, crash, id, state};
use super::support::neighbour::Standby;
use super::support::server::{Client, Schema, start};
use super::support::wait::{PATIENCE, eventually};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use tidewater::throwaway::{Options, Server};

/// Three devices in step with rows 1 to 6, before the copy is taken.
struct Story {
    fleet: Fleet,
    a: Device,
    b: Device,
    c: Device,
}

impl Story {
    fn begin(url: &str) -> Story {
        let fleet = Fleet::within(Schema::on(url), ITEMS, "");
        let (a, b, c) = (fleet.device("a"), fleet.device("b"), fleet.device("c"));
        a.sql(
            "insert into items values ('1', 'x', 0), ('2', 'x', 0), ('3', 'x', 0), ('4', 'x', 0), \
             ('5', 'x', 0), ('6', 'x', 0)",
        );
        fleet.converge(&[&a, &b, &c], ALL);
        Story { fleet, a, b, c }
    }

    /// What the restored server does not know: all of it acknowledged, but for what `c` writes offline.
    fn go_on(&self) {
        let (a, b, c) = (&self.a, &self.b, &self.c);
        c.sql("update items set body = 'c2' where id = '2'");
        c.sql("update items set body = 'c5' where id = '5'");
        c.sql("insert into items values ('new c', 'c', 1)");
        a.sql("update items set body = 'a1' where id = '1'; delete from items where id = '2'");
        a.sql("insert into items values ('new a', 'a', 1), ('short', 'a', 1)");
        a.json(&["now"]);
        b.json(&["now"]);
        b.sql("update items set body = 'b1' where id = '1'; update items set body = 'b3' where id = '3'");
        b.sql("delete from items where id in ('4', 'short')");
        b.sql("insert into items values ('new b', 'b', 1)");
        b.json(&["now"]);
        self.fleet
            .schema
            .exec("update items set body = 'pg' where id = '6'");
        a.json(&["now"]);
    }

    fn devices(&self) -> [&Device; 3] {
        [&self.a, &self.b, &self.c]
    }

    fn point_to(&mut self, url: &str) {
        for d in [&mut self.a, &mut self.b, &mut self.c] {
            d.set_env("TIDEWATER_REMOTE__URL", url);
        }
    }

    /// Syncs in this order until all are in step, and looks at what became of everything.
    fn meet_again(&self, order: [&Device; 3], url: &str) {
        for _ in 0..3 {
            for d in order {
                d.tw(&["now"]).ok();
            }
        }
        let server = Client::connect(url);
        server.exec(&format!("set search_path = {}", self.fleet.schema.name()));
        let want = [
            ["1", "b1", "0"],
            ["3", "b3", "0"],
            ["5", "c5", "0"],
            ["6", "pg", "0"],
            ["new a", "a", "1"],
            ["new b", "b", "1"],
            ["new c", "c", "1"],
        ];
        assert_eq!(server.rows(ALL), want, "the server");
        for d in self.devices() {
            assert_eq!(d.rows(ALL), want, "{}", id(d));
            assert_eq!(d.json(&["verify"])["identical"], true);
            let told = d.rows("select count(*) from tidewater_event where kind = 'went_back'");
            assert_eq!(told, [["1"]], "once");
            let problems = d.json(&["status"])["problems"].to_string();
            assert!(problems.contains("SYNC-007"), "{problems}");
            assert_eq!(d.rows("select count(*) from tidewater_note"), [["0"]]);
        }
        // The one unsent edit that met an older delete is kept.
        let lost = conflicts(&self.c);
        assert!(
            lost.iter().any(|c| c["key"][0] == "2" || c["pk"][0] == "2"),
            "{lost:?}"
        );
        let lives = server.rows(
            "select m.id from items m join tidewater_tombstones g on g.pk = '[' || to_json(m.id)::text || ']'",
        );
        assert!(lives.is_empty(), "{lives:?}");
        // And the exchange goes on.
        self.a.sql("update items set n = 9 where id = '1'");
        for d in [&self.a, &self.b, &self.c] {
            d.json(&["now"]);
        }
        assert_eq!(self.c.rows("select n from items where id = '1'"), [["9"]]);
        assert_eq!(server.one("select n from items where id = '1'"), "9");
    }
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(done.expect("cp").success());
}

/// A copy of a server's files, put back later.
pub struct Backup {
    folder: std::path::PathBuf,
}

impl Backup {
    pub fn of(server: &Server) -> Backup {
        server.stop_immediate().unwrap();
        let data = server.data_dir();
        let folder = data.with_file_name("earlier");
        copy(&data, &folder);
        server.start_again().unwrap();
        Backup { folder }
    }

    pub fn put_back(&self, server: &Server) {
        server.stop_immediate().unwrap();
        let data = server.data_dir();
        std::fs::remove_dir_all(&data).unwrap();
        copy(&self.folder, &data);
        server.start_again().unwrap();
    }
}

#[test]
fn a_server_restored_from_a_copy_gets_back_what_it_lost() {
    let server = start(Options::default());
    let story = Story::begin(&server.url());
    let backup = Backup::of(&server);
    story.go_on();
    backup.put_back(&server);
    // What waits is offered to the server before anything is read from it.
    story.a.sql("insert into items values ('brief', 'a', 0)");
    story.a.sql("delete from items where id = 'brief'");
    let order = [&story.a, &story.b, &story.c];
    story.meet_again(order, &server.url());
}

#[test]
fn a_push_never_reaches_a_server_that_went_back() {
    let server = start(Options::default());
    let story = Story::begin(&server.url());
    let backup = Backup::of(&server);
    story.go_on();
    backup.put_back(&server);
    story.b.sql("update items set n = n where id = '3'");
    let seen = story.b.tw(&["now", "--push"]).ok();
    assert!(seen.stderr.contains("SYNC-007"), "{seen:?}");
    story.meet_again([&story.c, &story.b, &story.a], &server.url());
}

#[test]
fn a_dump_loaded_into_another_server_is_stamped_anew() {
    let server = start(Options::default());
    // Transaction ids that the other server has not come to.
    let old = Client::connect(&server.url());
    for _ in 0..400 {
        old.exec("select pg_current_xact_id()");
    }
    let mut story = Story::begin(&server.url());
    let dump = Command::new(server.bin_dir().join("pg_dump"))
        .args(["-n", story.fleet.schema.name(), &server.url()])
        .output()
        .expect("pg_dump");
    assert!(dump.status.success(), "{dump:?}");
    story.go_on();
    let other = start(Options::default());
    load(&other, &dump.stdout);
    story.point_to(&other.url());
    let order = [&story.c, &story.a, &story.b];
    story.meet_again(order, &other.url());
    let stamps = Client::connect(&other.url()).one(&format!(
        "select count(*) from {}.items where tidewater_xid >= pg_snapshot_xmax(pg_current_snapshot())",
        story.fleet.schema.name()
    ));
    assert_eq!(stamps, "0");
}

fn load(server: &Server, dump: &[u8]) {
    use std::io::Write;
    let mut psql = Command::new(server.bin_dir().join("psql"))
        .args(["-q", "-v", "ON_ERROR_STOP=1", &server.url()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("psql");
    psql.stdin
        .take()
        .expect("a pipe")
        .write_all(dump)
        .expect("the dump");
    assert!(psql.wait().expect("psql").success());
}

#[test]
fn a_standby_that_lagged_gets_what_it_lacks() {
    let server = start(Options::default());
    let mut story = Story::begin(&server.url());
    let standby = Standby::of(&server);
    let there = Client::connect(&standby.url());
    there.exec("alter system set primary_conninfo = ''");
    there.exec("select pg_reload_conf()");
    eventually(PATIENCE, "a standby that hears nothing", || {
        there.one("select count(*) from pg_stat_wal_receiver") == "0"
    });
    story.go_on();
    server.stop_immediate().unwrap();
    there.exec("select pg_promote()");
    story.point_to(&standby.url());
    let order = [&story.b, &story.c, &story.a];
    story.meet_again(order, &standby.url());
}

#[test]
fn a_workspace_that_was_dropped_is_made_again() {
    let server = start(Options::default());
    let story = Story::begin(&server.url());
    story.go_on();
    let name = story.fleet.schema.name();
    Client::connect(&server.url())
        .exec(&format!("drop schema {name} cascade; create schema {name}"));
    story.meet_again([&story.a, &story.b, &story.c], &server.url());
}

/// What lost a conflict is kept on the server first, and reaches its device with the feed: where the
/// server forgets in between, only the device itself still has it.
#[test]
fn what_lost_and_was_not_heard_of_yet_is_kept() {
    let server = start(Options::default());
    let pages = "[download]\npage_size = 1\n";
    let fleet = Fleet::within(Schema::on(&server.url()), ITEMS, pages);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into items values ('1', 'old', 0), ('2', 'old', 0)");
    fleet.converge(&[&a, &b], ALL);
    let backup = Backup::of(&server);
    a.sql("update items set body = 'a lost' where id = '1'; delete from items where id = '2'");
    b.sql("update items set body = 'b won'");
    b.json(&["now"]);
    // The winner of the first is here; conflicts come with the last page.
    crash(&a, "cursor_after_store", &["now"]);
    assert_eq!(a.rows("select body from items"), [["b won"]]);
    assert!(conflicts(&a).is_empty());
    backup.put_back(&server);

    for device in [&a, &b, &a, &b] {
        device.tw(&["now"]).ok();
    }
    assert_eq!(
        fleet.server("select body from items"),
        [["b won"], ["b won"]]
    );
    let mut lost: Vec<Value> = conflicts(&a)
        .iter()
        .map(|c| {
            assert_eq!(c["winner"], "remote", "{c}");
            c["local"]["body"].clone()
        })
        .collect();
    lost.sort_by_key(Value::is_null);
    assert_eq!(lost, [Value::from("a lost"), Value::Null]);
    // And an original can be brought back.
    let id = |c: &Value| c["id"].as_str().expect("an id").to_owned();
    let listed = conflicts(&a);
    let found = listed.iter().find(|c| c["local"]["body"] == "a lost");
    a.tw(&["conflicts", "restore", &id(found.expect("it"))])
        .ok();
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(
        fleet.server("select body from items where id = '1'"),
        [["a lost"]]
    );
}

#[test]
fn a_reconcile_that_is_killed_is_made_again() {
    let server = start(Options::default());
    let story = Story::begin(&server.url());
    let backup = Backup::of(&server);
    story.go_on();
    backup.put_back(&server);
    for point in [
        "rejoin_before_commit",
        "reconcile_begun",
        "reconcile_queued",
        "reconcile_before_commit",
        "reconcile_after_commit",
        "push_before_commit",
        "push_after_commit",
    ] {
        crash(&story.a, point, &["now"]);
    }
    story.meet_again([&story.b, &story.a, &story.c], &server.url());
}

#[test]
fn another_workspace_with_rows_of_its_own_is_left_alone() {
    let (one, two) = (Fleet::new(ITEMS), Fleet::new(ITEMS));
    let (a, mut other) = (one.device("a"), two.device("other"));
    a.sql("insert into items values ('1', 'mine', 0)");
    other.sql("insert into items values ('1', 'theirs', 0)");
    a.json(&["now"]);
    other.json(&["now"]);
    other.set_env("TIDEWATER_REMOTE__SCHEMA", one.schema.name());
    other.sql("insert into items values ('2', 'theirs', 0)");
    let said = other.tw(&["--json", "now"]).expect_code(6).json();
    assert_eq!(said["error"]["code"], "SYNC-007", "{said}");
    assert_eq!(one.server(ALL), [["1", "mine", "0"]]);
    // Nor is a workspace made where there is none, because of a slip in a name.
    let nowhere = format!("{}_slip", one.schema.name());
    other.set_env("TIDEWATER_REMOTE__SCHEMA", &nowhere);
    for words in [&["now"][..], &["init"], &["verify"]] {
        let said = other
            .tw(&[&["--json"], words].concat())
            .expect_code(6)
            .json();
        let message = said["error"]["message"].as_str().expect("a message");
        assert!(message.contains(two.schema.name()), "{said}");
    }
    let made = format!("select count(*) from pg_namespace where nspname = '{nowhere}'");
    assert_eq!(one.schema.one(&made), "0");
    other.unset_env("TIDEWATER_REMOTE__SCHEMA");
    assert_eq!(state(&other, "confirmed"), "1");
    two.converge(&[&other], ALL);
}
