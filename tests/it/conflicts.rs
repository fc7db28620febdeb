//! Conflicts: who wins, that the loser is kept whole on both sides, and how it comes back.

use crate::support::cli::Device;
use crate::support::fleet::{ALL, Fleet, ITEMS, conflicts, id};
use crate::support::wait::{PATIENCE, eventually};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

const THINGS: &str = "create table things (id text primary key, body text, n integer, x real, raw blob, \
                      empty text);";
const QUERY: &str = "select id, body, n from things order by id";

/// Who wins a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Winner {
    /// The device whose push meets the other's row.
    Pusher,
    /// The device whose row is there already.
    Holder,
}

struct Case {
    name: &'static str,
    policy: &'static str,
    /// Whether the pusher's edit is the later one.
    newer: bool,
    winner: Winner,
}

const CASES: [Case; 4] = [
    Case {
        name: "the last write wins, and it is the one that is pushed",
        policy: "last_write_wins",
        newer: true,
        winner: Winner::Pusher,
    },
    Case {
        name: "the last write wins, and it is the one on the server",
        policy: "last_write_wins",
        newer: false,
        winner: Winner::Holder,
    },
    Case {
        name: "the local side wins though it is older",
        policy: "local_wins",
        newer: false,
        winner: Winner::Pusher,
    },
    Case {
        name: "the remote side wins though it is older",
        policy: "remote_wins",
        newer: true,
        winner: Winner::Holder,
    },
];

/// What met what on one key, seen from the pusher; the holder sees it the other way round.
const KINDS: [(&str, &str, &str); 4] = [
    ("ii", "insert_insert", "insert_insert"),
    ("uu", "update_update", "update_update"),
    ("ud", "update_delete", "delete_update"),
    ("du", "delete_update", "update_delete"),
];

/// A row that `side` wrote, with a value of every storage class.
fn content(id: &str, side: &str) -> Value {
    let n = side.len();
    json!({"id": id, "body": side, "n": n, "x": 0.1, "raw": {"hex": "00ff"}, "empty": null})
}

fn write(device: &Device, id: &str, side: &str) {
    device.sql(&format!(
        "insert into things values ('{id}', '{side}', {}, 0.1, x'00ff', null) \
         on conflict (id) do update set body = excluded.body, n = excluded.n",
        side.len()
    ));
}

fn delete(device: &Device, id: &str) {
    device.sql(&format!("delete from things where id = '{id}'"));
}

/// Moves what the app has just written in time.
fn shift(device: &Device, ms: i64) {
    device.sql(&format!("update tidewater_log set at = at + {ms}"));
}

/// Conflicts by the first value of their key.
#[track_caller]
fn by_key(device: &Device) -> BTreeMap<String, Value> {
    let list = conflicts(device);
    let n = list.len();
    let map: BTreeMap<_, _> = list
        .into_iter()
        .map(|c| (c["pk"][0].as_str().expect("a text key").to_owned(), c))
        .collect();
    assert_eq!(map.len(), n, "one a key");
    map
}

/// A pusher and a holder that have met on all four keys, pusher first.
fn meet(case: &Case) -> (Fleet, Device, Device) {
    let more = format!("[conflict]\npolicy = \"{}\"\n", case.policy);
    let fleet = Fleet::configured(THINGS, &more);
    let (pusher, holder) = (fleet.device("pusher"), fleet.device("holder"));
    for id in ["uu", "ud", "du"] {
        write(&pusher, id, "first");
    }
    fleet.converge(&[&pusher, &holder], QUERY);
    for id in ["ii", "uu", "du"] {
        write(&holder, id, "of the holder");
    }
    delete(&holder, "ud");
    for id in ["ii", "uu", "ud"] {
        write(&pusher, id, "of the pusher");
    }
    delete(&pusher, "du");
    shift(&pusher, if case.newer { 5_000 } else { -5_000 });
    holder.json(&["now", "--push"]);
    let report = pusher.json(&["now"]);
    assert_eq!(
        (&report["conflicts"], &report["failed"]),
        (&4.into(), &0.into()),
        "{}",
        case.name
    );
    let report = holder.json(&["now"]);
    assert_eq!(report["conflicts"], 4, "{}", case.name);
    fleet.converge(&[&pusher, &holder], QUERY);
    (fleet, pusher, holder)
}

/// What each side held of a key: pusher, holder.
fn sides(key: &str) -> (Value, Value) {
    let (pusher, holder) = (content(key, "of the pusher"), content(key, "of the holder"));
    match key {
        "ud" => (pusher, Value::Null),
        "du" => (Value::Null, holder),
        _ => (pusher, holder),
    }
}

#[test]
pub fn every_kind_of_conflict_is_decided_by_every_policy_and_kept_whole_on_both_sides() {
    for case in &CASES {
        let (fleet, pusher, holder) = meet(case);
        let (mine, theirs) = (by_key(&pusher), by_key(&holder));
        for (key, kind, flipped) in KINDS {
            let what = format!("{}: {key}", case.name);
            let (p, h) = sides(key);
            let (m, t) = (&mine[key], &theirs[key]);
            assert_eq!(
                (&m["kind"], &t["kind"]),
                (&kind.into(), &flipped.into()),
                "{what}"
            );
            assert_eq!((&m["local"], &m["remote"]), (&p, &h), "{what}");
            assert_eq!((&t["local"], &t["remote"]), (&h, &p), "{what}");
            let (won, lost) = (json!("local"), json!("remote"));
            let (winner, row) = match case.winner {
                Winner::Pusher => ((&won, &lost), p),
                Winner::Holder => ((&lost, &won), h),
            };
            assert_eq!((&m["winner"], &t["winner"]), winner, "{what}");
            assert_eq!(
                (&m["policy"], &t["policy"]),
                (&case.policy.into(), &case.policy.into())
            );
            // One conflict, seen from two sides.
            assert_eq!(
                (&m["id"], &m["detected_at"]),
                (&t["id"], &t["detected_at"]),
                "{what}"
            );
            assert_eq!(m["local_change_key"], t["remote_change_key"], "{what}");
            assert_eq!(m["remote_change_key"], t["local_change_key"], "{what}");
            assert_eq!(
                (&m["local_at"], &m["remote_at"]),
                (&t["remote_at"], &t["local_at"]),
                "{what}"
            );
            assert_eq!(m["remote_device"], json!(id(&holder)), "{what}");
            assert_eq!(t["remote_device"], json!(id(&pusher)), "{what}");
            let there = fleet.server(&format!("select body from things where id = '{key}'"));
            let expected = row["body"].as_str().map(|b| vec![b.to_owned()]);
            assert_eq!(there, expected.into_iter().collect::<Vec<_>>(), "{what}");
        }
        assert_eq!(fleet.conflicts(), 4, "{}", case.name);
    }
}

#[test]
fn the_original_is_a_file_for_its_owner_only() {
    let (_fleet, pusher, holder) = meet(&CASES[0]);
    for device in [&pusher, &holder] {
        for (_, c) in by_key(device) {
            let file = std::path::Path::new(c["original_file"].as_str().expect("a file"));
            assert!(file.is_absolute(), "{}", file.display());
            let folder = device.folder().canonicalize().expect("the folder");
            assert!(
                file.canonicalize()
                    .expect("the file")
                    .starts_with(folder.join(".tidewater/conflicts"))
            );
            let mode = std::fs::metadata(file)
                .expect("the file")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
            let text = std::fs::read_to_string(file).expect("the file");
            let kept: Value = serde_json::from_str(&text).expect("a document");
            for field in ["id", "local", "remote", "winner", "kind"] {
                assert_eq!(kept[field], c[field], "{field}");
            }
        }
    }
}

#[test]
fn without_files_the_rows_are_kept_all_the_same() {
    let fleet = Fleet::configured(ITEMS, "[conflict]\npreserve_original = false\n");
    let a = fleet.device("a");
    a.json(&["now"]);
    fleet
        .schema
        .exec("insert into items values ('r', 'theirs', 1)");
    a.sql("insert into items values ('r', 'mine', 2)");
    a.json(&["now"]);
    let c = conflicts(&a).pop().expect("a conflict");
    assert_eq!(
        (&c["original_file"], &c["remote"]["body"]),
        (&Value::Null, &"theirs".into())
    );
    assert_eq!(
        c["remote_device"], "0",
        "whoever writes to Postgres directly"
    );
    assert!(!a.folder().join(".tidewater/conflicts").exists());
}

#[test]
pub fn a_restored_original_is_a_new_edit_that_reaches_everyone() {
    for case in &CASES {
        // Either side may restore what lost, the one that wrote it and the one that won over it.
        for by_the_loser in [true, false] {
            let (fleet, pusher, holder) = meet(case);
            let pusher_lost = case.winner == Winner::Holder;
            let device = if pusher_lost == by_the_loser {
                &pusher
            } else {
                &holder
            };
            for (_, c) in by_key(device) {
                let id = c["id"].as_str().expect("an id");
                let shown = device.json(&["conflicts", "restore", id]);
                assert_eq!(shown["conflicts"][0]["seen"], true);
            }
            fleet.converge(&[&pusher, &holder], QUERY);
            for (key, _, _) in KINDS {
                let (p, h) = sides(key);
                let lost = if pusher_lost { p } else { h };
                let there = fleet.server(&format!("select body, n from things where id = '{key}'"));
                let expected: Vec<Vec<String>> = match &lost {
                    Value::Null => vec![],
                    row => vec![vec![
                        row["body"].as_str().expect("text").to_owned(),
                        row["n"].to_string(),
                    ]],
                };
                assert_eq!(there, expected, "{}: {key}", case.name);
            }
            assert_eq!(
                fleet.conflicts(),
                4,
                "{}: who restores has seen both",
                case.name
            );
        }
    }
}

#[test]
fn an_acknowledged_conflict_stays_and_counts_as_seen() {
    let (_fleet, pusher, holder) = meet(&CASES[1]);
    let unseen = |d: &Device| d.json(&["status"])["conflicts"].clone();
    assert_eq!(unseen(&pusher), json!({"total": 4, "unseen": 4}));
    let first = conflicts(&pusher)[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let shown = pusher.json(&["conflicts", "ack", &first]);
    assert_eq!(shown["conflicts"][0]["seen"], true);
    assert_eq!(unseen(&pusher), json!({"total": 4, "unseen": 3}));
    pusher.json(&["conflicts", "ack", "--all"]);
    assert_eq!(unseen(&pusher), json!({"total": 4, "unseen": 0}));
    // Each device has its own reader.
    assert_eq!(unseen(&holder), json!({"total": 4, "unseen": 4}));
    pusher.json(&["now"]);
    assert_eq!(unseen(&pusher), json!({"total": 4, "unseen": 0}));
}

#[test]
fn only_the_two_devices_of_a_conflict_list_it() {
    let (fleet, pusher, holder) = meet(&CASES[0]);
    let third = fleet.device("third");
    fleet.converge(&[&third, &pusher, &holder], QUERY);
    assert!(conflicts(&third).is_empty());
}

#[test]
fn four_hundred_keys_created_on_two_devices_at_once_are_four_hundred_conflicts() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    fleet.converge(&[&a, &b], ALL);
    for (device, side) in [(&a, "a"), (&b, "b")] {
        device.sql(&format!(
            "with recursive k (i) as (select 1 union all select i + 1 from k where i < 400) \
             insert into items select printf('k%03d', i), '{side}-' || i, i from k"
        ));
    }
    // Both stand at the door of the table before it opens.
    let door = fleet.schema.client();
    door.exec("begin; lock table items in access exclusive mode");
    let pushes = [&a, &b].map(|d| d.spawn(&["now", "--push"]));
    eventually(PATIENCE, "two pushes that wait", || {
        door.one(
            "select count(distinct pid) from pg_locks where not granted \
             and relation = 'items'::regclass",
        ) == "2"
    });
    door.exec("commit");
    for push in pushes {
        push.wait(PATIENCE).ok();
    }
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(fleet.conflicts(), 400);
    let there: BTreeMap<String, String> = fleet
        .server("select id, body from items")
        .into_iter()
        .map(|r| (r[0].clone(), r[1].clone()))
        .collect();
    for (device, own, other) in [(&a, "a", "b"), (&b, "b", "a")] {
        let list = by_key(device);
        assert_eq!(list.len(), 400);
        for (key, c) in list {
            let n: u32 = key[1..].parse().expect("a number");
            let row = |side: &str| json!({"id": key, "body": format!("{side}-{n}"), "n": n});
            assert_eq!((&c["local"], &c["remote"]), (&row(own), &row(other)));
            let winner = if c["winner"] == "local" { own } else { other };
            assert_eq!(there[&key], format!("{winner}-{n}"));
            assert_eq!(c["kind"], "insert_insert");
        }
    }
}

#[test]
fn two_sides_that_hold_the_same_are_in_no_conflict() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into items values ('d', 'doomed', 0), ('u', 'first', 0)");
    fleet.converge(&[&a, &b], ALL);
    for device in [&a, &b] {
        device.sql(
            "insert into items values ('i', 'same', 1), ('null', null, null); \
             update items set body = 'same' where id = 'u'; delete from items where id = 'd'",
        );
    }
    a.json(&["now", "--push"]);
    let stamps = "select id, tidewater_change, tidewater_xid from items order by id";
    let before = fleet.server(stamps);
    b.json(&["now", "--push"]);
    assert_eq!(
        fleet.server(stamps),
        before,
        "the version that was there stays"
    );
    fleet.converge(&[&a, &b], ALL);
    // And so an edit of either side is one of a row that both have seen.
    b.sql("update items set n = 5 where id = 'i'");
    fleet.converge(&[&a, &b], ALL);
    a.sql("update items set n = 6 where id = 'i'");
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(fleet.conflicts(), 0);
    assert_eq!(b.rows(ALL)[0], ["i", "same", "6"]);
}

#[test]
fn a_table_may_have_a_policy_of_its_own() {
    let fleet = Fleet::configured(
        "create table items (id text primary key, body text, n integer);
         create table notes (id text primary key, body text);",
        "[conflict]\npolicy = \"local_wins\"\n[tables.notes]\npolicy = \"remote_wins\"\n",
    );
    let a = fleet.device("a");
    a.json(&["now"]);
    a.sql("insert into items values ('r', 'mine', 0); insert into notes values ('r', 'mine')");
    fleet.schema.exec(
        "insert into items values ('r', 'theirs', 0); insert into notes values ('r', 'theirs')",
    );
    fleet.converge(&[&a], "select body from notes");
    assert_eq!(fleet.schema.one("select body from items"), "mine");
    assert_eq!(fleet.schema.one("select body from notes"), "theirs");
    let mut policies: Vec<_> = conflicts(&a)
        .iter()
        .map(|c| {
            (
                c["table"].to_string(),
                c["policy"].to_string(),
                c["winner"].to_string(),
            )
        })
        .collect();
    policies.sort();
    let row =
        |t: &str, p: &str, w: &str| (format!("\"{t}\""), format!("\"{p}\""), format!("\"{w}\""));
    let expected = [
        row("items", "local_wins", "local"),
        row("notes", "remote_wins", "remote"),
    ];
    assert_eq!(policies, expected);
}

/// Noon on the first of January 2100, ms.
const FUTURE: i64 = 4_102_488_000_000;

#[test]
fn a_clock_in_the_future_wins_against_the_past_only() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into items values ('r', 'first', 0)");
    fleet.converge(&[&a, &b], ALL);
    a.sql("update items set body = 'from the future' where id = 'r'");
    a.sql(&format!("update tidewater_log set at = {FUTURE}"));
    a.json(&["now", "--push"]);
    // The stored time is the server's at the push; the identity is the device's.
    let times = "select left(tidewater_change, 10) <= tidewater_time10(clock_timestamp()), \
                 right(tidewater_change, 16) from items";
    let sent =
        a.rows("select substr(change_key, 11) from tidewater_outbox order by id desc limit 1");
    assert_eq!(fleet.server(times), [["t", sent[0][0].as_str()]]);
    // An edit that was made later wins, though the other claims to be of the year 2100.
    b.sql("update items set body = 'later' where id = 'r'");
    b.json(&["now"]);
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(fleet.schema.one("select body from items"), "later");
    let c = &conflicts(&a)[0];
    assert_eq!(
        (&c["winner"], &c["local"]["body"]),
        (&"remote".into(), &"from the future".into())
    );
}

#[test]
fn a_delete_in_the_future_does_not_hold_a_key_for_ever() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into items values ('r', 'first', 0)");
    fleet.converge(&[&a, &b], ALL);
    a.sql("delete from items where id = 'r'");
    a.sql(&format!("update tidewater_log set at = {FUTURE}"));
    a.json(&["now", "--push"]);
    b.sql("update items set body = 'later' where id = 'r'");
    b.json(&["now"]);
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(fleet.schema.one("select body from items"), "later");
    assert_eq!(conflicts(&b)[0]["kind"], "update_delete");
}

/// A row's third writer, who has seen the second, is later than whoever has not: the order in which
/// pushes arrive does not decide.
#[test]
fn who_edited_what_he_saw_is_later_than_what_he_saw() {
    for first in ["b", "c"] {
        let fleet = Fleet::new(ITEMS);
        let (a, b, c) = (fleet.device("a"), fleet.device("b"), fleet.device("c"));
        a.sql("insert into items values ('r', 'A', 0)");
        fleet.converge(&[&a, &b, &c], ALL);
        a.sql("update items set body = 'A again' where id = 'r'");
        a.json(&["now"]);
        // B has seen it and edits with a clock that is behind; C has not seen it.
        b.json(&["now"]);
        b.sql("update items set body = 'B' where id = 'r'");
        shift(&b, -60_000);
        c.sql("update items set body = 'C' where id = 'r'");
        shift(&c, -30_000);
        let order = if first == "b" { [&b, &c] } else { [&c, &b] };
        for device in order {
            device.json(&["now", "--push"]);
        }
        fleet.converge(&[&a, &b, &c], ALL);
        assert_eq!(
            fleet.schema.one("select body from items"),
            "B",
            "{first} first"
        );
        assert_eq!(fleet.conflicts(), 1, "{first} first");
    }
}
