//! `prune` and `detach`.

use super::layout::{Fields, Tone, paragraph};
use super::queue::results;
use crate::cli::style::{Paint, clean, plural};
use crate::report::{DetachReport, PruneReport, ResultsReport};

pub(crate) fn prune(r: &PruneReport, paint: Paint) -> String {
    let parts: Vec<String> = [
        (
            r.removed.synced,
            "acknowledged change",
            "acknowledged changes",
        ),
        (r.removed.applied, "applied row", "applied rows"),
        (
            r.removed.conflicts,
            "acknowledged conflict",
            "acknowledged conflicts",
        ),
        (
            r.removed.logged,
            "logged key of a gone table",
            "logged keys of gone tables",
        ),
        (r.removed.events, "event", "events"),
    ]
    .into_iter()
    .filter(|(n, ..)| *n > 0)
    .map(|(n, one, many)| plural(n, one, many))
    .collect();
    let verb = if r.dry_run { "would forget" } else { "forgot" };
    let mut out = if parts.is_empty() {
        format!(
            "{}: nothing is older than the retention\n",
            paint.good("pruned")
        )
    } else {
        paragraph("", 0, &format!("{verb} {}", parts.join(" · ")))
    };
    if !r.failed.is_empty() {
        out.push('\n');
        out.push_str(&results(
            &ResultsReport {
                results: r.failed.clone(),
            },
            paint,
        ));
    }
    if r.dry_run {
        let n = plural(r.failed.len() as u64, "failed item", "failed items");
        out.push_str(&format!(
            "\n{}: {n} would be given up; repeat with --yes\n",
            paint.warn("nothing was changed")
        ));
    }
    out
}

pub(crate) fn detach(r: &DetachReport, paint: Paint) -> String {
    let mut out = format!(
        "{} {} · {} and {} removed; the app's data stay\n",
        paint.good("Detached"),
        paint.bold(&clean(&r.device.name)),
        plural(r.triggers, "trigger", "triggers"),
        plural(r.tables, "table", "tables"),
    );
    if let Some(file) = &r.written {
        let what = format!(
            "{} not sent, {} failed, {} not acknowledged",
            plural(r.unsent, "change", "changes"),
            r.failed,
            plural(r.conflicts, "conflict", "conflicts")
        );
        let mut fields = Fields::new(paint, 2);
        fields.add("kept", Tone::Plain, &what);
        out.push_str(&fields.text());
        // On a line of its own, whole: it is copied.
        out.push_str(&format!("  {}\n", clean(file)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Device, Pruned};

    #[test]
    fn what_went_is_said_in_one_line() {
        let r = PruneReport {
            removed: Pruned {
                synced: 1_200,
                conflicts: 1,
                ..Pruned::default()
            },
            ..PruneReport::default()
        };
        assert_eq!(
            prune(&r, Paint::plain()),
            "forgot 1,200 acknowledged changes · 1 acknowledged conflict\n"
        );
        assert_eq!(
            prune(&PruneReport::default(), Paint::plain()),
            "pruned: nothing is older than the retention\n"
        );
    }

    #[test]
    fn a_detached_file_says_where_the_unsent_is() {
        let r = DetachReport {
            device: Device {
                id: "01J".into(),
                name: "laptop".into(),
            },
            triggers: 3,
            tables: 15,
            unsent: 2,
            written: Some("/home/me/.tidewater/conflicts/detached-01J.json".into()),
            ..DetachReport::default()
        };
        assert_eq!(
            detach(&r, Paint::plain()),
            "\
Detached laptop · 3 triggers and 15 tables removed; the app's data stay
  kept  2 changes not sent, 0 failed, 0 conflicts not acknowledged
  /home/me/.tidewater/conflicts/detached-01J.json
"
        );
    }
}
