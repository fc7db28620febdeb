//! The brake on mass deletes (SYNC-015): deletes that came with a schema change and are too many of a
//! table are held here until a person has spoken.
//!
//! A key is logged as held with op H. Where its claim finds the row gone, the entry is parked and stands
//! among the failed ones, so `retry` lets it go and `discard` brings the row back; where the row is there
//! again, nothing is held. Owns the bounds, the op and the words. Never decides by a delete alone: the
//! caller knows that the schema changed.

use super::fault::OrFault;
use super::quote::ident;
use super::state;
use crate::error::{Code, Result};
use crate::model::Table;
use crate::report::Problem;
use rusqlite::{Connection, params};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The op of a delete that is held.
pub const HELD: &str = "H";

/// A table of no more rows is never braked.
const ROWS: u64 = 1_000;

/// Nor are deletes of no more than one row in so many.
const PART: u64 = 5;

/// Why an entry is parked.
pub const WHY: &str = "the delete came with a schema change that took more than a fifth of the table's rows \
                       away, and is held back";

/// What to do about it.
pub const REMEDY: &str = "let it go with `tidewater retry SYNC-015`, or take the rows back from the workspace \
                          with `tidewater discard SYNC-015 --yes`";

/// The condition under which a log row is left alone: a comparison that is not done yet has not counted
/// the deletes that it found, and one that was interrupted is made again.
pub const UNCOUNTED: &str =
    "(op = 'H' and at = 0 and tbl in (select name from tidewater_table where heal = 1))";

const WHAT: &str = "counting deletes after a schema change";

/// Whether `gone` of `rows` are too many.
pub fn holds(gone: u64, rows: u64) -> bool {
    rows > ROWS && gone > rows / PART
}

/// A mark of the app's schema, without what is tidewater's or SQLite's own. It stands still over VACUUM
/// and ANALYZE, which move `schema_version` too.
pub fn mark(conn: &Connection) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    let mut s = conn
        .prepare_cached(
            "select type, name, coalesce(sql, '') from sqlite_schema where name not like 'tidewater\\_%' \
             escape '\\' and name not like 'sqlite\\_%' escape '\\' order by type, name",
        )
        .or_fault(WHAT)?;
    let mut rows = s.query([]).or_fault(WHAT)?;
    while let Some(r) = rows.next().or_fault(WHAT)? {
        for column in 0..3 {
            r.get::<_, String>(column).or_fault(WHAT)?.hash(&mut hasher);
        }
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// Looks at the deletes of a table that were logged and not claimed when its schema changed, and holds
/// them where they are too many. Returns how many it holds.
pub fn hold_logged(tx: &Connection, table: &Table) -> Result<u64> {
    let logged: i64 = tx
        .query_row(
            "select count(*) from tidewater_log where tbl = ?1 and op = 'D'",
            [&table.name],
            |r| r.get(0),
        )
        .or_fault(WHAT)?;
    if u64::try_from(logged).unwrap_or(0) <= ROWS / PART {
        return Ok(0);
    }
    let columns: Vec<String> = (1..=table.key.len()).map(|i| format!("k{i}")).collect();
    let same: Vec<String> = table
        .key
        .iter()
        .zip(&columns)
        .map(|(c, k)| format!("e.{} = l.{k}", ident(c)))
        .collect();
    let gone: i64 = tx
        .query_row(
            &format!(
                "select count(*) from (select distinct {} from tidewater_log where tbl = ?1 and op = 'D') as l \
                 where not exists (select 1 from {} as e where {})",
                columns.join(", "),
                ident(&table.name),
                same.join(" and ")
            ),
            [&table.name],
            |r| r.get(0),
        )
        .or_fault(WHAT)?;
    let gone = u64::try_from(gone).unwrap_or(0);
    let rows = super::local::count(tx, &table.name)?;
    if !holds(gone, rows + gone) {
        return Ok(0);
    }
    tx.execute(
        "update tidewater_log set op = 'H' where tbl = ?1 and op = 'D'",
        [&table.name],
    )
    .or_fault(WHAT)?;
    Ok(gone)
}

/// Forgets the deletes that an interrupted comparison of a table had found.
pub fn forget_uncounted(tx: &Connection, table: &str) -> Result<()> {
    tx.execute(
        "delete from tidewater_log where tbl = ?1 and op = 'H' and at = 0",
        [table],
    )
    .or_fault(WHAT)?;
    Ok(())
}

/// Lets the deletes go that a comparison found: they are not too many.
pub fn release(tx: &Connection, table: &str) -> Result<()> {
    tx.execute(
        "update tidewater_log set op = 'U' where tbl = ?1 and op = 'H' and at = 0",
        [table],
    )
    .or_fault(WHAT)?;
    Ok(())
}

/// Whether a row's delete is held.
pub fn is_held(conn: &Connection, table: &str, pk: &str) -> Result<bool> {
    conn.prepare_cached(
        "select exists (select 1 from tidewater_outbox where tbl = ?1 and pk = ?2 and status = 'failed' \
         and error_code = 'SYNC-015')",
    )
    .and_then(|mut s| s.query_row([table, pk], |r| r.get(0)))
    .or_fault(WHAT)
}

/// What is held, for `status`.
pub fn problems(conn: &Connection) -> Result<Vec<Problem>> {
    let mut s = conn
        .prepare_cached(
            "select tbl, count(*) from tidewater_outbox where status = 'failed' and error_code = ?1 \
             group by tbl order by tbl",
        )
        .or_fault(WHAT)?;
    let rows = s
        .query_map(params![Code::MassDelete.as_str()], |r| {
            let (table, held): (String, i64) = (r.get(0)?, r.get(1)?);
            Ok(Problem {
                code: Code::MassDelete.as_str().into(),
                message: format!(
                    "table {table}: {held} deletes that came with a schema change are held back"
                ),
                remedy: REMEDY.replace("let it go", "let them go"),
            })
        })
        .or_fault(WHAT)?;
    rows.collect::<rusqlite::Result<_>>().or_fault(WHAT)
}

/// Whether the app's schema is another one than when capture was installed last; remembers this one.
pub fn schema_changed(tx: &Connection) -> Result<bool> {
    let mark = mark(tx)?;
    let before = state::get(tx, "schema_mark")?;
    state::set(tx, "schema_mark", &mark)?;
    Ok(before.as_deref() != Some(&mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_tables_and_small_parts_are_never_held() {
        assert!(!holds(1_000, 1_000));
        assert!(!holds(300, 1_500));
        assert!(holds(301, 1_500));
        assert!(holds(1_001, 1_001));
        assert!(!holds(0, 5_000));
    }

    #[test]
    fn the_mark_moves_with_the_apps_schema_alone() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("create table t (id text primary key); insert into t values ('a')")
            .unwrap();
        let before = mark(&conn).unwrap();
        conn.execute_batch("vacuum; analyze; create table tidewater_x (a)")
            .unwrap();
        assert_eq!(mark(&conn).unwrap(), before);
        conn.execute_batch("alter table t add column b").unwrap();
        assert_ne!(mark(&conn).unwrap(), before);
    }
}
