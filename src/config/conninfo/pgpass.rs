//! libpq's password file.
//!
//! Owns its grammar and its one rule of safety: a file that others can read is ignored with a
//! warning. Nothing here is an error; without a password the server decides.

use crate::config::Secret;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// What a login is looked up by. A host may go by several names (`localhost` for a local socket).
pub(super) struct Login<'a> {
    pub hosts: Vec<&'a str>,
    pub port: u16,
    pub dbname: &'a str,
    pub user: &'a str,
}

/// Looks a password up; `named` says whether somebody asked for this very file.
pub(super) fn lookup(
    path: &Path,
    named: bool,
    login: &Login<'_>,
    warnings: &mut Vec<String>,
) -> Option<Secret> {
    let mut ignore = |why: String| {
        warnings.push(format!(
            "the password file {} is ignored: {why}",
            path.display()
        ));
        None
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound && !named => return None,
        Err(error) => return ignore(error.to_string()),
    };
    match file.metadata() {
        Ok(meta) if !meta.is_file() => return ignore("it is not a plain file".to_owned()),
        Ok(meta) if others_can_read(&meta) => {
            return ignore(format!(
                "other users can read it; run chmod 600 {}",
                path.display()
            ));
        }
        Ok(_) => {}
        Err(error) => return ignore(error.to_string()),
    }
    let mut text = String::new();
    if let Err(error) = file.read_to_string(&mut text) {
        return ignore(error.to_string());
    }
    find(&text, login).map(Secret::new)
}

#[cfg(unix)]
fn others_can_read(meta: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    meta.permissions().mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn others_can_read(_meta: &std::fs::Metadata) -> bool {
    false
}

/// The password of the first line that fits; an empty one counts as none.
fn find(text: &str, login: &Login<'_>) -> Option<String> {
    let port = login.port.to_string();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(split)
        .find(|[host, line_port, dbname, user, _]| {
            (host.any() || login.hosts.iter().any(|name| host.is(name)))
                && [
                    (line_port, port.as_str()),
                    (dbname, login.dbname),
                    (user, login.user),
                ]
                .iter()
                .all(|(field, value)| field.any() || field.is(value))
        })
        .map(|[.., password]| password.text)
        .filter(|password| !password.is_empty())
}

/// A field with its escapes resolved; only a bare `*` fits everything.
struct Field {
    text: String,
    escaped: bool,
}

impl Field {
    fn any(&self) -> bool {
        self.text == "*" && !self.escaped
    }

    fn is(&self, value: &str) -> bool {
        self.text == value
    }
}

/// Four fields and the password, which goes to the end of the line, colons included.
fn split(line: &str) -> Option<[Field; 5]> {
    let mut fields = Vec::with_capacity(5);
    let mut chars = line.chars();
    while fields.len() < 5 {
        let mut field = Field {
            text: String::new(),
            escaped: false,
        };
        let mut ended = true;
        while let Some(c) = chars.next() {
            match c {
                '\\' => {
                    field.escaped = true;
                    field.text.extend(chars.next());
                }
                ':' if fields.len() < 4 => {
                    ended = false;
                    break;
                }
                c => field.text.push(c),
            }
        }
        fields.push(field);
        if ended {
            break;
        }
    }
    fields.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login<'static> {
        Login {
            hosts: vec!["db.example"],
            port: 5432,
            dbname: "app",
            user: "me",
        }
    }

    #[test]
    fn the_first_line_that_fits_gives_the_password() {
        for (text, expected) in [
            ("db.example:5432:app:me:a:b", Some("a:b")),
            ("*:*:*:*:x", Some("x")),
            (
                "# db.example:5432:app:me:no\n\nother:*:*:*:no\n*:5432:*:me:yes\n*:*:*:*:late",
                Some("yes"),
            ),
            ("db.example:5433:app:me:no", None),
            (r"\*:*:*:*:no", None),
            (r"*:*:*:*:a\:b\\c", Some(r"a:b\c")),
            ("*:*:*:*:x\r\n", Some("x")),
            ("*:*:*:me", None),
            ("*:*:*:*:", None),
            ("", None),
        ] {
            assert_eq!(find(text, &login()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn escaped_colons_belong_to_the_field() {
        let login = Login {
            hosts: vec!["::1"],
            ..login()
        };
        assert_eq!(find(r"\:\:1:*:*:*:x", &login).as_deref(), Some("x"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_ignored_with_a_warning() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("pgpass");
        std::fs::write(&path, "*:*:*:*:canary").expect("written");
        for (mode, expected) in [(0o644, None), (0o640, None), (0o600, Some("canary"))] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("mode");
            let mut warnings = Vec::new();
            let found = lookup(&path, false, &login(), &mut warnings);
            assert_eq!(found.as_ref().map(Secret::expose), expected);
            assert_eq!(warnings.is_empty(), expected.is_some());
            assert!(!warnings.concat().contains("canary"));
        }
        let mut warnings = Vec::new();
        let none = dir.path().join("none");
        assert!(lookup(&none, false, &login(), &mut warnings).is_none() && warnings.is_empty());
        assert!(lookup(&none, true, &login(), &mut warnings).is_none() && !warnings.is_empty());
        assert!(
            lookup(dir.path(), false, &login(), &mut warnings).is_none() && warnings.len() == 2
        );
    }
}
