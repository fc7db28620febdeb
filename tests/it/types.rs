//! `[tables.NAME] types`: what an app wrote comes back as it wrote it, whatever type stands between;
//! what is written in Postgres arrives in the app's own form.

use crate::support::cli::Device;
use crate::support::fleet::{self, Fleet};
use crate::support::seed;
use crate::support::server::Schema;
use crate::values::{either_equal_or_parked, parked, random_value, send, values};

const TASKS: &str = "create table task (id text primary key, created_at text, done integer, meta text, \
     owner text, price text, day text, at text, seen integer);";

const TYPES: &str = "[tables.task]\ntypes = { created_at = \"timestamptz\", done = \"boolean\", \
     meta = \"jsonb\", owner = \"uuid\", price = \"numeric\", day = \"date\", at = \"time\", \
     seen = \"timestamptz\" }\n";

const ALL: &str = "select id, created_at, typeof(done), done, meta, owner, price, day, at, \
     typeof(seen), seen from task order by id";

const FIRST: &str = "insert into task values ('t1', '2024-05-01T12:00:00.250Z', 1, '{\"b\":1,\"a\":[1,2]}', \
     '0B9D3A10-7C3E-4F51-8F0E-0123456789AB', '12.50', '2024-02-29', '09:30', 1700000000123)";

/// A device that knows nothing of `types`.
fn plain(fleet: &Fleet, name: &str, ddl: &str) -> Device {
    let device = Device::new(&fleet.schema, name);
    device.sql(ddl);
    device.tw(&["init"]).ok();
    device
}

fn identical(devices: &[&Device]) {
    for d in devices {
        let verify = d.tw(&["--json", "verify"]).json();
        assert_eq!(verify["identical"], true, "{verify}");
    }
}

#[test]
fn what_the_app_wrote_comes_back_and_what_postgres_wrote_comes_in_its_form() {
    let fleet = Fleet::configured(TASKS, TYPES);
    let a = fleet.device("a");
    let b = plain(&fleet, "b", TASKS);
    let types = fleet.server(
        "select column_name, data_type from information_schema.columns where table_name = 'task' \
         and table_schema = current_schema() and column_name !~ 'tidewater|^id$' order by 1",
    );
    let types: Vec<String> = types.into_iter().map(|r| r.join(" ")).collect();
    assert_eq!(
        types,
        [
            "at time without time zone",
            "created_at timestamp with time zone",
            "day date",
            "done boolean",
            "meta jsonb",
            "owner uuid",
            "price numeric",
            "seen timestamp with time zone"
        ]
    );
    a.sql(FIRST);
    // Other forms of the same types, and what has more digits than Postgres keeps.
    a.sql(
        "insert into task values \
         ('t2', '2024-05-01 14:00:00+02:00', 0, '{\"a\":  1.0, \"a\": 2}', \
          '0b9d3a107c3e4f518f0e0123456789ab', '007.10', '0001-01-01', '23:59:59.123456789', 1700000000456), \
         ('t3', '2024-05-01', null, '\"\\u00e9\"', null, '1e3', null, '00:00:00', null), \
         ('t4', '2024-05-01 12:00:00.1234567Z', 1, '[]', null, '-0', '9999-12-31', null, -1), \
         ('t5', null, null, null, null, null, null, null, null)",
    );
    a.json(&["now"]);
    b.json(&["now"]);
    assert_eq!(a.rows(ALL), b.rows(ALL));
    assert!(a.rows(ALL)[0].contains(&"{\"b\":1,\"a\":[1,2]}".to_owned()));
    assert_eq!(
        fleet.server(
            "select created_at at time zone 'UTC', done, meta ->> 'b', price + 1, \
             extract(epoch from seen) from task where id = 't1'"
        ),
        [[
            "2024-05-01 12:00:00.25",
            "t",
            "1",
            "13.50",
            "1700000000.123000"
        ]]
    );
    identical(&[&a, &b]);

    // Edited in Postgres: in the app's own form on both devices, and what was not edited stays.
    fleet.schema.exec(
        "update task set created_at = '2030-01-02 03:04:05.678+02', done = not done, \
         meta = meta || '{\"z\": [1, {\"y\": 2}]}', owner = '11111111-2222-3333-4444-abcdefabcdef', \
         price = 3.10, at = '10:11:12', seen = '2030-01-02 03:04:05.678+00' where id = 't1'; \
         update task set day = '2025-01-01' where id = 't2'; \
         insert into task (id, created_at, done, meta) values ('t6', '2031-01-01 00:00+00', false, '{\"k\": 1}')",
    );
    for d in [&a, &b] {
        d.json(&["now"]);
    }
    assert_eq!(a.rows(ALL), b.rows(ALL));
    let rows = a.rows(ALL);
    assert_eq!(
        rows[0],
        [
            "t1",
            "2030-01-02T01:04:05.678Z",
            "integer",
            "0",
            "{\"a\":[1,2],\"b\":1,\"z\":[1,{\"y\":2}]}",
            "11111111-2222-3333-4444-ABCDEFABCDEF",
            "3.10",
            "2024-02-29",
            "10:11:12",
            "integer",
            "1893553445678"
        ]
    );
    assert_eq!(rows[1][1], "2024-05-01 14:00:00+02:00", "not edited there");
    assert_eq!(rows[1][4], "{\"a\":  1.0, \"a\": 2}", "not edited there");
    assert_eq!(rows[1][7], "2025-01-01");
    assert_eq!(rows[5][1], "2031-01-01T00:00:00.000Z");
    identical(&[&a, &b]);

    // Edited on both devices, and home again.
    a.sql("update task set done = 1 - done, meta = '{\"from\" : \"a\"}' where id in ('t1', 't2')");
    b.sql("update task set created_at = '2026-01-01 00:00:00', price = '1.0' where id in ('t3', 't4')");
    fleet.converge(&[], ALL_SERVER);
    for d in [&a, &b, &a] {
        d.json(&["now"]);
    }
    assert_eq!(a.rows(ALL), b.rows(ALL));
    assert_eq!(
        a.rows("select meta from task where id = 't1'"),
        [["{\"from\" : \"a\"}"]]
    );
    // Back to the form that the column has: nothing of the older writing is left.
    b.sql("update task set meta = '{\"from\":\"a\"}', created_at = '2026-01-01T00:00:00.000Z' where id = 't1'");
    b.json(&["now"]);
    a.json(&["now"]);
    assert_eq!(
        a.rows("select meta from task where id = 't1'"),
        [["{\"from\":\"a\"}"]]
    );
    identical(&[&a, &b]);
    assert_eq!(fleet.conflicts(), 0);

    // A clone has no rows to learn from: it takes the form that the workspace knows.
    let c = Device::new(&fleet.schema, "c");
    let config = c.config();
    c.tw(&[
        "clone",
        "--config",
        config.to_str().expect("a path"),
        "app.db",
    ])
    .ok();
    assert_eq!(a.rows(ALL), c.rows(ALL));
    fleet
        .schema
        .exec("update task set created_at = '2032-01-01 00:00+00' where id = 't5'");
    c.json(&["now"]);
    assert_eq!(
        c.rows("select created_at from task where id = 't5'"),
        [["2032-01-01T00:00:00.000Z"]]
    );
    identical(&[&c]);

    // What is kept beside a row goes with it, whoever deletes it.
    let kept = "select count(*) > 0 from tidewater_originals where pk = '[\"t4\"]'";
    assert_eq!(fleet.server(kept), [["t"]]);
    fleet.schema.exec("delete from task where id = 't4'");
    assert_eq!(fleet.server(kept), [["f"]]);
    b.sql("delete from task where id = 't2'");
    b.json(&["now"]);
    c.json(&["now"]);
    assert_eq!(b.rows(ALL), c.rows(ALL));
    fleet.schema.exec("truncate task");
    assert_eq!(
        fleet.server("select count(*) from tidewater_originals"),
        [["0"]]
    );
}

const ALL_SERVER: &str = "select 1";

#[test]
fn a_value_that_cannot_be_cast_parks_its_row_alone() {
    let fleet = Fleet::configured(TASKS, TYPES);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql(
        "insert into task (id, created_at) values ('ok1', '2024-01-01'), ('t', 'yesterday'); \
         insert into task (id, done) values ('d', 2); insert into task (id, meta) values ('m', '{a: 1}'); \
         insert into task (id, owner) values ('u', 'me'); insert into task (id, day) values ('y', 'now'); \
         insert into task (id, meta) values ('z', '{\"a\":\"\\u0000\"}'); \
         insert into task (id, price) values ('p', '1,5'); insert into task (id, done) values ('ok2', 1)",
    );
    a.tw(&["now"]).expect_code(1);
    b.json(&["now"]);
    assert_eq!(b.rows("select id from task order by 1"), [["ok1"], ["ok2"]]);
    let said = parked(&a);
    for (id, state, column) in [
        ("t", "22007", "created_at"),
        ("d", "22P02", "done"),
        ("m", "22P02", "meta"),
        ("u", "22P02", "owner"),
        ("y", "22007", "day"),
        ("p", "22P02", "price"),
    ] {
        let place = ("task".to_owned(), format!("\"{id}\""));
        let said = said.get(&place).unwrap_or_else(|| panic!("{id}: {said:?}"));
        assert!(
            said.contains(state) && said.contains(column),
            "{id}: {said}"
        );
        assert!(!said.contains("yesterday"), "{said}");
    }
    assert_eq!(said.len(), 7, "{said:?}");
    // The app's correction heals it.
    a.sql("update task set created_at = '2024-01-02 00:00:00' where id = 't'; delete from task where id not in ('t', 'ok1', 'ok2')");
    a.tw(&["now"]);
    b.json(&["now"]);
    assert_eq!(a.rows(ALL), b.rows(ALL));
    identical(&[&a, &b]);
}

#[test]
fn a_mirror_of_another_type_stops_its_table_with_the_command_that_helps() {
    let fleet = Fleet::new(&format!(
        "{TASKS} create table other (id integer primary key)"
    ));
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql(FIRST);
    a.sql("insert into task (id, created_at, meta) values ('t2', '2024-05-01 12:00:00', '{ }')");
    a.json(&["now"]);
    b.json(&["now"]);
    let (before, text) = (
        a.rows(ALL),
        std::fs::read_to_string(a.config()).expect("a configuration"),
    );
    a.configure(&format!("{text}\n{TYPES}"));
    a.sql("insert into other values (7); insert into task (id, done) values ('t3', 1)");
    a.json(&["now"]);
    assert_eq!(
        fleet.server("select id from other"),
        [["7"]],
        "the others go on"
    );
    let mut turns = 0;
    loop {
        let status = a.json(&["status"]);
        let problems = status["problems"].as_array().expect("problems");
        let Some(p) = problems.iter().find(|p| p["code"] == "SYNC-009") else {
            break;
        };
        turns += 1;
        assert!(turns < 10, "{status}");
        let remedy = p["remedy"].as_str().expect("a remedy");
        let (_, rest) = remedy.split_once("on the server: ").expect("a command");
        let command = rest.split("; then it is").next().expect("a command");
        assert!(
            command.starts_with("alter table ") && command.contains(" using "),
            "{command}"
        );
        fleet.schema.exec(command);
        a.json(&["now"]);
    }
    assert_eq!(turns, 8, "one command for each column");
    // Nothing of what the apps wrote was rewritten, on either side, and both go on.
    assert_eq!(
        a.rows(&format!("select * from ({ALL}) where id <> 't3'")),
        before
    );
    b.json(&["now"]);
    a.json(&["now"]);
    b.json(&["now"]);
    assert_eq!(a.rows(ALL), b.rows(ALL));
    identical(&[&a, &b]);
    assert_eq!(fleet.conflicts(), 0);
    fleet
        .schema
        .exec("update task set done = false, created_at = '2030-01-01 00:00+00' where id = 't1'");
    for d in [&a, &b] {
        d.json(&["now"]);
        assert_eq!(
            d.rows("select created_at, done, meta from task where id = 't1'"),
            [["2030-01-01T00:00:00.000Z", "0", "{\"b\":1,\"a\":[1,2]}"]]
        );
    }
    identical(&[&a, &b]);
}

#[test]
fn an_existing_table_with_such_types_is_adopted_without_configuration() {
    let schema = Schema::new();
    schema.exec(
        "create table note (id uuid primary key, at timestamptz not null default now(), flag boolean, \
         doc jsonb, raw json, made timestamp(0)); \
         insert into note values ('00000000-0000-0000-0000-000000000001', '2024-01-01 00:00+00', true, \
         '{\"a\": 1}', '{ \"x\" : 1 }', '2024-01-01'), \
         ('00000000-0000-0000-0000-000000000002', '2024-01-02 00:00+00', false, null, null, null)",
    );
    let fleet = Fleet::within(
        schema,
        "create table note (id text primary key, at datetime, flag boolean, doc json, raw text, made text)",
        "",
    );
    let a = fleet.device("a");
    // The same row in the app's own writing, and one of its own.
    a.sql(
        "insert into note values \
         ('00000000-0000-0000-0000-000000000001', '2024-01-01T00:00:00+00:00', 1, '{\"a\":1}', '{ \"x\" : 1 }', '2024-01-01 00:00:00'), \
         ('00000000-0000-0000-0000-00000000000a', '2024-03-01T00:00:00+00:00', 0, '{\"c\":1}', '[1]', '2024-01-01 00:00:00')",
    );
    a.json(&["now"]);
    let b = fleet.device("b");
    b.json(&["now"]);
    a.json(&["now"]);
    let query = "select id, at, typeof(flag), flag, doc, raw, made from note order by id";
    assert_eq!(a.rows(query), b.rows(query));
    assert_eq!(
        a.rows(query)[0][1..5],
        ["2024-01-01T00:00:00+00:00", "integer", "1", "{\"a\":1}"]
    );
    assert_eq!(a.rows(query).len(), 3);
    identical(&[&a, &b]);
    assert_eq!(
        fleet.conflicts(),
        0,
        "equal rows are equal, however they are written"
    );
    fleet.schema.exec("update note set flag = not flag, at = at + interval '1 day'; delete from note where id::text like '%2'");
    for d in [&a, &b] {
        d.json(&["now"]);
    }
    assert_eq!(a.rows(query), b.rows(query));
    assert_eq!(
        a.rows(query)[1][1..4],
        ["2024-03-02T00:00:00+00:00", "integer", "1"]
    );
    identical(&[&a, &b]);
    // A fraction of a second that the column would round is refused.
    a.sql("update note set made = '2024-01-01 00:00:00.5' where id like '%a'");
    a.tw(&["now"]).expect_code(1);
    assert!(
        parked(&a)
            .into_values()
            .all(|said| said.contains("22003") && said.contains("made"))
    );
}

#[test]
fn any_value_under_any_type_comes_back_or_is_parked_alone() {
    let pairs = [
        ("text", "timestamptz"),
        ("text", "timestamp"),
        ("text", "date"),
        ("text", "time"),
        ("text", "boolean"),
        ("text", "uuid"),
        ("text", "jsonb"),
        ("text", "json"),
        ("text", "numeric"),
        ("text", "varchar"),
        ("datetime", "timestamptz"),
        ("datetime", "timestamp"),
        ("json", "jsonb"),
        ("json", "json"),
        ("date", "date"),
        ("boolean", "boolean"),
        ("integer", "timestamptz"),
        ("integer", "boolean"),
        ("integer", "numeric"),
        ("integer", "smallint"),
        ("bigint", "integer"),
        ("numeric", "double precision"),
        ("numeric", "bigint"),
        ("numeric", "text"),
        ("real", "numeric"),
        ("real", "text"),
        ("blob", "uuid"),
        ("uuid", "uuid"),
        ("", "timestamptz"),
        ("", "uuid"),
        ("", "bytea"),
        ("blob", "jsonb"),
    ];
    let (mut ddl, mut types) = (String::new(), String::new());
    for (n, (declared, ty)) in pairs.iter().enumerate() {
        ddl.push_str(&format!(
            "create table p{n} (id integer primary key, v {declared});"
        ));
        types.push_str(&format!("[tables.p{n}]\ntypes = {{ v = \"{ty}\" }}\n"));
    }
    let fleet = Fleet::configured(&ddl, &types);
    let a = fleet.device("a");
    let b = plain(&fleet, "b", &ddl);
    let mut rng = seed::rng();
    let mut all = values();
    all.extend((0..60).map(|_| random_value(&mut rng)));
    let fill = |d: &Device, from: usize| {
        let mut conn = d.sqlite();
        let tx = conn.transaction().expect("a transaction");
        for n in 0..pairs.len() {
            for (id, v) in all.iter().enumerate().skip(from) {
                let id = i64::try_from(id).expect("a number");
                tx.execute(&format!("insert into p{n} values (?1, ?2)"), (id, v))
                    .expect("a row");
            }
        }
        tx.commit().expect("a commit");
    };
    fill(&a, 0);
    send(&a);
    b.json(&["now"]);
    for (n, (declared, ty)) in pairs.iter().enumerate() {
        let (equal, parked) = either_equal_or_parked(&a, &b, &format!("p{n}"), "id", "v");
        println!("{declared:10} as {ty:18} {equal} equal, {parked} parked");
        assert!(equal > 0, "{declared} as {ty}");
    }
    let verify = b.json(&["verify"]);
    assert_eq!(verify["identical"], true, "{verify}");
    // Every row touched in Postgres, without a change of what it holds: all stay as they were written.
    for n in 0..pairs.len() {
        fleet.schema.exec(&format!("update p{n} set v = v"));
    }
    a.tw(&["now"]);
    b.json(&["now"]);
    for n in 0..pairs.len() {
        either_equal_or_parked(&a, &b, &format!("p{n}"), "id", "v");
    }
    assert_eq!(b.json(&["verify"])["identical"], true);
    assert_eq!(fleet::conflicts(&b).len(), 0);
}
