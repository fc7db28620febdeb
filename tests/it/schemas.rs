//! Schemas of every shape, each on two devices with edits on both and in Postgres: whatever an app
//! declares, all three sides end with the same values of the same types.

use crate::sides;
use crate::support::cli::Device;
use crate::support::fleet::{Fleet, conflicts};
use std::fmt::Write;

/// What happens in an app's life with one schema.
pub struct Life<'a> {
    pub ddl: &'a str,
    pub config: &'a str,
    /// What both devices hold before the edits.
    pub seed: &'a str,
    /// Edits that none of the others has seen.
    pub a: &'a str,
    pub b: &'a str,
    pub server: &'a str,
}

impl Life<'_> {
    /// Lives it; ends with all sides equal, nothing waiting and nothing failed.
    #[track_caller]
    pub fn live(&self) -> (Fleet, Device, Device) {
        let fleet = Fleet::configured(self.ddl, self.config);
        let (a, b) = (fleet.device("a"), fleet.device("b"));
        assert_eq!(tracked(&a), sides::tables(&a.db()), "all are tracked");
        a.sql(self.seed);
        // What replaces a row is never stamped earlier than that.
        a.sql("update tidewater_log set at = at - 3600000");
        settle(&[&a, &b]);
        equal(&fleet, &[&a, &b]);
        a.sql(self.a);
        a_minute_ago(&a);
        b.sql(self.b);
        // And those in Postgres are the latest.
        a_minute_ago(&a);
        a_minute_ago(&b);
        if !self.server.is_empty() {
            fleet.schema.exec(self.server);
        }
        settle(&[&a, &b]);
        equal(&fleet, &[&a, &b]);
        (fleet, a, b)
    }
}

/// Syncs until each has seen what the others sent.
#[track_caller]
pub fn settle(devices: &[&Device]) {
    for _ in 0..2 {
        for d in devices {
            sides::sync(d);
        }
    }
}

/// What is captured and not claimed yet was written a minute earlier: an offset is measured no better than
/// to half of a round trip, and on a busy machine that may be seconds.
pub fn a_minute_ago(device: &Device) {
    device.sql("update tidewater_log set at = at - 60000 where at > 0");
}

/// The tables that are replicated, by name.
fn tracked(device: &Device) -> Vec<String> {
    let rows = device.rows("select name from tidewater_table order by name");
    rows.concat()
}

/// Fails unless the workspace and all devices hold the same values of the same types, and know it.
#[track_caller]
pub fn equal(fleet: &Fleet, devices: &[&Device]) {
    let client = fleet.schema.client();
    let first = devices.first().expect("a device");
    for table in tracked(first) {
        let columns = sides::columns(&fleet.schema, &table);
        assert!(!columns.is_empty(), "{table} has no mirror");
        for d in devices {
            sides::assert_same(
                &table,
                &sides::stored(&first.db(), &table),
                &sides::stored(&d.db(), &table),
            );
            // How a typeless column stands there is compared by `verify`.
            if columns.iter().all(|c| c.pg_type != "jsonb") {
                let there = sides::remote(&client, &table, &columns);
                sides::assert_same(&table, &sides::local(&d.db(), &table, &columns), &there);
            }
        }
    }
    for d in devices {
        sides::verify(d);
        assert_eq!(d.rows("pragma integrity_check"), [["ok"]]);
    }
}

const SHAPES: &str = "
    create table pair (a integer, b text, note text, primary key (b, a));
    create table bare (id text primary key, n real, v blob) without rowid;
    create table bare_pair (a integer not null, b blob not null, c text default 'x', primary key (a, b)) without rowid;
    create table strict_one (id integer primary key, r real, t text, b blob, n int not null default 0) strict;
    create table strict_any (k text primary key, v any) strict, without rowid;
    create table computed (id text primary key, price real not null, qty integer not null default 1,
      total real generated always as (price * qty) stored, label text as (id || '!'), n integer as (qty + 1) virtual);
    create unique index computed_label on computed (label);
    create table defaults (id text primary key, n integer not null default 7, t text not null default 'it''s',
      at text not null default current_timestamp, e integer default (abs(-3)), b blob default x'00ff', r real default 1e3);
    create table checked (id text primary key, n integer check (n between 0 and 100),
      s text not null check (s in ('a', 'b')), constraint odd check (n <> 13 or s = 'a'));
    create table partial (id text primary key, slot text, gone integer not null default 0);
    create unique index partial_live on partial (slot) where gone = 0;
    create table expression (id text primary key, name text, tags text);
    create unique index expression_name on expression (lower(name));
    create index expression_tags on expression (length(tags), substr(tags, 1, 2) desc);
    create table descending (id integer primary key desc, v text);
    create table plain_int (id int primary key, v text);
    create table counted (id integer primary key autoincrement, v text);
    create table replacing (id text primary key, a text, b integer, unique (a, b) on conflict replace);
    create table typeless (id primary key, v);
    create table money (id text primary key, amount decimal(10, 2), at datetime, done boolean);";

#[test]
fn tables_of_every_shape_end_the_same_on_all_sides() {
    let (fleet, a, b) = Life {
        ddl: SHAPES,
        config: "",
        seed: "
            insert into pair values (1, 'x', 'one'), (2, 'x', 'two'), (1, 'y', 'three'), (9, '', 'nine');
            insert into bare values ('k1', 0.1 + 0.2, x'00'), ('k2', 1e308, null), ('k3', -0.0, x'');
            insert into bare_pair values (1, x'00', 'a'), (1, x'0000', 'b'), (2, x'', 'c');
            insert into strict_one values (1, 1, '1', x'31', 1), (2, 2.5, 'two', null, 2), (3, null, null, null, 3);
            insert into strict_any values ('i', 1), ('r', 1.5), ('t', '1'), ('n', null), ('b', x'01');
            insert into computed (id, price, qty) values ('c1', 2.5, 2), ('c2', 1, 1), ('c3', 9.99, 3);
            insert into defaults (id) values ('d1'), ('d2'), ('d3');
            insert into checked values ('h1', 1, 'a'), ('h2', 13, 'a'), ('h3', null, 'b');
            insert into partial values ('p1', 's', 0), ('p2', 's', 1), ('p3', 't', 0);
            insert into expression values ('e1', 'Ann', 'x,y'), ('e2', 'Bob', null), ('e3', null, '');
            insert into descending values (1, 'one'), (2, 'two'), (-5, 'minus');
            insert into plain_int values (1, 'one'), (2, 'two'), (9223372036854775807, 'most');
            insert into counted (v) values ('one'), ('two'), ('three');
            insert into replacing values ('r1', 'a', 1), ('r2', 'a', 2), ('r3', null, 1);
            insert into typeless values (1, 'int'), ('1', 'text'), (1.5, 2), (x'31', x'31');
            insert into money values ('m1', 10.25, '2024-01-01 10:00:00', 1), ('m2', 3, null, 0);",
        a: "
            update pair set note = 'by a' where a = 1; update pair set a = 3 where note = 'two'; delete from pair where a = 9;
            update bare set n = n * 2 where id = 'k1'; delete from bare where id = 'k3'; insert into bare values ('ka', 5, x'ff');
            update bare_pair set b = x'0001' where c = 'b'; delete from bare_pair where a = 2;
            update strict_one set t = 'by a', n = 10 where id = 1; insert into strict_one values (10, 1e9, 'ten', x'10', 10);
            update strict_any set v = '2' where k = 'i'; delete from strict_any where k = 'n';
            update computed set qty = 5 where id = 'c1'; insert into computed (id, price) values ('ca', 0.5);
            insert into defaults (id, n) values ('da', 1); update defaults set b = null where id = 'd1';
            update checked set n = 100 where id = 'h1'; delete from checked where id = 'h2';
            update partial set gone = 1 where id = 'p1'; insert into partial values ('pa', 's', 0);
            update expression set name = 'Anna' where id = 'e1'; insert into expression values ('ea', 'Cy', 'q');
            update descending set v = 'by a' where id = 1; insert into descending values (100, 'a');
            update plain_int set id = 5 where id = 1; delete from plain_int where id = 9223372036854775807;
            update counted set v = 'by a' where id = 1; insert into counted values (1000, 'a');
            insert or replace into replacing values ('ra', 'a', 1); update replacing set b = 3 where id = 'r3';
            update typeless set v = 'by a' where id = 1 and typeof(id) = 'integer'; delete from typeless where id = x'31';
            update money set amount = amount + 0.01, done = not done where id = 'm1';",
        b: "
            update pair set note = 'by b' where b = 'y'; insert into pair values (-7, 'ü', null);
            update bare set v = zeroblob(3) where id = 'k2'; replace into bare values ('k1', 7, null);
            update bare_pair set c = 'by b' where c = 'a'; insert into bare_pair (a, b) values (5, x'05');
            update strict_one set r = 1e-9 where id = 2; delete from strict_one where id = 3;
            insert into strict_any values ('x', -9223372036854775808); update strict_any set v = x'' where k = 'b';
            update computed set price = 3 where id = 'c2'; delete from computed where id = 'c3';
            update defaults set t = '' where id = 'd2'; delete from defaults where id = 'd3';
            insert into checked values ('hb', 0, 'b'); update checked set s = 'a', n = 13 where id = 'h3';
            delete from partial where id = 'p3'; insert into partial values ('pb', 't', 0);
            delete from expression where id = 'e2'; insert into expression values ('eb', 'bob', null);
            delete from descending where id = -5; insert into descending values (200, 'b');
            update plain_int set v = 'by b' where id = 2; insert into plain_int values (-1, 'b');
            delete from counted where id = 2; insert into counted values (2000, 'b');
            update replacing set a = 'b' where id = 'r2';
            insert into typeless values (0, null), ('k', 1e300); update typeless set v = null where id = 1.5;
            insert into money values ('mb', 1e-7, 'noon', null); update money set at = 1700000000 where id = 'm2';",
        server: "
            update pair set note = 'by sql' where b = 'x'; insert into pair (a, b, note) values (4, 'z', 'four');
            insert into bare (id, n, v) values ('ks', 1.0 / 3, '\\x7f'); delete from bare where id = 'k2';
            insert into bare_pair (a, b, c) values (6, '\\x06', 's');
            update strict_one set b = '\\x62', n = 20 where id = 2; insert into strict_one (id, n) values (20, 0);
            update computed set qty = 4 where id = 'c2'; insert into computed (id, price, qty) values ('cs', 7, 7);
            insert into defaults (id, n, t, at, e, b, r) values ('ds', 0, '', 'now', null, null, null);
            update checked set n = 50 where id = 'h1'; insert into checked (id, n, s) values ('hs', 13, 'a');
            insert into partial (id, slot, gone) values ('ps', 's', 1), ('pu', 'u', 0);
            update expression set tags = 'by sql' where id = 'e1'; insert into expression (id, name) values ('es', 'Dee');
            update descending set v = 'by sql' where id = 2; insert into descending (id, v) values (300, 's');
            insert into plain_int (id, v) values (300, 's'); delete from plain_int where id = 2;
            update counted set v = 'by sql' where id = 3; insert into counted (id, v) values (3000, 's');
            insert into replacing (id, a, b) values ('rs', 'c', 9);
            update money set amount = 99.5 where id = 'm2'; insert into money (id, amount, done) values ('ms', 0, 1);",
    }
    .live();
    // Nothing of this was decided by a refusal: each row that met another is a conflict or the same.
    assert!(fleet.conflicts() > 0);
    for d in [&a, &b] {
        let status = d.json(&["status"]);
        assert_eq!(status["problems"], serde_json::json!([]), "{status}");
        let done = sides::sync(d);
        assert_eq!(
            (&done["uploaded"], &done["downloaded"]),
            (&0.into(), &0.into()),
            "an idle device: {done}"
        );
        // What is computed is computed here.
        assert_eq!(
            d.rows("select total, label, n from computed where id = 'c1'"),
            [["12.5", "c1!", "6"]]
        );
    }
    // The keys that REPLACE evicted are gone on both.
    assert!(b.rows("select 1 from replacing where id = 'r1'").is_empty());
}

#[test]
fn a_table_of_a_thousand_columns_travels_both_ways() {
    let name = |i: usize| format!("c{i}");
    let mut ddl = "create table wide (id text primary key".to_owned();
    let mut names = vec!["id".to_owned()];
    for i in 1..1000 {
        let ty = ["integer", "text", "real", "text"][i / 250];
        let _ = write!(ddl, ", {} {ty}", name(i));
        names.push(name(i));
    }
    ddl.push_str(") without rowid;");
    let row = |key: &str| {
        let mut sql = format!("insert into wide ({}) values ('{key}'", names.join(", "));
        for i in 1..1000 {
            let value = match i / 250 {
                0 => i.to_string(),
                2 => format!("{i}.5"),
                _ => format!("'{}'", i % 100),
            };
            let _ = write!(sql, ", {value}");
        }
        sql + ");"
    };
    let (_, a, b) = Life {
        ddl: &ddl,
        config: "",
        seed: &(row("k1") + &row("k2") + &row("k3")),
        a: &format!(
            "update wide set c1 = -1, c999 = 'a' where id = 'k1'; {}",
            row("ka")
        ),
        b: &format!(
            "update wide set c500 = c500 + 1, c501 = null where id = 'k2'; {}",
            row("kb")
        ),
        server: &format!("update wide set c749 = 0.1 where id = 'k3'; {}", row("ks")),
    }
    .live();
    for d in [&a, &b] {
        assert_eq!(d.rows("select count(*) from wide"), [["6"]]);
        assert_eq!(
            d.rows("select c500, c501, c502 from wide where id = 'k2'"),
            [["501.5", "NULL", "502.5"]]
        );
    }
    assert!(conflicts(&a).is_empty());
}

/// Two levels below each parent, by every action, and rows that refer to themselves and in a circle.
const FAMILIES: &str = "
    create table p (id text primary key, name text);
    create table c_cascade (id text primary key, p text references p on delete cascade on update cascade);
    create table g_cascade (id text primary key, c text not null references c_cascade (id) on delete cascade on update cascade);
    create table c_null (id text primary key, p text references p on delete set null on update set null);
    create table c_default (id text primary key, p text default 'rest' references p on delete set default on update set default);
    create table c_restrict (id text primary key, p text references p on delete restrict on update restrict);
    create table c_nothing (id text primary key, p text references p on delete no action deferrable initially deferred);
    create table tree (id integer primary key, up integer references tree on delete cascade, name text);
    create table chain (id text primary key, next text references chain on delete set null);
    create table husband (id text primary key, wife text references wife deferrable initially deferred);
    create table wife (id text primary key, husband text not null references husband on delete cascade deferrable initially deferred);
    create table orders (shop text, n integer, note text, primary key (shop, n));
    create table lines (shop text, n integer, line integer, what text, primary key (shop, n, line),
      foreign key (shop, n) references orders (shop, n) on delete cascade on update cascade) without rowid;";

#[test]
fn foreign_keys_of_every_action_and_in_circles_end_the_same_on_all_sides() {
    let on = |sql: &str| format!("pragma foreign_keys = on; begin; {sql} commit;");
    let (_, a, b) = Life {
        ddl: FAMILIES,
        config: "[download]\npage_size = 3\n\n[upload]\nbatch_size = 4\nbatch_size_max = 4\n",
        seed: &on("
            insert into p values ('rest', 'r'), ('p1', 'one'), ('p2', 'two'), ('p3', 'three'), ('p4', 'four');
            insert into c_cascade values ('c1', 'p1'), ('c2', 'p2'), ('c3', 'p3'), ('c0', null);
            insert into g_cascade values ('g1', 'c1'), ('g2', 'c2'), ('g3', 'c2'), ('g4', 'c3');
            insert into c_null values ('c1', 'p1'), ('c2', 'p2'), ('c3', 'p3');
            insert into c_default values ('c1', 'p1'), ('c2', 'p2'), ('c3', 'p3');
            insert into c_restrict values ('c4', 'p4');
            insert into c_nothing values ('c1', 'p1');
            insert into tree values (1, null, 'root'), (2, 1, 'left'), (3, 1, 'right'), (4, 2, 'leaf'), (5, 5, 'self');
            insert into chain values ('x', 'y'), ('y', 'z'), ('z', 'x');
            insert into husband values ('h1', 'w1'), ('h2', 'w2'); insert into wife values ('w1', 'h1'), ('w2', 'h2');
            insert into orders values ('s', 1, 'one'), ('s', 2, 'two'), ('t', 1, 'three');
            insert into lines values ('s', 1, 1, 'a'), ('s', 1, 2, 'b'), ('s', 2, 1, 'c'), ('t', 1, 1, 'd');"),
        // A parent goes with its family, another changes its key, circles are broken and made.
        a: &on("
            delete from c_nothing; delete from p where id = 'p1';
            update p set id = 'p2x' where id = 'p2';
            delete from tree where id = 2; update tree set up = 3 where id = 5;
            delete from chain where id = 'y';
            delete from husband where id = 'h1';
            update orders set n = 7 where shop = 's' and n = 1;
            insert into husband values ('h3', 'w3'); insert into wife values ('w3', 'h3');"),
        // Meanwhile the other device works on other branches.
        b: &on("
            insert into p values ('pb', 'by b'); insert into c_cascade values ('cb', 'pb'); insert into g_cascade values ('gb', 'cb');
            delete from c_restrict; delete from p where id = 'p4';
            update c_null set p = 'pb' where id = 'c3'; update c_default set p = 'p3' where id = 'c2';
            insert into tree values (20, 3, 'by b'), (21, 20, 'below'), (22, 22, 'self');
            insert into chain values ('w', 'x'); update chain set next = 'w' where id = 'z';
            update wife set husband = 'h2' where id = 'w2';
            delete from orders where shop = 't'; insert into lines values ('s', 2, 2, 'by b');"),
        server: "
            insert into p (id, name) values ('ps', 'by sql'); insert into c_cascade (id, p) values ('cs', 'ps');
            insert into g_cascade (id, c) values ('gs', 'cs'); update c_default set p = 'ps' where id = 'c3';
            insert into tree (id, up, name) values (30, 3, 'by sql');
            insert into orders (shop, n) values ('u', 1); insert into lines (shop, n, line, what) values ('u', 1, 1, 's');",
    }
    .live();
    for d in [&a, &b] {
        assert_eq!(
            d.rows("select id, c from g_cascade order by id"),
            [
                ["g2", "c2"],
                ["g3", "c2"],
                ["g4", "c3"],
                ["gb", "cb"],
                ["gs", "cs"]
            ]
        );
        assert_eq!(d.rows("select p from c_cascade where id = 'c2'"), [["p2x"]]);
        assert_eq!(
            d.rows("select p from c_null order by id"),
            [["NULL"], ["NULL"], ["pb"]]
        );
        assert_eq!(
            d.rows("select shop, n, line from lines where what in ('a', 'b') order by line"),
            [["s", "7", "1"], ["s", "7", "2"]]
        );
        assert_eq!(
            d.rows("select id from tree order by id"),
            ["1", "3", "5", "20", "21", "22", "30"].map(|id| [id])
        );
        // No row lacks its parent, though they came in pages of three.
        assert!(d.rows("pragma foreign_key_check").is_empty());
    }
}

/// Names that a careless program would let break its statements.
const NAMES: [&str; 14] = [
    "select",
    "we\"ird",
    "it's",
    "x; drop table notes; --",
    "two words",
    "Grüße 表 🦀",
    "MiXeD",
    "UPPER",
    "a.b",
    "$1 ?1 :n @x",
    "%s {} \\",
    "[brackets] `ticks`",
    "tab\tand\nline",
    "user",
];

#[test]
fn names_of_any_characters_carry_rows_and_nothing_else() {
    let q = sides::ident;
    let mut ddl = String::new();
    for (i, name) in NAMES.iter().enumerate() {
        let (a, b) = (NAMES[(i + 1) % NAMES.len()], NAMES[(i + 2) % NAMES.len()]);
        let key = format!("{name} id");
        let _ = write!(
            ddl,
            "create table {} ({} text primary key, {} text default 'it''s', {} integer, up text references {} \
             on delete set null); create unique index {} on {} ({});",
            q(name),
            q(&key),
            q(a),
            q(b),
            q(name),
            q(&format!("{name} by {a}")),
            q(name),
            q(a),
        );
    }
    let each = |sql: &dyn Fn(&str, &str, &str, &str) -> String| -> String {
        NAMES
            .iter()
            .enumerate()
            .map(|(i, name)| {
                let (a, b) = (NAMES[(i + 1) % NAMES.len()], NAMES[(i + 2) % NAMES.len()]);
                sql(&q(name), &q(&format!("{name} id")), &q(a), &q(b))
            })
            .collect()
    };
    let (fleet, a, b) = Life {
        ddl: &ddl,
        config: "",
        seed: &each(&|t, id, x, n| {
            format!("insert into {t} ({id}, {x}, {n}) values ('k1', 'u1', 1), ('k2', 'u2', 2), ('k3', 'u3', 3);")
        }),
        a: &each(&|t, id, x, n| {
            format!("update {t} set {x} = 'by a', {n} = {n} + 10 where {id} = 'k1'; insert into {t} ({id}, {x}, up) values ('ka', 'ua', 'k1');")
        }),
        b: &each(&|t, id, x, _| {
            format!("delete from {t} where {id} = 'k2'; insert or replace into {t} ({id}, {x}) values ('kb', 'u3');")
        }),
        server: &each(&|t, id, x, n| {
            format!("insert into {t} ({id}, {x}, {n}) values ('k''s', 'us', 3); update {t} set {n} = 99 where {id} = 'k1';")
        }),
    }
    .live();
    for name in NAMES {
        let rows = format!("select count(*) from {}", q(name));
        assert_eq!(a.rows(&rows), [["4"]], "{name}");
        let key = format!("[\"{name}\", \"k1\"]");
        for said in [
            a.tw(&["--json", "status", name, "ka"]).ok().json(),
            b.tw(&["--json", "explain", name, "ka"]).ok().json(),
        ] {
            assert_eq!(said["table"], name, "{key}: {said}");
        }
    }
    assert_eq!(
        fleet.schema.one("select count(*) from tidewater_tables"),
        NAMES.len().to_string()
    );
}

#[test]
fn names_that_postgres_would_cut_are_refused_by_name() {
    let long = "n".repeat(64);
    let longest = "é".repeat(31) + "x";
    let fleet = Fleet::new("");
    let d = Device::new(&fleet.schema, "d");
    d.sql(&format!(
        "create table \"{long}\" (id text primary key);
         create table columns (id text primary key, \"{long}\" text);
         create table \"{longest}\" (id text primary key, \"{longest}2\" text, \"{longest}\" text);
         create table \"{longest}\u{1}\" (id text primary key);
         create table fits (id text primary key, \"{longest}\" text);
         insert into \"{long}\" values ('k'); insert into columns values ('k', 'v'); insert into fits values ('k', 'v')"
    ));
    let said = d.json(&["init"]);
    let skipped = said["skipped"].as_array().expect("a list");
    let why = |name: &str| {
        skipped
            .iter()
            .find(|s| s["name"] == name)
            .and_then(|s| s["reason"].as_str())
            .unwrap_or_default()
            .to_owned()
    };
    assert!(why(&long).contains("63 bytes"), "{said}");
    let columns = why("columns");
    assert!(
        columns.contains("63 bytes") && columns.contains(&long),
        "{said}"
    );
    assert!(why(&longest).contains("63 bytes"), "{said}");
    assert!(
        why(&format!("{longest}\u{1}")).contains("63 bytes"),
        "{said}"
    );
    assert_eq!(said["tables"].as_array().map(Vec::len), Some(1), "{said}");
    sides::sync(&d);
    assert_eq!(
        fleet.schema.one(&format!("select \"{longest}\" from fits")),
        "v"
    );
    // And doctor says it again, each with what to do.
    let checks = d.tw(&["--json", "doctor"]).json()["checks"].clone();
    let told: Vec<&serde_json::Value> = checks
        .as_array()
        .expect("checks")
        .iter()
        .filter(|c| c["name"] == "tables" && c["remedy"].is_string())
        .collect();
    assert_eq!(told.len(), 4, "{told:#?}");
}

#[test]
fn what_postgres_leaves_out_gets_the_apps_default_on_all_sides() {
    let fleet = Fleet::new(
        "create table notes (id text primary key, n integer not null default 7, t text not null default 'it''s',
           at text not null default current_timestamp, plain text default 'x')",
    );
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into notes (id) values ('a')");
    settle(&[&a, &b]);
    fleet
        .schema
        .exec("insert into notes (id) values ('s'); update notes set n = null where id = 'a'");
    settle(&[&a, &b]);
    equal(&fleet, &[&a, &b]);
    assert_eq!(
        fleet.server("select id, n, t, plain from notes order by id"),
        [["a", "7", "it's", "x"], ["s", "7", "it's", "NULL"]]
    );
    assert_eq!(fleet.conflicts(), 0);
    // Both fill it in before either has told: what differs by the moment is decided like any edit.
    fleet
        .schema
        .exec("insert into notes (id, plain) values ('u', 'y')");
    for d in [&a, &b] {
        d.json(&["now", "--pull"]);
    }
    settle(&[&a, &b]);
    equal(&fleet, &[&a, &b]);
    // Somebody's edit beside it wins.
    fleet
        .schema
        .exec("update notes set n = null, plain = 'z' where id = 's'");
    a.json(&["now", "--pull"]);
    fleet.schema.exec("update notes set n = 9 where id = 's'");
    settle(&[&a, &b]);
    equal(&fleet, &[&a, &b]);
    assert_eq!(
        b.rows("select n, plain from notes where id = 's'"),
        [["9", "z"]]
    );
}
