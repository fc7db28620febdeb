//! Keys that meet: keys which SQLite holds to be equal and PostgreSQL does not.

use crate::schemas::{a_minute_ago, equal, settle};
use crate::support::cli::Device;
use crate::support::fleet::{Fleet, conflicts};
use serde_json::json;

const WORDS: &str = "
    create table words (word text primary key collate nocase, meaning text);
    create table pairs (lang text collate nocase, word text collate rtrim, n integer, primary key (lang, word)) without rowid;";

/// Syncs until what one unique key keeps out has been decided, and everybody has heard of it.
#[track_caller]
fn decide(devices: &[&Device]) {
    for _ in 0..2 {
        for d in devices {
            d.tw(&["now"]);
        }
    }
    settle(devices);
}

#[test]
fn keys_that_differ_in_case_only_are_one_conflict_and_nothing_is_lost() {
    for (policy, winner) in [("last_write_wins", "ABC"), ("remote_wins", "Abc")] {
        let fleet = Fleet::configured(
            WORDS,
            &format!("[conflict]\npolicy = \"{policy}\"\n\n[retry]\nbase_delay_seconds = 0.001\n"),
        );
        let (a, b) = (fleet.device("a"), fleet.device("b"));
        a.sql("insert into words values ('both', 'as agreed')");
        settle(&[&a, &b]);
        a.sql("insert into words values ('Abc', 'by a'); insert into pairs values ('de', 'wort', 1), ('en', 'word', 1)");
        a_minute_ago(&a);
        b.sql("insert into words values ('ABC', 'by b'); insert into pairs values ('DE', 'wort  ', 2), ('fr', 'mot', 2)");
        decide(&[&a, &b]);
        equal(&fleet, &[&a, &b]);
        let words = "select word from words where word = 'abc'";
        assert_eq!(a.rows(words), [[winner]], "{policy}");
        assert_eq!(a.rows("select count(*) from pairs"), [["3"]], "{policy}");
        assert_eq!(fleet.conflicts(), 2, "{policy}");
        let loser = if winner == "ABC" { "Abc" } else { "ABC" };
        for (d, local, mine, other) in [(&a, "Abc", "by a", "by b"), (&b, "ABC", "by b", "by a")] {
            let listed = conflicts(d);
            let c = listed
                .iter()
                .find(|c| c["table"] == "words")
                .unwrap_or_else(|| panic!("{policy}: {listed:#?}"));
            let side = if local == winner { "local" } else { "remote" };
            assert_eq!(
                (&c["kind"], &c["pk"], &c["winner"]),
                (&"unique_collision".into(), &json!([loser]), &side.into()),
                "{policy}: {c:#}"
            );
            assert_eq!(
                (&c["local"]["meaning"], &c["remote"]["meaning"]),
                (&mine.into(), &other.into()),
                "{policy}: {c:#}"
            );
            let status = d.json(&["status"]);
            assert_eq!(status["download"]["failed"], 0, "{policy}: {status}");
        }
        // The loser comes back once the key is free.
        let loses = if winner == "ABC" { &a } else { &b };
        let id = conflicts(loses)
            .into_iter()
            .find(|c| c["table"] == "words")
            .and_then(|c| c["id"].as_str().map(str::to_owned))
            .expect("an id");
        let said = loses
            .tw(&["--json", "conflicts", "restore", &id])
            .expect_code(1)
            .json();
        assert_eq!(said["error"]["code"], "SYNC-003", "{said}");
        loses.sql("update words set word = 'other' where word = 'abc'");
        loses.tw(&["conflicts", "restore", &id]).ok();
        decide(&[&a, &b]);
        equal(&fleet, &[&a, &b]);
        assert_eq!(
            b.rows("select word from words order by 1 collate binary"),
            [[loser], ["both"], ["other"]],
            "{policy}"
        );
    }
}

#[test]
fn a_key_that_changes_its_case_is_no_conflict() {
    let fleet = Fleet::configured(
        WORDS,
        "[upload]\nbatch_size = 1\nbatch_size_max = 1\n\n[download]\npage_size = 1\n",
    );
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into words values ('one', '1'), ('two', '2')");
    settle(&[&a, &b]);
    a.sql(
        "update words set word = 'ONE' where word = 'one'; replace into words values ('Two', '3')",
    );
    settle(&[&a, &b]);
    equal(&fleet, &[&a, &b]);
    assert_eq!(
        b.rows("select word, meaning from words order by word"),
        [["ONE", "1"], ["Two", "3"]]
    );
    assert_eq!(fleet.conflicts(), 0);
    // Neither can Postgres hold both: no device could.
    let both = fleet
        .schema
        .client()
        .try_exec("insert into words values ('oNe', 'again')");
    assert!(both.is_err());
}
