//! The text of the triggers that record which rows the app touched. Pure: no database.
//!
//! What must hold for every trigger here:
//! - It runs inside the app's SQLite, however old and however configured: nothing newer than 3.8, no
//!   function that `trusted_schema=OFF` refuses, no UPSERT, no row values.
//! - It names key columns and the columns of UNIQUE constraints only, which the app cannot drop
//!   while they are that; so the app's own `alter table .. drop column` keeps working.
//! - It writes to tables without any constraint, for the app's `or ignore` and `or replace`
//!   override conflict handling inside trigger bodies.
//! - It may record too much, never too little: the claim reads the row and decides.
//!
//! REPLACE evicts rows without firing a delete trigger. Where it can evict a row whose key is not
//! exactly that of the new row, BEFORE triggers note the keys of the rows that equal the new one on
//! any unique key (*candidates*), and AFTER triggers record a delete for those that are gone. What they
//! cannot see is told by [`unseen`]; the service's ledger finds it (`sqlite::ledger`).

use super::tokens;
use crate::model::{Affinity, Table, Unique};
use crate::sqlite::quote::{ident, literal};

/// The time of a change in milliseconds since 1970, in every SQLite. Rounded: a Julian day is no exact
/// double, and cut off, every other edit would count as a millisecond older than it is.
const AT: &str = "cast((julianday('now') - 2440587.5) * 86400000 + 0.5 as integer)";
/// Captures unless the service is applying remote rows; a missing guard row captures.
const GUARD: &str = "when (select v from tidewater_guard where id = 1) is not 1";
/// The kinds of trigger: before and after, insert, update and delete.
pub(super) const TAGS: [&str; 5] = ["ai", "au", "ad", "bi", "bu"];

/// A trigger as it has to stand in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// The table it is on.
    pub table: String,
    /// Its `create trigger` statement.
    pub sql: String,
}

/// What happens to candidates that are still there after a row was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Candidates {
    /// REPLACE cannot evict a row with another key: no candidates at all.
    Unneeded,
    /// They are forgotten: nothing writes the table in the middle of a statement on it.
    Cleared,
    /// They stay until the service prunes them: the table may be written while an outer statement on
    /// it has yet to evict them (see `nesting`).
    Kept,
}

/// The triggers of one table. `nested` says whether the table may be written in the middle of a
/// statement on it.
pub fn trigger_sql(table: &Table, nested: bool) -> Vec<Trigger> {
    let candidates = if nested {
        Candidates::Kept
    } else if lookups(table, false).is_empty() {
        Candidates::Unneeded
    } else {
        Candidates::Cleared
    };
    build(table, candidates)
}

/// The unique indexes through which a REPLACE may evict a row that no trigger can name, each with what it
/// is on: they take the ledger. An expression cannot be asked of `new`; a generated column can, but in a
/// BEFORE trigger SQLite makes it from the columns that the trigger happens to name.
pub fn unseen(table: &Table) -> Vec<(&str, &'static str)> {
    table
        .uniques
        .iter()
        .filter_map(|u| Some((u.name.as_str(), beyond_triggers(table, u)?)))
        .collect()
}

fn beyond_triggers(table: &Table, unique: &Unique) -> Option<&'static str> {
    let named = || unique.columns.iter().map(|(name, _)| name);
    let generated = |name: &str| {
        let mut columns = table.columns.iter();
        columns.any(|c| c.generated && c.name.eq_ignore_ascii_case(name))
    };
    if named().any(Option::is_none) {
        Some("an expression")
    } else if named().flatten().any(|name| generated(name)) {
        Some("a generated column")
    } else {
        None
    }
}

/// Columns that together are unique, with the collation of their index.
struct Lookup<'a> {
    columns: Vec<(&'a str, &'a str)>,
    condition: Option<&'a str>,
}

/// The unique keys through which REPLACE may evict a row with another key, and the primary key in any
/// case if `with_key`.
fn lookups(table: &Table, with_key: bool) -> Vec<Lookup<'_>> {
    let mut out = Vec::new();
    let key = || table.key.iter().map(String::as_str).zip(collations(table));
    // Two keys may be equal to SQLite and yet not the same key: another case, trailing spaces, or 1
    // and 1.0 in a column that converts nothing.
    let wide = key().any(|(name, collation)| {
        !collation.eq_ignore_ascii_case("binary")
            || table.column(name).is_none_or(|c| {
                c.affinity() == Affinity::Blob || c.declared.eq_ignore_ascii_case("any")
            })
    });
    if wide || with_key {
        out.push(Lookup {
            columns: key().collect(),
            condition: None,
        });
    }
    for u in &table.uniques {
        if beyond_triggers(table, u).is_some() {
            continue;
        }
        let columns: Option<Vec<(&str, &str)>> = u
            .columns
            .iter()
            .map(|(c, collation)| Some((c.as_deref()?, collation.as_str())))
            .collect();
        if let Some(columns) = columns {
            // Only rows inside a partial index can be evicted through it, and only with its
            // condition can SQLite use it to find them.
            let condition = if u.partial {
                table
                    .indexes
                    .iter()
                    .find(|sql| tokens::name_after(sql, "index").is_some_and(|n| n == u.name))
                    .and_then(|sql| tokens::partial_condition(sql))
            } else {
                None
            };
            out.push(Lookup { columns, condition });
        }
    }
    out
}

fn collations(table: &Table) -> impl Iterator<Item = &str> {
    table
        .key_collations
        .iter()
        .map(String::as_str)
        .chain(std::iter::repeat("BINARY"))
}

/// `k1, k2, ...` with a prefix.
pub(super) fn log_columns(width: usize, prefix: &str) -> String {
    list((1..=width).map(|i| format!("{prefix}k{i}")), ", ")
}

fn list(parts: impl IntoIterator<Item = String>, separator: &str) -> String {
    parts.into_iter().collect::<Vec<_>>().join(separator)
}

/// The key's columns as `of."a", of."b"`.
pub(super) fn key_columns(table: &Table, of: &str) -> String {
    list(table.key.iter().map(|k| format!("{of}.{}", ident(k))), ", ")
}

/// Whether row `e` of the table has exactly the key k1.. of `c`, in a form that finds `e` by its index.
pub(super) fn exact(table: &Table) -> String {
    list(
        table
            .key
            .iter()
            .zip(collations(table))
            .enumerate()
            .map(|(i, (k, collation))| {
                let (k, i) = (ident(k), i + 1);
                let by_index = if collation.eq_ignore_ascii_case("binary") {
                    String::new()
                } else {
                    format!("e.{k} = c.k{i} collate {} and ", ident(collation))
                };
                format!(
                    "{by_index}e.{k} = c.k{i} collate binary and typeof(e.{k}) = typeof(c.k{i})"
                )
            }),
        " and ",
    )
}

pub(super) fn build(table: &Table, candidates: Candidates) -> Vec<Trigger> {
    let b = Builder {
        table,
        name: literal(&table.name),
        ks: log_columns(table.key.len(), ""),
    };
    let with = candidates != Candidates::Unneeded;
    let settle = || with.then(|| b.settle(candidates)).into_iter().flatten();
    let mut out = vec![
        b.trigger("ai", "after insert", settle().chain([b.log("I", "new")])),
        b.trigger(
            "au",
            "after update",
            settle().chain([b.log_old_key(), b.log_updated()]),
        ),
        b.trigger(
            "ad",
            "after delete",
            match candidates {
                Candidates::Unneeded => vec![b.log("D", "old")],
                Candidates::Cleared => vec![b.log("D", "old"), b.forget_old()],
                Candidates::Kept => settle().chain([b.log("D", "old")]).collect(),
            },
        ),
    ];
    for (tag, event, itself) in [
        ("bi", "before insert", "new"),
        ("bu", "before update", "old"),
    ] {
        let mut body = Vec::new();
        if table.rows.is_some() {
            body.push(b.log_standing(itself));
        }
        if with {
            body.extend(b.note(itself, candidates));
        }
        if !body.is_empty() {
            out.push(b.trigger(tag, event, body));
        }
    }
    out
}

struct Builder<'a> {
    table: &'a Table,
    name: String,
    ks: String,
}

impl Builder<'_> {
    fn trigger(&self, tag: &str, event: &str, body: impl IntoIterator<Item = String>) -> Trigger {
        let name = format!("tidewater_{tag}_{}", self.table.name);
        let sql = format!(
            "create trigger {} {event} on {}\n{GUARD}\nbegin\n{}end",
            ident(&name),
            ident(&self.table.name),
            list(body.into_iter().map(|s| format!("  {s};\n")), ""),
        );
        Trigger {
            name,
            table: self.table.name.clone(),
            sql,
        }
    }

    fn log(&self, op: &str, of: &str) -> String {
        format!(
            "insert into tidewater_log (tbl, op, at, {}) values ({}, '{op}', {AT}, {})",
            self.ks,
            self.name,
            key_columns(self.table, of)
        )
    }

    /// The row after an update. Where rows have levels of their own, one that came under another key
    /// is new there: the claim must not take the key for one that was sent.
    fn log_updated(&self) -> String {
        if self.table.rows.is_none() {
            return self.log("U", "new");
        }
        format!(
            "insert into tidewater_log (tbl, op, at, {}) values ({}, case when {} then 'I' else 'U' end, {AT}, {})",
            self.ks,
            self.name,
            self.differs("old", "new"),
            key_columns(self.table, "new")
        )
    }

    /// The delete of the old key, if the key is not the same any more in value, type and bytes.
    fn log_old_key(&self) -> String {
        format!(
            "insert into tidewater_log (tbl, op, at, {}) select {}, 'D', {AT}, {} where {}",
            self.ks,
            self.name,
            key_columns(self.table, "old"),
            self.differs("old", "new")
        )
    }

    /// Records, ahead of the write, a row that stands under the new key already and is not the row
    /// `itself`. By that the claim tells a key that was new from one whose row was replaced: of a row
    /// that is gone by then, and that nobody has heard of, not even the key may leave.
    fn log_standing(&self, itself: &str) -> String {
        let equal = list(
            self.table
                .key
                .iter()
                .zip(collations(self.table))
                .map(|(k, collation)| {
                    let k = ident(k);
                    format!("e.{k} = new.{k} collate {}", ident(collation))
                }),
            " and ",
        );
        let other = if itself == "old" {
            format!(" and ({})", self.differs("e", "old"))
        } else {
            String::new()
        };
        format!(
            "insert into tidewater_log (tbl, op, at, {}) select {}, 'U', {AT}, {} from {} as e where {equal}{other}",
            self.ks,
            self.name,
            key_columns(self.table, "e"),
            ident(&self.table.name),
        )
    }

    /// Whether two rows of the table have different keys; NULLs are equal to one another.
    fn differs(&self, a: &str, b: &str) -> String {
        list(
            self.table.key.iter().map(|k| {
                let k = ident(k);
                format!(
                    "{a}.{k} is not {b}.{k} collate binary or typeof({a}.{k}) <> typeof({b}.{k})"
                )
            }),
            " or ",
        )
    }

    /// Whether row `e` has exactly the key of candidate `c`.
    fn exact(&self) -> String {
        exact(self.table)
    }

    /// Notes the rows that equal the new one on a unique key and are not the row `itself`.
    fn note(&self, itself: &str, candidates: Candidates) -> Vec<String> {
        let table = self.table;
        // Before an insert, the key that SQLite is going to assign reads as -1.
        let unassigned = if itself == "new" && table.key.len() == 1 && !table.without_rowid {
            format!(" or new.{} = -1", ident(&table.key[0]))
        } else {
            String::new()
        };
        // What is kept is noted once, so the candidates are never more than the table has rows.
        let once = if candidates == Candidates::Kept {
            format!(
                " and not exists (select 1 from tidewater_candidate as c where c.tbl = {} and {})",
                self.name,
                self.exact()
            )
        } else {
            String::new()
        };
        let mut out = Vec::new();
        // An update may evict the row that has its new key and then find its own row gone, deleted by a
        // foreign key action; then no trigger follows that would record the new key.
        let with_key = itself == "old" && candidates == Candidates::Kept;
        for lookup in lookups(table, with_key) {
            let note = |on: String| {
                format!(
                    "insert into tidewater_candidate (tbl, {}) select {}, {} from {} as e where {on}{} and ({}{unassigned}){once}",
                    self.ks,
                    self.name,
                    key_columns(table, "e"),
                    ident(&table.name),
                    lookup
                        .condition
                        .map(|c| format!(" and ({c})"))
                        .unwrap_or_default(),
                    self.differs("e", itself),
                )
            };
            let equal = |columns: &[(&str, &str)]| {
                columns
                    .iter()
                    .map(|(c, collation)| {
                        let c = ident(c);
                        format!("e.{c} = new.{c} collate {}", ident(collation))
                    })
                    .collect::<Vec<_>>()
            };
            out.push(note(equal(&lookup.columns).join(" and ")));
            // REPLACE turns a NULL that is not allowed into the column's default, after this trigger.
            let (defaulted, others): (Vec<_>, Vec<_>) =
                lookup.columns.into_iter().partition(|(name, _)| {
                    table
                        .column(name)
                        .is_some_and(|c| c.not_null && c.has_default && !c.generated)
                });
            if !defaulted.is_empty() {
                let null = list(
                    defaulted
                        .iter()
                        .map(|(c, _)| format!("new.{} is null", ident(c))),
                    " or ",
                );
                let mut terms = vec![format!("({null})")];
                terms.extend(equal(&others));
                out.push(note(terms.join(" and ")));
            }
        }
        out
    }

    /// Records a delete for each candidate that is gone, and forgets it.
    fn settle(&self, candidates: Candidates) -> Vec<String> {
        let table = ident(&self.table.name);
        let gone = format!(
            "not exists (select 1 from {table} as e where {})",
            self.exact()
        );
        let log = format!(
            "insert into tidewater_log (tbl, op, at, {}) select c.tbl, 'D', {AT}, {} from tidewater_candidate as c where c.tbl = {} and {gone}",
            self.ks,
            log_columns(self.table.key.len(), "c."),
            self.name,
        );
        let forget = if candidates == Candidates::Kept {
            format!(
                "delete from tidewater_candidate where id in (select c.id from tidewater_candidate as c where c.tbl = {} and {gone})",
                self.name
            )
        } else {
            format!("delete from tidewater_candidate where tbl = {}", self.name)
        };
        vec![log, forget]
    }

    /// Forgets the candidate that was just deleted, for its delete is recorded.
    fn forget_old(&self) -> String {
        let same = list(
            self.table.key.iter().enumerate().map(|(i, k)| {
                let (k, i) = (ident(k), i + 1);
                format!("k{i} is old.{k} collate binary and typeof(k{i}) = typeof(old.{k})")
            }),
            " and ",
        );
        format!(
            "delete from tidewater_candidate where tbl = {} and {same}",
            self.name
        )
    }
}
