//! Batches that the server does not do in time: taken apart until the row at fault stands alone, which
//! then makes way for the others.

use crate::support::cli::Device;
use crate::support::fleet::{Fleet, ITEMS, crash};

const SHORT: &str = "[retry]\nmax_attempts = 2\nbase_delay_seconds = 0.001\nmax_delay_seconds = 0.005\n\
                     [upload]\nbatch_size = 40\nbatch_size_max = 40\n";

/// A workspace whose statements must end within 0.9 seconds, and 100 rows that wait.
fn waiting(fleet: &Fleet) -> Device {
    let mut device = fleet.device("a");
    device.tw(&["now"]).ok();
    device.set_env("TIDEWATER_REMOTE__STATEMENT_TIMEOUT_SECONDS", "1");
    device.sql(
        "with recursive c(i) as (select 1 union all select i + 1 from c where i < 100) \
         insert into items select printf('r%03d', i), 'x', i from c",
    );
    device
}

fn arrived(fleet: &Fleet) -> String {
    fleet.schema.one("select count(*) from items")
}

#[test]
fn a_row_that_takes_too_long_on_the_server_is_parked_and_the_others_arrive() {
    let fleet = Fleet::configured(ITEMS, SHORT);
    let device = waiting(&fleet);
    fleet.schema.exec(
        "create function dawdle() returns trigger language plpgsql as $$ begin \
         if new.n = 77 then perform pg_sleep(600); end if; return null; end $$; \
         create trigger slow after insert or update on items for each row execute function dawdle()",
    );
    let report = device.tw(&["--json", "now"]).json();
    assert_eq!(report["uploaded"], 99, "{report}");
    assert_eq!(arrived(&fleet), "99");
    // The second answer of the server about this row is the last.
    device.tw(&["now"]).expect_code(1);
    let queue = device.json(&["queue", "--errors"]);
    let item = &queue["items"][0];
    assert_eq!(
        (&item["pk"], &item["status"], &item["attempts"]),
        (&serde_json::json!(["r077"]), &"failed".into(), &2.into()),
        "{queue}"
    );
    let error = &item["error"];
    assert_eq!(
        (&error["code"], &error["sqlstate"]),
        (&"SYNC-004".into(), &"57014".into()),
        "{error}"
    );
    let remedy = error["remedy"].as_str().expect("a remedy");
    assert!(remedy.contains("statement_timeout_seconds"), "{remedy}");
    // Nothing is tried again by itself; after the cure it is, when asked for.
    device.tw(&["now"]).ok();
    fleet.schema.exec("drop trigger slow on items");
    device.tw(&["retry"]).ok();
    assert_eq!(arrived(&fleet), "100");
    device.json(&["verify"]);
}

#[test]
fn a_row_that_somebody_else_holds_locked_waits_alone_and_is_never_parked() {
    let fleet = Fleet::configured(ITEMS, SHORT);
    let device = waiting(&fleet);
    device.tw(&["now"]).ok();
    let holder = fleet.schema.client();
    holder.exec("begin; select 1 from items where id = 'r020' for update");
    device.sql("update items set body = 'y'");
    for _ in 0..3 {
        device.tw(&["now", "--push"]);
    }
    let changed = "select count(*) from items where body = 'y'";
    assert_eq!(fleet.schema.one(changed), "99");
    let queue = device.json(&["queue"]);
    assert_eq!(
        (&queue["total"], &queue["items"][0]["attempts"]),
        (&1.into(), &0.into()),
        "a lock is no answer about the row: {queue}"
    );
    holder.exec("rollback");
    device.tw(&["retry", "--force"]).ok();
    device.tw(&["now"]).ok();
    assert_eq!(fleet.schema.one(changed), "100");
}

#[test]
fn a_batch_that_was_applied_is_never_taken_apart_for_its_time() {
    let fleet = Fleet::configured(ITEMS, SHORT);
    let mut device = fleet.device("a");
    device.tw(&["now"]).ok();
    device.set_env("TIDEWATER_REMOTE__STATEMENT_TIMEOUT_SECONDS", "1");
    device.sql("insert into items values ('a', 'x', 1), ('b', 'x', 2)");
    crash(&device, "push_after_commit", &["now", "--push"]);
    fleet.schema.exec(
        "create function dawdle() returns trigger language plpgsql as $$ begin \
         perform pg_sleep(600); return null; end $$; \
         create trigger slow after insert or update on items for each row execute function dawdle()",
    );
    // The batch is sent again and would take for ever, were it not known already.
    let report = device.json(&["now"]);
    assert_eq!(
        (&report["uploaded"], &report["failed"]),
        (&2.into(), &0.into()),
        "{report}"
    );
    assert_eq!(fleet.conflicts(), 0);
    fleet.schema.exec("drop trigger slow on items");
    device.sql("update items set n = n + 1");
    assert_eq!(device.json(&["now"])["uploaded"], 2);
    assert_eq!(
        fleet.schema.one("select count(*) from tidewater_devices"),
        "1"
    );
}
