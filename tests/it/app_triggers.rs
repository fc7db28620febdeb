//! Triggers of the app fire when rows arrive, too. What they do to the rows of other tracked tables is
//! not captured, and must not make the file differ from the workspace.

use crate::support::fleet::{ALL, Fleet};
use crate::support::wait::{PATIENCE, eventually};

const CHATS: &str = "create table chats (id text primary key, messages integer not null default 0);
     create table messages (id text primary key, chat text, body text);
     create table seen (id integer primary key, what text);
     create trigger count_in after insert on messages begin
       update chats set messages = messages + 1 where id = new.chat; end;
     create trigger count_out after delete on messages begin
       update chats set messages = messages - 1 where id = old.chat; end;";

#[test]
fn a_counter_that_a_trigger_keeps_is_not_counted_twice() {
    let fleet = Fleet::new(CHATS);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    let chats = "select id, messages from chats order by id";
    a.sql("insert into chats (id) values ('c'), ('d')");
    fleet.converge(&[&a, &b], chats);
    a.sql("insert into messages values ('m1', 'c', 'x'), ('m2', 'c', 'y'), ('m3', 'd', 'z')");
    fleet.converge(&[&a, &b], chats);
    assert_eq!(b.rows(chats), [["c", "2"], ["d", "1"]]);
    b.sql("delete from messages where id = 'm1'");
    fleet.converge(&[&b, &a], chats);
    assert_eq!(a.rows(chats), [["c", "1"], ["d", "1"]]);
    assert_eq!(a.json(&["verify"])["identical"], true);
    assert_eq!(fleet.conflicts(), 0);
}

#[test]
fn what_a_trigger_does_to_tables_of_its_own_is_left_alone() {
    let fleet = Fleet::configured(
        "create table messages (id text primary key, body text);
         create table seen (id integer primary key, what text);
         create trigger index_it after insert on messages begin
           insert into seen (what) values (new.body); end;",
        "[tables.seen]\nprivacy = \"local_only\"\n",
    );
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into messages values ('m1', 'x')");
    fleet.converge(&[&a, &b], "select id, body from messages");
    assert_eq!(
        b.rows("select what from seen"),
        [["x"]],
        "as a search index would need it"
    );
}

#[test]
fn triggers_that_write_each_others_tables_come_to_rest() {
    let fleet = Fleet::new(
        "create table one (id text primary key, n integer);
         create table two (id text primary key, n integer);
         create trigger one_two after update on one when new.n < 5 begin
           update two set n = new.n + 10 where id = new.id; end;
         create trigger two_one after update on two when new.n < 5 begin
           update one set n = new.n + 10 where id = new.id; end;",
    );
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into one values ('x', 7); insert into two values ('x', 7)");
    let both = "select one.n, two.n from one join two using (id)";
    fleet.converge(&[&a, &b], both);
    fleet
        .schema
        .exec("update one set n = 1; update two set n = 2");
    fleet.converge(&[&a, &b], both);
    assert_eq!(b.rows(both), [["1", "2"]]);
    assert_eq!(
        b.json(&["now"])["downloaded"],
        0,
        "nothing is fetched again and again"
    );
}

/// The four ways in which a trigger can say no, and one row of a page that each says no to.
#[test]
fn a_row_that_a_trigger_refuses_waits_alone_whatever_it_raises() {
    for raise in ["rollback", "abort", "fail"] {
        for (when, what) in [
            ("before", "update"),
            ("after", "insert"),
            ("before", "delete"),
        ] {
            refused(raise, when, what);
        }
    }
}

fn refused(raise: &str, when: &str, what: &str) {
    let told = format!("{when} {what} raise({raise})");
    let row = if what == "delete" { "old" } else { "new" };
    let fleet = Fleet::new(&format!(
        "create table items (id text primary key, body text, n integer);
         create table allowed (id text primary key);
         create table tried (id text);
         create trigger strict {when} {what} on items
           when {row}.n = 13 and not exists (select 1 from allowed where id = {row}.id) begin
           insert into tried values ({row}.id);
           select raise({raise}, 'not thirteen'); end;"
    ));
    let a = fleet.device("a");
    let rows = "with recursive c(i) as (select 1 union all select i + 1 from c where i < 200) \
                insert into items select 'r' || i, 'old', 0 from c";
    match what {
        "insert" => {}
        "update" => a.sql(rows),
        _ => {
            a.sql(rows);
            a.sql("update items set n = 13 where id in ('r50', 'r150')");
        }
    }
    a.json(&["now"]);
    let keys = "id in ('r50', 'r150')";
    match what {
        "insert" => fleet.schema.exec(
            "insert into items select 'r' || i, 'new', case when i in (50, 150) then 13 end \
             from generate_series(1, 200) i",
        ),
        "update" => fleet.schema.exec(&format!(
            "update items set body = 'new', n = case when {keys} then 13 end"
        )),
        _ => fleet.schema.exec("delete from items"),
    }
    // All the others are there, these two wait with their reason, and nothing of the refused statement
    // is left.
    let report = a.tw(&["--json", "now"]).expect_code(1).json();
    assert_eq!(
        (&report["downloaded"], &report["failed"]),
        (&198.into(), &2.into()),
        "{told}: {report}"
    );
    let waiting = "select pk, status from tidewater_inbox where status = 'failed' order by pk";
    assert_eq!(
        a.rows(waiting),
        [["[\"r150\"]", "failed"], ["[\"r50\"]", "failed"]],
        "{told}"
    );
    let why = a.rows("select distinct error from tidewater_inbox where status = 'failed'");
    assert!(why[0][0].contains("not thirteen"), "{told}: {why:?}");
    assert_eq!(a.rows("select v from tidewater_guard"), [["0"]], "{told}");
    let (kept, new) = match what {
        "insert" => ("0", "198"),
        "update" => ("2", "198"),
        _ => ("2", "0"),
    };
    let old = format!("select count(*) from items where body <> 'new' and {keys}");
    assert_eq!(a.rows(&old), [[kept]], "{told}");
    let count = "select count(*) from items where body = 'new'";
    assert_eq!(a.rows(count), [[new]], "{told}");
    // The feed goes on behind them, and so do edits.
    fleet
        .schema
        .exec("insert into items values ('later', 'x', 1)");
    a.sql("insert into items values ('mine', 'y', 2)");
    let report = a.tw(&["--json", "now"]).expect_code(1).json();
    assert_eq!(report["uploaded"], 1, "{told}: {report}");
    assert_eq!(a.rows("select body from items where id = 'later'"), [["x"]]);
    // Once the app lets them in, they come by themselves.
    a.sql("insert into allowed values ('r50'), ('r150')");
    a.json(&["now"]);
    fleet.expect_equal(&[&a], ALL);
    assert_eq!(a.json(&["verify"])["identical"], true, "{told}");
    assert!(a.rows(waiting).is_empty(), "{told}");
}

#[test]
fn a_running_service_tries_a_refused_row_again_when_the_app_has_changed_something() {
    let fleet = Fleet::configured(
        "create table items (id text primary key, body text, n integer);
         create table allowed (id text primary key);
         create trigger strict before insert on items
           when not exists (select 1 from allowed where id = new.id) begin
           select raise(rollback, 'not yet'); end;",
        "[download]\npoll_interval_seconds = 0.05\n[tables.allowed]\nprivacy = \"local_only\"\n",
    );
    let a = fleet.device("a");
    let service = a.spawn(&["run"]);
    fleet.schema.exec("insert into items values ('r', 'x', 1)");
    let failed = "select count(*) from tidewater_inbox where status = 'failed'";
    eventually(PATIENCE, "the refusal", || a.rows(failed) == [["1"]]);
    a.sql("insert into allowed values ('r')");
    eventually(PATIENCE, "the row", || {
        a.rows("select body from items") == [["x"]]
    });
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();
}

#[test]
fn a_trigger_that_replaces_or_ignores_does_so_for_rows_that_arrive() {
    let fleet = Fleet::configured(
        "create table messages (id text primary key, chat text, body text); \
         create table latest (chat text primary key, body text); \
         create trigger latest_in after insert on messages begin \
           insert or replace into latest values (new.chat, new.body); end; \
         create trigger latest_up after update on messages begin \
           insert or ignore into latest values (new.chat, 'lost'); \
           update or replace latest set body = new.body where chat = new.chat; end;",
        "[tables.latest]\nprivacy = \"local_only\"\n",
    );
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into messages values ('m1', 'c', 'x'), ('m2', 'c', 'y'), ('m3', 'c', 'z')");
    fleet.converge(&[&a, &b], "select id, body from messages order by id");
    assert_eq!(b.rows("select chat, body from latest"), [["c", "z"]]);
    a.sql("update messages set body = 'w' where id = 'm3'");
    fleet.converge(&[&a, &b], "select id, body from messages order by id");
    assert_eq!(b.rows("select chat, body from latest"), [["c", "w"]]);
}
