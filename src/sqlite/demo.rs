//! The sample app of `tidewater demo`: plain SQL on a file, as any app would run it. Nothing of the
//! engine is used, so that the demo shows what an app sees and does.

use super::fault::OrFault;
use crate::error::Result;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use std::path::Path;
use std::time::Duration;

const WHAT: &str = "running the sample app";

fn open(file: &Path) -> Result<Connection> {
    let conn = Connection::open(file).or_fault(WHAT)?;
    conn.busy_timeout(Duration::from_secs(5)).or_fault(WHAT)?;
    Ok(conn)
}

/// Runs statements; makes the file where there is none.
pub fn execute(file: &Path, sql: &str) -> Result<()> {
    open(file)?.execute_batch(sql).or_fault(WHAT)
}

/// The rows of a query as the `sqlite3` shell prints them: values with a bar between.
pub fn rows(file: &Path, sql: &str) -> Result<Vec<String>> {
    let conn = open(file)?;
    let mut statement = conn.prepare(sql).or_fault(WHAT)?;
    let columns = statement.column_count();
    let mut rows = statement.query([]).or_fault(WHAT)?;
    let mut out = Vec::new();
    while let Some(row) = rows.next().or_fault(WHAT)? {
        let mut cells = Vec::with_capacity(columns);
        for i in 0..columns {
            cells.push(match row.get_ref(i).or_fault(WHAT)? {
                ValueRef::Null => String::new(),
                ValueRef::Integer(n) => n.to_string(),
                ValueRef::Real(r) => format!("{r:?}"),
                ValueRef::Text(b) | ValueRef::Blob(b) => String::from_utf8_lossy(b).into_owned(),
            });
        }
        out.push(cells.join("|"));
    }
    Ok(out)
}
