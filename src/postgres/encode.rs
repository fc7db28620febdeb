//! Values on their way into Postgres: columns of a batch as arrays, keys as single parameters.
//!
//! A value that its column cannot hold is found here, before it is sent, with the SQLSTATE the server
//! would have answered.

use super::quote::{Param, Statement};
use crate::model::{Key, Limit, Misfit, Typed, Value, Wire};
use crate::remote::{Mirror, Refusal};
use tokio_postgres::types::Type;

/// The refusal of a value that its column cannot hold.
fn misfit(column: &str, sqlstate: &str, what: &str) -> Refusal {
    Refusal {
        sqlstate: sqlstate.to_owned(),
        message: format!("column {column}: {what}"),
        later: false,
    }
}

/// A real in the shortest decimal text that reads back as the same real.
fn real_text(r: f64) -> String {
    format!("{r:?}")
}

/// The text of a value in a `numeric` column.
fn numeric_text(r: f64) -> String {
    if r == f64::INFINITY {
        "Infinity".into()
    } else if r == f64::NEG_INFINITY {
        "-Infinity".into()
    } else {
        real_text(r)
    }
}

/// The text of a value in a `text` column whose SQLite affinity turns it back into a number.
fn affine_text(r: f64) -> String {
    if r == f64::INFINITY {
        "9e999".into()
    } else if r == f64::NEG_INFINITY {
        "-9e999".into()
    } else {
        real_text(r)
    }
}

/// The JSON of a value in a `jsonb` column: `jsonb` normalises numbers, so reals are tagged.
fn dynamic_text(v: &Value) -> String {
    match v {
        Value::Real(r) => format!("{{\"real\": \"{}\"}}", real_text(*r)),
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

/// The text of a value whose type knows one form of it only.
fn typed_text(column: &str, t: Typed, v: &Value) -> Result<Option<String>, Refusal> {
    match v {
        Value::Null => return Ok(None),
        Value::BadText(_) => return Err(misfit(column, "22021", NOT_UTF8)),
        Value::Text(text) if text.contains('\0') => return Err(misfit(column, "22021", NUL)),
        _ => {}
    }
    t.canonical(v).map(Some).map_err(|(sqlstate, what)| {
        let what = format!("{what}, which its type {} could hold", t.pg_type());
        misfit(column, sqlstate, &what)
    })
}

/// A value in the form of its wire: the element of an array, or a single parameter.
enum Cell {
    Int(Option<i64>),
    Real(Option<f64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

const NOT_UTF8: &str = "the text is not valid UTF-8";
const NUL: &str = "the text holds a NUL character";
const NOT_THE_TYPE: &str = "the value does not fit the type of its column";

fn cell(column: &str, wire: Wire, v: &Value) -> Result<Cell, Refusal> {
    if let Wire::Typed(t) = wire {
        return typed_text(column, t, v).map(Cell::Text);
    }
    match wire.misfit(v) {
        None => {}
        Some(Misfit::NotUtf8) => return Err(misfit(column, "22021", NOT_UTF8)),
        Some(Misfit::Nul) => return Err(misfit(column, "22021", NUL)),
        Some(Misfit::Class) => return Err(misfit(column, "22P02", NOT_THE_TYPE)),
    }
    Ok(match (wire, v) {
        (Wire::Int, Value::Null) => Cell::Int(None),
        (Wire::Int, Value::Int(i)) => Cell::Int(Some(*i)),
        (Wire::Real, Value::Null) => Cell::Real(None),
        (Wire::Real, Value::Real(r)) => Cell::Real(Some(*r)),
        (Wire::Real, Value::Int(i)) => Cell::Real(Some(*i as f64)),
        (Wire::Bytes, Value::Null) => Cell::Bytes(None),
        (Wire::Bytes, Value::Blob(b)) => Cell::Bytes(Some(b.clone())),
        (Wire::Text | Wire::Affine | Wire::Numeric | Wire::Dynamic, Value::Null) => {
            Cell::Text(None)
        }
        (Wire::Text | Wire::Affine, Value::Text(t)) => Cell::Text(Some(t.clone())),
        (Wire::Affine | Wire::Numeric, Value::Int(i)) => Cell::Text(Some(i.to_string())),
        (Wire::Affine, Value::Real(r)) => Cell::Text(Some(affine_text(*r))),
        (Wire::Numeric, Value::Real(r)) => Cell::Text(Some(numeric_text(*r))),
        (Wire::Dynamic, v) => Cell::Text(Some(dynamic_text(v))),
        _ => return Err(misfit(column, "22P02", NOT_THE_TYPE)),
    })
}

/// Whether a value can travel in its column at all, within the limit that the column has.
pub fn check(column: &str, wire: Wire, limit: Option<Limit>, v: &Value) -> Result<(), Refusal> {
    cell(column, wire, v)?;
    match limit.and_then(|l| l.refuses(wire, v)) {
        Some((sqlstate, what)) => Err(misfit(column, sqlstate, &what)),
        None => Ok(()),
    }
}

/// The cast from the array's element to the column, for types that the driver does not know natively.
pub fn cast(wire: Wire) -> &'static str {
    match wire {
        Wire::Int | Wire::Real | Wire::Text | Wire::Bytes | Wire::Affine => "",
        Wire::Numeric => "::numeric",
        Wire::Dynamic => "::jsonb",
        Wire::Typed(t) => match t {
            Typed::Boolean => "::boolean",
            Typed::Date => "::date",
            Typed::Time => "::time",
            Typed::Timestamp => "::timestamp",
            Typed::Timestamptz => "::timestamptz",
            Typed::Uuid | Typed::UuidBytes => "::uuid",
            Typed::Json => "::json",
            Typed::Jsonb => "::jsonb",
            Typed::Decimal => "::numeric",
        },
    }
}

/// The column's values of a batch as one array parameter; returns `$n::type[]`.
/// Values that do not fit were sorted out before; a misfit here becomes NULL-free failure of the batch.
pub fn bind_column<'a>(
    s: &mut Statement,
    column: &str,
    wire: Wire,
    values: impl Iterator<Item = &'a Value>,
) -> Result<String, Refusal> {
    let cells = values
        .map(|v| cell(column, wire, v))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(match wire {
        Wire::Int => {
            let a: Vec<Option<i64>> = cells
                .into_iter()
                .map(|c| if let Cell::Int(i) = c { i } else { None })
                .collect();
            format!("{}::bigint[]", s.bind(a, Type::INT8_ARRAY))
        }
        Wire::Real => {
            let a: Vec<Option<f64>> = cells
                .into_iter()
                .map(|c| if let Cell::Real(r) = c { r } else { None })
                .collect();
            format!("{}::double precision[]", s.bind(a, Type::FLOAT8_ARRAY))
        }
        Wire::Bytes => {
            let a: Vec<Option<Vec<u8>>> = cells
                .into_iter()
                .map(|c| if let Cell::Bytes(b) = c { b } else { None })
                .collect();
            format!("{}::bytea[]", s.bind(a, Type::BYTEA_ARRAY))
        }
        Wire::Text | Wire::Affine | Wire::Numeric | Wire::Dynamic | Wire::Typed(_) => {
            let a: Vec<Option<String>> = cells
                .into_iter()
                .map(|c| if let Cell::Text(t) = c { t } else { None })
                .collect();
            format!("{}::text[]", s.bind(a, Type::TEXT_ARRAY))
        }
    })
}

/// One value as a parameter with its cast, as in `$3::text::numeric`.
pub fn bind_one(s: &mut Statement, column: &str, wire: Wire, v: &Value) -> Result<String, Refusal> {
    let (param, ty, cast_to): (Param, Type, &str) = match cell(column, wire, v)? {
        Cell::Int(i) => (Box::new(i), Type::INT8, "::bigint"),
        Cell::Real(r) => (Box::new(r), Type::FLOAT8, "::double precision"),
        Cell::Bytes(b) => (Box::new(b), Type::BYTEA, "::bytea"),
        Cell::Text(t) => (Box::new(t), Type::TEXT, "::text"),
    };
    Ok(format!(
        "{}{cast_to}{}",
        s.bind_boxed(param, ty),
        cast(wire)
    ))
}

/// `unnest(...)` over key columns; returns it with the names `k0, k1, ...` for its columns.
pub fn unnest_keys(
    s: &mut Statement,
    key_columns: &[String],
    mirror: &Mirror,
    keys: &[&Key],
) -> Result<String, Refusal> {
    let mut arrays = Vec::with_capacity(key_columns.len());
    for (i, c) in key_columns.iter().enumerate() {
        let wire = wire_of(mirror, c)?;
        let values = keys.iter().map(|k| k.0.get(i).unwrap_or(&Value::Null));
        arrays.push(bind_column(s, c, wire, values)?);
    }
    Ok(format!("unnest({})", arrays.join(", ")))
}

/// The wire form of a column that the mirror has.
pub fn wire_of(mirror: &Mirror, column: &str) -> Result<Wire, Refusal> {
    mirror.wires.get(column).copied().ok_or_else(|| Refusal {
        sqlstate: "42703".into(),
        message: format!("column {column} does not exist on the remote"),
        later: true,
    })
}
