//! The flaws of the protocol that notes, discards and re-identification cure (PROTOCOL section 1: F1,
//! F2, F3, F6a, F8, F9).
//!
//! Where a cure is a row in the device's own file, the same schedule is run without that row too: the
//! loss must then show, or the schedule would prove nothing.

use crate::support::cli::Device;
use crate::support::fleet::{ALL, Fleet, ITEMS, conflicts, crash, id};
use crate::support::proxy::{Mode, Proxy};

/// Two devices that both hold row `r`.
fn pair(fleet: &Fleet) -> (Device, Device) {
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into items values ('r', 'first', 0)");
    fleet.converge(&[&a, &b], ALL);
    (a, b)
}

/// A's push commits and A dies before it hears of it; B sees the row and edits it; A pulls.
fn lost_answer_then_pull(fleet: &Fleet) -> (Device, Device) {
    let (a, b) = pair(fleet);
    a.sql("update items set body = 'from A' where id = 'r'");
    crash(&a, "push_after_commit", &["now", "--push"]);
    b.json(&["now", "--pull"]);
    assert_eq!(b.rows(ALL), [["r", "from A", "0"]]);
    b.sql("update items set body = 'from B' where id = 'r'");
    b.json(&["now", "--push"]);
    let pulled = a.json(&["now", "--pull"]);
    assert_eq!(pulled["downloaded"], 0, "the row is dirty here");
    assert_eq!(
        a.rows("select tbl, pk from tidewater_note"),
        [["items", "[\"r\"]"]]
    );
    (a, b)
}

#[test]
fn f1_a_row_that_passed_while_an_answer_was_lost_arrives_all_the_same() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = lost_answer_then_pull(&fleet);
    let pushed = a.json(&["now", "--push"]);
    assert_eq!(
        (&pushed["uploaded"], &pushed["conflicts"]),
        (&1.into(), &0.into())
    );
    a.json(&["now", "--pull"]);
    assert_eq!(a.rows(ALL), [["r", "from B", "0"]]);
    assert!(a.rows("select 1 from tidewater_note").is_empty());
    // Who has seen a row and edits it wins, and nobody loses.
    a.sql("update items set n = 1 where id = 'r'");
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(b.rows(ALL), [["r", "from B", "1"]]);
    assert_eq!(fleet.conflicts(), 0);
}

#[test]
fn f1_an_edit_on_top_of_the_unseen_row_is_a_conflict_and_loses_nothing() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = lost_answer_then_pull(&fleet);
    a.sql("update items set n = 7 where id = 'r'");
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(a.rows(ALL), [["r", "from A", "7"]]);
    let lost = conflicts(&b);
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0]["local"]["body"], "from B");
    assert_eq!(lost[0]["winner"], "remote");
}

#[test]
fn f1_without_the_note_the_row_would_never_arrive_and_be_overwritten() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = lost_answer_then_pull(&fleet);
    a.sql("delete from tidewater_note");
    a.json(&["now"]);
    assert_eq!(a.rows(ALL), [["r", "from A", "0"]], "stale for ever");
    a.sql("update items set n = 7 where id = 'r'");
    a.json(&["now"]);
    b.json(&["now"]);
    assert_eq!(b.rows(ALL), [["r", "from A", "7"]], "B's edit is gone");
    assert_eq!(fleet.conflicts(), 0, "without a trace");
}

/// A's first edit is under way when somebody else's is pulled and skipped; then A edits again.
fn edit_after_a_skipped_row(fleet: &Fleet) -> (Device, Device) {
    let (a, b) = pair(fleet);
    a.sql("update items set body = 'A1' where id = 'r'");
    crash(&a, "batch_formed", &["now", "--push"]);
    fleet
        .schema
        .exec("update items set body = 'W' where id = 'r'");
    a.json(&["now", "--pull"]);
    assert_eq!(
        a.rows(ALL),
        [["r", "A1", "0"]],
        "an unsent row is never overwritten"
    );
    a.sql("update items set body = 'A2' where id = 'r'");
    (a, b)
}

#[test]
fn f2_a_later_edit_of_a_skipped_row_is_concurrent_with_it() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = edit_after_a_skipped_row(&fleet);
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(b.rows(ALL), [["r", "A2", "0"]]);
    let seen = conflicts(&a);
    let sides: Vec<_> = seen
        .iter()
        .map(|c| {
            (
                c["winner"].as_str(),
                c["local"]["body"].as_str(),
                c["remote"]["body"].as_str(),
            )
        })
        .collect();
    let expected = [
        (Some("remote"), Some("A1"), Some("W")),
        (Some("local"), Some("A2"), Some("W")),
    ];
    assert_eq!(sides, expected, "A1 lost to W, and W to A2: both are kept");
}

#[test]
fn f2_without_the_notes_base_the_later_edit_would_overwrite_silently() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = edit_after_a_skipped_row(&fleet);
    a.sql("delete from tidewater_note");
    fleet.converge(&[&a, &b], ALL);
    let kept: Vec<_> = conflicts(&a).iter().map(|c| c["winner"].clone()).collect();
    assert_eq!(
        kept,
        ["remote"],
        "that W was overwritten is nowhere recorded"
    );
}

const REFUSING: &str = "create table setting (closed integer);
     insert into setting values (1);
     create table items (id text primary key, body text, n integer);
     create trigger closed before update on items when new.body = 'odd' and (select closed from setting) = 1
     begin select raise(abort, 'closed'); end;";

/// The feed brings a row that A's file refuses.
fn row_that_cannot_be_applied(fleet: &Fleet) -> (Device, Device) {
    let (a, b) = pair(fleet);
    b.sql("update setting set closed = 0");
    b.sql("update items set body = 'odd' where id = 'r'");
    b.json(&["now"]);
    a.tw(&["now"]).expect_code(1);
    assert_eq!(a.rows(ALL), [["r", "first", "0"]]);
    assert_eq!(a.json(&["status"])["download"]["failed"], 1);
    (a, b)
}

#[test]
fn f3_a_row_that_could_not_be_applied_comes_when_nothing_is_in_its_way() {
    let fleet = Fleet::new(REFUSING);
    let (a, b) = row_that_cannot_be_applied(&fleet);
    a.sql("update setting set closed = 0");
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(a.rows(ALL), [["r", "odd", "0"]]);
    assert_eq!(a.json(&["status"])["download"]["failed"], 0);
    assert_eq!(fleet.conflicts(), 0);
}

#[test]
fn f3_an_edit_of_a_row_that_waits_in_the_inbox_is_a_conflict() {
    let fleet = Fleet::new(REFUSING);
    let (a, b) = row_that_cannot_be_applied(&fleet);
    a.sql("update items set n = 5 where id = 'r'");
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(b.rows(ALL), [["r", "first", "5"]]);
    let lost = conflicts(&b);
    assert_eq!(lost.len(), 1);
    assert_eq!(
        lost[0]["local"],
        serde_json::json!({"id": "r", "body": "odd", "n": 0})
    );
}

#[test]
fn f3_without_the_note_the_edit_would_overwrite_the_row_that_waits() {
    let fleet = Fleet::new(REFUSING);
    let (a, b) = row_that_cannot_be_applied(&fleet);
    a.sql("delete from tidewater_note; update items set n = 5 where id = 'r'");
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(b.rows(ALL), [["r", "first", "5"]]);
    assert_eq!(fleet.conflicts(), 0, "without a trace");
}

/// The same file under another path, as a copied folder or a restored backup has it.
fn copy(from: &Device, to: &Device) {
    let at_rest = from.rows("pragma wal_checkpoint(truncate)");
    assert_eq!(at_rest[0][0], "0", "nobody else holds the file");
    std::fs::copy(from.db(), to.db()).expect("a copy of the file");
}

#[test]
fn f6a_a_copied_file_that_only_pulls_notices_its_twin_and_gets_its_rows() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = pair(&fleet);
    let twin = Device::new(&fleet.schema, "twin");
    copy(&a, &twin);
    let former = id(&a);
    twin.sql(
        "update items set body = 'twin' where id = 'r'; insert into items values ('t', 'twin', 1)",
    );
    twin.json(&["now", "--push"]);
    // They carry the id of the other copy, whose feed leaves its own rows out.
    let by_former = format!("select count(*) from items where tidewater_device = '{former}'");
    assert_eq!(fleet.schema.one(&by_former), "2");
    a.sql("insert into items values ('u', 'unsent', 2)");
    a.json(&["now", "--pull"]);
    assert_ne!(id(&a), former, "one of the two must go on under another id");
    assert_eq!(id(&twin), former);
    assert_eq!(
        a.rows(ALL),
        [["r", "twin", "0"], ["t", "twin", "1"], ["u", "unsent", "2"]]
    );
    let problems = a.json(&["status"])["problems"].to_string();
    assert!(problems.contains("SYNC-008"), "{problems}");
    fleet.converge(&[&a, &b, &twin], ALL);
    assert_eq!(fleet.conflicts(), 0);
    // Both copies are whole devices from now on.
    a.sql("update items set n = 10 where id = 'r'");
    fleet.converge(&[&a, &b, &twin], ALL);
    twin.sql("update items set n = 11 where id = 'r'");
    fleet.converge(&[&a, &b, &twin], ALL);
    assert_eq!((fleet.conflicts(), b.rows(ALL)[0][2].as_str()), (0, "11"));
}

#[test]
fn f6a_a_file_restored_from_a_backup_gets_back_what_it_had_sent_and_keeps_what_it_had_not() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = pair(&fleet);
    a.sql("insert into items values ('u', 'unsent in the backup', 2)");
    let backup = Device::new(&fleet.schema, "backup");
    copy(&a, &backup);
    a.sql("update items set body = 'later' where id = 'r'; delete from items where id = 'u'");
    a.sql("insert into items values ('s', 'later', 3)");
    a.json(&["now"]);
    let former = id(&a);
    copy(&backup, &a);
    a.json(&["now", "--pull"]);
    assert_ne!(id(&a), former);
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(
        a.rows(ALL),
        [
            ["r", "later", "0"],
            ["s", "later", "3"],
            ["u", "unsent in the backup", "2"]
        ]
    );
}

const CHECKED: &str = "alter table items add constraint no_bad check (body <> 'bad')";

#[test]
fn f8_a_discarded_edit_gives_the_row_back_to_the_remote() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = pair(&fleet);
    fleet.schema.exec(CHECKED);
    a.sql(
        "update items set body = 'bad' where id = 'r'; insert into items values ('new', 'bad', 9)",
    );
    a.tw(&["now"]).expect_code(1);
    // Somebody else edits meanwhile: that is what the row returns to.
    b.sql("update items set body = 'from B' where id = 'r'");
    b.json(&["now"]);
    a.json(&["now"]);
    let failed = a.json(&["queue", "--errors"]);
    let keys: Vec<&str> = failed["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|i| {
            assert_eq!(i["error"]["sqlstate"], "23514", "{i}");
            i["key"].as_str().expect("a change key")
        })
        .collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(a.rows(ALL), [["new", "bad", "9"], ["r", "bad", "0"]]);
    a.json(&["discard", keys[0], keys[1], "--yes"]);
    assert_eq!(
        a.rows(ALL),
        [["r", "from B", "0"]],
        "back to the remote's state"
    );
    fleet.converge(&[&a, &b], ALL);
    let mut kept: Vec<_> = conflicts(&a)
        .iter()
        .map(|c| (c["kind"].clone(), c["local"].to_string()))
        .collect();
    kept.sort_by_key(|k| k.1.clone());
    assert_eq!(kept.len(), 2, "what was given up is kept");
    assert!(kept.iter().all(|k| k.0 == "discarded"), "{kept:?}");
    assert!(
        kept[0].1.contains("\"new\"") && kept[1].1.contains("\"r\""),
        "{kept:?}"
    );
}

#[test]
fn f9_who_has_seen_the_winner_and_edits_it_is_in_no_conflict() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = pair(&fleet);
    a.sql("update items set body = 'A' where id = 'r'");
    fleet
        .schema
        .exec("update items set body = 'W' where id = 'r'");
    let pushed = a.json(&["now", "--push"]);
    assert_eq!(pushed["conflicts"], 1);
    assert_eq!(
        a.rows(ALL),
        [["r", "W", "0"]],
        "who lost sees the winner at once"
    );
    a.sql("update items set n = 1 where id = 'r'");
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(fleet.conflicts(), 1);
    assert_eq!(b.rows(ALL), [["r", "W", "1"]]);
    // The winner came once, through the feed.
    let arrivals = "select count(*) from tidewater_inbox where status = 'applied' and device = '0'";
    assert_eq!(a.rows(arrivals), [["1"]]);
}

#[test]
fn f9_until_the_winner_has_come_an_edit_of_the_loser_is_concurrent() {
    let proxy = Proxy::shared_server();
    let fleet = Fleet::new(ITEMS);
    let a = fleet.device_through(&proxy, "a", "");
    a.sql("insert into items values ('r', 'first', 0)");
    a.json(&["now"]);
    a.sql("update items set body = 'A' where id = 'r'");
    fleet
        .schema
        .exec("update items set body = 'W' where id = 'r'");
    // The push goes through; the pull behind it does not.
    proxy.set(Mode::CutBefore("pg_snapshot_xmin".into()));
    a.tw(&["now", "--push"]).expect_code(3);
    assert_eq!((fleet.conflicts(), a.rows(ALL)[0][1].as_str()), (1, "A"));
    proxy.set(Mode::Pass);
    a.sql("update items set n = 1 where id = 'r'");
    fleet.converge(&[&a], ALL);
    assert_eq!(a.rows(ALL), [["r", "A", "1"]]);
    let last = conflicts(&a).pop().expect("a conflict");
    assert_eq!(
        (&last["winner"], &last["remote"]["body"]),
        (&"local".into(), &"W".into())
    );
    assert_eq!(fleet.conflicts(), 2);
}

#[test]
fn f9_who_sent_what_was_there_already_and_edits_it_is_in_no_conflict() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    fleet.converge(&[&a, &b], ALL);
    for device in [&a, &b] {
        device.sql("insert into items values ('i', 'same', 1)");
        device.json(&["now", "--push"]);
    }
    b.sql("update items set n = 2 where id = 'i'");
    b.json(&["now", "--push"]);
    fleet.converge(&[&a, &b], ALL);
    assert_eq!((fleet.conflicts(), a.rows(ALL)[0][2].as_str()), (0, "2"));
}
