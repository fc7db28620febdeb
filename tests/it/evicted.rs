//! Rows that OR REPLACE evicts where no trigger can name them: found by the ledger of keys, and gone everywhere.

use crate::support::fleet::Fleet;

const PEOPLE: &str = "create table people (id text primary key, mail text, n integer);
     create unique index by_mail on people (lower(mail));";

const ALL: &str = "select id, mail, n from people order by id";

#[test]
fn an_eviction_through_an_expression_reaches_the_workspace_and_every_device() {
    let fleet = Fleet::new(PEOPLE);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into people values ('1', 'Ann@x', 1), ('2', 'bob@x', 2), ('3', 'cy@x', 3)");
    fleet.converge(&[&a, &b], ALL);
    a.sql(
        "replace into people values ('4', 'ANN@x', 4);
         update or replace people set mail = 'Cy@X' where id = '2'",
    );
    fleet.converge(&[&a, &b], ALL);
    let left = [["2", "Cy@X", "2"], ["4", "ANN@x", "4"]];
    assert_eq!(b.rows(ALL), left);
    // A row that came from elsewhere can be evicted too.
    b.sql("replace into people values ('5', 'ann@X', 5)");
    fleet.converge(&[&b, &a], ALL);
    assert_eq!(a.rows(ALL), [["2", "Cy@X", "2"], ["5", "ann@X", "5"]]);
    assert_eq!(fleet.conflicts(), 0);
    assert_eq!(a.json(&["verify"])["identical"], true);
}

/// The index and the first eviction come in one breath, before anybody could begin a ledger.
#[test]
fn what_went_before_there_was_a_ledger_is_found_by_comparing() {
    let fleet = Fleet::new("create table people (id text primary key, mail text, n integer);");
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into people values ('1', 'Ann@x', 1), ('2', 'bob@x', 2)");
    fleet.converge(&[&a, &b], ALL);
    a.sql(
        "create unique index by_mail on people (lower(mail));
         replace into people values ('3', 'ann@x', 3)",
    );
    fleet.converge(&[&a, &b], ALL);
    assert_eq!(b.rows(ALL), [["2", "bob@x", "2"], ["3", "ann@x", "3"]]);
}

#[test]
fn the_key_of_a_row_that_was_never_sent_does_not_leave_when_it_is_evicted() {
    let fleet = Fleet::configured(
        "create table people (id text primary key, mail text, n integer, level text);
         create unique index by_mail on people (lower(mail));",
        "[tables.people]\nprivacy_column = \"level\"\n",
    );
    let a = fleet.device("a");
    a.sql("insert into people values ('secret', 'ann@x', 1, 'LOCAL_ONLY')");
    a.json(&["now"]);
    a.sql("replace into people values ('open', 'ANN@x', 2, null)");
    a.json(&["now"]);
    assert_eq!(
        fleet.server("select id, n from people"),
        [["open".to_owned(), "2".to_owned()]]
    );
    assert!(
        fleet
            .server("select pk from tidewater_tombstones")
            .is_empty()
    );
}

/// The trigger fires where the message arrives as well, and evicts what it evicted where it was written.
#[test]
fn what_the_apps_triggers_evict_while_rows_arrive_comes_to_rest() {
    let fleet = Fleet::new(
        "create table messages (id text primary key, chat text);
         create table latest (id text primary key, chat text);
         create unique index by_chat on latest (lower(chat));
         create trigger newest after insert on messages begin
           insert or replace into latest values (new.id, new.chat); end;",
    );
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    let latest = "select id, chat from latest order by id";
    a.sql("insert into messages values ('m1', 'x'), ('m2', 'y')");
    fleet.converge(&[&a, &b], latest);
    a.sql("insert into messages values ('m3', 'X')");
    fleet.converge(&[&a, &b], latest);
    b.sql("insert into messages values ('m4', 'Y')");
    fleet.converge(&[&b, &a], latest);
    assert_eq!(a.rows(latest), [["m3", "X"], ["m4", "Y"]]);
    assert_eq!(b.json(&["verify"])["identical"], true);
}
