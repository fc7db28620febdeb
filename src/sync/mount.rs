//! The kind of disk that the app's file is on, as the kernel lists its mounts.
//!
//! On a network file system SQLite's locks and shared memory cannot be relied on, and a device would lose
//! writes without anybody noticing: it is refused unless the configuration says otherwise. Where the
//! kernel lists no mounts nothing is refused.

use crate::config::Config;
use crate::error::{Code, Error, Result};
use std::path::Path;

/// Kinds of mounts on which several machines may write.
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

/// Of those, the one by which virtual machines and sandboxes reach the disk of their own machine, too.
const MAYBE_LOCAL: &str = "9p";

/// Whether several machines may write on such a mount.
pub fn is_shared(kind: &str) -> bool {
    SHARED.contains(&kind)
}

/// The mounts of this process; `None` where the kernel does not list them.
fn list() -> Option<String> {
    // A test cannot count on a network: it names a list of its own.
    #[cfg(feature = "failpoints")]
    if let Some(file) = std::env::var_os("TIDEWATER_MOUNTINFO") {
        return std::fs::read_to_string(file).ok();
    }
    std::fs::read_to_string("/proc/self/mountinfo").ok()
}

/// The kind of the mount that holds a file or folder; the outer `None` where mounts are not listed.
pub fn kind(path: &Path) -> Option<Option<String>> {
    let list = list()?;
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    Some(kind_of_mount(&list, &real).map(str::to_owned))
}

/// Fails where `path`, the app's file or the folder that it is to be in, is on a network file system and
/// that is not wanted.
pub fn require_local(config: &Config, path: &Path) -> Result<()> {
    if config.local.network_filesystem {
        return Ok(());
    }
    match kind(path).flatten() {
        Some(kind) if is_shared(&kind) && kind != MAYBE_LOCAL => Err(Error::new(
            Code::LocalUnusable,
            format!(
                "{} is on a network file system ({kind}), on which SQLite's locks cannot be relied on",
                path.display()
            ),
            "move the file to a local disk, or set [local] network_filesystem = true where only this \
             machine ever opens it",
        )),
        _ => Ok(()),
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
        assert!(is_shared("nfs4") && SHARED.is_sorted());
        assert_eq!(kind_of_mount("", Path::new("/a")), None);
    }
}
