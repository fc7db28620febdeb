//! Each JSON document: names, nesting, types, and what may be null.

use super::{NOWHERE, a_time, has_form, synced};
use crate::support::cli::tidewater;
use serde_json::{Value as Json, json};

fn item() -> Json {
    json!({"key": "ulid?", "table": "text", "pk": ["any"], "op": "upsert|delete",
           "status": "pending|uploading|failed|synced", "attempts": "count",
           "next_attempt_at": "time?", "bytes": "count", "created_at": "time",
           "error": "any"})
}

fn error() -> Json {
    json!({"code": "text", "sqlstate": "text?", "message": "text", "remedy": "text"})
}

#[test]
fn every_document_has_the_form_of_the_contract() {
    let (fleet, device) = synced();
    let status = json!({
        "device": {"id": "ulid", "name": "laptop"}, "mode": "online|offline|paused",
        "service": {"running": "bool", "pid": "count?"},
        "remote": {"reachable": "bool", "server_version": "text?", "schema": "text",
                   "latency_ms": "number?", "clock_offset_ms": "number?"},
        "upload": {"pending": "count", "ready": "count", "uploading": "count", "failed": "count",
                   "synced_today": "count", "synced_total": "count", "oldest_pending_at": "time?",
                   "lag_seconds": "number", "last_push_at": "time?"},
        "download": {"pending": "count", "failed": "count", "applied_today": "count",
                     "last_pull_at": "time?"},
        "conflicts": {"total": "count", "unseen": "count"}, "circuit": "closed|open|half_open",
        "tables": [{"name": "text", "privacy": "full", "pending": "count", "failed": "count"}],
        "problems": [{"code": "text", "message": "text", "remedy": "text"}]
    });
    let online = device.json(&["status"]);
    has_form(&online, &status);
    assert_eq!(online["mode"], "online");
    assert_eq!(
        online["remote"]["server_version"]
            .as_str()
            .map(|v| v.contains('.')),
        Some(true)
    );
    assert_eq!(online["upload"]["oldest_pending_at"], Json::Null);
    a_time(&online["upload"]["last_push_at"]);

    // Offline, with something that waits.
    device
        .sql("insert into messages values ('m2', 'two', 2); delete from messages where id = 'm1'");
    let offline = device.json(&[&NOWHERE[..], &["status"]].concat());
    has_form(&offline, &status);
    assert_eq!(offline["mode"], "offline");
    assert_eq!(offline["remote"]["latency_ms"], Json::Null);
    assert_eq!(offline["upload"]["pending"], 2);
    assert_eq!(offline["upload"]["ready"], 2);
    a_time(&offline["upload"]["oldest_pending_at"]);
    assert!(
        offline["upload"]["lag_seconds"]
            .as_f64()
            .is_some_and(|s| s > 0.0),
        "{offline:#}"
    );

    let queue = device.json(&["queue"]);
    has_form(&queue, &json!({"items": [item()], "total": 2}));
    assert_eq!(queue["items"][0]["key"], Json::Null, "not claimed yet");
    assert_eq!(
        device.json(&["now", "--dry-run"])["total"],
        2,
        "what would be sent"
    );
    has_form(
        &device.json(&["now"]),
        &json!({"uploaded": 2, "downloaded": 0, "conflicts": 0, "failed": 0, "pending": 0,
                "elapsed_ms": "count"}),
    );
    has_form(
        &device.json(&["verify"]),
        &json!({"identical": true, "tables": [{"name": "text", "local": 1, "remote": 1,
                "missing_remote": 0, "missing_local": 0, "different": 0, "in_flight": 0}]}),
    );
    has_form(
        &device.json(&["doctor"]),
        &json!({"ok": true, "checks": [{"name": "text", "ok": true, "message": "text",
                "remedy": "text?"}]}),
    );
    assert_eq!(device.json(&["pause"]), json!({"mode": "paused"}));
    assert_eq!(device.json(&["resume"]), json!({"mode": "online"}));
    has_form(&device.json(&["init"]), &super::documents::init_form());

    // A change from elsewhere, a refusal, a conflict.
    fleet
        .schema
        .exec("alter table messages add constraint small check (n < 100)");
    fleet
        .schema
        .exec("update messages set body = 'theirs' where id = 'm2'");
    device.sql(
        "update messages set body = 'ours' where id = 'm2'; insert into messages values ('m3', 'x', 500)",
    );
    let now = device.tw(&["--json", "now"]).expect_code(1).json();
    has_form(&now, &json!({"conflicts": 1, "failed": 1}));
    let failed = device.json(&["queue", "--errors"]);
    has_form(&failed, &json!({"items": [item()], "total": 1}));
    has_form(&failed["items"][0]["error"], &error());
    assert_eq!(failed["items"][0]["error"]["sqlstate"], "23514");
    let key = failed["items"][0]["key"]
        .as_str()
        .expect("a key")
        .to_owned();
    has_form(
        &device.json(&["status", "messages", "m3"]),
        &json!({"table": "messages", "key": ["m3"], "status": "failed", "change_key": key.clone(),
                "error": error(), "synced_at": null}),
    );
    let result = |outcome: &str| {
        json!({"results": [{"key": key.clone(), "table": "messages", "pk": ["m3"],
                "outcome": outcome, "error": "any"}]})
    };
    let retried = device.tw(&["--json", "retry", &key]).expect_code(1).json();
    has_form(&retried, &result("failed"));
    has_form(&retried["results"][0]["error"], &error());
    has_form(
        &device.json(&["discard", &key, "--yes"]),
        &result("discarded"),
    );

    let conflicts = device.json(&["conflicts"]);
    has_form(
        &conflicts,
        &json!({"conflicts": [{"id": "ulid", "table": "messages", "pk": ["text"],
            "detected_at": "time", "policy": "text", "winner": "local|remote",
            "kind": "insert_insert|update_update|update_delete|delete_update|key_collision|unique_collision|discarded",
            "local": "any", "remote": "any", "local_change_key": "ulid?",
            "remote_change_key": "ulid?", "local_at": "time?", "remote_at": "time?",
            "remote_device": "text?", "seen": false, "original_file": "text?"}]}),
    );
    let kinds: Vec<&str> = conflicts["conflicts"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|c| c["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["discarded", "update_update"]);
    let file = conflicts["conflicts"][1]["original_file"]
        .as_str()
        .expect("a file");
    assert!(std::path::Path::new(file).is_absolute() && std::path::Path::new(file).exists());

    // Documents without a form in the contract are one document all the same.
    for words in [
        &["privacy"][..],
        &["devices"],
        &["prune"],
        &["explain", "messages", "m2"],
        &["queue", "--inbox"],
        &["conflicts", "ack", "--all"],
        &["init", "--dry-run"],
        &["completions", "bash"],
        &["man"],
        &["--help"],
        &["--version"],
        &["now", "--help"],
    ] {
        assert!(device.json(words).is_object(), "{words:?}");
    }
    assert_eq!(device.json(&["conflicts"])["conflicts"][0]["seen"], true);
}

pub fn init_form() -> Json {
    json!({"device": {"id": "ulid", "name": "text"},
           "tables": [{"name": "text", "rows": 1, "columns": 3}],
           "skipped": [{"name": "text", "reason": "text"}], "elapsed_ms": "count"})
}

/// Rows that stood there before wait since they were listed, and everything says so.
#[test]
fn what_stood_there_at_init_has_a_time_in_the_queue() {
    let fleet = crate::support::fleet::Fleet::new("");
    let device = fleet.device("laptop");
    device.sql("create table t (id integer primary key); insert into t values (1)");
    device.json(&[&NOWHERE[..], &["init"]].concat());
    has_form(
        &device.json(&["queue"]),
        &json!({"items": [item()], "total": 1}),
    );
    let upload = &device.json(&["status"])["upload"];
    a_time(&upload["oldest_pending_at"]);
    assert!(
        upload["lag_seconds"]
            .as_f64()
            .is_some_and(|s| s > 0.0 && s < 600.0),
        "{upload}"
    );
}

/// Blobs and reals that JSON cannot hold, in keys and rows; a key is what the documents show of it.
#[test]
fn values_have_the_form_of_the_contract_and_keys_are_taken_as_they_are_shown() {
    let (_fleet, device) = synced();
    device.sql("insert into pairs values (7, x'', 9e999), (8, x'0a', -9e999)");
    let queue = device.json(&["queue"]);
    assert_eq!(queue["items"][0]["pk"], json!([7, {"hex": ""}]));
    device
        .tw(&[&["--json"], &NOWHERE[..], &["now"]].concat())
        .expect_code(3);
    let claimed = device.json(&["queue"]);
    for (i, real) in [(0, "inf"), (1, "-inf")] {
        let key = claimed["items"][i]["key"]
            .as_str()
            .expect("claimed")
            .to_owned();
        let shown = device.json(&["queue", "show", &key]);
        assert_eq!(
            shown["items"][0]["row"]["v"],
            json!({"real": real}),
            "{shown:#}"
        );
    }
    for words in [
        &["-2", "x'00ff'"][..],
        &["-2", "X'00FF'"],
        &["-2", "{\"hex\":\"00ff\"}"],
        &["[-2,{\"hex\":\"00ff\"}]"],
    ] {
        let row = device.json(&[&["status", "pairs"], words].concat());
        has_form(
            &row,
            &json!({"table": "pairs", "key": ["any"], "status": "synced", "change_key": "ulid",
                    "error": null, "synced_at": "time"}),
        );
        assert_eq!(row["key"], json!([-2, {"hex": "00ff"}]), "{words:?}");
        assert_eq!(
            device.json(&[&["explain", "pairs"], words].concat())["key"],
            row["key"]
        );
    }
    let view = device.rows("select pk from tidewater_status where status = 'pending' order by pk");
    for pk in view.iter().flatten() {
        assert_eq!(
            device.json(&["status", "pairs", pk])["status"],
            "pending",
            "{pk}"
        );
    }
}

/// An error is one document too, whatever the command was and wherever it was refused.
#[test]
fn an_error_is_one_document_with_any_command() {
    let empty = tempfile::tempdir().expect("a folder");
    let expected = json!({"error": {"code": "SYNC-013", "message": "text", "table": "text?", "remedy": "text"}});
    for words in [
        &["init"][..],
        &["run"],
        &["now"],
        &["status"],
        &["status", "t"],
        &["queue"],
        &["retry"],
        &["discard", "x", "--yes"],
        &["discard", "x"],
        &["discard"],
        &["pause"],
        &["resume"],
        &["conflicts"],
        &["conflicts", "show", "x"],
        &["conflicts", "ack"],
        &["clone"],
        &["clone", "x.db"],
        &["verify"],
        &["explain", "t", "k"],
        &["doctor"],
        &["devices"],
        &["privacy"],
        &["prune"],
        &["detach"],
        &["demo", "--db", "x"],
        &["completions", "tcsh"],
        &["nosuch"],
        &[],
        &["queue", "--limit", "many"],
        &["now", "--timeout", "0"],
        &["status", "--nosuch"],
        &["--color", "mauve", "status"],
    ] {
        let said = tidewater(empty.path(), &[&["--json"], words].concat()).expect_code(2);
        has_form(&said.json(), &expected);
        assert_eq!(
            said.json().as_object().map(serde_json::Map::len),
            Some(1),
            "{said:?}"
        );
        // Where `--json` stands makes no difference.
        let behind = tidewater(empty.path(), &[words, &["--json"]].concat()).expect_code(2);
        assert_eq!(behind.json(), said.json(), "{words:?}");
    }
    let left: Vec<_> = std::fs::read_dir(empty.path()).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
}
