//! What users do, one device against one workspace: offline and back, a blocked network, bursts, and
//! edits made in Postgres by hand.

use crate::sides;
use crate::support::cli::Device;
use crate::support::proxy::{Mode, Proxy};
use crate::support::server::Schema;
use crate::support::wait::{PATIENCE, eventually};
use serde_json::Value as Json;
use std::collections::BTreeMap;

pub const MESSAGES: &str = "create table messages (id text primary key, body text, n integer)";

/// A device with the table of [`MESSAGES`], initialised and in touch with the workspace.
pub fn messages(schema: &Schema, url: &str, name: &str, more: &str) -> Device {
    let device = Device::with_url(url, schema.name(), name, more);
    device.sql(MESSAGES);
    device.tw(&["init"]).ok();
    device
}

pub fn through(schema: &Schema, proxy: &Proxy) -> String {
    schema.url_through(proxy.host(), proxy.port())
}

/// One more device of the workspace.
pub fn another(schema: &Schema, name: &str) -> Device {
    let device = Device::new(schema, name);
    let db = device.db();
    device
        .tw(&["clone", "--config", "tidewater.toml", db.to_str().unwrap()])
        .ok();
    device
}

/// What stands on both sides under a key of `messages`.
fn bodies(device: &Device, schema: &Schema, id: &str) -> (Vec<String>, Vec<String>) {
    let sql = format!("select body from messages where id = '{id}'");
    (
        device.rows(&sql).into_iter().flatten().collect(),
        schema.rows(&sql).into_iter().flatten().collect(),
    )
}

#[test]
pub fn what_was_written_offline_is_there_once_the_network_is() {
    let schema = Schema::new();
    let proxy = Proxy::shared_server();
    proxy.set(Mode::Refuse);
    let device = Device::with_url(&through(&schema, &proxy), schema.name(), "a", "");
    device.sql(MESSAGES);
    device.sql("insert into messages values ('m0', 'before init', 0)");
    // Works offline: the workspace is made at first contact.
    device.tw(&["init"]).ok();
    device.sql("insert into messages values ('m1', 'hello', 1), ('m2', 'there', 2)");
    device.sql("update messages set body = 'hello again' where id = 'm1'");
    device.sql("delete from messages where id = 'm2'");

    let said = device.tw(&["--json", "now"]).expect_code(3).json();
    assert_eq!(said["error"]["code"], "SYNC-001", "{said}");
    let status = device.json(&["status"]);
    assert_eq!(status["mode"], "offline", "{status}");
    assert_eq!(status["remote"]["reachable"], false, "{status}");
    assert!(status["upload"]["pending"].as_u64() >= Some(2), "{status}");
    assert_eq!(
        schema.one("select count(*) from pg_tables where schemaname = current_schema"),
        "0"
    );

    proxy.set(Mode::Pass);
    sides::sync(&device);
    sides::assert_equal(&device, &schema);
    assert_eq!(
        schema.rows("select id, body from messages order by id"),
        [["m0", "before init"], ["m1", "hello again"]]
    );
    sides::verify(&device);
    assert_eq!(device.json(&["status"])["mode"], "online");
}

#[test]
pub fn a_blocked_network_holds_changes_back_and_loses_none() {
    let schema = Schema::new();
    let proxy = Proxy::shared_server();
    let short = "[retry]\nbase_delay_seconds = 0.05\n";
    let device = messages(&schema, &through(&schema, &proxy), "a", short);
    device.sql("insert into messages values ('m1', 'first', 1)");
    sides::sync(&device);

    // Packets go nowhere: no reset, no answer, only silence.
    let mut blocked = device.command(&["--json", "now"]);
    blocked
        .env("TIDEWATER_REMOTE__STATEMENT_TIMEOUT_SECONDS", "0.5")
        .env("TIDEWATER_REMOTE__CONNECT_TIMEOUT_SECONDS", "0.5");
    proxy.set(Mode::BlackHole);
    device.sql("insert into messages values ('m2', 'into the void', 2)");
    let said = crate::support::cli::Running::spawn(blocked)
        .wait(PATIENCE)
        .expect_code(3)
        .json();
    assert_eq!(said["error"]["code"], "SYNC-001", "{said}");
    assert_eq!(schema.one("select count(*) from messages"), "1");
    let waiting = sides::queue(&device, &[]);
    let item = waiting.iter().find(|i| i["pk"][0] == "m2").expect("queued");
    assert_eq!(item["attempts"], 0, "silence is no answer: {item}");

    proxy.set(Mode::Pass);
    sides::sync(&device);
    sides::assert_equal(&device, &schema);
    // What was sent into the silence arrived in the end, once.
    assert_eq!(
        schema.rows("select id from messages order by id"),
        [["m1"], ["m2"]]
    );
    sides::verify(&device);
}

fn quick_messages(device: &Device) {
    let conn = device.sqlite();
    conn.pragma_update(None, "synchronous", "off").unwrap();
    for i in 0..100 {
        conn.execute(
            "insert into messages values (?1, 'quick', ?2)",
            (format!("q{i:03}"), i),
        )
        .unwrap();
    }
}

/// At least two by the cap of 50 items; at most four, or batching would be no use.
#[track_caller]
fn in_few_batches(schema: &Schema) {
    let n = sides::transactions(schema, "messages");
    assert!((2..=4).contains(&n), "{n} transactions");
}

#[test]
fn a_hundred_quick_messages_travel_in_few_batches() {
    let schema = Schema::new();
    let device = messages(&schema, schema.url(), "a", "[upload]\nbatch_size = 50\n");
    quick_messages(&device);
    assert_eq!(sides::sync(&device)["uploaded"], 100);
    assert_eq!(schema.one("select count(*) from messages"), "100");
    in_few_batches(&schema);
    sides::assert_equal(&device, &schema);
}

#[test]
pub fn a_hundred_quick_messages_travel_in_few_batches_through_the_service() {
    let schema = Schema::new();
    let device = messages(&schema, schema.url(), "a", "[upload]\nbatch_size = 50\n");
    device.sql("insert into messages values ('first', 'the service is awake', -1)");
    let service = device.spawn(&["run"]);
    eventually(PATIENCE, "the service at work", || {
        schema.one("select count(*) from messages") == "1"
    });
    quick_messages(&device);
    eventually(PATIENCE, "all messages", || {
        schema.one("select count(*) from messages") == "101"
    });
    schema.exec("delete from messages where id = 'first'");
    in_few_batches(&schema);
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();
}

#[test]
fn large_rows_travel_in_batches_by_their_bytes() {
    let schema = Schema::new();
    let device = messages(&schema, schema.url(), "a", "");
    // 20 rows of 300 kB are few items, but six MiB.
    let conn = device.sqlite();
    for i in 0..20 {
        let letter = char::from(b'a' + i);
        conn.execute(
            "insert into messages values (?1, ?2, ?3)",
            (
                format!("b{i:02}"),
                letter.to_string().repeat(300_000),
                i64::from(i),
            ),
        )
        .unwrap();
    }
    assert_eq!(sides::sync(&device)["uploaded"], 20);
    let n = sides::transactions(&schema, "messages");
    assert!((6..=20).contains(&n), "{n} transactions");
    sides::assert_equal(&device, &schema);
}

#[test]
pub fn a_row_changed_in_postgres_arrives_and_a_concurrent_change_is_a_conflict() {
    let schema = Schema::new();
    let device = messages(&schema, schema.url(), "a", "");
    device.sql("insert into messages values ('m1', 'written here', 7)");
    sides::sync(&device);

    schema.exec("update messages set body = 'corrected by hand' where id = 'm1'");
    assert_eq!(sides::sync(&device)["downloaded"], 1);
    let corrected = (
        vec!["corrected by hand".to_owned()],
        vec!["corrected by hand".to_owned()],
    );
    assert_eq!(bodies(&device, &schema, "m1"), corrected);
    let none = device.json(&["conflicts"]);
    assert_eq!(none["conflicts"].as_array().unwrap().len(), 0, "{none}");

    // Now both, each without knowing of the other. The later one wins.
    device.sql("update messages set body = 'mine', n = 8 where id = 'm1'");
    device.sql("insert into messages values ('m2', 'unrelated', 1)");
    device.json(&["queue"]);
    schema.exec("update messages set body = 'theirs', n = 9 where id = 'm1'");
    let done = sides::sync(&device);
    assert_eq!(done["conflicts"], 1, "{done}");
    sides::assert_equal(&device, &schema);
    let listed = device.json(&["conflicts"]);
    let [conflict] = listed["conflicts"].as_array().unwrap().as_slice() else {
        panic!("not one conflict: {listed}")
    };
    assert_eq!(conflict["table"], "messages");
    assert_eq!(conflict["pk"], serde_json::json!(["m1"]));
    assert_eq!(conflict["kind"], "update_update");
    assert_eq!(conflict["seen"], false);
    // Both versions are whole, whichever won.
    let mine = serde_json::json!({"id": "m1", "body": "mine", "n": 8});
    let theirs = serde_json::json!({"id": "m1", "body": "theirs", "n": 9});
    assert_eq!(conflict["local"], mine, "{conflict}");
    assert_eq!(conflict["remote"], theirs, "{conflict}");
    let winner = if conflict["winner"] == "local" {
        "mine"
    } else {
        "theirs"
    };
    let both = (vec![winner.to_owned()], vec![winner.to_owned()]);
    assert_eq!(bodies(&device, &schema, "m1"), both);
    // And as a file, for its owner alone.
    let file = conflict["original_file"].as_str().expect("a file");
    let kept: Json = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(kept["local"], mine);
    // Only what was concurrent became a conflict.
    assert_eq!(
        bodies(&device, &schema, "m2"),
        (vec!["unrelated".to_owned()], vec!["unrelated".to_owned()])
    );
}

#[test]
pub fn edits_deletes_truncate_and_key_changes_made_in_postgres_arrive() {
    let schema = Schema::new();
    let device = messages(&schema, schema.url(), "a", "");
    device.sql("create table notes (a integer, b text, v text, primary key (a, b))");
    device.tw(&["init"]).ok();
    for i in 0..10 {
        device.sql(&format!(
            "insert into messages values ('m{i}', 'body {i}', {i}); \
             insert into notes values ({i}, 'b', 'v')"
        ));
    }
    sides::sync(&device);
    let equal = |what: &str, rows: usize| {
        sides::sync(&device);
        sides::assert_equal(&device, &schema);
        let held = sides::stored(&device.db(), "messages").len();
        assert_eq!(held, rows, "{what}");
    };

    schema.exec("insert into messages (id, body, n) values ('p1', 'by hand', -1)");
    equal("an insert", 11);
    schema.exec("update messages set n = n + 100 where n < 5");
    equal("an update of many", 11);
    assert_eq!(
        device.rows("select n from messages where id = 'm4'"),
        [["104"]]
    );
    schema.exec("delete from messages where id in ('m1', 'm2')");
    equal("deletes", 9);
    schema.exec(
        "delete from messages where id = 'm3'; insert into messages values ('m3', 'back', 3)",
    );
    equal("a delete and an insert at once", 9);
    assert_eq!(
        device.rows("select body from messages where id = 'm3'"),
        [["back"]]
    );
    schema.exec("update messages set id = 'renamed' where id = 'm5'");
    equal("a key change", 9);
    assert_eq!(
        device.rows("select id from messages where n = 5 order by id"),
        [["renamed"]]
    );
    // Keys that move onto one another's places.
    schema.exec("update notes set b = 'moved', a = a + 1000");
    equal("key changes of a composite key", 9);
    assert_eq!(
        device.rows("select count(*), min(a) from notes where b = 'moved'"),
        [["10", "1000"]]
    );
    schema.exec("truncate messages");
    equal("a truncate", 0);
    assert_eq!(device.rows("select count(*) from notes"), [["10"]]);
    schema.exec("insert into messages values ('m1', 'after all', 1)");
    schema
        .exec("begin; truncate messages; insert into messages values ('m9', 'phoenix', 9); commit");
    equal("a truncate and an insert in one transaction", 1);
    assert_eq!(
        device.rows("select id, body from messages"),
        [["m9", "phoenix"]]
    );
    sides::verify(&device);
}

#[test]
fn a_sync_with_nothing_to_do_asks_the_server_once() {
    let schema = Schema::new();
    let proxy = Proxy::shared_server();
    let device = messages(&schema, &through(&schema, &proxy), "a", "");
    device.sql("insert into messages values ('m1', 'x', 1)");
    sides::sync(&device);
    sides::sync(&device);

    proxy.reset_stats();
    sides::sync(&device);
    let stats = proxy.stats();
    assert_eq!(stats.connections, 1, "{stats:?}");
    assert_eq!(stats.requests, 1, "{stats:?}");
    assert_eq!(stats.round_trips, 1, "{stats:?}");

    // The counter counts: with something to do there is more to ask.
    device.sql("update messages set n = 2");
    proxy.reset_stats();
    sides::sync(&device);
    assert!(proxy.stats().requests > 1, "{:?}", proxy.stats());
}

#[test]
pub fn two_devices_and_postgres_hold_one_conversation() {
    let schema = Schema::new();
    let a = messages(&schema, schema.url(), "a", "");
    a.sql("insert into messages values ('m1', 'from a', 1)");
    sides::sync(&a);
    let b = another(&schema, "b");
    assert_eq!(b.rows("select body from messages"), [["from a"]]);
    b.sql("insert into messages values ('m2', 'from b', 2)");
    b.sql("update messages set body = 'b was here' where id = 'm1'");
    sides::sync(&b);
    schema.exec("insert into messages values ('m3', 'from psql', 3)");
    sides::sync(&a);
    sides::sync(&b);
    let wanted = [["m1", "b was here"], ["m2", "from b"], ["m3", "from psql"]];
    for device in [&a, &b] {
        assert_eq!(
            device.rows("select id, body from messages order by id"),
            wanted
        );
        assert_eq!(
            device.json(&["conflicts"])["conflicts"],
            serde_json::json!([])
        );
        sides::verify(device);
    }
    // Each row carries the device that wrote it last; psql's has none.
    let by: BTreeMap<String, String> = schema
        .rows("select id, tidewater_device from messages")
        .into_iter()
        .map(|mut r| (r.remove(0), r.remove(0)))
        .collect();
    let id = |d: &Device| {
        d.json(&["status"])["device"]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(by["m2"], id(&b));
    assert_ne!(by["m3"], id(&a));
    assert_ne!(by["m3"], id(&b));
}
