//! Lists the rows of one table with a badge for what is not synced yet.
//!
//! ```text
//! cargo run --example unsynced_badge -- app.db messages
//! ```
//!
//! An app would do the same with the SQLite driver it has: tidewater is not needed for it, only the
//! view `tidewater_status` in the app's own file.

use rusqlite::{Connection, types::Value};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [path, table] = words.as_slice() else {
        return Err("usage: unsynced_badge FILE TABLE".into());
    };
    let db = Connection::open(path)?;
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let key: String = db.query_row(
        "select name from pragma_table_info(?1) where pk > 0",
        [table],
        |row| row.get(0),
    )?;
    let (table_sql, key) = (quoted(table), quoted(&key));
    // A question for each row that is shown: each searches an index.
    let mut rows = db.prepare(&format!(
        "select t.{key},
                (select s.status from tidewater_status s where s.table_name = ?1 and s.pk = t.{key}),
                (select s.error from tidewater_status s where s.table_name = ?1 and s.pk = t.{key})
         from {table_sql} t order by 1 limit 50"
    ))?;
    let mut rows = rows.query([table])?;
    while let Some(row) = rows.next()? {
        let pk = match row.get(0)? {
            Value::Text(text) => text,
            Value::Integer(n) => n.to_string(),
            other => format!("{other:?}"),
        };
        let (status, error): (Option<String>, Option<String>) = (row.get(1)?, row.get(2)?);
        let badge = match status.as_deref() {
            None => "✓",
            Some("pending") => "○ not sent yet",
            Some("failed") => "✗ failed",
            Some(_) => "≠ in conflict",
        };
        let why = error.map_or_else(String::new, |e| format!(": {e}"));
        println!("{pk}  {badge}{why}");
    }
    Ok(())
}
