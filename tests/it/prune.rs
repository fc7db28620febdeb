//! `prune`: what is older than the retention goes, and nothing else; failed items only by name.

use crate::support::cli::Device;
use crate::support::fleet::{Fleet, ITEMS, conflicts};
use serde_json::Value as Json;

/// Lets everything that a device remembers have happened so many days ago.
fn age(device: &Device, days: u32) {
    let ms = i64::from(days) * 86_400_000;
    device.sql(&format!(
        "update tidewater_outbox set synced_at = synced_at - {ms}, created_at = created_at - {ms}, \
         edited_at = edited_at - {ms}; \
         update tidewater_inbox set at = at - {ms}; \
         update tidewater_conflict set detected_at = detected_at - {ms};"
    ));
}

fn removed(report: &Json) -> (u64, u64, u64) {
    let n = |name: &str| report["removed"][name].as_u64().unwrap();
    (n("synced"), n("applied"), n("conflicts"))
}

#[test]
fn history_goes_by_age_and_conflicts_only_when_they_were_seen() {
    let fleet = Fleet::configured(ITEMS, "[retention]\nsynced_days = 7\nconflict_days = 30\n");
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into items values ('i1', 'one', 1), ('i2', 'two', 2)");
    b.sql("insert into items values ('i1', 'eins', 1), ('i3', 'drei', 3)");
    fleet.converge(&[&a, &b], "select id from items order by id");
    assert_eq!(conflicts(&a).len(), 1);
    assert_eq!(removed(&a.json(&["prune"])), (0, 0, 0));
    age(&a, 6);
    assert_eq!(removed(&a.json(&["prune"])), (0, 0, 0));
    age(&a, 2);
    // The hourly turn of the retention must not get there first.
    let done = removed(&a.json(&["prune"]));
    assert!(done.0 == 2 && done.1 >= 1 && done.2 == 0, "{done:?}");
    assert_eq!(a.rows("select count(*) from tidewater_outbox"), [["0"]]);
    // Nobody has looked at the conflict: it stays, however old.
    age(&a, 400);
    assert_eq!(removed(&a.json(&["prune"])).2, 0);
    a.tw(&["conflicts", "ack", "--all"]).ok();
    assert_eq!(removed(&a.json(&["prune"])).2, 1);
    assert!(conflicts(&a).is_empty());
    let said = a.tw(&["prune"]).ok().stdout;
    assert!(said.contains("nothing is older"), "{said}");
    // Nothing that matters for the exchange went.
    a.sql("update items set body = 'later' where id = 'i3'");
    fleet.converge(&[&a, &b], "select id, body from items order by id");
}

#[test]
fn what_waits_or_failed_never_goes_unasked() {
    let fleet = Fleet::new(ITEMS);
    let a = fleet.device("a");
    a.tw(&["now"]).ok();
    fleet
        .schema
        .exec("alter table items add constraint sane check (n >= 0)");
    a.sql("insert into items values ('old', 'x', -1)");
    a.tw(&["now"]).expect_code(1);
    age(&a, 5_000);
    a.sql("insert into items values ('new', 'x', -1)");
    a.tw(&["now"]).expect_code(1);
    a.json(&["prune"]);
    assert_eq!(a.json(&["queue", "--errors"])["total"], 2);
    a.tw(&["prune", "--failed"]).expect_code(2);

    // Asked for by name: listed without --yes, and nothing is touched.
    let words = ["prune", "--failed", "--older-than", "30"];
    let listed = a.json(&words);
    assert_eq!(listed["dry_run"], true);
    assert_eq!(listed["failed"].as_array().unwrap().len(), 1);
    assert_eq!(listed["failed"][0]["pk"], serde_json::json!(["old"]));
    let human = a.tw(&words).ok().stdout;
    assert!(human.contains("--yes") && human.contains("old"), "{human}");
    assert_eq!(a.json(&["queue", "--errors"])["total"], 2);

    // With it, exactly as `discard`: kept under the conflicts, and the row returns to the remote's state.
    let done = a.json(&[&words[..], &["--yes"]].concat());
    assert_eq!(
        (&done["dry_run"], &done["failed"][0]["outcome"]),
        (&false.into(), &"discarded".into())
    );
    let list = conflicts(&a);
    assert_eq!(list.len(), 1);
    assert_eq!(
        (&list[0]["kind"], &list[0]["local"]["id"]),
        (&"discarded".into(), &"old".into())
    );
    assert_eq!(a.rows("select id from items"), [["new"]]);
    assert_eq!(a.json(&["queue", "--errors"])["total"], 1);
}

#[test]
fn it_works_without_the_remote() {
    let fleet = Fleet::new(ITEMS);
    let mut a = fleet.device("a");
    a.sql("insert into items values ('i1', 'one', 1)");
    a.tw(&["now"]).ok();
    age(&a, 30);
    a.set_env(
        "TIDEWATER_REMOTE__URL",
        "postgres://nobody@127.0.0.1:1/nowhere?sslmode=disable",
    );
    assert_eq!(removed(&a.json(&["prune"])).0, 1);
}
