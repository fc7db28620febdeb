//! The `tidewater.toml` that `init` and `clone` write.
//!
//! Owns its text and how it comes to disk: short, only what was set, never a password, never over an
//! existing file, and closed to other users from its first moment.

use super::{Conn, FILE_NAME, SCHEMA, conninfo, refusal};
use crate::error::Result;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};

/// What was set and is worth keeping.
#[derive(Clone, Debug, Default)]
pub struct Template {
    /// The app's SQLite file as it stands in the file; see [`path_from`].
    pub path: PathBuf,
    /// The globs of tables to track; empty means all.
    pub tables: Vec<String>,
    /// The globs of tables to leave out.
    pub exclude: Vec<String>,
    /// The device's name, where it is not the host's.
    pub device: Option<String>,
    /// The server, without a password; see [`Conn::display`].
    pub url: Option<String>,
    /// The workspace's schema.
    pub schema: Option<String>,
}

impl Template {
    /// Takes the server from a connection, without its password.
    #[must_use]
    pub fn with_conn(mut self, conn: &Conn) -> Self {
        self.url = Some(conn.display());
        self
    }
}

/// The SQLite file's path as it has to stand in `config_file`, whose folder is where it starts from.
pub fn path_from(config_file: &Path, db: &Path) -> PathBuf {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let (config_file, db) = (absolute(config_file), absolute(db));
    let folder = config_file.parent().unwrap_or(Path::new(""));
    match db.strip_prefix(folder) {
        Ok(inside) if !inside.components().any(|part| part == Component::ParentDir) => {
            inside.to_path_buf()
        }
        _ => db,
    }
}

/// The text of the file. A URL that holds a password is refused.
pub fn render(template: &Template) -> Result<String> {
    if template
        .url
        .as_deref()
        .is_some_and(conninfo::holds_password)
    {
        return Err(refusal(
            "a password is never written into the configuration file",
            "Put the password into PGPASSWORD or the pgpass file.",
        ));
    }
    let Some(path) = template.path.to_str() else {
        return Err(refusal(
            format!(
                "the path {} is not UTF-8, and TOML cannot hold it",
                template.path.display()
            ),
            "Rename the file or its folder.",
        ));
    };
    let mut text = String::from(
        "# tidewater's configuration; every key: docs/configuration.md\n\n[local]\n# The app's SQLite file, from this file's folder on.\n",
    );
    put(&mut text, "path", &quoted(path));
    if !template.tables.is_empty() {
        put(&mut text, "tables", &list(&template.tables));
    }
    if !template.exclude.is_empty() {
        put(&mut text, "exclude", &list(&template.exclude));
    }
    if let Some(name) = &template.device {
        text.push_str("\n[device]\n");
        put(&mut text, "name", &quoted(name));
    }
    text.push_str("\n[remote]\n# No password here: PGPASSWORD and the pgpass file (~/.pgpass) are the places for it.\n");
    match &template.url {
        Some(url) => put(&mut text, "url", &quoted(url)),
        None => text.push_str("# url = \"postgres://USER@HOST/DATABASE\"\n"),
    }
    match &template.schema {
        Some(schema) => put(&mut text, "schema", &quoted(schema)),
        None => {
            let _ = writeln!(text, "# schema = \"{SCHEMA}\"");
        }
    }
    Ok(text)
}

/// Writes a new file, mode 0600; one that exists is left as it is and refused.
pub fn write_new(path: &Path, template: &Template) -> Result<()> {
    let text = render(template)?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => refusal(
            format!(
                "the configuration file {} exists and is not overwritten",
                path.display()
            ),
            format!("Use it with --config, or move it away; the usual name is {FILE_NAME}."),
        ),
        _ => cannot_write(path, &error),
    })?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    written.map_err(|error| {
        // Half a configuration would be taken for a whole one.
        let _ = std::fs::remove_file(path);
        cannot_write(path, &error)
    })
}

fn cannot_write(path: &Path, error: &std::io::Error) -> crate::error::Error {
    refusal(
        format!(
            "the configuration file {} cannot be written: {error}",
            path.display()
        ),
        "Make the folder writable, or name another place with --config.",
    )
}

fn put(text: &mut String, key: &str, value: &str) {
    let _ = writeln!(text, "{key} = {value}");
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Template {
        Template {
            path: "data/we\"ird\n.db".into(),
            tables: vec!["a*".into(), "b".into()],
            exclude: vec!["c".into()],
            device: Some("lap\\top".into()),
            url: Some("postgres://me@db.example:5432/app".into()),
            schema: Some("ws".into()),
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let text = render(&template()).expect("text");
        let table: toml::Table = text.parse().expect("TOML");
        assert_eq!(table["local"]["path"].as_str(), Some("data/we\"ird\n.db"));
        assert_eq!(table["local"]["tables"].as_array().map(Vec::len), Some(2));
        assert_eq!(table["device"]["name"].as_str(), Some("lap\\top"));
        assert_eq!(
            table["remote"]["url"].as_str(),
            Some("postgres://me@db.example:5432/app")
        );
        assert_eq!(table["remote"]["schema"].as_str(), Some("ws"));
        let bare = render(&Template {
            path: "a.db".into(),
            ..Template::default()
        })
        .expect("text");
        let table: toml::Table = bare.parse().expect("TOML");
        assert_eq!(table["remote"].as_table().map(|t| t.len()), Some(0));
        assert!(!bare.contains("device") && !bare.contains("tables ="));
    }

    #[test]
    fn a_password_is_never_written() {
        for url in [
            "postgres://u:canary@h/d",
            "host=h password=canary",
            "postgres://u:12/canary@h/d",
        ] {
            let error = render(&Template {
                url: Some(url.into()),
                ..template()
            })
            .expect_err(url);
            assert!(!format!("{error:?}").contains("canary"));
        }
    }

    #[test]
    fn an_existing_file_is_left_alone_and_a_new_one_is_private() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(FILE_NAME);
        write_new(&path, &template()).expect("written");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path)
                .expect("there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        std::fs::write(&path, "mine").expect("written");
        let error = write_new(&path, &template()).expect_err("refused");
        assert!(error.message.contains("not overwritten"));
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "mine");
        assert!(write_new(&dir.path().join("no/such/x.toml"), &template()).is_err());
    }

    #[test]
    fn paths_are_written_from_the_files_folder_on() {
        for (config, db, expected) in [
            ("/a/tidewater.toml", "/a/app.db", "app.db"),
            ("/a/tidewater.toml", "/a/b/app.db", "b/app.db"),
            ("/a/tidewater.toml", "/c/app.db", "/c/app.db"),
            ("tidewater.toml", "x/app.db", "x/app.db"),
        ] {
            assert_eq!(
                path_from(Path::new(config), Path::new(db)),
                PathBuf::from(expected)
            );
        }
    }
}
