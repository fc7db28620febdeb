//! The file and the disk it is on.

use crate::error::Result;
use crate::report::Check;
use crate::sqlite::health;
use crate::sqlite::local::Local;
use crate::sync::mount;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// What is checked here after `file` itself.
pub const NAMES: &[&str] = &["mode", "filesystem", "disk", "journal_mode", "integrity"];

/// Below this much free space a fault, below the other advice; KiB.
const FREE_MIN: u64 = 16 << 10;
const FREE_FEW: u64 = 256 << 10;

/// The file that could be opened.
pub fn checks(local: &Local, checks: &mut Vec<Check>) -> Result<()> {
    let path = std::path::absolute(local.path()).unwrap_or_else(|_| local.path().to_owned());
    let shown = path.display();
    checks.push(match health::is_writable(local) {
        Ok(true) => Check::fine("file", shown.to_string()),
        Ok(false) => Check::fault(
            "file",
            format!("{shown} can be read, not written"),
            "make the file and its folder writable for the user that runs tidewater",
        ),
        Err(e) => Check::fault("file", e.message, e.remedy),
    });
    checks.push(mode(&path));
    checks.push(filesystem(&path));
    checks.push(disk(&path));
    checks.push(match health::journal_mode(local) {
        Ok(mode) if mode == "wal" => Check::fine("journal_mode", mode),
        Ok(mode) => Check::advice(
            "journal_mode",
            mode,
            "let the app say `pragma journal_mode = wal` once: readers and writers then do not wait for \
             each other",
        ),
        Err(e) => Check::fault("journal_mode", e.message, e.remedy),
    });
    checks.push(match health::quick_check(local) {
        Ok(faults) if faults.is_empty() => Check::fine("integrity", "ok"),
        Ok(faults) => Check::fault(
            "integrity",
            faults.join("; "),
            "stop the app, copy the file, and restore it from a backup or with `.recover` of sqlite3",
        ),
        Err(e) => Check::fault("integrity", e.message, e.remedy),
    });
    Ok(())
}

fn mode(path: &Path) -> Check {
    let mode = match std::fs::metadata(path) {
        Ok(m) => m.permissions().mode() & 0o7777,
        Err(e) => return Check::unchecked("mode", &e.to_string()),
    };
    if mode & 0o002 != 0 {
        return Check::fault(
            "mode",
            format!("{mode:04o}: everybody on this machine may write the file"),
            "chmod o-w on the file",
        );
    }
    if mode & 0o004 != 0 {
        return Check::advice(
            "mode",
            format!(
                "{mode:04o}: everybody on this machine may read the file, what is queued included"
            ),
            "chmod o-r on the file, unless that is wanted",
        );
    }
    Check::fine("mode", format!("{mode:04o}"))
}

/// The kind of mount that holds the file, as the kernel lists it.
fn filesystem(path: &Path) -> Check {
    match mount::kind(path) {
        None => Check::unchecked("filesystem", "this system does not list its mounts"),
        Some(Some(kind)) if mount::is_shared(&kind) => Check::fault(
            "filesystem",
            format!("{kind}: a network file system, on which SQLite's locks cannot be relied on"),
            "move the file to a local disk",
        ),
        Some(Some(kind)) => Check::fine("filesystem", kind),
        Some(None) => Check::unchecked("filesystem", "the mount of the file is not listed"),
    }
}

/// The space that is left for this user, as POSIX `df` tells it.
fn disk(path: &Path) -> Check {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let Ok(said) = Command::new("df").arg("-Pk").arg("--").arg(folder).output() else {
        return Check::unchecked("disk", "there is no `df` here");
    };
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let free = text
        .lines()
        .nth(1)
        .and_then(|l| l.split_whitespace().nth(3))
        .and_then(|n| n.parse::<u64>().ok());
    let Some(free) = free else {
        return Check::unchecked("disk", "`df` did not say");
    };
    let message = format!("{} MiB free", free >> 10);
    let remedy = "make room: where it ends, neither the app nor tidewater can write";
    if free < FREE_MIN {
        Check::fault("disk", message, remedy)
    } else if free < FREE_FEW {
        Check::advice("disk", message, remedy)
    } else {
        Check::fine("disk", message)
    }
}
