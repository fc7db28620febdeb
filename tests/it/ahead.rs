//! A batch that is made ready while the one before it is under way: formed behind it in the chain, sent
//! after it, given back where that one is not simply done.

use crate::support::cli::Device;
use crate::support::fleet::{ALL, Fleet, ITEMS, crash};
use crate::support::proxy::{Mode, Proxy};

const SMALL: &str = "[upload]\nbatch_size = 2\nbatch_size_max = 2\n";
const ONE: &str = "[upload]\nbatch_size = 2\nbatch_size_max = 2\nmax_in_flight = 1\n";

/// Batches on disk, and how many changes they hold.
fn under_way(device: &Device) -> Vec<Vec<String>> {
    device.rows(
        "select (select count(*) from tidewater_batch), \
         (select count(*) from tidewater_outbox where status = 'uploading')",
    )
}

fn write_six(device: &Device) {
    device.sql(
        "insert into items values ('r1', 'x', 1), ('r2', 'x', 2), ('r3', 'x', 3), ('r4', 'x', 4), \
         ('r5', 'x', 5), ('r6', 'x', 6)",
    );
}

/// Killed when the second batch stands behind the first: whatever became of the first, both go again.
#[test]
fn a_kill_with_a_batch_behind_the_first_doubles_and_loses_nothing() {
    let fleet = Fleet::configured(ITEMS, SMALL);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    fleet.converge(&[&a, &b], ALL);
    write_six(&a);
    crash(&a, "batch_formed:2", &["now", "--push"]);
    assert_eq!(under_way(&a), [["2", "4"]]);
    // A later edit of a row under way goes after it, and one of a row behind it as well.
    a.sql(
        "update items set n = n + 10 where id in ('r2', 'r4'); delete from items where id = 'r3'",
    );
    let report = a.json(&["now"]);
    assert_eq!(
        (&report["uploaded"], &report["failed"], &report["pending"]),
        (&9.into(), &0.into(), &0.into()),
        "{report}"
    );
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(
        b.rows("select id, n from items order by id"),
        [
            ["r1", "1"],
            ["r2", "12"],
            ["r4", "14"],
            ["r5", "5"],
            ["r6", "6"]
        ]
    );
    assert_eq!(fleet.conflicts(), 0);
    assert_eq!(
        fleet.schema.one("select count(*) from tidewater_devices"),
        "2",
        "nobody took a new identity"
    );
}

#[test]
fn one_in_flight_forms_no_batch_before_the_last_is_acknowledged() {
    let fleet = Fleet::configured(ITEMS, ONE);
    let device = fleet.device("a");
    device.tw(&["now"]).ok();
    write_six(&device);
    crash(&device, "batch_formed:2", &["now", "--push"]);
    assert_eq!(under_way(&device), [["1", "2"]]);
    assert_eq!(device.json(&["now"])["uploaded"], 4);
    fleet.expect_equal(&[&device], ALL);
    assert_eq!(fleet.conflicts(), 0);
}

#[test]
fn a_refusal_in_the_middle_holds_nothing_else_back() {
    let fleet = Fleet::configured(ITEMS, SMALL);
    let device = fleet.device("a");
    device.tw(&["now"]).ok();
    fleet
        .schema
        .exec("alter table items add constraint short check (n <> 3)");
    write_six(&device);
    let report = device.tw(&["--json", "now"]).json();
    assert_eq!(
        (&report["uploaded"], &report["failed"], &report["pending"]),
        (&5.into(), &1.into(), &0.into()),
        "{report}"
    );
    assert_eq!(under_way(&device), [["0", "0"]]);
    device.sql("update items set n = 30 where id = 'r3'");
    assert_eq!(device.json(&["now"])["uploaded"], 1);
    fleet.expect_equal(&[&device], ALL);
    assert_eq!(fleet.conflicts(), 0);
}

/// The line breaks anywhere in the conversation, also between an answer and the batch behind it.
#[test]
fn a_line_that_breaks_anywhere_doubles_and_loses_nothing() {
    let proxy = Proxy::shared_server();
    let fleet = Fleet::new(ITEMS);
    let a = fleet.device_through(&proxy, "a", SMALL);
    let b = fleet.device("b");
    fleet.converge(&[&a, &b], ALL);
    for (round, bytes) in [700, 2_500, 6_000, 9_000].into_iter().enumerate() {
        proxy.set_times(Mode::CutAfterBytes(bytes), 1);
        a.sql(&format!(
            "insert into items select 'c{round}' || value, 'x', value from \
             json_each('[1,2,3,4]'); update items set n = n + 1"
        ));
        // Whether this one gets through depends on where the line broke.
        a.tw(&["now", "--push"]);
        proxy.set(Mode::Pass);
        proxy.set_times(Mode::CutAfterCommitReply, 3);
        a.sql("update items set n = n + 1");
        a.tw(&["now", "--push"]);
        proxy.set(Mode::Pass);
        let report = a.json(&["now"]);
        assert_eq!(
            (&report["pending"], &report["failed"]),
            (&0.into(), &0.into())
        );
    }
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(fleet.schema.one("select count(*) from items"), "16");
    assert_eq!(fleet.conflicts(), 0);
    assert_eq!(
        fleet.schema.one("select count(*) from tidewater_devices"),
        "2",
        "nobody took a new identity"
    );
}

/// A log that is longer than what is claimed before the first batch.
#[test]
fn a_long_log_is_claimed_while_it_is_sent() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    fleet.converge(&[&a, &b], ALL);
    a.sql(
        "with recursive c(i) as (select 1 union all select i + 1 from c where i < 13000) \
         insert into items select printf('r%05d', i), 'x', i from c; \
         update items set n = -1 where id in ('r00001', 'r12999'); \
         delete from items where id = 'r00002'",
    );
    let report = a.json(&["now"]);
    assert_eq!(
        (&report["pending"], &report["failed"]),
        (&0.into(), &0.into())
    );
    assert_eq!(a.rows("select count(*) from tidewater_log"), [["0"]]);
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(
        fleet
            .schema
            .one("select count(*) || ' ' || sum(n) from items"),
        format!("12999 {}", 13_000 * 13_001 / 2 - 1 - 2 - 12_999 - 2)
    );
    assert_eq!(fleet.conflicts(), 0);
}
