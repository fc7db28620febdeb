//! One row's sync status, and keys as people type them.

use super::queue::{item_error, not_applied};
use super::{Spec, log_keys, time};
use crate::error::{Code, Error, Result};
use crate::model::{Affinity, Key, Value};
use crate::report::{RowStatus, Time};
use crate::sqlite::app_row;
use crate::sqlite::fault::OrFault;
use crate::sqlite::local::{has_table, load_tables};
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

const WHAT: &str = "reading the status of a row";

/// A key from its words on the command line, by the affinity of the key's columns: what SQLite would
/// make of the same words. A blob is written `x'6162'` or, as in the documents, `{"hex":"6162"}`; a key of
/// several columns may be one word, the JSON array of the documents and of `tidewater_status`.
pub fn parse_key(conn: &Connection, table: &str, words: &[String]) -> Result<Key> {
    let spec = tracked(conn, table)?;
    if let ([word], true) = (words, spec.key.len() > 1)
        && let Ok(values) = serde_json::from_str::<Vec<Value>>(word)
        && values.len() == spec.key.len()
    {
        return Ok(Key(values));
    }
    if words.len() != spec.key.len() {
        return Err(Error::new(
            Code::Configuration,
            format!(
                "the number of values in a key of {} is {}, not {}",
                table,
                spec.key.len(),
                words.len()
            ),
            format!("give {}, in this order", spec.key.join(" ")),
        )
        .on_table(table));
    }
    let parts = spec.key.iter().zip(words).map(|(name, word)| {
        let declared = spec
            .columns
            .iter()
            .find(|c| c.name == *name)
            .map_or("", |c| c.declared.as_str());
        parse_value(declared, word)
    });
    Ok(Key(parts.collect()))
}

/// The tracked table that SQLite would take `word` for: its names know no case.
pub fn table_named(conn: &Connection, word: &str) -> Result<String> {
    conn.prepare_cached("select name from tidewater_table where name = ?1 collate nocase")
        .and_then(|mut s| s.query_row([word], |r| r.get(0)).optional())
        .or_fault("reading the tracked tables")?
        .ok_or_else(|| untracked(word))
}

/// Whether a row is pending, synced, in conflict or failed: the first that holds of failed, pending,
/// in conflict (unseen); else it is synced. Fails where neither the app's table nor a queue knows the row.
pub fn row_status(conn: &Connection, table: &str, key: &Key) -> Result<RowStatus> {
    tracked(conn, table)?;
    let pk = key.encode();
    let mut report = RowStatus {
        table: table.to_owned(),
        key: key.0.clone(),
        status: "synced".to_owned(),
        change_key: None,
        error: None,
        synced_at: None,
    };
    let entry = |statuses: &str| {
        conn.query_row(
            &format!(
                "select change_key, synced_at, error_code, sqlstate, error, remedy
                 from tidewater_outbox where tbl = ?1 and pk = ?2 and status in ({statuses})
                 order by id desc limit 1"
            ),
            [table, &pk],
            |r| Ok((r.get(0)?, time(r, 1)?, item_error(r, 2)?)),
        )
        .optional()
        .or_fault(WHAT)
    };
    let installed = |status: &str| {
        conn.query_row(
            "select change_key, at, error from tidewater_inbox
             where tbl = ?1 and pk = ?2 and status = ?3 order by id desc limit 1",
            [table, &pk, status],
            |r| {
                Ok((
                    r.get::<_, Option<String>>(0)?,
                    time(r, 1)?,
                    r.get::<_, Option<String>>(2)?,
                ))
            },
        )
        .optional()
        .or_fault(WHAT)
    };
    let sent: Option<(String, Option<Time>, _)> = entry("'synced'")?;
    let applied = installed("applied")?;
    report.synced_at = [
        &sent.as_ref().and_then(|s| s.1),
        &applied.as_ref().and_then(|a| a.1),
    ]
    .into_iter()
    .flatten()
    .max()
    .copied();

    if let Some((change, _, error)) = entry("'failed'")? {
        report.status = "failed".to_owned();
        report.change_key = Some(change);
        report.error = error;
    } else if let Some((change, _, message)) = installed("failed")? {
        report.status = "failed".to_owned();
        report.change_key = change;
        report.error = Some(not_applied(message.unwrap_or_default()));
    } else if let Some((change, _, error)) = entry("'pending', 'uploading'")? {
        report.status = "pending".to_owned();
        report.change_key = Some(change);
        report.error = error;
    } else if is_unclaimed(conn, table, key)? || has_note(conn, table, &pk)? {
        report.status = "pending".to_owned();
    } else {
        if has_unseen_conflict(conn, table, &pk)? {
            report.status = "conflict".to_owned();
        } else if sent.is_none() && applied.is_none() && !stands(conn, table, key)? {
            return Err(Error::new(
                Code::Configuration,
                "there is no row with this key, neither in the table nor in a queue or its history",
                "check the key, and give its parts in the order of the key's columns",
            )
            .on_table(table));
        }
        report.change_key = match (sent, applied) {
            (Some(s), Some(a)) if a.1 > s.1 => a.0,
            (Some(s), _) => Some(s.0),
            (None, a) => a.and_then(|a| a.0),
        };
    }
    Ok(report)
}

fn tracked(conn: &Connection, table: &str) -> Result<Spec> {
    Spec::of(conn, table)?.ok_or_else(|| untracked(table))
}

fn untracked(table: &str) -> Error {
    Error::new(
        Code::Configuration,
        format!("{table} is not a tracked table"),
        "`tidewater status` lists the tracked tables; `tidewater init` tracks more",
    )
    .on_table(table)
}

/// The condition by which a row's entries in the key log are found, and its parameters.
pub(super) fn log_condition(
    conn: &Connection,
    table: &str,
    key: &Key,
) -> Result<(String, Vec<Value>)> {
    let columns = log_keys(conn)?;
    // `is` and not `=`, lest the padding of a shorter key never match.
    let condition: String = (1..=columns.len())
        .map(|i| format!(" and k{i} is ?{}", i + 1))
        .collect();
    let mut values = vec![Value::Text(table.to_owned())];
    values.extend(key.0.iter().cloned());
    values.resize(columns.len() + 1, Value::Null);
    Ok((format!("tbl = ?1{condition}"), values))
}

fn is_unclaimed(conn: &Connection, table: &str, key: &Key) -> Result<bool> {
    let (condition, values) = log_condition(conn, table, key)?;
    conn.query_row(
        &format!("select exists (select 1 from tidewater_log where {condition})"),
        params_from_iter(values),
        |r| r.get(0),
    )
    .or_fault(WHAT)
}

/// Whether the app's table holds the row.
fn stands(conn: &Connection, table: &str, key: &Key) -> Result<bool> {
    let known = load_tables(conn)?
        .into_iter()
        .find(|k| k.table.name == table);
    match known {
        // Its table may have gone since.
        Some(_) if !has_table(conn, table)? => Ok(false),
        Some(k) => Ok(app_row::read(conn, &k.table, key).or_fault(WHAT)?.is_some()),
        None => Ok(false),
    }
}

fn has_note(conn: &Connection, table: &str, pk: &str) -> Result<bool> {
    conn.query_row(
        "select exists (select 1 from tidewater_note where tbl = ?1 and pk = ?2)",
        [table, pk],
        |r| r.get(0),
    )
    .or_fault(WHAT)
}

fn has_unseen_conflict(conn: &Connection, table: &str, pk: &str) -> Result<bool> {
    conn.query_row(
        "select exists (select 1 from tidewater_conflict where tbl = ?1 and pk = ?2 and seen = ?3)",
        params![table, pk, 0],
        |r| r.get(0),
    )
    .or_fault(WHAT)
}

fn parse_value(declared: &str, word: &str) -> Value {
    let affinity = Affinity::of(declared);
    if affinity == Affinity::Text {
        return Value::Text(word.to_owned());
    }
    let blob = word
        .strip_prefix("x'")
        .or_else(|| word.strip_prefix("X'"))
        .and_then(|rest| rest.strip_suffix('\''))
        .and_then(|digits| serde_json::from_value(serde_json::json!({ "hex": digits })).ok())
        .or_else(|| serde_json::from_str(word).ok())
        .filter(|value| matches!(value, Value::Blob(_)));
    if let Some(blob) = blob {
        return blob;
    }
    // A column that declares no type stores what it is given, and apps give numbers as numbers;
    // one that declares BLOB keeps words as text.
    if affinity == Affinity::Blob && !declared.is_empty() {
        return Value::Text(word.to_owned());
    }
    if let Ok(n) = word.parse::<i64>() {
        return match affinity {
            Affinity::Real => Value::Real(n as f64),
            _ => Value::Int(n),
        };
    }
    let numeric = word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    match word.parse::<f64>() {
        Ok(r) if numeric && r.is_finite() => Value::Real(r),
        _ => Value::Text(word.to_owned()),
    }
}
