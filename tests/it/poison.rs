//! One row that Postgres refuses among many that it takes: isolated, named, healed, retried, given up.

use crate::sides;
use crate::stories::messages;
use crate::support::cli::Device;
use crate::support::server::Schema;
use serde_json::{Value as Json, json};

const ROWS: usize = 10_000;
const CHECK: &str = "alter table messages add constraint sane check (n <> -1)";

fn fill(device: &Device) {
    device.sql(&format!(
        "with recursive c(i) as (select 1 union all select i + 1 from c where i < {ROWS}) \
         insert into messages select 'm' || i, 'body ' || i, i from c"
    ));
}

/// `now` of a device on which `failed` changes are refused in this run.
#[track_caller]
fn now_failing(device: &Device, failed: u64) -> Json {
    let code = i32::from(failed > 0);
    let done = device.tw(&["--json", "now"]).expect_code(code).json();
    assert_eq!(done["failed"], failed, "{done}");
    done
}

/// The one failed item, which says all that a person needs.
#[track_caller]
fn the_failed_item(device: &Device, id: &str, sqlstate: &str) -> Json {
    let mut items = sides::queue(device, &["--errors"]);
    assert_eq!(items.len(), 1, "{items:#?}");
    let item = items.remove(0);
    assert_eq!(item["table"], "messages");
    assert_eq!(item["pk"], json!([id]), "{item:#}");
    assert_eq!(item["status"], "failed", "{item:#}");
    assert_eq!(item["error"]["code"], "SYNC-005", "{item:#}");
    assert_eq!(item["error"]["sqlstate"], sqlstate, "{item:#}");
    for said in ["message", "remedy"] {
        let text = item["error"][said].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "no {said}: {item:#}");
    }
    let human = device.tw(&["queue", "--errors"]).ok();
    for part in ["SYNC-005", sqlstate, id] {
        assert!(human.stdout.contains(part), "no {part}: {human:#?}");
    }
    item
}

fn row_status(device: &Device, id: &str) -> String {
    let said = device.json(&["status", "messages", id]);
    said["status"].as_str().expect("a status").to_owned()
}

fn count(schema: &Schema) -> usize {
    schema
        .one("select count(*) from messages")
        .parse()
        .expect("a number")
}

fn key(item: &Json) -> String {
    item["key"].as_str().expect("a change key").to_owned()
}

/// The outcome of the one result of `retry` or `discard`.
#[track_caller]
fn outcome(said: &Json) -> &str {
    let results = said["results"].as_array().expect("results");
    assert_eq!(results.len(), 1, "{said}");
    results[0]["outcome"].as_str().expect("an outcome")
}

#[test]
pub fn one_poison_row_among_ten_thousand_stops_nobody_else_and_heals() {
    let schema = Schema::new();
    let device = messages(&schema, schema.url(), "a", "");
    schema.exec(CHECK);
    fill(&device);
    device.sql("update messages set n = -1 where id = 'm5000'");

    let done = now_failing(&device, 1);
    assert_eq!(done["uploaded"], ROWS - 1, "{done}");
    assert_eq!(count(&schema), ROWS - 1);
    assert_eq!(
        schema.one("select count(*) from messages where id = 'm5000'"),
        "0"
    );
    let item = the_failed_item(&device, "m5000", "23514");
    let said = item["error"]["message"].as_str().unwrap();
    assert!(said.contains("sane"), "the constraint has a name: {said}");
    assert!(
        !said.contains("body 5000"),
        "the row's values do not: {said}"
    );
    assert_eq!(row_status(&device, "m5000"), "failed");
    assert_eq!(row_status(&device, "m1"), "synced");

    // Nothing is tried again by itself, and nothing else is held up.
    device.sql("insert into messages values ('next', 'flows', 1)");
    assert_eq!(now_failing(&device, 0)["uploaded"], 1);
    the_failed_item(&device, "m5000", "23514");

    // A good value of that very row heals it, without `retry`.
    device.sql("update messages set n = 5000 where id = 'm5000'");
    assert_eq!(now_failing(&device, 0)["uploaded"], 1);
    assert!(sides::queue(&device, &["--errors"]).is_empty());
    assert_eq!(row_status(&device, "m5000"), "synced");
    sides::assert_equal(&device, &schema);

    // A bad one parks it again; the remote keeps what it had.
    device.sql("update messages set n = -1, body = 'bad again' where id = 'm5000'");
    now_failing(&device, 1);
    let item = the_failed_item(&device, "m5000", "23514");
    assert_eq!(
        schema.rows("select body, n from messages where id = 'm5000'"),
        [["body 5000", "5000"]]
    );

    // Before the cure `retry` fails and says so; after it, it sends.
    let said = device
        .tw(&["--json", "retry", &key(&item)])
        .expect_code(1)
        .json();
    assert_eq!(outcome(&said), "failed", "{said}");
    assert_eq!(said["results"][0]["error"]["sqlstate"], "23514", "{said}");
    schema.exec("alter table messages drop constraint sane");
    let item = the_failed_item(&device, "m5000", "23514");
    let said = device.json(&["retry", &key(&item)]);
    assert_eq!(outcome(&said), "synced", "{said}");
    assert_eq!(
        schema.rows("select body, n from messages where id = 'm5000'"),
        [["bad again", "-1"]]
    );
    assert!(sides::queue(&device, &["--errors"]).is_empty());
    sides::assert_equal(&device, &schema);
    sides::verify(&device);
}

#[test]
fn a_value_that_does_not_fit_its_column_is_isolated_before_it_is_sent() {
    let schema = Schema::new();
    let device = messages(&schema, schema.url(), "a", "");
    fill(&device);
    device.sql("update messages set n = 'abc' where id = 'm77'");
    assert_eq!(
        device.rows("select typeof(n) from messages where id = 'm77'"),
        [["text"]]
    );
    let done = now_failing(&device, 1);
    assert_eq!(done["uploaded"], ROWS - 1, "{done}");
    assert_eq!(count(&schema), ROWS - 1);
    let item = the_failed_item(&device, "m77", "22P02");
    assert!(!item.to_string().contains("abc"), "{item:#}");

    device.sql("update messages set n = 'def' where id = 'm77'");
    now_failing(&device, 1);
    the_failed_item(&device, "m77", "22P02");
    device.sql("update messages set n = 77 where id = 'm77'");
    now_failing(&device, 0);
    assert!(sides::queue(&device, &["--errors"]).is_empty());
    sides::assert_equal(&device, &schema);
}

#[test]
fn text_with_a_nul_is_isolated_and_heals() {
    let schema = Schema::new();
    let device = messages(&schema, schema.url(), "a", "");
    fill(&device);
    device.sql("update messages set body = 'a' || char(0) || 'b' where id = 'm1234'");
    let done = now_failing(&device, 1);
    assert_eq!(done["uploaded"], ROWS - 1, "{done}");
    the_failed_item(&device, "m1234", "22021");
    // The app's own row is as it wrote it.
    assert_eq!(
        device.rows("select hex(body) from messages where id = 'm1234'"),
        [["610062"]]
    );
    device.sql("update messages set body = 'ab' where id = 'm1234'");
    now_failing(&device, 0);
    assert!(sides::queue(&device, &["--errors"]).is_empty());
    sides::assert_equal(&device, &schema);
}

#[test]
fn a_deleted_poison_row_needs_no_cure() {
    let schema = Schema::new();
    let device = messages(&schema, schema.url(), "a", "");
    schema.exec(CHECK);
    device.sql("insert into messages values ('bad', 'x', -1), ('good', 'y', 1)");
    now_failing(&device, 1);
    device.sql("delete from messages where id = 'bad'");
    now_failing(&device, 0);
    assert!(sides::queue(&device, &["--errors"]).is_empty());
    sides::assert_equal(&device, &schema);
    sides::verify(&device);
}

#[test]
fn a_discarded_change_is_kept_and_the_row_returns_to_the_remote_state() {
    let schema = Schema::new();
    let device = messages(&schema, schema.url(), "a", "");
    device.sql("insert into messages values ('m1', 'as agreed', 1)");
    sides::sync(&device);
    schema.exec(CHECK);
    device.sql("update messages set body = 'given up', n = -1 where id = 'm1'");
    now_failing(&device, 1);
    // Meanwhile the remote moved on.
    schema.exec("update messages set body = 'meanwhile' where id = 'm1'");
    device.json(&["now"]);
    let item = the_failed_item(&device, "m1", "23514");
    assert_eq!(
        device.rows("select body from messages"),
        [["given up"]],
        "an unsent change is never overwritten"
    );

    // Not without a yes.
    let said = device
        .tw(&["--json", "discard", &key(&item)])
        .expect_code(2)
        .json();
    assert_eq!(said["error"]["code"], "SYNC-013", "{said}");
    the_failed_item(&device, "m1", "23514");

    let said = device.json(&["discard", &key(&item), "--yes"]);
    assert_eq!(outcome(&said), "discarded", "{said}");
    assert!(sides::queue(&device, &["--errors"]).is_empty());
    let listed = device.json(&["conflicts"]);
    let conflicts = listed["conflicts"].as_array().unwrap();
    assert_eq!(conflicts.len(), 1, "{listed}");
    assert_eq!(conflicts[0]["kind"], "discarded", "{listed}");
    assert_eq!(
        conflicts[0]["local"],
        json!({"id": "m1", "body": "given up", "n": -1}),
        "{listed}"
    );
    assert_eq!(
        device.rows("select id, body, n from messages"),
        [["m1", "meanwhile", "1"]]
    );
    sides::assert_equal(&device, &schema);
    sides::verify(&device);
    // The row syncs as before.
    device.sql("update messages set n = 2");
    sides::sync(&device);
    sides::assert_equal(&device, &schema);
}

#[test]
fn a_discarded_row_that_the_remote_never_had_goes() {
    let schema = Schema::new();
    let device = messages(&schema, schema.url(), "a", "");
    schema.exec(CHECK);
    device.sql("insert into messages values ('bad', 'nobody wants me', -1), ('good', 'y', 1)");
    now_failing(&device, 1);
    let item = the_failed_item(&device, "bad", "23514");
    let said = device.json(&["discard", &key(&item), "--yes"]);
    assert_eq!(outcome(&said), "discarded", "{said}");
    assert_eq!(device.rows("select id from messages"), [["good"]]);
    let listed = device.json(&["conflicts"]);
    assert_eq!(
        listed["conflicts"][0]["local"],
        json!({"id": "bad", "body": "nobody wants me", "n": -1}),
        "{listed}"
    );
    sides::verify(&device);
}

#[test]
fn retry_and_discard_name_a_key_that_is_not_there() {
    let schema = Schema::new();
    let device = messages(&schema, schema.url(), "a", "");
    for words in [
        &["--json", "retry", "01J00000000000000000000000"][..],
        &["--json", "discard", "01J00000000000000000000000", "--yes"],
    ] {
        let said = device.tw(words).expect_code(2).json();
        assert_eq!(said["error"]["code"], "SYNC-013", "{said}");
        assert!(said.to_string().contains("queue --errors"), "{said}");
    }
    assert_eq!(device.json(&["retry"])["results"], json!([]));
}
