//! A file with many rows meets a workspace: they go in pages, past the outbox, can be interrupted at any
//! point, and whatever they meet there is decided as ever.

use crate::support::cli::{Device, Running};
use crate::support::fleet::{Fleet, conflicts, crash, id, state};
use crate::support::proxy::{Mode, Proxy};
use crate::support::wait::{PATIENCE, eventually};
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::os::fd::FromRawFd;

/// Enough rows to go in pages, and pages of which there are many.
const ROWS: usize = 10_500;
const LIMITS: &str = "[upload]\nbatch_size = 500\nbatch_size_max = 500\n";

const TABLE: &str = "create table items (id text primary key, body text, n integer);";
const ALL: &str = "select id, body, n from items order by id";

/// Rows `from..from + rows`, as an app had written them before it heard of tidewater.
fn rows(from: usize, rows: usize) -> String {
    format!(
        "with recursive c (i) as (select {from} union all select i + 1 from c where i < {}) \
         insert into items select printf('k%06d', i), 'body of ' || i, i from c;",
        from + rows - 1
    )
}

/// A device whose file holds rows already, not initialised.
fn filled(fleet: &Fleet, name: &str, more: &str) -> Device {
    let device = Device::with_url(fleet.schema.url(), fleet.schema.name(), name, more);
    device.sql(TABLE);
    device.sql(&rows(0, ROWS));
    device
}

fn count(device: &Device, table: &str) -> String {
    device
        .rows(&format!("select count(*) from {table}"))
        .concat()
        .concat()
}

/// Counts on the server how often each row is inserted or updated.
fn audit(fleet: &Fleet) {
    let s = fleet.schema.name();
    fleet.schema.exec(&format!(
        "create table {s}.seen (id text, op text);
         create function {s}.note() returns trigger language plpgsql as $$
           begin insert into {s}.seen values (new.id, tg_op); return null; end $$;
         create trigger note after insert or update on items for each row execute function {s}.note();",
    ));
}

#[test]
fn existing_rows_fill_an_empty_mirror_past_the_outbox() {
    let fleet = Fleet::new(TABLE);
    let a = filled(&fleet, "a", "");
    let told = a.json(&["init"]);
    assert_eq!(told["tables"][0]["rows"], json!(ROWS));
    assert_eq!(
        fleet.server("select count(*) from items"),
        [[ROWS.to_string()]]
    );
    // Nothing of it stays behind: neither entries nor their history, nor rows of the log.
    assert_eq!(
        (count(&a, "tidewater_outbox"), count(&a, "tidewater_log")),
        ("0".into(), "0".into())
    );
    let status = a.json(&["status"]);
    let upload = &status["upload"];
    assert_eq!(
        (
            &upload["pending"],
            &upload["synced_today"],
            &upload["synced_total"]
        ),
        (&json!(0), &json!(ROWS), &json!(ROWS))
    );
    // Stamped as a push stamps them, at the smallest time.
    assert_eq!(
        fleet.server(
            "select count(distinct tidewater_change), min(left(tidewater_change, 10)), \
             max(left(tidewater_change, 10)), min(tidewater_device) from items"
        ),
        [[ROWS.to_string(), "0".repeat(10), "0".repeat(10), id(&a)]]
    );
    a.tw(&["now"]).ok();
    assert_eq!(a.json(&["verify"])["identical"], json!(true));
    let row = a.json(&["status", "items", "k000007"]);
    assert_eq!(row["status"], json!("synced"));
    // Edits of either side go on as with any row.
    let b = fleet.device("b");
    b.tw(&["now"]).ok();
    a.sql("update items set body = 'from a' where id = 'k000001'");
    b.sql("update items set body = 'from b' where id = 'k000002'; delete from items where id = 'k000003'");
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(fleet.conflicts(), 0);
}

#[test]
fn killed_at_any_point_it_goes_on_and_sends_each_row_once() {
    let fleet = Fleet::new(TABLE);
    let a = filled(&fleet, "a", LIMITS);
    // The workspace, without its rows: they are counted as they arrive.
    let before = Device::new(&fleet.schema, "before");
    before.sql(TABLE);
    before.tw(&["init"]).ok();
    audit(&fleet);
    let points = [
        "first_formed",
        "push_before_send",
        "push_sent",
        "push_before_commit",
        "push_after_commit",
        "first_ack_before_commit",
        "first_ack_after_commit",
    ];
    crash(&a, "first_formed:2", &["init"]);
    for (n, point) in points.iter().enumerate() {
        // The app does not wait: rows that went, that wait, and new ones.
        a.sql(&format!(
            "update items set body = 'edited' where id in ('k00000{n}', 'k01000{n}');
             delete from items where id in ('k00010{n}', 'k01010{n}');
             update items set id = 'moved{n}' where id = 'k01020{n}';
             insert into items values ('new{n}', 'new', {n})"
        ));
        // Others do not wait either.
        fleet.schema.exec(&format!(
            "insert into items (id, body, n) values ('theirs{n}', 'theirs', {n})"
        ));
        crash(
            &a,
            &format!("{point}:3"),
            &[if n % 2 == 0 { "now" } else { "init" }],
        );
        let status = a.json(&["status"]);
        assert!(status["upload"]["pending"].as_u64() > Some(0), "{status}");
    }
    a.tw(&["init"]).ok();
    assert_eq!(count(&a, "tidewater_log where op = 'B'"), "0");
    fleet.converge(&[&a, &before], ALL);
    assert_eq!(a.json(&["verify"])["identical"], json!(true));
    assert_eq!(fleet.conflicts(), 0);
    assert_eq!(
        fleet.server(
            "select id, count(*) from seen where op = 'INSERT' group by id having count(*) > 1"
        ),
        [] as [[&str; 2]; 0]
    );
    // Nothing but what the app edited was ever written again.
    let edited = fleet.server(
        "select distinct id from seen where op = 'UPDATE' and id not like 'k00000_' and id not like 'k01000_'",
    );
    assert_eq!(edited, [] as [[&str; 1]; 0]);
    let total = state(&a, "synced_total").parse::<usize>();
    assert!(total.is_ok_and(|n| n >= ROWS));
}

#[test]
fn a_page_whose_answer_is_lost_is_not_sent_twice() {
    let proxy = Proxy::shared_server();
    let fleet = Fleet::new(TABLE);
    let a = fleet.device_through(&proxy, "a", LIMITS);
    audit(&fleet);
    a.tw(&["pause"]).ok();
    a.sql("create table more (id text primary key, body text, n integer)");
    a.sql(&rows(0, ROWS).replace("into items", "into more"));
    a.tw(&["init"]).ok();
    fleet.schema.exec(
        "create trigger note after insert or update on more for each row execute function note()",
    );
    proxy.set_times(Mode::CutAfterCommitReply, 3);
    a.tw(&["now", "--push"]).ok();
    assert_eq!(proxy.mode(), Mode::Pass, "the fault struck");
    assert_eq!(
        fleet.server("select count(*), count(distinct id) from seen"),
        [[ROWS.to_string(), ROWS.to_string()]]
    );
    assert_eq!(count(&a, "tidewater_outbox"), "0");
}

#[test]
fn what_others_fill_in_meanwhile_is_met_like_anything_else() {
    let fleet = Fleet::new(TABLE);
    let a = filled(&fleet, "a", LIMITS);
    crash(&a, "first_ack_after_commit:4", &["init"]);
    // The same app on another machine: rows that are equal, three that are not, and some of its own.
    let b = Device::new(&fleet.schema, "b");
    b.sql(TABLE);
    b.sql(&rows(4_900, 200));
    b.sql("update items set body = 'of b' where n in (4901, 5001, 5099)");
    b.sql("insert into items values ('b1', 'only here', 1)");
    b.tw(&["init"]).ok();
    b.tw(&["now"]).ok();
    a.tw(&["init"]).ok();
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(a.json(&["verify"])["identical"], json!(true));
    assert_eq!(
        a.rows("select count(*) from items"),
        [[(ROWS + 1).to_string()]]
    );
    // Each of the three is decided once, and what lost is kept whole.
    assert_eq!(fleet.conflicts(), 3);
    let kept = conflicts(&a);
    assert_eq!(kept.len(), 3, "{kept:#?}");
    for c in kept {
        let bodies = [&c["local"]["body"], &c["remote"]["body"]];
        assert!(bodies.contains(&&json!("of b")), "{c:#?}");
        assert_ne!(bodies[0], bodies[1]);
    }
}

#[test]
fn two_devices_with_rows_of_their_own_fill_one_mirror() {
    let fleet = Fleet::new(TABLE);
    let a = filled(&fleet, "a", LIMITS);
    crash(&a, "push_after_commit:5", &["init"]);
    let b = Device::with_url(fleet.schema.url(), fleet.schema.name(), "b", LIMITS);
    b.sql(TABLE);
    b.sql(&rows(500_000, ROWS));
    crash(&b, "push_sent:3", &["init"]);
    // Each reads what the other sent, with most of its own rows still to go.
    for device in [&a, &b] {
        device.tw(&["now", "--pull"]).ok();
    }
    a.tw(&["init"]).ok();
    b.tw(&["init"]).ok();
    assert_eq!(
        (count(&a, "tidewater_outbox"), count(&b, "tidewater_outbox")),
        ("0".into(), "0".into())
    );
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(
        a.rows("select count(*) from items"),
        [[(2 * ROWS).to_string()]]
    );
    assert_eq!(fleet.conflicts(), 0);
}

#[test]
fn rows_that_cannot_be_sent_are_parked_alone() {
    let fleet = Fleet::new(TABLE);
    // One that no text of Postgres can hold, and one that this server's owner does not want.
    fleet
        .schema
        .exec("create table items (id text primary key, body text, n bigint check (n <> 6006))");
    let a = filled(&fleet, "a", LIMITS);
    a.sql("update items set body = 'x' || char(0) || 'y' where n in (1234, 10499)");
    a.sql("update items set n = 'many' where n = 7777");
    a.tw(&["init"]).ok();
    let now = a.tw(&["now", "--json"]).expect_code(1).json();
    assert_eq!(
        (&now["failed"], &now["pending"]),
        (&json!(4), &json!(0)),
        "{now}"
    );
    assert_eq!(
        fleet.server("select count(*) from items"),
        [[(ROWS - 4).to_string()]]
    );
    let queue = a.json(&["queue", "--errors"]);
    let mut parked: Vec<(String, String)> = queue["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|i| {
            (
                i["pk"][0].as_str().unwrap_or("?").to_owned(),
                i["error"]["sqlstate"].to_string(),
            )
        })
        .collect();
    parked.sort();
    let expected = [
        ("k001234", "\"22021\""),
        ("k006006", "\"23514\""),
        ("k007777", "\"22P02\""),
        ("k010499", "\"22021\""),
    ]
    .map(|(k, s)| (k.to_owned(), s.to_owned()));
    assert_eq!(parked, expected);
}

#[test]
fn a_schema_change_in_the_midst_sends_the_rest_the_ordinary_way() {
    let fleet = Fleet::new(TABLE);
    let a = filled(&fleet, "a", LIMITS);
    crash(&a, "push_after_commit:4", &["init"]);
    a.sql("alter table items add column added text default 'here'");
    a.sql("update items set added = 'by hand' where n = 3");
    a.tw(&["now"]).ok();
    a.tw(&["now"]).ok();
    let verified = a.json(&["verify"]);
    assert_eq!(verified["identical"], json!(true), "{verified}");
    assert_eq!(
        fleet.server(
            "select added, count(*) from items where added is not null group by 1 order by 1"
        ),
        a.rows("select added, count(*) from items where added is not null group by 1 order by 1")
    );
    assert_eq!(fleet.conflicts(), 0);
}

#[test]
fn rows_of_which_anything_stays_here_take_the_ordinary_way() {
    let fleet = Fleet::new(TABLE);
    let more = format!("{LIMITS}\n[tables.items]\nprivacy = \"redacted\"\nredact = [\"body\"]\n");
    let a = filled(&fleet, "a", &more);
    a.tw(&["init"]).ok();
    assert_eq!(fleet.server("select count(*) from items"), [["0"]]);
    a.tw(&["now"]).ok();
    assert_eq!(
        fleet.server("select count(*), count(body) from items"),
        [[ROWS.to_string(), "0".to_owned()]]
    );
}

#[test]
fn offline_the_rows_wait_and_the_first_push_sends_them() {
    let proxy = Proxy::shared_server();
    let fleet = Fleet::new(TABLE);
    let url = fleet.schema.url_through(proxy.host(), proxy.port());
    let a = Device::with_url(&url, fleet.schema.name(), "a", LIMITS);
    a.sql(TABLE);
    a.sql(&rows(0, ROWS));
    proxy.set(Mode::Refuse);
    a.tw(&["init"]).ok();
    a.tw(&["now"]).expect_code(3);
    a.sql("update items set body = 'edited' where n < 100");
    a.tw(&["now"]).expect_code(3);
    assert!(a.json(&["status"])["upload"]["pending"].as_u64() >= Some(ROWS as u64));
    proxy.set(Mode::Pass);
    assert_eq!(a.json(&["now"])["pending"], json!(0));
    fleet.expect_equal(&[&a], ALL);
    // What was edited went with the queue, and once.
    assert_eq!(count(&a, "tidewater_outbox"), "100");
}

/// Runs a command with a terminal as its stderr, and returns what it wrote there.
fn on_a_terminal(device: &Device, arguments: &[&str]) -> (String, String) {
    let (mut master, mut slave) = (0, 0);
    // SAFETY: the two descriptors are written, and owned from here on; nothing else is asked for.
    let opened = unsafe {
        libc::openpty(
            &mut master,
            &mut slave,
            std::ptr::null_mut(),
            std::ptr::null(),
            std::ptr::null(),
        )
    };
    assert_eq!(opened, 0, "no terminal");
    // SAFETY: both were just opened and belong to nobody else.
    let (mut master, slave) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) };
    let mut command = device.command(arguments);
    command.env("TERM", "xterm").stderr(slave);
    let stdout = command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let child = stdout.expect("starts");
    // The parent's copy of the slave goes with the command: the read below ends with the child.
    drop(command);
    let reader = std::thread::spawn(move || {
        let mut told = Vec::new();
        let mut buffer = [0; 4096];
        // The end of the other side is an error here.
        while let Ok(n) = master.read(&mut buffer) {
            if n == 0 {
                break;
            }
            told.extend_from_slice(&buffer[..n]);
        }
        String::from_utf8_lossy(&told).into_owned()
    });
    let done = child.wait_with_output().expect("ends");
    assert!(done.status.success(), "{done:?}");
    let told = reader.join().expect("read");
    (told, String::from_utf8_lossy(&done.stdout).into_owned())
}

#[test]
fn a_person_sees_how_far_it_is_and_a_program_does_not() {
    let fleet = Fleet::new(TABLE);
    let a = filled(&fleet, "a", LIMITS);
    let (told, stdout) = on_a_terminal(&a, &["init"]);
    assert!(told.contains("first upload"), "{told:?}");
    assert!(stdout.contains("Initialised"), "{stdout}");
    let other = Fleet::new(TABLE);
    let b = filled(&other, "b", LIMITS);
    let (told, stdout) = on_a_terminal(&b, &["init", "--json"]);
    assert!(!told.contains("first upload"), "{told:?}");
    assert!(
        serde_json::from_str::<serde_json::Value>(&stdout).is_ok(),
        "{stdout}"
    );
}

#[test]
fn an_app_that_goes_on_writing_loses_nothing() {
    let fleet = Fleet::new(TABLE);
    let a = filled(&fleet, "a", LIMITS);
    let mut init = Running::spawn(a.command(&["init"]));
    let mut n = 0;
    let arrived = || {
        let rows = fleet.schema.client().try_rows("select count(*) from items");
        rows.unwrap_or_default()
    };
    while init.is_running() {
        n += 1;
        let before = arrived();
        a.sql(&format!(
            "update items set body = 'live {n}' where n = {};
             delete from items where n = {};
             insert into items values ('live{n}', 'new', -{n})",
            (n * 37) % ROWS,
            (n * 53) % ROWS,
        ));
        // A page later: an app that never let go of the lock would keep everybody else out.
        eventually(PATIENCE, "another page", || {
            !init.is_running() || arrived() != before
        });
    }
    init.wait(PATIENCE).ok();
    let b = fleet.device("b");
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(a.json(&["verify"])["identical"], json!(true));
    assert_eq!(fleet.conflicts(), 0);
}
