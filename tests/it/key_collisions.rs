//! Integer keys that the database hands out: two devices hand out the same one, which is a conflict of its
//! own kind. The loser is kept whole, and comes back under a fresh key with the rows that belong to it.

use crate::schemas::{a_minute_ago, equal, settle};
use crate::sides;
use crate::support::cli::Device;
use crate::support::fleet::{Fleet, conflicts};
use serde_json::{Value, json};

const SHOP: &str = "
    create table orders (id integer primary key autoincrement, customer text not null, total real);
    create table items (id integer primary key, \"order\" integer not null references orders on delete cascade, what text);
    create table parts (id integer primary key, item integer references items (id), name text);
    create table remarks (\"order\" integer not null references orders (ID), n integer, text text, primary key (\"order\", n)) without rowid;
    create table labels (id text primary key, \"order\" integer references orders, label text);
    create table tasks (id text primary key, about integer references orders (id), also text references labels, title text);";

/// One family of rows as a device makes it, by keys that SQLite hands out.
fn order(customer: &str, items: usize) -> String {
    let mut sql = format!(
        "pragma foreign_keys = on; begin; insert into orders (customer, total) values ('{customer}', {items}.5);"
    );
    for i in 1..=items {
        sql += &format!(
            "insert into items (\"order\", what) select max(id), '{customer} item {i}' from orders; \
             insert into parts (item, name) select max(id), '{customer} part {i}' from items;"
        );
    }
    sql + &format!(
        "insert into remarks select max(id), 1, '{customer} remark 1' from orders; \
         insert into remarks select max(id), {items}, '{customer} remark {items}' from orders; \
         insert into labels select 'l-{customer}', max(id), '{customer}' from orders; \
         update tasks set about = (select max(id) from orders), also = 'l-{customer}' where title like '{customer}%'; \
         commit;"
    )
}

/// Who has what, whatever the keys are.
const FAMILIES: &str = "
    select customer, what from (
      select o.customer, 'total ' || o.total as what from orders o
      union all select o.customer, i.what from orders o join items i on i.\"order\" = o.id
      union all select o.customer, p.name from orders o join items i on i.\"order\" = o.id join parts p on p.item = i.id
      union all select o.customer, r.text from orders o join remarks r on r.\"order\" = o.id
      union all select o.customer, 'label ' || l.label from orders o join labels l on l.\"order\" = o.id
      union all select o.customer, t.title || ' of ' || l.label from orders o join tasks t on t.about = o.id join labels l on l.id = t.also)
    order by 1, 2";

fn expected() -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for (customer, items) in [("ann", 2), ("bob", 3)] {
        rows.push([customer.to_owned(), format!("total {items}.5")]);
        for i in 1..=items {
            rows.push([customer.to_owned(), format!("{customer} item {i}")]);
            rows.push([customer.to_owned(), format!("{customer} part {i}")]);
        }
        for n in [1, items] {
            rows.push([customer.to_owned(), format!("{customer} remark {n}")]);
        }
        rows.push([customer.to_owned(), format!("label {customer}")]);
        rows.push([
            customer.to_owned(),
            format!("{customer}'s task of {customer}"),
        ]);
    }
    rows.sort();
    rows.into_iter().map(Vec::from).collect()
}

/// The conflict about a key of a table.
#[track_caller]
fn about(device: &Device, table: &str, pk: &Value) -> Value {
    let all = conflicts(device);
    all.iter()
        .find(|c| c["table"] == table && c["pk"] == *pk)
        .unwrap_or_else(|| panic!("{table} {pk}: {all:#?}"))
        .clone()
}

fn id(conflict: &Value) -> &str {
    conflict["id"].as_str().expect("an id")
}

/// Two devices on which the database handed out the same keys while they were apart.
fn apart(policy: &str) -> (Fleet, Device, Device) {
    let fleet = Fleet::configured(SHOP, &format!("[conflict]\npolicy = \"{policy}\"\n"));
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into tasks (id, title) values ('t1', 'ann''s task'), ('t2', 'bob''s task')");
    settle(&[&a, &b]);
    a.sql(&order("ann", 2));
    a_minute_ago(&a);
    b.sql(&order("bob", 3));
    settle(&[&a, &b]);
    (fleet, a, b)
}

/// What the retention leaves of the history, once it has passed.
fn forget(device: &Device) {
    device.sql(
        "delete from tidewater_outbox where status = 'synced'; \
         delete from tidewater_inbox where status = 'applied'; delete from tidewater_event",
    );
}

#[test]
fn a_loser_is_whole_and_comes_back_under_a_fresh_key_with_its_family() {
    // Who loses: the one whose rows were there, or the one whose push met them.
    for (policy, loses) in [("last_write_wins", "ann"), ("remote_wins", "bob")] {
        let (fleet, a, b) = apart(policy);
        equal(&fleet, &[&a, &b]);
        let (loser, winner) = if loses == "ann" { (&a, &b) } else { (&b, &a) };
        let kinds = |table: &str| -> Vec<Value> {
            conflicts(loser)
                .iter()
                .filter(|c| c["table"] == table)
                .map(|c| c["kind"].clone())
                .collect()
        };
        assert_eq!(kinds("orders"), ["key_collision"], "{policy}");
        assert_eq!(kinds("items"), ["key_collision"; 2], "{policy}");
        assert_eq!(kinds("parts"), ["key_collision"; 2], "{policy}");
        assert_eq!(kinds("remarks"), ["insert_insert"], "{policy}");
        let lost = about(loser, "orders", &json!([1]));
        let total = if loses == "ann" { 2.5 } else { 3.5 };
        assert_eq!(
            (&lost["winner"], &lost["local"]),
            (
                &"remote".into(),
                &json!({"id": 1, "customer": loses, "total": total})
            ),
            "{policy}"
        );
        assert_eq!(about(winner, "orders", &json!([1]))["winner"], "local");
        let shown = loser.tw(&["conflicts", "show", id(&lost)]).ok().stdout;
        assert!(shown.contains("two rows with one key"), "{shown}");

        // However long it takes until somebody looks.
        forget(loser);
        let said = loser.json(&["conflicts", "restore", id(&lost)]);
        let back = said["conflicts"].as_array().expect("a list");
        assert_eq!(
            (back.len(), &back[0]["restored_as"], &back[0]["seen"]),
            (6, &json!([2]), &true.into()),
            "{policy}: {said:#}"
        );
        settle(&[loser, winner]);
        equal(&fleet, &[&a, &b]);
        assert_eq!(a.rows(FAMILIES), expected(), "{policy}");
        assert_eq!(a.rows("select count(*) from orders"), [["2"]], "{policy}");
        let kept = winner.rows("select id from orders where customer <> 'ann' or total < 3");
        assert_eq!(kept.len(), 2, "{policy}");
        assert!(a.rows("pragma foreign_key_check").is_empty(), "{policy}");
        // Nobody's conflicts grew by that, and doing it again makes nothing twice.
        let before = fleet.conflicts();
        loser.tw(&["conflicts", "restore", id(&lost)]).ok();
        settle(&[loser, winner]);
        assert_eq!(b.rows(FAMILIES), expected(), "{policy}");
        assert_eq!(fleet.conflicts(), before, "{policy}");
    }
}

#[test]
fn the_device_that_won_can_bring_the_others_row_back_too() {
    let (fleet, a, b) = apart("last_write_wins");
    let won = about(&b, "orders", &json!([1]));
    assert_eq!(
        (&won["winner"], &won["kind"]),
        (&"local".into(), &"key_collision".into())
    );
    let said = b.tw(&["conflicts", "restore", id(&won)]).ok().stdout;
    assert!(said.contains("orders 1 as 2"), "{said}");
    settle(&[&b, &a]);
    equal(&fleet, &[&a, &b]);
    assert_eq!(a.rows(FAMILIES), expected());
}

#[test]
fn a_child_that_came_back_first_follows_its_parent_later() {
    let (fleet, a, b) = apart("last_write_wins");
    // One item alone: it gets a key, and stays with the order that has its number.
    let item = about(&a, "items", &json!([1]));
    a.tw(&["conflicts", "restore", id(&item)]).ok();
    assert_eq!(
        a.rows("select \"order\", what from items where id > 3"),
        [["1", "ann item 1"]]
    );
    settle(&[&a, &b]);
    let parent = about(&a, "orders", &json!([1]));
    a.tw(&["conflicts", "restore", id(&parent)]).ok();
    settle(&[&a, &b]);
    equal(&fleet, &[&a, &b]);
    assert_eq!(b.rows(FAMILIES), expected());
}

#[test]
fn what_refers_to_itself_comes_back_so() {
    let fleet = Fleet::new(
        "create table tree (id integer primary key, up integer references tree, root integer references tree (id), name text)",
    );
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    for (d, name) in [(&a, "a"), (&b, "b")] {
        d.sql(&format!(
            "insert into tree values (1, null, 1, '{name} root'), (2, 1, 1, '{name} left'), (3, 1, 1, '{name} right'), \
             (4, 2, 1, '{name} leaf')"
        ));
    }
    a.sql("insert into tree values (5, 3, 1, 'a only')");
    a_minute_ago(&a);
    settle(&[&a, &b]);
    let lost = about(&a, "tree", &json!([1]));
    assert_eq!(lost["kind"], "key_collision");
    a.tw(&["conflicts", "restore", id(&lost)]).ok();
    settle(&[&a, &b]);
    equal(&fleet, &[&a, &b]);
    let names = "select x.name, y.name, z.name from tree x left join tree y on y.id = x.up \
                 left join tree z on z.id = x.root order by 1";
    assert_eq!(
        b.rows(names),
        [
            ["a leaf", "a left", "a root"],
            ["a left", "a root", "a root"],
            ["a only", "a right", "a root"],
            ["a right", "a root", "a root"],
            ["a root", "NULL", "a root"],
            ["b leaf", "b left", "b root"],
            ["b left", "b root", "b root"],
            ["b right", "b root", "b root"],
            ["b root", "NULL", "b root"],
        ]
    );
}

const VOTES: &str = "create table votes (id integer primary key, name text, n integer);
                     create table words (id text primary key, n integer);";

#[test]
fn only_rows_that_were_made_apart_collide() {
    let fleet = Fleet::new(VOTES);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into votes (name, n) values ('one', 1), ('two', 2), ('three', 3)");
    settle(&[&a, &b]);
    // One row that both knew, one that an app made again under its key, one with a key of the app's own.
    a.sql("update votes set n = 10 where id = 1; replace into votes values (2, 'again', 20)");
    b.sql("update votes set n = 11 where id = 1; delete from votes where id = 2; insert into votes values (2, 'anew', 21)");
    a.sql("insert into words values ('w', 1)");
    b.sql("insert into words values ('w', 2)");
    settle(&[&a, &b]);
    equal(&fleet, &[&a, &b]);
    let mut kinds: Vec<String> = conflicts(&b)
        .iter()
        .map(|c| c["kind"].to_string())
        .collect();
    kinds.sort();
    assert_eq!(
        kinds,
        [
            "\"insert_insert\"",
            "\"update_update\"",
            "\"update_update\""
        ]
    );
    // Somebody else's row in Postgres is another row, too, and so are rows from before both were devices.
    a.sql("insert into votes (name) values ('by a')");
    fleet
        .schema
        .exec("insert into votes (id, name) values (4, 'by sql')");
    settle(&[&a, &b]);
    let lost = about(&a, "votes", &json!([4]));
    assert_eq!(
        (&lost["kind"], &lost["remote_device"]),
        (&"key_collision".into(), &"0".into())
    );
    a.tw(&["conflicts", "restore", id(&lost)]).ok();
    let c = Device::new(&fleet.schema, "c");
    c.sql(VOTES);
    c.sql("insert into votes (name) values ('from before')");
    c.tw(&["init"]).ok();
    settle(&[&a, &c, &b]);
    equal(&fleet, &[&a, &b, &c]);
    let lost = about(&c, "votes", &json!([1]));
    assert_eq!(lost["kind"], "key_collision");
    c.tw(&["conflicts", "restore", id(&lost)]).ok();
    settle(&[&c, &a, &b]);
    equal(&fleet, &[&a, &b, &c]);
    let names = b.rows("select name from votes where id > 3 order by name");
    assert_eq!(names, [["by a"], ["by sql"], ["from before"]]);
}

#[test]
fn init_and_doctor_warn_of_each_table_whose_keys_the_database_hands_out() {
    let fleet = Fleet::new("");
    let d = Device::new(&fleet.schema, "d");
    d.sql(
        "create table votes (id integer primary key, n integer); create table logs (id integer primary key autoincrement);
         create table words (id text primary key); create table pairs (a integer, b integer, primary key (a, b));
         create table bare (id integer primary key) without rowid;",
    );
    let text = d.tw(&["init"]).ok().stdout;
    assert!(
        text.contains("logs, votes: the database hands out its keys"),
        "{text}"
    );
    let said = d.json(&["init"]);
    let named: Vec<&Value> = said["warnings"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|w| &w["table"])
        .collect();
    assert_eq!(named, ["logs", "votes"], "{said}");
    let checks = d.tw(&["--json", "doctor"]).json()["checks"].clone();
    let told: Vec<&str> = checks
        .as_array()
        .expect("checks")
        .iter()
        .filter(|c| c["name"] == "integer_keys")
        .filter_map(|c| c["message"].as_str())
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].starts_with("logs: ") && told[1].starts_with("votes: "),
        "{told:?}"
    );
    sides::sync(&d);
}
