//! `doctor`: each fault that is made by hand is found, with its remedy; nothing is changed by looking.

use crate::support::cli::Device;
use crate::support::fleet::{Fleet, ITEMS};
use crate::support::server::{Schema, shared};
use serde_json::Value as Json;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const UNREACHABLE: &str = "postgres://nobody@127.0.0.1:1/nowhere?sslmode=disable";

/// The report; fails the test unless the exit code goes with it and every check has exactly its fields.
#[track_caller]
fn doctor(device: &Device) -> Json {
    let done = device.tw(&["doctor", "--json"]);
    let report = done.json();
    let ok = report["ok"].as_bool().expect("a verdict");
    assert_eq!(done.code, i32::from(!ok), "{report:#}");
    let checks = report["checks"].as_array().expect("checks");
    assert_eq!(ok, checks.iter().all(|c| c["ok"] == true));
    for c in checks {
        let fields: Vec<&String> = c.as_object().unwrap().keys().collect();
        assert_eq!(fields.len(), 4, "{c}");
        assert!(c["name"].is_string() && c["message"].is_string(), "{c}");
        assert!(
            c["remedy"].is_null() || c["remedy"].as_str() > Some(""),
            "{c}"
        );
        // A fault without a remedy helps nobody.
        assert!(c["ok"] == true || c["remedy"].is_string(), "{c}");
    }
    report
}

/// All that was said under a name.
fn said<'a>(report: &'a Json, name: &str) -> Vec<&'a Json> {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().filter(|c| c["name"] == name).collect()
}

/// The one thing that was said under a name.
#[track_caller]
fn one<'a>(report: &'a Json, name: &str) -> &'a Json {
    let found = said(report, name);
    assert_eq!(found.len(), 1, "{name}: {report:#}");
    found[0]
}

#[track_caller]
fn fault(report: &Json, name: &str, parts: &[&str]) {
    let found: Vec<_> = said(report, name)
        .into_iter()
        .filter(|c| c["ok"] == false)
        .collect();
    assert!(
        found
            .iter()
            .any(|c| parts.iter().all(|p| c.to_string().contains(p))),
        "no fault {name} with {parts:?}: {report:#}"
    );
    assert_eq!(report["ok"], false);
}

#[test]
fn a_healthy_device_is_healthy() {
    let fleet = Fleet::new(ITEMS);
    let a = fleet.device("a");
    a.sql(
        "pragma journal_mode = wal; insert into items values ('i1', 'one', 1), ('i2', null, null)",
    );
    a.tw(&["now"]).ok();
    let report = doctor(&a);
    assert_eq!(report["ok"], true, "{report:#}");
    assert_eq!(
        *one(&report, "journal_mode"),
        serde_json::json!({"name": "journal_mode", "ok": true, "message": "wal", "remedy": null})
    );
    for name in [
        "file",
        "mode",
        "filesystem",
        "disk",
        "integrity",
        "device",
        "tables",
        "triggers",
        "guard",
        "integer_keys",
        "blind_spots",
        "values",
        "connection",
        "tls",
        "server_version",
        "primary",
        "pooler",
        "privileges",
        "workspace",
        "schema",
        "clock",
    ] {
        let check = one(&report, name);
        assert!(
            !check["message"].as_str().unwrap().contains("not checked"),
            "{check}"
        );
    }
    assert!(
        one(&report, "values")["message"]
            .as_str()
            .unwrap()
            .contains("2 rows")
    );
    let human = a.tw(&["doctor"]).ok().stdout;
    assert!(human.lines().all(|l| l.chars().count() <= 80), "{human}");
    assert!(human.contains("✓ journal_mode"), "{human}");
}

#[test]
fn looking_changes_nothing() {
    let schema = Schema::new();
    let device = Device::new(&schema, "a");
    device.sql(&format!(
        "{ITEMS} insert into items values ('i1', 'one', 1)"
    ));
    // Before `init`: the data can be looked through, and nothing is made on either side.
    let before = fs::read(device.db()).unwrap();
    let report = doctor(&device);
    fault(&report, "device", &["tidewater init"]);
    assert_eq!(one(&report, "values")["ok"], true);
    assert_eq!(one(&report, "workspace")["ok"], true);
    assert_eq!(fs::read(device.db()).unwrap(), before);
    assert_eq!(
        schema
            .one("select count(*) from pg_class where relnamespace = current_schema::regnamespace"),
        "0"
    );
    device.tw(&["init"]).ok();
    device.tw(&["now"]).ok();
    let server = schema.rows("select * from tidewater_devices");
    device.sql("alter table items add column later text");
    let before = fs::read(device.db()).unwrap();
    let report = doctor(&device);
    assert_eq!(report["ok"], true, "{report:#}");
    assert!(one(&report, "triggers")["remedy"].is_string());
    assert!(
        one(&report, "schema")["message"]
            .as_str()
            .unwrap()
            .contains("1 get new columns")
    );
    assert_eq!(fs::read(device.db()).unwrap(), before);
    assert_eq!(schema.rows("select * from tidewater_devices"), server);
}

#[test]
fn without_the_server_the_rest_is_checked() {
    let fleet = Fleet::new(ITEMS);
    let mut a = fleet.device("a");
    a.tw(&["now"]).ok();
    a.set_env("TIDEWATER_REMOTE__URL", UNREACHABLE);
    let report = doctor(&a);
    fault(&report, "connection", &["127.0.0.1"]);
    for name in ["tls", "server_version", "privileges", "schema"] {
        let check = one(&report, name);
        assert_eq!(check["ok"], true);
        assert!(
            check["message"]
                .as_str()
                .unwrap()
                .starts_with("not checked"),
            "{check}"
        );
    }
    assert_eq!(one(&report, "triggers")["message"], "current on 1 table");
    a.unset_env("TIDEWATER_REMOTE__URL");
    // A device that was never told of a server is not at fault.
    a.configure("[local]\npath = \"app.db\"\n[metrics]\nlisten = \"\"\n");
    let report = doctor(&a);
    assert_eq!(report["ok"], true, "{report:#}");
    assert!(
        one(&report, "connection")["remedy"]
            .as_str()
            .unwrap()
            .contains("[remote] url")
    );
}

#[test]
fn capture_that_does_not_work_is_found() {
    let fleet = Fleet::new(ITEMS);
    let a = fleet.device("a");
    a.tw(&["now"]).ok();
    a.sql("update tidewater_guard set v = 1");
    fault(&doctor(&a), "guard", &["nothing is captured", "set v = 0"]);
    a.sql("delete from tidewater_guard");
    fault(&doctor(&a), "guard", &["insert into tidewater_guard"]);
    a.sql("insert into tidewater_guard (id, v) values (1, 0)");
    let trigger = a
        .rows("select name from sqlite_schema where type = 'trigger' limit 1")
        .remove(0)
        .remove(0);
    a.sql(&format!("drop trigger \"{trigger}\""));
    fault(&doctor(&a), "triggers", &["items", "tidewater now"]);
    a.tw(&["now"]).ok();
    assert_eq!(doctor(&a)["ok"], true);
}

#[test]
fn values_that_postgres_would_reject_are_counted_and_not_shown() {
    let fleet = Fleet::configured(
        "create table odd (id text primary key, n integer, t text, r real, b blob, m numeric, d datetime, x);
         create table \"of my own\" (k integer, \"a b\" integer, primary key (k));
         create table keyed (a text, b text, primary key (a, b));",
        "[upload]\nrow_bytes_max = 10000\n",
    );
    let a = fleet.device("a");
    let canary = "canary-5521";
    a.sql(&format!(
        "insert into odd values ('1', '{canary}', 'fine', 1.5, x'00', 1, '2026-01-01', 1);
         insert into odd values ('2', x'beef', x'beef', '{canary}', '{canary}', '{canary}', x'00', x'00');
         insert into odd values ('3', 7, 'a' || char(0) || '{canary}', 9007199254740993, 5, 1.5, 1.5, '{canary}');
         insert into odd (id, t) values ('4', cast(x'ff{}' as text));
         insert into odd (id, t) values ('5', '{}');
         insert into odd (id, t) values ('6', '{}');
         insert into \"of my own\" values (1, '{canary}'), (2, '{canary}'), (3, 4);
         insert into keyed values (null, 'b'), ('a', 'b')",
        canary.bytes().map(|b| format!("{b:02x}")).collect::<String>(),
        "x".repeat(10_000),
        "y".repeat(9_000),
    ));
    let report = doctor(&a);
    for (place, rows, more) in [
        ("odd.n", "2 rows", "blob and text"),
        ("odd.t", "1 row ", "NUL"),
        ("odd.t", "1 row ", "UTF-8"),
        ("odd.t", "1 row ", "blob in a column that travels as text"),
        (
            "odd.r",
            "1 row ",
            "text in a column that travels as double precision",
        ),
        ("odd.b", "2 rows", "types = { b = \\\"jsonb\\\" }"),
        (
            "odd.m",
            "1 row ",
            "[tables.odd] types = { m = \\\"text\\\" }",
        ),
        ("odd.d", "1 row ", "blob"),
        ("odd:", "1 row ", "row_bytes_max (10000)"),
        (
            "of my own.a b",
            "2 rows",
            "[tables.\\\"of my own\\\"] types = { \\\"a b\\\" = \\\"text\\\" }",
        ),
        ("keyed.a", "1 row ", "NULL in the primary key"),
    ] {
        let more = more.replace("\\\"", "\"");
        let found = said(&report, "values").into_iter().any(|c| {
            let text = format!(
                "{} {}",
                c["message"].as_str().unwrap(),
                c["remedy"].as_str().unwrap()
            );
            c["ok"] == false && text.contains(place) && text.contains(rows) && text.contains(&more)
        });
        assert!(found, "no {place}, {rows}, {more}: {report:#}");
    }
    assert_eq!(said(&report, "values").len(), 11, "{report:#}");
    let everything = format!("{report}{}", a.tw(&["doctor", "-vv"]).stdout);
    assert!(
        !everything.contains(canary) && !everything.contains("beef"),
        "{everything}"
    );
    // It says just what the server would: as many rows are parked.
    a.tw(&["now"]).expect_code(1);
    assert_eq!(a.json(&["queue", "--errors"])["total"], 8);
}

#[test]
fn a_table_is_read_in_pages_whatever_its_key_is() {
    let fleet = Fleet::new(
        "create table w (a text, b integer, v integer, primary key (a, b)) without rowid;
         create table r (rowid text, v integer, _rowid_ integer primary key);",
    );
    let a = fleet.device("a");
    a.sql(
        "with recursive c(i) as (select 1 union all select i + 1 from c where i < 5000)
         insert into w select 'k' || (i % 7), i, case when i % 1000 = 0 then 'x' else i end from c;
         with recursive c(i) as (select 1 union all select i + 1 from c where i < 5000)
         insert into r select 'z', case when i % 500 = 0 then x'00' else i end, i from c",
    );
    let report = doctor(&a);
    fault(&report, "values", &["w.v: 5 rows"]);
    fault(&report, "values", &["r.v: 10 rows"]);
}

#[test]
fn advice_is_no_fault() {
    let fleet = Fleet::new(
        "create table votes (id integer primary key, n integer);
         create table plain (id int primary key, n integer);
         create table nokey (n integer);
         create table spots (id text primary key, a text);
         create unique index by_lower on spots (lower(a));",
    );
    let a = fleet.device("a");
    let report = doctor(&a);
    assert_eq!(report["ok"], true, "{report:#}");
    let keys = one(&report, "integer_keys");
    assert!(keys["message"].as_str().unwrap().starts_with("votes:") && keys["remedy"].is_string());
    assert!(
        one(&report, "blind_spots")["message"]
            .as_str()
            .unwrap()
            .contains("by_lower")
    );
    let tables = one(&report, "tables");
    assert!(
        tables["message"].as_str().unwrap().contains("nokey"),
        "{tables}"
    );
    assert_eq!(one(&report, "journal_mode")["message"], "delete");
    assert!(one(&report, "journal_mode")["remedy"].is_string());
    let human = a.tw(&["doctor"]).ok().stdout;
    assert!(
        human.contains("! integer_keys") && human.contains("things to consider"),
        "{human}"
    );
}

#[test]
fn what_is_wrong_with_the_file_is_found() {
    let fleet = Fleet::new(ITEMS);
    let a = fleet.device("a");
    fs::set_permissions(a.db(), fs::Permissions::from_mode(0o666)).unwrap();
    fault(&doctor(&a), "mode", &["0666", "chmod"]);
    fs::set_permissions(a.db(), fs::Permissions::from_mode(0o600)).unwrap();
    // A page of an index that says nothing sensible any more.
    a.sql(
        "create index by_body on items (body); insert into items select 'i' || value, hex(randomblob(200)), 1 \
         from (with recursive c(value) as (select 1 union all select value + 1 from c where value < 500) \
         select value from c); pragma wal_checkpoint(truncate)",
    );
    let root: usize = a.rows("select rootpage from sqlite_schema where name = 'by_body'")[0][0]
        .parse()
        .unwrap();
    let size: usize = a.rows("pragma page_size")[0][0].parse().unwrap();
    let mut bytes = fs::read(a.db()).unwrap();
    bytes[(root - 1) * size + 100..root * size].fill(0x5a);
    fs::write(a.db(), bytes).unwrap();
    fault(&doctor(&a), "integrity", &["backup"]);
    fs::write(a.db(), "a letter to my aunt\n".repeat(200)).unwrap();
    fault(&doctor(&a), "file", &["not a database"]);
    fs::remove_file(a.db()).unwrap();
    let report = doctor(&a);
    fault(&report, "file", &["app.db"]);
    assert!(!a.db().exists());
    assert_eq!(one(&report, "connection")["ok"], true);
}

#[test]
fn what_is_wrong_with_the_server_is_found() {
    let fleet = Fleet::new(ITEMS);
    let mut a = fleet.device("a");
    a.tw(&["now"]).ok();
    // Triggers that somebody turned off.
    fleet.schema.exec("alter table items disable trigger user");
    fault(&doctor(&a), "schema", &["items", "enable trigger"]);
    fleet.schema.exec("alter table items enable trigger user");
    // A column that can no longer carry the values.
    fleet
        .schema
        .exec("alter table items alter column n type inet using null");
    fault(&doctor(&a), "schema", &["column n is inet", "alter column"]);
    fleet
        .schema
        .exec("alter table items alter column n type bigint using 1");
    // The workspace came back from somewhere else, or from the future.
    let instance = fleet.schema.one("select instance from tidewater_workspace");
    fleet
        .schema
        .exec("update tidewater_workspace set instance = 'restored'");
    fault(&doctor(&a), "workspace", &["SYNC-007", "recovery"]);
    fleet.schema.exec(&format!(
        "update tidewater_workspace set instance = '{instance}', protocol = 99"
    ));
    fault(&doctor(&a), "workspace", &["protocol 99", "upgrade"]);
    fleet
        .schema
        .exec("update tidewater_workspace set protocol = 1");
    assert_eq!(doctor(&a)["ok"], true);
    // A login without rights.
    let role = format!("r_{}", ulid::Ulid::generate()).to_lowercase();
    fleet.schema.exec(&format!(
        "create role {role} login; grant usage on schema {} to {role}",
        fleet.schema.name()
    ));
    let url = shared().url_for(&role, None, "postgres");
    a.set_env("TIDEWATER_REMOTE__URL", &url);
    let report = doctor(&a);
    fault(
        &report,
        "privileges",
        &["may not use or create", "grant usage, create"],
    );
    fault(
        &report,
        "privileges",
        &["items belongs to another role", "owner to"],
    );
    // A role that may only read.
    a.unset_env("TIDEWATER_REMOTE__URL");
    fleet.schema.exec(&format!(
        "alter role {role} superuser; alter role {role} set default_transaction_read_only = on"
    ));
    a.set_env("TIDEWATER_REMOTE__URL", &url);
    fault(&doctor(&a), "primary", &["read-only"]);
    fleet.schema.exec(&format!(
        "revoke all on schema {} from {role}; drop role {role}",
        fleet.schema.name()
    ));
    a.set_env(
        "TIDEWATER_REMOTE__URL",
        &shared().url_for("postgres", None, "no_such_database"),
    );
    fault(&doctor(&a), "connection", &["no_such_database"]);
}

#[test]
fn a_clock_that_is_off_is_found_without_the_server_too() {
    let fleet = Fleet::new(ITEMS);
    let mut a = fleet.device("a");
    a.tw(&["now"]).ok();
    a.sql("insert or replace into tidewater_state (name, value) values ('clock_offset_ms', '-3600000')");
    assert_eq!(
        doctor(&a)["ok"],
        true,
        "the server is asked where it can be"
    );
    a.set_env("TIDEWATER_REMOTE__URL", UNREACHABLE);
    fault(&doctor(&a), "clock", &["+3600000 ms", "SYNC-006"]);
}
