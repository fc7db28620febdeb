//! The file and the disk it is on.

use crate::error::Result;
use crate::report::Check;
use crate::sqlite::health;
use crate::sqlite::local::Local;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// What is checked here after `file` itself.
pub const NAMES: &[&str] = &["mode", "filesystem", "disk", "journal_mode", "integrity"];

/// Kinds of mounts on which several machines may write, where SQLite's locks and shared memory fail.
const SHARED: [&str; 14] = [
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "fuse.sshfs",
    "gfs2",
    "glusterfs",
    "lustre",
    "nfs",
    "nfs4",
    "ocfs2",
    "smb3",
    "smbfs",
];

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
    let Ok(list) = std::fs::read_to_string("/proc/self/mountinfo") else {
        return Check::unchecked("filesystem", "this system does not list its mounts");
    };
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match kind_of_mount(&list, &real) {
        Some(kind) if SHARED.contains(&kind) => Check::fault(
            "filesystem",
            format!("{kind}: a network file system, on which SQLite's locks cannot be relied on"),
            "move the file to a local disk",
        ),
        Some(kind) => Check::fine("filesystem", kind),
        None => Check::unchecked("filesystem", "the mount of the file is not listed"),
    }
}

/// The kind of the innermost mount above `path`; of two on one place the later one counts.
fn kind_of_mount<'a>(mountinfo: &'a str, path: &Path) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for line in mountinfo.lines() {
        let (Some((head, tail)), Some(place)) = (line.split_once(" - "), line.split(' ').nth(4))
        else {
            continue;
        };
        debug_assert!(head.contains(place));
        // Spaces, tabs and backslashes are written as octal numbers.
        let place = place
            .replace("\\040", " ")
            .replace("\\011", "\t")
            .replace("\\134", "\\");
        if path.starts_with(&place)
            && best.is_none_or(|(n, _)| place.len() >= n)
            && let Some(kind) = tail.split(' ').next()
        {
            best = Some((place.len(), kind));
        }
    }
    best.map(|(_, kind)| kind)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let list = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /home rw - xfs /dev/sdb1 rw
31 30 0:31 / /home/my\\040files rw shared:9 - nfs4 server:/x rw,vers=4.2
32 22 0:32 / /homely rw - tmpfs tmpfs rw
";
        for (path, kind) in [
            ("/var/app.db", "ext4"),
            ("/home/app.db", "xfs"),
            ("/home/my files/app.db", "nfs4"),
            ("/homely/app.db", "tmpfs"),
        ] {
            assert_eq!(kind_of_mount(list, Path::new(path)), Some(kind), "{path}");
        }
        assert!(SHARED.contains(&"nfs4") && SHARED.is_sorted());
        assert_eq!(kind_of_mount("", Path::new("/a")), None);
    }
}
