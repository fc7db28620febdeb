//! The view `tidewater_status`, by which the app reads in its own file what is not simply synced.
//!
//! The app's SQLite runs it, however old, and with `trusted_schema=OFF`: no JSON functions, no row
//! values, no window functions, and no expression so deep that the parser of SQLite before 3.45 runs out
//! of its hundred states: a view it cannot read makes it refuse the whole file. Invariants: one row for a key at most; an empty queue costs nothing to
//! read; nothing here makes the app's own writes slower, which is why the key log has no index (one
//! makes a bulk insert two to three times slower) and is only ever scanned, once a statement. What SQLite
//! needs to search by `pk` inside the branches of a union is that a column has the same affinity in all
//! of them, and one that fits the app's column: so keys are kept twice, as they are and as integers.
//! Fails with the file's own errors.

use super::fault::OrFault;
use super::quote::literal;
use crate::error::Result;
use crate::model::{Key, Table, Value};
use rusqlite::Connection;
use std::collections::BTreeMap;

const NAME: &str = "tidewater_status";
/// Its part that writes keys of several columns, only there where a table has one.
const LOGGED: &str = "tidewater_logged";
const WHAT: &str = "preparing the view of the sync status";

/// The tables that the view searches by key, with the condition of their index.
const SEARCHED: [(&str, &str); 4] = [
    ("tidewater_outbox", " where status <> 'synced'"),
    ("tidewater_inbox", " where status = 'failed'"),
    ("tidewater_note", ""),
    ("tidewater_conflict", " where seen = 0"),
];

/// A key as the view shows it: the bare value of a single column, else the values as JSON array text.
pub fn shown(key: &Key) -> Value {
    match key.0.as_slice() {
        [one] => one.clone(),
        many => Value::Text(serde_json::to_string(many).unwrap_or_default()),
    }
}

/// As [`shown`], from the key's canonical text.
pub fn shown_of(pk: &str) -> Option<Value> {
    Key::decode(pk).map(|k| shown(&k))
}

/// The statements that make the view and its indexes for these tables.
pub fn statements(tables: &[Table]) -> Vec<String> {
    let column = if tables.iter().all(has_integer_key) && !tables.is_empty() {
        "ki"
    } else {
        "k"
    };
    let mut out: Vec<String> = SEARCHED
        .iter()
        .map(|(table, condition)| {
            format!("create index {table}_k on {table} (tbl, {column}){condition}")
        })
        .collect();
    out.extend(logged(tables));
    out.push(view(tables, column));
    out
}

/// Makes the view what it has to be for these tables; touches nothing where it is.
pub fn install(tx: &Connection, tables: &[Table]) -> Result<()> {
    let wanted = statements(tables);
    let views: Vec<String> = tx
        .prepare(
            "select sql from sqlite_schema where type = 'view' and name in (?1, ?2) order by name",
        )
        .and_then(|mut s| {
            s.query_map([LOGGED, NAME], |r| r.get(0))?
                .collect::<rusqlite::Result<_>>()
        })
        .or_fault(WHAT)?;
    if wanted.iter().skip(SEARCHED.len()).eq(&views) {
        return Ok(());
    }
    let mut batch = format!("drop view if exists {NAME};drop view if exists {LOGGED};");
    for (table, _) in SEARCHED {
        batch.push_str(&format!("drop index if exists {table}_k;"));
    }
    for sql in &wanted {
        batch.push_str(sql);
        batch.push(';');
    }
    tx.execute_batch(&batch).or_fault(WHAT)
}

/// Fills in the keys of what a file held before it had the view.
pub fn fill(tx: &Connection) -> Result<()> {
    for (table, condition) in SEARCHED {
        let keys: Vec<(String, String)> = tx
            .prepare(&format!("select distinct tbl, pk from {table}{condition}"))
            .and_then(|mut s| {
                s.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?
                    .collect::<rusqlite::Result<_>>()
            })
            .or_fault(WHAT)?;
        let mut update = tx
            .prepare(&format!(
                "update {table} set k = ?3, ki = ?3 where tbl = ?1 and pk = ?2"
            ))
            .or_fault(WHAT)?;
        for (name, pk) in keys {
            update
                .execute(rusqlite::params![name, pk, shown_of(&pk)])
                .or_fault(WHAT)?;
        }
    }
    Ok(())
}

/// Whether the key is an alias of the rowid, which holds integers only. (Declared DESC it may be none.)
pub(super) fn has_integer_key(t: &Table) -> bool {
    let [key] = t.key.as_slice() else {
        return false;
    };
    let integer = t
        .column(key)
        .is_some_and(|c| c.declared.eq_ignore_ascii_case("integer"));
    integer && !t.without_rowid && !t.sql.to_ascii_lowercase().contains("desc")
}

/// The key log with the key of each row in the form of [`shown`]; none where no key has several columns.
fn logged(tables: &[Table]) -> Option<String> {
    let mut by_width: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for t in tables.iter().filter(|t| t.key.len() > 1) {
        by_width
            .entry(t.key.len())
            .or_default()
            .push(literal(&t.name));
    }
    let width = *by_width.keys().next_back()?;
    let escapes = escapes();
    let (first, then) = escapes.split_at(escapes.len() / 2);
    let begun: String = (1..=width)
        .map(|i| {
            let text = escaped(&format!("k{i}"), first);
            format!(", k{i}, case typeof(k{i}) when 'text' then {text} end as t{i}")
        })
        .collect();
    let whens: String = by_width
        .iter()
        .map(|(width, names)| {
            let values: Vec<String> = (1..=*width).map(|i| json(i, then)).collect();
            format!(
                " when tbl in ({}) then '[' || {} || ']'",
                names.join(", "),
                values.join(" || ',' || ")
            )
        })
        .collect();
    Some(format!(
        "CREATE VIEW {LOGGED} as select id, tbl, at, case{whens} else k1 end as pk \
         from (select id, tbl, at{begun} from tidewater_log)"
    ))
}

/// What a text of JSON cannot hold as it is, as SQL: the character and what stands for it. In this
/// order, for the first one is part of all others.
fn escapes() -> Vec<(String, String)> {
    let controls = (1..32_u8).map(|code| {
        let escape = match code {
            8 => "\\b".to_owned(),
            9 => "\\t".to_owned(),
            10 => "\\n".to_owned(),
            12 => "\\f".to_owned(),
            13 => "\\r".to_owned(),
            other => format!("\\u{other:04x}"),
        };
        (format!("char({code})"), literal(&escape))
    });
    [("\\", "\\\\"), ("\"", "\\\"")]
        .map(|(from, to)| (literal(from), literal(to)))
        .into_iter()
        .chain(controls)
        .collect()
}

fn escaped(text: &str, escapes: &[(String, String)]) -> String {
    escapes
        .iter()
        .fold(text.to_owned(), |text, (character, escape)| {
            format!("replace({text}, {character}, {escape})")
        })
}

/// The JSON form of the i-th column of a key, whose text has the first half of its escapes.
fn json(i: usize, escapes: &[(String, String)]) -> String {
    let text = escaped(&format!("t{i}"), escapes);
    format!(
        "case typeof(k{i}) when 'text' then '\"' || {text} || '\"' \
         when 'blob' then '{{\"hex\":\"' || lower(hex(k{i})) || '\"}}' \
         when 'null' then 'null' else cast(k{i} as text) end"
    )
}

/// An expression for the RFC 3339 text of a time in ms.
fn time(ms: &str) -> String {
    format!("strftime('%Y-%m-%dT%H:%M:%fZ', {ms} / 1000.0, 'unixepoch')")
}

/// In the order of what a person should know first: failed, pending, conflict.
fn view(tables: &[Table], k: &str) -> String {
    // The key log, and how its keys become those of the view.
    let (log, logged) = match (logged(tables), k) {
        (Some(_), _) => (LOGGED, "l.pk"),
        (None, "ki") => ("tidewater_log", "cast(l.k1 as integer)"),
        (None, _) => ("tidewater_log", "l.k1"),
    };
    let width = tables.iter().map(|t| t.key.len()).max().unwrap_or(1);
    let columns: Vec<String> = (1..=width).map(|i| format!("k{i}")).collect();
    let columns = columns.join(", ");
    let names: Vec<String> = tables.iter().map(|t| literal(&t.name)).collect();
    let names = names.join(", ");
    let changed = time("case when o.edited_at > 0 then o.edited_at else o.created_at end");
    let (came, logged_at, decided) = (time("i.at"), time("nullif(l.at, 0)"), time("c.detected_at"));
    let none = "cast(null as text)";
    // Whether another source shows the key already.
    let queued = |t: &str, key: &str, and: &str| {
        format!(
            "not exists (select 1 from tidewater_outbox q where q.tbl = {t} and q.{k} = {key} \
             and q.status <> 'synced'{and})"
        )
    };
    let stuck = |t: &str, key: &str| {
        format!(
            "not exists (select 1 from tidewater_inbox f where f.tbl = {t} and f.{k} = {key} \
             and f.status = 'failed')"
        )
    };
    let (by_c, by_n, by_i) = (format!("c.{k}"), format!("n.{k}"), format!("i.{k}"));
    let branches = [
        format!(
            "select o.tbl as table_name, o.{k} as pk, case o.status when 'failed' then 'failed' \
             else 'pending' end as status, o.change_key as change_key, \
             o.error_code || ': ' || o.error as error, {changed} as changed_at from tidewater_outbox o \
             where o.status <> 'synced' and not exists (select 1 from tidewater_outbox q \
             where q.tbl = o.tbl and q.pk = o.pk and q.id > o.id and q.status <> 'synced') \
             and (o.status = 'failed' or {})",
            stuck("o.tbl", &format!("o.{k}"))
        ),
        format!(
            "select i.tbl, i.{k}, case i.status when 'failed' then 'failed' end, i.change_key, \
             'SYNC-005: ' || i.error, {came} from tidewater_inbox i where i.status = 'failed' and {}",
            queued("i.tbl", &by_i, " and q.status = 'failed'")
        ),
        format!(
            "select cast(l.tbl as text), {logged}, case when 1 then 'pending' end, {none}, \
             null || '', {logged_at} from {log} l where l.id in (select max(id) \
             from tidewater_log where tbl in ({names}) group by tbl, {columns}) and {} and {}",
            queued("l.tbl", logged, ""),
            stuck("l.tbl", logged)
        ),
        format!(
            "select n.tbl, n.{k}, case when 1 then 'pending' end, {none}, null || '', \
             {} from tidewater_note n where {} and {} \
             and n.tbl || ' ' || n.pk not in (select x.tbl || ' ' || x.pk from {log} l \
             cross join tidewater_note x where x.tbl = l.tbl and x.{k} = {logged})",
            time("null"),
            queued("n.tbl", &by_n, ""),
            stuck("n.tbl", &by_n)
        ),
        format!(
            "select c.tbl, c.{k}, case when 1 then 'conflict' end, c.local_change, null || '', \
             {decided} from tidewater_conflict c where c.seen = 0 and not exists (select 1 \
             from tidewater_conflict d where d.tbl = c.tbl and d.{k} = c.{k} and d.seen = 0 \
             and d.id > c.id) and {} and {} and not exists (select 1 from tidewater_note n \
             where n.tbl = c.tbl and n.{k} = c.{k}) and c.id not in (select x.id \
             from {log} l cross join tidewater_conflict x where x.tbl = l.tbl \
             and x.{k} = {logged} and x.seen = 0)",
            queued("c.tbl", &by_c, ""),
            stuck("c.tbl", &by_c)
        ),
    ];
    // Names by `as`: SQLite knows a list of columns after the view's name only since 3.9.
    // Written as SQLite stores it, so that it can be compared.
    format!("CREATE VIEW {NAME} as {}", branches.join(" union all "))
}
