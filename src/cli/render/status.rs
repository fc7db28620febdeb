//! `status`, `status TABLE KEY`, `pause` and `resume`.

use super::layout::{Fields, Fit, Grid, Tone, paragraph};
use crate::cli::style::{self, Paint, age, clean, number, plural, span};
use crate::report::{
    Circuit, Download, Mode, ModeReport, RemoteStatus, RowStatus, StatusReport, TableStatus, Time,
    Upload,
};

/// Tables listed at most; those that need attention come first.
const TABLES_MAX: usize = 20;

pub(crate) fn status(r: &StatusReport, now: Time, paint: Paint) -> String {
    let mode = match r.mode {
        Mode::Online => paint.good("online"),
        Mode::Offline => paint.warn("offline"),
        Mode::Paused => paint.warn("paused"),
    };
    let mut out = format!(
        "{} · {mode} · {}\n",
        paint.bold(&clean(&r.device.name)),
        paint.dim(&format!("device {}", clean(&r.device.id)))
    );
    let mut fields = Fields::new(paint, 2);
    let service = match (r.service.running, r.service.pid) {
        (true, Some(pid)) => format!("running, process {pid}"),
        (true, None) => "running".to_owned(),
        (false, _) => "not running; `tidewater run` starts it".to_owned(),
    };
    fields.add(
        "service",
        if r.service.running {
            Tone::Good
        } else {
            Tone::Warn
        },
        &service,
    );
    let tone = if r.remote.reachable {
        Tone::Good
    } else {
        Tone::Warn
    };
    fields.add("remote", tone, &remote(&r.remote, r.circuit));
    fields.add("upload", upload_tone(&r.upload), &upload(&r.upload, now));
    let tone = if r.download.failed > 0 {
        Tone::Bad
    } else {
        Tone::Good
    };
    fields.add("download", tone, &download(&r.download, now));
    let (tone, text) = match (r.conflicts.total, r.conflicts.unseen) {
        (0, _) => (Tone::Good, "none".to_owned()),
        (total, 0) => (Tone::Good, format!("{}, all seen", number(total))),
        (total, unseen) => (
            Tone::Warn,
            format!(
                "{} unseen of {}; `tidewater conflicts` lists them",
                number(unseen),
                number(total)
            ),
        ),
    };
    fields.add("conflicts", tone, &text);
    out.push_str(&fields.text());
    out.push_str(&tables(&r.tables, paint));
    for p in &r.problems {
        out.push('\n');
        out.push_str(&paint.warn(&paragraph(
            "!",
            2,
            &format!("{}: {}", clean(&p.code), clean(&p.message)),
        )));
        out.push_str(&paragraph("→", 4, &clean(&p.remedy)));
    }
    out
}

fn remote(r: &RemoteStatus, circuit: Circuit) -> String {
    let mut parts = Vec::new();
    if r.reachable {
        parts.push("reachable".to_owned());
        parts.extend(r.latency_ms.map(|ms| format!("{ms:.1} ms")));
        parts.extend(
            r.server_version
                .as_ref()
                .map(|v| format!("PostgreSQL {}", clean(v))),
        );
    } else {
        parts.push("not reachable; changes wait here".to_owned());
    }
    if !r.schema.is_empty() {
        parts.push(format!("workspace {}", clean(&r.schema)));
    }
    if let Some(offset) = r.clock_offset_ms.filter(|ms| ms.unsigned_abs() >= 1000) {
        let way = if offset > 0 { "ahead" } else { "behind" };
        parts.push(format!(
            "this clock is {} {way}",
            span(offset.unsigned_abs())
        ));
    }
    match circuit {
        Circuit::Closed => {}
        Circuit::Open => parts.push("waiting before the next try".to_owned()),
        Circuit::HalfOpen => parts.push("trying again".to_owned()),
    }
    parts.join(" · ")
}

fn upload_tone(u: &Upload) -> Tone {
    match (u.failed, u.pending) {
        (0, 0) => Tone::Good,
        (0, _) => Tone::Warn,
        _ => Tone::Bad,
    }
}

fn upload(u: &Upload, now: Time) -> String {
    let mut parts = Vec::new();
    if u.failed > 0 {
        parts.push(format!(
            "{} failed (`tidewater queue --errors`)",
            number(u.failed)
        ));
    }
    if u.pending > 0 {
        let held = u.pending.saturating_sub(u.ready);
        let held = if held > 0 {
            format!(" ({} held back)", number(held))
        } else {
            String::new()
        };
        parts.push(format!("{} waiting{held}", number(u.pending)));
    }
    if u.uploading > 0 {
        parts.push(format!("{} under way", number(u.uploading)));
    }
    if let Some(at) = u.oldest_pending_at {
        parts.push(format!("oldest {}", age(at, now)));
    }
    if parts.is_empty() {
        parts.push("all sent".to_owned());
    }
    parts.push(format!(
        "{} today, {} ever",
        number(u.synced_today),
        number(u.synced_total)
    ));
    parts.push(last(u.last_push_at, now));
    parts.join(" · ")
}

fn download(d: &Download, now: Time) -> String {
    let mut parts = Vec::new();
    if d.failed > 0 {
        parts.push(format!("{} could not be applied", number(d.failed)));
    }
    if d.pending > 0 {
        parts.push(format!("{} waiting", number(d.pending)));
    }
    if parts.is_empty() {
        parts.push("up to date".to_owned());
    }
    parts.push(format!("{} today", number(d.applied_today)));
    parts.push(last(d.last_pull_at, now));
    parts.join(" · ")
}

fn last(at: Option<Time>, now: Time) -> String {
    at.map_or_else(
        || "never yet".to_owned(),
        |at| format!("last {}", age(at, now)),
    )
}

fn tables(tables: &[TableStatus], paint: Paint) -> String {
    if tables.is_empty() {
        return "\nNo table is tracked yet; `tidewater init` starts it.\n".to_owned();
    }
    let mut tables: Vec<_> = tables.iter().collect();
    tables.sort_by_key(|t| (t.failed == 0, t.pending == 0));
    let mut grid = Grid::new(
        paint,
        &[
            ("table", Fit::Text),
            ("waiting", Fit::Number),
            ("failed", Fit::Number),
            ("privacy", Fit::Whole),
        ],
    );
    for t in tables.iter().take(TABLES_MAX) {
        let tone = |n: u64, tone| if n == 0 { Tone::Dim } else { tone };
        grid.row(vec![
            (clean(&t.name), Tone::Plain),
            (number(t.pending), tone(t.pending, Tone::Warn)),
            (number(t.failed), tone(t.failed, Tone::Bad)),
            (
                clean(&t.privacy),
                if t.privacy == "full" {
                    Tone::Dim
                } else {
                    Tone::Plain
                },
            ),
        ]);
    }
    let mut out = format!("\n{}", grid.text());
    if let Some(more) = tables.len().checked_sub(TABLES_MAX).filter(|n| *n > 0) {
        out.push_str(&format!(
            "  and {}\n",
            plural(more as u64, "table more", "tables more")
        ));
    }
    out
}

pub(crate) fn row_status(r: &RowStatus, now: Time, paint: Paint) -> String {
    let status = match r.status.as_str() {
        "synced" => paint.good("synced"),
        "failed" => paint.bad("failed"),
        other => paint.warn(&clean(other)),
    };
    let mut out = format!("{} {} · {status}\n", clean(&r.table), style::key(&r.key));
    let mut fields = Fields::new(paint, 2);
    if let Some(change) = &r.change_key {
        fields.add("change", Tone::Dim, &clean(change));
    }
    if let Some(at) = r.synced_at {
        fields.add(
            "synced",
            Tone::Dim,
            &format!("{} ({})", style::moment(at), age(at, now)),
        );
    }
    if let Some(e) = &r.error {
        fields.add("error", Tone::Bad, &super::queue::error_line(e));
        fields.add("remedy", Tone::Dim, &clean(&e.remedy));
    }
    out.push_str(&fields.text());
    out
}

pub(crate) fn mode(r: &ModeReport, paint: Paint) -> String {
    match r.mode {
        Mode::Paused => format!(
            "{}; changes wait here until `tidewater resume`\n",
            paint.warn("paused")
        ),
        mode => format!("{}; changes go on\n", paint.good(mode.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{ConflictCounts, Device, Problem, Service};

    fn report() -> StatusReport {
        let t = |ms_ago: i64| Some(Time::from_ms(1_000_000_000 - ms_ago));
        StatusReport {
            device: Device {
                id: "01J8ZQ6M3T".into(),
                name: "laptop".into(),
            },
            mode: Mode::Online,
            service: Service {
                running: true,
                pid: Some(4242),
            },
            remote: RemoteStatus {
                reachable: true,
                server_version: Some("15.18".into()),
                schema: "public".into(),
                latency_ms: Some(1.23),
                clock_offset_ms: Some(3),
            },
            upload: Upload {
                synced_today: 47,
                synced_total: 9120,
                last_push_at: t(3_000),
                ..Upload::default()
            },
            download: Download {
                applied_today: 12,
                last_pull_at: t(500),
                ..Download::default()
            },
            conflicts: ConflictCounts {
                total: 1,
                unseen: 1,
            },
            circuit: Circuit::Closed,
            tables: vec![TableStatus {
                name: "messages".into(),
                privacy: "full".into(),
                pending: 0,
                failed: 0,
            }],
            problems: vec![],
        }
    }

    fn shown(r: &StatusReport) -> String {
        let text = status(r, Time::from_ms(1_000_000_000), Paint::plain());
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        text
    }

    #[test]
    fn health_is_seen_at_a_glance() {
        assert_eq!(
            shown(&report()),
            "\
laptop · online · device 01J8ZQ6M3T
  service    running, process 4242
  remote     reachable · 1.2 ms · PostgreSQL 15.18 · workspace public
  upload     all sent · 47 today, 9,120 ever · last 3 s ago
  download   up to date · 12 today · last just now
  conflicts  1 unseen of 1; `tidewater conflicts` lists them

  TABLE     WAITING  FAILED  PRIVACY
  messages        0       0  full
"
        );
    }

    #[test]
    fn trouble_comes_with_what_to_do() {
        let mut r = report();
        r.mode = Mode::Offline;
        r.service = Service::default();
        r.remote = RemoteStatus {
            schema: "public".into(),
            ..RemoteStatus::default()
        };
        r.circuit = Circuit::Open;
        r.upload.pending = 1200;
        r.upload.ready = 1000;
        r.upload.failed = 2;
        r.upload.oldest_pending_at = Some(Time::from_ms(1_000_000_000 - 7_200_000));
        r.tables.push(TableStatus {
            name: "a\u{1b}[2J_table_whose_name_is_much_longer_than_what_fits_on_one_line_of_a_terminal".into(),
            privacy: "redacted".into(),
            pending: 1200,
            failed: 2,
        });
        r.problems.push(Problem {
            code: "SYNC-006".into(),
            message: "the clock of this device is 2 min ahead of the server's, so that its changes would win".into(),
            remedy: "set the clock".into(),
        });
        assert_eq!(
            shown(&r),
            "\
laptop · offline · device 01J8ZQ6M3T
  service    not running; `tidewater run` starts it
  remote     not reachable; changes wait here · workspace public · waiting
             before the next try
  upload     2 failed (`tidewater queue --errors`) · 1,200 waiting (200 held
             back) · oldest 2 h ago · 47 today, 9,120 ever · last 3 s ago
  download   up to date · 12 today · last just now
  conflicts  1 unseen of 1; `tidewater conflicts` lists them

  TABLE                                                WAITING  FAILED  PRIVACY
  a\\u{1b}[2J_table_whose_name_is_much_longer_than_wh…    1,200       2  redacted
  messages                                                   0       0  full

  ! SYNC-006: the clock of this device is 2 min ahead of the server's, so that
    its changes would win
    → set the clock
"
        );
    }

    #[test]
    fn a_row_says_why_it_failed() {
        let r = RowStatus {
            table: "messages".into(),
            key: vec![crate::model::Value::Text("m1".into())],
            status: "failed".into(),
            change_key: Some("01J".into()),
            error: Some(crate::report::ItemError {
                code: "SYNC-005".into(),
                sqlstate: Some("22P02".into()),
                message: "invalid input syntax for type json".into(),
                remedy: "correct the column meta".into(),
            }),
            synced_at: Some(Time::from_ms(0)),
        };
        assert_eq!(
            row_status(&r, Time::from_ms(5_000), Paint::plain()),
            "\
messages m1 · failed
  change  01J
  synced  1970-01-01 00:00:00 UTC (5 s ago)
  error   SYNC-005 (22P02): invalid input syntax for type json
  remedy  correct the column meta
"
        );
    }
}
