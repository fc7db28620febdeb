//! `devices`, `devices retire` and `devices revoke`.

use super::layout::{Fit, Grid, Tone};
use crate::cli::style::{Paint, clean, coarse, number};
use crate::report::{DevicesReport, Member, ProvisionReport, Time};

/// Unread changes are counted up to this.
const COUNTED: u64 = 10_000;

pub(crate) fn devices(r: &DevicesReport, now: Time, paint: Paint) -> String {
    if r.devices.is_empty() {
        return "no device has joined this workspace yet\n".to_owned();
    }
    let mut grid = Grid::new(
        paint,
        &[
            ("device", Fit::Whole),
            ("name", Fit::Text),
            ("state", Fit::Whole),
            ("seen", Fit::Whole),
            ("unread", Fit::Number),
            ("version", Fit::Text),
        ],
    );
    for d in &r.devices {
        let tone = match d.state.as_str() {
            "active" => Tone::Good,
            "expired" => Tone::Warn,
            _ => Tone::Dim,
        };
        let name = clean(&d.name);
        grid.row(vec![
            (clean(&d.id), Tone::Plain),
            (
                if d.this {
                    format!("{name} (this one)")
                } else {
                    name
                },
                Tone::Plain,
            ),
            (clean(&d.state), tone),
            (
                coarse(u64::try_from(now.ms() - d.last_seen.ms()).unwrap_or(0)),
                Tone::Dim,
            ),
            (unread(d), Tone::Plain),
            (clean(&d.version), Tone::Dim),
        ]);
    }
    grid.text()
}

fn unread(d: &Member) -> String {
    match d.behind_rows {
        None => "–".to_owned(),
        Some(n) if n >= COUNTED => format!("{}+", number(COUNTED)),
        Some(n) => number(n),
    }
}

pub(crate) fn retired(r: &DevicesReport, paint: Paint) -> String {
    each(r, paint, "retired", "old deletes no longer wait for it")
}

pub(crate) fn revoked(r: &DevicesReport, paint: Paint) -> String {
    each(r, paint, "revoked", "its login is ended")
}

/// One address a line, to be read by people and by scripts.
pub(crate) fn provisioned(r: &ProvisionReport, paint: Paint) -> String {
    let mut out = format!(
        "{}: schema {} belongs to {}\n",
        paint.good("ready"),
        clean(&r.schema),
        clean(&r.owner)
    );
    for d in &r.devices {
        out.push_str(&format!("{}\n", clean(&d.url)));
    }
    out
}

fn each(r: &DevicesReport, paint: Paint, word: &str, what: &str) -> String {
    r.devices
        .iter()
        .map(|d| format!("{}: {}; {what}\n", paint.good(word), clean(&d.name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_one_line_of_at_most_eighty_columns() {
        let at = Time::from_ms(1_741_000_000_000);
        let member = |name: &str, this, state: &str, rows| Member {
            id: "01JNDZ8T3C0000000000000000".into(),
            name: name.into(),
            this,
            version: "0.1.0".into(),
            state: state.into(),
            login: None,
            joined_at: at,
            last_seen: at,
            behind_rows: rows,
            behind_seconds: Some(1.0),
        };
        let report = DevicesReport {
            devices: vec![
                member("laptop", true, "active", Some(0)),
                member(&"p".repeat(60), false, "expired", Some(10_000)),
                member("old", false, "retired", None),
            ],
        };
        let text = devices(&report, Time::from_ms(at.ms() + 60_000), Paint::plain());
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        assert!(
            text.contains("laptop (this one)") && text.contains("10,000+"),
            "{text}"
        );
    }
}
