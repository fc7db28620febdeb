//! Tombstones that a push makes or takes away by itself, beside those that its deletes leave.
//!
//! In the push's own transaction. It never decides whether: that is the business of `rival`.

use super::push_sql;
use super::quote::{Statement, ident};
use super::rival::Rivals;
use crate::error::Result;
use crate::remote::Item;
use tokio_postgres::types::Type;

const WHAT: &str = "sending a batch";

/// Leaves a tombstone where neither row nor tombstone is: whoever brings the row again meets it. The
/// push holds its turn alone, so no other push is inserting the row meanwhile.
pub async fn bury(rivals: &Rivals<'_>, item: &Item) -> Result<()> {
    let mut s = Statement::default();
    let id = s.bind(rivals.group.tracked.mirror.id, Type::INT4);
    let (pk, device) = (s.text(&item.key.encode()), s.text(&rivals.batch.device));
    let change = s.text(item.change.as_str());
    s.sql = format!(
        "insert into {0}.tidewater_tombstones (table_id, pk, tidewater_change, tidewater_xid, \
         tidewater_device) values ({id}, {pk}, {cut}, pg_current_xact_id(), {device}) \
         on conflict do nothing",
        ident(rivals.schema),
        cut = push_sql::cut(rivals.schema, &change)
    );
    rivals.session.query(&s, WHAT).await?;
    Ok(())
}

/// The row is there again: its tombstone goes.
pub async fn bury_not(rivals: &Rivals<'_>, item: &Item) -> Result<()> {
    let mut s = Statement::default();
    let id = s.bind(rivals.group.tracked.mirror.id, Type::INT4);
    let pk = s.text(&item.key.encode());
    s.sql = format!(
        "delete from {}.tidewater_tombstones where table_id = {id} and pk = {pk}",
        ident(rivals.schema)
    );
    rivals.session.query(&s, WHAT).await?;
    Ok(())
}
