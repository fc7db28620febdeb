//! The statements of a push: set-wise, one a group of changes of one table.
//!
//! `where not concurrent` stands in the statement itself, under the row's lock; what does not come back
//! is looked at again in a new statement. Never `select for update` first: it locks nothing where the
//! row is absent.

use super::decode::key_exprs;
use super::encode::{bind_column, cast, unnest_keys, wire_of};
use super::judge;
use super::quote::{Statement, ident, qualified};
use crate::model::{Column, Key, Op, Token, Typed, Value, Wire};
use crate::remote::{Batch, Item, Refusal, Tracked};
use tokio_postgres::types::Type;

/// Changes of one table with one operation, one set of columns and one base.
pub struct Group<'a> {
    /// The table.
    pub tracked: &'a Tracked,
    /// The operation.
    pub op: Op,
    /// The columns of an upsert's rows.
    pub columns: Vec<&'a str>,
    /// What the device had seen.
    pub base: &'a Token,
    /// Places in `Batch::items`.
    pub members: Vec<usize>,
}

impl<'a> Group<'a> {
    /// The items of the group.
    pub fn items(&self, batch: &'a Batch) -> impl Iterator<Item = &'a Item> {
        self.members.iter().filter_map(|i| batch.items.get(*i))
    }

    /// The keys of the group in canonical text.
    pub fn pks(&self, batch: &'a Batch) -> Vec<String> {
        self.items(batch).map(|i| i.key.encode()).collect()
    }
}

/// The time of a change, cut to the server's now; the identity stays.
pub fn cut(schema: &str, change: &str) -> String {
    format!(
        "least(left({change}, 10) collate \"C\", \
         (select {}.tidewater_time10(clock_timestamp()))) || right({change}, 16)",
        ident(schema)
    )
}

/// What a redacted column holds on the remote where NULL is not allowed.
fn blank(wire: Wire) -> &'static str {
    match wire {
        Wire::Int | Wire::Numeric | Wire::Real => "0",
        Wire::Text | Wire::Affine => "''",
        Wire::Bytes => "''::bytea",
        Wire::Dynamic | Wire::Typed(Typed::Json | Typed::Jsonb) => "'\"\"'",
        Wire::Typed(Typed::Boolean) => "false",
        Wire::Typed(Typed::Date | Typed::Timestamp | Typed::Timestamptz) => "'1970-01-01'",
        Wire::Typed(Typed::Time) => "'00:00'",
        Wire::Typed(Typed::Uuid | Typed::UuidBytes) => "'00000000-0000-0000-0000-000000000000'",
        Wire::Typed(Typed::Decimal) => "0",
    }
}

/// Upserts the group's rows; returns the keys that were written.
/// `forced` leaves the concurrency check out: the conflict was decided under the row's lock.
pub fn upsert(
    schema: &str,
    batch: &Batch,
    g: &Group<'_>,
    forced: bool,
) -> Result<Statement, Refusal> {
    let mirror = &g.tracked.mirror;
    let table = &g.tracked.table;
    let mut s = Statement::default();
    let (mut arrays, mut names, mut picks, mut targets) = (vec![], vec![], vec![], vec![]);
    for (n, c) in g.columns.iter().enumerate() {
        let wire = wire_of(mirror, c)?;
        let values = g.items(batch).map(|i| i.row.get(c).unwrap_or(&Value::Null));
        arrays.push(bind_column(&mut s, c, wire, values)?);
        names.push(format!("c{n}"));
        picks.push(format!("u.c{n}{}", cast(wire)));
        targets.push(ident(c));
    }
    let absent = |c: &&Column| table.redact().contains(&c.name) && !g.columns.contains(&&*c.name);
    for c in table
        .columns
        .iter()
        .filter(|c| c.not_null && (c.redacted || absent(c)))
    {
        if let Some(wire) = mirror.wires.get(&c.name) {
            picks.push(blank(*wire).to_owned());
            targets.push(ident(&c.name));
        }
    }
    let changes: Vec<String> = g.items(batch).map(|i| i.change.to_string()).collect();
    let changes = s.bind(changes, Type::TEXT_ARRAY);
    let device = s.text(&batch.device);
    let set: Vec<String> = g
        .columns
        .iter()
        .filter(|c| !table.key.iter().any(|k| k == *c))
        .map(|c| format!("{0} = excluded.{0}, ", ident(c)))
        .collect();
    let key: Vec<String> = table.key.iter().map(|c| ident(c)).collect();
    let check = if forced {
        String::new()
    } else {
        format!(
            " where (m.tidewater_device = {device} or {}) \
             and right(m.tidewater_change, 16) is distinct from right(excluded.tidewater_change, 16)",
            judge::row_seen(&mut s, "m", g.tracked, g.base)?
        )
    };
    s.sql = format!(
        "insert into {target} as m ({targets}, tidewater_change, tidewater_xid, tidewater_device) \
         overriding system value select {picks}, {cut}, pg_current_xact_id(), {device} \
         from unnest({arrays}, {changes}::text[]) as u({names}, change) \
         on conflict ({key}) do update set {set}\
         tidewater_change = greatest(left(excluded.tidewater_change, 10), \
         left(m.tidewater_change, 10)) || right(excluded.tidewater_change, 16), \
         tidewater_xid = excluded.tidewater_xid, tidewater_device = excluded.tidewater_device{check} \
         returning {returned}",
        target = qualified(schema, &table.name),
        targets = targets.join(", "),
        picks = picks.join(", "),
        cut = cut(schema, "u.change"),
        arrays = arrays.join(", "),
        names = names.join(", "),
        key = key.join(", "),
        set = set.concat(),
        returned = key_exprs("m", table, mirror).join(", "),
    );
    Ok(s)
}

/// `m.k = u.k` for every key column.
pub fn key_match(t: &Tracked) -> String {
    t.table
        .key
        .iter()
        .enumerate()
        .map(|(i, c)| {
            let wire = t.mirror.wires.get(c).copied().unwrap_or(Wire::Text);
            format!("m.{} = u.k{i}{}", ident(c), cast(wire))
        })
        .collect::<Vec<_>>()
        .join(" and ")
}

/// `unnest(...) as u(k0, k1, ...)` over keys of a table.
pub fn keys_as_u(s: &mut Statement, t: &Tracked, keys: &[&Key]) -> Result<String, Refusal> {
    let from = unnest_keys(s, &t.table.key, &t.mirror, keys)?;
    let names: Vec<String> = (0..t.table.key.len()).map(|i| format!("k{i}")).collect();
    Ok(format!("{from} as u({})", names.join(", ")))
}

/// Deletes the group's rows; returns the keys that were deleted. The mirror's trigger leaves tombstones
/// of device 0, which [`own_tombstones`] then signs.
pub fn delete(
    schema: &str,
    batch: &Batch,
    g: &Group<'_>,
    forced: bool,
) -> Result<Statement, Refusal> {
    let mut s = Statement::default();
    let keys: Vec<&Key> = g.items(batch).map(|i| &i.key).collect();
    let from = keys_as_u(&mut s, g.tracked, &keys)?;
    let check = if forced {
        String::new()
    } else {
        let device = s.text(&batch.device);
        format!(
            " and (m.tidewater_device = {device} or {})",
            judge::row_seen(&mut s, "m", g.tracked, g.base)?
        )
    };
    s.sql = format!(
        "delete from {} m using {from} where {}{check} returning {}",
        qualified(schema, &g.tracked.table.name),
        key_match(g.tracked),
        key_exprs("m", &g.tracked.table, &g.tracked.mirror).join(", "),
    );
    Ok(s)
}

/// Signs the tombstones that this transaction's deletes left: change key and device of the push.
pub fn own_tombstones(schema: &str, batch: &Batch, g: &Group<'_>) -> Statement {
    let mut s = Statement::default();
    let pks = s.bind(g.pks(batch), Type::TEXT_ARRAY);
    let changes: Vec<String> = g.items(batch).map(|i| i.change.to_string()).collect();
    let changes = s.bind(changes, Type::TEXT_ARRAY);
    let device = s.text(&batch.device);
    let id = s.bind(g.tracked.mirror.id, Type::INT4);
    s.sql = format!(
        "update {schema}.tidewater_tombstones g set tidewater_device = {device}, \
         tidewater_change = greatest(left({cut}, 10), left(coalesce(g.row_change, ''), 10) \
         collate \"C\") || right(u.change, 16) \
         from unnest({pks}::text[], {changes}::text[]) as u(pk, change) \
         where g.table_id = {id} and g.pk = u.pk collate \"C\" \
         and g.tidewater_xid = pg_current_xact_id()",
        schema = ident(schema),
        cut = cut(schema, "u.change"),
    );
    s
}

/// How many tombstones lie under the keys of an upsert group.
pub fn count_tombstones(schema: &str, batch: &Batch, g: &Group<'_>) -> Statement {
    let mut s = Statement::default();
    let id = s.bind(g.tracked.mirror.id, Type::INT4);
    let pks = s.bind(g.pks(batch), Type::TEXT_ARRAY);
    s.sql = format!(
        "select count(*) from {}.tidewater_tombstones where table_id = {id} and pk = any({pks}::text[])",
        ident(schema)
    );
    s
}

/// How many triggers of others may rewrite what is pushed to these tables before it is stored.
pub fn count_meddlers(schema: &str, tables: &[&str]) -> Statement {
    let mut s = Statement::default();
    let schema = s.text(schema);
    let names: Vec<String> = tables.iter().map(|t| (*t).to_owned()).collect();
    let names = s.bind(names, Type::TEXT_ARRAY);
    // tgtype: 1 for each row, 2 before, 4 insert, 16 update.
    s.sql = format!(
        "select count(*) from pg_trigger t join pg_class c on c.oid = t.tgrelid \
         join pg_namespace n on n.oid = c.relnamespace \
         where n.nspname = {schema} and c.relname = any({names}::text[]) \
         and t.tgtype & 3 = 3 and t.tgtype & 20 <> 0 and t.tgenabled <> 'D' and not t.tgisinternal \
         and t.tgname not in ('~tidewater_insert', '~tidewater_update')"
    );
    s
}

/// Gives rows of the group that are not stored as they were sent to device 0, so that their author
/// hears of what became of them. Their time stays: a later edit of the author is still the later one.
pub fn disown(schema: &str, batch: &Batch, g: &Group<'_>) -> Result<Statement, Refusal> {
    let mirror = &g.tracked.mirror;
    let table = &g.tracked.table;
    let mut s = Statement::default();
    let (mut arrays, mut names, mut same, mut differs) = (vec![], vec![], vec![], vec![]);
    for (n, c) in g.columns.iter().enumerate() {
        let wire = wire_of(mirror, c)?;
        let values = g.items(batch).map(|i| i.row.get(c).unwrap_or(&Value::Null));
        arrays.push(bind_column(&mut s, c, wire, values)?);
        names.push(format!("c{n}"));
        let (here, sent) = (format!("m.{}", ident(c)), format!("u.c{n}{}", cast(wire)));
        if table.key.iter().any(|k| k == c) {
            same.push(format!("{here} = {sent}"));
        } else {
            // The type json has no equality.
            let text = if wire == Wire::Typed(Typed::Json) {
                "::text"
            } else {
                ""
            };
            differs.push(format!("{here}{text} is distinct from {sent}{text}"));
        }
    }
    differs.push("false".into());
    let device = s.text(&batch.device);
    s.sql = format!(
        "update {} m set tidewater_change = left(m.tidewater_change, 10) || {}.tidewater_tail16(), \
         tidewater_xid = pg_current_xact_id(), tidewater_device = '0' \
         from unnest({}) as u({}) where {} and m.tidewater_device = {device} \
         and m.tidewater_xid = pg_current_xact_id() and ({})",
        qualified(schema, &table.name),
        ident(schema),
        arrays.join(", "),
        names.join(", "),
        same.join(" and "),
        differs.join(" or "),
    );
    Ok(s)
}
