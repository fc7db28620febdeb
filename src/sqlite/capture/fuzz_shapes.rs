//! The schemas that the fuzz writes to, each with a way to evict rows unseen.

/// A schema and, for each column that statements write, the values they choose from.
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
    pub(super) columns: &'static [(&'static str, &'static [&'static str])],
    /// What moves many keys at once.
    pub(super) shift: &'static [&'static str],
    /// Whether naive triggers are expected to diverge; only shapes with evictions.
    pub(super) bites: bool,
}

const INTS: &[&str] = &[
    "null", "-1", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10",
];
const FEW: &[&str] = &[
    "null", "1", "2", "3", "4", "5", "'1'", "2.0", "'3.0'", "4.5", "x'31'",
];
const WORDS: &[&str] = &[
    "'a'", "'A'", "'b'", "'B'", "'c'", "'C '", "'c '", "'é'", "'É'", "'d'", "null",
];
const MIXED: &[&str] = &[
    "1", "1.0", "'1'", "x'31'", "2", "2.0", "'b'", "x'62'", "''", "x''", "null", "0.5",
];
const LEVEL: &[&str] = &["null", "0", "1"];
const LATE: &[&str] = &["0", "5", "6", "7", "8"];

pub(super) const SHAPES: [Shape; 20] = [
    Shape {
        name: "integer key and two uniques",
        sql: "create table t (id integer primary key, a int unique, b text collate nocase unique, v)",
        columns: &[("id", INTS), ("a", FEW), ("b", WORDS), ("v", INTS)],
        shift: &["id = id + 1", "id = 11 - id", "a = a + 1"],
        bites: true,
    },
    Shape {
        name: "text key without case",
        sql: "create table t (id text primary key collate nocase, v)",
        columns: &[("id", WORDS), ("v", INTS)],
        shift: &["id = upper(id)", "id = lower(id)", "id = id || ' '"],
        bites: true,
    },
    Shape {
        name: "composite without rowid",
        sql: "create table t (a int, b text collate rtrim, c int, v, primary key (b, a), unique (c, a)) without rowid",
        columns: &[("a", FEW), ("b", WORDS), ("c", FEW), ("v", INTS)],
        shift: &["a = a + 1", "b = trim(b)", "c = c + 1", "a = c, c = a"],
        bites: true,
    },
    Shape {
        name: "partial index and affinity",
        sql: "create table t (id text primary key, n numeric, gone, v);
              create unique index live on t (n) where gone is null;
              create unique index other on t (v collate nocase) where gone = 1 and n > 1",
        columns: &[("id", WORDS), ("n", FEW), ("gone", LEVEL), ("v", WORDS)],
        shift: &["gone = null", "n = n + 1", "gone = 1", "id = id || 'x'"],
        bites: true,
    },
    Shape {
        name: "constraints that replace by themselves",
        sql: "create table t (id integer primary key on conflict replace, a not null on conflict replace default 3 unique on conflict replace,
                b int unique on conflict ignore, v)",
        columns: &[("id", INTS), ("a", FEW), ("b", INTS), ("v", INTS)],
        shift: &["id = id + 1", "a = a + 1", "a = null", "b = b + 1"],
        bites: true,
    },
    Shape {
        name: "own foreign key, set null",
        sql: "create table t (id integer primary key, p int references t(id) on delete set null on update cascade, a int unique, b int unique)",
        columns: &[("id", INTS), ("p", INTS), ("a", INTS), ("b", INTS)],
        shift: &["id = id + 1", "a = a + 1", "p = id", "a = b, b = a"],
        bites: true,
    },
    Shape {
        name: "typeless key",
        sql: "create table t (id primary key, v unique)",
        columns: &[("id", MIXED), ("v", MIXED)],
        shift: &["id = id + 0.0", "id = cast(id as text)", "v = id", "id = cast(id as blob)"],
        bites: true,
    },
    Shape {
        name: "defaults in unique columns and in the key",
        sql: "create table t (a not null default 1, b int not null default 2, u int not null default 5 unique, primary key (a, b)) without rowid",
        columns: &[("a", MIXED), ("b", FEW), ("u", INTS)],
        shift: &["a = null", "u = null", "b = b + 1", "a = 1.0"],
        bites: true,
    },
    Shape {
        name: "before triggers of the app that write the table",
        sql: "create table t (id integer primary key, a int unique, b int unique, v);
              create trigger x1 before insert on t when new.v > 6 begin
                update or replace t set a = a + 1 where b = new.b + 1; end;
              create trigger x2 before update on t when new.v > 7 begin
                insert or replace into t values (new.id + 3, new.a, null, 0); end;
              create trigger x3 after insert on t when new.v = 5 begin
                delete from t where id = new.id + 1; insert or ignore into t values (null, 2, 2, 0); end;",
        columns: &[("id", INTS), ("a", INTS), ("b", INTS), ("v", INTS)],
        shift: &["id = id + 1", "a = a + 1", "b = b + 1", "v = 8"],
        bites: true,
    },
    Shape {
        name: "own foreign key, cascade",
        sql: "create table t (id integer primary key, p int references t(id) on delete cascade on update cascade, a int unique)",
        columns: &[("id", INTS), ("p", INTS), ("a", INTS)],
        shift: &["id = id + 1", "id = 11 - id", "a = a + 1", "p = id - 1"],
        bites: true,
    },
    Shape {
        name: "foreign keys in a circle",
        sql: "create table t (id integer primary key, p int references o(id) on delete set null, a int unique, b int unique);
              create table o (id integer primary key, q int references t(id) on delete cascade);
              create trigger fill after insert on t begin insert or ignore into o values (new.id, new.id); end;
              insert into o values (1, null), (2, null), (3, null)",
        columns: &[("id", INTS), ("p", LEVEL), ("a", INTS), ("b", INTS)],
        shift: &["id = id + 1", "a = a + 1", "p = 1", "a = b, b = a"],
        bites: true,
    },
    Shape {
        name: "a tree without uniques",
        sql: "create table t (id integer primary key, p int references t(id) on delete cascade on update cascade)",
        columns: &[("id", INTS), ("p", INTS)],
        shift: &["id = id - 1", "id = p", "p = id", "p = id + 1"],
        bites: true,
    },
    Shape {
        name: "after triggers of the app that write the table",
        sql: "create table t (id integer primary key, a int unique, b int unique, v);
              create trigger x1 after update on t when new.v < 8 begin update t set v = v + 1 where id = new.id; end;
              create trigger x2 after insert on t when new.v = 5 begin
                insert or replace into t values (new.id + 1, new.a + 1, new.b - 1, 0); end;",
        columns: &[("id", INTS), ("a", INTS), ("b", INTS), ("v", INTS)],
        shift: &["id = id + 1", "a = a + 1", "b = b + 1", "v = 8"],
        bites: true,
    },
    Shape {
        name: "unique indexes on expressions",
        sql: "create table t (id integer primary key, a text, b int, v);
              create unique index e on t (lower(a)); create unique index f on t (abs(b), v) where v is not 3",
        columns: &[("id", INTS), ("a", WORDS), ("b", INTS), ("v", INTS)],
        shift: &["id = id + 1", "a = upper(a)", "b = -b", "v = b, b = v", "v = 3"],
        bites: true,
    },
    Shape {
        name: "expression beside a wide key and a column",
        sql: "create table t (id text collate nocase, n, a int unique, b, primary key (n, id));
              create unique index e on t (coalesce(b, 0) % 4, a > 2)",
        columns: &[("id", WORDS), ("n", FEW), ("a", INTS), ("b", INTS)],
        shift: &["id = upper(id)", "b = b + 1", "a = a + 1", "n = n + 1"],
        bites: true,
    },
    Shape {
        name: "unique over generated columns",
        sql: "create table t (id integer primary key, a int, b int, g as (a + b) unique, h text as (a || '-' || b) stored);
              create unique index s on t (h, b) where a <> 4",
        columns: &[("id", INTS), ("a", INTS), ("b", INTS)],
        shift: &["id = id + 1", "a = a + 1", "a = b, b = a", "a = a + 1, b = b - 1"],
        bites: true,
    },
    Shape {
        name: "generated columns without rowid",
        sql: "create table t (k text primary key, a text, b int not null default 2, g text as (lower(a)) stored unique on conflict replace,
                h as (b % 3), unique (h, a)) without rowid",
        columns: &[("k", WORDS), ("a", WORDS), ("b", INTS)],
        shift: &["k = k || 'x'", "a = upper(a)", "b = null", "b = b + 1"],
        bites: true,
    },
    Shape {
        name: "a tree with an expression",
        sql: "create table t (id integer primary key, p int references t(id) on delete cascade on update cascade, a int);
              create unique index e on t (a / 2)",
        columns: &[("id", INTS), ("p", INTS), ("a", INTS)],
        shift: &["id = id + 1", "id = 11 - id", "a = a + 1", "p = id - 1"],
        bites: true,
    },
    Shape {
        name: "a before trigger that rewrites the row amid its update",
        sql: "create table t (id integer primary key, a int, b int, v, unique (a, b));
              create trigger x before update on t when new.v > 4 begin update t set b = new.v - 3 where id = old.id; end",
        columns: &[("id", INTS), ("a", LEVEL), ("b", FEW), ("v", LATE)],
        shift: &["id = id + 1", "a = 1 - a", "v = v + 1", "v = 6, a = 1"],
        bites: true,
    },
    Shape {
        name: "plain text key",
        sql: "create table t (id text primary key, v, w)",
        columns: &[("id", WORDS), ("v", INTS), ("w", MIXED)],
        shift: &["id = upper(id)", "id = id || 'x'", "id = substr(id, 1, 1)"],
        bites: false,
    },
];
