//! The Postgres types that the configuration asks for, given to the columns of a table as it was read.
//!
//! A word that could never carry its column's values is refused with SYNC-013 before anything is made.

use crate::error::{Code, Error, Result};
use crate::model::{Affinity, PgType, Table, Wire};
use std::collections::BTreeMap;

/// Gives the columns of a table the types of its section.
pub fn apply(table: &mut Table, types: &BTreeMap<String, PgType>) -> Result<()> {
    let section = table.name.clone();
    let refuse = |message: String, remedy: String| {
        let message = format!("[tables.{section}] types: {message}");
        Err(Error::new(Code::Configuration, message, remedy).on_table(&section))
    };
    for (name, wanted) in types {
        let redact = table.redact().to_vec();
        let Some(column) = table
            .columns
            .iter_mut()
            .find(|c| c.name.eq_ignore_ascii_case(name))
        else {
            return refuse(
                format!("there is no column {name}"),
                "correct the name or take it out of types".to_owned(),
            );
        };
        if column.generated {
            return refuse(
                format!("{name} is a generated column, which stays here"),
                "take it out of types".to_owned(),
            );
        }
        let wire = column.wire_for(wanted.catalogue());
        let Some(wire) = wire else {
            let declared = match column.declared.as_str() {
                "" => "has no declared type".to_owned(),
                d => format!("is declared {d}"),
            };
            return refuse(
                format!(
                    "{name} {declared} and can never be carried by {}",
                    wanted.as_str()
                ),
                format!(
                    "choose one of: {}; or take it out of types",
                    fitting(|t| column.wire_for(t.catalogue()).is_some())
                ),
            );
        };
        if let Wire::Typed(t) = wire {
            if table.key.contains(&column.name) && !t.fits_key() {
                return refuse(
                    format!("{name} is part of the primary key, which cannot be {}", wanted.as_str()),
                    "take it out of types; of the types that differ from the default, uuid is possible"
                        .to_owned(),
                );
            }
            if redact.contains(&column.name)
                && column.not_null
                && column.affinity() != Affinity::Blob
            {
                return refuse(
                    format!(
                        "{name} is NOT NULL and in redact, so it has to hold what no {} is",
                        wanted.as_str()
                    ),
                    "take it out of types".to_owned(),
                );
            }
        }
        column.pg_type = Some(*wanted);
    }
    Ok(())
}

/// The words that a test lets through.
fn fitting(fits: impl Fn(PgType) -> bool) -> String {
    PgType::words()
        .filter(|w| PgType::parse(w).is_some_and(&fits))
        .collect::<Vec<_>>()
        .join(", ")
}
