//! Triggers of the app fire when rows arrive, too. What they do to the rows of other tracked tables is
//! not captured, and must not make the file differ from the workspace.

use crate::support::fleet::{ALL, Fleet};

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

#[test]
fn a_trigger_that_rolls_everything_back_leaves_capture_awake() {
    let fleet = Fleet::new(
        "create table items (id text primary key, body text, n integer);
         create trigger strict before update on items when new.body = 'odd' begin
           select raise(rollback, 'no'); end;",
    );
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into items values ('r', 'first', 0), ('s', 'first', 0)");
    fleet.converge(&[&a, &b], ALL);
    fleet
        .schema
        .exec("update items set body = 'odd' where id = 'r'");
    let refused = a.tw(&["now", "--pull"]);
    assert_ne!(refused.code, 0, "{refused:#?}");
    assert!(refused.stderr.contains("RAISE(ABORT)"), "{refused:#?}");
    assert_eq!(a.rows("select v from tidewater_guard"), [["0"]]);
    a.sql("update items set n = 1 where id = 's'");
    assert_eq!(a.json(&["now", "--push"])["uploaded"], 1, "edits go on");
}
