//! What can leave the device, by the tables as the settings describe them. Reads only.

use super::count;
use crate::error::Result;
use crate::model::{Privacy, Table};
use crate::report::{ColumnPrivacy, LevelCounts, TablePrivacy};
use crate::sqlite::fault::OrFault;
use crate::sqlite::local::{self, has_table};
use crate::sqlite::private;
use crate::sqlite::quote::ident;
use crate::sqlite::value;
use rusqlite::Connection;

const WHAT: &str = "counting rows by their level";

/// One table: its columns, and its rows by level.
pub fn table_privacy(conn: &Connection, table: &Table) -> Result<TablePrivacy> {
    let columns = table
        .columns
        .iter()
        .map(|c| ColumnPrivacy {
            name: c.name.clone(),
            leaves: if c.redacted || c.generated {
                "never"
            } else if table.redact().contains(&c.name) {
                "full_rows"
            } else {
                "always"
            }
            .to_owned(),
        })
        .collect();
    Ok(TablePrivacy {
        name: table.name.clone(),
        privacy: table.privacy.as_str().to_owned(),
        privacy_column: table.rows.as_ref().map(|r| r.column.clone()),
        columns,
        rows: levels(conn, table)?,
        private_keys: if has_table(conn, "tidewater_private")? {
            private::count(conn, &table.name)?
        } else {
            0
        },
    })
}

fn levels(conn: &Connection, table: &Table) -> Result<LevelCounts> {
    let mut out = LevelCounts::default();
    let mut add = |level, n| match level {
        Privacy::Full => out.full += n,
        Privacy::Redacted => out.redacted += n,
        Privacy::LocalOnly => out.local_only += n,
    };
    let Some(rows) = &table.rows else {
        add(table.privacy, local::count(conn, &table.name)?);
        return Ok(out);
    };
    let column = ident(&rows.column);
    let sql = format!(
        "select {column}, count(*) from {} group by {column} collate binary, typeof({column})",
        ident(&table.name)
    );
    let mut statement = conn.prepare(&sql).or_fault(WHAT)?;
    let found = statement
        .query_map([], |r| Ok((value::from_ref(r.get_ref(0)?), count(r, 1)?)))
        .or_fault(WHAT)?;
    let mut unknown = 0;
    for row in found {
        let (word, n) = row.or_fault(WHAT)?;
        add(Privacy::of_word(&word, table.privacy), n);
        if !Privacy::knows(&word) {
            unknown += n;
        }
    }
    out.unknown = unknown;
    Ok(out)
}
