//! Configured values with the place they come from, before anyone knows what they mean.
//!
//! Owns reading the file and the layering flag > environment > file. It judges no key and no value;
//! what it finds goes to `reader`. A file that is not TOML fails here, without quoting its text: a
//! line of it may hold a password.

use super::env::Env;
use super::fault::Fault;
use super::refusal;
use crate::error::Result;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

/// The prefix of the variables that set keys.
pub(super) const PREFIX: &str = "TIDEWATER_";

/// A value as it was written.
#[derive(Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Int(i128),
    Float(f64),
    Bool(bool),
    List(Vec<Value>),
    /// A table within a section, such as `{ a = 1 }`.
    Table(Vec<(String, Value)>),
    /// A flag's or a variable's text, whose type the key decides.
    Loose(String),
    /// Something no key takes; the word says what.
    Other(&'static str),
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    File(Arc<Path>, usize),
    Variable(String),
    Flag(&'static str),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File(path, line) => write!(f, "{}, line {line}", path.display()),
            Origin::Variable(name) => write!(f, "the environment variable {name}"),
            Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// A value in its place.
#[derive(Clone)]
pub(super) struct Entry {
    pub value: Value,
    pub origin: Origin,
}

/// A `[tables.NAME]` section.
pub(super) struct TableSection {
    pub name: String,
    pub origin: Origin,
    pub entries: BTreeMap<String, Entry>,
}

/// Everything that was configured anywhere.
#[derive(Default)]
pub(super) struct Sources {
    /// The values by `section.key`; a key outside any section has no dot.
    pub entries: BTreeMap<String, Entry>,
    /// The sections of the file.
    pub sections: Vec<(String, Origin)>,
    pub tables: Vec<TableSection>,
    /// The `remote.url` of the file, even where something else wins over it.
    pub file_url: Option<Entry>,
}

/// A configuration file as it was opened; its mode belongs to the very bytes that were read.
pub(super) struct Opened {
    pub path: PathBuf,
    pub text: String,
    pub readable_by_others: bool,
}

/// Opens and reads a file; `None` where there is none.
pub(super) fn open(path: &Path) -> Result<Option<Opened>> {
    let unreadable = |error: std::io::Error| {
        refusal(
            format!(
                "the configuration file {} cannot be read: {error}",
                path.display()
            ),
            "Name a readable TOML file with --config.",
        )
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(error)),
    };
    let readable_by_others = others_can_read(&file).map_err(unreadable)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(unreadable)?;
    Ok(Some(Opened {
        path: path.to_path_buf(),
        text,
        readable_by_others,
    }))
}

#[cfg(unix)]
fn others_can_read(file: &File) -> std::io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    Ok(file.metadata()?.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn others_can_read(_file: &File) -> std::io::Result<bool> {
    Ok(false)
}

impl Sources {
    /// Adds the values of a file.
    pub fn add_file(&mut self, file: &Opened) -> Result<()> {
        let path: Arc<Path> = Arc::from(file.path.as_path());
        let line_at = |offset: usize| {
            1 + file
                .text
                .bytes()
                .take(offset)
                .filter(|b| *b == b'\n')
                .count()
        };
        let origin =
            |span: std::ops::Range<usize>| Origin::File(Arc::clone(&path), line_at(span.start));
        let document = DeTable::parse(&file.text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_at(span.start));
            refusal(
                format!("{}, line {line}: {}", path.display(), error.message()),
                "Correct the TOML at that line.",
            )
        })?;
        for (name, value) in document.get_ref() {
            let (name, at) = (name.get_ref().as_ref(), origin(name.span()));
            let DeValue::Table(section) = value.get_ref() else {
                let entry = Entry {
                    value: plain(value.get_ref()),
                    origin: at,
                };
                self.entries.insert(name.to_owned(), entry);
                continue;
            };
            self.sections.push((name.to_owned(), at));
            for (key, value) in section {
                let (key, at) = (key.get_ref().as_ref(), origin(key.span()));
                match value.get_ref() {
                    DeValue::Table(table) if name == "tables" => {
                        let entries = table
                            .iter()
                            .map(|(key, value)| {
                                let origin = origin(key.span());
                                let value = with_tables(value.get_ref());
                                (key.get_ref().to_string(), Entry { value, origin })
                            })
                            .collect();
                        self.tables.push(TableSection {
                            name: key.to_owned(),
                            origin: at,
                            entries,
                        });
                    }
                    value => {
                        let entry = Entry {
                            value: plain(value),
                            origin: at,
                        };
                        if name == "remote" && key == "url" {
                            self.file_url = Some(entry.clone());
                        }
                        self.entries.insert(format!("{name}.{key}"), entry);
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds the `TIDEWATER_<SECTION>__<KEY>` variables over the file's values.
    pub fn add_variables(&mut self, env: &Env) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (name, value) in &env.vars {
            let Some(rest) = name.strip_prefix(PREFIX).filter(|rest| rest.contains("__")) else {
                continue;
            };
            let origin = Origin::Variable(name.clone());
            let Some(text) = value.to_str() else {
                faults.push(Fault::at(
                    origin,
                    format!("{name} is not valid UTF-8"),
                    format!("Set {name} to plain text, or unset it."),
                ));
                continue;
            };
            let key = rest.replace("__", ".").to_ascii_lowercase();
            let value = Value::Loose(text.to_owned());
            self.entries.insert(key, Entry { value, origin });
        }
        faults
    }

    /// Adds a flag over everything else.
    pub fn add_flag(&mut self, key: &str, flag: &'static str, text: &str) {
        let value = Value::Loose(text.to_owned());
        self.entries.insert(
            key.to_owned(),
            Entry {
                value,
                origin: Origin::Flag(flag),
            },
        );
    }
}

/// The name of the variable that sets a key.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// A value of a section that may hold tables.
fn with_tables(value: &DeValue<'_>) -> Value {
    let DeValue::Table(table) = value else {
        return plain(value);
    };
    let entries = table.iter();
    Value::Table(
        entries
            .map(|(key, value)| (key.get_ref().to_string(), plain(value.get_ref())))
            .collect(),
    )
}

fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("a number beyond all bounds"), Value::Int),
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .map_or(Value::Other("a number beyond all bounds"), Value::Float),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| plain(item.get_ref())).collect())
        }
        DeValue::Table(_) => Value::Other("a section"),
    }
}
