//! Values between rusqlite and the model, with their storage class and without any conversion.

use crate::model::{Key, Row, Value};
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

/// The value of a result column.
pub fn from_ref(v: ValueRef<'_>) -> Value {
    match v {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(i) => Value::Int(i),
        ValueRef::Real(r) => Value::Real(r),
        ValueRef::Text(t) => match std::str::from_utf8(t) {
            Ok(s) => Value::Text(s.to_owned()),
            Err(_) => Value::BadText(t.to_vec()),
        },
        ValueRef::Blob(b) => Value::Blob(b.to_vec()),
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Int(i) => ValueRef::Integer(*i),
            Value::Real(r) => ValueRef::Real(*r),
            Value::Text(t) => ValueRef::Text(t.as_bytes()),
            Value::Blob(b) => ValueRef::Blob(b),
            Value::BadText(b) => ValueRef::Text(b),
        }))
    }
}

/// The values of columns `from..from + n` of a result row.
pub fn values(row: &rusqlite::Row<'_>, from: usize, n: usize) -> rusqlite::Result<Vec<Value>> {
    (from..from + n)
        .map(|i| row.get_ref(i).map(from_ref))
        .collect()
}

/// The key in columns `from..from + n` of a result row.
pub fn key(row: &rusqlite::Row<'_>, from: usize, n: usize) -> rusqlite::Result<Key> {
    values(row, from, n).map(Key)
}

/// A row of named columns from result column `from` on.
pub fn row<'a>(
    row: &rusqlite::Row<'_>,
    from: usize,
    names: impl IntoIterator<Item = &'a str>,
) -> rusqlite::Result<Row> {
    names
        .into_iter()
        .enumerate()
        .map(|(i, n)| Ok((n.to_owned(), from_ref(row.get_ref(from + i)?))))
        .collect::<rusqlite::Result<Vec<_>>>()
        .map(Row)
}
