//! `doctor`.

use super::layout::{Fields, Tone, paragraph};
use crate::cli::style::{Paint, clean, plural};
use crate::report::{Check, DoctorReport};

pub(crate) fn doctor(r: &DoctorReport, paint: Paint) -> String {
    let mut out = String::new();
    let width = r.checks.iter().map(|c| c.name.len()).max().unwrap_or(0);
    for c in &r.checks {
        let (mark, tone) = mark(c);
        let name = format!("{mark} {:width$}", c.name);
        let mut fields = Fields::new(paint, 2);
        fields.add(&name, tone, &clean(&c.message));
        out.push_str(&fields.text());
        if let Some(remedy) = &c.remedy {
            out.push_str(&paragraph("→", 4, &clean(remedy)));
        }
    }
    let faults = r.checks.iter().filter(|c| !c.ok).count() as u64;
    let advice = r
        .checks
        .iter()
        .filter(|c| c.ok && c.remedy.is_some())
        .count() as u64;
    let unchecked = r.checks.iter().filter(|c| !c.was_checked()).count() as u64;
    let mut parts = vec![if faults == 0 {
        paint.good("no fault found")
    } else {
        paint.bad(&plural(faults, "fault", "faults"))
    }];
    if advice > 0 {
        parts.push(paint.warn(&format!(
            "{} to consider",
            plural(advice, "thing", "things")
        )));
    }
    if unchecked > 0 {
        parts.push(format!("{unchecked} not checked"));
    }
    out.push_str(&format!("\n{}\n", parts.join(" · ")));
    out
}

fn mark(c: &Check) -> (&'static str, Tone) {
    match (c.ok, &c.remedy) {
        (false, _) => ("✗", Tone::Bad),
        (true, Some(_)) => ("!", Tone::Warn),
        (true, None) if !c.was_checked() => ("–", Tone::Dim),
        (true, None) => ("✓", Tone::Good),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_comes_with_its_remedy() {
        let r = DoctorReport::from(vec![
            Check::fine("journal_mode", "wal"),
            Check::advice(
                "integer_keys",
                "votes: the database hands out its keys, and two devices hand out the same",
                "let the app make the keys",
            ),
            Check::fault(
                "values",
                "messages.body: 3 rows with a NUL character in text\u{1b}[2J",
                "take the character out",
            ),
            Check::unchecked("tls", "no remote is configured"),
        ]);
        assert!(!r.ok);
        let text = doctor(&r, Paint::plain());
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        assert_eq!(
            text,
            "\
\x20 ✓ journal_mode  wal
  ! integer_keys  votes: the database hands out its keys, and two devices hand
                  out the same
    → let the app make the keys
  ✗ values        messages.body: 3 rows with a NUL character in text\\u{1b}[2J
    → take the character out
  – tls           not checked: no remote is configured

1 fault · 1 thing to consider · 1 not checked
"
        );
    }
}
