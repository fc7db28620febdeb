//! Where this machine keeps PostgreSQL's programs.
//!
//! The order is that of `scripts/ensure-postgres`, which also installs; this module only looks.
//! Fails with SYNC-013 and the ways to install when there is no server of version 14 or newer.

use crate::error::{Code, Error, Result};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Overrides the search; a wrong value is an error, never skipped.
pub(super) const OVERRIDE: &str = "TIDEWATER_PG_BIN";
const OLDEST: u32 = 14;
const PROGRAMS: [&str; 3] = ["postgres", "initdb", "pg_ctl"];
const INSTALL: &str = "install a server (apt-get install postgresql, dnf install postgresql-server, \
     brew install postgresql@17), or set TIDEWATER_PG_BIN to the folder that holds initdb and postgres";

/// The folder of the first usable server.
pub fn find() -> Result<PathBuf> {
    if let Some(folder) = env::var_os(OVERRIDE).filter(|v| !v.is_empty()) {
        let folder = PathBuf::from(folder);
        return if usable(&folder) {
            Ok(folder)
        } else {
            Err(Error::new(
                Code::Configuration,
                format!(
                    "{OVERRIDE} is {}, which holds no PostgreSQL server of version {OLDEST} or newer",
                    folder.display()
                ),
                "correct or unset the variable",
            ))
        };
    }
    candidates().into_iter().find(|f| usable(f)).ok_or_else(|| {
        Error::new(
            Code::Configuration,
            format!("no PostgreSQL server of version {OLDEST} or newer was found on this machine"),
            INSTALL,
        )
    })
}

/// `psql`, beside the server or on the path.
pub(super) fn psql(bin: &Path) -> Option<PathBuf> {
    let beside = bin.join("psql");
    if beside.is_file() {
        return Some(beside);
    }
    on_path("psql")
}

fn candidates() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for program in PROGRAMS {
        let real = on_path(program).and_then(|p| fs::canonicalize(p).ok());
        found.extend(real.and_then(|p| p.parent().map(Path::to_path_buf)));
    }
    found.extend(output("pg_config", "--bindir").map(PathBuf::from));
    found.extend(newest_first("/usr/lib/postgresql", "", "bin"));
    found.extend(newest_first("/usr", "pgsql-", "bin"));
    found.push("/usr/bin".into());
    for prefix in ["/opt/homebrew/opt", "/usr/local/opt"] {
        found.extend(newest_first(prefix, "postgresql@", "bin"));
        found.push(Path::new(prefix).join("postgresql/bin"));
    }
    found
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// `parent/prefixNN/leaf` for every NN there is, the largest first.
fn newest_first(parent: &str, prefix: &str, leaf: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join(leaf)))
        })
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, folder)| folder).collect()
}

fn usable(folder: &Path) -> bool {
    PROGRAMS.iter().all(|p| folder.join(p).is_file())
        && output(folder.join("postgres"), "--version")
            .and_then(|text| major(&text))
            .is_some_and(|version| version >= OLDEST)
}

/// The major version in `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major(text: &str) -> Option<u32> {
    let digits = text.split(|c: char| !c.is_ascii_digit());
    digits.into_iter().find(|d| !d.is_empty())?.parse().ok()
}

fn output(program: impl AsRef<std::ffi::OsStr>, argument: &str) -> Option<String> {
    let output = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|o| o.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_every_vendors_text() {
        assert_eq!(
            major("postgres (PostgreSQL) 15.18 (Debian 15.18-0)"),
            Some(15)
        );
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("postgres"), None);
    }
}
