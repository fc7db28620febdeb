//! Every storage class in every declared type: a value comes back on a second device as it was written,
//! by value and class, or its row is parked alone with column, reason and remedy. Nothing third.
//! PostgreSQL itself is the oracle.

use crate::support::cli::Device;
use crate::support::fleet::Fleet;
use crate::support::seed;
use rusqlite::types::{Value, ValueRef};
use std::collections::BTreeMap;

/// Declared types of each affinity, and those that ORMs write.
pub const DECLARED: [&str; 21] = [
    "integer",
    "bigint",
    "real",
    "double precision",
    "float",
    "text",
    "varchar(10)",
    "blob",
    "",
    "numeric",
    "decimal(10,2)",
    "boolean",
    "date",
    "datetime",
    "timestamp",
    "time",
    "json",
    "uuid",
    "string",
    "money",
    "char(3)",
];

/// What SQLite holds, told apart by class and bits.
pub fn exact(v: ValueRef<'_>) -> String {
    match v {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Integer(i) => format!("integer {i}"),
        ValueRef::Real(r) => format!("real {:016x} {r:?}", r.to_bits()),
        ValueRef::Text(t) => format!("text {:?}", String::from_utf8_lossy(t)),
        ValueRef::Blob(b) => format!("blob {b:02x?}"),
    }
}

/// The values of a column by key, exactly.
#[track_caller]
pub fn column(device: &Device, table: &str, key: &str, column: &str) -> BTreeMap<String, String> {
    let conn = device.sqlite();
    let sql = format!("select {key}, {column} from {table}");
    let mut statement = conn.prepare(&sql).expect("a statement");
    statement
        .query_map([], |r| Ok((exact(r.get_ref(0)?), exact(r.get_ref(1)?))))
        .and_then(Iterator::collect)
        .unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// Parked rows by table and key, with what was said of them.
#[track_caller]
pub fn parked(device: &Device) -> BTreeMap<(String, String), String> {
    let queue = device.json(&["queue", "--errors", "--limit", "100000"]);
    let items = queue["items"].as_array().expect("items");
    items
        .iter()
        .map(|i| {
            let error = &i["error"];
            assert_eq!(error["code"], "SYNC-005", "{i}");
            assert!(
                error["remedy"].as_str().is_some_and(|r| !r.is_empty()),
                "{i}"
            );
            let place = (
                i["table"].as_str().unwrap_or("").to_owned(),
                i["pk"][0].to_string(),
            );
            (place, format!("{} {}", error["sqlstate"], error["message"]))
        })
        .collect()
}

/// Values that have gone wrong somewhere before.
pub fn values() -> Vec<Value> {
    let mut out = vec![
        Value::Null,
        Value::Blob(Vec::new()),
        Value::Blob((0..=255).collect()),
    ];
    let two53 = 1_i64 << 53;
    for i in [
        0,
        1,
        -1,
        2,
        255,
        32_768,
        2_147_483_648,
        two53,
        two53 + 1,
        -two53 - 1,
        1_i64 << 51,
        i64::MAX,
        i64::MIN,
        i64::MAX - 1,
        1_700_000_000,
        1_700_000_000_123,
        1_000_000_000_000_000_000,
    ] {
        out.push(Value::Integer(i));
    }
    for r in [
        0.0,
        -0.0,
        0.1 + 0.2,
        1.0 / 3.0,
        1.5,
        1e15,
        1e17,
        1e18,
        1e300,
        -1e300,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        5e-324,
        f64::INFINITY,
        f64::NEG_INFINITY,
        9007199254740993.0,
        9.223372036854775e18,
        9.223372036854776e18,
        -9.223372036854776e18,
        2451545.25,
        std::f64::consts::PI,
    ] {
        out.push(Value::Real(r));
    }
    for t in [
        "",
        " ",
        "abc",
        "a'b\"c\\d",
        "é\u{301}",
        "日本語",
        "\u{1f600}",
        "\u{feff}bom",
        "\u{7f}",
        "tab\tnew\nline\r",
        "line\u{2028}",
        "trailing ",
        "NULL",
        "0",
        "1",
        "007",
        "+5",
        " 7 ",
        "1.0",
        "1.50",
        "1e5",
        "1e999",
        ".5",
        "5.",
        "-0",
        "-0.0",
        "0x10",
        "12345678901234567890",
        "9223372036854775808",
        "inf",
        "nan",
        "Infinity",
        "true",
        "false",
        "yes",
        "2024-02-29",
        "2024-02-29 12:34:56",
        "2024-02-29T12:34:56Z",
        "2024-02-29T12:34:56.789Z",
        "2024-02-29T12:34:56.123456789+02:00",
        "29/02/2024",
        "Feb 29 2024",
        "yesterday",
        "now",
        "infinity",
        "23:59",
        "23:59:59.5",
        "12.34",
        "1,5",
        "{\"b\":1,\"a\":[1, 2]}",
        "{\"a\": 1, \"a\": 2}",
        "[]",
        "null",
        "\"x\"",
        "{",
        "{\"a\":\"\\u0000\"}",
        "\\x00",
        "{1,2}",
        "0b9d3a10-7c3e-4f51-8f0e-0123456789ab",
        "0B9D3A10-7C3E-4F51-8F0E-0123456789AB",
        "0b9d3a107c3e4f518f0e0123456789ab",
        "a\0b",
    ] {
        out.push(Value::Text(t.to_owned()));
    }
    out
}

pub fn random_value(rng: &mut fastrand::Rng) -> Value {
    match rng.u8(0..6) {
        0 => Value::Integer(rng.i64(..) >> rng.u32(0..63)),
        1 => Value::Real(f64::from_bits(rng.u64(..))),
        2 => Value::Real((rng.i64(..) >> rng.u32(0..63)) as f64),
        3 => Value::Blob((0..rng.usize(0..20)).map(|_| rng.u8(..)).collect()),
        4 => Value::Text((0..rng.usize(0..20)).map(|_| rng.char(..)).collect()),
        _ => Value::Text(
            (0..rng.usize(1..12))
                .map(|_| char::from(b"0123456789+-.eE :TZ"[rng.usize(0..19)]))
                .collect(),
        ),
    }
}

/// Fails the test unless each row of `a` is the same on `b`, or is parked and is not there.
#[track_caller]
pub fn either_equal_or_parked(
    a: &Device,
    b: &Device,
    table: &str,
    key: &str,
    value: &str,
) -> (usize, usize) {
    let parked: Vec<String> = parked(a)
        .into_iter()
        .filter(|((t, _), _)| t == table)
        .map(|((_, k), said)| {
            assert!(
                said.contains("column ") || said.contains("NULL"),
                "{table} {k}: {said}"
            );
            k
        })
        .collect();
    let (here, there) = (column(a, table, key, value), column(b, table, key, value));
    let lost: Vec<_> = here
        .iter()
        .filter(|(k, _)| !there.contains_key(*k))
        .collect();
    assert_eq!(
        lost.len(),
        parked.len(),
        "{table}: missing {lost:?}\nparked {parked:?}"
    );
    for (k, v) in &there {
        assert_eq!(
            here.get(k),
            Some(v),
            "{table} {k}: here (left) and on the second device"
        );
    }
    (there.len(), parked.len())
}

/// Sends all there is; some of it may be refused.
#[track_caller]
pub fn send(device: &Device) {
    let out = device.tw(&["--json", "now"]);
    assert!(out.code == 0 || out.code == 1, "{}", out.stderr);
    assert_eq!(out.json()["pending"], 0, "{out:#?}");
}

#[test]
fn every_storage_class_in_every_declared_type_comes_back_or_is_parked_alone() {
    let ddl: String = DECLARED
        .iter()
        .enumerate()
        .map(|(n, d)| {
            format!(
                "create table v{n} (id integer primary key, v {d}); \
                 create table k{n} (v {d} primary key, n integer) {};",
                // A rowid table's key may be NULL, which is refused; the other half has no rowid.
                if n % 2 == 1 { "" } else { "without rowid" }
            )
        })
        .collect();
    let fleet = Fleet::new(&ddl);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    let mut rng = seed::rng();
    let mut all = values();
    all.extend((0..60).map(|_| random_value(&mut rng)));
    {
        let mut conn = a.sqlite();
        let tx = conn.transaction().expect("a transaction");
        for n in 0..DECLARED.len() {
            for (id, v) in all.iter().enumerate() {
                let id = i64::try_from(id).expect("a number");
                tx.execute(&format!("insert into v{n} values (?1, ?2)"), (id, v))
                    .expect("a row");
                if *v != Value::Null {
                    tx.execute(
                        &format!("insert or ignore into k{n} values (?1, ?2)"),
                        (v, id),
                    )
                    .expect("a row");
                }
            }
            tx.execute(
                &format!("insert into v{n} values (100000, cast(x'ff41' as text))"),
                [],
            )
            .expect("text that is not UTF-8");
        }
        tx.commit().expect("a commit");
    }
    send(&a);
    b.json(&["now"]);
    let (mut equal, mut parked) = (0, 0);
    for (n, declared) in DECLARED.iter().enumerate() {
        for (table, key, value) in [(format!("v{n}"), "id", "v"), (format!("k{n}"), "v", "n")] {
            let (e, p) = either_equal_or_parked(&a, &b, &table, key, value);
            println!("{table} {:20} {e} equal, {p} parked", declared);
            equal += e;
            parked += p;
            if value == "v" {
                // What such a column is declared for is never parked.
                assert!(e > 2, "{table}");
            }
        }
    }
    assert!(
        equal > 2000 && parked > 100,
        "{equal} equal, {parked} parked"
    );
    let verify = a.tw(&["--json", "verify"]).json();
    for t in verify["tables"].as_array().expect("tables") {
        assert_eq!(
            (&t["different"], &t["missing_local"]),
            (&0.into(), &0.into()),
            "{t}"
        );
    }
    // Back from the second device: what arrived there and is edited beside comes home unchanged.
    b.sql(
        &(0..DECLARED.len())
            .map(|n| format!("update k{n} set n = n + 1000;"))
            .collect::<String>(),
    );
    b.json(&["now"]);
    a.tw(&["now"]);
    for n in 0..DECLARED.len() {
        let (here, there) = (
            column(&a, &format!("k{n}"), "v", "n"),
            column(&b, &format!("k{n}"), "v", "n"),
        );
        for (k, v) in &there {
            assert_eq!(here.get(k), Some(v), "k{n} {k}");
        }
    }
    assert_eq!(fleet.conflicts(), 0);
}

#[test]
fn large_values_come_back() {
    let fleet = Fleet::new("create table big (id text primary key, b blob, t text)");
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql(
        "insert into big values ('blob', randomblob(16000000), null), \
         ('text', null, replace(hex(zeroblob(250000)), '00', 'aé日'))",
    );
    a.json(&["now"]);
    b.json(&["now"]);
    let query = "select id, typeof(b), length(b), typeof(t), length(t), length(cast(t as blob)) from big order by id";
    assert_eq!(a.rows(query), b.rows(query));
    assert_eq!(b.rows(query)[0][2], "16000000");
    assert_eq!(b.rows(query)[1][5], "1500000");
    assert_eq!(a.json(&["verify"])["identical"], true);
    assert_eq!(b.json(&["verify"])["identical"], true);
}

#[test]
fn a_limit_of_an_adopted_column_refuses_what_it_would_round() {
    let fleet = Fleet::new("create table paid (id integer primary key, amount numeric)");
    fleet
        .schema
        .exec("create table paid (id bigint primary key, amount numeric(10,2))");
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into paid values (1, 12.5), (2, 1.005), (3, 7), (4, 0.99)");
    a.tw(&["now"]);
    b.json(&["now"]);
    let parked = parked(&a);
    let (place, said) = parked.first_key_value().expect("a parked row");
    assert_eq!((parked.len(), place.1.as_str()), (1, "2"), "{parked:?}");
    assert!(said.contains("22003") && said.contains("amount"), "{said}");
    assert_eq!(
        b.rows("select id, amount from paid order by id"),
        [["1", "12.5"], ["3", "7"], ["4", "0.99"]]
    );
}
