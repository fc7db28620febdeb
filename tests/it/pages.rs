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
