//! Columns whose type knows a value in one form only: how they are read and what is kept beside them.
//!
//! Owns `tidewater_forms` (how the workspace's apps write a column; the first form to be offered stays)
//! and `tidewater_originals` (a value as its device wrote it, where the form does not give it back). An
//! original counts only while the column still holds what was sent with it, so an edit made in Postgres
//! needs no bookkeeping. Both are read in the statement that reads the row: no reader can be behind.

use super::PgRemote;
use super::decode::{get, select_expr};
use super::encode::cast;
use super::mirror_sql::key_expr;
use super::push_sql::Group;
use super::quote::{Statement, ident};
use super::session::Session;
use crate::error::Result;
use crate::model::{Affinity, Form, Op, Typed, Value, Wire};
use crate::remote::{Batch, Tracked};
use std::collections::BTreeMap;
use tokio_postgres::types::Type;

/// What stands before an original in an answer; a form stands before everything else, with a bar.
const ORIGINAL: char = '=';
const BAR: char = '|';

/// The one text of a column's value, as [`Typed::canonical`] writes it.
fn canonical(t: Typed, c: &str) -> String {
    let stamp = |format: &str, years: &str| {
        format!(
            "case when isfinite({c}) and {c} >= '0001-01-01{years}' and {c} < '10000-01-01{years}' \
             then to_char({}, '{format}') else {c}::text end",
            if t == Typed::Timestamptz {
                format!("{c} at time zone 'UTC'")
            } else {
                c.to_owned()
            }
        )
    };
    match t {
        Typed::Boolean => format!("case when {c} then 'true' when not {c} then 'false' end"),
        Typed::Date => stamp("YYYY-MM-DD", ""),
        Typed::Timestamp => stamp("YYYY-MM-DD\"T\"HH24:MI:SS.US", ""),
        Typed::Timestamptz => stamp("YYYY-MM-DD\"T\"HH24:MI:SS.US", " 00:00:00+00"),
        Typed::Time => format!("to_char({c}, 'HH24:MI:SS.US')"),
        Typed::Uuid | Typed::UuidBytes | Typed::Json | Typed::Jsonb | Typed::Decimal => {
            format!("{c}::text")
        }
    }
}

/// The expression that reads a column of a mirror.
pub fn select(
    schema: &str,
    s: &mut Statement,
    alias: &str,
    t: &Tracked,
    c: &str,
    w: Wire,
) -> String {
    let Wire::Typed(typed) = w else {
        return select_expr(alias, c, w);
    };
    let column = format!("{alias}.{}", ident(c));
    let text = canonical(typed, &column);
    if !typed.keeps_originals() || t.table.key.iter().any(|k| k == c) {
        return format!("'{BAR}' || ({text})");
    }
    let (id, name, schema) = (t.mirror.id, s.text(c), ident(schema));
    format!(
        "coalesce((select '{ORIGINAL}' || o.original from {schema}.tidewater_originals o \
         where o.table_id = {id} and o.pk = {key} and o.col = {name} and o.sent{cast} = {column}), \
         coalesce((select f.form from {schema}.tidewater_forms f where f.table_id = {id} \
         and f.col = {name}), '') || '{BAR}' || ({text}))",
        key = key_expr(alias, &t.table, &t.mirror),
        cast = cast(w),
    )
}

/// The value of an answer to [`select`].
pub fn read(t: Typed, affinity: Affinity, answer: &str) -> Value {
    if let Some(original) = answer.strip_prefix(ORIGINAL)
        && let Ok(v) = serde_json::from_str(original)
    {
        return v;
    }
    let (form, text) = answer.split_once(BAR).unwrap_or(("", answer));
    t.render(Form::parse(form), affinity, text)
}

/// Keeps what the forms of a group's columns do not give back; `written` names the rows, `None` all.
pub fn keep(
    schema: &str,
    batch: &Batch,
    g: &Group<'_>,
    written: impl Fn(&str) -> bool,
) -> Vec<Statement> {
    let (table, mirror) = (&g.tracked.table, &g.tracked.mirror);
    let kept = |c: &str| match mirror.wires.get(c) {
        Some(Wire::Typed(t)) if t.keeps_originals() && !table.key.iter().any(|k| k == c) => {
            Some(*t)
        }
        _ => None,
    };
    if !mirror.wires.keys().any(|c| kept(c).is_some()) {
        return Vec::new();
    }
    let (mut pks, mut rows) = (Vec::new(), [const { Vec::new() }; 4]);
    for item in g.items(batch) {
        let pk = item.key.encode();
        if !written(&pk) {
            continue;
        }
        let values = item.row.0.iter().filter(|_| g.op == Op::Upsert);
        for (c, v) in values.filter(|(_, v)| *v != Value::Null) {
            let Some(t) = kept(c) else { continue };
            let affinity = table.column(c).map_or(Affinity::Blob, |c| c.affinity());
            let form = mirror.forms.get(c).copied();
            // As long as no form holds, one that comes to hold later must not change what was written.
            let form = form.or((!t.has_forms()).then_some(Form::Only));
            let scale = mirror.limits.get(c).and_then(|l| l.kept());
            if form.is_some_and(|f| t.reproduces(f, affinity, scale, v)) {
                continue;
            }
            let original = serde_json::to_string(v).unwrap_or_default();
            let sent = t.canonical(v).unwrap_or_default();
            for (column, cell) in rows.iter_mut().zip([pk.clone(), c.clone(), sent, original]) {
                column.push(cell);
            }
        }
        pks.push(pk);
    }
    let mut gone: Vec<String> = g.columns.iter().map(|c| (*c).to_owned()).collect();
    gone.extend(table.redact().iter().cloned());
    let mut delete = Statement::default();
    let id = delete.bind(mirror.id, Type::INT4);
    let pks = delete.bind(pks, Type::TEXT_ARRAY);
    delete.sql = format!(
        "delete from {}.tidewater_originals where table_id = {id} and pk = any({pks}::text[])",
        ident(schema)
    );
    if g.op == Op::Upsert {
        let gone = delete.bind(gone, Type::TEXT_ARRAY);
        delete
            .sql
            .push_str(&format!(" and col = any({gone}::text[])"));
    }
    let mut out = vec![delete];
    if !rows[0].is_empty() {
        let mut insert = Statement::default();
        let id = insert.bind(mirror.id, Type::INT4);
        let arrays = rows.map(|a| format!("{}::text[]", insert.bind(a, Type::TEXT_ARRAY)));
        insert.sql = format!(
            "insert into {}.tidewater_originals (table_id, pk, col, sent, original) \
             select {id}, u.pk, u.col, u.sent, u.original from unnest({}) as u(pk, col, sent, original)",
            ident(schema),
            arrays.join(", ")
        );
        out.push(insert);
    }
    out
}

/// The forms that hold, by table number and column.
pub async fn forms(
    session: &Session,
    schema: &str,
) -> Result<BTreeMap<i32, BTreeMap<String, Form>>> {
    let s = Statement::fixed(format!(
        "select table_id, col, form from {}.tidewater_forms",
        ident(schema)
    ));
    let mut out: BTreeMap<i32, BTreeMap<String, Form>> = BTreeMap::new();
    for r in session.query(&s, "reading the forms").await? {
        let (id, column, form): (i32, String, String) = (get(&r, 0)?, get(&r, 1)?, get(&r, 2)?);
        // A form of a newer program: what is written here is then kept beside the row.
        if let Some(form) = Form::parse(&form) {
            out.entry(id).or_default().insert(column, form);
        }
    }
    Ok(out)
}

/// See `Remote::offer_forms`.
pub async fn offer(
    remote: &PgRemote,
    t: &Tracked,
    forms: &BTreeMap<String, Form>,
) -> Result<BTreeMap<String, Form>> {
    const WHAT: &str = "telling how the app writes its values";
    let schema = ident(&remote.schema);
    let mut s = Statement::default();
    let id = s.bind(t.mirror.id, Type::INT4);
    let columns = s.bind(forms.keys().cloned().collect::<Vec<_>>(), Type::TEXT_ARRAY);
    let patterns: Vec<String> = forms.values().map(|f| f.pattern()).collect();
    let patterns = s.bind(patterns, Type::TEXT_ARRAY);
    // What somebody wrote in Postgres before is rendered otherwise from now on: devices compare.
    s.sql = format!(
        "with fresh as (insert into {schema}.tidewater_forms (table_id, col, form) \
         select {id}, u.col, u.form from unnest({columns}::text[], {patterns}::text[]) as u(col, form) \
         on conflict do nothing returning 1) \
         update {schema}.tidewater_tables set epoch = epoch + 1 \
         where id = {id} and exists (select 1 from fresh) and exists (select 1 from {}.{})",
        schema,
        ident(&t.table.name)
    );
    let session = remote.session().await?;
    session.pipeline(&remote.begin(), &[s], WHAT).await?;
    let held = forms_of(&session, &remote.schema, t.mirror.id).await?;
    session.batch("commit", WHAT).await?;
    session.done();
    Ok(held)
}

async fn forms_of(session: &Session, schema: &str, id: i32) -> Result<BTreeMap<String, Form>> {
    Ok(forms(session, schema)
        .await?
        .remove(&id)
        .unwrap_or_default())
}
