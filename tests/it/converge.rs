//! Random histories: three sides edit few keys of many shapes and devices sync in between, in parts and
//! in any order. However that went, once all have synced all hold the same.

use crate::sides;
use crate::stories::another;
use crate::support::cli::Device;
use crate::support::seed;
use crate::support::server::{Client, Schema};

const TABLES: &str = "
    create table plain (k text primary key, v text, n integer);
    create table pair (a integer, b text, r real, primary key (a, b)) without rowid;
    create table bytes (id blob primary key, content blob);
    create table counter (id integer primary key, total numeric not null default 0);
";
/// Rows that meet on their values, not on their keys.
const UNIQUE: &str = "create table people (id text primary key, email text unique, name text)";
const STEPS: usize = 120;

/// A literal that both databases read alike.
fn text(rng: &mut fastrand::Rng) -> String {
    [
        "NULL",
        "''",
        "'a'",
        "'é漢🌊'",
        "'it''s'",
        "'1'",
        "'-0'",
        "'\\'",
    ][rng.usize(..8)]
    .to_owned()
}

fn edit(rng: &mut fastrand::Rng, psql: bool) -> String {
    let hex = |n: u8| match psql {
        true => format!("'\\x{n:02x}ff'::bytea"),
        false => format!("x'{n:02x}ff'"),
    };
    // Few keys, so that sides meet all the time.
    let k = rng.u8(..4);
    match rng.u8(..16) {
        0 | 1 => format!(
            "insert into plain (k, v, n) values ('k{k}', {}, {}) on conflict (k) do update \
             set v = excluded.v, n = excluded.n",
            text(rng),
            rng.i64(..)
        ),
        2 => format!("update plain set v = {} where k = 'k{k}'", text(rng)),
        3 => format!("delete from plain where k = 'k{k}'"),
        // A key that moves, where its place is free.
        4 => format!(
            "update plain set k = 'k{0}' where k = 'k{k}' and not exists \
             (select 1 from plain where k = 'k{0}')",
            rng.u8(..6)
        ),
        5 => format!(
            "delete from plain where k = 'k{k}'; insert into plain (k, v) values ('k{k}', 'reborn')"
        ),
        6 | 7 => format!(
            "insert into pair (a, b, r) values ({k}, {}, {:?}) on conflict (a, b) do update set r = excluded.r",
            ["''", "'b'", "'ß'"][rng.usize(..3)],
            f64::from(rng.i32(..)) / 7.0
        ),
        8 => format!("delete from pair where a = {k}"),
        9 => format!("update pair set r = null where a = {k}"),
        10 | 11 => format!(
            "insert into bytes (id, content) values ({}, {}) on conflict (id) do update \
             set content = excluded.content",
            hex(k),
            hex(rng.u8(..))
        ),
        12 => format!("delete from bytes where id = {}", hex(k)),
        13 => format!(
            "insert into counter (id, total) values ({k}, 1.5) on conflict (id) do update \
             set total = counter.total + 1"
        ),
        14 => format!("update counter set total = total + 0.25 where id <= {k}"),
        _ => format!("delete from counter where id = {k}"),
    }
}

/// An edit that the side may refuse, because another row holds the value.
fn edit_people(rng: &mut fastrand::Rng, side: &str) -> String {
    let (id, email) = (rng.u8(..4), rng.u8(..4));
    match rng.u8(..8) {
        0..=2 => format!(
            "insert into people (id, email, name) values ('{side}{id}', 'e{email}', 'by {side}') \
             on conflict (id) do update set email = excluded.email"
        ),
        3 | 4 => format!("update people set email = 'e{email}' where id like '%{id}'"),
        5 => format!("update people set email = null where id like '%{id}'"),
        6 => format!("update people set name = name || '!' where email = 'e{email}'"),
        _ => format!("delete from people where email = 'e{email}'"),
    }
}

/// Two rows that want the same value wait for a person. This one gives up every change that the server
/// refused, until none is left; what is given up is kept.
fn settle(a: &Device, b: &Device) {
    let mut given_up = 0;
    for round in 0.. {
        let mut busy = false;
        for device in [a, b] {
            let done = device.tw(&["--json", "now"]).json();
            busy |= done["uploaded"] != 0 || done["downloaded"] != 0 || done["pending"] != 0;
            for item in sides::queue(device, &["--errors"]) {
                assert_eq!(item["error"]["sqlstate"], "23505", "{item:#}");
                let key = item["key"].as_str().expect("a change key");
                device.tw(&["discard", key, "--yes"]).ok();
                (given_up, busy) = (given_up + 1, true);
            }
        }
        if !busy {
            break;
        }
        assert!(round < 40, "no end to it");
    }
    let kept: usize = [a, b]
        .map(|d| {
            d.rows("select 1 from tidewater_conflict where kind = 'discarded'")
                .len()
        })
        .iter()
        .sum();
    assert_eq!(kept, given_up, "each is kept");
}

fn history(rng: &mut fastrand::Rng, policy: &str, unique: bool) {
    let schema = Schema::new();
    let mut a = Device::with_url(
        schema.url(),
        schema.name(),
        "a",
        &format!("[conflict]\npolicy = \"{policy}\"\n"),
    );
    a.sql(if unique { UNIQUE } else { TABLES });
    a.tw(&["init"]).ok();
    sides::sync(&a);
    let mut b = another(&schema, "b");
    for device in [&mut a, &mut b] {
        device.set_env("TIDEWATER_RETRY__BASE_DELAY_SECONDS", "0.001");
        device.set_env("TIDEWATER_RETRY__MAX_DELAY_SECONDS", "0.005");
    }
    let psql: Client = schema.client();
    let mut told = Vec::new();
    for _ in 0..STEPS {
        let device = if rng.bool() { &a } else { &b };
        let name = if std::ptr::eq(device, &a) { "a" } else { "b" };
        match rng.u8(..20) {
            0 => {
                let words = [&["now"][..], &["now", "--push"], &["now", "--pull"]][rng.usize(..3)];
                told.push(format!("{name}: {words:?}"));
                let done = device.tw(words);
                // A value may be taken for as long as the other side has not let go of it.
                let good = done.code == 0 || unique && done.code == 1;
                assert!(good, "{done:#?}\n{}", told.join("\n"));
            }
            1..=5 if unique => {
                let sql = edit_people(rng, "p");
                told.push(format!("psql: {sql}"));
                let _ = psql.try_exec(&sql);
            }
            1..=5 => {
                let sql = edit(rng, true);
                told.push(format!("psql: {sql}"));
                psql.exec(&sql);
            }
            _ if unique => {
                let sql = edit_people(rng, name);
                told.push(format!("{name}: {sql}"));
                let _ = device.sqlite().execute_batch(&sql);
            }
            _ => {
                let sql = edit(rng, false);
                told.push(format!("{name}: {sql}"));
                device.sql(&sql);
            }
        }
    }
    match unique {
        true => settle(&a, &b),
        false => [&a, &b, &a, &b].map(sides::sync).into_iter().for_each(drop),
    }
    let report = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        sides::assert_equal(&a, &schema);
        sides::assert_equal(&b, &schema);
        sides::verify(&a);
        sides::verify(&b);
        for table in sides::tables(&a.db()) {
            let (x, y) = (
                sides::stored(&a.db(), &table),
                sides::stored(&b.db(), &table),
            );
            sides::assert_same(&table, &x, &y);
        }
        for device in [&a, &b] {
            let idle = sides::sync(device);
            assert_eq!(idle["uploaded"], 0, "{idle}");
            assert_eq!(idle["downloaded"], 0, "{idle}");
        }
    }));
    if let Err(cause) = report {
        println!("policy {policy}; the history was:\n{}", told.join("\n"));
        std::panic::resume_unwind(cause);
    }
}

const POLICIES: [&str; 3] = ["last_write_wins", "local_wins", "remote_wins"];

#[test]
fn random_histories_of_two_devices_and_postgres_converge() {
    let mut rng = seed::rng();
    for policy in POLICIES {
        history(&mut rng, policy, false);
    }
}

#[test]
fn random_histories_of_rows_that_meet_on_unique_values_converge() {
    let mut rng = seed::rng();
    for policy in POLICIES {
        history(&mut rng, policy, true);
    }
}
