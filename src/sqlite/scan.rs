//! A look through the app's data for what Postgres would reject, before it is sent.
//!
//! Reads in pages, each a short read transaction of its own, so that the app's WAL can be checkpointed
//! in between; memory does not grow with the table. Counts only: no value leaves this module. A row that
//! is written meanwhile may be missed or seen twice, which the capture makes good.

use super::fault::OrFault;
use super::local::Local;
use super::quote::{ident, idents};
use super::value;
use crate::error::Result;
use crate::model::{Misfit, Table, Value, Wire};
use std::collections::{BTreeMap, BTreeSet};

const WHAT: &str = "looking through the data";

/// Rows of a page.
const PAGE: usize = 2_000;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A value does not fit its column.
    Value(Misfit),
    /// A key column is NULL.
    NullKey,
    /// The row is larger than `row_bytes_max`.
    TooLarge,
}

/// How often something is wrong in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The column; `None` for the row as a whole.
    pub column: Option<String>,
    /// What.
    pub fault: Fault,
    /// In how many rows.
    pub rows: u64,
    /// The storage classes that were met there.
    pub classes: BTreeSet<&'static str>,
}

fn class(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Int(_) => "integer",
        Value::Real(_) => "real",
        Value::Text(_) | Value::BadText(_) => "text",
        Value::Blob(_) => "blob",
    }
}

/// What the claim counts of a value.
fn size(v: &Value) -> usize {
    match v {
        Value::Text(t) => t.len(),
        Value::Blob(b) | Value::BadText(b) => b.len(),
        Value::Null | Value::Int(_) | Value::Real(_) => 8,
    }
}

/// What was found, by place and kind.
#[derive(Default)]
struct Found(BTreeMap<(usize, Fault), (u64, BTreeSet<&'static str>)>);

impl Found {
    fn add(&mut self, column: usize, fault: Fault, class: &'static str) {
        let entry = self.0.entry((column, fault)).or_default();
        entry.0 += 1;
        entry.1.insert(class);
    }
}

/// Looks through one table. `wire` says how a column travels; `advance` hears of each page.
pub fn table(
    local: &Local,
    table: &Table,
    wire: &dyn Fn(&str) -> Wire,
    row_bytes_max: usize,
    advance: &dyn Fn(u64),
) -> Result<Vec<Finding>> {
    let names: Vec<&str> = table.replicated().map(|c| c.name.as_str()).collect();
    let wires: Vec<Wire> = names.iter().map(|n| wire(n)).collect();
    let is_key: Vec<bool> = names
        .iter()
        .map(|n| table.key.iter().any(|k| k == n))
        .collect();
    let order = order(table);
    let mut found = Found::default();
    let mut after: Option<Vec<Value>> = None;
    loop {
        let mut read = 0_u64;
        let condition = after.as_ref().map_or_else(String::new, |a| {
            let marks: Vec<String> = (1..=a.len()).map(|i| format!("?{i}")).collect();
            format!("where ({}) > ({})", order.join(", "), marks.join(", "))
        });
        let sql = format!(
            "select {}, {} from {} {condition} order by {} limit {PAGE}",
            idents(names.iter().copied()),
            order.join(", "),
            ident(&table.name),
            order.join(", "),
        );
        let mut statement = local.conn().prepare_cached(&sql).or_fault(WHAT)?;
        let mut rows = statement
            .query(rusqlite::params_from_iter(after.iter().flatten()))
            .or_fault(WHAT)?;
        let mut last = None;
        while let Some(r) = rows.next().or_fault(WHAT)? {
            read += 1;
            let mut bytes = 0;
            for (i, wire) in wires.iter().enumerate() {
                let v = value::from_ref(r.get_ref(i).or_fault(WHAT)?);
                bytes += size(&v);
                if let Some(misfit) = wire.misfit(&v) {
                    found.add(i, Fault::Value(misfit), class(&v));
                }
                if is_key[i] && v == Value::Null {
                    found.add(i, Fault::NullKey, "null");
                }
            }
            if bytes > row_bytes_max {
                found.add(usize::MAX, Fault::TooLarge, "row");
            }
            last = Some(value::values(r, names.len(), order.len()).or_fault(WHAT)?);
        }
        advance(read);
        if read < PAGE as u64 {
            break;
        }
        after = last;
    }
    Ok(found
        .0
        .into_iter()
        .map(|((column, fault), (rows, classes))| Finding {
            column: names.get(column).map(|n| (*n).to_owned()),
            fault,
            rows,
            classes,
        })
        .collect())
}

/// An order of SQLite's own in which a table can be read page by page.
fn order(table: &Table) -> Vec<String> {
    let rowid = ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|r| !table.columns.iter().any(|c| c.name.eq_ignore_ascii_case(r)))
        .filter(|_| !table.without_rowid);
    match rowid {
        Some(r) => vec![r.to_owned()],
        None => table.key.iter().map(|c| ident(c)).collect(),
    }
}
