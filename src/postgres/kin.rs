//! Whether two equal rows are one row: not where both refer to a key that two parents got.
//!
//! Reads what this transaction and earlier ones recorded of the parents; decides nothing itself.

use super::decode::get;
use super::judge;
use super::quote::{Statement, ident};
use super::rival::Rivals;
use crate::error::Result;
use crate::model::{Key, Op, Value};
use crate::remote::Item;

/// Whether a pushed row means another parent than the row that stands under its key, though both write
/// the same key for it: this device's parent met another one under that key, which the app had not seen.
/// A row whose key is its own identity is none of those.
pub async fn have_other_parents(rivals: &Rivals<'_>, item: &Item) -> Result<bool> {
    let table = &rivals.group.tracked.table;
    let is_new = item.op == Op::Upsert && !item.known && item.seen.is_empty();
    // What stood there at init is compared as it is.
    if !is_new || item.change.millis() == 0 {
        return Ok(false);
    }
    for fk in &table.foreign_keys {
        let names_row = table.assigns_keys() || fk.columns.iter().any(|c| table.key.contains(c));
        let parent: Option<Vec<Value>> = fk
            .columns
            .iter()
            .map(|c| item.row.get(c).filter(|v| **v != Value::Null).cloned())
            .collect();
        let (true, Some(parent)) = (names_row, parent) else {
            continue;
        };
        let mut s = Statement::default();
        let (name, pk) = (s.text(&fk.parent), s.text(&Key(parent).encode()));
        let device = s.text(&rivals.batch.device);
        let seen = judge::visible(&mut s, "c", &rivals.group.base.last.0);
        s.sql = format!(
            "select exists (select 1 from {0}.tidewater_conflicts c where c.table_name in \
             (select t.name from {0}.tidewater_tables t where lower(t.name) = lower({name})) and c.pk = {pk} and c.kind = 'key_collision' \
             and {device} in (c.pushed_device, c.server_device) and not {seen})",
            ident(rivals.schema)
        );
        let rows = rivals.session.query(&s, "sending a batch").await?;
        if rows.first().map(|r| get::<bool>(r, 0)).transpose()? == Some(true) {
            return Ok(true);
        }
    }
    Ok(false)
}
