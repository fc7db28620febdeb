//! Real data: the Chinook database in Postgres, on a second device, and edited on three sides at once.

use crate::sides::{self, Cell, Column};
use crate::support::cli::{Device, tidewater};
use crate::support::seed;
use crate::support::server::{Client, Schema};
use rusqlite::Connection;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// The fixture's size; a copy that lost its rows would prove nothing.
const ROWS: usize = 15_607;
const EDITS: usize = 500;

fn chinook(schema: &Schema, name: &str) -> Device {
    let device = Device::new(schema, name);
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chinook.db");
    // Read and written, not copied: the copy must be writable whatever the fixture's mode.
    fs::write(device.db(), fs::read(fixture).expect("the fixture")).expect("a copy");
    device
}

fn cloned(schema: &Schema, name: &str) -> Device {
    let device = Device::new(schema, name);
    let db = device.db();
    device
        .tw(&["clone", "--config", "tidewater.toml", db.to_str().unwrap()])
        .ok();
    device
}

fn rows_of(db: &Path) -> usize {
    sides::tables(db)
        .iter()
        .map(|t| sides::stored(db, t).len())
        .sum()
}

/// Names and SQL of the app's schema.
fn schema_sql(db: &Path) -> Vec<(String, String, String, Option<String>)> {
    let conn = Connection::open(db).expect("the file");
    let mut found = conn
        .prepare(
            "select type, name, tbl_name, sql from sqlite_schema \
             where name not like 'tidewater%' and tbl_name not like 'tidewater%' \
             and tbl_name <> 'sqlite_sequence' order by type, name",
        )
        .expect("a query");
    found
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))
        .expect("the schema")
        .collect::<Result<_, _>>()
        .expect("the schema")
}

fn user_version(db: &Path) -> i64 {
    Connection::open(db)
        .and_then(|c| c.query_row("pragma user_version", [], |r| r.get(0)))
        .expect("the version")
}

#[test]
fn chinook_arrives_value_by_value() {
    let schema = Schema::new();
    let device = chinook(&schema, "a");
    let before: Vec<_> = sides::tables(&device.db())
        .iter()
        .map(|t| sides::stored(&device.db(), t))
        .collect();
    let report = device.json(&["init"]);
    assert_eq!(report["tables"].as_array().unwrap().len(), 11, "{report}");
    assert_eq!(report["skipped"].as_array().unwrap().len(), 0, "{report}");
    let done = sides::sync(&device);
    assert_eq!(done["uploaded"], ROWS, "{done}");
    assert_eq!(done["conflicts"], 0, "{done}");
    sides::assert_equal(&device, &schema);
    sides::verify(&device);
    // The app's own data are as they were.
    let after: Vec<_> = sides::tables(&device.db())
        .iter()
        .map(|t| sides::stored(&device.db(), t))
        .collect();
    assert!(before == after, "the app's rows were changed");
    // The comparison would have seen one wrong value.
    schema.exec("update \"Track\" set \"UnitPrice\" = 0.990001 where \"TrackId\" = 7");
    let columns = sides::columns(&schema, "Track");
    assert_ne!(
        sides::local(&device.db(), "Track", &columns),
        sides::remote(&schema.client(), "Track", &columns)
    );
    assert_eq!(sides::sync(&device)["downloaded"], 1);
    sides::assert_equal(&device, &schema);
}

#[test]
pub fn a_clone_of_chinook_equals_the_original_by_value_type_and_schema() {
    let schema = Schema::new();
    let original = chinook(&schema, "a");
    original.sql("pragma user_version = 42");
    original.tw(&["init"]).ok();
    sides::sync(&original);

    let copy = cloned(&schema, "b");
    assert_eq!(rows_of(&copy.db()), ROWS);
    assert_eq!(sides::tables(&copy.db()), sides::tables(&original.db()));
    for table in sides::tables(&original.db()) {
        let (a, b) = (
            sides::stored(&original.db(), &table),
            sides::stored(&copy.db(), &table),
        );
        sides::assert_same(&table, &a, &b);
    }
    assert_eq!(schema_sql(&copy.db()), schema_sql(&original.db()));
    assert_eq!(user_version(&copy.db()), 42);
    assert_eq!(copy.rows("pragma integrity_check"), [["ok"]]);
    sides::verify(&copy);
    // Everything is there already: the first sync of the copy moves nothing.
    let first = sides::sync(&copy);
    assert_eq!(
        (first["uploaded"].as_u64(), first["downloaded"].as_u64()),
        (Some(0), Some(0)),
        "{first}"
    );
}

#[test]
fn a_clone_never_touches_a_file_that_exists() {
    let schema = Schema::new();
    let original = chinook(&schema, "a");
    original.tw(&["init"]).ok();
    sides::sync(&original);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    fs::write(&file, "precious").unwrap();
    let said = tidewater(
        folder.path(),
        &[
            "--json",
            "clone",
            "--remote",
            schema.url(),
            "--schema",
            schema.name(),
            "app.db",
        ],
    )
    .expect_code(2);
    assert_eq!(said.json()["error"]["code"], "SYNC-013");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

/// Somebody who edits: a device's app, or a person at `psql`.
enum Side<'a> {
    App(Connection),
    Psql(&'a Client),
}

fn literal(cell: &Cell) -> String {
    match cell {
        Cell::Null => "NULL".into(),
        Cell::Int(i) => i.to_string(),
        Cell::Real(r) => format!("{:?}", f64::from_bits(*r)),
        Cell::Text(t) => format!("'{}'", t.replace('\'', "''")),
        Cell::Blob(_) => unreachable!("Chinook holds no blobs"),
    }
}

impl Side<'_> {
    /// A key of the table that this side has now.
    fn some_key(&self, rng: &mut fastrand::Rng, table: &str, key: &[String]) -> Option<Vec<Cell>> {
        let list: Vec<String> = key.iter().map(|k| format!("\"{k}\"")).collect();
        let list = list.join(", ");
        let mut keys: Vec<Vec<i64>> = match self {
            Side::App(conn) => {
                let mut s = conn
                    .prepare(&format!("select {list} from \"{table}\" order by {list}"))
                    .expect("keys");
                s.query_map([], |r| (0..key.len()).map(|i| r.get(i)).collect())
                    .expect("keys")
                    .collect::<Result<_, _>>()
                    .expect("keys")
            }
            Side::Psql(client) => client
                .rows(&format!("select {list} from \"{table}\" order by {list}"))
                .iter()
                .map(|r| r.iter().map(|v| v.parse().expect("an integer")).collect())
                .collect(),
        };
        if keys.is_empty() {
            return None;
        }
        let chosen = keys.swap_remove(rng.usize(..keys.len()));
        Some(chosen.into_iter().map(Cell::Int).collect())
    }

    fn execute(&self, sql: &str) {
        match self {
            Side::App(conn) => {
                conn.execute(sql, [])
                    .unwrap_or_else(|e| panic!("{sql}: {e}"));
            }
            Side::Psql(client) => client.exec(sql),
        }
    }
}

/// What a table is like: its columns, whether each may be NULL, and its key.
struct Shape {
    table: String,
    columns: Vec<(Column, bool)>,
    key: Vec<String>,
}

fn shapes(device: &Device, schema: &Schema) -> Vec<Shape> {
    sides::tables(&device.db())
        .into_iter()
        .map(|table| {
            let info = device.rows(&format!("pragma table_info(\"{table}\")"));
            let mut key: Vec<(String, String)> = info
                .iter()
                .filter(|r| r[5] != "0")
                .map(|r| (r[5].clone(), r[1].clone()))
                .collect();
            key.sort();
            let columns = sides::columns(schema, &table)
                .into_iter()
                .map(|c| {
                    let nullable = info.iter().any(|r| r[1] == c.name && r[3] == "0");
                    (c, nullable)
                })
                .collect();
            Shape {
                key: key.into_iter().map(|(_, name)| name).collect(),
                columns,
                table,
            }
        })
        .collect()
}

fn random_cell(rng: &mut fastrand::Rng, column: &Column, nullable: bool) -> Cell {
    if nullable && rng.u8(..5) == 0 {
        return Cell::Null;
    }
    match column.pg_type.as_str() {
        "bigint" => Cell::Int(match rng.u8(..8) {
            0 => i64::MIN,
            1 => i64::MAX,
            2 => -1,
            _ => rng.i64(0..5_000),
        }),
        // A fraction that is never whole: SQLite stores a whole one as an integer.
        "numeric" => Cell::Real((rng.i32(-9_999..9_999) as f64 + 0.37).to_bits()),
        // A letter first: SQLite makes a number of digits in a DATETIME column.
        "text" => {
            let mut text = String::from("x");
            for _ in 0..rng.usize(..12) {
                let c = [
                    'a', 'Z', '7', '\'', '"', '\\', 'é', '漢', '🌊', '\n', ' ', ';', '{',
                ];
                text.push(c[rng.usize(..c.len())]);
            }
            Cell::Text(text)
        }
        other => panic!("a {other} column"),
    }
}

/// One random edit; nothing where the key is taken or the table is empty.
fn edit(rng: &mut fastrand::Rng, side: &Side<'_>, shape: &Shape) {
    let where_key = |key: &[Cell]| {
        let parts: Vec<String> = shape
            .key
            .iter()
            .zip(key)
            .map(|(c, v)| format!("\"{c}\" = {}", literal(v)))
            .collect();
        parts.join(" and ")
    };
    let plain: Vec<&(Column, bool)> = shape
        .columns
        .iter()
        .filter(|(c, _)| !shape.key.contains(&c.name))
        .collect();
    let table = &shape.table;
    match rng.u8(..10) {
        0..=3 => {
            // From a small range above what is there, so that two sides meet on some keys.
            let (mut names, mut values) = (Vec::new(), Vec::new());
            for (c, nullable) in &shape.columns {
                names.push(format!("\"{}\"", c.name));
                values.push(match shape.key.contains(&c.name) {
                    true => rng.i64(10_000..10_200).to_string(),
                    false => literal(&random_cell(rng, c, *nullable)),
                });
            }
            side.execute(&format!(
                "insert into \"{table}\" ({}) values ({}) on conflict do nothing",
                names.join(", "),
                values.join(", ")
            ));
        }
        4..=7 => {
            let Some(key) = side.some_key(rng, table, &shape.key) else {
                return;
            };
            let mut set = String::new();
            match plain.is_empty() {
                // A table of nothing but its key: the row moves.
                true => {
                    let new = rng.i64(20_000..1_000_000_000);
                    write!(set, "\"{}\" = {new}", shape.key[0]).unwrap();
                }
                false => {
                    let (c, nullable) = plain[rng.usize(..plain.len())];
                    let value = literal(&random_cell(rng, c, *nullable));
                    write!(set, "\"{}\" = {value}", c.name).unwrap();
                }
            }
            side.execute(&format!(
                "update \"{table}\" set {set} where {}",
                where_key(&key)
            ));
        }
        _ => {
            let Some(key) = side.some_key(rng, table, &shape.key) else {
                return;
            };
            side.execute(&format!(
                "delete from \"{table}\" where {}",
                where_key(&key)
            ));
        }
    }
}

#[test]
fn five_hundred_random_edits_on_three_sides_converge() {
    let schema = Schema::new();
    let a = chinook(&schema, "a");
    a.tw(&["init"]).ok();
    sides::sync(&a);
    let b = cloned(&schema, "b");
    let shapes = shapes(&a, &schema);

    let mut rng = seed::rng();
    let client = schema.client();
    let app = |device: &Device| {
        let conn = device.sqlite();
        // Rows are edited at random: parents go before their children.
        conn.pragma_update(None, "foreign_keys", false).unwrap();
        Side::App(conn)
    };
    let all = [app(&a), app(&b), Side::Psql(&client)];
    for _ in 0..EDITS {
        let side = &all[rng.usize(..all.len())];
        let shape = &shapes[rng.usize(..shapes.len())];
        edit(&mut rng, side, shape);
    }
    drop(all);
    assert!(
        !a.rows("select 1 from tidewater_log").is_empty()
            && !b.rows("select 1 from tidewater_log").is_empty(),
        "both devices have something to send"
    );

    // A sends and sees psql's edits; B sends, meets both and is done; A sees what B did.
    sides::sync(&a);
    sides::sync(&b);
    sides::sync(&a);
    sides::assert_equal(&a, &schema);
    sides::assert_equal(&b, &schema);
    for table in sides::tables(&a.db()) {
        let (x, y) = (
            sides::stored(&a.db(), &table),
            sides::stored(&b.db(), &table),
        );
        sides::assert_same(&table, &x, &y);
    }
    for device in [&a, &b] {
        sides::verify(device);
        assert!(sides::queue(device, &["--errors"]).is_empty());
        let idle = sides::sync(device);
        assert_eq!(idle["uploaded"], 0, "{idle}");
        assert_eq!(idle["downloaded"], 0, "{idle}");
    }
}
