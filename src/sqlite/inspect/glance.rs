//! The look that the endpoint takes: through a connection of its own, read-only and short.
//!
//! The file may be missing, replaced, locked or broken at any moment; each is an error here and none of
//! them waits long, for a scrape must answer.

use super::{count, overview, state, time_of};
use crate::error::{Code, Error, Result};
use crate::report::{ConflictLine, Failure, Glance, Time};
use crate::sqlite::fault::OrFault;
use crate::sqlite::local::has_table;
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long it waits for the app's lock.
const BUSY: Duration = Duration::from_millis(500);

/// In a journal mode other than WAL a reader keeps the app from committing: after this it gives up.
const READ: Duration = Duration::from_secs(2);

/// Steps of SQLite's machine between two looks at the clock.
const STEPS: i32 = 10_000;

/// Conflicts and reasons shown at most.
const LATEST: i64 = 10;

const WHAT: &str = "looking into the file";

/// Opens an initialised file for one look.
fn open(path: &Path) -> Result<Connection> {
    let mut conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .or_fault(&format!("opening {}", path.display()))?;
    conn.busy_timeout(BUSY).or_fault(WHAT)?;
    let began = Instant::now();
    conn.progress_handler(STEPS, Some(move || began.elapsed() > READ))
        .or_fault(WHAT)?;
    if !has_table(&conn, "tidewater_state")? {
        return Err(Error::new(
            Code::LocalUnusable,
            format!("{} is not a tidewater device yet", path.display()),
            "run `tidewater init`",
        ));
    }
    Ok(conn)
}

/// Fails where the file cannot be read, or is no device.
pub fn usable(path: &Path) -> Result<()> {
    open(path).map(|_| ())
}

/// Reads what the endpoint shows.
pub fn glance(path: &Path, now: Time) -> Result<Glance> {
    let conn = open(path)?;
    let seen = overview(&conn, now)?;
    Ok(Glance {
        device: seen.device,
        paused: seen.paused,
        upload: seen.upload,
        synced_kept: super::by_status(&conn, "synced")?,
        download: seen.download,
        conflicts: seen.conflicts,
        tables: seen.tables,
        problems: seen.problems,
        clock_offset_ms: state(&conn, "clock_offset_ms")?
            .and_then(|t| t.parse().ok())
            .unwrap_or(0),
        renewed_at: time_of(&conn, "reidentified_at")?,
        healed_at: time_of(&conn, "healed_at")?,
        failures: failures(&conn)?,
        latest_conflicts: latest_conflicts(&conn)?,
    })
}

fn failures(conn: &Connection) -> Result<Vec<Failure>> {
    let mut s = conn
        .prepare(
            "select tbl, coalesce(error_code, ''), sqlstate, count(*) from tidewater_outbox \
             where status = 'failed' group by 1, 2, 3 order by 4 desc, 1, 2 limit ?1",
        )
        .or_fault(WHAT)?;
    let rows = s
        .query_map([LATEST], |r| {
            Ok(Failure {
                table: r.get(0)?,
                code: r.get(1)?,
                sqlstate: r.get(2)?,
                changes: count(r, 3)?,
            })
        })
        .or_fault(WHAT)?;
    rows.collect::<rusqlite::Result<_>>().or_fault(WHAT)
}

fn latest_conflicts(conn: &Connection) -> Result<Vec<ConflictLine>> {
    // The id begins with the time, and is the key.
    let mut s = conn
        .prepare(
            "select id, tbl, kind, policy, winner, detected_at, seen from tidewater_conflict \
             order by id desc limit ?1",
        )
        .or_fault(WHAT)?;
    let rows = s
        .query_map([LATEST], |r| {
            Ok(ConflictLine {
                id: r.get(0)?,
                table: r.get(1)?,
                kind: r.get(2)?,
                policy: r.get(3)?,
                winner: r.get(4)?,
                detected_at: Time::from_ms(r.get(5)?),
                seen: r.get(6)?,
            })
        })
        .or_fault(WHAT)?;
    rows.collect::<rusqlite::Result<_>>().or_fault(WHAT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::local::Local;

    fn device(folder: &Path) -> std::path::PathBuf {
        let path = folder.join("app.db");
        let mut local = Local::create(&path).expect("a file");
        let tx = local.begin().expect("begins");
        Local::migrate(&tx).expect("migrates");
        tx.execute_batch(
            "insert into tidewater_base (id, token) values (1, '');
             insert into tidewater_outbox (change_key, tbl, pk, op, bytes, base, known, status, error_code,
               sqlstate, created_at, edited_at, synced_at) values
               ('a', 't', '[1]', 'upsert', 1, 1, 1, 'failed', 'SYNC-005', '22003', 5, 5, null),
               ('b', 't', '[2]', 'upsert', 1, 1, 1, 'failed', 'SYNC-005', '22003', 6, 6, null),
               ('c', 't', '[3]', 'upsert', 1, 1, 1, 'pending', null, null, 7, 7, null),
               ('d', 't', '[4]', 'upsert', 1, 1, 1, 'synced', null, null, 8, 8, 9);
             insert into tidewater_state values ('healed_at', '1000'), ('clock_offset_ms', '-250');",
        )
        .expect("filled");
        tx.commit().expect("commits");
        path
    }

    #[test]
    fn counts_and_reasons_are_read_without_keys() {
        let folder = tempfile::tempdir().expect("a folder");
        let seen = glance(&device(folder.path()), Time::from_ms(10_007)).expect("reads");
        assert_eq!(
            (seen.upload.pending, seen.upload.failed, seen.synced_kept),
            (1, 2, 1)
        );
        assert_eq!(seen.upload.lag_seconds, 10.0);
        assert_eq!(
            seen.failures,
            [Failure {
                table: "t".into(),
                code: "SYNC-005".into(),
                sqlstate: Some("22003".into()),
                changes: 2
            }]
        );
        assert_eq!(seen.healed_at, Some(Time::from_ms(1000)));
        assert_eq!((seen.renewed_at, seen.clock_offset_ms), (None, -250));
    }

    #[test]
    fn a_file_that_is_missing_locked_or_not_a_device_is_an_error_soon() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("none.db");
        assert_eq!(
            glance(&missing, Time::EPOCH).expect_err("missing").code,
            Code::LocalUnusable
        );
        assert!(!missing.exists(), "nothing is created");
        let plain = folder.path().join("plain.db");
        Local::create(&plain).expect("a file");
        let e = glance(&plain, Time::EPOCH).expect_err("no device");
        assert!(e.message.contains("not a tidewater device"), "{e}");
        let path = device(folder.path());
        let app = Connection::open(&path).expect("opens");
        app.execute_batch("begin exclusive").expect("locks");
        let e = glance(&path, Time::EPOCH).expect_err("locked");
        assert_eq!(e.code, Code::LocalUnusable);
        app.execute_batch("rollback").expect("unlocks");
        glance(&path, Time::EPOCH).expect("reads");
    }
}
