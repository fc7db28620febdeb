//! Commands and flags: what each does, also without the server, and what each refuses.

use super::{DDL, NOWHERE, synced};
use crate::support::cli::{Device, tidewater};
use crate::support::fleet::Fleet;
use crate::support::server::Schema;
use serde_json::Value as Json;
use std::path::Path;

fn names(list: &Json) -> Vec<&str> {
    let list = list.as_array().expect("a list").iter();
    list.map(|t| t["name"].as_str().expect("a name")).collect()
}

#[test]
fn init_leaves_out_what_the_contract_leaves_out_and_is_safe_to_run_again() {
    let schema = Schema::new();
    let device = Device::new(&schema, "a");
    let migrations = [
        "django_migrations",
        "alembic_version",
        "schema_migrations",
        "_prisma_migrations",
    ];
    for table in migrations {
        device.sql(&format!("create table {table} (id text primary key)"));
    }
    device.sql("create virtual table search using fts5 (body); create table keyless (v)");
    device.sql(DDL);
    device.sql("insert into messages values ('m1', 'one', 1)");
    let first = device.json(&["init"]);
    assert_eq!(names(&first["tables"]), ["messages", "pairs"]);
    assert_eq!(first["tables"][0]["rows"], 1);
    assert_eq!(first["tables"][0]["columns"], 3);
    let skipped = names(&first["skipped"]);
    for left in migrations
        .iter()
        .copied()
        .chain(["search", "search_data", "keyless"])
    {
        assert!(skipped.contains(&left), "{left}: {skipped:?}");
    }
    assert!(
        !skipped
            .iter()
            .any(|s| s.starts_with("tidewater_") || s.starts_with("sqlite_"))
    );
    let again = device.json(&["init"]);
    assert_eq!(again["device"], first["device"]);
    assert_eq!(again["tables"], first["tables"]);
    assert_eq!(device.json(&["queue"])["total"], 1, "queued once");
    // Globs that mean nothing end nothing.
    for tables in ["nosuch*", "", "[", "keyless"] {
        device.tw(&["init", "--tables", tables]).expect_code(2);
        device
            .tw(&["init", "--dry-run", "--tables", tables])
            .expect_code(2);
    }
    assert_eq!(
        names(&device.json(&["status"])["tables"]),
        ["messages", "pairs"]
    );
    assert_eq!(
        names(&device.json(&["init", "--tables", "pairs"])["tables"]),
        ["pairs"]
    );
}

/// The list of what works without the remote, and the exit code of what does not.
#[test]
fn what_works_without_the_remote() {
    let (_fleet, device) = synced();
    let offline = |words: &[&str]| device.tw(&[&NOWHERE[..], words].concat());
    offline(&["now", "--push"]).expect_code(3);
    assert_eq!(device.json(&["now", "--push"])["uploaded"], 0);
    device.sql("insert into messages values ('m2', 'two', 2)");
    for words in [
        &["init"][..],
        &["status"],
        &["status", "messages", "m2"],
        &["queue"],
        &["queue", "--inbox"],
        &["pause"],
        &["resume"],
        &["conflicts"],
        &["conflicts", "ack", "--all"],
        &["explain", "messages", "m2"],
        &["privacy"],
        &["prune"],
        &["now", "--dry-run"],
        &["init", "--dry-run"],
    ] {
        offline(words).ok();
    }
    let doctor = offline(&["--json", "doctor"]).expect_code(1).json();
    let said = doctor["checks"].as_array().expect("checks").iter();
    assert!(
        said.clone()
            .any(|c| c["name"] == "connection" && c["ok"] == false),
        "{doctor}"
    );
    assert!(
        said.clone()
            .any(|c| c["name"] == "triggers" && c["ok"] == true),
        "{doctor}"
    );
    for words in [
        &["now"][..],
        &["now", "--push"],
        &["now", "--pull"],
        &["verify"],
        &["devices"],
        &["devices", "retire", "x"],
    ] {
        let said = offline(words).expect_code(3);
        assert!(
            said.stderr.contains("SYNC-001") && said.stdout.is_empty(),
            "{said:?}"
        );
    }
    assert_eq!(device.json(&["now"])["uploaded"], 1, "nothing is lost");
    device.sql("insert into messages values ('m3', 'three', 3)");
    offline(&["detach"]).expect_code(2);
    offline(&["detach", "--yes"]).ok();
    assert!(
        device
            .rows("select name from sqlite_schema where name like 'tidewater%'")
            .is_empty()
    );
    assert_eq!(device.rows("select count(*) from messages"), [["3"]]);
    offline(&["status"]).expect_code(4);
}

#[test]
fn now_does_the_half_that_is_asked_for_also_when_paused() {
    let (fleet, device) = synced();
    device.json(&["pause"]);
    device.sql("insert into messages values ('m2', 'two', 2)");
    fleet
        .schema
        .exec("insert into messages values ('s1', 'server', 0)");
    let pulled = device.json(&["now", "--pull"]);
    assert_eq!(
        (&pulled["uploaded"], &pulled["downloaded"]),
        (&0.into(), &1.into()),
        "{pulled}"
    );
    assert_eq!(pulled["pending"], 1);
    fleet
        .schema
        .exec("insert into messages values ('s2', 'server', 0)");
    let pushed = device.json(&["now", "--push"]);
    assert_eq!(
        (&pushed["uploaded"], &pushed["downloaded"]),
        (&1.into(), &0.into()),
        "{pushed}"
    );
    device.sql("insert into messages values ('m3', 'three', 3)");
    let both = device.json(&["now", "--push", "--pull", "--timeout", "60"]);
    assert_eq!(
        (&both["uploaded"], &both["downloaded"]),
        (&1.into(), &1.into()),
        "{both}"
    );
    assert_eq!(device.json(&["status"])["mode"], "paused");
    for timeout in ["0", "-1", "soon", ""] {
        device.tw(&["now", "--timeout", timeout]).expect_code(2);
    }
}

#[test]
fn the_queue_is_fifty_items_unless_told() {
    let (_fleet, device) = synced();
    let rows: Vec<String> = (0..60).map(|i| format!("('q{i:02}', '', 0)")).collect();
    device.sql(&format!("insert into messages values {}", rows.join(", ")));
    for (words, shown) in [
        (&["queue"][..], 50),
        (&["queue", "--limit", "3"], 3),
        (&["queue", "--ready", "--limit", "60"], 60),
        (&["queue", "--limit", "1000"], 60),
    ] {
        let queue = device.json(words);
        assert_eq!(
            queue["items"].as_array().map(Vec::len),
            Some(shown),
            "{words:?}"
        );
        assert_eq!(queue["total"], 60, "{words:?}");
    }
    assert_eq!(device.json(&["queue", "--errors"])["total"], 0);
    for limit in ["0", "-1", "many"] {
        device.tw(&["queue", "--limit", limit]).expect_code(2);
    }
    let upload = &device.json(&["status"])["upload"];
    assert_eq!(
        (&upload["pending"], &upload["ready"]),
        (&60.into(), &60.into())
    );
}

/// Only what failed is given up, only with a yes, and a name that means nothing is no success.
#[test]
fn what_is_not_there_or_not_failed_is_refused() {
    let (fleet, device) = synced();
    fleet
        .schema
        .exec("alter table messages add constraint small check (n < 100)");
    device.sql("insert into messages values ('big', 'x', 500)");
    device.tw(&["now"]).expect_code(1);
    device.sql("insert into messages values ('m2', 'two', 2)");
    device.tw(&[&NOWHERE[..], &["now"]].concat()).expect_code(3);
    let queue = device.json(&["queue"]);
    let key = |status: &str| {
        let items = queue["items"].as_array().expect("a list");
        let item = items
            .iter()
            .find(|i| i["status"] == status)
            .expect("an item");
        item["key"].as_str().expect("a key").to_owned()
    };
    let (failed, waiting) = (key("failed"), key("pending"));
    device.tw(&["discard", &failed]).expect_code(2);
    let kept = device
        .tw(&["--json", "discard", &waiting, "--yes"])
        .expect_code(1)
        .json();
    assert_eq!(kept["results"][0]["outcome"], "pending");
    assert_eq!(device.json(&["queue"])["total"], 2, "nothing was given up");
    for words in [
        &["discard", "01NOSUCH", "--yes"][..],
        &["retry", "01NOSUCH"],
        &["queue", "show", "01NOSUCH"],
        &["conflicts", "show", "01NOSUCH"],
        &["conflicts", "restore", "01NOSUCH"],
        &["conflicts", "ack", "01NOSUCH"],
        &["conflicts", "ack"],
        &["conflicts", "ack", "--all", "x"],
        &["status", "nosuch", "k"],
        &["status", "messages", "nosuch"],
        &["status", "messages"],
        &["status", "pairs", "1"],
        &["explain", "nosuch", "k"],
        &["explain", "messages"],
        &["verify", "--table", "nosuch"],
        &["devices", "retire", "nosuch"],
        &["devices", "revoke", "nosuch"],
        &["prune", "--failed"],
    ] {
        device.tw(words).expect_code(2);
    }
    device.tw(&["discard", &failed, "--yes"]).ok();
    assert!(
        device
            .rows("select 1 from messages where id = 'big'")
            .is_empty(),
        "as on the server"
    );
    assert_eq!(
        device.json(&["conflicts"])["conflicts"][0]["kind"],
        "discarded"
    );
}

/// Both devices list a conflict, each from its own side; `ack` and `restore` are each device's own.
#[test]
fn conflicts_are_shown_acknowledged_and_restored() {
    let (fleet, a) = synced();
    let b = fleet.device("b");
    b.json(&["now"]);
    a.sql("update messages set body = 'a' where id = 'm1'");
    b.sql("update messages set body = 'b' where id = 'm1'");
    a.json(&["now"]);
    assert_eq!(b.json(&["now"])["conflicts"], 1);
    assert_eq!(a.json(&["now"])["conflicts"], 1);
    for (device, winner, other) in [(&a, "remote", &b), (&b, "local", &a)] {
        let list = device.json(&["conflicts"]);
        let shown = &list["conflicts"][0];
        assert_eq!(
            (&shown["winner"], &shown["kind"]),
            (&winner.into(), &"update_update".into())
        );
        assert_eq!(
            shown["remote_device"],
            other.json(&["status"])["device"]["id"]
        );
        let id = shown["id"].as_str().expect("an id");
        assert_eq!(
            device.json(&["conflicts", "show", id])["conflicts"][0],
            *shown
        );
        assert_eq!(
            device.json(&["conflicts", "show", &id[..24]])["conflicts"][0],
            *shown
        );
        assert_eq!(
            device.json(&["status", "messages", "m1"])["status"],
            "conflict"
        );
        let counts = |unseen: u32| serde_json::json!({"total": 1, "unseen": unseen});
        assert_eq!(device.json(&["status"])["conflicts"], counts(1));
        let acknowledged = device.json(&["conflicts", "ack", id, id]);
        assert_eq!(acknowledged["conflicts"].as_array().map(Vec::len), Some(1));
        assert_eq!(acknowledged["conflicts"][0]["seen"], true);
        assert_eq!(device.json(&["status"])["conflicts"], counts(0));
        assert_eq!(
            device.json(&["status", "messages", "m1"])["status"],
            "synced"
        );
    }
    let id = a.json(&["conflicts"])["conflicts"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    a.json(&["conflicts", "restore", &id]);
    assert_eq!(a.rows("select body from messages where id = 'm1'"), [["a"]]);
    assert_eq!(
        a.json(&["now"])["uploaded"],
        1,
        "as a new edit of this device"
    );
    b.json(&["now"]);
    assert_eq!(b.rows("select body from messages where id = 'm1'"), [["a"]]);
}

#[test]
fn clone_refuses_what_is_there_and_makes_nothing_by_halves() {
    let (fleet, _device) = synced();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let there = [
        "--remote",
        fleet.schema.url(),
        "--schema",
        fleet.schema.name(),
    ];
    let clone = |words: &[&str]| tidewater(folder, &[&["clone"], words].concat());
    std::fs::write(folder.join("there.db"), "").expect("a file");
    clone(&[&there[..], &["there.db"]].concat()).expect_code(2);
    assert_eq!(
        std::fs::read(folder.join("there.db")).expect("a file"),
        b"",
        "left alone"
    );
    clone(&[&there[..2], &["--schema", "no_such_workspace", "x.db"]].concat()).expect_code(6);
    clone(&["--remote", NOWHERE[1], "--schema", "s", "x.db"]).expect_code(3);
    clone(&[&there[..], &["--db", "y.db", "x.db"]].concat()).expect_code(2);
    let left = |folder: &Path| {
        let entries = std::fs::read_dir(folder).expect("a folder");
        let mut names: Vec<_> = entries
            .map(|e| {
                e.expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("text")
            })
            .collect();
        names.sort();
        names
    };
    assert_eq!(left(folder), ["there.db"]);
    clone(&[&there[..], &["sub dir.db"]].concat()).ok();
    let said = tidewater(folder, &["--json", "status"]).ok().json();
    assert_eq!(said["upload"]["pending"], 0);
    // The configuration that is there belongs to that one: another needs its own.
    clone(&[&there[..], &["third.db"]].concat()).expect_code(2);
    let given = Device::new(&fleet.schema, "given");
    given
        .tw(&["--config", "tidewater.toml", "clone", "app.db"])
        .ok();
    assert_eq!(given.rows("select id from messages"), [["m1"]]);
    assert_eq!(given.json(&["status"])["device"]["name"], "given");
}

#[test]
fn words_go_to_stdout_and_logs_to_stderr() {
    let (_fleet, device) = synced();
    let quiet = device.tw(&["-q", "now"]).ok();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    let asked = device.tw(&["-q", "status"]).ok();
    assert!(
        !asked.stdout.is_empty() && asked.stderr.is_empty(),
        "an answer is no chatter"
    );
    device.tw(&["-q", "-v", "status"]).expect_code(2);
    let plain = device.tw(&["--no-progress", "status"]).ok();
    assert!(
        !plain.stdout.contains('\u{1b}') && plain.stderr.is_empty(),
        "{plain:?}"
    );
    assert!(
        device
            .tw(&["--color", "always", "status"])
            .ok()
            .stdout
            .contains('\u{1b}')
    );
    assert!(
        !device
            .tw(&["--color", "never", "status"])
            .ok()
            .stdout
            .contains('\u{1b}')
    );
    let wordy = device
        .tw(&["-vv", "--log-format", "json", "--json", "now"])
        .ok();
    wordy.json();
    for line in wordy.stderr.lines() {
        serde_json::from_str::<Json>(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
    let offline = device
        .tw(&[&["--log-format", "json"], &NOWHERE[..], &["init"]].concat())
        .ok();
    assert!(
        offline
            .stderr
            .lines()
            .all(|l| serde_json::from_str::<Json>(l).is_ok()),
        "{offline:?}"
    );
    assert!(offline.stderr.contains("SYNC-001"), "{offline:?}");
}

#[test]
fn a_fleet_of_one_schema_sees_itself_and_no_other() {
    let (one, two) = (Fleet::new(DDL), Fleet::new(DDL));
    let (a, b) = (one.device("a"), two.device("b"));
    a.sql("insert into messages values ('m1', 'a', 1)");
    b.sql("insert into messages values ('m1', 'b', 1)");
    for device in [&a, &b] {
        assert_eq!(device.json(&["now"])["conflicts"], 0);
        assert_eq!(
            device.json(&["devices"])["devices"]
                .as_array()
                .map(Vec::len),
            Some(1)
        );
    }
    let mirror = one.schema.rows(&format!(
        "select column_name::text from information_schema.columns where table_schema = '{}' \
         and table_name = 'messages' order by ordinal_position",
        one.schema.name()
    ));
    assert_eq!(
        mirror.concat(),
        [
            "id",
            "body",
            "n",
            "tidewater_change",
            "tidewater_xid",
            "tidewater_device"
        ]
    );
}
