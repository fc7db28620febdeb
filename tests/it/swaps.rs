//! Unique values that move between rows in one transaction of the app.

use crate::support::fleet::Fleet;

const SEATS: &str = "create table seats (id text primary key, place text unique);";
const QUERY: &str = "select id, place from seats order by id";

/// Pages of one row, so that nothing can be put in order within one.
const PAGES: &str = "[download]\npage_size = 1\n";

#[test]
fn rows_that_swapped_their_unique_values_arrive_in_whatever_pages() {
    for more in ["", PAGES] {
        let fleet = Fleet::configured(SEATS, more);
        let (a, b) = (fleet.device("a"), fleet.device("b"));
        a.sql("insert into seats values ('x', '1'), ('y', '2'), ('z', '3')");
        fleet.converge(&[&a, &b], QUERY);
        a.sql(
            "begin; update seats set place = null where id = 'x'; \
             update seats set place = '1' where id = 'y'; \
             update seats set place = '2' where id = 'z'; \
             update seats set place = '3' where id = 'x'; commit",
        );
        a.json(&["now"]);
        // What could not be applied at first and was in the end has not failed.
        let report = b.json(&["now"]);
        assert_eq!(report["failed"], 0, "{report}");
        assert_eq!(b.rows(QUERY), [["x", "3"], ["y", "1"], ["z", "2"]]);
        assert_eq!(b.json(&["status"])["download"]["failed"], 0);
        fleet.converge(&[&a, &b], QUERY);
        assert_eq!(fleet.conflicts(), 0);
    }
}

#[test]
fn a_unique_value_that_a_deleted_row_gave_free_arrives() {
    for more in ["", PAGES] {
        let fleet = Fleet::configured(SEATS, more);
        let (a, b) = (fleet.device("a"), fleet.device("b"));
        a.sql("insert into seats values ('x', '1'), ('y', '2')");
        fleet.converge(&[&a, &b], QUERY);
        a.sql("begin; delete from seats where id = 'x'; insert into seats values ('w', '1'); \
               update seats set place = '9' where id = 'y'; insert into seats values ('v', '2'); commit");
        a.json(&["now"]);
        b.json(&["now"]);
        fleet.expect_equal(&[&a, &b], QUERY);
    }
}
