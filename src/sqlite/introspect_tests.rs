//! What is tracked and what is not, on real schemas.

use super::*;
use crate::sqlite::capture;

fn open(sql: &str) -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(include_str!("../../migrations/sqlite/0001_tidewater.sql"))
        .unwrap();
    conn.execute_batch(sql).unwrap();
    conn
}

fn look(conn: &Connection) -> Introspection {
    tables(conn, &TrackSettings::default()).unwrap()
}

fn names(i: &Introspection) -> Vec<&str> {
    i.tables.iter().map(|t| t.name.as_str()).collect()
}

fn why<'a>(i: &'a Introspection, name: &str) -> &'a str {
    i.skipped
        .iter()
        .find(|s| s.name == name)
        .map_or("tracked", |s| &s.reason)
}

#[test]
fn an_ordinary_table_is_described_whole() {
    let conn = open(
        "create table chat (id text primary key);
         create table \"we\"\"ird\" (
           a text collate nocase, b int not null default 5, c, d blob, g int generated always as (b + 1),
           chat text references chat(id) on delete cascade,
           primary key (c, a), unique (d, b));
         create unique index \"i 1\" on \"we\"\"ird\" (lower(a), b collate rtrim) where b > 0;
         create index plain on \"we\"\"ird\" (b);
         create trigger mine after insert on \"we\"\"ird\" begin select 1; end;",
    );
    let found = look(&conn);
    assert_eq!(names(&found), ["chat", "we\"ird"]);
    let t = &found.tables[1];
    assert_eq!(t.key, ["c", "a"]);
    assert_eq!(t.key_collations, ["BINARY", "NOCASE"]);
    assert!(t.has_app_triggers && !t.without_rowid);
    let b = t.column("b").unwrap();
    assert!(b.not_null && b.has_default && b.declared.eq_ignore_ascii_case("int"));
    assert!(t.column("g").unwrap().generated);
    assert_eq!(
        t.foreign_keys,
        [ForeignKey {
            parent: "chat".into(),
            columns: vec!["chat".into()]
        }]
    );
    assert_eq!(t.uniques.len(), 2);
    assert_eq!(t.uniques[0].name, "i 1");
    assert!(t.uniques[0].partial);
    assert_eq!(
        t.uniques[0].columns,
        [
            (None, "BINARY".to_owned()),
            (Some("b".to_owned()), "RTRIM".to_owned())
        ]
    );
    assert_eq!(
        t.uniques[1].columns,
        [
            (Some("d".to_owned()), "BINARY".to_owned()),
            (Some("b".to_owned()), "BINARY".to_owned())
        ]
    );
    assert_eq!(t.indexes.len(), 2);
    assert!(t.sql.starts_with("CREATE TABLE"));
    let chat = &found.tables[0];
    assert!(!chat.has_app_triggers && chat.uniques.is_empty());
    let version: i64 = conn
        .query_row("pragma schema_version", [], |r| r.get(0))
        .unwrap();
    assert_eq!(found.schema_version, version);
}

#[test]
fn keys_of_every_shape_are_found() {
    let conn = open(
        "create table r (id integer primary key, v);
         create table w (b text, a int, primary key (a, b)) without rowid;
         create table d (id integer primary key desc, v any) strict;",
    );
    let found = look(&conn);
    let key = |n: &str| {
        found
            .tables
            .iter()
            .find(|t| t.name == n)
            .unwrap()
            .key
            .join(",")
    };
    assert_eq!(
        (key("r"), key("w"), key("d")),
        ("id".into(), "a,b".into(), "id".into())
    );
    assert!(
        found
            .tables
            .iter()
            .find(|t| t.name == "w")
            .unwrap()
            .without_rowid
    );
}

#[test]
fn what_cannot_or_should_not_be_tracked_is_listed_with_its_reason() {
    let long = "l".repeat(64);
    let conn = open(&format!(
        "create table ok (id integer primary key autoincrement);
         create table bare (a, b);
         create table {long} (id integer primary key);
         create table reserved (id integer primary key, tidewater_x);
         create table django_migrations (id integer primary key);
         create table migrations (id integer primary key, timestamp, name);
         create view v as select 1;
         create virtual table docs using fts5(body);
         create table docs_tags (id integer primary key);
         create table off (id integer primary key);"
    ));
    // A virtual table of a module that only the app has, and its shadows.
    conn.execute_batch(
        "pragma writable_schema = on;
         insert into sqlite_schema (type, name, tbl_name, rootpage, sql)
           values ('table', 'vec', 'vec', 0, 'CREATE VIRTUAL TABLE vec USING vec0(e float[3])');
         pragma writable_schema = reset;
         create table vec_chunks (id integer primary key);",
    )
    .unwrap();
    let settings = TrackSettings {
        include: vec!["*".into()],
        exclude: vec!["OF?".into()],
        privacy: BTreeMap::new(),
        types: BTreeMap::new(),
    };
    let found = tables(&conn, &settings).unwrap();
    assert_eq!(names(&found), ["docs_tags", "ok"]);
    for (name, reason) in [
        ("bare", "it has no primary key"),
        (long.as_str(), "its name is longer than 63 bytes"),
        (
            "reserved",
            "the name of its column \"tidewater_x\" begins with tidewater_, which is reserved",
        ),
        ("django_migrations", "book-keeping of a migration tool"),
        ("migrations", "book-keeping of a migration tool"),
        ("v", "a view"),
        ("docs", "a virtual table"),
        ("docs_data", "part of a virtual table"),
        ("vec", "a virtual table"),
        ("vec_chunks", "part of a virtual table"),
        ("off", "excluded by [local] exclude"),
        ("tidewater_log", "tidewater's own"),
        ("sqlite_sequence", "tracked"),
    ] {
        assert_eq!(why(&found, name), reason, "{name}");
    }
    assert!(found.skipped.iter().filter(|s| s.fault).count() == 3);
    assert!(found.skipped.iter().all(|s| s.fault != s.remedy.is_empty()));
}

#[test]
fn a_collation_of_the_app_is_refused() {
    let conn = open(
        "create table t (id text primary key collate nocase);
         pragma writable_schema = on;
         update sqlite_schema set sql = replace(sql, 'nocase', 'icu_de') where name = 't';
         pragma writable_schema = reset",
    );
    let found = look(&conn);
    assert!(found.tables.is_empty());
    assert!(why(&found, "t").contains("which only the app has"));
}

#[test]
fn parents_come_before_children_and_cycles_by_name() {
    let conn = open(
        "create table a (id integer primary key, p references x);
         create table b (id integer primary key);
         create table c (id integer primary key, p references z, q references c);
         create table x (id integer primary key, p references y);
         create table y (id integer primary key, p references X);
         create table z (id integer primary key);",
    );
    assert_eq!(names(&look(&conn)), ["b", "z", "c", "x", "a", "y"]);
}

#[test]
fn privacy_names_what_is_there_or_fails() {
    let conn = open("create table t (id text primary key, body, n not null)");
    let with = |table: &str, level, redact: &[&str]| {
        let redact = redact.iter().map(|s| (*s).to_owned()).collect();
        tables(
            &conn,
            &TrackSettings {
                privacy: BTreeMap::from([(
                    table.to_owned(),
                    TablePrivacy {
                        level,
                        redact,
                        column: None,
                    },
                )]),
                ..TrackSettings::default()
            },
        )
    };
    for (table, redact) in [("nosuch", vec![]), ("t", vec!["id"]), ("t", vec!["nosuch"])] {
        let e = with(table, Privacy::Redacted, &redact).unwrap_err();
        assert_eq!(e.code, Code::Configuration);
        assert!(e.table.is_some() && !e.remedy.is_empty());
    }
    let found = with("t", Privacy::Redacted, &["body"]).unwrap();
    assert_eq!(found.tables[0].privacy, Privacy::Redacted);
    assert!(found.tables[0].column("body").unwrap().redacted);
    // A level of full redacts nothing by itself; the list serves the rows that say so themselves.
    let found = with("t", Privacy::Full, &["body"]).unwrap();
    assert!(!found.tables[0].column("body").unwrap().redacted);
    let found = with("T", Privacy::LocalOnly, &[]).unwrap();
    assert_eq!((found.tables.len(), why(&found, "t")), (0, "local_only"));
    let bad = TrackSettings {
        exclude: vec!["[".into()],
        ..TrackSettings::default()
    };
    assert_eq!(tables(&conn, &bad).unwrap_err().code, Code::Configuration);
}

#[test]
fn capture_is_no_trigger_of_the_app() {
    let conn = open("create table t (id text primary key, u unique)");
    conn.execute_batch(include_str!("../../migrations/sqlite/0003_schemas.sql"))
        .unwrap();
    let before = look(&conn).tables;
    capture::install(&conn, &before).unwrap();
    assert_eq!(look(&conn).tables, before);
}
