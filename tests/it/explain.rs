//! `explain` and its neighbours: a row's whole life, and what the queues say when they are asked.

use crate::support::cli::{Device, Running};
use crate::support::fleet::{Fleet, ITEMS, conflicts};
use crate::support::proxy::{Mode, Proxy};
use crate::support::wait::{PATIENCE, eventually};
use serde_json::{Value as Json, json};

#[track_caller]
fn life(device: &Device, key: &str) -> Vec<Json> {
    let said = device.json(&["explain", "items", key]);
    assert_eq!(
        (&said["table"], &said["key"]),
        (&json!("items"), &json!([key]))
    );
    said["events"].as_array().expect("a list").clone()
}

#[track_caller]
fn kinds(device: &Device, key: &str) -> Vec<String> {
    life(device, key)
        .iter()
        .map(|e| e["kind"].as_str().expect("a kind").to_owned())
        .collect()
}

#[track_caller]
fn items(said: &Json) -> Vec<Json> {
    said["items"].as_array().expect("items").clone()
}

#[test]
fn a_rows_whole_life_is_told_in_its_order() {
    let fleet = Fleet::new(ITEMS);
    let proxy = Proxy::shared_server();
    let a = fleet.device_through(&proxy, "a", "");
    let b = fleet.device("b");
    proxy.set(Mode::Refuse);
    a.sql("insert into items values ('x', 'secret words', 1)");
    assert_eq!(kinds(&a, "x"), ["captured"]);
    a.tw(&["now"]).expect_code(3);
    assert_eq!(kinds(&a, "x"), ["captured", "claimed"]);
    a.sql("update items set n = -1 where id = 'x'");
    a.tw(&["now"]).expect_code(3);
    // Offline; it is one change now, and the former one says which.
    let folded = life(&a, "x")
        .into_iter()
        .find(|e| e["kind"] == "folded")
        .expect("an event");
    let now_called = items(&a.json(&["queue"]))[0]["key"].clone();
    assert!(
        folded["message"]
            .as_str()
            .unwrap()
            .ends_with(now_called.as_str().unwrap())
    );

    proxy.set(Mode::Pass);
    a.tw(&["now"]).ok();
    fleet
        .schema
        .exec("alter table items add constraint sane check (n <> -2)");
    a.sql("update items set n = -2 where id = 'x'");
    a.tw(&["now"]).expect_code(1);
    let parked = life(&a, "x")
        .into_iter()
        .find(|e| e["kind"] == "parked")
        .expect("an event");
    assert_eq!(
        (&parked["code"], &parked["sqlstate"]),
        (&json!("SYNC-005"), &json!("23514"))
    );
    a.tw(&["retry"]).expect_code(1);
    let key = items(&a.json(&["queue", "--errors"]))[0]["key"]
        .as_str()
        .unwrap()
        .to_owned();
    a.tw(&["discard", &key[..20], "--yes"]).ok();
    let told = kinds(&a, "x");
    let order = [
        "uploaded",
        "parked",
        "retried",
        "parked",
        "discarded",
        "applied",
    ];
    let mut rest = told.iter();
    for kind in order {
        assert!(rest.any(|k| k == kind), "{kind} in {told:?}");
    }

    // The other device: it received, wins and loses.
    b.tw(&["now"]).ok();
    assert_eq!(kinds(&b, "x"), ["applied"]);
    a.sql("update items set body = 'a' where id = 'x'");
    b.sql("update items set body = 'b' where id = 'x'");
    b.tw(&["now"]).ok();
    a.tw(&["pause"]).ok();
    a.tw(&["resume"]).ok();
    a.tw(&["now"]).ok();
    let lost = conflicts(&a)
        .into_iter()
        .find(|c| c["kind"] == "update_update")
        .expect("a conflict");
    let id = lost["id"].as_str().unwrap();
    a.tw(&["conflicts", "restore", id]).ok();
    let said = life(&a, "x");
    for (kind, at) in [("conflict", "conflict"), ("restored", "conflict")] {
        assert!(
            said.iter().any(|e| e["kind"] == kind && e[at] == id),
            "{kind}: {said:#?}"
        );
    }
    assert!(kinds(&a, "x").contains(&"paused".to_owned()));
    // Times never go back, nothing of the row is told, and people read the same.
    let times: Vec<&str> = said.iter().filter_map(|e| e["at"].as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(!format!("{said:?}").contains("secret words"));
    let human = a.tw(&["explain", "items", "x"]).ok().stdout;
    assert!(
        human.contains("23514") && human.contains("discarded"),
        "{human}"
    );
    assert!(human.lines().all(|l| l.chars().count() <= 80), "{human}");
    let nothing = a.json(&["explain", "items", "nowhere"]);
    assert_eq!(
        (&nothing["events"], &nothing["status"]),
        (&json!([]), &Json::Null)
    );
}

#[test]
fn a_row_that_is_nowhere_has_no_status() {
    let fleet = Fleet::new(ITEMS);
    let device = fleet.device("a");
    let e = device
        .tw(&["--json", "status", "items", "nope"])
        .expect_code(2)
        .json();
    assert_eq!(
        (&e["error"]["code"], &e["error"]["table"]),
        (&json!("SYNC-013"), &json!("items"))
    );
    device.sql("insert into items values ('x', 'b', 1)");
    device.tw(&["now"]).ok();
    device.sql("delete from items where id = 'x'");
    assert_eq!(device.json(&["status", "items", "x"])["status"], "pending");
    device.tw(&["now"]).ok();
    assert_eq!(device.json(&["status", "items", "x"])["status"], "synced");
}

#[test]
fn a_new_identity_and_healed_capture_are_part_of_the_story() {
    let fleet = Fleet::new(ITEMS);
    let device = fleet.device("a");
    device.sql("insert into items values ('x', 'b', 1)");
    device.tw(&["now"]).ok();
    device.sql(
        "create table copy (id text primary key, body text, n integer); insert into copy select * from items; \
         drop table items; alter table copy rename to items",
    );
    device.tw(&["now"]).ok();
    fleet
        .schema
        .exec("update tidewater_devices set last_batch = 'another life'");
    device.sql("update items set n = 2");
    device.tw(&["now"]).ok();
    let said = kinds(&device, "x");
    for kind in ["capture_healed", "new_identity"] {
        assert!(said.contains(&kind.to_owned()), "{kind}: {said:?}");
    }
    fleet
        .schema
        .exec("update tidewater_workspace set instance = 'restored'");
    device.tw(&["now"]).ok();
    device.tw(&["now"]).ok();
    let back = kinds(&device, "x")
        .iter()
        .filter(|k| *k == "went_back")
        .count();
    assert_eq!(back, 1, "told once: {:?}", kinds(&device, "x"));
}

#[test]
fn the_queues_answer_what_they_are_asked() {
    let fleet = Fleet::configured(
        ITEMS,
        "[retry]\nbase_delay_seconds = 3000\nmax_delay_seconds = 3600\n",
    );
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    b.sql("create unique index one_body on items (body) ; insert into items values ('taken', 'same', 0)");
    a.sql("insert into items values ('x', 'first', 1), ('y', 'same', 2)");
    // What would be sent, with nothing done about it.
    let before = a.rows("select count(*) from tidewater_log");
    let would = a.json(&["now", "--dry-run"]);
    assert_eq!((would["total"].clone(), items(&would).len()), (json!(2), 2));
    assert_eq!(items(&would)[0]["key"], Json::Null);
    assert_eq!(a.rows("select count(*) from tidewater_log"), before);
    assert_eq!(fleet.server("select count(*) from items"), [["0"]]);
    let said = a.tw(&["now", "--dry-run"]).ok().stdout;
    assert!(said.contains("2 changes would be sent"), "{said}");
    assert_eq!(a.json(&["now", "--pull", "--dry-run"])["total"], 0);

    a.tw(&["now"]).ok();
    b.tw(&["now"]).expect_code(1);
    // The row of the other device cannot be applied here: it is told with its reason.
    let inbox = a.json(&["queue", "--inbox"]);
    assert!(inbox["items"].is_array(), "{inbox}");
    let stuck = items(&b.json(&["queue", "--inbox", "--errors"]));
    assert_eq!(stuck.len(), 1, "{stuck:?}");
    assert_eq!(
        (
            &stuck[0]["pk"],
            &stuck[0]["status"],
            &stuck[0]["error"]["code"]
        ),
        (&json!(["y"]), &json!("failed"), &json!("SYNC-005"))
    );
    assert!(kinds(&b, "y").contains(&"not_applied".to_owned()));
    let all = items(&b.json(&["queue", "--inbox"]));
    assert!(
        all.iter()
            .any(|i| i["pk"] == json!(["x"]) && i["status"] == "applied"),
        "{all:?}"
    );
    b.tw(&["queue", "--inbox"]).ok();

    // Ready is what no waiting time holds back.
    fleet
        .schema
        .exec("create unique index only_one on items (n)");
    a.sql("insert into items values ('z', 'third', 1)");
    a.tw(&["now"]).ok();
    assert_eq!(
        items(&a.json(&["queue"])).len(),
        1,
        "refused, and tried later"
    );
    assert!(items(&a.json(&["queue", "--ready"])).is_empty());
    a.sql("update items set body = 'fresh' where id = 'x'");
    let ready = items(&a.json(&["queue", "--ready"]));
    assert_eq!(ready.len(), 1);
    assert_eq!(ready[0]["pk"], json!(["x"]));

    // One item in full; a beginning of its key will do, where it is the only one.
    let key = items(&a.json(&["queue"]))[0]["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let shown = a.json(&["queue", "show", &key[..25]]);
    let item = &items(&shown)[0];
    assert_eq!(
        (&item["key"], &item["row"]["body"]),
        (&json!(key), &json!("third"))
    );
    assert_eq!(item["events"][2]["kind"], "refused", "{item:#}");
    assert!(a.tw(&["queue", "show", &key]).ok().stdout.contains("third"));
    a.tw(&["queue", "show", "0"]).expect_code(2);
    a.tw(&["queue", "show", "NOPE"]).expect_code(2);
}

#[test]
fn every_retried_item_has_a_result() {
    let fleet = Fleet::new(ITEMS);
    let proxy = Proxy::shared_server();
    let a = fleet.device_through(&proxy, "a", "");
    a.tw(&["now"]).ok();
    fleet
        .schema
        .exec("alter table items add constraint sane check (n > 0)");
    a.sql("insert into items values ('x', 'b', -1), ('y', 'b', -2), ('z', 'b', 1)");
    a.tw(&["now"]).expect_code(1);
    let outcomes = |said: &Json| -> Vec<(String, String)> {
        let of = |r: &Json, field: &str| r[field].as_str().unwrap_or_default().to_owned();
        let results = said["results"].as_array().expect("results");
        let mut all: Vec<_> = results
            .iter()
            .map(|r| (r["pk"][0].as_str().unwrap().to_owned(), of(r, "outcome")))
            .collect();
        all.sort();
        all
    };
    let expected = |x: &str, y: &str| {
        vec![
            ("x".to_owned(), x.to_owned()),
            ("y".to_owned(), y.to_owned()),
        ]
    };
    proxy.set(Mode::Refuse);
    let offline = a.json(&["retry"]);
    assert_eq!(outcomes(&offline), expected("pending", "pending"));
    proxy.set(Mode::Pass);
    let refused = a.tw(&["--json", "now"]).expect_code(1).json();
    assert_eq!(refused["failed"], 2);
    // A later edit takes one of them up, under another change key.
    a.sql("update items set n = 5 where id = 'x'");
    let mixed = a.tw(&["--json", "retry"]).expect_code(1).json();
    assert_eq!(outcomes(&mixed), expected("synced", "failed"));
    let named = a.tw(&[
        "--json",
        "retry",
        items(&a.json(&["queue", "--errors"]))[0]["key"]
            .as_str()
            .unwrap(),
    ]);
    assert_eq!(
        outcomes(&named.expect_code(1).json()),
        [("y".to_owned(), "failed".to_owned())]
    );
}

#[test]
fn a_watched_status_comes_again_until_it_is_interrupted() {
    let fleet = Fleet::new(ITEMS);
    let device = fleet.device("a");
    let watching: Running = device.spawn(&["--json", "status", "--watch"]);
    eventually(PATIENCE, "a second document", || {
        watching.stdout().lines().count() >= 2
    });
    watching.signal(libc::SIGINT);
    let ended = watching.wait(PATIENCE).expect_code(130);
    for line in ended.stdout.lines() {
        let document: Json = serde_json::from_str(line).expect("one document a line");
        assert!(document["device"]["id"].is_string());
    }
    let plain = device.spawn(&["status", "--watch"]);
    eventually(PATIENCE, "a second picture", || {
        plain.stdout().matches("device ").count() >= 2
    });
    plain.signal(libc::SIGINT);
    let ended = plain.wait(PATIENCE).expect_code(130);
    assert!(!ended.stdout.contains('\u{1b}'), "{}", ended.stdout);
}
