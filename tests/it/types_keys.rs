//! Types of key columns, and words that are refused before anything is made.

use crate::support::cli::Device;
use crate::support::fleet::Fleet;
use crate::support::server::Schema;
use crate::values::parked;

#[test]
fn a_uuid_is_a_key_as_text_and_as_a_blob() {
    let types = "[tables.t]\ntypes = { id = \"uuid\" }\n[tables.b]\ntypes = { id = \"uuid\", up = \"uuid\" }\n";
    let fleet = Fleet::configured(
        "create table t (id text primary key, n integer); \
         create table b (id blob primary key, up text, n integer) without rowid",
        types,
    );
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql(
        "insert into t values ('0b9d3a10-7c3e-4f51-8f0e-0123456789ab', 1), ('11111111-2222-3333-4444-555555555555', 2), \
         ('0B9D3A10-7C3E-4F51-8F0E-0123456789AC', 3); \
         insert into b values (x'0b9d3a107c3e4f518f0e0123456789ab', '0b9d3a10-7c3e-4f51-8f0e-0123456789ab', 1), \
         (x'00', null, 2)",
    );
    a.tw(&["now"]).expect_code(1);
    b.json(&["now"]);
    let refused = parked(&a);
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(
        refused
            .values()
            .any(|said| said.contains("column id") && said.contains("lower case")),
        "{refused:?}"
    );
    let (t, q) = (
        "select id, n from t order by 1",
        "select hex(id), up, n from b order by 1",
    );
    assert_eq!(b.rows(t).len(), 2);
    assert_eq!(
        b.rows(q),
        [[
            "0B9D3A107C3E4F518F0E0123456789AB",
            "0b9d3a10-7c3e-4f51-8f0e-0123456789ab",
            "1"
        ]]
    );
    a.sql("delete from t where n = 3; delete from b where n = 2");
    a.tw(&["now"]);
    // Deletes and edits from every side.
    b.sql("update t set n = 10 where n = 1; update b set n = 10");
    b.json(&["now"]);
    fleet.schema.exec("delete from t where n = 2; update b set n = n + 1; insert into t values ('22222222-2222-3333-4444-555555555555', 4)");
    for d in [&a, &b] {
        d.json(&["now"]);
        assert_eq!(
            d.rows(t),
            [
                ["0b9d3a10-7c3e-4f51-8f0e-0123456789ab", "10"],
                ["22222222-2222-3333-4444-555555555555", "4"]
            ]
        );
        assert_eq!(d.rows("select n from b"), [["11"]]);
        assert_eq!(d.json(&["verify"])["identical"], true);
    }
    fleet.schema.exec(
        "delete from b; update t set id = '33333333-2222-3333-4444-555555555555' where n = 4",
    );
    for d in [&a, &b] {
        d.json(&["now"]);
        assert_eq!(d.rows("select count(*) from b"), [["0"]]);
        assert_eq!(d.rows(t)[1][0], "33333333-2222-3333-4444-555555555555");
        assert_eq!(d.json(&["verify"])["identical"], true);
    }
    b.sql("delete from t where n = 4; insert into t values ('33333333-2222-3333-4444-555555555555', 5)");
    b.json(&["now"]);
    a.json(&["now"]);
    assert_eq!(a.rows(t), b.rows(t));
    assert_eq!(fleet.conflicts(), 0);
}

#[test]
fn what_can_never_be_carried_is_refused_before_anything_is_made() {
    for (types, said) in [
        ("{ b = \"boolean\" }", vec!["b", "BLOB", "boolean", "bytea"]),
        (
            "{ r = \"integer\" }",
            vec!["r", "real", "integer", "double precision"],
        ),
        ("{ at = \"timestamptz\" }", vec!["at", "primary key"]),
        ("{ nothing = \"text\" }", vec!["nothing"]),
        ("{ g = \"text\" }", vec!["g", "generated"]),
    ] {
        let schema = Schema::new();
        let more = format!("[tables.m]\ntypes = {types}\n");
        let d = Device::with_url(schema.url(), schema.name(), "d", &more);
        d.sql("create table m (at text primary key, b BLOB, r real, g text as (at))");
        let out = d.tw(&["--json", "init"]).expect_code(2).json();
        let error = &out["error"];
        assert_eq!(
            (&error["code"], &error["table"]),
            (&"SYNC-013".into(), &"m".into()),
            "{out}"
        );
        let text = format!("{} {}", error["message"], error["remedy"]).to_lowercase();
        for word in said {
            assert!(text.contains(&word.to_lowercase()), "{types}: {text}");
        }
        assert_eq!(
            schema
                .rows(
                    "select 1 from information_schema.tables where table_schema = current_schema()"
                )
                .len(),
            0
        );
    }
}

#[test]
fn a_key_of_a_type_that_writes_values_otherwise_is_refused_by_name() {
    let schema = Schema::new();
    schema.exec("create table log (at timestamptz primary key, n integer)");
    let d = Device::new(&schema, "d");
    d.sql("create table log (at text primary key, n integer); create table ok (id integer primary key)");
    d.tw(&["init"]).ok();
    let status = d.json(&["status"]);
    let problem = &status["problems"][0];
    assert_eq!(problem["code"], "SYNC-009", "{status}");
    let word = |name: &str| problem[name].as_str().unwrap_or_default();
    let said = format!("{} {}", word("message"), word("remedy"));
    assert!(
        said.contains("key column at") && said.contains("alter column \"at\" type text"),
        "{said}"
    );
}
