//! What the configuration says of a table's privacy, laid over the table's description.
//!
//! It must never let a name pass that is not there: a slip would let content out. It fails with
//! SYNC-013, which names table and column, and the table is then not tracked.

use super::introspect::configuration;
use crate::error::Result;
use crate::model::{Privacy, RowPrivacy, Table};

/// What the configuration says of a table's privacy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TablePrivacy {
    /// The level of the table, or of rows that say nothing.
    pub level: Privacy,
    /// The column in which a row says its own level.
    pub column: Option<String>,
    /// The columns that stay here when the level is redacted.
    pub redact: Vec<String>,
}

/// Gives a table its level, and marks what stays here. The key must leave, or the row could not be
/// named; a name that is not there is a slip that would let content out, and nothing is tracked then.
pub fn apply(table: &mut Table, privacy: &TablePrivacy) -> Result<()> {
    table.privacy = privacy.level;
    let section = table.name.clone();
    let refuse = |message: String, remedy: &str| {
        Err(configuration(
            &section,
            format!("[tables.{section}] {message}"),
            remedy,
        ))
    };
    let mut redact = Vec::new();
    for name in &privacy.redact {
        if table.key.iter().any(|k| k.eq_ignore_ascii_case(name)) {
            return refuse(
                format!("redact: {name} is part of the primary key"),
                "take it out of the list, or make the table local_only",
            );
        }
        let Some(column) = table
            .columns
            .iter_mut()
            .find(|c| c.name.eq_ignore_ascii_case(name))
        else {
            return refuse(
                format!("redact: there is no column {name}"),
                "correct the name or take it out of the list",
            );
        };
        redact.push(column.name.clone());
        column.redacted = privacy.level == Privacy::Redacted && privacy.column.is_none();
    }
    let Some(name) = &privacy.column else {
        return Ok(());
    };
    let Some(column) = table
        .columns
        .iter()
        .find(|c| c.name.eq_ignore_ascii_case(name))
    else {
        return refuse(
            format!("privacy_column: there is no column {name}"),
            "correct the name, or remove the key to give all rows the table's level",
        );
    };
    if column.generated {
        return refuse(
            format!("privacy_column: {name} is a generated column"),
            "name a column that the app writes, so that other devices learn the level too",
        );
    }
    if redact.contains(&column.name) {
        return refuse(
            format!("redact: {name} is the privacy_column, which has to leave with its row"),
            "take it out of the list",
        );
    }
    table.rows = Some(RowPrivacy {
        column: column.name.clone(),
        redact,
    });
    Ok(())
}
