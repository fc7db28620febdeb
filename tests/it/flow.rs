//! How fast and how often: waits of single items over restarts, batches under backlog.

use crate::stories::messages;
use crate::support::cli::Device;
use crate::support::server::Schema;
use crate::support::wait::{PATIENCE, eventually};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.expect("a clock").as_millis()).expect("a time")
}

/// Batches that the server has taken from its one device.
fn batches(schema: &Schema) -> u32 {
    schema
        .one("select push_seq from tidewater_devices")
        .parse()
        .expect("a number")
}

#[test]
fn a_wait_of_an_item_survives_restarts_and_retry_ends_it() {
    let schema = Schema::new();
    let polls = "[upload]\npoll_interval_seconds = 0.05\n\n[retry]\n\
                 base_delay_seconds = 3600\nmax_delay_seconds = 3600\n";
    let device = Device::with_url(schema.url(), schema.name(), "a", polls);
    device.sql(
        "create table parent (id integer primary key);
                create table child (id integer primary key, parent integer);",
    );
    device.tw(&["init"]).ok();
    schema.exec("alter table child add foreign key (parent) references parent (id)");
    let service = device.spawn(&["run"]);
    device.sql("insert into child select value, 99 from json_each('[1,2,3,4,5,6,7,8]')");
    let waits = || -> BTreeMap<String, (i64, i64)> {
        let rows = device.rows(
            "select change_key, attempts, coalesce(next_attempt_at, 0) from tidewater_outbox \
             where status = 'pending' and attempts > 0",
        );
        let number = |text: &str| text.parse().expect("a number");
        rows.iter()
            .map(|r| (r[0].clone(), (number(&r[1]), number(&r[2]))))
            .collect()
    };
    eventually(PATIENCE, "every child refused", || waits().len() == 8);
    // Jitter may make single waits short; those that outlast this test are looked at.
    let later = now_ms() + 10 * i64::try_from(PATIENCE.as_millis()).expect("a time");
    let long: BTreeMap<_, _> = waits().into_iter().filter(|(_, w)| w.1 > later).collect();
    assert!(
        !long.is_empty(),
        "eight waits of up to an hour: {:?}",
        waits()
    );
    service.kill();

    let service = device.spawn(&["run"]);
    device.sql("insert into parent values (1)");
    eventually(PATIENCE, "the service at work again", || {
        schema.one("select count(*) from parent") == "1"
    });
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();
    device.tw(&["now"]).ok();
    let after = waits();
    for (key, wait) in &long {
        assert_eq!(after.get(key), Some(wait), "{key} was tried again");
    }
    assert_eq!(device.json(&["status"])["upload"]["failed"], 0);

    schema.exec("insert into parent values (99)");
    let waiting: Vec<String> = waits().into_keys().collect();
    let mut retry = vec!["retry", "--force"];
    retry.extend(waiting.iter().map(String::as_str));
    device.tw(&retry).ok();
    assert_eq!(schema.one("select count(*) from child"), "8");
    assert!(waits().is_empty());
}

#[test]
fn batches_grow_under_backlog_up_to_their_bound() {
    let rows = "with recursive c(i) as (select 1 union all select i + 1 from c where i < 2000) \
                insert into messages select 'm' || i, 'body', i from c";
    let sent = |more: &str| {
        let schema = Schema::new();
        let device = messages(&schema, schema.url(), "a", more);
        device.tw(&["now"]).ok();
        let before = batches(&schema);
        device.sql(rows);
        assert_eq!(device.json(&["now"])["uploaded"], 2000);
        batches(&schema) - before
    };
    // 2000 rows in batches of 50 would be 40.
    let grown = sent("[upload]\nbatch_size = 50\n");
    assert!((2..=10).contains(&grown), "{grown} batches");
    let bounded = sent("[upload]\nbatch_size = 50\nbatch_size_max = 100\n");
    assert!((20..=22).contains(&bounded), "{bounded} batches");
}
