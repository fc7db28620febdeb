//! The app's migration takes away what the configuration says of a table: that table stops, on the side on
//! which nothing leaves, and the others go on.

use crate::support::fleet::Fleet;

const APP: &str = "create table notes (id text primary key, title text, body text);
                   create table items (id text primary key, n integer);";
const CONFIG: &str = "[tables.notes]\nprivacy = \"redacted\"\nredact = [\"body\"]\n";

#[test]
fn a_redacted_column_that_the_app_drops_stops_its_table_alone() {
    let fleet = Fleet::configured(APP, CONFIG);
    let a = fleet.device("a");
    a.sql("insert into notes values ('n1', 'one', 'secret'); insert into items values ('i1', 1)");
    a.json(&["now"]);
    // The app moves the text into another column, of which the configuration says nothing.
    a.sql(
        "alter table notes rename column body to content;
         insert into notes values ('n2', 'two', 'secret'); insert into items values ('i2', 2)",
    );
    a.json(&["now"]);
    assert_eq!(
        fleet.server("select id from items order by id"),
        [["i1"], ["i2"]],
        "the other table goes on"
    );
    assert_eq!(
        fleet.server("select id from notes order by id"),
        [["n1"]],
        "nothing more of this one leaves"
    );
    let problems = a.json(&["status"])["problems"].to_string();
    assert!(
        problems.contains("SYNC-013") && problems.contains("no column body"),
        "{problems}"
    );
    a.json(&["now"]);
    // Back again: everything is sent that waited, without what is redacted.
    a.sql("alter table notes rename column content to body");
    a.json(&["now"]);
    a.json(&["now"]);
    assert_eq!(
        fleet.server("select id, title, body from notes order by id"),
        [["n1", "one", "NULL"], ["n2", "two", "NULL"]]
    );
    assert_eq!(
        a.rows("select id, body from notes order by id"),
        [["n1", "secret"], ["n2", "secret"]]
    );
    assert_eq!(a.json(&["status"])["problems"], serde_json::json!([]));
    assert_eq!(a.json(&["verify"])["identical"], true);
}

#[test]
fn a_section_of_a_table_that_the_app_drops_stops_nothing() {
    let fleet = Fleet::configured(APP, CONFIG);
    let a = fleet.device("a");
    a.sql("insert into notes values ('n1', 'one', 'secret')");
    a.json(&["now"]);
    a.sql("drop table notes; insert into items values ('i1', 1)");
    a.json(&["now"]);
    assert_eq!(fleet.server("select id from items"), [["i1"]]);
    assert_eq!(
        fleet.server("select id from notes"),
        [["n1"]],
        "a missing table never means deleted rows"
    );
    // A slip in the configuration is told at once, as ever.
    let text = std::fs::read_to_string(a.config()).expect("the configuration");
    a.configure(&text.replace("tables.notes", "tables.ntoes"));
    let e = a.tw(&["now"]).expect_code(2);
    assert!(e.stderr.contains("ntoes"), "{e:?}");
}
