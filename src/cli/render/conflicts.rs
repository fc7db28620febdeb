//! `conflicts`, its list and one of them column by column.

use super::layout::{Fields, Fit, Grid, Tone};
use crate::cli::style::{self, Paint, age, clean, moment, number, plural};
use crate::model::Row;
use crate::report::{Conflict, ConflictsReport, Time};

pub(crate) fn conflicts(r: &ConflictsReport, now: Time, paint: Paint) -> String {
    if r.conflicts.is_empty() {
        return format!("{}: no conflicts\n", paint.good("none"));
    }
    let mut grid = Grid::new(
        paint,
        &[
            ("", Fit::Whole),
            ("conflict", Fit::Whole),
            ("table", Fit::Text),
            ("key", Fit::Text),
            ("won", Fit::Whole),
            ("decided", Fit::Whole),
        ],
    );
    for c in &r.conflicts {
        let (mark, tone) = if c.seen {
            ("", Tone::Dim)
        } else {
            ("●", Tone::Warn)
        };
        grid.row(vec![
            (mark.to_owned(), tone),
            (clean(&c.id), Tone::Plain),
            (clean(&c.table), Tone::Plain),
            (style::key(&c.pk), Tone::Plain),
            (clean(&c.winner), Tone::Plain),
            (age(c.detected_at, now), Tone::Dim),
        ]);
    }
    let mut out = grid.text();
    let shown = r.conflicts.len() as u64;
    if r.total > shown {
        out.push_str(&format!(
            "\n  the newest {} of {}\n",
            number(shown),
            number(r.total)
        ));
    }
    if r.conflicts.iter().any(|c| !c.seen) {
        out.push_str("\n  ● not seen yet; `tidewater conflicts show ID` compares both sides\n");
    }
    out
}

pub(crate) fn conflict(r: &ConflictsReport, paint: Paint) -> String {
    r.conflicts
        .iter()
        .map(|c| one(c, paint))
        .collect::<Vec<_>>()
        .join("\n")
}

fn one(c: &Conflict, paint: Paint) -> String {
    let title = format!("{} {}", clean(&c.table), style::key(&c.pk));
    let mut out = format!("{} · {}\n", paint.bold(&title), meaning(&c.kind));
    let mut fields = Fields::new(paint, 2);
    fields.add("conflict", Tone::Dim, &clean(&c.id));
    fields.add(
        "decided",
        Tone::Dim,
        &format!(
            "{} by {}: {} won",
            moment(c.detected_at),
            clean(&c.policy),
            clean(&c.winner)
        ),
    );
    fields.add(
        "local",
        Tone::Dim,
        &side(c.local_at, c.local_change_key.as_deref(), None),
    );
    let device = if c.own {
        Some("(this file, under a former id)")
    } else {
        c.remote_device.as_deref()
    };
    fields.add(
        "remote",
        Tone::Dim,
        &side(c.remote_at, c.remote_change_key.as_deref(), device),
    );
    if let Some(file) = &c.original_file {
        fields.add("original", Tone::Dim, &clean(file));
    }
    if let Some(key) = &c.restored_as {
        fields.add("restored", Tone::Good, &format!("as {}", style::key(key)));
    }
    out.push_str(&fields.text());
    out.push('\n');
    out.push_str(&columns(c, paint));
    let loser = if c.winner == "local" {
        "remote"
    } else {
        "local"
    };
    let how = if c.kind == "key_collision" {
        " under a fresh key"
    } else {
        ""
    };
    out.push_str(&format!(
        "\n  `tidewater conflicts restore {}` brings {loser} back{how}\n",
        clean(&c.id)
    ));
    out
}

fn meaning(kind: &str) -> String {
    match kind {
        "insert_insert" => "created on both sides".to_owned(),
        "update_update" => "changed on both sides".to_owned(),
        "update_delete" => "changed here, deleted there".to_owned(),
        "delete_update" => "deleted here, changed there".to_owned(),
        "key_collision" => "two rows with one key".to_owned(),
        "unique_collision" => "two rows with one unique value".to_owned(),
        "discarded" => "given up with `discard`".to_owned(),
        other => clean(other),
    }
}

fn side(at: Option<Time>, change: Option<&str>, device: Option<&str>) -> String {
    let mut parts = Vec::new();
    parts.extend(at.map(moment));
    parts.extend(change.map(|c| format!("change {}", clean(c))));
    parts.extend(device.map(|d| match d {
        "0" => "written in PostgreSQL".to_owned(),
        d => format!("device {}", clean(d)),
    }));
    if parts.is_empty() {
        parts.push("–".to_owned());
    }
    parts.join(" · ")
}

/// Both rows side by side, in the order of the columns here; columns of one side only come last.
fn columns(c: &Conflict, paint: Paint) -> String {
    let empty = Row::default();
    let local = c.local.as_ref().unwrap_or(&empty);
    let remote = c.remote.as_ref().unwrap_or(&empty);
    let only_there = remote
        .0
        .iter()
        .filter(|(name, _)| local.get(name).is_none());
    let names = local.0.iter().chain(only_there).map(|(name, _)| name);
    let mut grid = Grid::new(
        paint,
        &[
            ("", Fit::Whole),
            ("column", Fit::Text),
            ("local", Fit::Text),
            ("remote", Fit::Text),
        ],
    );
    let shown = |row: &Option<Row>, name: &str| match row {
        None => "(deleted)".to_owned(),
        Some(row) => row.get(name).map_or_else(|| "–".to_owned(), style::value),
    };
    for name in names {
        let differs = match (&c.local, &c.remote) {
            (Some(l), Some(r)) => {
                matches!((l.get(name), r.get(name)), (Some(a), Some(b)) if a != b)
            }
            _ => true,
        };
        let tone = if differs { Tone::Warn } else { Tone::Dim };
        grid.row(vec![
            (if differs { "≠" } else { "" }.to_owned(), tone),
            (clean(name), tone),
            (shown(&c.local, name), tone),
            (shown(&c.remote, name), tone),
        ]);
    }
    grid.text()
}

pub(crate) fn restored(r: &ConflictsReport, paint: Paint) -> String {
    let mut out: String = r
        .conflicts
        .iter()
        .map(|c| {
            let fresh = c.restored_as.as_ref();
            let place = fresh.map_or_else(String::new, |k| format!(" as {}", style::key(k)));
            format!(
                "{} {} {}{place}: written back as a new edit\n",
                paint.good("restored"),
                clean(&c.table),
                style::key(&c.pk)
            )
        })
        .collect();
    if let Some(n) = r.moved {
        out.push_str(&format!(
            "  with {} that belong to it\n",
            plural(n, "more row", "more rows")
        ));
    }
    out
}

pub(crate) fn acknowledged(r: &ConflictsReport, paint: Paint) -> String {
    let n = r.total.max(r.conflicts.len() as u64);
    format!(
        "{} {}\n",
        paint.good("seen:"),
        plural(n, "conflict", "conflicts")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;

    fn a_conflict() -> Conflict {
        let row = |title: &str, extra: (&str, Value)| {
            Row(vec![
                ("id".into(), Value::Text("c1".into())),
                ("title".into(), Value::Text(title.into())),
                (extra.0.into(), extra.1),
            ])
        };
        Conflict {
            id: "01J8ZQ6M3TAAAAAAAAAAAAAAAA".into(),
            table: "chats".into(),
            pk: vec![Value::Text("c1".into())],
            detected_at: Time::from_ms(1_741_000_000_000),
            policy: "last_write_wins".into(),
            winner: "remote".into(),
            kind: "update_update".into(),
            local: Some(row(
                "Groceries, and what else the week needs",
                ("n", Value::Null),
            )),
            remote: Some(row("Gro\u{1b}[31m", ("pinned", Value::Int(1)))),
            local_change_key: Some("01J8ZQ6M3TBBBBBBBBBBBBBBBB".into()),
            remote_change_key: Some("01J8ZQ6M3TCCCCCCCCCCCCCCCC".into()),
            local_at: Some(Time::from_ms(1_740_999_990_000)),
            remote_at: Some(Time::from_ms(1_740_999_999_000)),
            remote_device: Some("0".into()),
            own: false,
            seen: false,
            restored_as: None,
            original_file: Some(
                "/data/.tidewater/conflicts/chats-01J8ZQ6M3TAAAAAAAAAAAAAAAA.json".into(),
            ),
        }
    }

    #[test]
    fn the_list_marks_what_nobody_has_seen() {
        let seen = Conflict {
            seen: true,
            winner: "local".into(),
            ..a_conflict()
        };
        let r = ConflictsReport {
            conflicts: vec![a_conflict(), seen],
            total: 600,
            moved: None,
        };
        let text = conflicts(&r, Time::from_ms(1_741_000_180_000), Paint::plain());
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        assert_eq!(
            text,
            "\
\x20    CONFLICT                    TABLE  KEY  WON     DECIDED
  ●  01J8ZQ6M3TAAAAAAAAAAAAAAAA  chats  c1   remote  3 min ago
     01J8ZQ6M3TAAAAAAAAAAAAAAAA  chats  c1   local   3 min ago

  the newest 2 of 600

  ● not seen yet; `tidewater conflicts show ID` compares both sides
"
        );
        let none = conflicts(&ConflictsReport::default(), Time::EPOCH, Paint::plain());
        assert_eq!(none, "none: no conflicts\n");
    }

    #[test]
    fn both_sides_stand_column_by_column() {
        let r = ConflictsReport {
            conflicts: vec![a_conflict()],
            total: 1,
            moved: None,
        };
        let text = conflict(&r, Paint::plain());
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        assert_eq!(
            text,
            "\
chats c1 · changed on both sides
  conflict  01J8ZQ6M3TAAAAAAAAAAAAAAAA
  decided   2025-03-03 11:06:40 UTC by last_write_wins: remote won
  local     2025-03-03 11:06:30 UTC · change 01J8ZQ6M3TBBBBBBBBBBBBBBBB
  remote    2025-03-03 11:06:39 UTC · change 01J8ZQ6M3TCCCCCCCCCCCCCCCC ·
            written in PostgreSQL
  original  /data/.tidewater/conflicts/chats-01J8ZQ6M3TAAAAAAAAAAAAAAAA.json

     COLUMN  LOCAL                                    REMOTE
     id      c1                                       c1
  ≠  title   Groceries, and what else the week needs  Gro\\u{1b}[31m
     n       NULL                                     –
     pinned  –                                        1

  `tidewater conflicts restore 01J8ZQ6M3TAAAAAAAAAAAAAAAA` brings local back
"
        );
    }

    #[test]
    fn a_deleted_side_says_so() {
        let c = Conflict {
            remote: None,
            kind: "update_delete".into(),
            ..a_conflict()
        };
        let text = conflict(
            &ConflictsReport {
                conflicts: vec![c],
                total: 1,
                moved: None,
            },
            Paint::plain(),
        );
        assert!(text.starts_with("chats c1 · changed here, deleted there\n"));
        assert!(text.contains("≠  id      c1"), "{text}");
        assert!(text.contains("(deleted)"));
    }

    #[test]
    fn what_got_a_fresh_key_says_which() {
        let c = Conflict {
            kind: "key_collision".into(),
            restored_as: Some(vec![Value::Int(7)]),
            ..a_conflict()
        };
        let r = ConflictsReport {
            conflicts: vec![c],
            total: 1,
            moved: Some(2),
        };
        assert_eq!(
            restored(&r, Paint::plain()),
            "restored chats c1 as 7: written back as a new edit\n  with 2 more rows that belong to it\n"
        );
        let text = conflict(&r, Paint::plain());
        assert!(
            text.starts_with("chats c1 · two rows with one key\n"),
            "{text}"
        );
        assert!(
            text.contains("  restored  as 7\n")
                && text.contains("brings local back under a fresh key"),
            "{text}"
        );
    }
}
