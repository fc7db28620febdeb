//! Rows that say their own level: what stays here stays, what is made private is taken back, and what
//! another device holds redacted never overwrites the original.

use crate::sides;
use crate::support::cli::Device;
use crate::support::fleet::{Fleet, conflicts, crash};

const CANARY: &str = "kept-between-us-31415926";

const NOTES: &str = "create table notes (id text primary key, title text, body text, \
     pin integer not null default 0, level text)";

const CONFIG: &str = "[tables.notes]\nprivacy_column = \"level\"\nredact = [\"body\", \"pin\"]\n";

const ALL: &str = "select id, title, body, pin, level from notes order by id";

fn fleet() -> Fleet {
    Fleet::configured(NOTES, CONFIG)
}

fn never_sent(device: &Device) -> Vec<Vec<String>> {
    device.rows("select pk from tidewater_private order by pk")
}

/// Everything that the workspace keeps beside the mirrors, as text.
fn kept(fleet: &Fleet) -> String {
    let tables = ["conflicts", "devices", "tombstones"];
    let all = tables.map(|t| fleet.server(&format!("select t::text from tidewater_{t} t")));
    format!("{all:?}")
}

#[test]
fn a_row_obeys_its_own_level_from_the_first_sync_on() {
    let fleet = Fleet::configured(NOTES, CONFIG);
    let device = Device::with_url(fleet.schema.url(), fleet.schema.name(), "a", CONFIG);
    device.sql(NOTES);
    device.sql(&format!(
        "insert into notes values ('f', 'full', 'open', 1, 'FULL'), ('n', 'null', 'open', 1, null),
           ('r', 'redacted', '{CANARY}', 271828182845, 'redacted'), ('l', 'local', '{CANARY}', 271828182845, 'LOCAL_ONLY'),
           ('u', 'unknown', '{CANARY}', 271828182845, 'SECRET')"
    ));
    device.tw(&["init"]).ok();
    assert_eq!(sides::sync(&device)["uploaded"], 3);
    let there = [
        ["f", "full", "open", "1", "FULL"],
        ["n", "null", "open", "1", "NULL"],
        ["r", "redacted", "NULL", "0", "redacted"],
    ];
    assert_eq!(fleet.server(ALL), there);
    assert_eq!(never_sent(&device), [["[\"l\"]"], ["[\"u\"]"]]);
    let queued = device.rows("select pk, payload from tidewater_outbox");
    assert_eq!(queued.len(), 3, "{queued:?}");
    assert_eq!(device.rows("select count(*) from notes"), [["5"]]);
    let verified = device.json(&["verify"]);
    assert_eq!(verified["identical"], true, "{verified}");
    assert_eq!(verified["tables"][0]["local"], 3, "{verified}");
    assert_eq!(verified["tables"][0]["remote"], 3, "{verified}");

    // Edits, deletes and new rows after that.
    device.sql(&format!(
        "update notes set body = body || '!', title = title || '!';
         insert into notes values ('l2', 'x', '{CANARY}', 0, 'LOCAL_ONLY'), ('l3', 'x', '', 0, 'LOCAL_ONLY');
         delete from notes where id in ('l', 'l2')"
    ));
    sides::sync(&device);
    assert_eq!(
        fleet.server("select title, body from notes order by id"),
        [
            ["full!", "open!"],
            ["null!", "open!"],
            ["redacted!", "NULL"]
        ]
    );
    assert_eq!(never_sent(&device), [["[\"l3\"]"], ["[\"u\"]"]]);
    device.sql("delete from notes where id = 'l3'");
    sides::sync(&device);
    assert_eq!(never_sent(&device), [["[\"u\"]"]]);
    assert_eq!(
        fleet.server("select count(*) from tidewater_tombstones"),
        [["0"]]
    );
    assert_eq!(
        device.rows("select count(*) from tidewater_outbox where pk like '%l%' or pk like '%u%'"),
        [["0"]]
    );
}

#[test]
fn a_table_whose_level_is_local_only_sends_the_rows_that_say_otherwise() {
    let config = format!("{CONFIG}privacy = \"local_only\"\n");
    let fleet = Fleet::configured(NOTES, &config);
    let a = fleet.device("a");
    a.sql(&format!(
        "insert into notes values ('n', 'null', '{CANARY}', 1, null), ('f', 'full', 'open', 1, 'Full')"
    ));
    sides::sync(&a);
    assert_eq!(fleet.server("select id, body from notes"), [["f", "open"]]);
    assert_eq!(never_sent(&a), [["[\"n\"]"]]);
}

#[test]
fn a_level_that_rises_sends_the_row_and_one_that_falls_takes_it_back() {
    let fleet = fleet();
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql(&format!(
        "insert into notes values ('x', 'one', '{CANARY}', 7, 'LOCAL_ONLY')"
    ));
    fleet.converge(&[&a, &b], "select 1 where false");
    assert!(b.rows(ALL).is_empty());
    a.sql("update notes set level = 'REDACTED'");
    fleet.converge(&[&a, &b], "select id, title, level from notes");
    assert!(never_sent(&a).is_empty());
    assert_eq!(b.rows(ALL), [["x", "one", "NULL", "0", "REDACTED"]]);
    a.sql("update notes set level = 'FULL', body = 'shown'");
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(b.rows(ALL), [["x", "one", "shown", "7", "FULL"]]);
    let said = {
        a.sql("update notes set level = 'LOCAL_ONLY'");
        a.tw(&["now"]).ok().stderr
    };
    assert!(
        said.contains("LOCAL_ONLY") && !said.contains("shown"),
        "{said}"
    );
    b.json(&["now"]);
    assert!(fleet.server(ALL).is_empty());
    assert!(b.rows(ALL).is_empty());
    assert_eq!(a.rows(ALL), [["x", "one", "shown", "7", "LOCAL_ONLY"]]);
    assert_eq!(never_sent(&a), [["[\"x\"]"]]);
    // Nothing brings it back, and nothing of it is said again.
    a.sql("update notes set title = 'two'");
    fleet.converge(&[&a, &b], "select 1 where false");
    assert!(fleet.server(ALL).is_empty());
    assert_eq!(a.json(&["verify"])["identical"], true);
    a.sql("update notes set level = 'FULL'");
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(b.rows(ALL), [["x", "two", "shown", "7", "FULL"]]);
    assert_eq!(fleet.conflicts(), 0);
}

#[test]
fn content_that_is_taken_back_leaves_the_conflicts_too() {
    let fleet = fleet();
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql(&format!(
        "insert into notes values ('l', 'one', '{CANARY}', 271828182845, 'FULL'), ('r', 'one', '{CANARY}', 271828182845, 'FULL')"
    ));
    fleet.converge(&[&a, &b], ALL);
    b.sql("update notes set title = 'from b'");
    a.sql(&format!(
        "update notes set title = 'from a', body = body || '-{CANARY}'"
    ));
    a.json(&["now"]);
    b.json(&["now"]);
    a.json(&["now"]);
    assert_eq!(fleet.conflicts(), 2);
    assert!(kept(&fleet).contains(CANARY));
    a.sql("update notes set level = 'REDACTED' where id = 'r'; update notes set level = 'LOCAL_ONLY' where id = 'l'");
    a.json(&["now"]);
    let kept = kept(&fleet);
    assert!(
        !kept.contains(CANARY) && !kept.contains("271828182845"),
        "{kept}"
    );
    // The records themselves, and what is no secret, are still there.
    assert_eq!(fleet.conflicts(), 2);
    assert!(kept.contains("from a"), "{kept}");
    assert_eq!(
        fleet.server("select id, body, pin from notes"),
        [["r", "NULL", "0"]]
    );
    // A device that comes later finds a conflict without its content, and cannot restore that.
    let gone = conflicts(&b)
        .into_iter()
        .find(|c| c["pk"][0] == "l")
        .unwrap();
    assert!(gone["local"].is_object(), "what b saw, b has seen: {gone}");
    b.json(&["now"]);
    assert_eq!(a.json(&["verify"])["identical"], true);
    assert_eq!(b.json(&["verify"])["identical"], true);
}

#[test]
fn taking_back_wins_over_an_edit_that_it_has_not_seen() {
    let fleet = fleet();
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql(&format!(
        "insert into notes values ('l', 'one', '{CANARY}', 271828182845, 'FULL'), ('r', 'one', '{CANARY}', 271828182845, 'FULL')"
    ));
    fleet.converge(&[&a, &b], ALL);
    a.sql("update notes set level = 'REDACTED' where id = 'r'; update notes set level = 'LOCAL_ONLY' where id = 'l'");
    b.sql("update notes set title = 'later'");
    b.json(&["now"]);
    a.json(&["now"]);
    b.json(&["now"]);
    assert_eq!(
        fleet.server("select id, title, body, pin, level from notes"),
        [["r", "one", "NULL", "0", "REDACTED"]]
    );
    let kept = kept(&fleet);
    assert!(
        !kept.contains(CANARY) && !kept.contains("271828182845"),
        "{kept}"
    );
    // What b wrote is told to b, and kept where it is nobody's secret.
    let told = conflicts(&b);
    assert_eq!(told.len(), 2, "{told:?}");
    let r = told.iter().find(|c| c["pk"][0] == "r").unwrap();
    assert_eq!(
        (&r["winner"], &r["local"]["title"]),
        (&"remote".into(), &"later".into())
    );
    let l = told.iter().find(|c| c["pk"][0] == "l").unwrap();
    let id = l["id"].as_str().unwrap();
    let said = b.tw(&["--json", "conflicts", "restore", id]).expect_code(2);
    assert!(said.stdout.contains("LOCAL_ONLY"), "{said:#?}");
    assert_eq!(b.rows("select id, body from notes"), [["r", CANARY]]);
    assert_eq!(a.rows("select body from notes"), [[CANARY], [CANARY]]);
}

#[test]
fn a_device_that_got_a_row_redacted_never_sends_what_it_does_not_hold() {
    let fleet = fleet();
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql(&format!(
        "insert into notes values ('x', 'one', '{CANARY}', 271828182845, 'REDACTED')"
    ));
    fleet.converge(&[&a, &b], "select id, title, level from notes");
    b.sql("update notes set title = 'two', body = 'not the body'");
    fleet.converge(&[&a, &b], "select id, title, level from notes");
    assert_eq!(fleet.server(ALL), [["x", "two", "NULL", "0", "REDACTED"]]);
    // Raised elsewhere: neither side sends the content, and the original stays.
    b.sql("update notes set level = 'FULL'");
    fleet.converge(&[&a, &b], "select id, title, level from notes");
    a.sql("update notes set title = 'three'");
    fleet.converge(&[&a, &b], "select id, title, level from notes");
    assert_eq!(fleet.server(ALL), [["x", "three", "NULL", "0", "FULL"]]);
    assert_eq!(
        a.rows("select body, pin from notes"),
        [[CANARY, "271828182845"]]
    );
    assert_eq!(a.json(&["verify"])["identical"], true);
    // Here its own app lets it out: lowered and raised again where it is held.
    a.sql("update notes set level = 'REDACTED'");
    a.json(&["now"]);
    a.sql("update notes set level = 'FULL', body = 'shown', pin = 1");
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(b.rows(ALL), [["x", "three", "shown", "1", "FULL"]]);
    b.sql("update notes set body = 'edited by b'");
    fleet.converge(&[&a, &b], ALL);
}

#[test]
fn plain_writes_in_postgres_overwrite_no_original() {
    let fleet = fleet();
    let a = fleet.device("a");
    a.sql(&format!(
        "insert into notes values ('x', 'one', '{CANARY}', 271828182845, 'REDACTED'), ('l', 'mine', '{CANARY}', 1, 'LOCAL_ONLY')"
    ));
    a.json(&["now"]);
    fleet.schema.exec(
        "update notes set body = 'intruder', pin = 1, title = 'by hand' where id = 'x';
         insert into notes values ('l', 'another', 'row', 2, 'FULL')",
    );
    a.json(&["now"]);
    a.json(&["now"]);
    let here = [
        ["l", "mine", CANARY, "1", "LOCAL_ONLY"],
        ["x", "by hand", CANARY, "271828182845", "REDACTED"],
    ];
    assert_eq!(a.rows(ALL), here);
    fleet
        .schema
        .exec("update notes set level = 'FULL' where id = 'x'");
    a.json(&["now"]);
    assert_eq!(
        a.rows("select body, pin, level from notes where id = 'x'"),
        [[CANARY, "271828182845", "FULL"]]
    );
    a.sql("update notes set title = 'edited' where id = 'x'");
    a.json(&["now"]);
    let there = fleet.server(ALL);
    assert!(!format!("{there:?}").contains(CANARY), "{there:?}");
    assert_eq!(there[0], ["l", "another", "row", "2", "FULL"]);
    // The row that stayed goes; the one of the same key comes.
    a.sql("delete from notes where id = 'l'");
    a.json(&["now"]);
    assert_eq!(
        a.rows("select title, body from notes where id = 'l'"),
        [["another", "row"]]
    );
}

#[test]
fn a_private_row_whose_key_another_took_meets_it_as_an_insert_when_it_is_shown() {
    let fleet = fleet();
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql(&format!(
        "insert into notes values ('k', 'mine', '{CANARY}', 1, 'LOCAL_ONLY')"
    ));
    a.json(&["now"]);
    b.sql("insert into notes values ('k', 'theirs', 'open', 2, 'FULL')");
    b.json(&["now"]);
    a.json(&["now"]);
    assert_eq!(a.rows("select title from notes"), [["mine"]]);
    a.sql("update notes set level = 'FULL', body = 'mine too'");
    fleet.converge(&[&a, &b], ALL);
    let told = conflicts(&a);
    assert_eq!(told[0]["kind"], "insert_insert", "{told:?}");
    assert_eq!(fleet.server("select title from notes"), [["mine"]]);
}

#[test]
fn a_replaced_row_that_is_deleted_at_once_is_deleted_everywhere() {
    let fleet = fleet();
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql(
        "insert into notes values ('x', 'one', 'open', 1, 'FULL'), ('y', 'one', 'open', 1, 'FULL')",
    );
    fleet.converge(&[&a, &b], ALL);
    // Long ago: the history is gone.
    a.sql("delete from tidewater_outbox where status = 'synced'");
    a.sql(
        "insert or replace into notes values ('x', 'two', 'open', 1, 'FULL');
         update or replace notes set id = 'x' where id = 'y';
         delete from notes",
    );
    fleet.converge(&[&a, &b], ALL);
    assert!(b.rows(ALL).is_empty());
}

#[test]
fn a_batch_under_way_is_waited_for_and_then_taken_back() {
    let fleet = fleet();
    let a = fleet.device("a");
    a.json(&["now"]);
    a.sql(&format!(
        "insert into notes values ('x', 'one', '{CANARY}', 1, 'FULL'), ('y', 'one', '{CANARY}', 1, 'FULL')"
    ));
    crash(&a, "push_after_commit", &["now"]);
    assert_eq!(fleet.server("select count(*) from notes"), [["2"]]);
    a.sql("update notes set level = 'LOCAL_ONLY' where id = 'x'; update notes set level = 'REDACTED' where id = 'y'");
    a.json(&["now"]);
    assert_eq!(fleet.server("select id, body from notes"), [["y", "NULL"]]);
    assert_eq!(
        a.rows("select count(*) from tidewater_outbox where payload is not null"),
        [["0"]]
    );
}

#[test]
fn what_waits_unsent_loses_its_content_at_the_next_claim() {
    let fleet = fleet();
    let mut a = fleet.device("a");
    a.json(&["now"]);
    let nowhere = "postgres://nobody@127.0.0.1:1/nowhere?sslmode=disable";
    a.set_env("TIDEWATER_REMOTE__URL", nowhere);
    a.sql(&format!(
        "insert into notes values ('x', 'one', '{CANARY}', 271828182845, 'FULL'), ('y', 'one', '{CANARY}', 271828182845, 'FULL')"
    ));
    a.tw(&["now"]).expect_code(3);
    a.sql("update notes set level = 'LOCAL_ONLY' where id = 'x'; update notes set level = 'REDACTED' where id = 'y'");
    a.tw(&["now"]).expect_code(3);
    let queued = a.rows("select pk, payload from tidewater_outbox");
    assert_eq!(queued.len(), 1, "{queued:?}");
    assert!(!format!("{queued:?}").contains(CANARY), "{queued:?}");
    a.unset_env("TIDEWATER_REMOTE__URL");
    a.json(&["now"]);
    assert_eq!(fleet.server("select id, body from notes"), [["y", "NULL"]]);
}

#[test]
fn rows_that_swap_their_unique_values_keep_what_stays_here() {
    let ddl =
        "create table notes (id text primary key, slot integer unique, body text, level text)";
    let config = "[tables.notes]\nprivacy_column = \"level\"\nredact = [\"body\"]\n";
    let fleet = Fleet::configured(ddl, config);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql(&format!(
        "insert into notes values ('x', 1, '{CANARY}', 'REDACTED'), ('y', 2, '{CANARY}', 'REDACTED')"
    ));
    let shown = "select id, slot, level from notes order by id";
    fleet.converge(&[&a, &b], shown);
    b.sql(
        "update notes set slot = 3 where id = 'x'; update notes set slot = 1 where id = 'y';
         update notes set slot = 2 where id = 'x'",
    );
    fleet.converge(&[&a, &b], shown);
    assert_eq!(
        a.rows("select slot, body from notes order by id"),
        [["2", CANARY], ["1", CANARY]]
    );
    // They are a's own still, and go when a says so.
    a.sql("update notes set level = 'FULL', body = 'shown' where id = 'x'");
    fleet.converge(&[&a, &b], shown);
    assert_eq!(
        fleet.server("select body from notes order by id"),
        [["shown"], ["NULL"]]
    );
}

#[test]
fn what_the_settings_keep_here_from_now_on_is_taken_back() {
    let fleet = Fleet::new(NOTES);
    let a = fleet.device("a");
    a.sql(&format!(
        "insert into notes values ('f', 'one', 'open', 1, 'FULL'), ('l', 'one', '{CANARY}', 271828182845, 'LOCAL_ONLY'),
           ('r', 'one', '{CANARY}', 271828182845, 'REDACTED')"
    ));
    a.json(&["now"]);
    assert_eq!(fleet.server("select count(*) from notes"), [["3"]]);
    let text = std::fs::read_to_string(a.config()).expect("the configuration");
    a.configure(&format!("{text}\n{CONFIG}"));
    a.json(&["now"]);
    assert_eq!(
        fleet.server("select id, body, pin from notes order by id"),
        [["f", "open", "1"], ["r", "NULL", "0"]]
    );
    assert_eq!(never_sent(&a), [["[\"l\"]"]]);
    assert_eq!(a.json(&["verify"])["identical"], true);
}

#[test]
fn private_rows_written_while_capture_was_bare_stay_private() {
    let fleet = fleet();
    let a = fleet.device("a");
    a.sql(&format!("insert into notes values ('f', 'one', 'open', 1, 'FULL'), ('g', 'one', '{CANARY}', 271828182845, 'FULL')"));
    a.json(&["now"]);
    let columns =
        "id text primary key, title text, body text, pin integer not null default 0, level text";
    a.sql(&format!(
        "create table new_notes ({columns}); insert into new_notes select * from notes;
         drop table notes; alter table new_notes rename to notes;
         insert into notes values ('{CANARY}', 'new', '', 0, 'LOCAL_ONLY');
         update notes set level = 'LOCAL_ONLY' where id = 'g'"
    ));
    a.json(&["now"]);
    a.json(&["now"]);
    assert_eq!(fleet.server("select id from notes"), [["f"]]);
    assert!(!kept(&fleet).contains(CANARY));
    a.sql(&format!("delete from notes where id = '{CANARY}'"));
    a.json(&["now"]);
    assert!(!kept(&fleet).contains(CANARY));
    assert_eq!(never_sent(&a), [["[\"g\"]"]]);
}

#[test]
fn a_slip_in_a_name_is_refused_and_nothing_is_tracked() {
    for (section, named) in [
        ("privacy_column = \"levle\"", "levle"),
        ("privacy_column = \"level\"\nredact = [\"bdoy\"]", "bdoy"),
        ("privacy_column = \"level\"\nredact = [\"level\"]", "level"),
    ] {
        let fleet = Fleet::new("create table other (id text primary key)");
        let more = format!("[tables.notes]\n{section}\n");
        let device = Device::with_url(fleet.schema.url(), fleet.schema.name(), "a", &more);
        device.sql(NOTES);
        let said = device.tw(&["--json", "init"]).expect_code(2).json();
        assert_eq!(said["error"]["code"], "SYNC-013", "{said}");
        assert!(
            said["error"]["message"].as_str().unwrap().contains(named),
            "{said}"
        );
        assert_eq!(
            device.rows("select count(*) from sqlite_schema where type = 'trigger'"),
            [["0"]]
        );
    }
}
