//! `init`, `clone`, `now` and `verify`.

use super::layout::{Fields, Fit, Grid, Tone, paragraph};
use crate::cli::style::{Paint, clean, number, plural, span};
use crate::report::{DryRunReport, InitReport, NowReport, VerifyReport};

/// `done` is the verb: what was done to the device.
pub(crate) fn init(r: &InitReport, done: &str, paint: Paint) -> String {
    let rows: u64 = r.tables.iter().map(|t| t.rows).sum();
    let mut out = format!(
        "{} {} · {} · {} · {}\n",
        paint.good(done),
        paint.bold(&clean(&r.device.name)),
        plural(r.tables.len() as u64, "table", "tables"),
        plural(rows, "row", "rows"),
        span(r.elapsed_ms)
    );
    if !r.tables.is_empty() {
        let columns = [
            ("table", Fit::Text),
            ("rows", Fit::Number),
            ("columns", Fit::Number),
        ];
        let mut grid = Grid::new(paint, &columns);
        for t in &r.tables {
            grid.row(vec![
                (clean(&t.name), Tone::Plain),
                (number(t.rows), Tone::Plain),
                (number(t.columns), Tone::Dim),
            ]);
        }
        out.push('\n');
        out.push_str(&grid.text());
    }
    if !r.skipped.is_empty() {
        let mut fields = Fields::new(paint, 2);
        for s in &r.skipped {
            fields.add(&clean(&s.name), Tone::Warn, &clean(&s.reason));
        }
        out.push_str("\nLeft out:\n");
        out.push_str(&fields.text());
    }
    let mut told: Vec<&str> = Vec::new();
    for w in &r.warnings {
        if told.contains(&w.message.as_str()) {
            continue;
        }
        told.push(&w.message);
        let same = r.warnings.iter().filter(|o| o.message == w.message);
        let names: Vec<String> = same.map(|o| clean(&o.table)).collect();
        let text = format!("{}: {}", names.join(", "), clean(&w.message));
        out.push('\n');
        out.push_str(&paragraph("!", 2, &text));
        out.push_str(&paragraph("→", 4, &clean(&w.remedy)));
    }
    out
}

/// The statements as they are, so that they can be piped into `sqlite3` and `psql`; only what would
/// steer a terminal is taken out.
pub(crate) fn dry_run(r: &DryRunReport, paint: Paint) -> String {
    let mut out = String::new();
    let mut database = "";
    for s in &r.statements {
        if s.database != database {
            database = &s.database;
            let gap = if out.is_empty() { "" } else { "\n" };
            out.push_str(&format!(
                "{gap}{}\n",
                paint.bold(&format!("-- {}", clean(database)))
            ));
        }
        let sql = s.sql.trim().trim_end_matches(';');
        let lines: Vec<_> = sql
            .split('\n')
            .map(|line| line.split('\t').map(clean).collect::<Vec<_>>().join("\t"))
            .collect();
        out.push_str(&lines.join("\n"));
        out.push_str(";\n");
    }
    out
}

pub(crate) fn now(r: &NowReport, paint: Paint) -> String {
    let mut parts = vec![
        format!("↑ {} sent", number(r.uploaded)),
        format!("↓ {} received", number(r.downloaded)),
    ];
    let conflicts = plural(r.conflicts, "conflict", "conflicts");
    parts.push(if r.conflicts > 0 {
        paint.warn(&conflicts)
    } else {
        conflicts
    });
    if r.failed > 0 {
        parts.push(paint.bad(&format!("{} failed", number(r.failed))));
    }
    if r.pending > 0 {
        parts.push(paint.warn(&format!("{} still waiting", number(r.pending))));
    }
    parts.push(span(r.elapsed_ms));
    format!("{}\n", parts.join(" · "))
}

pub(crate) fn verify(r: &VerifyReport, paint: Paint) -> String {
    let mut grid = Grid::new(
        paint,
        &[
            ("", Fit::Whole),
            ("table", Fit::Text),
            ("local", Fit::Number),
            ("remote", Fit::Number),
            ("only here", Fit::Number),
            ("only there", Fit::Number),
            ("differ", Fit::Number),
            ("in flight", Fit::Number),
        ],
    );
    for t in &r.tables {
        let (mark, tone) = if t.is_identical() {
            ("✓", Tone::Good)
        } else {
            ("✗", Tone::Bad)
        };
        let fault = |n: u64| (number(n), if n == 0 { Tone::Dim } else { Tone::Bad });
        grid.row(vec![
            (mark.to_owned(), tone),
            (clean(&t.name), Tone::Plain),
            (number(t.local), Tone::Plain),
            (number(t.remote), Tone::Plain),
            fault(t.missing_remote),
            fault(t.missing_local),
            fault(t.different),
            (
                number(t.in_flight),
                if t.in_flight == 0 {
                    Tone::Dim
                } else {
                    Tone::Warn
                },
            ),
        ]);
    }
    let mut out = grid.text();
    let differing = r.tables.iter().filter(|t| !t.is_identical()).count() as u64;
    let all = plural(r.tables.len() as u64, "table", "tables");
    let verdict = if r.identical {
        format!(
            "{}: both sides hold the same rows in {all}",
            paint.good("identical")
        )
    } else {
        format!(
            "{}: {} of {all} differ",
            paint.bad("different"),
            number(differing)
        )
    };
    out.push_str(&format!("\n{verdict}\n"));
    if let Some(r) = &r.repaired {
        let mut parts = vec![
            format!("{} queued", plural(r.queued, "row", "rows")),
            format!("{} fetched", number(r.fetched)),
        ];
        if r.conflicts > 0 {
            let n = plural(r.conflicts, "conflict", "conflicts");
            parts.push(format!("{} kept: `tidewater conflicts`", paint.warn(&n)));
        }
        let done = match (r.queued, r.fetched) {
            (0, 0) => "nothing had to be repaired".to_owned(),
            _ => format!("repaired: {}", parts.join(" · ")),
        };
        out.push_str(&format!("{done}\n"));
    }
    let in_flight: u64 = r.tables.iter().map(|t| t.in_flight).sum();
    if in_flight > 0 {
        let n = plural(in_flight, "row is", "rows are");
        out.push_str(&format!(
            "{n} on the way: not judged; `tidewater now` syncs\n"
        ));
    } else if !r.identical && r.repaired.is_none() {
        out.push_str("`tidewater verify --repair` queues or fetches what is missing\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Device, InitTable, Repaired, Skipped, Statement, VerifyTable, Warning};

    #[test]
    fn both_sides_are_counted_table_by_table() {
        let table = |name: &str, missing_local| VerifyTable {
            name: name.into(),
            local: 1_234_567,
            remote: 1_234_568,
            missing_local,
            in_flight: 2,
            ..VerifyTable::default()
        };
        let r = VerifyReport {
            identical: false,
            tables: vec![table("messages", 0), table("a_table_with_a_long_name", 1)],
            repaired: None,
        };
        let text = verify(&r, Paint::plain());
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        assert_eq!(
            text,
            "\
\x20    TABLE            LOCAL     REMOTE  ONLY HERE  ONLY THERE  DIFFER  IN FLIGHT
  ✓  messages     1,234,567  1,234,568          0           0       0          2
  ✗  a_table_wi…  1,234,567  1,234,568          0           1       0          2

different: 1 of 2 tables differ
4 rows are on the way: not judged; `tidewater now` syncs
"
        );
        let same = VerifyReport {
            identical: true,
            tables: vec![VerifyTable::default()],
            repaired: Some(Repaired {
                queued: 1_200,
                fetched: 1,
                conflicts: 2,
            }),
        };
        assert!(verify(&same, Paint::plain()).ends_with(
            "\nidentical: both sides hold the same rows in 1 table\n\
             repaired: 1,200 rows queued · 1 fetched · 2 conflicts kept: `tidewater conflicts`\n"
        ));
    }

    #[test]
    fn one_sync_is_one_line() {
        let r = NowReport {
            uploaded: 3,
            downloaded: 1,
            elapsed_ms: 41,
            ..NowReport::default()
        };
        assert_eq!(
            now(&r, Paint::plain()),
            "↑ 3 sent · ↓ 1 received · 0 conflicts · 41 ms\n"
        );
        let r = NowReport {
            failed: 2,
            pending: 1200,
            conflicts: 1,
            ..r
        };
        assert_eq!(
            now(&r, Paint::plain()),
            "↑ 3 sent · ↓ 1 received · 1 conflict · 2 failed · 1,200 still waiting · 41 ms\n"
        );
    }

    #[test]
    fn init_says_what_is_left_out_and_why() {
        let r = InitReport {
            device: Device {
                id: "01J".into(),
                name: "laptop".into(),
            },
            tables: vec![InitTable {
                name: "messages".into(),
                rows: 3503,
                columns: 9,
            }],
            skipped: vec![Skipped {
                name: "notes_fts".into(),
                reason: "a virtual table".into(),
            }],
            warnings: ["chats", "messages"]
                .map(|table| Warning {
                    table: table.into(),
                    message: "the database hands out its keys, and two devices hand out the same"
                        .into(),
                    remedy: "let the app make the keys".into(),
                })
                .into(),
            elapsed_ms: 1200,
        };
        assert_eq!(
            init(&r, "Initialised", Paint::plain()),
            "\
Initialised laptop · 1 table · 3,503 rows · 1.2 s

  TABLE      ROWS  COLUMNS
  messages  3,503        9

Left out:
  notes_fts  a virtual table

  ! chats, messages: the database hands out its keys, and two devices hand out
    the same
    → let the app make the keys
"
        );
        let name = "n".repeat(200);
        let skipped = vec![Skipped {
            name,
            reason: "no primary key, so that no row of it can be told from another".into(),
        }];
        let text = init(&InitReport { skipped, ..r }, "Cloned", Paint::plain());
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
    }

    #[test]
    fn a_dry_run_is_sql() {
        let s = |database: &str, sql: &str| Statement {
            database: database.into(),
            sql: sql.into(),
        };
        let r = DryRunReport {
            statements: vec![
                s("sqlite", "create table a (\n\tx)"),
                s("postgres", "select 1;"),
                s("postgres", "\u{1b}"),
            ],
        };
        assert_eq!(
            dry_run(&r, Paint::plain()),
            "-- sqlite\ncreate table a (\n\tx);\n\n-- postgres\nselect 1;\n\\u{1b};\n"
        );
    }
}
