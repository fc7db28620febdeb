//! `detach`: everything of tidewater's leaves the file, nothing of the app's does, and what only this
//! file knew is kept first.

use crate::support::cli::Device;
use crate::support::fleet::{ALL, Fleet, ITEMS, conflicts, crash, state};
use crate::support::wait::{PATIENCE, eventually};
use serde_json::Value as Json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const UNREACHABLE: &str = "postgres://nobody@127.0.0.1:1/nowhere?sslmode=disable";

/// What the app's schema is, and the pages-independent content of its tables.
fn of_the_app(device: &Device) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    (
        device.rows("select type, name, tbl_name, sql from sqlite_schema where name not like 'tidewater%' and tbl_name not like 'tidewater%' order by name"),
        device.rows("select rowid, id, quote(body), typeof(body), n from items order by rowid"),
    )
}

fn ours(device: &Device) -> Vec<Vec<String>> {
    device.rows("select type, name from sqlite_schema where name like 'tidewater%' or tbl_name like 'tidewater%' or sql like '%tidewater_%'")
}

/// The one file that a detach left.
fn written(report: &Json) -> Json {
    let path = report["written"].as_str().expect("a file");
    assert!(Path::new(path).is_absolute(), "{path}");
    let mode = fs::metadata(path).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{path}");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).expect("JSON")
}

#[test]
fn everything_of_tidewaters_goes_and_nothing_of_the_apps() {
    let fleet = Fleet::new(&format!(
        "{ITEMS} create index by_n on items (n); create view odd as select * from items where n % 2; \
         create trigger own after delete on items begin select 1; end;"
    ));
    let a = fleet.device("a");
    a.sql("insert into items values ('i1', 'one', 1), ('i2', x'00ff', 2), ('i3', null, 3)");
    a.sql("delete from items where id = 'i2'; insert into items values ('i4', 'four', 4)");
    a.tw(&["now"]).ok();
    let before = of_the_app(&a);
    let server = fleet.server(ALL);
    let report = a.json(&["detach"]);
    assert_eq!(of_the_app(&a), before);
    assert_eq!(ours(&a), Vec::<Vec<String>>::new());
    assert_eq!(a.rows("pragma integrity_check"), [["ok"]]);
    assert!(report["triggers"].as_u64() >= Some(3), "{report}");
    assert_eq!(
        (&report["written"], &report["unsent"]),
        (&Json::Null, &0.into())
    );
    assert!(!a.folder().join(".tidewater").exists());
    // The workspace is not touched, and the file is no device any more.
    assert_eq!(fleet.server(ALL), server);
    a.tw(&["status"]).expect_code(4);
    a.tw(&["detach"]).expect_code(4);
    // `init` starts anew, as another device.
    a.sql("insert into items values ('i5', 'after', 5)");
    a.tw(&["init"]).ok();
    assert_ne!(
        state(&a, "device_id"),
        report["device"]["id"].as_str().unwrap()
    );
    fleet.converge(&[&a], ALL);
    assert_eq!(fleet.server("select count(*) from items"), [["4"]]);
    assert_eq!(a.json(&["verify"])["identical"], true);
}

#[test]
fn what_is_unsent_is_kept_before_it_goes() {
    let fleet = Fleet::new(ITEMS);
    let (mut a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into items values ('i1', 'one', 1)");
    fleet.converge(&[&a, &b], ALL);
    // A conflict that nobody acknowledged, a change that was refused, one claimed and unsent, two only
    // captured.
    b.sql("update items set body = 'by b' where id = 'i1'");
    a.sql("update items set body = 'by a' where id = 'i1'");
    fleet.converge(&[&b, &a], ALL);
    assert_eq!(conflicts(&a).len(), 1);
    fleet
        .schema
        .exec("alter table items add constraint sane check (n >= 0)");
    a.sql("insert into items values ('bad', 'refused', -1)");
    a.tw(&["now"]).expect_code(1);
    a.set_env("TIDEWATER_REMOTE__URL", UNREACHABLE);
    a.sql("insert into items values ('i2', 'claimed', 2)");
    a.tw(&["now"]).expect_code(3);
    a.sql("insert into items values ('i3', x'beef', 3); delete from items where id = 'i1'");

    let refused = a.tw(&["detach", "--json"]).expect_code(2).json();
    let said = refused["error"]["message"].as_str().unwrap();
    for part in [
        "3 changes are not sent",
        "1 change failed",
        "1 conflict is not",
    ] {
        assert!(said.contains(part), "{refused}");
    }
    assert!(
        refused["error"]["remedy"]
            .as_str()
            .unwrap()
            .contains("--yes")
    );
    assert!(!ours(&a).is_empty());

    let report = a.json(&["detach", "--yes"]);
    assert_eq!(
        (&report["unsent"], &report["failed"], &report["conflicts"]),
        (&3.into(), &1.into(), &1.into())
    );
    assert_eq!(ours(&a), Vec::<Vec<String>>::new());
    let kept = written(&report);
    assert_eq!(kept["device"]["name"], "a");
    let of = |list: &str, field: &str| -> Vec<Json> {
        kept[list]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i[field].clone())
            .collect()
    };
    assert_eq!(of("outbox", "status"), ["failed", "pending"]);
    assert_eq!(
        kept["outbox"][0]["row"],
        serde_json::json!({"id": "bad", "body": "refused", "n": -1})
    );
    assert_eq!(kept["outbox"][1]["row"]["body"], "claimed");
    assert_eq!(kept["captured"].as_array().unwrap().len(), 2);
    assert!(
        of("captured", "row")
            .contains(&serde_json::json!({"id": "i3", "body": {"hex": "beef"}, "n": 3}))
    );
    assert!(of("captured", "op").contains(&"delete".into()));
    assert_eq!(kept["conflicts"][0]["pk"], serde_json::json!(["i1"]));
    // The rows themselves stay in the app's table.
    assert_eq!(
        a.rows("select count(*) from items where id in ('bad', 'i2', 'i3')"),
        [["3"]]
    );
}

#[test]
fn a_service_that_runs_is_not_pulled_from_under() {
    let fleet = Fleet::new(ITEMS);
    let a = fleet.device("a");
    let service = a.spawn(&["run"]);
    eventually(PATIENCE, "the service", || {
        a.json(&["status"])["service"]["running"] == true
    });
    let refused = a.tw(&["detach", "--yes", "--json"]).expect_code(5).json();
    assert_eq!(refused["error"]["code"], "SYNC-010");
    assert!(!ours(&a).is_empty());
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();
    a.tw(&["detach"]).ok();
}

#[test]
fn a_crash_leaves_all_of_it_or_nothing() {
    let fleet = Fleet::new(ITEMS);
    for (point, gone) in [
        ("detach_written", false),
        ("detach_before_commit", false),
        ("detach_after_commit", true),
    ] {
        let a = fleet.device("a");
        a.sql("insert into items values ('only here', 'precious', 1)");
        crash(&a, point, &["detach", "--yes"]);
        // Whatever happened to the file, what it held is on disk.
        let kept: Vec<_> = fs::read_dir(a.folder().join(".tidewater/conflicts"))
            .unwrap()
            .map(|e| fs::read_to_string(e.unwrap().path()).unwrap())
            .collect();
        assert!(kept.len() == 1 && kept[0].contains("precious"), "{kept:?}");
        assert_eq!(ours(&a).is_empty(), gone, "{point}");
        if !gone {
            assert_eq!(a.json(&["status"])["upload"]["pending"], 1, "{point}");
            a.tw(&["detach", "--yes"]).ok();
        }
        assert_eq!(a.rows("select body from items"), [["precious"]]);
        a.tw(&["init"]).ok();
    }
}

#[test]
fn a_table_that_was_rebuilt_and_not_compared_counts_as_unsent() {
    let fleet = Fleet::new(ITEMS);
    let mut a = fleet.device("a");
    a.sql("insert into items values ('i1', 'one', 1)");
    a.tw(&["now"]).ok();
    a.sql(
        "create table fresh (id text primary key, body text, n integer); \
         insert into fresh select * from items; drop table items; alter table fresh rename to items; \
         insert into items values ('i2', 'unseen', 2)",
    );
    a.set_env("TIDEWATER_REMOTE__URL", UNREACHABLE);
    let refused = a.tw(&["detach", "--json"]).expect_code(2).json();
    assert!(
        refused["error"]["message"]
            .as_str()
            .unwrap()
            .contains("items must be compared"),
        "{refused}"
    );
    a.unset_env("TIDEWATER_REMOTE__URL");
    a.tw(&["now"]).ok();
    a.tw(&["detach"]).ok();
    assert_eq!(
        fleet.server("select body from items order by id"),
        [["one"], ["unseen"]]
    );
}

#[test]
fn a_table_of_the_apps_that_only_sounds_like_ours_stays() {
    let fleet = Fleet::new(&format!(
        "{ITEMS} create table tidewater_levels (id integer primary key, m real); \
         insert into tidewater_levels values (1, 2.5)"
    ));
    let a = fleet.device("a");
    a.tw(&["now"]).ok();
    a.tw(&["detach"]).ok();
    assert_eq!(a.rows("select m from tidewater_levels"), [["2.5"]]);
}
