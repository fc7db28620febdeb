//! `privacy`.

use super::layout::{Fit, Grid, Tone, paragraph};
use crate::cli::style::{Paint, clean, number, plural};
use crate::report::{PrivacyReport, TablePrivacy};

pub(crate) fn privacy(r: &PrivacyReport, paint: Paint) -> String {
    let mut out = String::new();
    if r.tables.is_empty() {
        out.push_str("nothing can leave this device\n");
    } else {
        let mut grid = Grid::new(
            paint,
            &[
                ("table", Fit::Text),
                ("level", Fit::Text),
                ("full", Fit::Number),
                ("redacted", Fit::Number),
                ("stay here", Fit::Number),
            ],
        );
        for t in &r.tables {
            row(&mut grid, t);
        }
        out.push_str(&grid.text());
    }
    if !r.stay.is_empty() {
        out.push_str("\n  Nothing leaves of these:\n");
        for s in &r.stay {
            let text = format!("{}: {}", clean(&s.name), clean(&s.reason));
            out.push_str(&paragraph("", 4, &text));
        }
    }
    out
}

fn row(grid: &mut Grid, t: &TablePrivacy) {
    let level = match &t.privacy_column {
        Some(column) => format!("column {}, else {}", clean(column), clean(&t.privacy)),
        None => clean(&t.privacy),
    };
    let counted = |n: u64| {
        let tone = if n == 0 { Tone::Dim } else { Tone::Plain };
        (number(n), tone)
    };
    grid.row(vec![
        (clean(&t.name), Tone::Plain),
        (level, Tone::Plain),
        counted(t.rows.full),
        counted(t.rows.redacted),
        counted(t.rows.local_only),
    ]);
    for (leaves, lead) in [
        ("always", "leaves with every row that leaves: "),
        ("full_rows", "leaves with FULL rows only: "),
        ("never", "never leaves: "),
    ] {
        let names: Vec<String> = t
            .columns
            .iter()
            .filter(|c| c.leaves == leaves)
            .map(|c| clean(&c.name))
            .collect();
        if !names.is_empty() {
            grid.note(&paragraph("", 4, &format!("{lead}{}", names.join(", "))));
        }
    }
    if t.rows.unknown > 0 {
        let n = plural(t.rows.unknown, "row stays", "rows stay");
        let text = format!("{n} here for a level that nobody knows");
        let told = grid.paint().warn(paragraph("", 4, &text).trim_end());
        grid.note(&format!("{told}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{ColumnPrivacy, LevelCounts, Skipped};

    #[test]
    fn what_leaves_stands_under_each_table() {
        let column = |name: &str, leaves: &str| ColumnPrivacy {
            name: name.into(),
            leaves: leaves.into(),
        };
        let report = PrivacyReport {
            tables: vec![TablePrivacy {
                name: "notes".into(),
                privacy: "full".into(),
                privacy_column: Some("level".into()),
                columns: vec![
                    column("id", "always"),
                    column("body", "full_rows"),
                    column("level", "always"),
                ],
                rows: LevelCounts {
                    full: 1_203,
                    redacted: 12,
                    local_only: 3,
                    unknown: 1,
                },
                private_keys: 3,
            }],
            stay: vec![Skipped {
                name: "diary".into(),
                reason: "local_only".into(),
            }],
        };
        assert_eq!(
            privacy(&report, Paint::plain()),
            "  TABLE  LEVEL                     FULL  REDACTED  STAY HERE
  notes  column level, else full  1,203        12          3
    leaves with every row that leaves: id, level
    leaves with FULL rows only: body
    1 row stays here for a level that nobody knows

  Nothing leaves of these:
    diary: local_only
"
        );
    }
}
