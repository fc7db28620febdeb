//! What changed since: one page of the feed (PROTOCOL section 5, PULL).
//!
//! The cursor is a stored snapshot. New is what is visible in the frozen target and was not visible in
//! the last one; a transaction that commits late is in neither and comes with the next round, and no
//! open transaction stalls anything. One statement polls; only where it finds something is a repeatable
//! read transaction opened, in which every statement has the snapshot of its head.
//!
//! Streams in their order: tombstones, the mirrors by number, conflicts that concern this device.

use super::PgRemote;
use super::conflict_record::conflict;
use super::decode::{get, key, key_exprs, readable, row, weight};
use super::head;
use super::judge::{row_order, tombstone_order, visible, xid};
use super::quote::{Statement, ident, qualified};
use super::session::Session;
use super::typed;
use crate::error::{Code, Disposition, Error, Result};
use crate::model::{Key, Position, Snapshot, TOMBSTONES, Token, Value};
use crate::remote::{ConflictRecord, FeedRow, Head, Page, PageRequest, Refusal, Tracked, Version};
use tokio_postgres::Row as PgRow;
use tokio_postgres::types::Type;

/// The stream of the conflicts, behind every mirror.
pub const CONFLICTS: i32 = i32::MAX;

const WHAT: &str = "reading the feed";

/// A stored position that does not fit the table any more.
pub fn misplaced(r: Refusal) -> Error {
    Error::new(
        Code::SchemasDiffer,
        format!("{WHAT}: {}", r.message),
        "it is looked at again at the next contact",
    )
    .with_sqlstate(r.sqlstate)
    .with_disposition(Disposition::SchemaDrift)
}

/// The condition "new in this round" on `alias`.
fn is_new(s: &mut Statement, alias: &str, token: &Token, target: Option<&Snapshot>) -> String {
    let last = s.text(&token.last.0);
    let mut sql = format!(
        "{alias}.tidewater_xid >= pg_snapshot_xmin({last}::text::pg_snapshot) \
         and not {}",
        visible(s, alias, &token.last.0)
    );
    if let Some(target) = target {
        sql.push_str(" and ");
        sql.push_str(&visible(s, alias, &target.0));
    }
    sql
}

/// Where a round under way stands within `stream`.
fn position(token: &Token, stream: i32) -> Option<&Position> {
    token.pos.as_ref().filter(|p| p.stream == stream)
}

/// Whether the round has passed `stream` already.
fn passed(token: &Token, stream: i32) -> bool {
    token.pos.as_ref().is_some_and(|p| p.stream > stream)
}

/// The condition that a conflict has the asking device, by its present id or a former one, on a side.
fn concerns(s: &mut Statement, request: &PageRequest) -> String {
    let mut ids = request.former.clone();
    ids.push(request.device.clone());
    let ids = s.bind(ids, Type::TEXT_ARRAY);
    format!("(c.pushed_device = any({ids}::text[]) or c.server_device = any({ids}::text[]))")
}

/// The condition that leaves out the conflicts that a round under way has delivered.
fn after_conflict(s: &mut Statement, token: &Token) -> String {
    let Some(pos) = position(token, CONFLICTS) else {
        return String::new();
    };
    let id = match pos.key.as_slice() {
        [Value::Text(id)] => id.as_str(),
        _ => "",
    };
    let (x, id) = (xid(s, pos.xid), s.text(id));
    format!(" and (c.tidewater_xid, c.id) > ({x}, {id})")
}

/// The numbers of all streams of a request, in feed order.
fn streams(request: &PageRequest) -> Vec<(i32, Option<&Tracked>)> {
    let mut out: Vec<_> = request
        .tables
        .iter()
        .map(|t| (t.mirror.id, Some(t)))
        .collect();
    out.sort_by_key(|(id, _)| *id);
    out.insert(0, (TOMBSTONES, None));
    out.push((CONFLICTS, None));
    out.retain(|(id, _)| !passed(&request.token, *id));
    out
}

/// The tombstones of tracked tables; one whose row exists is never reported.
fn tombstone_source(schema: &str, s: &mut Statement, request: &PageRequest) -> String {
    let ids: Vec<i32> = request.tables.iter().map(|t| t.mirror.id).collect();
    let ids = s.bind(ids, Type::INT4_ARRAY);
    let device = s.text(&request.device);
    format!(
        "from {}.tidewater_tombstones g where g.table_id = any({ids}::integer[]) \
         and g.tidewater_device <> {device}",
        ident(schema)
    )
}

/// The one statement of a poll: the head, and which streams have something new.
fn poll(schema: &str, request: &PageRequest) -> Result<Statement> {
    let mut s = Statement::default();
    let device = s.text(&request.device);
    let token = &request.token;
    let target = token.target.as_ref();
    let mut fresh = Vec::new();
    for (stream, tracked) in streams(request) {
        let condition = match (stream, tracked) {
            (_, Some(t)) => {
                let mut c = format!(
                    "from {} m where m.tidewater_device <> {device} and {}",
                    qualified(schema, &t.table.name),
                    is_new(&mut s, "m", token, target)
                );
                if let Some(pos) = position(token, stream) {
                    let (l, r) = row_order(&mut s, "m", t, pos).map_err(misplaced)?;
                    c.push_str(&format!(" and {l} > {r}"));
                }
                c
            }
            (TOMBSTONES, None) => {
                let mut c = tombstone_source(schema, &mut s, request);
                c.push_str(&format!(" and {}", is_new(&mut s, "g", token, target)));
                if let Some(pos) = position(token, stream) {
                    let (l, r) = tombstone_order(&mut s, "g", pos);
                    c.push_str(&format!(" and {l} > {r}"));
                }
                c
            }
            _ => format!(
                "from {}.tidewater_conflicts c where {} and {}{}",
                ident(schema),
                concerns(&mut s, request),
                is_new(&mut s, "c", token, target),
                after_conflict(&mut s, token)
            ),
        };
        fresh.push(format!(
            "case when exists (select 1 {condition}) then {stream} end"
        ));
    }
    let extra = format!(
        ", array_remove(array[{}]::integer[], null)",
        fresh.join(", ")
    );
    s.sql = head::sql(schema, &device, &extra);
    Ok(s)
}

/// See `Remote::page`.
pub async fn page(remote: &PgRemote, request: &PageRequest) -> Result<Page> {
    let schema = &remote.schema;
    let statement = poll(schema, request)?;
    let session = remote.session().await?;
    let rows = session.query(&statement, WHAT).await?;
    let head = head::parse(rows.first())?;
    let fresh = fresh_streams(rows.first())?;
    if fresh.is_empty() {
        session.done();
        let next = Token::at(
            request
                .token
                .target
                .clone()
                .unwrap_or_else(|| head.snapshot.clone()),
        );
        return Ok(Page {
            head,
            rows: Vec::new(),
            conflicts: Vec::new(),
            next,
            more: false,
        });
    }
    let ms = remote.deadline.as_millis().max(1);
    let begin = format!(
        "begin isolation level repeatable read read only; set local statement_timeout = {ms}; \
         set local idle_in_transaction_session_timeout = {ms}"
    );
    let rows = session.pipeline(&begin, &[statement], WHAT).await?;
    let first = rows.first().and_then(|r| r.first());
    let head = head::parse(first)?;
    let fresh = fresh_streams(first)?;
    let page = read(&session, schema, request, head, &fresh).await?;
    session.batch("commit", WHAT).await?;
    session.done();
    Ok(page)
}

fn fresh_streams(row: Option<&PgRow>) -> Result<Vec<i32>> {
    row.map_or(Ok(Vec::new()), |r| get(r, head::COLUMNS))
}

async fn read(
    session: &Session,
    schema: &str,
    request: &PageRequest,
    head: Head,
    fresh: &[i32],
) -> Result<Page> {
    let target = request
        .token
        .target
        .clone()
        .unwrap_or_else(|| head.snapshot.clone());
    let mut page = Page {
        rows: Vec::new(),
        conflicts: Vec::new(),
        next: Token::at(target.clone()),
        more: false,
        head,
    };
    let (mut rows_left, mut bytes_left) = (request.rows.max(1), request.bytes.max(1));
    for (stream, tracked) in streams(request) {
        if !fresh.contains(&stream) {
            continue;
        }
        let window = Window {
            schema,
            request,
            target: &target,
            rows: rows_left,
            bytes: bytes_left,
            may_be_empty: !page.rows.is_empty(),
        };
        let (last, read_rows, bytes, more) = match (stream, tracked) {
            (_, Some(t)) => window.mirror(session, t, &mut page.rows).await?,
            (TOMBSTONES, None) => window.tombstones(session, &mut page.rows).await?,
            _ => window.conflicts(session, &mut page.conflicts).await?,
        };
        rows_left = rows_left.saturating_sub(read_rows);
        bytes_left = bytes_left.saturating_sub(bytes);
        // A round under way never loses its place, whatever a page brings.
        let pos = last
            .or_else(|| page.rows.last().map(|r| r.pos.clone()))
            .or_else(|| request.token.pos.clone());
        if more || rows_left == 0 || bytes_left == 0 {
            // The round ends here or goes on behind this position; the next poll finds out.
            page.more = true;
            page.next = Token {
                last: request.token.last.clone(),
                target: Some(target),
                pos,
            };
            break;
        }
    }
    Ok(page)
}

/// One stream's part of a page: last position, rows, bytes, whether there is more.
type Part = (Option<Position>, usize, usize, bool);

struct Window<'a> {
    schema: &'a str,
    request: &'a PageRequest,
    target: &'a Snapshot,
    rows: usize,
    bytes: usize,
    /// Whether the first row may be left for the next page when it alone is above the cap.
    may_be_empty: bool,
}

impl Window<'_> {
    /// Wraps an ordered, limited query so that it ends at the byte cap: `weight` sums up the content. Adds
    /// place, running weight and how many rows there were, for a page that was cut must not end its
    /// stream.
    fn capped(&self, s: &mut Statement, inner: &str, order: &str) -> String {
        let cap = s.bind(i64::try_from(self.bytes).unwrap_or(i64::MAX), Type::INT8);
        let first = if self.may_be_empty {
            "false"
        } else {
            "w.place = 1"
        };
        format!(
            "select * from (select x.*, sum(x.weight) over (order by x.place) as run, \
             count(*) over () as total from \
             (select y.*, row_number() over ({order}) as place from ({inner}) y) x) w \
             where w.run <= {cap} or {first} order by w.place"
        )
    }

    /// Whether a capped query has left rows for the next page; `total` is the column that counts them.
    fn goes_on(&self, last: Option<&PgRow>, n: usize, total: usize) -> Result<bool> {
        let all = last.map(|r| get::<i64>(r, total)).transpose()?.unwrap_or(0);
        Ok(n == 0 || n >= self.rows || usize::try_from(all).is_ok_and(|all| n < all))
    }

    async fn mirror(&self, session: &Session, t: &Tracked, out: &mut Vec<FeedRow>) -> Result<Part> {
        let columns = readable(&t.table, &t.mirror);
        let mut s = Statement::default();
        let mut picks = vec![
            "m.tidewater_xid::text as x".to_owned(),
            "m.tidewater_change as change".to_owned(),
            "m.tidewater_device as device".to_owned(),
        ];
        for (i, e) in key_exprs("m", &t.table, &t.mirror).iter().enumerate() {
            picks.push(format!("{e} as k{i}"));
        }
        for (i, (c, w)) in columns.iter().enumerate() {
            let read = typed::select(self.schema, &mut s, "m", t, &c.name, *w);
            picks.push(format!("{read} as c{i}"));
        }
        let order: Vec<String> = t
            .table
            .key
            .iter()
            .map(|c| format!("m.{}", ident(c)))
            .collect();
        let order = format!("m.tidewater_xid, {}", order.join(", "));
        let device = s.text(&self.request.device);
        let mut condition = is_new(&mut s, "m", &self.request.token, Some(self.target));
        if let Some(pos) = position(&self.request.token, t.mirror.id) {
            let (l, r) = row_order(&mut s, "m", t, pos).map_err(misplaced)?;
            condition.push_str(&format!(" and {l} > {r}"));
        }
        let limit = s.bind(i64::try_from(self.rows).unwrap_or(i64::MAX), Type::INT8);
        let inner = format!(
            "select {}, {} as weight from {} m where m.tidewater_device <> {device} \
             and {condition} order by {order} limit {limit}",
            picks.join(", "),
            weight("m", &columns),
            qualified(self.schema, &t.table.name),
        );
        // The inner query is ordered; its order is kept by numbering its rows as they come.
        s.sql = self.capped(&mut s, &inner, "");
        let rows = session.query(&s, WHAT).await?;
        let (n, mut bytes, mut last) = (rows.len(), 0, None);
        let width = t.table.key.len();
        for r in &rows {
            let key = key(r, 3, &t.table, &t.mirror)?;
            let pos = Position::row(t.mirror.id, parse_xid(get(r, 0)?), &key);
            bytes += usize::try_from(get::<i64>(r, 3 + width + columns.len())?).unwrap_or(0);
            last = Some(pos.clone());
            out.push(FeedRow {
                table: t.table.name.clone(),
                key,
                version: Version {
                    change: get(r, 1)?,
                    device: get(r, 2)?,
                    row: Some(row(r, 3 + width, &columns)?),
                },
                pos,
            });
        }
        let more = self.goes_on(rows.last(), n, 3 + width + columns.len() + 3)?;
        Ok((last, n, bytes, more))
    }

    async fn tombstones(&self, session: &Session, out: &mut Vec<FeedRow>) -> Result<Part> {
        let mut s = Statement::default();
        let mut condition = tombstone_source(self.schema, &mut s, self.request);
        condition.push_str(&format!(
            " and {}",
            is_new(&mut s, "g", &self.request.token, Some(self.target))
        ));
        if let Some(pos) = position(&self.request.token, TOMBSTONES) {
            let (l, r) = tombstone_order(&mut s, "g", pos);
            condition.push_str(&format!(" and {l} > {r}"));
        }
        let limit = s.bind(i64::try_from(self.rows).unwrap_or(i64::MAX), Type::INT8);
        s.sql = format!(
            "select g.tidewater_xid::text, g.table_id, g.pk, g.tidewater_change, g.tidewater_device \
             {condition} order by g.tidewater_xid, g.table_id, g.pk limit {limit}"
        );
        let rows = session.query(&s, WHAT).await?;
        let (mut last, mut bytes) = (None, 0);
        for r in &rows {
            let (table_id, pk): (i32, String) = (get(r, 1)?, get(r, 2)?);
            let pos = Position::tombstone(table_id, parse_xid(get(r, 0)?), &pk);
            bytes += pk.len();
            last = Some(pos.clone());
            let tracked = self.request.tables.iter().find(|t| t.mirror.id == table_id);
            let (Some(t), Some(key)) = (tracked, Key::decode(&pk)) else {
                continue;
            };
            out.push(FeedRow {
                table: t.table.name.clone(),
                key,
                version: Version {
                    change: get(r, 3)?,
                    device: get(r, 4)?,
                    row: None,
                },
                pos,
            });
        }
        self.drop_living(session, out).await?;
        Ok((last, rows.len(), bytes, rows.len() >= self.rows))
    }

    /// A tombstone whose row exists (a delete raced an insert) is never reported.
    async fn drop_living(&self, session: &Session, out: &mut Vec<FeedRow>) -> Result<()> {
        for t in &self.request.tables {
            let keys: Vec<&Key> = out
                .iter()
                .filter(|f| f.table == t.table.name)
                .map(|f| &f.key)
                .collect();
            if keys.is_empty() {
                continue;
            }
            let mut s = Statement::default();
            let Ok(from) = super::push_sql::keys_as_u(&mut s, t, &keys) else {
                continue;
            };
            s.sql = format!(
                "select {} from {} m join {from} on {}",
                key_exprs("m", &t.table, &t.mirror).join(", "),
                qualified(self.schema, &t.table.name),
                super::push_sql::key_match(t)
            );
            for r in session.query(&s, WHAT).await? {
                let living = key(&r, 0, &t.table, &t.mirror)?;
                out.retain(|f| f.table != t.table.name || f.key != living);
            }
        }
        Ok(())
    }

    async fn conflicts(&self, session: &Session, out: &mut Vec<ConflictRecord>) -> Result<Part> {
        let mut s = Statement::default();
        let mine = concerns(&mut s, self.request);
        let mut condition = is_new(&mut s, "c", &self.request.token, Some(self.target));
        condition.push_str(&after_conflict(&mut s, &self.request.token));
        let limit = s.bind(i64::try_from(self.rows).unwrap_or(i64::MAX), Type::INT8);
        let inner = format!(
            "select c.tidewater_xid::text as x, c.id, c.table_name, c.pk, c.kind, c.policy, \
             c.pushed_won, c.pushed_device, c.server_device, c.pushed_change, c.server_change, \
             c.pushed_row, c.server_row, (extract(epoch from c.detected_at) * 1000)::bigint as at, \
             (coalesce(octet_length(c.pushed_row), 0) + coalesce(octet_length(c.server_row), 0))::bigint \
             as weight from {}.tidewater_conflicts c \
             where {mine} and {condition} \
             order by c.tidewater_xid, c.id limit {limit}",
            ident(self.schema)
        );
        s.sql = self.capped(&mut s, &inner, "");
        let rows = session.query(&s, WHAT).await?;
        let (mut last, mut bytes) = (None, 0);
        for r in &rows {
            let record = conflict(r, |id| {
                id == self.request.device || self.request.former.iter().any(|f| f == id)
            })?;
            bytes += usize::try_from(get::<i64>(r, 14)?).unwrap_or(0);
            last = Some(Position {
                stream: CONFLICTS,
                xid: parse_xid(get(r, 0)?),
                key: vec![Value::Text(record.id.clone())],
            });
            out.push(record);
        }
        let more = self.goes_on(rows.last(), rows.len(), 17)?;
        Ok((last, rows.len(), bytes, more))
    }
}

fn parse_xid(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}
