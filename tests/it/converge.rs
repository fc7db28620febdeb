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
const HISTORIES: usize = 6;
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

fn history(rng: &mut fastrand::Rng, policy: &str) {
    let schema = Schema::new();
    let a = Device::with_url(
        schema.url(),
        schema.name(),
        "a",
        &format!("[conflict]\npolicy = \"{policy}\"\n"),
    );
    a.sql(TABLES);
    a.tw(&["init"]).ok();
    sides::sync(&a);
    let b = another(&schema, "b");
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
                assert_eq!(done.code, 0, "{done:#?}\n{}", told.join("\n"));
            }
            1..=5 => {
                let sql = edit(rng, true);
                told.push(format!("psql: {sql}"));
                psql.exec(&sql);
            }
            _ => {
                let sql = edit(rng, false);
                told.push(format!("{name}: {sql}"));
                device.sql(&sql);
            }
        }
    }
    for device in [&a, &b, &a, &b] {
        sides::sync(device);
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

#[test]
fn random_histories_of_two_devices_and_postgres_converge() {
    let mut rng = seed::rng();
    for i in 0..HISTORIES {
        let policy = ["last_write_wins", "local_wins", "remote_wins"][i % 3];
        history(&mut rng, policy);
    }
}
