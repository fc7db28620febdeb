//! `explain` and `queue show`.

use super::layout::{Fields, Fit, Grid, Tone, paragraph};
use super::queue::error_line;
use crate::cli::style::{self, Paint, age, clean, moment, number};
use crate::report::{Event, ExplainReport, QueueDetail, QueueDetailReport, Time};

pub(crate) fn explain(r: &ExplainReport, paint: Paint) -> String {
    let status = match r.status.as_deref() {
        Some("synced") => paint.good("synced"),
        Some("failed") => paint.bad("failed"),
        Some(other) => paint.warn(&clean(other)),
        None => paint.dim("not known"),
    };
    let title = format!("{} {}", clean(&r.table), style::key(&r.key));
    let mut out = format!("{} · {status}\n", paint.bold(&title));
    if r.events.is_empty() {
        out.push_str("\n  nothing is written down of it, or nothing any more\n");
        return out;
    }
    out.push('\n');
    out.push_str(&events(&r.events, paint));
    out
}

/// One line an event: when, what, which change; what is to be said of it below.
fn events(events: &[Event], paint: Paint) -> String {
    let mut grid = Grid::new(
        paint,
        &[
            ("when (UTC)", Fit::Whole),
            ("what", Fit::Whole),
            ("change", Fit::Whole),
        ],
    );
    for e in events {
        let at = e.at.map_or_else(
            || "–".to_owned(),
            |at| at.to_string().replace('T', " ").replace('Z', ""),
        );
        grid.row(vec![
            (at, Tone::Dim),
            (clean(&e.kind.replace('_', " ")), tone(&e.kind)),
            (
                e.change_key.as_deref().map(clean).unwrap_or_default(),
                Tone::Plain,
            ),
        ]);
        if let Some(text) = said(e) {
            let note = paint.dim(paragraph("", 4, &text).trim_end());
            grid.note(&format!("{note}\n"));
        }
    }
    grid.text()
}

fn tone(kind: &str) -> Tone {
    match kind {
        "uploaded" | "same" | "applied" | "restored" => Tone::Good,
        "parked" | "not_applied" | "went_back" => Tone::Bad,
        "refused" | "lost" | "conflict" | "discarded" | "new_identity" | "capture_healed" => {
            Tone::Warn
        }
        _ => Tone::Plain,
    }
}

fn said(e: &Event) -> Option<String> {
    let mut parts = Vec::new();
    match (&e.code, &e.sqlstate) {
        (Some(code), Some(state)) => parts.push(format!("{} ({}):", clean(code), clean(state))),
        (Some(code), None) => parts.push(format!("{}:", clean(code))),
        _ => {}
    }
    parts.extend(e.message.as_deref().map(clean));
    match (e.kind.as_str(), e.device.as_deref()) {
        (_, None) => {}
        ("applied" | "not_applied", Some("0")) => parts.push("from PostgreSQL".to_owned()),
        ("applied" | "not_applied", Some(d)) => parts.push(format!("from device {}", clean(d))),
        ("new_identity", Some(d)) => parts.push(format!("and is {} now", clean(d))),
        (_, Some("0")) => parts.push("against PostgreSQL".to_owned()),
        (_, Some(d)) => parts.push(format!("against device {}", clean(d))),
    }
    if let Some(id) = &e.conflict {
        parts.push(match e.kind.as_str() {
            "restored" => format!("from conflict {}", clean(id)),
            _ => format!("(conflict {})", clean(id)),
        });
    }
    (!parts.is_empty()).then(|| parts.join(" "))
}

pub(crate) fn queue_detail(r: &QueueDetailReport, now: Time, paint: Paint) -> String {
    r.items
        .iter()
        .map(|item| detail(item, now, paint))
        .collect::<Vec<_>>()
        .join("\n")
}

fn detail(d: &QueueDetail, now: Time, paint: Paint) -> String {
    let item = &d.item;
    let status = match item.status.as_str() {
        "synced" => paint.good("synced"),
        "failed" => paint.bad("failed"),
        other => paint.warn(&clean(other)),
    };
    let title = format!("{} {}", clean(&item.table), style::key(&item.pk));
    let mut out = format!("{} · {} · {status}\n", paint.bold(&title), clean(&item.op));
    let mut fields = Fields::new(paint, 2);
    if let Some(key) = &item.key {
        fields.add("change", Tone::Dim, &clean(key));
    }
    let mut when = |name: &str, at: Option<Time>| {
        if let Some(at) = at {
            fields.add(
                name,
                Tone::Dim,
                &format!("{} ({})", moment(at), age(at, now)),
            );
        }
    };
    when("written", d.edited_at);
    when("claimed", item.created_at);
    when("synced", d.synced_at);
    when("next try", item.next_attempt_at);
    fields.add("attempts", Tone::Dim, &number(u64::from(item.attempts)));
    fields.add("bytes", Tone::Dim, &number(item.bytes));
    if let Some(e) = &item.error {
        fields.add("error", Tone::Bad, &error_line(e));
        fields.add("remedy", Tone::Dim, &clean(&e.remedy));
    }
    out.push_str(&fields.text());
    if let Some(row) = &d.row {
        let mut columns = Grid::new(paint, &[("column", Fit::Text), ("value", Fit::Text)]);
        for (name, value) in &row.0 {
            columns.row(vec![
                (clean(name), Tone::Plain),
                (style::value(value), Tone::Plain),
            ]);
        }
        out.push('\n');
        out.push_str(&columns.text());
    }
    if !d.events.is_empty() {
        out.push('\n');
        out.push_str(&events(&d.events, paint));
    }
    out
}
