//! Values on their way out of Postgres, back into what the app wrote.

use super::typed;
use crate::error::{Code, Disposition, Error, Result};
use crate::model::{Affinity, Column, Key, Row, Table, Typed, Value, Wire};
use crate::postgres::quote::ident;
use crate::remote::Mirror;
use tokio_postgres::Row as PgRow;

/// The expression that reads a column, in a form the driver knows natively.
pub fn select_expr(alias: &str, column: &str, wire: Wire) -> String {
    let cast = match wire {
        Wire::Int => "::bigint",
        Wire::Real => "::double precision",
        Wire::Bytes => "",
        // Without a cast: a column that somebody gave another type is noticed, not misread.
        Wire::Text | Wire::Affine => "",
        Wire::Numeric | Wire::Dynamic | Wire::Typed(_) => "::text",
    };
    format!("{alias}.{}{cast}", ident(column))
}

fn unreadable(column: &str, e: impl std::fmt::Display) -> Error {
    Error::new(
        Code::SchemasDiffer,
        format!("column {column} of the remote cannot be read: {e}"),
        "compare the column's type on both sides",
    )
    .with_disposition(Disposition::SchemaDrift)
}

/// The value of result column `i`.
pub fn value(row: &PgRow, i: usize, column: &str, wire: Wire, affinity: Affinity) -> Result<Value> {
    let text = |f: &dyn Fn(&str) -> Value| -> Result<Value> {
        let t: Option<&str> = row.try_get(i).map_err(|e| unreadable(column, e))?;
        Ok(t.map_or(Value::Null, f))
    };
    match wire {
        Wire::Int => row
            .try_get::<_, Option<i64>>(i)
            .map(|v| v.map_or(Value::Null, Value::Int))
            .map_err(|e| unreadable(column, e)),
        Wire::Real => row
            .try_get::<_, Option<f64>>(i)
            .map(|v| v.map_or(Value::Null, |r| affinity.settle(real(r))))
            .map_err(|e| unreadable(column, e)),
        Wire::Bytes => row
            .try_get::<_, Option<Vec<u8>>>(i)
            .map(|v| v.map_or(Value::Null, Value::Blob))
            .map_err(|e| unreadable(column, e)),
        Wire::Text => text(&|t| Value::Text(t.to_owned())),
        Wire::Affine => text(&|t| affinity.settle(Value::Text(t.to_owned()))),
        Wire::Numeric => text(&|t| affinity.settle(numeric(t))),
        Wire::Dynamic => {
            text(&|t| serde_json::from_str(t).unwrap_or_else(|_| Value::Text(t.to_owned())))
        }
        Wire::Typed(t) => text(&|answer| typed::read(t, affinity, answer)),
    }
}

/// SQLite stores NaN as NULL.
fn real(r: f64) -> Value {
    if r.is_nan() {
        Value::Null
    } else {
        Value::Real(r)
    }
}

/// A `numeric`: an integer where it is one, else a real.
fn numeric(t: &str) -> Value {
    let whole = t
        .split_once('.')
        .map_or(t, |(w, f)| if f.bytes().all(|b| b == b'0') { w } else { t });
    match whole.parse::<i64>() {
        Ok(i) => Value::Int(i),
        Err(_) => t.parse::<f64>().map_or(Value::Null, real),
    }
}

/// The columns of a mirror that this device reads, in the table's order, with their wire form.
pub fn readable<'a>(table: &'a Table, mirror: &Mirror) -> Vec<(&'a Column, Wire)> {
    table
        .replicated()
        .filter_map(|c| mirror.wires.get(&c.name).map(|w| (c, *w)))
        .collect()
}

/// Bytes of a row's content without detoasting it.
pub fn weight(alias: &str, columns: &[(&Column, Wire)]) -> String {
    let long: Vec<String> = columns
        .iter()
        .filter_map(|(c, w)| match w {
            Wire::Text | Wire::Affine | Wire::Bytes => Some(format!(
                "coalesce(octet_length({alias}.{}), 0)",
                ident(&c.name)
            )),
            Wire::Dynamic | Wire::Typed(Typed::Json | Typed::Jsonb) => Some(format!(
                "coalesce(octet_length({alias}.{}::text), 0)",
                ident(&c.name)
            )),
            Wire::Int | Wire::Real | Wire::Numeric | Wire::Typed(_) => None,
        })
        .collect();
    let short = 16 * columns.len().saturating_sub(long.len()) + 48;
    if long.is_empty() {
        format!("{short}::bigint")
    } else {
        format!("({} + {short})::bigint", long.join(" + "))
    }
}

/// A row of `columns` from result column `from` on.
pub fn row(pg: &PgRow, from: usize, columns: &[(&Column, Wire)]) -> Result<Row> {
    columns
        .iter()
        .enumerate()
        .map(|(i, (c, w))| {
            Ok((
                c.name.clone(),
                value(pg, from + i, &c.name, *w, c.affinity())?,
            ))
        })
        .collect::<Result<Vec<_>>>()
        .map(Row)
}

/// The key of a row in columns `from..`.
pub fn key(pg: &PgRow, from: usize, table: &Table, mirror: &Mirror) -> Result<Key> {
    table
        .key
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let wire = mirror.wires.get(name).copied().unwrap_or(Wire::Text);
            let affinity = table.column(name).map_or(Affinity::Blob, Column::affinity);
            value(pg, from + i, name, wire, affinity)
        })
        .collect::<Result<Vec<_>>>()
        .map(Key)
}

/// The expressions that read a mirror's key.
pub fn key_exprs(alias: &str, table: &Table, mirror: &Mirror) -> Vec<String> {
    table
        .key
        .iter()
        .map(|c| {
            let wire = mirror.wires.get(c).copied().unwrap_or(Wire::Text);
            match wire {
                Wire::Typed(_) => format!("'|' || {}", select_expr(alias, c, wire)),
                wire => select_expr(alias, c, wire),
            }
        })
        .collect()
}

/// A column of a fixed type that our own statements return.
pub fn get<'a, T: tokio_postgres::types::FromSql<'a>>(pg: &'a PgRow, i: usize) -> Result<T> {
    pg.try_get(i).map_err(|e| unreadable("of an answer", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_in_the_class_that_sqlite_gives_them() {
        assert_eq!(numeric("5"), Value::Int(5));
        assert_eq!(numeric("5.00"), Value::Int(5));
        assert_eq!(numeric("0.99"), Value::Real(0.99));
        assert_eq!(numeric("Infinity"), Value::Real(f64::INFINITY));
    }
}
