//! Configured values with their meaning: types, ranges, and what is not a key at all.
//!
//! Owns every refusal of a key or a value. Each key is asked for exactly once, and whatever nobody
//! asked for is unknown, so that no list of keys can fall behind the code. All faults are gathered
//! and `finish` tells the first. A refusal names key, value, allowed range and place.

use super::fault::{self, Fault};
use super::secret::shown;
use super::source::{Entry, Origin, Sources, TableSection, Value, variable};
use super::suggest::nearest;
use crate::error::Result;
use crate::model::PgType;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Postgres cuts longer names off without an error, so that two of them could become one.
pub(super) const NAME_BYTES_MAX: usize = 63;

/// What a value could be read as, or what it would have to be.
type Read<T> = std::result::Result<T, String>;

/// Reads the sources key by key.
pub(super) struct Reader {
    sources: Sources,
    faults: Vec<Fault>,
    asked: BTreeSet<String>,
    taken: BTreeMap<String, Entry>,
}

impl Reader {
    pub fn new(sources: Sources, faults: Vec<Fault>) -> Reader {
        Reader {
            sources,
            faults,
            asked: BTreeSet::new(),
            taken: BTreeMap::new(),
        }
    }

    /// A key's value, where it is set and good; a bad one is noted.
    fn read<T>(&mut self, key: &str, as_type: impl Fn(&Value) -> Read<T>) -> Option<T> {
        self.asked.insert(key.to_owned());
        let entry = self.sources.entries.remove(key)?;
        let read = as_type(&entry.value);
        if let Err(allowed) = &read {
            self.faults.push(bad(key, &entry, allowed));
        }
        self.taken.insert(key.to_owned(), entry);
        read.ok()
    }

    pub fn uint(&mut self, key: &str, default: u32, range: RangeInclusive<u32>) -> u32 {
        self.read(key, |value| uint(value, &range))
            .unwrap_or(default)
    }

    pub fn count(&mut self, key: &str, default: usize, range: RangeInclusive<u32>) -> usize {
        self.read(key, |value| uint(value, &range))
            .map_or(default, |number| number as usize)
    }

    pub fn seconds(
        &mut self,
        key: &str,
        default: Duration,
        range: RangeInclusive<f64>,
    ) -> Duration {
        self.read(key, |value| seconds(value, &range))
            .unwrap_or(default)
    }

    pub fn boolean(&mut self, key: &str, default: bool) -> bool {
        self.read(key, boolean).unwrap_or(default)
    }

    pub fn text(&mut self, key: &str) -> Option<String> {
        self.read(key, |value| text(value, usize::MAX))
    }

    /// A text that may be empty, where that has a meaning.
    pub fn text_or_empty(&mut self, key: &str) -> Option<String> {
        self.read(key, |value| match value {
            Value::Text(t) | Value::Loose(t) if t.trim().is_empty() => Ok(String::new()),
            value => text(value, usize::MAX),
        })
    }

    /// A text that becomes a name in Postgres.
    pub fn name(&mut self, key: &str) -> Option<String> {
        self.read(key, |value| text(value, NAME_BYTES_MAX))
    }

    pub fn list(&mut self, key: &str) -> Option<Vec<String>> {
        self.read(key, |value| list(value, usize::MAX))
    }

    pub fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        self.read(key, |value| choice(value, choices))
    }

    /// Whether the key is set to a good or a bad value anywhere.
    pub fn is_set(&self, key: &str) -> bool {
        self.taken.contains_key(key)
    }

    /// Where the key is set.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.taken.get(key).map(|entry| &entry.origin)
    }

    /// Refuses the value of a key that is good in itself.
    pub fn refuse(&mut self, key: &str, allowed: &str) {
        if let Some(entry) = self.taken.get(key) {
            self.faults.push(bad(key, entry, allowed));
        }
    }

    /// The `[tables.NAME]` sections, to be read with `TableReader`.
    pub fn tables(&mut self) -> Vec<TableReader> {
        std::mem::take(&mut self.sources.tables)
            .into_iter()
            .map(|section| TableReader {
                section,
                asked: Vec::new(),
                faults: Vec::new(),
            })
            .collect()
    }

    /// Takes the faults of a table's section back.
    pub fn close_table(&mut self, table: TableReader) {
        self.faults.extend(table.finish());
    }

    /// Refuses what nobody asked for, and tells the first of all faults.
    pub fn finish(mut self) -> Result<()> {
        let sections: BTreeSet<&str> = self
            .asked
            .iter()
            .filter_map(|key| key.split('.').next())
            .chain(["tables"])
            .collect();
        let mut unknown_sections = BTreeSet::new();
        for (name, origin) in &self.sources.sections {
            if !sections.contains(name.as_str()) {
                unknown_sections.insert(name.as_str());
                let guess = nearest(name, sections.iter().copied()).map(|s| format!("[{s}]"));
                self.faults
                    .push(unknown(&format!("section [{name}]"), origin, guess));
            }
        }
        for (key, entry) in &self.sources.entries {
            let section = key.split('.').next().unwrap_or(key);
            let in_file = matches!(entry.origin, Origin::File(..));
            if in_file && unknown_sections.contains(section) {
                continue;
            }
            if section == "tables" || sections.contains(key.as_str()) {
                self.faults
                    .push(not_a_section_key(key, section, &entry.origin));
                continue;
            }
            let guess = nearest(key, self.asked.iter().map(String::as_str));
            let (what, guess) = match &entry.origin {
                Origin::Variable(name) => {
                    (format!("environment variable {name}"), guess.map(variable))
                }
                _ => (format!("key {key}"), guess.map(str::to_owned)),
            };
            let mut fault = unknown(&what, &entry.origin, guess);
            if key.contains("password") || key.contains("passwd") {
                fault = Fault::at(
                    entry.origin.clone(),
                    format!("unknown {what} ({})", entry.origin),
                    "Put the password into PGPASSWORD, the pgpass file, or remote.url of a file with mode 0600."
                        .to_owned(),
                );
            }
            self.faults.push(fault);
        }
        fault::first(self.faults).map_or(Ok(()), Err)
    }

    /// The keys that were asked for.
    #[cfg(test)]
    pub fn asked(&self) -> &BTreeSet<String> {
        &self.asked
    }
}

/// Reads one `[tables.NAME]` section.
pub(super) struct TableReader {
    section: TableSection,
    asked: Vec<&'static str>,
    faults: Vec<Fault>,
}

impl TableReader {
    pub fn table(&self) -> &str {
        &self.section.name
    }

    fn read<T>(&mut self, key: &'static str, as_type: impl Fn(&Value) -> Read<T>) -> Option<T> {
        self.asked.push(key);
        let entry = self.section.entries.remove(key)?;
        let read = as_type(&entry.value);
        if let Err(allowed) = &read {
            self.faults.push(bad(
                &format!("tables.{}.{key}", self.section.name),
                &entry,
                allowed,
            ));
        }
        read.ok()
    }

    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        self.read(key, |value| choice(value, choices))
    }

    pub fn names(&mut self, key: &'static str) -> Option<Vec<String>> {
        self.read(key, |value| list(value, NAME_BYTES_MAX))
    }

    /// A name of the app's schema.
    pub fn name(&mut self, key: &'static str) -> Option<String> {
        self.read(key, |value| text(value, NAME_BYTES_MAX))
    }

    /// Columns with the words of their types.
    pub fn types(&mut self, key: &'static str) -> Option<BTreeMap<String, PgType>> {
        self.read(key, types)
    }

    pub fn refuse(&mut self, why: &str) {
        let origin = &self.section.origin;
        self.faults.push(Fault::at(
            origin.clone(),
            format!(
                "section [tables.{}] ({origin}): {why}",
                self.section.name.escape_debug()
            ),
            format!("Correct the section's name in {origin}."),
        ));
    }

    fn finish(mut self) -> Vec<Fault> {
        for (key, entry) in &self.section.entries {
            let guess = nearest(key, self.asked.iter().copied()).map(str::to_owned);
            let what = format!("key tables.{}.{key}", self.section.name);
            self.faults.push(unknown(&what, &entry.origin, guess));
        }
        self.faults
    }
}

fn bad(key: &str, entry: &Entry, allowed: &str) -> Fault {
    let (origin, value) = (&entry.origin, show(&entry.value));
    Fault::at(
        origin.clone(),
        format!("{key} = {value} ({origin}) is not allowed: it must be {allowed}"),
        format!("Correct {key} in {origin}."),
    )
}

fn unknown(what: &str, origin: &Origin, guess: Option<String>) -> Fault {
    let place = match origin {
        Origin::Variable(_) => String::new(),
        origin => format!(" ({origin})"),
    };
    match guess {
        Some(guess) => Fault::at(
            origin.clone(),
            format!("unknown {what}{place}; did you mean {guess}?"),
            format!("Write {guess}, or remove it."),
        ),
        None => Fault::at(
            origin.clone(),
            format!("unknown {what}{place}"),
            format!("Remove the {what}; docs/configuration.md lists what there is."),
        ),
    }
}

fn not_a_section_key(key: &str, section: &str, origin: &Origin) -> Fault {
    let (message, remedy) = match origin {
        Origin::Variable(name) => (
            format!(
                "the environment variable {name} cannot be used: the keys of [tables.NAME] are set in the file alone"
            ),
            format!("Unset {name} and write a [tables.NAME] section into tidewater.toml."),
        ),
        _ => (
            format!(
                "{key} ({origin}) is not allowed: {section} holds sections or keys of its own, not a value"
            ),
            match section {
                "tables" => "Write a section [tables.NAME] for the table.".to_owned(),
                _ => format!("Write a section [{section}]."),
            },
        ),
    };
    Fault::at(origin.clone(), message, remedy)
}

fn show(value: &Value) -> String {
    match value {
        Value::Text(text) | Value::Loose(text) => shown(text),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::List(items) => format!(
            "[{}]",
            items.iter().map(show).collect::<Vec<_>>().join(", ")
        ),
        Value::Table(entries) => {
            let shown: Vec<String> = entries
                .iter()
                .map(|(key, value)| format!("{key} = {}", show(value)))
                .collect();
            format!("{{ {} }}", shown.join(", "))
        }
        Value::Other(what) => format!("({what})"),
    }
}

fn uint(value: &Value, range: &RangeInclusive<u32>) -> Read<u32> {
    let number = match value {
        Value::Int(number) => Some(*number),
        Value::Loose(text) => text.trim().parse().ok(),
        _ => None,
    };
    number
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("a whole number from {} to {}", range.start(), range.end()))
}

fn seconds(value: &Value, range: &RangeInclusive<f64>) -> Read<Duration> {
    let number = match value {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::Loose(text) => text.trim().parse().ok(),
        _ => None,
    };
    number
        .filter(|number| range.contains(number))
        .and_then(|number| Duration::try_from_secs_f64(number).ok())
        .ok_or_else(|| {
            format!(
                "a number of seconds from {} to {}, fractions allowed",
                range.start(),
                range.end()
            )
        })
}

fn boolean(value: &Value) -> Read<bool> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::Loose(text) if text.trim() == "true" => Ok(true),
        Value::Loose(text) if text.trim() == "false" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

fn text(value: &Value, bytes_max: usize) -> Read<String> {
    let allowed = || match bytes_max {
        usize::MAX => "a text that is not empty, without control characters".to_owned(),
        max => format!("a text of 1 to {max} bytes without control characters"),
    };
    match value {
        Value::Text(text) | Value::Loose(text)
            if !text.is_empty()
                && text.len() <= bytes_max
                && !text.chars().any(char::is_control) =>
        {
            Ok(text.clone())
        }
        _ => Err(allowed()),
    }
}

fn list(value: &Value, bytes_max: usize) -> Read<Vec<String>> {
    let refuse = |reason: String| {
        format!(
            "a list of texts, each {}",
            reason.trim_start_matches("a text ")
        )
    };
    match value {
        Value::List(items) => items
            .iter()
            .map(|item| text(item, bytes_max).map_err(refuse))
            .collect(),
        Value::Loose(items) => items
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(|item| text(&Value::Text(item.to_owned()), bytes_max).map_err(refuse))
            .collect(),
        _ => Err("a list of texts, such as [\"a\", \"b\"]".to_owned()),
    }
}

fn types(value: &Value) -> Read<BTreeMap<String, PgType>> {
    let allowed = || {
        let words: Vec<&str> = PgType::words().collect();
        format!(
            "columns with their types, such as {{ done = \"boolean\" }}, each type one of: {}",
            words.join(", ")
        )
    };
    let Value::Table(entries) = value else {
        return Err(allowed());
    };
    let mut types: BTreeMap<String, PgType> = BTreeMap::new();
    for (column, word) in entries {
        let word = match word {
            Value::Text(word) => PgType::parse(word),
            _ => None,
        };
        let twice = types.keys().any(|c| c.eq_ignore_ascii_case(column));
        types.insert(column.clone(), word.filter(|_| !twice).ok_or_else(allowed)?);
    }
    Ok(types)
}

fn choice<T: Copy>(value: &Value, choices: &[(&str, T)]) -> Read<T> {
    if let Value::Text(text) | Value::Loose(text) = value
        && let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text.trim())
    {
        return Ok(*choice);
    }
    let words: Vec<String> = choices
        .iter()
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    Err(words.join(" or "))
}
