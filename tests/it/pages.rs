//! The feed in the smallest pages.

use crate::support::cli::Device;
use crate::support::server::Schema;

#[test]
fn a_round_that_pauses_among_conflicts_goes_on_behind_them() {
    let schema = Schema::new();
    let small = "[download]\npage_size = 1\n";
    let a = Device::with_url(schema.url(), schema.name(), "a", small);
    let b = Device::with_url(schema.url(), schema.name(), "b", small);
    for device in [&a, &b] {
        device.sql("create table t (id integer primary key, v text)");
        device.json(&["init"]);
        device.json(&["now"]);
    }
    for (device, v) in [(&a, "a"), (&b, "b")] {
        let rows: Vec<String> = (1..=5).map(|i| format!("({i}, '{v}{i}')")).collect();
        device.sql(&format!("insert into t values {}", rows.join(", ")));
    }
    a.json(&["now"]);
    // Both are told of all five conflicts, one a page, and both come to an end.
    let now = b.json(&["now", "--timeout", "20"]);
    assert_eq!(now["conflicts"], 5, "{now}");
    let now = a.json(&["now", "--timeout", "20"]);
    assert_eq!(now["conflicts"], 5, "{now}");
    assert_eq!(a.json(&["now", "--timeout", "20"])["conflicts"], 0);
    let rows = "select * from t order by id";
    assert_eq!(a.rows(rows), b.rows(rows));
}

/// The third of three rows did not fit into the page and the round ended with it: it never arrived.
#[test]
fn a_row_that_the_byte_cap_leaves_out_comes_with_the_next_page() {
    let schema = Schema::new();
    let small = "[download]\npage_bytes_max = 4096\n";
    let a = Device::with_url(schema.url(), schema.name(), "a", small);
    a.sql("create table t (id integer primary key, v text); create table u (id integer primary key, v text)");
    a.json(&["init"]);
    a.json(&["now"]);
    let content = "select i, repeat('x', 1500) from generate_series(1, 7) i";
    schema.exec(&format!("insert into t {content}; insert into u {content}"));
    a.json(&["now"]);
    for table in ["t", "u"] {
        let rows = format!("select id, v from {table} order by id");
        assert_eq!(a.rows(&rows), schema.rows(&rows), "{table}");
    }
    // And so do conflicts.
    let edits = "update t set v = replace(v, 'x', 'y')";
    a.sql(edits);
    schema.exec("update t set v = replace(v, 'x', 'z')");
    a.json(&["now"]);
    assert_eq!(
        a.json(&["conflicts"])["conflicts"]
            .as_array()
            .unwrap()
            .len(),
        7
    );
}
