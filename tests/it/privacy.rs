//! What must not leave the device does not, whatever is done to the row on either side.

use crate::sides;
use crate::stories::another;
use crate::support::cli::Device;
use crate::support::server::Schema;

const CANARY: &str = "kept-between-us-47110815";

const CONFIG: &str = "[tables.diary]\nprivacy = \"local_only\"\n\n[tables.notes]\nprivacy = \"redacted\"\n\
     redact = [\"body\", \"pin\", \"tag\"]\n";

fn device(schema: &Schema) -> Device {
    let device = Device::with_url(schema.url(), schema.name(), "a", CONFIG);
    device.sql(&format!(
        "create table diary (id integer primary key, body text);
         create table notes (id integer primary key, title text, body text,
           pin integer not null, tag text not null);
         insert into diary values (1, '{CANARY}');
         insert into notes values (1, 'shopping', '{CANARY}', 4711, '{CANARY}')"
    ));
    device
}

/// Every table of the workspace as text, tidewater's own included.
fn whole_workspace(schema: &Schema) -> String {
    let mut text = String::new();
    for table in schema.rows("select tablename from pg_tables where schemaname = current_schema") {
        let rows = schema.rows(&format!("select t::text from \"{}\" t", table[0]));
        text.push_str(&format!("{table:?} {rows:?}\n"));
    }
    text
}

#[test]
fn a_local_only_table_is_neither_captured_nor_made_in_the_workspace() {
    let schema = Schema::new();
    let device = device(&schema);
    let report = device.json(&["init"]);
    let named: Vec<&str> = report["tables"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|t| t["name"].as_str())
        .collect();
    assert_eq!(named, ["notes"], "{report}");
    device.sql(&format!(
        "insert into diary values (2, '{CANARY}'); update diary set body = body || '!'"
    ));
    assert_eq!(
        device.rows(
            "select count(*) from sqlite_schema where type = 'trigger' and tbl_name = 'diary'"
        ),
        [["0"]]
    );
    assert!(
        device
            .rows("select 1 from tidewater_log where tbl = 'diary'")
            .is_empty()
    );
    sides::sync(&device);
    assert_eq!(
        schema.one(
            "select count(*) from pg_class where relname = 'diary' and relnamespace = current_schema::regnamespace"
        ),
        "0"
    );
    let everything = whole_workspace(&schema);
    assert!(everything.contains("shopping"), "the search looks at rows");
    assert!(!everything.contains(CANARY), "{everything}");
    assert!(!everything.contains("diary"), "{everything}");
}

#[test]
fn redacted_columns_stay_here_and_come_back_to_nobody() {
    let schema = Schema::new();
    let device = device(&schema);
    device.tw(&["init"]).ok();
    sides::sync(&device);
    device.sql(&format!(
        "update notes set title = 'groceries', body = body || ' and more' where id = 1;
         insert into notes values (2, 'second', '{CANARY}', 4711, '{CANARY}')"
    ));
    sides::sync(&device);
    assert_eq!(
        schema.rows("select id, title, body, pin, tag from notes order by id"),
        [
            ["1", "groceries", "NULL", "0", ""],
            ["2", "second", "NULL", "0", ""]
        ]
    );
    let everything = whole_workspace(&schema);
    assert!(!everything.contains(CANARY), "{everything}");
    assert!(!everything.contains("4711"), "{everything}");
    // Nor does it lie in the outbox, which a later batch is made from.
    let queued = device.rows("select coalesce(payload, '') from tidewater_outbox");
    assert!(!format!("{queued:?}").contains(CANARY), "{queued:?}");

    // A second device has the rows without their secrets, and may edit them.
    let other = another(&schema, "b");
    assert_eq!(
        other.rows("select id, title, body, pin, tag from notes order by id"),
        [
            ["1", "groceries", "NULL", "0", ""],
            ["2", "second", "NULL", "0", ""]
        ]
    );
    other.sql("update notes set title = 'from b' where id = 2");
    sides::sync(&other);
    // Postgres itself writes into the redacted column: it does not overwrite the original here.
    schema.exec(
        "update notes set title = 'by hand', body = 'intruder', pin = 1, tag = 'x' where id = 1",
    );
    sides::sync(&device);
    assert_eq!(
        device.rows("select id, title, body, pin, tag from notes order by id"),
        [
            [
                "1",
                "by hand",
                &format!("{CANARY} and more"),
                "4711",
                CANARY
            ],
            ["2", "from b", CANARY, "4711", CANARY]
        ]
    );
    sides::sync(&device);
    assert!(!whole_workspace(&schema).contains(CANARY));
    assert_eq!(device.json(&["verify"])["identical"], true);
}

#[test]
fn a_change_of_nothing_but_redacted_columns_sends_no_secret_and_makes_no_conflict() {
    let schema = Schema::new();
    let device = device(&schema);
    device.tw(&["init"]).ok();
    sides::sync(&device);
    device.sql(&format!("update notes set body = 'now {CANARY}'"));
    schema.exec("update notes set title = 'by hand' where id = 1");
    sides::sync(&device);
    sides::sync(&device);
    assert!(!whole_workspace(&schema).contains(CANARY));
    assert_eq!(
        device.rows("select body from notes"),
        [[format!("now {CANARY}")]]
    );
    // Whoever won, both sides show the same title.
    assert_eq!(
        device.rows("select title from notes"),
        schema.rows("select title from notes")
    );
}

#[test]
fn privacy_says_offline_what_can_leave() {
    let schema = Schema::new();
    let more = "[tables.notes]\nprivacy_column = \"level\"\nredact = [\"body\", \"pin\"]\n\n[tables.diary]\nprivacy = \"local_only\"\n";
    let nowhere = "postgres://nobody@127.0.0.1:1/nowhere?sslmode=disable";
    let a = Device::with_url(nowhere, schema.name(), "a", more);
    a.sql(
        "create table notes (id text primary key, title text, body text, pin integer, level text)",
    );
    a.sql("create table diary (id integer primary key)");
    a.sql(
        "insert into notes values ('f', '', '', 1, 'FULL'), ('n', '', '', 1, null), ('r', '', '', 1, 'Redacted'),
           ('l', '', '', 1, 'LOCAL_ONLY'), ('u', '', '', 1, 'secret')",
    );
    let before = a.json(&["privacy"]);
    a.tw(&["init"]).ok();
    a.tw(&["now"]).expect_code(3);
    let said = a.json(&["privacy"]);
    let notes = &said["tables"][0];
    assert_eq!(
        notes["rows"],
        serde_json::json!({"full": 2, "redacted": 1, "local_only": 2, "unknown": 1})
    );
    assert_eq!(
        (&notes["privacy_column"], &notes["private_keys"]),
        (&"level".into(), &2.into())
    );
    let leaves: Vec<&str> = notes["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["leaves"].as_str().unwrap())
        .collect();
    assert_eq!(
        leaves,
        ["always", "always", "full_rows", "full_rows", "always"]
    );
    assert_eq!(said["stay"][0]["name"], "diary", "{said}");
    assert_eq!(before["tables"][0]["rows"], notes["rows"]);
    let human = a.tw(&["privacy"]).ok().stdout;
    assert!(
        human.contains("leaves with FULL rows only: body, pin"),
        "{human}"
    );
}
