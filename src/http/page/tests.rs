use super::*;
use crate::error::{Code, Error};
use crate::metrics::Seen;
use crate::report::{ConflictCounts, Device, Problem};
use std::time::Duration;

const HOSTILE: &str = "<script>alert('x')</script>\" onload=\"&\u{7}";

fn picture() -> Picture {
    let mut file = Glance {
        device: Device {
            id: "01J".into(),
            name: HOSTILE.into(),
        },
        conflicts: ConflictCounts {
            total: 2,
            unseen: 1,
        },
        tables: vec![TableStatus {
            name: HOSTILE.into(),
            privacy: "full".into(),
            pending: 3,
            failed: 1,
        }],
        problems: vec![Problem {
            code: "SYNC-009".into(),
            message: HOSTILE.into(),
            remedy: HOSTILE.into(),
        }],
        failures: vec![Failure {
            table: HOSTILE.into(),
            code: "SYNC-005".into(),
            sqlstate: Some("22003".into()),
            changes: 1,
        }],
        latest_conflicts: vec![ConflictLine {
            id: "01C".into(),
            table: HOSTILE.into(),
            kind: "update_update".into(),
            policy: "last_write_wins".into(),
            winner: "local".into(),
            detected_at: Time::EPOCH,
            seen: false,
        }],
        ..Glance::default()
    };
    file.upload.pending = 3;
    file.upload.failed = 1;
    let mut seen = Seen {
        contact: Contact::Failed {
            code: "SYNC-001",
            message: HOSTILE.into(),
        },
        circuit: Circuit::Open,
        server_version: Some(HOSTILE.into()),
        ..Seen::default()
    };
    seen.batches.push_front(BatchSeen {
        at: Time::EPOCH,
        rows: 4,
        bytes: 99,
        took: Duration::from_millis(12),
        uploaded: 3,
        same: 0,
        lost: 0,
        later: 0,
        failed: 1,
    });
    Picture {
        now: Time::EPOCH,
        schema: HOSTILE.into(),
        seen,
        file: Ok(file),
    }
}

#[test]
fn nothing_that_comes_from_outside_is_markup() {
    let html = render(&picture());
    assert!(
        !html.contains("<script") && !html.contains("onload=\""),
        "{html}"
    );
    assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)"), "{html}");
    assert!(!html.contains('\u{7}'));
    // Nothing is fetched from anywhere.
    for word in ["http://", "https://", "src=", "url(", "@import", "<link"] {
        assert!(!html.contains(word), "{word}");
    }
}

#[test]
fn everything_that_status_shows_is_there() {
    let html = render(&picture());
    for part in [
        "offline",
        "1 failed, 3 waiting",
        "1 unseen of 2",
        "waiting before the next try",
        "SYNC-001",
        "SYNC-009",
        "22003",
        "update update",
        "3 applied, 1 failed",
        "1970-01-01 00:00:00 UTC",
        "prefers-color-scheme:dark",
        "http-equiv=\"refresh\"",
    ] {
        assert!(html.contains(part), "{part}\n{html}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_said_with_its_remedy() {
    let e = Error::new(Code::LocalUnusable, "it is <gone>", "look for it");
    let mut picture = picture();
    picture.file = Err(e);
    let html = render(&picture);
    for part in [
        "file unusable",
        "SYNC-012",
        "it is &lt;gone&gt;",
        "look for it",
    ] {
        assert!(html.contains(part), "{part}\n{html}");
    }
}

#[test]
fn a_good_day_is_short() {
    let html = render(&Picture {
        now: Time::EPOCH,
        schema: "team".into(),
        seen: Seen {
            contact: Contact::Fine,
            ..Seen::default()
        },
        file: Ok(Glance::default()),
    });
    for part in [
        "online",
        "all sent",
        "up to date",
        "reachable",
        "workspace team",
    ] {
        assert!(html.contains(part), "{part}");
    }
    for part in [
        "Problems",
        "Failed changes",
        "Last pushes",
        "Latest conflicts",
    ] {
        assert!(!html.contains(part), "{part}");
    }
}
