//! What apps let SQLite do for them: triggers that stamp, audit, count and index, views that are written
//! through, full-text search. What they made on one device arrives as it was made, once, and what they
//! keep for each file alone is right in each file.

use crate::schemas::{Life, equal, settle};
use crate::support::cli::Device;
use crate::support::fleet::Fleet;

const NOTES: &str = "
    create table notes (id integer primary key, title text not null, body text, edits integer not null default 0,
      created_at text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now')), updated_at text);
    create table tags (note integer not null references notes on delete cascade, tag text not null, primary key (note, tag));
    create table audit (id text primary key default (lower(hex(randomblob(16)))), what text, note integer, title text, at text);
    create table totals (name text primary key, n integer not null) without rowid;
    create view live as select id, title, body from notes where title <> '';
    create view counts (tag, n) as select tag, count(*) from tags group by tag;

    create trigger notes_stamp after update on notes when new.updated_at is old.updated_at begin
      update notes set updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now'), edits = edits + 1 where id = new.id; end;
    create trigger notes_first after insert on notes when new.updated_at is null begin
      update notes set updated_at = new.created_at where id = new.id; end;
    create trigger audit_insert after insert on notes begin
      insert into audit (what, note, title, at) values ('insert', new.id, new.title, datetime('now')); end;
    create trigger audit_update after update of title, body on notes begin
      insert into audit (what, note, title, at) values ('update', new.id, old.title, datetime('now')); end;
    create trigger audit_delete before delete on notes begin
      insert into audit (what, note, title, at) values ('delete', old.id, old.title, datetime('now')); end;
    create trigger totals_in after insert on notes begin
      insert or ignore into totals values ('notes', 0); update totals set n = n + 1 where name = 'notes'; end;
    create trigger totals_out after delete on notes begin update totals set n = n - 1 where name = 'notes'; end;
    create trigger live_in instead of insert on live begin insert into notes (id, title, body) values (new.id, new.title, new.body); end;
    create trigger live_up instead of update on live begin update notes set title = new.title, body = new.body where id = old.id; end;
    create trigger live_out instead of delete on live begin update notes set title = '' where id = old.id; end;

    create virtual table search using fts5(title, body, content = 'notes', content_rowid = 'id');
    create trigger search_in after insert on notes begin
      insert into search (rowid, title, body) values (new.id, new.title, new.body); end;
    create trigger search_out after delete on notes begin
      insert into search (search, rowid, title, body) values ('delete', old.id, old.title, old.body); end;
    create trigger search_up after update of title, body on notes begin
      insert into search (search, rowid, title, body) values ('delete', old.id, old.title, old.body);
      insert into search (rowid, title, body) values (new.id, new.title, new.body); end;
    create virtual table tagged using fts5(tag, note unindexed);
    create trigger tagged_in after insert on tags begin insert into tagged values (new.tag, new.note); end;
    create trigger tagged_out after delete on tags begin delete from tagged where tag = old.tag and note = old.note; end;";

/// Which notes have a word, by the index of the file.
#[track_caller]
fn found(d: &Device, word: &str) -> Vec<String> {
    d.rows(&format!(
        "select rowid from search where search match '{word}' order by rowid"
    ))
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn triggers_views_and_search_indexes_are_right_on_every_side() {
    let (fleet, a, b) = Life {
        ddl: NOTES,
        config: "",
        seed: "
            pragma foreign_keys = on;
            insert into notes (id, title, body) values (1, 'rye bread', 'flour'), (2, 'oat cake', 'oats'), (3, 'soup', 'leek and oats'),
              (4, 'tea', null), (5, 'jam', 'plums');
            insert into tags values (1, 'baking'), (2, 'baking'), (2, 'sweet'), (3, 'warm'), (5, 'sweet');
            update notes set body = 'plums and sugar' where id = 5;",
        a: "
            pragma foreign_keys = on;
            update notes set body = 'rye and wheat' where id = 1; delete from notes where id = 2;
            insert into live (id, title, body) values (10, 'porridge', 'oats of a'); update live set body = 'green leaves' where title = 'tea';",
        b: "
            pragma foreign_keys = on;
            update notes set title = 'leek soup' where id = 3; insert into tags values (3, 'vegetable');
            insert into notes (id, title, body) values (20, 'muesli', 'oats of b'); delete from live where id = 5;",
        server: "
            insert into notes (id, title, body, edits, created_at, updated_at) values (30, 'granola', 'oats of sql', 0, '2024', '2024');
            insert into tags (note, tag) values (30, 'sweet'); update notes set body = 'rye, by sql' where id = 1;",
    }
    .live();
    for d in [&a, &b] {
        assert_eq!(found(d, "oats"), ["3", "10", "20", "30"]);
        assert_eq!(found(d, "cake"), [""; 0]);
        assert_eq!(found(d, "leaves"), ["4"]);
        // Each index agrees with its table, and no word is in it twice.
        d.sql("insert into search (search, rank) values ('integrity-check', 1)");
        d.sql("insert into tagged (tagged) values ('integrity-check')");
        assert_eq!(
            d.rows("select tag, note from tagged order by 1, 2"),
            d.rows("select tag, note from tags order by 1, 2")
        );
        // Each thing that somebody did in an app stands in the audit once, whoever it reached.
        assert_eq!(
            d.rows(
                "select what, count(*) from audit where note in (2, 10, 20) group by 1 order by 1"
            ),
            [["delete", "1"], ["insert", "3"]]
        );
        assert_eq!(d.rows("select n from totals"), [["6"]]);
        assert_eq!(d.rows("select count(*) from live"), [["6"]]);
        assert_eq!(d.rows("select n from counts where tag = 'sweet'"), [["2"]]);
        assert_eq!(
            d.rows("select edits, updated_at > created_at from notes where id = 3"),
            [["1", "1"]]
        );
    }
    let skipped = a.json(&["init"])["skipped"].clone();
    for (name, why) in [
        ("search", "virtual"),
        ("search_data", "part of"),
        ("live", "view"),
    ] {
        let told = skipped.as_array().expect("a list").iter();
        let reason = told
            .filter(|s| s["name"] == name)
            .find_map(|s| s["reason"].as_str());
        assert!(reason.is_some_and(|r| r.contains(why)), "{name}: {skipped}");
    }
    // It goes on like that: an edit that arrives is an edit of the index, too.
    a.sql("update notes set body = 'barley' where id = 20");
    settle(&[&a, &b]);
    equal(&fleet, &[&a, &b]);
    assert_eq!(
        (found(&b, "barley"), found(&b, "oats").len()),
        (vec!["20".to_owned()], 3)
    );
}

#[test]
fn a_trigger_that_only_the_app_can_run_keeps_nothing_out() {
    let fleet = Fleet::new(
        "create table items (id text primary key, body text, n integer); create table other (id text primary key);",
    );
    let a = fleet.device("a");
    let b = Device::new(&fleet.schema, "b");
    b.sql(
        "create table items (id text primary key, body text, n integer); create table other (id text primary key);
         create trigger hashed after insert on items begin select app_hash(new.body); end;
         create trigger renamed after update of body on items begin select app_hash(new.body); end;
         create trigger gone before delete on items when app_hash(old.body) begin select 1; end;",
    );
    b.tw(&["init"]).ok();
    a.sql("insert into items values ('i1', 'one', 1), ('i2', 'two', 2); insert into other values ('o1')");
    settle(&[&a, &b]);
    equal(&fleet, &[&a, &b]);
    a.sql("update items set body = 'edited' where id = 'i1'; delete from items where id = 'i2'; insert into other values ('o2')");
    settle(&[&a, &b]);
    equal(&fleet, &[&a, &b]);
    assert_eq!(b.rows("select id, body from items"), [["i1", "edited"]]);
    let checks = b.json(&["doctor"])["checks"].clone();
    let told = checks
        .as_array()
        .expect("checks")
        .iter()
        .filter(|c| c["name"] == "triggers")
        .filter_map(|c| c["message"].as_str())
        .any(|m| m.starts_with("items: ") && m.contains("no such function: app_hash"));
    assert!(told, "{checks:#}");
}

#[test]
fn a_table_that_only_the_app_can_write_holds_up_no_other() {
    let fleet = Fleet::new(
        "create table items (id text primary key, v text); create table other (id text primary key);",
    );
    let a = fleet.device("a");
    let b = Device::new(&fleet.schema, "b");
    b.sql(
        "create table items (id text primary key, v text check (lower(v) <> 'x')); create table other (id text primary key);
         pragma writable_schema = on; update sqlite_schema set sql = replace(sql, 'lower', 'app_hash');
         pragma writable_schema = reset;",
    );
    b.tw(&["init"]).ok();
    a.sql("insert into items values ('i1', 'one'), ('i2', 'two'); insert into other values ('o1')");
    a.json(&["now"]);
    let done = b.tw(&["--json", "now"]).expect_code(1).json();
    assert_eq!(
        (&done["downloaded"], &done["failed"]),
        (&1.into(), &2.into()),
        "{done}"
    );
    assert_eq!(b.rows("select id from other"), [["o1"]]);
    let inbox = b.json(&["queue", "--inbox", "--errors"]).to_string();
    assert!(inbox.contains("app_hash"), "{inbox}");
}
