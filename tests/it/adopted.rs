//! Tables that Postgres had before tidewater came: they become mirrors where they stand. Nothing of them
//! is rewritten, nobody is held up for long, and what cannot work is said with the command that cures it.

use crate::sides;
use crate::support::cli::{Device, Output};
use crate::support::server::Schema;
use crate::support::wait::{PATIENCE, eventually};
use std::time::Duration;

/// A device whose app has this schema, in a workspace where that stands already.
fn meet(there: &str, here: &str) -> (Schema, Device) {
    let schema = Schema::new();
    schema.exec(there);
    let device = Device::new(&schema, "d");
    device.sql(here);
    (schema, device)
}

/// The remedy's command, as it is printed after "on the server: ".
fn command(out: &Output) -> String {
    let text = &out.stderr;
    let from = text
        .find("on the server: ")
        .unwrap_or_else(|| panic!("no command: {text}"));
    let line = text[from + 15..].lines().next().expect("a line");
    let end = line.find("; then").unwrap_or(line.len());
    line[..end].to_owned()
}

#[test]
fn adopting_rewrites_no_row_and_fires_no_trigger_of_the_owner() {
    let (schema, device) = meet(
        "create table note (id bigint generated always as identity primary key, body varchar(80), \
         updated_at timestamptz not null default now(), size integer generated always as (length(body)) stored); \
         create table audit (n integer generated always as identity, what text); \
         create function touch() returns trigger language plpgsql set search_path from current as $$ begin \
         new.updated_at := '2001-01-01'; return new; end $$; \
         create trigger touch before update on note for each row execute function touch(); \
         create function audit() returns trigger language plpgsql set search_path from current as $$ begin \
         insert into audit (what) values (tg_op); return null; end $$; \
         insert into note (body, updated_at) select 'row ' || i, '2000-01-01' from generate_series(1, 50) i; \
         create trigger audit after insert or update or delete on note for each row execute function audit()",
        "create table note (id integer primary key, body text); \
         create index by_body on note (body)",
    );
    let before = schema.rows("select id, body, updated_at, size, xmin, ctid from note order by id");
    device.tw(&["init"]).ok();
    let after = schema.rows("select id, body, updated_at, size, xmin, ctid from note order by id");
    assert_eq!(before, after, "not one row was written");
    assert_eq!(schema.one("select count(*) from audit"), "0");
    sides::sync(&device);
    assert_eq!(device.rows("select count(*) from note"), [["50"]]);
    // Both ways from here on, with an identity column, a computed one and the owner's triggers.
    device.sql("insert into note values (1000, 'from here'); update note set body = 'edited' where id = 3; delete from note where id = 4");
    schema.exec("insert into note (body) values ('from there'); update note set body = 'also there' where id = 5");
    device.tw(&["now"]).ok();
    sides::sync(&device);
    let query = "select id, body from note order by id";
    assert_eq!(device.rows(query), schema.rows(query));
    assert_eq!(schema.one("select size from note where id = 3"), "6");
    assert_eq!(
        schema.one("select string_agg(what, ' ' order by what) from audit"),
        "DELETE INSERT INSERT UPDATE UPDATE"
    );
    sides::verify(&device);
    assert_eq!(
        schema.one("select count(*) from information_schema.columns where table_schema = current_schema \
                    and column_name like 'tidewater\\_%' and table_name = 'note' and column_default is not null"),
        "0",
        "a mirror's columns have no defaults"
    );
}

#[test]
fn what_cannot_work_is_said_with_the_command_that_cures_it() {
    let here =
        "create table t (id integer primary key, body text); insert into t values (1, 'one')";
    for (what, there, said) in [
        (
            "a column that must be filled",
            "create table t (id bigint primary key, body text, owner text not null)",
            "owner",
        ),
        (
            "a missing column",
            "create table t (id bigint primary key)",
            "body",
        ),
        (
            "a type that cannot carry it",
            "create table t (id bigint primary key, body inet)",
            "body",
        ),
        (
            "a computed column",
            "create table t (id bigint primary key, body text generated always as ('x') stored)",
            "computed",
        ),
        (
            "no key",
            "create table t (id bigint not null, body text)",
            "no primary key",
        ),
        (
            "another key",
            "create table t (id bigint not null, body text, constraint \"own key\" primary key (body))",
            "(body)",
        ),
        (
            "a wider key",
            "create table t (id bigint, body text, primary key (id, body))",
            "(id, body)",
        ),
        (
            "a key that can wait",
            "create table t (id bigint primary key deferrable, body text)",
            "deferrable",
        ),
    ] {
        let (schema, device) = meet(there, here);
        let out = device.tw(&["init"]).expect_code(1);
        assert!(
            out.stderr.contains("SYNC-009") && out.stderr.contains(said),
            "{what}: {}",
            out.stderr
        );
        let cure = command(&out);
        let cure = cure.split(", or ").next().expect("a command");
        schema.exec(cure);
        device.tw(&["init"]).ok();
        sides::sync(&device);
        assert_eq!(schema.one("select body from t"), "one", "{what}: {cure}");
    }
}

#[test]
fn columns_that_fill_themselves_are_left_to_the_server() {
    let (schema, device) = meet(
        "create domain stamp as timestamptz default now() not null; \
         create table t (id bigint primary key, made timestamptz not null default now(), \
         n bigint generated always as identity, m bigint not null generated by default as identity, \
         twice bigint not null generated always as (id * 2) stored, s serial, d stamp, free text)",
        "create table t (id integer primary key); insert into t values (21)",
    );
    device.tw(&["init"]).ok();
    sides::sync(&device);
    assert_eq!(
        schema.one(
            "select twice || ' ' || n || ' ' || (made is not null) || ' ' || (d is not null) from t"
        ),
        "42 1 true true"
    );
}

#[test]
fn a_name_that_a_view_has_is_said() {
    let (_schema, device) = meet(
        "create view t as select 1::bigint as id",
        "create table t (id integer primary key)",
    );
    let out = device.tw(&["init"]).expect_code(1);
    assert!(
        out.stderr.contains("SYNC-009") && out.stderr.contains("a view"),
        "{}",
        out.stderr
    );
}

#[test]
fn a_table_in_use_is_waited_for_briefly_and_adopted_later() {
    let (schema, device) = meet(
        "create table busy (id bigint primary key, body text); insert into busy values (1, 'one')",
        "create table busy (id integer primary key, body text); create table idle (id integer primary key)",
    );
    let other = schema.client();
    other.exec("begin; update busy set body = 'held' where id = 1");
    device.tw(&["init"]).ok();
    let problem = &device.json(&["status"])["problems"][0];
    assert!(
        problem["message"]
            .as_str()
            .is_some_and(|m| m.contains("busy") || m.contains("in use")),
        "{problem}"
    );
    assert_eq!(
        schema.one("select count(*) from tidewater_tables"),
        "1",
        "the other table goes on"
    );
    // Whoever waits behind us is held up no longer than that: nothing waits any more.
    schema.exec("insert into busy values (2, 'two')");
    other.exec("commit");
    device.tw(&["now"]).ok();
    assert_eq!(
        device.rows("select id, body from busy order by id"),
        [["1", "held"], ["2", "two"]]
    );
}

#[test]
fn the_index_of_a_large_table_is_built_while_others_write() {
    let (schema, device) = meet(
        "create table big (id bigint primary key, body text); \
         insert into big select i, repeat('x', 900) from generate_series(1, 12000) i",
        "create table big (id integer primary key, body text)",
    );
    let valid = "select count(*) from pg_index x join pg_class i on i.oid = x.indexrelid \
                 where i.relname = 'tidewater_feed_1' and i.relnamespace = current_schema::regnamespace and x.indisvalid";
    // A snapshot that is open elsewhere keeps the build from ending, and nothing else from going on.
    let other = schema.client();
    other.exec("begin isolation level repeatable read; select count(*) from pg_class");
    let init = device.spawn(&["init"]);
    eventually(PATIENCE, "the table is a mirror", || {
        schema.rows("select 1 from pg_class where relname = 'tidewater_tables' and relnamespace = current_schema::regnamespace").len() == 1
            && schema.one("select count(*) from tidewater_tables") == "1"
    });
    let writer = schema.client();
    writer.exec("set lock_timeout = '5s'; update big set body = 'written' where id = 1");
    other.exec("rollback");
    init.wait(Duration::from_secs(60)).ok();
    assert_eq!(schema.one(valid), "1");
    // One that was left unfinished is thrown away and built again.
    schema.exec(
        "update pg_index set indisvalid = false where indexrelid = 'tidewater_feed_1'::regclass",
    );
    assert_eq!(schema.one(valid), "0");
    device.tw(&["init"]).ok();
    assert_eq!(schema.one(valid), "1");
    device.tw(&["now", "--timeout", "100"]).ok();
    assert_eq!(device.rows("select count(*) from big"), [["12000"]]);
    assert_eq!(
        device.rows("select body from big where id = 1"),
        [["written"]]
    );
}
