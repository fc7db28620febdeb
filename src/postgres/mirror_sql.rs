//! The SQL of one mirror table: its columns, its feed index, its triggers. Pure text from names.
//!
//! Invariant: [`key_expr`] builds, in SQL, the very bytes that `model::Key::encode` builds in Rust.

use super::quote::{ident, qualified};
use crate::model::{Column, Table, Typed, Unique, Wire};
use crate::remote::Mirror;

/// The canonical text of a key column's value, as `model::Key` writes it.
fn key_part(expr: &str, wire: Wire) -> String {
    let real = |e: &str| format!("'{{\"real\":\"' || encode(float8send({e}), 'hex') || '\"}}'");
    let bytes = |e: &str| format!("'{{\"hex\":\"' || encode({e}, 'hex') || '\"}}'");
    match wire {
        Wire::Int => format!("({expr})::text"),
        Wire::Text => format!("to_json(({expr})::text)::text"),
        Wire::Real => real(&format!("({expr})::double precision")),
        Wire::Bytes => bytes(expr),
        Wire::Numeric => format!(
            "case when {expr} = trunc({expr}) and abs({expr}) < 9223372036854775808 \
             then trunc({expr})::bigint::text else {} end",
            real(&format!("({expr})::double precision"))
        ),
        Wire::Affine => format!(
            "case when {expr} ~ '^-?(0|[1-9][0-9]{{0,17}})$' then {expr} \
             when {expr} ~ '^-?[1-9][0-9]{{18}}$' and ({expr})::numeric between \
             -9223372036854775808 and 9223372036854775807 then {expr} \
             when {expr} ~ '^-?[0-9]+(\\.[0-9]+)?([eE][-+]?[0-9]+)?$' then {} \
             else to_json({expr})::text end",
            real(&format!("({expr})::double precision"))
        ),
        Wire::Typed(Typed::UuidBytes) => {
            format!("'{{\"hex\":\"' || replace(({expr})::text, '-', '') || '\"}}'")
        }
        Wire::Typed(_) => format!("to_json(({expr})::text)::text"),
        Wire::Dynamic => format!(
            "case jsonb_typeof({expr}) when 'string' then to_json({expr} #>> '{{}}')::text \
             when 'object' then case when {expr} ? 'real' then {} \
             else '{{\"hex\":\"' || ({expr} ->> 'hex') || '\"}}' end \
             else ({expr})::text end",
            real(&format!("({expr} ->> 'real')::double precision"))
        ),
    }
}

/// The canonical text of the key of row `alias`.
pub fn key_expr(alias: &str, table: &Table, mirror: &Mirror) -> String {
    let parts: Vec<String> = table
        .key
        .iter()
        .map(|c| {
            let wire = mirror.wires.get(c).copied().unwrap_or(Wire::Text);
            key_part(&format!("{alias}.{}", ident(c)), wire)
        })
        .collect();
    format!("'[' || {} || ']'", parts.join(" || ',' || "))
}

/// `create table` of a mirror with tidewater's three columns at the end. Text keys compare by bytes.
pub fn create_table(schema: &str, table: &Table) -> String {
    let mut lines: Vec<String> = table
        .columns
        .iter()
        .filter(|c| !c.generated)
        .map(|c| column_definition(table, c))
        .collect();
    lines.push("tidewater_change text collate \"C\"".into());
    lines.push("tidewater_xid xid8".into());
    lines.push("tidewater_device text collate \"C\"".into());
    let key: Vec<String> = table.key.iter().map(|c| ident(c)).collect();
    lines.push(format!("primary key ({})", key.join(", ")));
    format!(
        "create table {} (\n  {}\n)",
        qualified(schema, &table.name),
        lines.join(",\n  ")
    )
}

/// A column with its type, and the byte collation where it is part of a key.
pub fn column_definition(table: &Table, c: &Column) -> String {
    let ty = c.mirror_type();
    let collate = if matches!(ty, "text" | "varchar") && table.key.contains(&c.name) {
        " collate \"C\""
    } else {
        ""
    };
    format!("{} {ty}{collate}", ident(&c.name))
}

/// The constraint or index that mirrors a secondary UNIQUE, `None` for a form that has no counterpart
/// (expressions, partial indexes, redacted columns). Plain ones are deferrable, so that two rows may
/// swap their values in one push.
pub fn unique(schema: &str, table: &Table, id: i32, n: &str, u: &Unique) -> Option<String> {
    if u.partial {
        return None;
    }
    let mut columns = Vec::new();
    let mut plain = true;
    for (name, collation) in &u.columns {
        let c = table.column(name.as_deref()?)?;
        if c.redacted || c.generated || table.redact().contains(&c.name) {
            return None;
        }
        let text = c.wire() == Wire::Text;
        if c.wire() == Wire::Typed(Typed::Json) {
            return None;
        }
        match collation.to_ascii_uppercase().as_str() {
            "NOCASE" if text => {
                plain = false;
                columns.push(format!("lower({} collate \"C\")", ident(&c.name)));
            }
            "RTRIM" if text => {
                plain = false;
                columns.push(format!("rtrim({}, ' ')", ident(&c.name)));
            }
            _ => columns.push(ident(&c.name)),
        }
    }
    let target = qualified(schema, &table.name);
    let columns = columns.join(", ");
    let name = ident(&format!("tidewater_unique_{id}_{n}"));
    Some(if plain {
        format!(
            "alter table {target} add constraint {name} unique ({columns}) \
             deferrable initially immediate"
        )
    } else {
        format!("create unique index {name} on {target} ({columns})")
    })
}

/// Everything but the feed's index that turns a table with its metadata columns into a mirror: functions
/// and triggers.
pub fn instrument(schema: &str, table: &Table, mirror: &Mirror) -> Vec<String> {
    let id = mirror.id;
    let t = qualified(schema, &table.name);
    let s = ident(schema);
    let differs = table
        .key
        .iter()
        .map(|c| format!("old.{0} is distinct from new.{0}", ident(c)))
        .collect::<Vec<_>>()
        .join(" or ");
    let grave = |source: &str, rows: &str| {
        format!(
            "insert into {s}.tidewater_tombstones as g (table_id, pk, tidewater_change, \
             tidewater_xid, tidewater_device, row_change)\n  \
             select {id}, {key}, greatest(left(coalesce({source}.tidewater_change, ''), 10), \
             {s}.tidewater_time10(clock_timestamp()) collate \"C\") || {s}.tidewater_tail16(), \
             pg_current_xact_id(), '0', {source}.tidewater_change{rows}\n  \
             on conflict (table_id, pk) do update set tidewater_change = excluded.tidewater_change, \
             tidewater_xid = excluded.tidewater_xid, tidewater_device = excluded.tidewater_device, \
             row_change = excluded.row_change;",
            key = key_expr(source, table, mirror),
        )
    };
    let rise = |source: &str| {
        format!(
            "delete from {s}.tidewater_tombstones where table_id = {id} and pk = {};",
            key_expr(source, table, mirror)
        )
    };
    // What is kept beside a row goes with it.
    let kept = mirror
        .wires
        .values()
        .any(|w| matches!(w, Wire::Typed(t) if t.keeps_originals()));
    let forget = |rows: &str| {
        if kept {
            format!("\n  delete from {s}.tidewater_originals x{rows};")
        } else {
            String::new()
        }
    };
    let function = |name: &str, body: &str| {
        format!(
            "create or replace function {s}.tidewater_{name}_{id}() returns trigger\n\
             language plpgsql set search_path = pg_catalog, pg_temp as $tidewater$\nbegin\n  {body}\n  \
             return null;\nend\n$tidewater$"
        )
    };
    let enable = |name: &str| format!("alter table {t} enable always trigger {}", ident(name));
    vec![
        function(
            "deleted",
            &format!(
                "{}{}",
                grave("o", " from tidewater_old o order by 2"),
                forget(&format!(
                    " using tidewater_old o where x.table_id = {id} and x.pk = {}",
                    key_expr("o", table, mirror)
                ))
            ),
        ),
        function("moved", &format!("{}\n  {}", grave("old", ""), rise("new"))),
        function("returned", &rise("new")),
        function(
            "truncated",
            &format!(
                "{}\n  update {s}.tidewater_tables set epoch = epoch + 1 where id = {id};{}",
                grave("o", &format!(" from {t} o order by 2")),
                forget(&format!(" where x.table_id = {id}"))
            ),
        ),
        // Named to fire last among BEFORE triggers: it must see what the others made of the row.
        format!(
            "create or replace trigger \"~tidewater_insert\" before insert on {t} for each row \
             when (new.tidewater_xid is distinct from pg_current_xact_id() \
             or new.tidewater_change is null or new.tidewater_device is null) \
             execute function {s}.tidewater_stamp()"
        ),
        enable("~tidewater_insert"),
        format!(
            "create or replace trigger \"~tidewater_update\" before update on {t} for each row \
             when (new.tidewater_xid is distinct from pg_current_xact_id() \
             or new.tidewater_change is null or new.tidewater_device is null \
             or new.tidewater_change is not distinct from old.tidewater_change) \
             execute function {s}.tidewater_stamp()"
        ),
        enable("~tidewater_update"),
        format!(
            "create or replace trigger tidewater_deleted after delete on {t} \
             referencing old table as tidewater_old for each statement \
             execute function {s}.tidewater_deleted_{id}()"
        ),
        enable("tidewater_deleted"),
        format!(
            "create or replace trigger tidewater_moved after update on {t} for each row \
             when ({differs}) execute function {s}.tidewater_moved_{id}()"
        ),
        enable("tidewater_moved"),
        format!(
            "create or replace trigger tidewater_returned after insert on {t} for each row \
             when (new.tidewater_device = '0') execute function {s}.tidewater_returned_{id}()"
        ),
        enable("tidewater_returned"),
        format!(
            "create or replace trigger tidewater_truncated before truncate on {t} \
             for each statement execute function {s}.tidewater_truncated_{id}()"
        ),
        enable("tidewater_truncated"),
    ]
}
