//! The private folder of a throw-away server, and the account that owns it.
//!
//! PostgreSQL refuses to run as root, so root gives the folder and the programs to `postgres`, or to
//! `nobody` where there is no such account. Invariant: the folder is new, has a random name and is
//! closed to everyone but its owner; it holds the data, the socket and the log, and nothing of it
//! lies elsewhere.

use super::broken;
use crate::error::Result;
use std::env;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use ulid::Ulid;

/// A Unix socket's path may not be longer, on the systems that allow least; `.s.PGSQL.NNNNN` included.
const SOCKET_PATH_MAX: usize = 100;

/// The account that the server runs under, when it is not our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Account {
    uid: u32,
    gid: u32,
}

#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    account: Option<Account>,
}

impl Folder {
    pub fn create() -> Result<Folder> {
        let parent = parent();
        let path = parent.join(format!("tidewater-{}", Ulid::generate()).to_lowercase());
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|e| broken(format!("creating {}: {e}", path.display())))?;
        let mut folder = Folder {
            path,
            account: None,
        };
        match folder.give_away() {
            Ok(()) => Ok(folder),
            Err(e) => {
                folder.remove();
                Err(e)
            }
        }
    }

    fn give_away(&mut self) -> Result<()> {
        // The owner of what we just made is the effective user, which std does not tell otherwise.
        let owner = fs::metadata(&self.path).map(|m| m.uid());
        if owner.is_ok_and(|uid| uid == 0) {
            let account = unprivileged()?;
            chown(&self.path, Some(account.uid), Some(account.gid))
                .map_err(|e| broken(format!("giving {} away: {e}", self.path.display())))?;
            self.account = Some(account);
        }
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where the server puts its Unix socket; empty where the path would be too long for one.
    pub fn socket_directory(&self) -> &str {
        self.path
            .to_str()
            .filter(|p| p.len() + ".s.PGSQL.12345.lock".len() < SOCKET_PATH_MAX)
            .unwrap_or("")
    }

    /// Writes a file that the server's account can read and nobody else.
    pub fn write(&self, file: &Path, text: &str) -> Result<()> {
        let fault = |e| broken(format!("writing {}: {e}", file.display()));
        fs::write(file, text).map_err(fault)?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).map_err(fault)?;
        match self.account {
            Some(a) => chown(file, Some(a.uid), Some(a.gid)).map_err(fault),
            None => Ok(()),
        }
    }

    /// A command under the server's account, in the folder, without PostgreSQL's own environment.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.path);
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(|n| n.starts_with("PG")) {
                command.env_remove(name);
            }
        }
        // Messages in English, because the log is searched; UTC spares initdb the search for a zone.
        command.env("LC_ALL", "C").env("TZ", "UTC");
        if let Some(account) = self.account {
            // As root, std also empties the supplementary groups before it changes the user.
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    pub fn remove(&self) {
        // Best effort: it is a temporary folder, and the caller has nothing better to do.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The system's temporary folder, or /tmp where another account could not enter the former.
fn parent() -> PathBuf {
    let own = env::temp_dir();
    let open = own.ancestors().all(|a| {
        a.as_os_str().is_empty()
            || fs::metadata(a).is_ok_and(|m| m.permissions().mode() & 0o001 != 0)
    });
    if open || !Path::new("/tmp").is_dir() {
        own
    } else {
        PathBuf::from("/tmp")
    }
}

fn unprivileged() -> Result<Account> {
    let users = fs::read_to_string("/etc/passwd")
        .map_err(|e| broken(format!("reading /etc/passwd: {e}")))?;
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| account(&users, name))
        .ok_or_else(|| {
            broken(
                "PostgreSQL refuses to run as root, and there is no account `postgres` or `nobody`",
            )
        })
}

fn account(users: &str, name: &str) -> Option<Account> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (uid != 0).then_some(Account { uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name_and_never_root() {
        let users = "root:x:0:0::/:/bin/sh\nnobodyelse:x:7:7::/:\nnobody:x:65534:65533:n:/:/x\n";
        assert_eq!(
            account(users, "nobody"),
            Some(Account {
                uid: 65534,
                gid: 65533
            })
        );
        assert_eq!(account(users, "postgres"), None);
        assert_eq!(account(users, "root"), None);
    }
}
