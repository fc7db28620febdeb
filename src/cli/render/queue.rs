//! `queue`, `retry` and `discard`.

use super::layout::{Fit, Grid, Tone, paragraph};
use crate::cli::style::{self, Paint, age, clean, coarse, number, plural};
use crate::report::{InboxReport, ItemError, QueueItem, QueueReport, ResultsReport, Time};

/// Items of a dry run that people are shown.
const WOULD_SEND_SHOWN: usize = 50;

pub(crate) fn queue(r: &QueueReport, now: Time, paint: Paint) -> String {
    if r.items.is_empty() {
        return match r.total {
            0 => format!("{}: nothing waits to be sent\n", paint.good("empty")),
            n => format!("{} in the queue\n", plural(n, "item", "items")),
        };
    }
    let mut grid = Grid::new(
        paint,
        &[
            ("change", Fit::Whole),
            ("table", Fit::Text),
            ("key", Fit::Text),
            ("op", Fit::Whole),
            ("status", Fit::Whole),
            ("age", Fit::Whole),
        ],
    );
    for item in &r.items {
        let tone = match item.status.as_str() {
            "failed" => Tone::Bad,
            "uploading" => Tone::Good,
            "synced" => Tone::Dim,
            _ => Tone::Warn,
        };
        grid.row(vec![
            (
                item.key
                    .as_deref()
                    .map_or_else(|| "(not claimed yet)".to_owned(), clean),
                Tone::Plain,
            ),
            (clean(&item.table), Tone::Plain),
            (style::key(&item.pk), Tone::Plain),
            (clean(&item.op), Tone::Plain),
            (clean(&item.status), tone),
            (
                item.created_at
                    .map_or_else(|| "–".to_owned(), |at| short_age(at, now)),
                Tone::Dim,
            ),
        ]);
        let notes = notes(item, now, grid.paint());
        grid.note(&notes);
    }
    let mut out = grid.text();
    out.push_str(&rest(
        r.items.len() as u64,
        r.total,
        "; `--limit` shows more",
    ));
    out
}

fn rest(shown: u64, total: u64, how: &str) -> String {
    if total <= shown {
        return String::new();
    }
    format!("\n  {} of {} shown{how}\n", number(shown), number(total))
}

/// `now --dry-run`.
pub(crate) fn would_send(r: &QueueReport, now: Time, paint: Paint) -> String {
    if r.items.is_empty() {
        return "nothing would be sent\n".to_owned();
    }
    let mut first = r.clone();
    first.items.truncate(WOULD_SEND_SHOWN);
    first.total = first.items.len() as u64;
    let mut out = queue(&first, now, paint);
    out.push_str(&rest(first.total, r.total, "; `--json` lists more"));
    out.push_str(&format!(
        "\n  {} would be sent\n",
        plural(r.total, "change", "changes")
    ));
    out
}

pub(crate) fn inbox(r: &InboxReport, now: Time, paint: Paint) -> String {
    if r.items.is_empty() {
        return format!("{}: nothing was received\n", paint.good("empty"));
    }
    let mut grid = Grid::new(
        paint,
        &[
            ("change", Fit::Whole),
            ("table", Fit::Text),
            ("key", Fit::Text),
            ("op", Fit::Whole),
            ("status", Fit::Whole),
            ("age", Fit::Whole),
        ],
    );
    for item in &r.items {
        let tone = match item.status.as_str() {
            "failed" => Tone::Bad,
            "applied" => Tone::Dim,
            _ => Tone::Warn,
        };
        let unknown = || "–".to_owned();
        grid.row(vec![
            (item.key.as_deref().map_or_else(unknown, clean), Tone::Plain),
            (clean(&item.table), Tone::Plain),
            (style::key(&item.pk), Tone::Plain),
            (item.op.as_deref().map_or_else(unknown, clean), Tone::Plain),
            (clean(&item.status), tone),
            (
                item.created_at
                    .map_or_else(unknown, |at| short_age(at, now)),
                Tone::Dim,
            ),
        ]);
        if let Some(e) = &item.error {
            let note = error(e, paint);
            grid.note(&note);
        }
    }
    let mut out = grid.text();
    out.push_str(&rest(
        r.items.len() as u64,
        r.total,
        "; `--limit` shows more",
    ));
    out
}

fn short_age(at: Time, now: Time) -> String {
    coarse(u64::try_from(now.ms() - at.ms()).unwrap_or(0))
}

fn notes(item: &QueueItem, now: Time, paint: Paint) -> String {
    let mut out = String::new();
    if let Some(at) = item
        .next_attempt_at
        .filter(|at| *at > now && item.status == "pending")
    {
        let text = format!("tried {}, next {}", times(item.attempts), age(at, now));
        out.push_str(&paragraph("", 4, &text));
    } else if item.status == "failed" {
        out.push_str(&paragraph(
            "",
            4,
            &format!("tried {}", times(item.attempts)),
        ));
    }
    if let Some(e) = &item.error {
        out.push_str(&error(e, paint));
    }
    out
}

fn times(n: u32) -> String {
    match n {
        1 => "once".to_owned(),
        n => format!("{n} times"),
    }
}

fn error(e: &ItemError, paint: Paint) -> String {
    let mut out = paint.bad(paragraph("", 4, &error_line(e)).trim_end());
    out.push('\n');
    if !e.remedy.is_empty() {
        out.push_str(&paragraph("→", 4, &clean(&e.remedy)));
    }
    out
}

/// Code, SQLSTATE and message on one line.
pub(super) fn error_line(e: &ItemError) -> String {
    let state = e
        .sqlstate
        .as_ref()
        .map_or_else(String::new, |s| format!(" ({})", clean(s)));
    format!("{}{state}: {}", clean(&e.code), clean(&e.message))
}

pub(crate) fn results(r: &ResultsReport, paint: Paint) -> String {
    if r.results.is_empty() {
        return "nothing had failed\n".to_owned();
    }
    let mut grid = Grid::new(
        paint,
        &[
            ("change", Fit::Whole),
            ("table", Fit::Text),
            ("key", Fit::Text),
            ("outcome", Fit::Whole),
        ],
    );
    for item in &r.results {
        let tone = match item.outcome.as_str() {
            "failed" => Tone::Bad,
            "synced" => Tone::Good,
            _ => Tone::Warn,
        };
        grid.row(vec![
            (clean(&item.key), Tone::Plain),
            (clean(&item.table), Tone::Plain),
            (style::key(&item.pk), Tone::Plain),
            (clean(&item.outcome), tone),
        ]);
        if let Some(e) = &item.error {
            let note = error(e, paint);
            grid.note(&note);
        }
    }
    grid.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;
    use crate::report::ItemResult;

    const NOW: Time = Time::EPOCH;

    fn item(key: Option<&str>, pk: &str, status: &str) -> QueueItem {
        QueueItem {
            key: key.map(str::to_owned),
            table: "messages".into(),
            pk: vec![Value::Text(pk.into())],
            op: "upsert".into(),
            status: status.into(),
            attempts: 0,
            next_attempt_at: None,
            bytes: 212,
            created_at: Some(Time::from_ms(-180_000)),
            error: None,
        }
    }

    fn failure() -> ItemError {
        ItemError {
            code: "SYNC-005".into(),
            sqlstate: Some("22P02".into()),
            message:
                "column meta: the text is no JSON, which the type jsonb of the mirror asks for"
                    .into(),
            remedy: "correct the row in the app; the change is then tried again by itself".into(),
        }
    }

    #[test]
    fn the_queue_shows_every_item_with_its_error() {
        let mut failed = item(Some("01J8ZQ6M3TAAAAAAAAAAAAAAAA"), "m1", "failed");
        failed.attempts = 5;
        failed.error = Some(failure());
        let mut held = item(
            Some("01J8ZQ6M3TBBBBBBBBBBBBBBBB"),
            "a key that is far too long for the line it is on\n",
            "pending",
        );
        held.attempts = 1;
        held.next_attempt_at = Some(Time::from_ms(8_000));
        let captured = QueueItem {
            created_at: None,
            op: "delete".into(),
            ..item(None, "m3", "pending")
        };
        let r = QueueReport {
            items: vec![failed, held, captured],
            total: 7,
        };
        let text = queue(&r, NOW, Paint::plain());
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        assert_eq!(
            text,
            "\
\x20 CHANGE                      TABLE     KEY               OP      STATUS   AGE
  01J8ZQ6M3TAAAAAAAAAAAAAAAA  messages  m1                upsert  failed   3 min
    tried 5 times
    SYNC-005 (22P02): column meta: the text is no JSON, which the type jsonb of
    the mirror asks for
    → correct the row in the app; the change is then tried again by itself
  01J8ZQ6M3TBBBBBBBBBBBBBBBB  messages  a key that is f…  upsert  pending  3 min
    tried once, next in 8 s
  (not claimed yet)           messages  m3                delete  pending  –

  3 of 7 shown; `--limit` shows more
"
        );
    }

    #[test]
    fn an_empty_queue_says_so() {
        let text = queue(&QueueReport::default(), NOW, Paint::plain());
        assert_eq!(text, "empty: nothing waits to be sent\n");
    }

    #[test]
    fn every_result_has_a_line() {
        let result = |outcome: &str, error| ItemResult {
            key: "01J8ZQ6M3TAAAAAAAAAAAAAAAA".into(),
            table: "messages".into(),
            pk: vec![Value::Int(1), Value::Text("x".into())],
            outcome: outcome.into(),
            error,
        };
        let r = ResultsReport {
            results: vec![result("synced", None), result("failed", Some(failure()))],
        };
        assert_eq!(
            results(&r, Paint::plain()),
            "\
\x20 CHANGE                      TABLE     KEY   OUTCOME
  01J8ZQ6M3TAAAAAAAAAAAAAAAA  messages  1, x  synced
  01J8ZQ6M3TAAAAAAAAAAAAAAAA  messages  1, x  failed
    SYNC-005 (22P02): column meta: the text is no JSON, which the type jsonb of
    the mirror asks for
    → correct the row in the app; the change is then tried again by itself
"
        );
        assert!(results(&r, Paint::coloured()).contains("\u{1b}["));
    }
}
