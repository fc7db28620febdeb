//! libpq's service file: settings under a name, kept apart from the programs that use them.
//!
//! Owns its grammar and where it is looked for. What it says fills what the text left open, and wins
//! over the variables. One that holds a password and that others can read is refused, as our own file
//! is. Errors name keywords and lines, never values.

use super::super::env::Env;
use super::super::refusal;
use super::{Setting, Settings};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Where distributions keep the file for all users: Debian's folder, then upstream's.
const SYSTEM: [&str; 2] = ["/etc/postgresql-common", "/etc"];
const NAME: &str = "pg_service.conf";

/// A service with the file that was named for it.
pub(super) type Service = (String, Option<PathBuf>);

/// Fills what the text left open from the service that it, or the environment, names.
pub(super) fn fill(
    settings: &mut Settings,
    env: &Env,
    warnings: &mut Vec<String>,
) -> Result<Option<Service>> {
    let (name, place) = match settings.get("service") {
        Some(setting) => (setting.value.clone(), setting.place.clone()),
        None => match env.text("PGSERVICE")? {
            Some(name) => (
                name.to_owned(),
                "the environment variable PGSERVICE".to_owned(),
            ),
            None => return Ok(None),
        },
    };
    let named = settings.get("servicefile").map(Setting::path);
    for file in files(named.as_deref(), env)? {
        let Some(text) = read(&file)? else { continue };
        let Some(pairs) = section(&text.text, &name, &file)? else {
            continue;
        };
        let holds_password = pairs
            .iter()
            .any(|(key, value, _)| key == "password" && !value.is_empty());
        if holds_password && text.others_can_read {
            return Err(refusal(
                format!(
                    "the service {name} in {} holds a password, and other users can read the file",
                    file.display()
                ),
                format!("Run: chmod 600 {}", file.display()),
            ));
        }
        for (key, value, line) in pairs {
            let setting = Setting {
                value,
                place: format!("the service {name} ({}, line {line})", file.display()),
                folder: file.parent().unwrap_or(Path::new("")).to_owned(),
            };
            if matches!(key.as_str(), "service" | "servicefile") {
                return Err(setting.bad(&key, "a service cannot name another one"));
            }
            let mut own = Settings(std::collections::BTreeMap::new());
            own.insert(&key, "", setting, warnings)?;
            for (keyword, setting) in own.0 {
                settings.0.entry(keyword).or_insert(setting);
            }
        }
        return Ok(Some((name, named)));
    }
    Err(refusal(
        format!("the service that {place} names is in no service file"),
        "Add it to ~/.pg_service.conf, or name the file that holds it in PGSERVICEFILE.",
    ))
}

/// The files that are looked through: the named one alone, or the user's and then the system's.
fn files(named: Option<&Path>, env: &Env) -> Result<Vec<PathBuf>> {
    let named = named
        .map(Path::to_path_buf)
        .or_else(|| env.path("PGSERVICEFILE").map(|path| env.resolve(&path)));
    let mut files = Vec::new();
    match named {
        Some(file) if !file.exists() => {
            return Err(refusal(
                format!("the service file {} does not exist", file.display()),
                "Name an existing file in PGSERVICEFILE or servicefile.",
            ));
        }
        Some(file) => files.push(file),
        None => files.extend(env.home().map(|home| home.join(format!(".{NAME}")))),
    }
    match env.path("PGSYSCONFDIR") {
        Some(folder) => files.push(folder.join(NAME)),
        None => files.extend(SYSTEM.iter().map(|folder| Path::new(folder).join(NAME))),
    }
    Ok(files)
}

struct Text {
    text: String,
    others_can_read: bool,
}

fn read(path: &Path) -> Result<Option<Text>> {
    let fault = |error: std::io::Error| {
        refusal(
            format!(
                "the service file {} cannot be read: {error}",
                path.display()
            ),
            "Correct the file's rights, or name another in PGSERVICEFILE.",
        )
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(error)),
    };
    let others_can_read = file.metadata().is_ok_and(|meta| open_to_others(&meta));
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(fault)?;
    Ok(Some(Text {
        text,
        others_can_read,
    }))
}

#[cfg(unix)]
fn open_to_others(meta: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    meta.permissions().mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn open_to_others(_meta: &std::fs::Metadata) -> bool {
    false
}

/// Keyword, value and line of one service.
type Pairs = Vec<(String, String, usize)>;

/// What the file says of a service; `None` where it does not know it.
fn section(text: &str, name: &str, file: &Path) -> Result<Option<Pairs>> {
    let mut found: Option<Pairs> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let number = index + 1;
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if header.strip_suffix(']') == Some(name) {
                found = Some(Pairs::new());
            }
            continue;
        }
        let Some(pairs) = &mut found else { continue };
        let strange = |what: &str| -> Error {
            refusal(
                format!("{what} in {}, line {number}", file.display()),
                "Write keyword=value, one a line, without blanks around the =.",
            )
        };
        if line.starts_with("ldap") {
            return Err(strange(
                "a look-up by LDAP is not supported by this version yet",
            ));
        }
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| strange("a line that is neither a [service] nor keyword=value"))?;
        pairs.push((key.to_owned(), value.to_owned(), number));
    }
    Ok(found)
}
