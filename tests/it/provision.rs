//! A workspace with an owner role and a login for each device: who may do what, and how a login ends.

use super::support::cli::{Device, Output, tidewater};
use super::support::fleet::{ITEMS, id};
use super::support::server::{Client, Schema, shared};
use serde_json::Value;

/// The roles of one workspace; they go with the test.
struct Roles {
    schema: Schema,
}

impl Roles {
    fn new() -> Roles {
        Roles {
            schema: Schema::new(),
        }
    }

    fn say(&self, words: &[&str]) -> Output {
        let folder = tempfile::tempdir().expect("a folder");
        let head = [
            "--json",
            "--remote",
            self.schema.url(),
            "--schema",
            self.schema.name(),
        ];
        tidewater(folder.path(), &[&head, words].concat())
    }

    #[track_caller]
    fn provision(&self, devices: &[&str]) -> Value {
        let mut words = vec!["provision"];
        devices.iter().for_each(|d| words.extend(["--device", d]));
        self.say(&words).ok().json()
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        let client = Client::connect(&shared().url());
        let like = format!("{}\\_%", self.schema.name().replace('_', "\\_"));
        let _ = client.try_exec(&format!(
            "drop schema if exists {} cascade",
            self.schema.name()
        ));
        for row in client.rows(&format!(
            "select rolname from pg_roles where rolname like '{like}'"
        )) {
            let _ = client.try_exec(&format!("drop owned by \"{0}\"; drop role \"{0}\"", row[0]));
        }
    }
}

fn url(report: &Value, i: usize) -> String {
    report["devices"][i]["url"]
        .as_str()
        .expect("a URL")
        .to_owned()
}

fn device(url: &str, schema: &str, name: &str) -> Device {
    let device = Device::with_url(url, schema, name, "");
    device.sql(ITEMS);
    device.tw(&["init"]).ok();
    device
}

#[test]
fn devices_with_logins_of_their_own_sync_and_one_is_ended() {
    let roles = Roles::new();
    let name = roles.schema.name();
    let made = roles.provision(&["laptop", "phone"]);
    assert_eq!(made["owner"], format!("{name}_owner"));
    assert_eq!(made["devices"][0]["created"], true);
    assert_eq!(made["devices"][0]["login"], format!("{name}_laptop"));
    let (a, b) = (
        device(&url(&made, 0), name, "laptop"),
        device(&url(&made, 1), name, "phone"),
    );
    // Each writes, and each alters what the other one made.
    a.sql("insert into items values ('1', 'a', 0)");
    b.sql("insert into items values ('2', 'b', 0)");
    for d in [&a, &b, &a] {
        d.json(&["now"]);
    }
    assert_eq!(a.rows("select id from items"), [["1"], ["2"]]);
    b.sql("alter table items add column extra text; update items set extra = 'x' where id = '1'");
    b.json(&["now"]);
    a.json(&["now"]);
    let owners = roles
        .schema
        .rows("select distinct tableowner from pg_tables where schemaname = current_schema()");
    assert_eq!(owners, [[format!("{name}_owner")]]);

    // Again: nobody's password changes, and a third one joins.
    let again = roles.provision(&["laptop", "tablet"]);
    assert_eq!(again["devices"][0]["created"], false);
    assert!(!url(&again, 0).contains(&format!("{name}_laptop:")));
    a.json(&["now"]);

    let line = roles.say(&["devices", "revoke", "phone"]).ok().json();
    assert_eq!(line["devices"][0]["id"], id(&b));
    assert_eq!(line["devices"][0]["state"], "revoked");
    b.sql("insert into items (id) values ('3')");
    let refused = b.tw(&["--json", "now"]).expect_code(3).json();
    assert_eq!(refused["error"]["code"], "SYNC-001");
    a.json(&["now"]);
}

#[test]
fn no_device_reaches_another_workspace() {
    let (ours, theirs) = (Roles::new(), Roles::new());
    let made = ours.provision(&["a"]);
    theirs.provision(&["b"]);
    let client = Client::connect(&url(&made, 0));
    for sql in [
        format!("create table {}.t (i integer)", theirs.schema.name()),
        format!("set role {}_owner", theirs.schema.name()),
        format!("drop schema {} cascade", theirs.schema.name()),
        format!("alter role {}_b nologin", theirs.schema.name()),
    ] {
        assert!(client.try_exec(&sql).is_err(), "{sql}");
    }
    let device = Device::with_url(&url(&made, 0), theirs.schema.name(), "a", "");
    device.sql(ITEMS);
    let refused = device.tw(&["--json", "init"]).expect_code(6).json();
    assert_eq!(refused["error"]["code"], "SYNC-011");
}

#[test]
fn a_dry_run_prints_statements_without_passwords_and_makes_nothing() {
    let roles = Roles::new();
    let printed = roles
        .say(&["provision", "--dry-run", "--device", "a"])
        .ok()
        .stdout;
    assert!(
        printed.contains("nologin") && !printed.contains("password"),
        "{printed}"
    );
    let count = format!(
        "select count(*) from pg_roles where rolname = '{}_owner'",
        roles.schema.name()
    );
    assert_eq!(roles.schema.one(&count), "0");
}

#[test]
fn a_table_of_somebody_else_is_told_with_the_statement_that_cures_it() {
    let roles = Roles::new();
    let name = roles.schema.name();
    let made = roles.provision(&["a"]);
    roles
        .schema
        .exec("create table items (id text primary key, body text, n bigint)");
    let device = Device::with_url(&url(&made, 0), name, "a", "");
    device.sql(ITEMS);
    let refused = device.tw(&["--json", "init"]).expect_code(6).json();
    assert_eq!(refused["error"]["code"], "SYNC-011");
    let remedy = refused["error"]["remedy"]
        .as_str()
        .expect("text")
        .to_owned();
    let cure = format!("alter table \"{name}\".\"items\" owner to \"{name}_owner\"");
    assert!(remedy.contains(&cure), "{remedy}");
    roles.schema.exec(&cure);
    device.tw(&["init"]).ok();
    device.sql("insert into items values ('1', 'x', 0)");
    device.json(&["now"]);
    assert_eq!(roles.schema.one("select id from items"), "1");
}
