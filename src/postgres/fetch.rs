//! Rows by key, and rows in key order: what notes and comparisons ask for.

use super::PgRemote;
use super::decode::{get, key, key_exprs, readable, row, weight};
use super::encode::bind_one;
use super::feed::misplaced;
use super::head;
use super::judge;
use super::push_sql::{key_match, keys_as_u};
use super::quote::{Statement, ident, qualified};
use super::typed;
use crate::error::Result;
use crate::model::{Key, Token};
use crate::remote::{Fetched, Head, Tracked, Version};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::types::Type;

const WHAT: &str = "reading rows by key";

/// See `Remote::fetch`.
pub async fn fetch(
    remote: &PgRemote,
    device: &str,
    token: &Token,
    t: &Tracked,
    keys: &[Key],
    bytes: usize,
) -> Result<(Head, Vec<Fetched>)> {
    let schema = &remote.schema;
    let mut heading = Statement::default();
    let me = heading.text(device);
    heading.sql = head::sql(schema, &me, "");
    let columns = readable(&t.table, &t.mirror);

    let mut rows = Statement::default();
    // A key that the mirror cannot hold is not there.
    let wanted: Vec<&Key> = keys
        .iter()
        .filter(|k| keys_as_u(&mut Statement::default(), t, &[k]).is_ok())
        .collect();
    let from = keys_as_u(&mut rows, t, &wanted).map_err(misplaced)?;
    let me = rows.text(device);
    let seen = judge::row_seen(&mut rows, "m", t, token).map_err(misplaced)?;
    let width = t.table.key.len();
    let mut picks: Vec<String> = key_exprs("m", &t.table, &t.mirror)
        .into_iter()
        .enumerate()
        .map(|(i, e)| format!("{e} as k{i}"))
        .collect();
    for (i, (c, w)) in columns.iter().enumerate() {
        let read = typed::select(schema, &mut rows, "m", t, &c.name, *w);
        picks.push(format!("{read} as c{i}"));
    }
    let cap = rows.bind(i64::try_from(bytes).unwrap_or(i64::MAX), Type::INT8);
    // A row behind the cap comes without its content, so that it is told from one that is not there.
    let fits = format!("(w.run <= {cap} or w.place = 1)");
    let mut answer: Vec<String> = (0..width).map(|i| format!("w.k{i}")).collect();
    answer.extend((0..columns.len()).map(|i| format!("case when {fits} then w.c{i} end")));
    rows.sql = format!(
        "select {answer}, w.change, w.device, w.seen, {fits} \
         from (select y.*, sum(y.weight) over (order by y.place) as run \
         from (select x.*, row_number() over () as place from (select {picks}, \
         m.tidewater_change as change, m.tidewater_device as device, \
         m.tidewater_device = {me} or {seen} as seen, {weight} as weight \
         from {table} m join {from} on {matches}) x) y) w",
        answer = answer.join(", "),
        picks = picks.join(", "),
        weight = weight("m", &columns),
        table = qualified(schema, &t.table.name),
        matches = key_match(t)
    );

    let mut graves = Statement::default();
    let id = graves.bind(t.mirror.id, Type::INT4);
    let pks: Vec<String> = keys.iter().map(Key::encode).collect();
    let pks = graves.bind(pks, Type::TEXT_ARRAY);
    let me = graves.text(device);
    let seen = judge::tombstone_seen(&mut graves, "g", token);
    graves.sql = format!(
        "select g.pk, g.tidewater_change, g.tidewater_device, g.tidewater_device = {me} or {seen} \
         from {}.tidewater_tombstones g where g.table_id = {id} and g.pk = any({pks}::text[])",
        ident(schema)
    );

    let session = remote.session().await?;
    let answers = session
        .pipeline(
            "begin isolation level repeatable read read only",
            &[heading, rows, graves],
            WHAT,
        )
        .await?;
    session.batch("commit", WHAT).await?;
    session.done();

    let mut found: BTreeMap<String, (Version, bool)> = BTreeMap::new();
    for r in answers.get(2).into_iter().flatten() {
        let version = Version {
            change: get(r, 1)?,
            device: get(r, 2)?,
            row: None,
        };
        found.insert(get(r, 0)?, (version, get(r, 3)?));
    }
    let mut left_out = BTreeSet::new();
    for r in answers.get(1).into_iter().flatten() {
        let after = width + columns.len();
        let pk = key(r, 0, &t.table, &t.mirror)?.encode();
        if !get::<bool>(r, after + 3)? {
            left_out.insert(pk);
            continue;
        }
        let version = Version {
            change: get(r, after)?,
            device: get(r, after + 1)?,
            row: Some(row(r, width, &columns)?),
        };
        // A living row beats a tombstone left beside it.
        found.insert(pk, (version, get(r, after + 2)?));
    }
    let head = head::parse(answers.first().and_then(|r| r.first()))?;
    let fetched = keys
        .iter()
        .filter(|k| left_out.is_empty() || !left_out.contains(&k.encode()))
        .map(|k| {
            let (version, seen) = match found.remove(&k.encode()) {
                Some((v, s)) => (Some(v), s),
                None => (None, true),
            };
            Fetched {
                key: k.clone(),
                version,
                seen,
            }
        })
        .collect();
    Ok((head, fetched))
}

/// See `Remote::list`.
pub async fn list(
    remote: &PgRemote,
    device: &str,
    token: &Token,
    t: &Tracked,
    after: Option<&Key>,
    rows: usize,
    bytes: usize,
) -> Result<Vec<Fetched>> {
    let columns = readable(&t.table, &t.mirror);
    let mut s = Statement::default();
    let me = s.text(device);
    let seen = judge::row_seen(&mut s, "m", t, token).map_err(misplaced)?;
    let mut picks: Vec<String> = key_exprs("m", &t.table, &t.mirror)
        .into_iter()
        .enumerate()
        .map(|(i, e)| format!("{e} as k{i}"))
        .collect();
    for (i, (c, w)) in columns.iter().enumerate() {
        let read = typed::select(&remote.schema, &mut s, "m", t, &c.name, *w);
        picks.push(format!("{read} as c{i}"));
    }
    let names: Vec<String> = t
        .table
        .key
        .iter()
        .map(|c| format!("m.{}", ident(c)))
        .collect();
    let mut condition = String::new();
    if let Some(after) = after {
        let mut values = Vec::new();
        for (c, v) in t.table.key.iter().zip(&after.0) {
            let wire = super::encode::wire_of(&t.mirror, c).map_err(misplaced)?;
            values.push(bind_one(&mut s, c, wire, v).map_err(misplaced)?);
        }
        condition = format!("where ({}) > ({})", names.join(", "), values.join(", "));
    }
    let limit = s.bind(i64::try_from(rows).unwrap_or(i64::MAX), Type::INT8);
    let cap = s.bind(i64::try_from(bytes).unwrap_or(i64::MAX), Type::INT8);
    s.sql = format!(
        "select * from (select y.*, sum(y.weight) over (order by y.place) as run from \
         (select x.*, row_number() over () as place from (select {picks}, \
         m.tidewater_change as change, m.tidewater_device as device, \
         m.tidewater_device = {me} or {seen} as seen, {weight} as weight \
         from {table} m {condition} order by {order} limit {limit}) x) y) w \
         where w.run <= {cap} or w.place = 1 order by w.place",
        picks = picks.join(", "),
        weight = weight("m", &columns),
        table = qualified(&remote.schema, &t.table.name),
        order = names.join(", "),
    );
    let session = remote.session().await?;
    let answer = session.query(&s, "comparing a table").await?;
    session.done();
    let width = t.table.key.len();
    let tail = width + columns.len();
    answer
        .iter()
        .map(|r| {
            Ok(Fetched {
                key: key(r, 0, &t.table, &t.mirror)?,
                version: Some(Version {
                    change: get(r, tail)?,
                    device: get(r, tail + 1)?,
                    row: Some(row(r, width, &columns)?),
                }),
                seen: get(r, tail + 2)?,
            })
        })
        .collect()
}
