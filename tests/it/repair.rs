//! `verify --repair`: damage that no trigger saw, made by hand, heals through the normal rules; both sides
//! are the same afterwards, and what lost is kept.

use crate::support::cli::Device;
use crate::support::fleet::{ALL, Fleet, ITEMS, conflicts};
use crate::support::wait::{PATIENCE, eventually};
use serde_json::{Value as Json, json};

/// Two devices; `a` wrote i1 to i3, `b` wrote j1 to j3, and both have all of them.
fn pair(more: &str) -> (Fleet, Device, Device) {
    let fleet = Fleet::configured(ITEMS, more);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into items values ('i1', 'a', 1), ('i2', 'a', 2), ('i3', 'a', 3)");
    b.sql("insert into items values ('j1', 'b', 1), ('j2', 'b', 2), ('j3', 'b', 3)");
    fleet.converge(&[&a, &b], ALL);
    (fleet, a, b)
}

/// Writes that capture does not see.
fn unseen(device: &Device, sql: &str) {
    device.sql(&format!(
        "begin; update tidewater_guard set v = 1; {sql}; update tidewater_guard set v = 0; commit"
    ));
}

/// Writes on the server that no trigger sees.
fn behind(fleet: &Fleet, sql: &str) {
    fleet.schema.exec(&format!(
        "alter table items disable trigger user; {sql}; alter table items enable trigger user"
    ));
}

#[track_caller]
fn differs(device: &Device) -> Json {
    let found = device.tw(&["verify", "--json"]).expect_code(1).json();
    assert_eq!(found["identical"], false);
    found["tables"][0].clone()
}

#[track_caller]
fn repair(device: &Device) -> Json {
    let done = device.json(&["verify", "--repair"]);
    assert_eq!(done["identical"], true, "{done}");
    let again = device.json(&["verify"]);
    assert_eq!(again["identical"], true, "{again}");
    assert_eq!(again.get("repaired"), None);
    done["repaired"].clone()
}

#[test]
fn a_row_that_the_mirror_lost_is_sent_again() {
    let (fleet, a, b) = pair("");
    behind(&fleet, "delete from items where id in ('i1', 'j1')");
    let found = differs(&a);
    assert_eq!(
        (&found["missing_remote"], &found["missing_local"]),
        (&2.into(), &0.into())
    );
    assert_eq!(
        repair(&a),
        json!({"queued": 2, "fetched": 0, "conflicts": 0})
    );
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(fleet.server("select count(*) from items"), [["6"]]);
    assert_eq!(fleet.conflicts(), 0);
    assert_eq!(
        repair(&b),
        json!({"queued": 0, "fetched": 0, "conflicts": 0})
    );
}

#[test]
fn a_row_that_is_missing_here_is_fetched() {
    let (fleet, a, b) = pair("");
    unseen(&a, "delete from items where id in ('i2', 'j2')");
    assert_eq!(differs(&a)["missing_local"], 2);
    assert_eq!(
        repair(&a),
        json!({"queued": 0, "fetched": 2, "conflicts": 0})
    );
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(fleet.server("select count(*) from items"), [["6"]]);
}

#[test]
fn a_row_that_changed_here_unseen_meets_the_servers_as_a_conflict() {
    let (fleet, a, b) = pair("");
    unseen(
        &a,
        "update items set body = 'unseen' where id in ('i3', 'j3')",
    );
    assert_eq!(differs(&a)["different"], 2);
    let done = repair(&a);
    assert_eq!(
        (&done["queued"], &done["conflicts"]),
        (&2.into(), &2.into())
    );
    fleet.converge(&[&a, &b], ALL);
    // Its own row goes up; what another device wrote wins over a change of which nobody knows the time.
    assert_eq!(
        fleet.server("select id, body from items where id in ('i3', 'j3') order by id"),
        [["i3", "unseen"], ["j3", "b"]]
    );
    // Either way the loser is kept whole.
    let list = conflicts(&a);
    let of = |id: &str| {
        list.iter()
            .find(|c| c["pk"] == json!([id]))
            .expect("a conflict")
    };
    assert_eq!(
        (&of("i3")["winner"], &of("i3")["remote"]["body"]),
        (&"local".into(), &"a".into())
    );
    assert_eq!(
        (&of("j3")["winner"], &of("j3")["local"]["body"]),
        (&"remote".into(), &"unseen".into())
    );
    let restored = of("j3")["id"].as_str().unwrap();
    a.tw(&["conflicts", "restore", restored]).ok();
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(
        fleet.server("select body from items where id = 'j3'"),
        [["unseen"]]
    );
}

#[test]
fn a_row_that_changed_on_the_server_unseen_is_kept_whoever_wins() {
    let (fleet, a, b) = pair("");
    behind(
        &fleet,
        "update items set body = 'by hand' where id in ('i1', 'j1')",
    );
    assert_eq!(differs(&a)["different"], 2);
    repair(&a);
    fleet.converge(
        &[&a, &b],
        "select id, body from items where id <> 'j1' order by id",
    );
    let kept = format!("{:?}", conflicts(&a));
    assert!(kept.contains("by hand"), "{kept}");
    assert_eq!(a.rows(ALL), fleet.server(ALL));
    repair(&b);
    fleet.converge(&[&a, &b], ALL);
}

#[test]
fn the_policy_decides_here_too() {
    let (fleet, a, b) = pair("[conflict]\npolicy = \"local_wins\"\n");
    unseen(&a, "update items set body = 'mine' where id = 'j1'");
    repair(&a);
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(
        fleet.server("select body from items where id = 'j1'"),
        [["mine"]]
    );
    assert_eq!(conflicts(&a)[0]["remote"]["body"], "b");
}

#[test]
fn what_was_deleted_elsewhere_does_not_rise_from_the_dead() {
    let (fleet, a, b) = pair("");
    b.sql("delete from items where id = 'j2'");
    fleet.converge(&[&b, &a], ALL);
    unseen(&a, "insert into items values ('j2', 'ghost', 0)");
    assert_eq!(differs(&a)["missing_remote"], 1);
    assert_eq!(
        repair(&a),
        json!({"queued": 1, "fetched": 0, "conflicts": 1})
    );
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(
        a.rows("select count(*) from items where id = 'j2'"),
        [["0"]]
    );
    assert_eq!(conflicts(&a)[0]["local"]["body"], "ghost");
    assert!(fleet.undead("items", "id").is_empty());
}

#[test]
fn collected_deletes_do_not_stop_it() {
    let (fleet, a, b) = pair("");
    fleet
        .schema
        .exec("update tidewater_workspace set gc_xid = '5'");
    unseen(&a, "update items set body = 'unseen' where id = 'j3'");
    behind(&fleet, "delete from items where id = 'i1'");
    repair(&a);
    fleet.converge(&[&a, &b], ALL);
}

#[test]
fn what_is_on_its_way_or_parked_is_left_alone() {
    let (fleet, a, _b) = pair("");
    fleet
        .schema
        .exec("alter table items add constraint sane check (n >= 0)");
    a.sql("insert into items values ('bad', 'refused', -1)");
    a.tw(&["now"]).expect_code(1);
    a.sql("insert into items values ('i9', 'waits', 9)");
    let done = a
        .tw(&["verify", "--repair", "--json"])
        .expect_code(1)
        .json();
    assert_eq!(
        done["repaired"],
        json!({"queued": 0, "fetched": 0, "conflicts": 0})
    );
    assert_eq!(done["tables"][0]["missing_remote"], 1, "{done}");
    assert_eq!(a.json(&["queue", "--errors"])["total"], 1);
    assert_eq!(
        fleet.server("select body from items where id = 'i9'"),
        [["waits"]]
    );
    // People see what to do.
    let human = a.tw(&["verify"]).expect_code(1).stdout;
    assert!(human.lines().all(|l| l.chars().count() <= 80), "{human}");
    assert!(human.contains("different: 1 of 1 table"), "{human}");
}

#[test]
fn it_works_beside_a_running_service_and_for_one_table_alone() {
    let fleet = Fleet::new(&format!("{ITEMS} create table other (id text primary key)"));
    let a = fleet.device("a");
    a.sql("insert into items values ('i1', 'a', 1); insert into other values ('o1')");
    let service = a.spawn(&["run"]);
    eventually(PATIENCE, "the rows", || {
        fleet.server("select 1 from items, other").len() == 1
    });
    behind(&fleet, "delete from items");
    fleet.schema.exec("alter table other disable trigger user; delete from other; alter table other enable trigger user");
    let done = a.json(&["verify", "--repair", "--table", "items"]);
    assert_eq!(
        (&done["identical"], &done["repaired"]["queued"]),
        (&true.into(), &1.into()),
        "{done}"
    );
    assert_eq!(done["tables"].as_array().unwrap().len(), 1);
    a.tw(&["verify"]).expect_code(1);
    a.tw(&["verify", "--repair"]).ok();
    assert_eq!(fleet.server("select id from other"), [["o1"]]);
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();
    // Without the server there is nothing to compare with.
    let mut a = a;
    a.set_env(
        "TIDEWATER_REMOTE__URL",
        "postgres://nobody@127.0.0.1:1/nowhere?sslmode=disable",
    );
    a.tw(&["verify", "--repair"]).expect_code(3);
}
