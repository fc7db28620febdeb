//! What changes after `init` (the configuration, the app's columns, the server's rules) and must not
//! send a secret or stop a queue.

use crate::support::cli::Device;
use crate::support::fleet::Fleet;

const CANARY: &str = "kept-between-us-19216801";

/// Adds a section to a device's configuration.
fn add(device: &Device, section: &str) {
    let text = std::fs::read_to_string(device.config()).expect("the configuration");
    device.configure(&format!("{text}\n{section}\n"));
}

/// Queues what was written, while nothing can be sent.
fn queue_offline(device: &mut Device) {
    let nowhere = "postgres://nobody@127.0.0.1:1/nowhere?sslmode=disable";
    device.set_env("TIDEWATER_REMOTE__URL", nowhere);
    device.tw(&["now"]).expect_code(3);
    device.unset_env("TIDEWATER_REMOTE__URL");
}

#[test]
fn a_table_that_becomes_private_sends_nothing_more() {
    let fleet = Fleet::new("create table diary (id text primary key, body text)");
    let mut a = fleet.device("a");
    a.sql("insert into diary values ('d1', 'public')");
    a.tw(&["now"]).ok();
    a.sql(&format!("insert into diary values ('d2', '{CANARY}')"));
    queue_offline(&mut a);
    add(&a, "[tables.diary]\nprivacy = \"local_only\"");
    a.sql(&format!("insert into diary values ('d3', '{CANARY}')"));
    a.tw(&["now"]).ok();
    assert_eq!(fleet.server("select body from diary"), [["public"]]);
    assert_eq!(a.rows("select count(*) from diary"), [["3"]]);
}

#[test]
fn a_column_that_becomes_redacted_stays_even_of_changes_that_wait() {
    let fleet = Fleet::new("create table notes (id text primary key, title text, body text)");
    let mut a = fleet.device("a");
    a.tw(&["now"]).ok();
    a.sql(&format!(
        "insert into notes values ('n1', 'one', '{CANARY}')"
    ));
    queue_offline(&mut a);
    add(
        &a,
        "[tables.notes]\nprivacy = \"redacted\"\nredact = [\"body\"]",
    );
    a.sql(&format!(
        "insert into notes values ('n2', 'two', '{CANARY}')"
    ));
    a.tw(&["now"]).ok();
    let sent = fleet.server("select id, title, body from notes order by id");
    assert_eq!(sent, [["n1", "one", "NULL"], ["n2", "two", "NULL"]]);
    let kept = a.rows("select body from notes");
    assert_eq!(kept, [[CANARY], [CANARY]]);
}

#[test]
fn a_column_that_is_dropped_under_waiting_changes_does_not_stop_them() {
    let fleet = Fleet::new("create table notes (id text primary key, title text, body text)");
    let mut a = fleet.device("a");
    a.tw(&["now"]).ok();
    a.sql("insert into notes values ('n1', 'one', 'x')");
    queue_offline(&mut a);
    a.sql("alter table notes drop column body");
    a.sql("insert into notes values ('n2', 'two')");
    a.tw(&["now"]).ok();
    fleet.schema.exec("alter table notes drop column body");
    let report = a.json(&["now"]);
    assert_eq!(
        (&report["pending"], &report["failed"]),
        (&0.into(), &0.into())
    );
    let sent = fleet.server("select id, title from notes order by id");
    assert_eq!(sent, [["n1", "one"], ["n2", "two"]]);
}

#[test]
fn a_code_of_the_users_own_holds_its_row_alone_and_tells_no_value() {
    let fleet = Fleet::new("create table notes (id text primary key, body text)");
    let a = fleet.device("a");
    a.tw(&["now"]).ok();
    fleet.schema.exec(&format!(
        "create function own_rule() returns trigger language plpgsql as $$ begin \
         if new.body = '{CANARY}' then raise exception 'no % here', new.body using errcode = 'MY001'; \
         end if; return new; end $$; \
         create trigger own_rule before insert on notes for each row execute function own_rule()"
    ));
    a.sql(&format!(
        "insert into notes values ('n1', 'good'), ('n2', '{CANARY}'), ('n3', 'good')"
    ));
    let done = a.tw(&["now", "-vv"]).ok();
    assert!(!format!("{}{}", done.stdout, done.stderr).contains(CANARY));
    assert_eq!(fleet.server("select count(*) from notes"), [["2"]]);
    // Nobody but its author knows whether such a code is for good: it is tried again before it is parked.
    let queue = a.json(&["queue"]);
    let item = &queue["items"][0];
    assert_eq!(item["error"]["sqlstate"], "MY001", "{queue}");
    assert_eq!((&item["attempts"], &queue["total"]), (&1.into(), &1.into()));
    assert!(!queue.to_string().contains(CANARY));
}
