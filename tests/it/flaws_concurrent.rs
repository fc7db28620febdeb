//! The flaws of the protocol that only PostgreSQL's own concurrency and triggers show (PROTOCOL
//! section 1: F10, F11). Every race is held open by a transaction of the test.

use crate::support::cli::{Device, Running};
use crate::support::fleet::{ALL, Fleet, ITEMS, conflicts};
use crate::support::server::{Client, Schema, shared};
use crate::support::wait::{PATIENCE, eventually};

/// Waits until a backend of this device waits for a lock.
fn until_blocked(schema: &Schema, device: &str) {
    eventually(PATIENCE, "a push that waits for the row", || {
        schema.one(&format!(
            "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock' \
             and application_name like 'tidewater/% {device}'"
        )) == "t"
    });
}

/// A device with a name that no other test's has, so that its connections can be told.
fn device(fleet: &Fleet, name: &str) -> (Device, String) {
    let name = format!("{name}-{}", fleet.schema.name());
    (fleet.device(&name), name)
}

/// Starts a push that blocks on what `barrier` has done and not committed, commits, waits for the end.
fn push_into(fleet: &Fleet, barrier: &Client, a: &Device, name: &str) {
    let push: Running = a.spawn(&["now", "--push"]);
    until_blocked(&fleet.schema, name);
    barrier.exec("commit");
    push.wait(PATIENCE).ok();
}

/// Nobody may be dead and alive at once.
#[track_caller]
fn expect_no_undead(fleet: &Fleet) {
    let undead = fleet.undead("items", "id");
    assert!(undead.is_empty(), "row and tombstone: {undead:?}");
}

#[test]
fn f10_the_check_in_the_upserts_own_statement_misses_the_tombstone() {
    // The tempting single statement, kept as proof that the race is real.
    let schema = Schema::new();
    schema.exec(
        "create table r (id text primary key, body text); create table grave (id text primary key); \
         insert into r values ('x', 'first')",
    );
    let deleting = schema.client();
    deleting.exec("begin; delete from r where id = 'x'; insert into grave values ('x')");
    let upserting = schema.client();
    let pid = upserting.one("select pg_backend_pid()");
    std::thread::scope(|scope| {
        let statement = scope.spawn(|| {
            upserting.exec(
                "insert into r select 'x', 'second' where not exists (select 1 from grave where id = 'x') \
                 on conflict (id) do update set body = excluded.body",
            );
        });
        eventually(PATIENCE, "the upsert waits for the delete", || {
            schema.one(&format!(
                "select count(*) > 0 from pg_stat_activity where pid = {pid} and wait_event_type = 'Lock'"
            )) == "t"
        });
        deleting.exec("commit");
        statement.join().expect("the statement");
    });
    let both = schema.rows("select r.body from r join grave using (id)");
    assert_eq!(
        both,
        [["second"]],
        "row and tombstone, and nobody was asked"
    );
}

#[test]
fn f10_an_update_that_meets_a_delete_under_way_is_a_conflict() {
    // The clock decides: the later one wins, and the other is kept.
    for newer in [true, false] {
        update_meets_delete(Fleet::new(ITEMS), newer, DELETE);
    }
}

#[test]
fn f10_the_databases_default_isolation_changes_nothing() {
    let name = format!("strict_{}", ulid::Ulid::generate()).to_lowercase();
    let server = Client::connect(&shared().url());
    server.exec(&format!("create database {name}"));
    server.exec(&format!(
        "alter database {name} set default_transaction_isolation = 'repeatable read'"
    ));
    let url = shared().url().replace("/postgres?", &format!("/{name}?"));
    let fleet = Fleet::within(Schema::on(&url), ITEMS, "");
    assert_eq!(
        fleet.schema.one("show default_transaction_isolation"),
        "repeatable read"
    );
    // The push has its first statement behind it when it comes to the table: a snapshot of then would
    // not show it the tombstone.
    let behind_the_door = format!("lock table items in access exclusive mode; {DELETE}");
    update_meets_delete(fleet, true, &behind_the_door);
    server.exec(&format!("drop database {name} with (force)"));
}

const DELETE: &str = "delete from items where id = 'r'";

fn update_meets_delete(fleet: Fleet, newer: bool, delete: &str) {
    let (a, name) = device(&fleet, "a");
    let b = fleet.device("b");
    a.sql("insert into items values ('r', 'first', 0)");
    fleet.converge(&[&a, &b], ALL);
    a.sql("update items set body = 'edited' where id = 'r'");
    let shift = if newer { "+ 5000" } else { "- 5000" };
    a.sql(&format!("update tidewater_log set at = at {shift}"));
    let deleting = fleet.schema.client();
    deleting.exec(&format!("begin; {delete}"));
    push_into(&fleet, &deleting, &a, &name);
    assert_eq!(fleet.conflicts(), 1, "newer: {newer}");
    expect_no_undead(&fleet);
    fleet.converge(&[&a, &b], ALL);
    expect_no_undead(&fleet);
    let left = fleet.server("select body from items");
    let c = &conflicts(&a)[0];
    assert_eq!(c["kind"], "update_delete");
    assert_eq!(c["local"]["body"], "edited", "whole on either side");
    if newer {
        assert_eq!(
            (left, &c["winner"]),
            (vec![vec!["edited".into()]], &"local".into())
        );
    } else {
        assert_eq!((left, &c["winner"]), (vec![], &"remote".into()));
    }
    assert_eq!(fleet.conflicts(), 1, "and no second one");
}

#[test]
fn f10_an_insert_that_meets_a_delete_under_way_is_a_conflict() {
    let fleet = Fleet::new(ITEMS);
    let (a, name) = device(&fleet, "a");
    let b = fleet.device("b");
    fleet.converge(&[&a, &b], ALL);
    b.sql("insert into items values ('r', 'from B', 0)");
    b.json(&["now"]);
    a.sql("insert into items values ('r', 'from A', 0)");
    let deleting = fleet.schema.client();
    deleting.exec("begin; delete from items where id = 'r'");
    push_into(&fleet, &deleting, &a, &name);
    assert_eq!(fleet.conflicts(), 1);
    expect_no_undead(&fleet);
    fleet.converge(&[&a, &b], ALL);
    expect_no_undead(&fleet);
    assert_eq!(fleet.conflicts(), 1);
}

#[test]
fn f10_a_delete_of_what_is_not_there_leaves_no_tombstone_under_an_insert_under_way() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    fleet.converge(&[&a, &b], ALL);
    let inserting = fleet.schema.client();
    inserting.exec("begin; insert into items values ('r', 'theirs', 0)");
    a.sql("insert into items values ('r', 'mine', 0); delete from items where id = 'r'");
    // It has nothing to wait for: the other row is not there yet.
    assert_eq!(a.json(&["now", "--push"])["uploaded"], 1);
    assert_eq!(
        fleet
            .schema
            .one("select count(*) from tidewater_tombstones"),
        "0"
    );
    inserting.exec("commit");
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(a.rows(ALL), [["r", "theirs", "0"]]);
    expect_no_undead(&fleet);
}

#[test]
fn f10_a_delete_that_meets_an_update_under_way_is_a_conflict() {
    for newer in [true, false] {
        let fleet = Fleet::new(ITEMS);
        let (a, name) = device(&fleet, "a");
        let b = fleet.device("b");
        a.sql("insert into items values ('r', 'first', 0)");
        fleet.converge(&[&a, &b], ALL);
        a.sql("delete from items where id = 'r'");
        let shift = if newer { "+ 5000" } else { "- 5000" };
        a.sql(&format!("update tidewater_log set at = at {shift}"));
        let updating = fleet.schema.client();
        updating.exec("begin; update items set body = 'edited' where id = 'r'");
        push_into(&fleet, &updating, &a, &name);
        fleet.converge(&[&a, &b], ALL);
        let c = &conflicts(&a)[0];
        let (winner, rows) = if newer {
            ("local", "0")
        } else {
            ("remote", "1")
        };
        assert_eq!(
            (&c["kind"], &c["winner"]),
            (&"delete_update".into(), &winner.into())
        );
        assert_eq!(c["remote"]["body"], "edited", "whole on either side");
        assert_eq!(fleet.schema.one("select count(*) from items"), rows);
        assert_eq!(fleet.conflicts(), 1);
        expect_no_undead(&fleet);
    }
}

#[test]
fn f11_what_a_trigger_on_the_server_writes_inside_a_push_reaches_everyone() {
    let fleet = Fleet::new(
        "create table items (id text primary key, body text, n integer);
         create table totals (id text primary key, n integer);",
    );
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into totals values ('items', 0)");
    fleet.converge(&[&a, &b], ALL);
    fleet.schema.exec(&format!(
        "create function count_items() returns trigger language plpgsql as $$ begin \
         update {s}.totals set n = n + 1 where id = 'items'; return null; end $$; \
         create trigger counting after insert on items for each row execute function count_items()",
        s = fleet.schema.name()
    ));
    a.sql("insert into items values ('x', 'from A', 0), ('y', 'from A', 0)");
    a.json(&["now", "--push"]);
    let by = "select tidewater_device = '0', n from totals";
    assert_eq!(
        fleet.server(by),
        [["t", "2"]],
        "not stamped as the pusher's own"
    );
    fleet.converge(&[&a, &b], "select id, n from totals");
    fleet.expect_equal(&[&a, &b], ALL);
    assert_eq!(fleet.conflicts(), 0);
}

#[test]
fn f11_a_trigger_that_rewrites_the_pushed_row_itself_reaches_its_author() {
    for timing in ["before", "after"] {
        let fleet = Fleet::new(ITEMS);
        let (a, b) = (fleet.device("a"), fleet.device("b"));
        fleet.converge(&[&a, &b], ALL);
        let body = match timing {
            "before" => "new.body := upper(new.body); return new;".to_owned(),
            _ => format!(
                "update {}.items set body = upper(new.body) where id = new.id and body <> upper(body); \
                 return null;",
                fleet.schema.name()
            ),
        };
        fleet.schema.exec(&format!(
            "create function shout() returns trigger language plpgsql as $$ begin {body} end $$; \
             create trigger shouting {timing} insert or update on items \
             for each row execute function shout()"
        ));
        a.sql("insert into items values ('x', 'from A', 0)");
        fleet.converge(&[&a, &b], ALL);
        assert_eq!(a.rows(ALL), [["x", "FROM A", "0"]], "{timing}");
        a.sql("update items set body = 'again', n = 1 where id = 'x'");
        fleet.converge(&[&a, &b], ALL);
        assert_eq!(b.rows(ALL), [["x", "AGAIN", "1"]], "{timing}");
        assert_eq!(fleet.conflicts(), 0, "{timing}");
    }
}

#[test]
fn f11_what_a_foreign_key_on_the_server_cascades_inside_a_push_reaches_everyone() {
    let fleet = Fleet::new(
        "create table parents (id text primary key, body text);
         create table children (id text primary key, parent text, body text);",
    );
    // Adopted tables may have foreign keys that the app's file does not know.
    fleet.schema.exec(
        "create table parents (id text primary key, body text); \
         create table children (id text primary key, \
           parent text references parents on delete cascade, body text)",
    );
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    let all = "select id, parent, body from children order by id";
    a.sql("insert into parents values ('p', ''), ('q', '')");
    a.json(&["now"]);
    a.sql("insert into children values ('c1', 'p', 'x'), ('c2', 'p', 'y'), ('c3', 'q', 'z')");
    fleet.converge(&[&a, &b], all);
    a.sql("delete from parents where id = 'p'");
    a.json(&["now", "--push"]);
    let graves = "select g.pk, g.tidewater_device = '0' from tidewater_tombstones g \
                  join tidewater_tables t on t.id = g.table_id where t.name = 'children' order by 1";
    assert_eq!(fleet.server(graves), [["[\"c1\"]", "t"], ["[\"c2\"]", "t"]]);
    fleet.converge(&[&a, &b], all);
    assert_eq!(
        a.rows(all),
        [["c3", "q", "z"]],
        "the author of the delete hears of it as well"
    );
    assert_eq!(fleet.conflicts(), 0);
}
