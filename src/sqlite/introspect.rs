//! Reads the app's schema: which tables are there, which of them are tracked, and their description.
//!
//! It only reads, and should do so inside the transaction whose `schema_version` it reports. It fails
//! with the file's own errors, and with SYNC-013 where the configuration names what is not there; a
//! table that cannot be tracked is no failure but is listed with its reason.

use super::capture::{is_ours, name_after};
use super::fault::OrFault;
use super::levels;
pub use super::levels::TablePrivacy;
use super::quote::literal;
use super::skip::{Skipped, is_book, is_copy, unfit};
use super::types;
use crate::error::{Code, Error, Result};
use crate::model::{Column, ForeignKey, PgType, Privacy, Table, Unique};
use glob::{MatchOptions, Pattern};
use rusqlite::{Connection, Row};
use std::collections::{BTreeMap, BTreeSet};

/// What the configuration says about tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrackSettings {
    /// Globs of tables to track; none means all.
    pub include: Vec<String>,
    /// Globs of tables to leave out.
    pub exclude: Vec<String>,
    /// By table: what may leave.
    pub privacy: BTreeMap<String, TablePrivacy>,
    /// By table: the Postgres types that columns are to have.
    pub types: BTreeMap<String, BTreeMap<String, PgType>>,
}

/// What [`tables`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introspection {
    /// The tracked tables, parents before their children; ties and cycles by name.
    pub tables: Vec<Table>,
    /// The tables that are left out, by name.
    pub skipped: Vec<Skipped>,
    /// Tables of which the configuration says what does not fit them: none of them is tracked.
    pub refused: Vec<Error>,
    /// The schema's version at this look.
    pub schema_version: i64,
}

/// A table as `pragma table_list` shows it.
struct Listed {
    name: String,
    kind: String,
    without_rowid: bool,
    strict: bool,
}

const WHAT: &str = "reading the schema";

/// Looks at every table of the file. Whatever the configuration says that does not fit is an error.
pub fn tables(conn: &Connection, settings: &TrackSettings) -> Result<Introspection> {
    let mut found = tables_that_fit(conn, settings)?;
    match found.refused.pop() {
        Some(e) => Err(e),
        None => Ok(found),
    }
}

/// The same where the app changed its schema under a device: a table that the configuration does not
/// fit any more stops by itself, on the side on which nothing leaves, and the others go on.
pub fn tables_that_fit(conn: &Connection, settings: &TrackSettings) -> Result<Introspection> {
    let include = globs("tables", &settings.include)?;
    let exclude = globs("exclude", &settings.exclude)?;
    let listed = listed(conn)?;
    let mut refused = Vec::new();
    for name in settings.privacy.keys() {
        if !listed.iter().any(|l| l.name.eq_ignore_ascii_case(name)) {
            refused.push(configuration(
                name,
                format!("[tables.{name}] names a table that is not in the file"),
                "correct the name or remove the section",
            ));
        }
    }
    let shadows = foreign_shadows(conn)?;
    let mut out = Vec::new();
    let mut skipped = Vec::new();
    for l in listed {
        let privacy = settings
            .privacy
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(&l.name))
            .map(|(_, p)| p);
        let why = if starts_with(&l.name, "sqlite_") {
            continue;
        } else if starts_with(&l.name, "tidewater_") {
            Some("tidewater's own")
        } else if l.kind == "view" {
            Some("a view")
        } else if l.kind == "virtual" {
            Some("a virtual table")
        } else if l.kind == "shadow" || shadows.iter().any(|s| starts_with(&l.name, s)) {
            Some("part of a virtual table")
        } else if matches(&exclude, &l.name) {
            Some("excluded by [local] exclude")
        } else if !include.is_empty() && !matches(&include, &l.name) {
            Some("not among [local] tables")
        } else if privacy.is_some_and(|p| p.level == Privacy::LocalOnly && p.column.is_none()) {
            Some("local_only")
        } else {
            None
        };
        if let Some(why) = why {
            skipped.push(Skipped::plain(&l.name, why));
            continue;
        }
        match describe(conn, &l)? {
            Ok(mut table) => {
                let named = |(n, _): &(&String, _)| n.eq_ignore_ascii_case(&l.name);
                let types = settings.types.iter().find(named).map(|(_, t)| t);
                let fits = privacy
                    .map_or(Ok(()), |p| levels::apply(&mut table, p))
                    .and_then(|()| types.map_or(Ok(()), |t| types::apply(&mut table, t)));
                match fits {
                    Ok(()) => out.push(table),
                    Err(e) => refused.push(e),
                }
            }
            Err(why) => skipped.push(why),
        }
    }
    skipped.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Introspection {
        tables: parents_first(out),
        skipped,
        refused,
        schema_version: conn
            .query_row("pragma schema_version", [], |r| r.get(0))
            .or_fault(WHAT)?,
    })
}

pub(super) fn configuration(table: &str, message: String, remedy: &str) -> Error {
    Error::new(Code::Configuration, message, remedy).on_table(table)
}

fn globs(key: &str, patterns: &[String]) -> Result<Vec<Pattern>> {
    patterns
        .iter()
        .map(|p| {
            Pattern::new(p).map_err(|e| {
                Error::new(
                    Code::Configuration,
                    format!("[local] {key}: `{p}` is not a pattern: {}", e.msg),
                    "use * and ? for any characters and [..] for one of several",
                )
            })
        })
        .collect()
}

/// SQLite does not tell names apart by case, and neither do the patterns.
fn matches(patterns: &[Pattern], name: &str) -> bool {
    let options = MatchOptions {
        case_sensitive: false,
        require_literal_separator: false,
        require_literal_leading_dot: false,
    };
    patterns.iter().any(|p| p.matches_with(name, options))
}

fn starts_with(name: &str, prefix: &str) -> bool {
    name.as_bytes()
        .get(..prefix.len())
        .is_some_and(|n| n.eq_ignore_ascii_case(prefix.as_bytes()))
}

fn collect<T>(
    conn: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    conn.prepare(sql)
        .or_fault(WHAT)?
        .query_map([], read)
        .or_fault(WHAT)?
        .collect::<rusqlite::Result<_>>()
        .or_fault(WHAT)
}

/// `pragma <name>(<argument>)`; a pragma's argument cannot be bound.
fn pragma<T>(
    conn: &Connection,
    name: &str,
    argument: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    collect(
        conn,
        &format!("pragma main.{name}({})", literal(argument)),
        read,
    )
}

fn listed(conn: &Connection) -> Result<Vec<Listed>> {
    collect(
        conn,
        "select name, type, wr, strict from pragma_table_list where schema = 'main' order by name",
        |r| {
            Ok(Listed {
                name: r.get(0)?,
                kind: r.get(1)?,
                without_rowid: r.get(2)?,
                strict: r.get(3)?,
            })
        },
    )
}

/// Prefixes of the shadow tables of virtual tables whose module only the app has: SQLite knows the
/// shadows of its own modules, and of no others.
fn foreign_shadows(conn: &Connection) -> Result<Vec<String>> {
    let modules: BTreeSet<String> =
        collect(conn, "select lower(name) from pragma_module_list", |r| {
            r.get(0)
        })?
        .into_iter()
        .collect();
    let found: Vec<(String, String)> = collect(
        conn,
        "select name, sql from sqlite_schema where type = 'table' and rootpage = 0 and sql is not null",
        |r| Ok((r.get(0)?, r.get(1)?)),
    )?;
    Ok(found
        .into_iter()
        .filter(|(_, sql)| {
            name_after(sql, "using").is_some_and(|m| !modules.contains(&m.to_ascii_lowercase()))
        })
        .map(|(name, _)| format!("{name}_"))
        .collect())
}

/// The description of an ordinary table, or why there can be none.
fn describe(conn: &Connection, l: &Listed) -> Result<std::result::Result<Table, Skipped>> {
    let mut key: Vec<(i64, String)> = Vec::new();
    let columns = pragma(conn, "table_xinfo", &l.name, |r| {
        let name: String = r.get(1)?;
        let place: i64 = r.get(5)?;
        let hidden: i64 = r.get(6)?;
        if place > 0 {
            key.push((place, name.clone()));
        }
        let generated = hidden == 2 || hidden == 3;
        let mut declared = r.get::<_, Option<String>>(2)?.unwrap_or_default();
        if l.strict && declared.eq_ignore_ascii_case("any") {
            // There, and only there, it converts nothing: a text of digits stays a text.
            declared.clear();
        }
        Ok(Column {
            name,
            declared,
            not_null: r.get(3)?,
            has_default: !generated && r.get::<_, Option<String>>(4)?.is_some(),
            generated,
            redacted: false,
            pg_type: None,
        })
    })?;
    if is_book(&l.name, &columns) {
        return Ok(Err(Skipped::plain(
            &l.name,
            "book-keeping of a migration tool",
        )));
    }
    if is_copy(&l.name) {
        return Ok(Err(Skipped::plain(
            &l.name,
            "a migration's passing copy of a table",
        )));
    }
    if let Some((reason, remedy)) = unfit(&l.name, &columns) {
        return Ok(Err(Skipped::fault(&l.name, reason, remedy)));
    }
    if key.is_empty() {
        return Ok(Err(Skipped::fault(
            &l.name,
            "it has no primary key",
            "give the table a primary key",
        )));
    }
    key.sort();
    let key: Vec<String> = key.into_iter().map(|(_, name)| name).collect();
    let mut key_collations = vec!["BINARY".to_owned(); key.len()];
    let mut uniques = Vec::new();
    for (index, unique, origin, partial) in pragma(conn, "index_list", &l.name, |r| {
        Ok((
            r.get::<_, String>(1)?,
            r.get::<_, bool>(2)?,
            r.get::<_, String>(3)?,
            r.get::<_, bool>(4)?,
        ))
    })? {
        let parts: Vec<(Option<String>, String)> = pragma(conn, "index_xinfo", &index, |r| {
            Ok((
                r.get::<_, bool>(5)?,
                (
                    r.get::<_, Option<String>>(2)?,
                    r.get::<_, Option<String>>(4)?
                        .map_or_else(|| "BINARY".to_owned(), |c| c.to_ascii_uppercase()),
                ),
            ))
        })?
        .into_iter()
        .filter_map(|(in_key, part)| in_key.then_some(part))
        .collect();
        if let Some((_, collation)) = parts.iter().find(|(_, c)| !built_in(c)) {
            return Ok(Err(Skipped::fault(
                &l.name,
                format!(
                    "its index \"{index}\" uses the collation {collation}, which only the app has"
                ),
                "use BINARY, NOCASE or RTRIM",
            )));
        }
        if origin == "pk" {
            for (column, collation) in &parts {
                if let Some(i) = key.iter().position(|k| Some(k) == column.as_ref()) {
                    key_collations[i].clone_from(collation);
                }
            }
        } else if unique {
            uniques.push(Unique {
                name: index,
                columns: parts,
                partial,
            });
        }
    }
    uniques.sort_by(|a, b| a.name.cmp(&b.name));
    let objects = objects(conn, &l.name)?;
    let of = |kind: &'static str| objects.iter().filter(move |(k, ..)| k == kind);
    Ok(Ok(Table {
        foreign_keys: foreign_keys(conn, &l.name)?,
        has_app_triggers: of("trigger").any(|(_, name, _)| !is_ours(name)),
        sql: of("table")
            .find_map(|(.., sql)| sql.clone())
            .unwrap_or_default(),
        indexes: of("index").filter_map(|(.., sql)| sql.clone()).collect(),
        name: l.name.clone(),
        columns,
        key,
        key_collations,
        without_rowid: l.without_rowid,
        uniques,
        privacy: Privacy::Full,
        rows: None,
    }))
}

fn built_in(collation: &str) -> bool {
    ["BINARY", "NOCASE", "RTRIM"]
        .iter()
        .any(|c| c.eq_ignore_ascii_case(collation))
}

/// Kind, name and text of everything that belongs to a table.
fn objects(conn: &Connection, table: &str) -> Result<Vec<(String, String, Option<String>)>> {
    conn.prepare_cached(
        "select type, name, sql from sqlite_schema where tbl_name = ?1 collate nocase order by name",
    )
    .or_fault(WHAT)?
    .query_map([table], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
    .or_fault(WHAT)?
    .collect::<rusqlite::Result<_>>()
    .or_fault(WHAT)
}

fn foreign_keys(conn: &Connection, table: &str) -> Result<Vec<ForeignKey>> {
    let mut found: BTreeMap<i64, ForeignKey> = BTreeMap::new();
    let mut rows: Vec<(i64, i64, String, String)> = pragma(conn, "foreign_key_list", table, |r| {
        Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))
    })?;
    rows.sort();
    for (id, _, parent, column) in rows {
        found
            .entry(id)
            .or_insert_with(|| ForeignKey {
                parent,
                columns: Vec::new(),
            })
            .columns
            .push(column);
    }
    Ok(found.into_values().collect())
}

/// Parents before children by foreign keys. Of the tables whose parents are all placed, the first by
/// name comes next; where cycles leave none, the first by name of a cycle that waits for no other.
fn parents_first(mut left: Vec<Table>) -> Vec<Table> {
    left.sort_by(|a, b| a.name.cmp(&b.name));
    let mut out = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let free = left
            .iter()
            .position(|t| ancestors(t, &left).is_empty())
            .or_else(|| {
                left.iter().position(|t| {
                    let above = ancestors(t, &left);
                    let back = |a: &&Table| ancestors(a, &left).contains(t.name.as_str());
                    left.iter()
                        .filter(|a| above.contains(a.name.as_str()))
                        .all(|a| back(&a))
                })
            });
        out.push(left.remove(free.unwrap_or(0)));
    }
    out
}

/// The tables among `of` that must stand before `table`, itself left out.
fn ancestors<'a>(table: &Table, of: &'a [Table]) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut look = vec![table];
    while let Some(t) = look.pop() {
        for f in &t.foreign_keys {
            let parent = of.iter().find(|p| p.name.eq_ignore_ascii_case(&f.parent));
            if let Some(p) = parent
                && p.name != table.name
                && found.insert(p.name.as_str())
            {
                look.push(p);
            }
        }
    }
    found
}

#[cfg(test)]
#[path = "introspect_tests.rs"]
mod tests;
