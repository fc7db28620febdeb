//! What `clone` takes from a workspace that somebody has tampered with: one CREATE TABLE and its CREATE
//! INDEXes for each table, and nothing else.

use crate::support::cli::{Device, Output};
use crate::support::server::Schema;
use serde_json::Value;

/// A workspace with a table that has everything that a definition may have.
fn workspace() -> (Schema, Device) {
    let schema = Schema::new();
    let device = Device::new(&schema, "first");
    device.sql(
        "create table note (id integer primary key autoincrement, body text unique not null default 'x' \
         check (length(body) > 0), tag text collate nocase, low text as (lower(tag)) stored, \
         unique (tag, body)); \
         create index by_low on note (lower(body) desc) where tag is not null; \
         create unique index \"by \"\"name\"\"\" on note (tag, id); \
         insert into note (body, tag) values ('one', 'a'); pragma user_version = 7",
    );
    device.tw(&["init"]).ok();
    device.tw(&["now"]).ok();
    (schema, device)
}

fn clone(device: &Device, name: &str) -> Output {
    let path = device.folder().join(name);
    let path = path.to_str().expect("a path");
    device.tw(&["--config", "tidewater.toml", "clone", path])
}

/// Everything in a device's folder whose name begins so.
fn left(device: &Device, name: &str) -> Vec<String> {
    std::fs::read_dir(device.folder())
        .expect("the folder")
        .map(|f| {
            f.expect("a file")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|f| f.starts_with(name))
        .collect()
}

/// Replaces the description by what `change` makes of it.
fn tamper(schema: &Schema, honest: &str, change: impl Fn(&mut Value)) {
    let mut spec: Value = serde_json::from_str(honest).expect("a description");
    change(&mut spec);
    schema.exec(&format!(
        "update tidewater_tables set spec = $spec${spec}$spec$"
    ));
}

#[test]
fn a_clone_has_the_tables_and_indexes_as_they_were_written() {
    let (_schema, device) = workspace();
    clone(&device, "copy.db").ok();
    let listed = "select name, sql from sqlite_schema where sql is not null \
                  and name not like 'tidewater%' and name not like 'sqlite%' order by name";
    let copy = rusqlite::Connection::open(device.folder().join("copy.db")).expect("the copy");
    let found: Vec<Vec<String>> = copy
        .prepare(listed)
        .expect("a query")
        .query_map([], |r| Ok(vec![r.get(0)?, r.get(1)?]))
        .expect("rows")
        .collect::<Result<_, _>>()
        .expect("rows");
    assert_eq!(found, device.rows(listed));
    assert_eq!(found.len(), 3);
}

#[test]
fn a_description_that_holds_anything_else_is_refused_and_leaves_no_file() {
    let (schema, device) = workspace();
    let honest = schema.one("select spec from tidewater_tables");
    let table = "create table note (id integer primary key, body text, tag text)";
    let elsewhere = device.folder().join("elsewhere.db");
    let attach = format!("attach '{}' as e", elsewhere.display());
    let vacuum = format!("vacuum into '{}'", elsewhere.display());
    let after = |more: &str| format!("{table}; {more}");
    let definitions = [
        (
            "a trigger",
            "create trigger t after insert on note begin delete from note; end".into(),
        ),
        ("a view", "create view note as select 1 as id".into()),
        ("a pragma", "pragma writable_schema = on".into()),
        ("attach", attach.clone()),
        ("a copy elsewhere", vacuum),
        (
            "a virtual table",
            "create virtual table note using fts5(body)".into(),
        ),
        (
            "a temporary table",
            "create temp table note (id integer primary key)".into(),
        ),
        (
            "a table that is filled",
            "create table note as select 1 as id".into(),
        ),
        (
            "another table",
            "create table other (id integer primary key)".into(),
        ),
        (
            "nothing",
            "-- create table note (id integer primary key)".into(),
        ),
        (
            "a write to the catalogue",
            "insert into sqlite_schema values ('view', 'v', 'v', 0, 'x')".into(),
        ),
        (
            "a table and a trigger",
            after("create trigger t after insert on note begin delete from note; end"),
        ),
        ("a table and a view", after("create view v as select 1")),
        ("a table and a pragma", after("pragma journal_mode = off")),
        ("a table and attach", after(&attach)),
        (
            "a table and a row",
            after("insert into note values (1, 'x', 'y')"),
        ),
        ("a table and a drop", after("drop table note")),
        (
            "two tables",
            after("create table other (id integer primary key)"),
        ),
        (
            "a table and its index",
            after("create index i on note (body)"),
        ),
        (
            "an extension",
            "create table note (id integer primary key, body text default (load_extension('x')))"
                .into(),
        ),
    ];
    for (n, (what, sql)) in definitions.iter().enumerate() {
        tamper(&schema, &honest, |spec| {
            spec["sql"] = sql.as_str().into();
            spec["indexes"] = serde_json::json!([]);
        });
        refused(&device, n, what);
    }
    let indexes = [
        (
            "an index on another table",
            "create index i on other (body)".to_owned(),
        ),
        (
            "a trigger for an index",
            "create trigger t after insert on note begin delete from note; end".into(),
        ),
        ("a pragma for an index", "pragma user_version = 9".into()),
        (
            "a table for an index",
            "create table other (id integer primary key)".into(),
        ),
        (
            "two indexes",
            "create index i on note (body); create index j on note (body)".into(),
        ),
        (
            "an index of tidewater's",
            "create index tidewater_i on note (body)".into(),
        ),
        ("attach for an index", attach),
    ];
    for (n, (what, sql)) in indexes.iter().enumerate() {
        tamper(&schema, &honest, |spec| {
            spec["indexes"] = serde_json::json!([sql]);
        });
        refused(&device, 100 + n, what);
    }
    // A table under one of tidewater's own names would stand where its queues belong.
    let own = "create table tidewater_outbox (id integer primary key)";
    tamper(&schema, &honest, |spec| {
        spec["name"] = "tidewater_outbox".into();
        spec["sql"] = own.into();
        spec["indexes"] = serde_json::json!([]);
    });
    refused(&device, 200, "a table of tidewater's");
    assert!(!elsewhere.exists());
    // The honest one works as before.
    tamper(&schema, &honest, |_| {});
    clone(&device, "honest.db").ok();
}

#[track_caller]
fn refused(device: &Device, n: usize, what: &str) {
    let name = format!("hostile{n}.");
    let out = clone(device, &format!("{name}db"));
    assert_eq!(out.code, 1, "{what}: {out:#?}");
    assert!(
        out.stderr.contains("SYNC-009") && out.stderr.contains("definition"),
        "{what}: {}",
        out.stderr
    );
    assert_eq!(left(device, &name), [""; 0], "{what}");
}
