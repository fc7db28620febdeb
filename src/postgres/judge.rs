//! In SQL: whether a version on the server has been seen by a causal token.
//!
//! The comparison of positions is always made by the server, with the collation and the type order of
//! the columns themselves, so that it can never differ from the order in which pages were read.

use super::encode::{bind_one, wire_of};
use super::quote::{Statement, ident};
use crate::model::{Position, TOMBSTONES, Token, Value};
use crate::remote::{Refusal, Tracked};
use tokio_postgres::types::Type;

/// `pg_visible_in_snapshot` on `alias`'s transaction.
pub fn visible(s: &mut Statement, alias: &str, snapshot: &str) -> String {
    let p = s.text(snapshot);
    format!("pg_visible_in_snapshot({alias}.tidewater_xid, {p}::text::pg_snapshot)")
}

/// A transaction id as a parameter.
pub fn xid(s: &mut Statement, xid: u64) -> String {
    format!("{}::text::xid8", s.text(&xid.to_string()))
}

/// The row expression `(xid, key...)` of a mirror and that of a position in it.
pub fn row_order(
    s: &mut Statement,
    alias: &str,
    t: &Tracked,
    pos: &Position,
) -> Result<(String, String), Refusal> {
    let mut left = vec![format!("{alias}.tidewater_xid")];
    let mut right = vec![xid(s, pos.xid)];
    for (c, v) in t.table.key.iter().zip(&pos.key) {
        left.push(format!("{alias}.{}", ident(c)));
        right.push(bind_one(s, c, wire_of(&t.mirror, c)?, v)?);
    }
    Ok((
        format!("({})", left.join(", ")),
        format!("({})", right.join(", ")),
    ))
}

/// The same for the tombstones.
pub fn tombstone_order(s: &mut Statement, alias: &str, pos: &Position) -> (String, String) {
    let (table, pk) = match pos.key.as_slice() {
        [Value::Int(t), Value::Text(pk)] => (*t, pk.as_str()),
        _ => (0, ""),
    };
    let x = xid(s, pos.xid);
    let t = s.bind(table, Type::INT8);
    let pk = s.text(pk);
    (
        format!("({alias}.tidewater_xid, {alias}.table_id, {alias}.pk)"),
        format!("({x}, {t}, {pk})"),
    )
}

/// Whether the row of a mirror under `alias` is seen by `token`.
pub fn row_seen(
    s: &mut Statement,
    alias: &str,
    t: &Tracked,
    token: &Token,
) -> Result<String, Refusal> {
    let last = visible(s, alias, &token.last.0);
    let (Some(target), Some(pos)) = (&token.target, &token.pos) else {
        return Ok(last);
    };
    if pos.stream < t.mirror.id {
        return Ok(last);
    }
    let target = visible(s, alias, &target.0);
    if pos.stream > t.mirror.id {
        return Ok(format!("({last} or {target})"));
    }
    let (left, right) = row_order(s, alias, t, pos)?;
    Ok(format!("({last} or ({target} and {left} <= {right}))"))
}

/// Whether the tombstone under `alias` is seen by `token`.
pub fn tombstone_seen(s: &mut Statement, alias: &str, token: &Token) -> String {
    let last = visible(s, alias, &token.last.0);
    let (Some(target), Some(pos)) = (&token.target, &token.pos) else {
        return last;
    };
    let target = visible(s, alias, &target.0);
    if pos.stream > TOMBSTONES {
        return format!("({last} or {target})");
    }
    let (left, right) = tombstone_order(s, alias, pos);
    format!("({last} or ({target} and {left} <= {right}))")
}
