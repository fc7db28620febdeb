//! A column that has, or is to have, another type than the default one: whether it can carry the values,
//! and the statement that gives it a type without changing what its values mean.

use super::quote::{ident, qualified};
use crate::error::{Code, Error, Result};
use crate::model::{Column, PgType, Table, Wire};

/// How a column's values travel to the column that is there, or why they cannot.
pub fn wire(schema: &str, table: &Table, c: &Column, pg_type: &str) -> Result<Wire> {
    if let Some(wanted) = c.pg_type.filter(|t| t.catalogue() != pg_type) {
        return Err(Error::new(
            Code::SchemasDiffer,
            format!(
                "column {} is {pg_type} on the server, and [tables.{}] types wants {}",
                c.name,
                table.name,
                wanted.as_str()
            ),
            format!(
                "on the server: {}; then it is tried again by itself. Or take the column out of types",
                recast(schema, table, &c.name, pg_type, Some(wanted))
            ),
        ));
    }
    let is_key = table.key.contains(&c.name);
    let wire = c.wire_for(pg_type).filter(|w| match w {
        Wire::Typed(t) => !is_key || t.fits_key(),
        _ => true,
    });
    wire.ok_or_else(|| {
        let default = PgType::of_catalogue(Wire::default_for(&c.declared).catalogue());
        let declared = if c.declared.is_empty() {
            "an untyped column"
        } else {
            &c.declared
        };
        Error::new(
            Code::SchemasDiffer,
            format!(
                "{} {} is {pg_type} on the server, which cannot carry the values of {declared} unchanged",
                if is_key { "key column" } else { "column" },
                c.name,
            ),
            format!(
                "on the server: {}; then it is tried again by itself",
                recast(schema, table, &c.name, pg_type, default)
            ),
        )
    })
}

/// The statement that gives a column another type.
fn recast(schema: &str, table: &Table, column: &str, from: &str, to: Option<PgType>) -> String {
    let c = ident(column);
    let number = matches!(from, "int2" | "int4" | "int8" | "numeric" | "float8");
    let to = to.map_or("text", PgType::as_str);
    // A time without a zone is in UTC, whatever the session's zone is; large numbers are milliseconds.
    let using = match (from, to) {
        ("text" | "varchar", "timestamptz") => format!(
            "case when {c} ~ ':[0-9]{{2}}([.][0-9]+)? ?(Z|z|UTC|[-+][0-9]{{2}}(:?[0-9]{{2}})?)$' \
             then {c}::timestamptz else {c}::timestamp at time zone 'UTC' end"
        ),
        ("text" | "varchar", "timestamp") => format!(
            "case when {c} ~ ':[0-9]{{2}}([.][0-9]+)? ?(Z|z|UTC|[-+][0-9]{{2}}(:?[0-9]{{2}})?)$' \
             then {c}::timestamptz at time zone 'UTC' else {c}::timestamp end"
        ),
        ("timestamp", "timestamptz") | ("timestamptz", "timestamp") => {
            format!("{c} at time zone 'UTC'")
        }
        (_, "timestamptz") if number => {
            format!("to_timestamp(case when abs({c}) < 1e11 then {c} else {c} / 1000.0 end)")
        }
        (_, "timestamp") if number => format!(
            "to_timestamp(case when abs({c}) < 1e11 then {c} else {c} / 1000.0 end) at time zone 'UTC'"
        ),
        (_, "boolean") if number => format!("{c} <> 0"),
        ("bytea", "uuid") => format!("encode({c}, 'hex')::uuid"),
        _ => format!("{c}::{to}"),
    };
    format!(
        "alter table {} alter column {c} type {to} using {using}",
        qualified(schema, &table.name)
    )
}
