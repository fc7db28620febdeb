//! What the configuration may know of the process around it.
//!
//! Owns every look at the environment, the working directory, the host name and the user's name, so
//! that loading is a function of its arguments and tests never change the process.

use super::refusal;
use crate::error::Result;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where local servers put their sockets: Debian's folder, then upstream's.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// The surroundings that a configuration is read in.
#[derive(Clone, Default)]
pub struct Env {
    /// The environment variables; those whose name is not UTF-8 are left out.
    pub vars: BTreeMap<String, OsString>,
    /// The folder that relative paths of flags and variables start from; empty means the process's.
    pub current_dir: PathBuf,
    /// The name of this host.
    pub host_name: Option<String>,
    /// The name of the operating system's user.
    pub user: Option<String>,
    /// The folders that are looked through for a local server's socket.
    pub socket_dirs: Vec<PathBuf>,
}

impl Env {
    /// The surroundings of this process.
    pub fn process() -> Env {
        let vars: BTreeMap<String, OsString> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        let named = |names: &[&str]| {
            names
                .iter()
                .filter_map(|name| vars.get(*name)?.to_str())
                .find(|value| !value.is_empty())
                .map(str::to_owned)
        };
        let host_name = host_name().or_else(|| named(&["HOSTNAME", "COMPUTERNAME"]));
        let user = user_name().or_else(|| named(&["USER", "LOGNAME", "USERNAME"]));
        Env {
            vars,
            current_dir: PathBuf::new(),
            host_name,
            user,
            socket_dirs: SOCKET_FOLDERS.iter().map(PathBuf::from).collect(),
        }
    }

    /// A variable's text. Unset and empty are the same, as for libpq.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>> {
        match self.vars.get(name) {
            None => Ok(None),
            Some(value) => match value.to_str() {
                Some("") => Ok(None),
                Some(text) => Ok(Some(text)),
                None => Err(refusal(
                    format!("the environment variable {name} is not valid UTF-8"),
                    format!("Set {name} to plain text, or unset it."),
                )),
            },
        }
    }

    /// A variable that holds a path.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.vars
            .get(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    }

    /// The user's home folder.
    pub(super) fn home(&self) -> Option<PathBuf> {
        self.path("HOME")
    }

    /// A path of a flag or a variable.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        self.current_dir.join(path)
    }
}

fn host_name() -> Option<String> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let asked = || {
        let output = std::process::Command::new("uname")
            .arg("-n")
            .output()
            .ok()?;
        String::from_utf8(output.stdout).ok()
    };
    read("/proc/sys/kernel/hostname")
        .or_else(|| read("/etc/hostname"))
        .or_else(asked)
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
}

/// The effective user's name as libpq takes it: from the user database, because `USER` is whatever
/// `su` and `sudo` left there.
#[cfg(unix)]
fn user_name() -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let uid = std::fs::metadata("/proc/self").ok()?.uid().to_string();
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

#[cfg(not(unix))]
fn user_name() -> Option<String> {
    None
}
