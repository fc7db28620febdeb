//! LISTEN: what others write arrives long before the next poll, and nothing rests on it.

use crate::stories::{MESSAGES, messages};
use crate::support::cli::{Device, Running};
use crate::support::neighbour::Pooler;
use crate::support::proxy::Proxy;
use crate::support::server::{Schema, behind, shared, start};
use crate::support::wait::{PATIENCE, eventually};
use tidewater::throwaway::Options;

/// Nothing is looked at by itself for the length of a test.
const RARE: &str = "[upload]\npoll_interval_seconds = 3600\n\n\
                    [download]\npoll_interval_seconds = 3600\n";

/// A service that has read the feed once. The sessions that LISTEN are told by `state` and statement.
fn running(device: &Device) -> Running {
    let service = device.spawn(&["run"]);
    device.json(&["now"]);
    service
}

/// How many sessions of a device listen.
fn listeners(schema: &Schema, device: &str) -> String {
    schema.one(&format!(
        "select count(*) from pg_stat_activity where application_name like 'tidewater/% {device}' \
         and query ilike 'listen %' and state = 'idle'"
    ))
}

#[track_caller]
fn arrives(device: &Device, id: &str, body: Option<&str>) {
    let expected: Vec<Vec<String>> = body.into_iter().map(|b| vec![b.to_owned()]).collect();
    eventually(PATIENCE, "the row without a poll", || {
        device.rows(&format!("select body from messages where id = '{id}'")) == expected
    });
}

#[test]
fn an_edit_in_postgres_arrives_long_before_the_next_poll() {
    let schema = Schema::new();
    // The name of the channel does not grow with the schema's.
    let a = messages(&schema, schema.url(), "hears-a", RARE);
    let service = running(&a);
    eventually(PATIENCE, "a listener", || {
        listeners(&schema, "hears-a") == "1"
    });
    for (sql, id, body) in [
        (
            "insert into messages values ('m1', 'by hand', 1)",
            "m1",
            Some("by hand"),
        ),
        (
            "update messages set body = 'again' where id = 'm1'",
            "m1",
            Some("again"),
        ),
        (
            "update messages set id = 'm2' where id = 'm1'",
            "m2",
            Some("again"),
        ),
        ("delete from messages where id = 'm2'", "m2", None),
    ] {
        schema.exec(sql);
        arrives(&a, id, body);
    }
    // Another device's push is heard as well.
    let b = crate::stories::another(&schema, "hears-b");
    b.sql("insert into messages values ('b1', 'pushed', 1)");
    b.json(&["now"]);
    arrives(&a, "b1", Some("pushed"));
    // So is what comes after the connection was lost.
    schema.exec(
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where application_name like 'tidewater/% hears-a' and query ilike 'listen %'",
    );
    eventually(PATIENCE, "a new listener", || {
        listeners(&schema, "hears-a") == "1"
    });
    schema.exec("insert into messages values ('m3', 'later', 3)");
    arrives(&a, "m3", Some("later"));
    service.signal(libc::SIGTERM);
    let said = service.wait(PATIENCE).ok();
    assert!(!said.stderr.contains("WARN"), "{said:#?}");
}

/// Notifying transactions take turns at their commit: many writers at once must not all be among them.
#[test]
fn writers_at_once_do_not_wait_for_each_other() {
    let schema = Schema::new();
    let a = messages(&schema, schema.url(), "hears-many", RARE);
    let service = running(&a);
    eventually(PATIENCE, "a listener", || {
        listeners(&schema, "hears-many") == "1"
    });
    let telling = [schema.client(), schema.client()];
    for (n, client) in telling.iter().enumerate() {
        client.exec(&format!(
            "begin; insert into messages values ('open{n}', 'late', {n})"
        ));
    }
    // Nobody has room for it among those who tell, and it does not wait.
    schema.exec("insert into messages values ('quiet', 'at once', 1)");
    for client in &telling {
        client.exec("commit");
    }
    arrives(&a, "quiet", Some("at once"));
    arrives(&a, "open1", Some("late"));
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).ok();
}

#[test]
fn a_service_wakes_nobody_by_reading() {
    let schema = Schema::new();
    let client = schema.client();
    let fast = "[download]\npoll_interval_seconds = 0.05\n";
    let reader = messages(&schema, schema.url(), "reads", fast);
    let proxy = Proxy::shared_server();
    let url = schema.url_through(proxy.host(), proxy.port());
    let hearing = Device::with_url(&url, schema.name(), "rests", RARE);
    hearing.sql(MESSAGES);
    hearing.tw(&["init"]).ok();
    let (_resting, _reading) = (running(&hearing), running(&reader));
    eventually(PATIENCE, "a listener", || {
        listeners(&schema, "rests") == "1"
    });
    // All that was told so far has been read when a change of the server's has arrived.
    schema.exec("insert into messages values ('m1', 'told', 1)");
    arrives(&hearing, "m1", Some("told"));
    arrives(&reader, "m1", Some("told"));
    proxy.reset_stats();
    let polls = || {
        client.one(
            "select coalesce(sum(idx_scan + seq_scan), 0) from pg_stat_user_tables \
             where relname = 'tidewater_workspace' and schemaname = current_schema",
        )
    };
    let before: i64 = polls().parse().expect("a number");
    eventually(PATIENCE, "many polls of the reader", || {
        polls().parse::<i64>().expect("a number") >= before + 20
    });
    // At most the one poll that the last notification may still have caused.
    assert!(proxy.stats().requests <= 2, "{:?}", proxy.stats());
}

#[test]
fn behind_a_pooler_nothing_hangs_and_the_polls_go_on() {
    let Some(pooler) = Pooler::before(shared(), 3) else {
        return;
    };
    let schema = behind(&pooler, Schema::new);
    let fast = "[download]\npoll_interval_seconds = 0.1\n";
    let a = messages(&schema, schema.url(), "pooled", fast);
    let service = running(&a);
    schema.exec("insert into messages values ('m1', 'by hand', 1)");
    arrives(&a, "m1", Some("by hand"));
    // It was tried, refused, and told nobody.
    eventually(PATIENCE, "the attempt to listen", || {
        pooler.log().contains("unsupported startup parameter")
    });
    assert_eq!(listeners(&schema, "pooled"), "0");
    service.signal(libc::SIGTERM);
    let said = service.wait(PATIENCE).ok();
    assert!(!said.stderr.contains("WARN"), "{said:#?}");
}

#[test]
fn without_listen_there_is_no_further_connection() {
    let schema = Schema::new();
    let more = "[download]\npoll_interval_seconds = 0.1\nlisten = false\n";
    let a = messages(&schema, schema.url(), "deaf", more);
    let _service = running(&a);
    schema.exec("insert into messages values ('m1', 'by hand', 1)");
    arrives(&a, "m1", Some("by hand"));
    assert_eq!(listeners(&schema, "deaf"), "0");
}

/// A transaction that told somebody cannot be prepared: where two-phase commits are allowed they work.
#[test]
fn writers_that_commit_in_two_phases_are_not_disturbed() {
    let server = start(Options {
        settings: vec![("max_prepared_transactions".into(), "4".into())],
        ..Options::default()
    });
    let schema = Schema::on(&server.url());
    let a = messages(&schema, schema.url(), "a", "");
    schema.exec("insert into messages values ('m0', 'plain', 0)");
    let client = schema.client();
    client.exec("begin; insert into messages values ('m1', 'twice', 1); delete from messages where id = 'm0'");
    client.exec("prepare transaction 'two'");
    client.exec("commit prepared 'two'");
    a.json(&["now"]);
    arrives(&a, "m1", Some("twice"));
    // A device's push tells all the same.
    a.sql("insert into messages values ('m2', 'pushed', 2)");
    assert_eq!(a.json(&["now"])["uploaded"], 1);
}
