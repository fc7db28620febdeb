//! The app's own rows: read, written and deleted by exact key.
//!
//! A key is exact by type and bytes: under a NOCASE or untyped key, `=` alone would find another row.
//! Writes say OR ABORT, which overrides any conflict clause of the schema: a `unique on conflict
//! replace` must not evict a row when a remote one is installed.

use super::quote::{ident, idents};
use super::value;
use crate::model::{Key, Row, Table, Value};
use rusqlite::{Connection, OptionalExtension, ToSql};

/// `k1 = ?n and ...`, exact; parameters from number `first` on.
fn where_key(table: &Table, first: usize) -> String {
    table
        .key
        .iter()
        .enumerate()
        .map(|(i, c)| {
            let (c, n) = (ident(c), first + i);
            format!("{c} = ?{n} and {c} = ?{n} collate binary and typeof({c}) = typeof(?{n})")
        })
        .collect::<Vec<_>>()
        .join(" and ")
}

/// The replicated columns of the row under a key; `None` where there is none.
pub fn read(conn: &Connection, table: &Table, key: &Key) -> rusqlite::Result<Option<Row>> {
    let names: Vec<&str> = table.replicated().map(|c| c.name.as_str()).collect();
    read_columns(conn, table, key, &names)
}

/// Columns of the row under a key; `None` where there is none.
pub fn read_columns(
    conn: &Connection,
    table: &Table,
    key: &Key,
    names: &[&str],
) -> rusqlite::Result<Option<Row>> {
    let condition = if key.has_null() {
        // NULL identifies nothing; any such row stands for the refusal.
        table
            .key
            .iter()
            .enumerate()
            .map(|(i, c)| format!("{} is ?{}", ident(c), i + 1))
            .collect::<Vec<_>>()
            .join(" and ")
    } else {
        where_key(table, 1)
    };
    let sql = format!(
        "select {} from {} where {condition} limit 1",
        idents(names.iter().copied()),
        ident(&table.name)
    );
    conn.prepare_cached(&sql)?
        .query_row(rusqlite::params_from_iter(&key.0), |r| {
            value::row(r, 0, names.iter().copied())
        })
        .optional()
}

/// Whether a row is there.
pub fn exists(conn: &Connection, table: &Table, key: &Key) -> rusqlite::Result<bool> {
    let sql = format!(
        "select 1 from {} where {}",
        ident(&table.name),
        where_key(table, 1)
    );
    conn.prepare_cached(&sql)?
        .exists(rusqlite::params_from_iter(&key.0))
}

/// Deletes the row; whether there was one.
pub fn delete(conn: &Connection, table: &Table, key: &Key) -> rusqlite::Result<bool> {
    let sql = format!(
        "delete from {} where {}",
        ident(&table.name),
        where_key(table, 1)
    );
    conn.prepare_cached(&sql)?
        .execute(rusqlite::params_from_iter(&key.0))
        .map(|n| n > 0)
}

/// What keeps a table's own ON CONFLICT REPLACE from evicting other rows. Only where the table may have
/// one: the words would also stand over those of the statements in its triggers, and an `insert or
/// replace` there would fail.
fn or_abort(table: &Table) -> &'static str {
    if table.sql.to_ascii_lowercase().contains("conflict") {
        " or abort"
    } else {
        ""
    }
}

/// Writes the columns that both the row and the table have; creates the row where it is absent.
pub fn write(conn: &Connection, table: &Table, key: &Key, row: &Row) -> rusqlite::Result<()> {
    let known: Vec<(&str, &Value)> = row
        .0
        .iter()
        .filter(|(c, v)| {
            // A writer that does not know the column leaves it NULL there; its default stands in here.
            table
                .replicated()
                .any(|k| k.name == *c && (!k.stands_in_for(Some(v)) || table.key.contains(c)))
        })
        .map(|(c, v)| (c.as_str(), v))
        .collect();
    if exists(conn, table, key)? {
        return update(conn, table, key, &known);
    }
    // A redacted column never arrives; where NULL is not allowed it starts empty.
    let blanks: Vec<(&str, Value)> = table
        .columns
        .iter()
        .filter(|c| c.redacted || table.redact().contains(&c.name))
        .filter(|c| c.not_null && !c.has_default && !c.generated)
        .filter(|c| !known.iter().any(|(k, _)| *k == c.name))
        .map(|c| (c.name.as_str(), c.blank()))
        .collect();
    let names = known
        .iter()
        .map(|(c, _)| *c)
        .chain(blanks.iter().map(|(c, _)| *c));
    let marks: Vec<String> = (1..=known.len() + blanks.len())
        .map(|i| format!("?{i}"))
        .collect();
    let sql = format!(
        "insert{} into {} ({}) values ({})",
        or_abort(table),
        ident(&table.name),
        idents(names),
        marks.join(", ")
    );
    let params: Vec<&dyn ToSql> = known
        .iter()
        .map(|(_, v)| *v as &dyn ToSql)
        .chain(blanks.iter().map(|(_, v)| v as &dyn ToSql))
        .collect();
    conn.prepare_cached(&sql)?.execute(params.as_slice())?;
    Ok(())
}

/// Updates columns of the row under a key; those of the key itself stay.
pub fn update(
    conn: &Connection,
    table: &Table,
    key: &Key,
    columns: &[(&str, &Value)],
) -> rusqlite::Result<()> {
    let changed: Vec<_> = columns
        .iter()
        .filter(|(c, _)| !table.key.iter().any(|k| k == c))
        .copied()
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    rekey(conn, table, key, &changed)
}

/// Updates columns of the row under a key, those of the key itself included.
pub fn rekey(
    conn: &Connection,
    table: &Table,
    key: &Key,
    columns: &[(&str, &Value)],
) -> rusqlite::Result<()> {
    let set: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(i, (c, _))| format!("{} = ?{}", ident(c), i + 1))
        .collect();
    let sql = format!(
        "update{} {} set {} where {}",
        or_abort(table),
        ident(&table.name),
        set.join(", "),
        where_key(table, columns.len() + 1)
    );
    let params: Vec<&dyn ToSql> = columns
        .iter()
        .map(|(_, v)| *v as &dyn ToSql)
        .chain(key.0.iter().map(|v| v as &dyn ToSql))
        .collect();
    conn.prepare_cached(&sql)?.execute(params.as_slice())?;
    Ok(())
}

/// A column's values in the newest rows, as far as an order of theirs is known; NULL is left out.
pub fn newest(
    conn: &Connection,
    table: &Table,
    column: &str,
    rows: usize,
) -> rusqlite::Result<Vec<Value>> {
    let order = rowid(table).map_or(String::new(), |r| format!("order by {r} desc"));
    let sql = format!(
        "select v from (select {} as v from {} {order} limit {rows}) where v is not null",
        ident(column),
        ident(&table.name)
    );
    conn.prepare_cached(&sql)?
        .query_map([], |r| Ok(value::from_ref(r.get_ref(0)?)))?
        .collect()
}

/// The name under which a table's rowid can be had.
fn rowid(table: &Table) -> Option<&'static str> {
    ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|r| !table.columns.iter().any(|c| c.name.eq_ignore_ascii_case(r)))
        .filter(|_| !table.without_rowid)
}

/// Keys of a table in pages, in an order of SQLite's own. Returns the keys and where to go on.
pub fn keys(
    conn: &Connection,
    table: &Table,
    after: Option<&[Value]>,
    limit: usize,
) -> rusqlite::Result<(Vec<Key>, Option<Vec<Value>>)> {
    let n = table.key.len();
    let order: Vec<String> = match rowid(table) {
        Some(r) => vec![r.to_owned()],
        None => table.key.iter().map(|c| ident(c)).collect(),
    };
    let condition = match after {
        None => String::new(),
        Some(a) => {
            let marks: Vec<String> = (1..=a.len()).map(|i| format!("?{i}")).collect();
            format!("where ({}) > ({})", order.join(", "), marks.join(", "))
        }
    };
    let sql = format!(
        "select {}, {} from {} {condition} order by {} limit {limit}",
        idents(table.key.iter().map(String::as_str)),
        order.join(", "),
        ident(&table.name),
        order.join(", "),
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(after.unwrap_or(&[])))?;
    let (mut out, mut last) = (Vec::new(), None);
    while let Some(r) = rows.next()? {
        out.push(value::key(r, 0, n)?);
        last = Some(value::values(r, n, order.len())?);
    }
    Ok((out, last))
}
