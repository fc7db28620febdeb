//! `init` where both sides have rows: equal ones are equal, different ones are conflicts in which an
//! import never beats what stands there, and whatever loses is kept whole.

use crate::sides;
use crate::support::cli::Device;
use crate::support::fleet::{self, Fleet};
use serde_json::Value;

const DDL: &str = "create table t (id text primary key, a text, n integer, r real, b blob)";
const ALL: &str = "select id, a, n, r, hex(b) from t order by id";

/// One row on both sides: what it is called, here, there, and what both hold in the end. `None` is no
/// row, and `gone` one that was deleted there.
struct Case {
    name: &'static str,
    here: Option<&'static str>,
    there: There,
    end: Option<[&'static str; 4]>,
    conflict: bool,
}

enum There {
    Row(&'static str),
    Nothing,
    Deleted,
}

use There::{Deleted, Nothing, Row};

fn cases() -> Vec<Case> {
    let row = |a, n, r, b| Some([a, n, r, b]);
    let case = |name, here, there, end, conflict| Case {
        name,
        here,
        there,
        end,
        conflict,
    };
    vec![
        case(
            "equal",
            Some("'x', 1, 0.5, x'00ff'"),
            Row("'x', 1, 0.5, x'00ff'"),
            row("x", "1", "0.5", "00FF"),
            false,
        ),
        case(
            "equal_nulls",
            Some("null, null, null, null"),
            Row("null, null, null, null"),
            row("NULL", "NULL", "NULL", ""),
            false,
        ),
        case(
            "equal_thirds",
            Some("'é', 0, 1.0 / 3, x''"),
            Row("'é', 0, 1.0 / 3, x''"),
            row("é", "0", "0.3333333333333333", ""),
            false,
        ),
        case(
            "one_column",
            Some("'x', 1, 0.5, null"),
            Row("'x', 2, 0.5, null"),
            row("x", "2", "0.5", ""),
            true,
        ),
        case(
            "null_and_empty",
            Some("null, 1, null, null"),
            Row("'', 1, null, null"),
            row("", "1", "NULL", ""),
            true,
        ),
        case(
            "case",
            Some("'Word', 1, null, null"),
            Row("'word', 1, null, null"),
            row("word", "1", "NULL", ""),
            true,
        ),
        case(
            "trailing_space",
            Some("'word ', 1, null, null"),
            Row("'word', 1, null, null"),
            row("word", "1", "NULL", ""),
            true,
        ),
        case(
            "one_bit",
            Some("'x', 1, 0.1 + 0.2, null"),
            Row("'x', 1, 0.3, null"),
            row("x", "1", "0.3", ""),
            true,
        ),
        case(
            "bytes",
            Some("'x', 1, null, x'00'"),
            Row("'x', 1, null, x''"),
            row("x", "1", "NULL", ""),
            true,
        ),
        case(
            "all",
            Some("'mine', 1, 1.5, x'01'"),
            Row("'theirs', 2, 2.5, x'02'"),
            row("theirs", "2", "2.5", "02"),
            true,
        ),
        case(
            "only_here",
            Some("'mine', 1, 1.5, x'01'"),
            Nothing,
            row("mine", "1", "1.5", "01"),
            false,
        ),
        case(
            "only_there",
            None,
            Row("'theirs', 2, 2.5, x'02'"),
            row("theirs", "2", "2.5", "02"),
            false,
        ),
        case(
            "deleted_there",
            Some("'mine', 1, 1.5, x'01'"),
            Deleted,
            None,
            true,
        ),
    ]
}

/// Fills one side; rows that were deleted there are written and deleted.
fn fill(a: &Device) {
    for c in cases() {
        let values = match c.there {
            Row(values) => values,
            Deleted => "'gone', 0, 0.0, x'00'",
            Nothing => continue,
        };
        a.sql(&format!("insert into t values ('{}', {values})", c.name));
    }
    a.tw(&["now"]).ok();
    for c in cases().iter().filter(|c| matches!(c.there, Deleted)) {
        a.sql(&format!("delete from t where id = '{}'", c.name));
    }
    a.tw(&["now"]).ok();
}

fn import(fleet: &Fleet) -> Device {
    let b = Device::new(&fleet.schema, "b");
    b.sql(DDL);
    for c in cases() {
        if let Some(values) = c.here {
            b.sql(&format!("insert into t values ('{}', {values})", c.name));
        }
    }
    // An app that notices every write to its rows.
    b.sql(
        "create table seen (id text, op text); \
         create trigger i after insert on t begin insert into seen values (new.id, 'insert'); end; \
         create trigger u after update on t begin insert into seen values (new.id, 'update'); end; \
         create trigger d after delete on t begin insert into seen values (old.id, 'delete'); end",
    );
    b.tw(&["init", "--tables", "t"]).ok();
    b
}

#[test]
fn equal_rows_are_equal_and_different_ones_are_conflicts() {
    let fleet = Fleet::new(DDL);
    let a = fleet.device("a");
    fill(&a);
    let before = fleet.server("select id, tidewater_change, tidewater_xid from t order by id");
    let b = import(&fleet);
    let report = b.json(&["now"]);
    let expected: Vec<&str> = cases()
        .iter()
        .filter(|c| c.conflict)
        .map(|c| c.name)
        .collect();
    assert_eq!(report["conflicts"], expected.len(), "{report}");
    assert_eq!(report["failed"], 0, "{report}");
    let conflicts = fleet::conflicts(&b);
    for c in cases() {
        let end: Vec<Vec<String>> = c
            .end
            .iter()
            .map(|e| e.iter().map(|v| (*v).to_owned()).collect())
            .collect();
        let query = format!(
            "select a, n, r, coalesce(hex(b), '') from t where id = '{}'",
            c.name
        );
        assert_eq!(b.rows(&query), end, "{} here", c.name);
        let found: Vec<&Value> = conflicts.iter().filter(|f| f["pk"][0] == c.name).collect();
        assert_eq!(found.len(), usize::from(c.conflict), "{}", c.name);
        for f in found {
            assert_eq!(
                (&f["winner"], f["local"].is_object()),
                (&"remote".into(), true),
                "{}: {f}",
                c.name
            );
        }
        // What was right is not written again, on either side.
        let written = b.rows(&format!("select op from seen where id = '{}'", c.name));
        assert_eq!(
            written.is_empty(),
            !c.conflict && c.here.is_some(),
            "{}: {written:?}",
            c.name
        );
        let stamp = fleet.server(&format!(
            "select id, tidewater_change, tidewater_xid from t where id = '{}'",
            c.name
        ));
        let stood = before
            .iter()
            .filter(|r| r[0] == c.name)
            .cloned()
            .collect::<Vec<_>>();
        if matches!(c.there, Row(_)) {
            assert_eq!(stamp, stood, "{} there", c.name);
        }
    }
    let columns = sides::columns(&fleet.schema, "t");
    let (here, there) = (
        sides::local(&b.db(), "t", &columns),
        sides::remote(&fleet.schema.client(), "t", &columns),
    );
    sides::assert_same("t", &here, &there);
    // The other device hears of the losers too, and loses nothing itself.
    a.tw(&["now"]).ok();
    assert_eq!(a.rows(ALL), b.rows(ALL));
    // Nothing is left to say.
    let again = b.json(&["now"]);
    assert_eq!(
        (&again["uploaded"], &again["conflicts"]),
        (&0.into(), &0.into()),
        "{again}"
    );
}

#[test]
fn an_import_does_not_beat_an_edit_that_is_older_than_it() {
    let fleet = Fleet::new(DDL);
    let a = fleet.device("a");
    // The edit was made long before the other file was initialised, and arrives after it.
    a.sql("insert into t values ('k', 'edited', 1, null, null)");
    let b = Device::new(&fleet.schema, "b");
    b.sql(DDL);
    b.sql("insert into t values ('k', 'imported', 2, null, null)");
    b.tw(&["init"]).ok();
    b.tw(&["now"]).ok();
    a.tw(&["now"]).ok();
    b.tw(&["now"]).ok();
    a.tw(&["now"]).ok();
    for device in [&a, &b] {
        assert_eq!(device.rows("select a from t"), [["edited"]]);
    }
    assert_eq!(fleet.conflicts(), 1);
    let found = &fleet::conflicts(&b)[0];
    assert_eq!(
        (&found["winner"], &found["local"]["a"]),
        (&"remote".into(), &"imported".into()),
        "{found}"
    );
}

#[test]
fn of_two_imports_one_stays_and_the_other_is_kept_whole() {
    let fleet = Fleet::new("create table unused (id integer primary key)");
    let devices: Vec<Device> = ["a", "b"]
        .iter()
        .map(|name| {
            let d = Device::new(&fleet.schema, name);
            d.sql(DDL);
            d.sql(&format!("insert into t values ('k', 'by {name}', 1, null, null), ('same', 'x', 1, null, null)"));
            d.tw(&["init"]).ok();
            d
        })
        .collect();
    let (a, b) = (&devices[0], &devices[1]);
    fleet.converge(&[a, b], "select id, a, n, r from t order by id");
    assert_eq!(fleet.conflicts(), 1, "equal imports are no conflict");
    let standing = a.rows("select a from t where id = 'k'")[0][0].clone();
    let lost = if standing == "by a" { "by b" } else { "by a" };
    for device in [a, b] {
        let found = fleet::conflicts(device);
        assert_eq!(found.len(), 1);
        assert!(found[0].to_string().contains(lost), "{found:?}");
    }
}
