//! Content that its device took back, removed from what conflicts have kept of the row.
//!
//! In the push's own transaction, after the row itself was written or deleted. The records stay, with
//! key, kind and winner, so that a change which lost never vanishes unseen; the stored outcomes hold no
//! content to begin with.

use super::decode::get;
use super::quote::{Statement, ident};
use super::session::Session;
use crate::error::Result;
use crate::model::{Op, Row, Table};
use crate::remote::Item;
use tokio_postgres::types::Type;

const WHAT: &str = "sending a batch";

/// How many records hold content of these rows.
pub fn count(schema: &str, table: &str, pks: Vec<String>) -> Statement {
    let mut s = Statement::default();
    let (table, pks) = (s.text(table), s.bind(pks, Type::TEXT_ARRAY));
    s.sql = format!(
        "select count(*) from {}.tidewater_conflicts where table_name = {table} \
         and pk = any({pks}::text[]) and (pushed_row is not null or server_row is not null)",
        ident(schema)
    );
    s
}

/// Removes from the records of the item's row what the item keeps on its device.
pub async fn content(session: &Session, schema: &str, table: &Table, item: &Item) -> Result<()> {
    let mut s = Statement::default();
    let (name, pk) = (s.text(&item.table), s.text(&item.key.encode()));
    s.sql = format!(
        "select id, pushed_row, server_row from {}.tidewater_conflicts where table_name = {name} \
         and pk = {pk} and (pushed_row is not null or server_row is not null) order by id for update",
        ident(schema)
    );
    for r in session.query(&s, WHAT).await? {
        let id: String = get(&r, 0)?;
        let (pushed, server): (Option<String>, Option<String>) = (get(&r, 1)?, get(&r, 2)?);
        let mut s = Statement::default();
        let id = s.text(&id);
        let pushed = s.bind(left(table, item.op, pushed), Type::TEXT);
        let server = s.bind(left(table, item.op, server), Type::TEXT);
        s.sql = format!(
            "update {}.tidewater_conflicts set pushed_row = {pushed}, server_row = {server} \
             where id = {id}",
            ident(schema)
        );
        session.query(&s, WHAT).await?;
    }
    Ok(())
}

/// What may stay of a row that a record holds. One that cannot be read goes whole.
fn left(table: &Table, op: Op, kept: Option<String>) -> Option<String> {
    if op == Op::Delete {
        return None;
    }
    let mut row = Row::from_json(&kept?).ok()?;
    table.strip(&mut row);
    Some(row.to_json())
}
