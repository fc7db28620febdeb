//! Both sides of a table as typed values, so that a test compares what is stored and not what is shown.

use crate::support::cli::Device;
use crate::support::server::{Client, Schema};
use rusqlite::types::ValueRef;
use serde_json::Value as Json;
use std::path::Path;

/// A value with its type. A real compares by its bits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    Null,
    Int(i64),
    Real(u64),
    Text(String),
    Blob(Vec<u8>),
}

pub type Rows = Vec<Vec<Cell>>;

/// A column of a mirror, with the type that Postgres gives it.
#[derive(Debug)]
pub struct Column {
    pub name: String,
    pub pg_type: String,
}

/// A name as either side takes it, whatever is in it.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The names of the app's tables; virtual ones and their shadows are none.
pub fn tables(db: &Path) -> Vec<String> {
    let conn = rusqlite::Connection::open(db).expect("the file");
    let mut found = conn
        .prepare(
            "select name from pragma_table_list where schema = 'main' and type = 'table' \
             and name not like 'sqlite\\_%' escape '\\' \
             and name not like 'tidewater\\_%' escape '\\' order by name",
        )
        .expect("a query");
    found
        .query_map([], |r| r.get(0))
        .expect("names")
        .collect::<Result<_, _>>()
        .expect("names")
}

/// The app's columns of a mirror, in order.
pub fn columns(schema: &Schema, table: &str) -> Vec<Column> {
    schema
        .rows(&format!(
            "select column_name, data_type from information_schema.columns \
             where table_schema = current_schema and table_name = '{}' \
             and column_name not like 'tidewater\\_%' order by ordinal_position",
            table.replace('\'', "''")
        ))
        .into_iter()
        .map(|mut r| Column {
            pg_type: r.pop().expect("a type"),
            name: r.pop().expect("a name"),
        })
        .collect()
}

/// All rows of a mirror, sorted. `numeric` is read as a real.
pub fn remote(client: &Client, table: &str, columns: &[Column]) -> Rows {
    let list: Vec<String> = columns
        .iter()
        .map(|c| match c.pg_type.as_str() {
            "numeric" => format!("{}::text", ident(&c.name)),
            _ => ident(&c.name),
        })
        .collect();
    let sql = format!("select {} from {}", list.join(", "), ident(table));
    let found = client
        .block_on(client.driver().query(sql.as_str(), &[]))
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let cell = |row: &tokio_postgres::Row, i: usize| match columns[i].pg_type.as_str() {
        "bigint" => row.get::<_, Option<i64>>(i).map(Cell::Int),
        "double precision" => row
            .get::<_, Option<f64>>(i)
            .map(|r| Cell::Real(r.to_bits())),
        "numeric" => row
            .get::<_, Option<String>>(i)
            .map(|t| Cell::Real(t.parse::<f64>().expect("a number").to_bits())),
        "text" => row.get::<_, Option<String>>(i).map(Cell::Text),
        "bytea" => row.get::<_, Option<Vec<u8>>>(i).map(Cell::Blob),
        other => panic!("column {} of {table} is {other}", columns[i].name),
    };
    let mut rows: Rows = found
        .iter()
        .map(|row| {
            (0..columns.len())
                .map(|i| cell(row, i).unwrap_or(Cell::Null))
                .collect()
        })
        .collect();
    rows.sort();
    rows
}

/// All rows of a table of the file, sorted, exactly as they are stored.
pub fn stored(db: &Path, table: &str) -> Rows {
    local(db, table, &[])
}

/// The same, with what a `numeric` column of the mirror holds as a real.
pub fn local(db: &Path, table: &str, columns: &[Column]) -> Rows {
    let list: Vec<String> = columns.iter().map(|c| ident(&c.name)).collect();
    let list = if list.is_empty() {
        "*".to_owned()
    } else {
        list.join(", ")
    };
    let conn = rusqlite::Connection::open(db).expect("the file");
    let mut statement = conn
        .prepare(&format!("select {list} from {}", ident(table)))
        .expect("a query");
    let n = statement.column_count();
    let mut found = statement.query([]).expect("rows");
    let mut rows = Vec::new();
    while let Some(r) = found.next().expect("a row") {
        let mut row = Vec::with_capacity(n);
        for i in 0..n {
            let numeric = columns.get(i).is_some_and(|c| c.pg_type == "numeric");
            row.push(match r.get_ref(i).expect("a value") {
                ValueRef::Null => Cell::Null,
                ValueRef::Integer(v) if numeric => Cell::Real((v as f64).to_bits()),
                ValueRef::Integer(v) => Cell::Int(v),
                ValueRef::Real(v) => Cell::Real(v.to_bits()),
                ValueRef::Text(t) => Cell::Text(String::from_utf8(t.to_vec()).expect("UTF-8")),
                ValueRef::Blob(b) => Cell::Blob(b.to_vec()),
            });
        }
        rows.push(row);
    }
    rows.sort();
    rows
}

/// Fails unless the file and the workspace hold the same rows in every table.
#[track_caller]
pub fn assert_equal(device: &Device, schema: &Schema) {
    let client = schema.client();
    for table in tables(&device.db()) {
        let columns = columns(schema, &table);
        assert!(!columns.is_empty(), "{table} has no mirror");
        let (here, there) = (
            local(&device.db(), &table, &columns),
            remote(&client, &table, &columns),
        );
        assert_same(&table, &here, &there);
    }
}

/// Fails with the first row that only one side has.
#[track_caller]
pub fn assert_same(table: &str, here: &Rows, there: &Rows) {
    let only = |a: &Rows, b: &Rows| a.iter().find(|r| b.binary_search(r).is_err()).cloned();
    assert!(
        here == there,
        "{table} differs: {} rows here and {} there; only here {:?}; only there {:?}",
        here.len(),
        there.len(),
        only(here, there),
        only(there, here)
    );
}

/// `now`, which must leave nothing failed and nothing waiting.
#[track_caller]
pub fn sync(device: &Device) -> Json {
    let done = device.json(&["now"]);
    assert_eq!(done["failed"], 0, "{done}");
    assert_eq!(done["pending"], 0, "{done}");
    done
}

/// `verify` finds both sides identical, with nothing under way.
#[track_caller]
pub fn verify(device: &Device) {
    let found = device.json(&["verify"]);
    assert_eq!(found["identical"], true, "{found}");
    for t in found["tables"].as_array().expect("tables") {
        assert_eq!(t["local"], t["remote"], "{t}");
        assert_eq!(t["in_flight"], 0, "{t}");
    }
}

/// The items of `queue` with `arguments`.
#[track_caller]
pub fn queue(device: &Device, arguments: &[&str]) -> Vec<Json> {
    let found = device.json(&[&["queue"], arguments].concat());
    found["items"].as_array().expect("items").clone()
}

/// How many transactions of the workspace wrote the rows that a mirror holds now.
pub fn transactions(schema: &Schema, table: &str) -> u32 {
    schema
        .one(&format!(
            "select count(distinct tidewater_xid) from {}",
            ident(table)
        ))
        .parse()
        .expect("a number")
}
