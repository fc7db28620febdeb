//! Preserved originals, written back as new edits: with the guard down, so that capture sees them like any
//! edit of the app.
//!
//! An original goes back under its own key, and what stands there is edited. Only where two rows got one
//! key from their databases (`key_collision`) is neither touched: the original gets a fresh key, and the
//! rows that belong to it follow, those among the conflicts included. One transaction, all or nothing.

use super::app_row;
use super::family::{self, Link};
use super::fault::{OrFault, fault};
use super::install::is_unique;
use super::journal::{self, Detail, Kind, Place};
use super::local::{Known, Local, check_schema, load_tables};
use super::private;
use super::quote::ident;
use crate::error::{Code, Error, Result};
use crate::model::{self, Key, Row, Table, Value};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashMap;

const WHAT: &str = "restoring the original";

/// What was written back.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The conflicts, the one that was asked for first.
    pub conflicts: Vec<String>,
    /// Other rows that refer to the original again.
    pub moved: u64,
}

/// A preserved original: what lost.
struct Original {
    id: String,
    table: String,
    key: Key,
    kind: String,
    /// The losing content; `None` where a delete lost.
    row: Option<Row>,
    /// `local` or `remote`.
    winner: String,
    /// The other device of the conflict.
    other: String,
    detected_at: i64,
    /// The rows that belong to it, as they were noted.
    children: Vec<(String, String)>,
    /// The fresh key that it got before.
    restored: Option<Key>,
}

impl Original {
    fn has_noted(&self, table: &str, pk: &str) -> bool {
        self.children.iter().any(|(t, k)| t == table && k == pk)
    }
}

const COLUMNS: &str =
    "id, tbl, pk, kind, winner, local, remote, remote_device, detected_at, children, restored";

/// Writes the preserved original of a conflict back. Marks the conflict as seen.
pub fn restore(local: &mut Local, id: &str, now_ms: i64) -> Result<Restored> {
    let tx = local.begin()?;
    check_schema(&tx)?;
    let original = original(&tx, id)?.ok_or_else(|| {
        Error::new(
            Code::Configuration,
            format!("there is no conflict {id}"),
            "list them with `tidewater conflicts`",
        )
    })?;
    let known = load_tables(&tx)?;
    let mut work = Work {
        tx: &tx,
        known: &known,
        now_ms,
        fresh: HashMap::new(),
        done: Restored::default(),
    };
    let table = work.table(&original.table)?;
    if original.kind == model::Kind::KeyCollision.as_str() && table.assigns_keys() {
        work.afresh(&original, &[])?;
    } else {
        work.in_place(&original, table)?;
    }
    let done = work.done;
    tx.commit().or_fault(WHAT)?;
    Ok(done)
}

/// Whose rows follow an original.
enum Family<'o> {
    /// Those that were noted when the conflict was lost here.
    Noted(&'o Original),
    /// Those that the device sent which lost it.
    Sent(&'o Original),
    /// All that refer to it: the reference is theirs alone.
    Whole,
}

struct Work<'a> {
    tx: &'a Connection,
    known: &'a [Known],
    now_ms: i64,
    /// The keys of what came back in this transaction, by conflict.
    fresh: HashMap<String, Key>,
    done: Restored,
}

impl<'a> Work<'a> {
    fn table(&self, name: &str) -> Result<&'a Table> {
        let found = self.known.iter().find(|k| k.table.name == name);
        found.map(|k| &k.table).ok_or_else(|| {
            Error::new(
                Code::SchemasDiffer,
                "the table is not tracked any more",
                "the preserved original stays under `tidewater conflicts show`",
            )
            .on_table(name)
        })
    }

    /// Back under its own key.
    fn in_place(&mut self, original: &Original, table: &Table) -> Result<()> {
        match &original.row {
            Some(row) => {
                let row = private::restorable(self.tx, table, &original.key, row)?;
                app_row::write(self.tx, table, &original.key, &row)
            }
            None => app_row::delete(self.tx, table, &original.key).map(|_| ()),
        }
        .map_err(|e| refused(e, table))?;
        self.mark(original, &original.key, false)
    }

    /// Back under a key that no other row has, with `given` for what it referred to itself, and its own.
    fn afresh(&mut self, original: &Original, given: &[(String, Value)]) -> Result<()> {
        let table = self.table(&original.table)?;
        let Some(before) = &original.row else {
            return Ok(());
        };
        let mut row = before.clone();
        given.iter().for_each(|(c, v)| set(&mut row, c, v));
        let key = match &original.restored {
            Some(key) => key.clone(),
            None if table.assigns_keys() => fresh_key(self.tx, table)?,
            None => table.key_of(&row).unwrap_or_else(|| original.key.clone()),
        };
        for (c, v) in table.key.iter().zip(&key.0) {
            set(&mut row, c, v);
        }
        let links = family::links(self.tx, self.known, table)?;
        for link in links.iter().filter(|l| l.child.name == table.name) {
            if let (Some(old), Some(new)) = (link.values(before), link.values(&row))
                && link.refers(before, &old)
            {
                let pairs = link.columns.iter().zip(&new);
                pairs.for_each(|(c, v)| set(&mut row, c, v));
            }
        }
        let row = private::restorable(self.tx, table, &key, &row)?;
        app_row::write(self.tx, table, &key, &row).map_err(|e| refused(e, table))?;
        self.mark(original, &key, true)?;
        self.fresh.insert(original.id.clone(), key);
        let family = if original.winner == "remote" {
            Family::Noted(original)
        } else {
            Family::Sent(original)
        };
        self.follow(&links, before, &row, &family)
    }

    /// The conflict is seen, and where its original is now stands there.
    fn mark(&mut self, original: &Original, key: &Key, afresh: bool) -> Result<()> {
        let pk = key.encode();
        let detail = Detail {
            conflict: Some(original.id.clone()),
            ..Detail::default()
        };
        let place = Place::Row(&original.table, &pk);
        journal::record(self.tx, self.now_ms, Kind::Restored, place, None, &detail)?;
        self.tx
            .execute(
                "update tidewater_conflict set seen = 1, restored = coalesce(?2, restored) where id = ?1",
                params![original.id, afresh.then_some(&pk)],
            )
            .or_fault(WHAT)?;
        self.done.conflicts.push(original.id.clone());
        Ok(())
    }

    /// Lets the family of a row that was `before` refer to it as it is now.
    fn follow(
        &mut self,
        links: &[Link<'a>],
        before: &Row,
        now: &Row,
        family: &Family<'_>,
    ) -> Result<()> {
        for link in links {
            let (Some(old), Some(new)) = (link.values(before), link.values(now)) else {
                continue;
            };
            if old == new {
                continue;
            }
            let given: Vec<(String, Value)> = link.columns.iter().cloned().zip(new).collect();
            let mut back = Vec::new();
            if let Family::Noted(parent) | Family::Sent(parent) = family {
                for child in self.lost_with(parent, link, &old)? {
                    // It may have come back meanwhile, by another of its references.
                    match self.fresh.get(&child.id).or(child.restored.as_ref()) {
                        Some(key) => back.push(key.clone()),
                        None => self.afresh(&child, &given)?,
                    }
                }
            }
            for key in link.keys(self.tx, &old)? {
                if back.contains(&key) || self.belongs(link.child, &key, family)? {
                    self.repoint(link, &key, &given)?;
                }
            }
        }
        Ok(())
    }

    /// Rows that lost their keys beside their parent: kept among the conflicts only, or back from there.
    fn lost_with(
        &self,
        parent: &Original,
        link: &Link<'a>,
        values: &[Value],
    ) -> Result<Vec<Original>> {
        let mut s = self
            .tx
            .prepare_cached(&format!(
                "select {COLUMNS} from tidewater_conflict where tbl = ?1 and winner = ?2 \
                 and id <> ?3 and (kind = 'key_collision' \
                 or kind = 'insert_insert' and ?4 or kind = 'unique_collision' and ?6) \
                 and (winner = 'remote' or remote_device = ?5) order by id"
            ))
            .or_fault(WHAT)?;
        let found: Vec<Stored> = s
            .query_map(
                params![
                    link.child.name,
                    parent.winner,
                    parent.id,
                    link.is_in_key(),
                    parent.other,
                    link.is_in_unique()
                ],
                stored,
            )
            .and_then(Iterator::collect)
            .or_fault(WHAT)?;
        let mut out = Vec::new();
        for s in found {
            if parent.winner == "remote" && !parent.has_noted(&s.table, &s.pk) {
                continue;
            }
            let child = s.read()?;
            if child.row.as_ref().is_some_and(|r| link.refers(r, values)) {
                out.push(child);
            }
        }
        Ok(out)
    }

    fn belongs(&self, table: &Table, key: &Key, family: &Family<'_>) -> Result<bool> {
        let pk = key.encode();
        Ok(match family {
            Family::Whole => true,
            Family::Noted(parent) => {
                parent.has_noted(&table.name, &pk)
                    && !family::was_taken(self.tx, &table.name, &pk, &parent.winner)?
            }
            Family::Sent(parent) => {
                family::is_theirs(self.tx, &table.name, &pk, &parent.other, parent.detected_at)?
                    && !family::was_taken(self.tx, &table.name, &pk, &parent.winner)?
            }
        })
    }

    /// Lets one row refer to other values; where they are part of its key, its own family follows.
    fn repoint(&mut self, link: &Link<'a>, key: &Key, given: &[(String, Value)]) -> Result<()> {
        let table = link.child;
        let names: Vec<&str> = table.key.iter().map(String::as_str).collect();
        let set_to: Vec<(&str, &Value)> = given.iter().map(|(c, v)| (c.as_str(), v)).collect();
        if !link.is_in_key() {
            app_row::update(self.tx, table, key, &set_to).map_err(|e| refused(e, table))?;
            self.done.moved += 1;
            return Ok(());
        }
        let before = app_row::read_columns(self.tx, table, key, &names).or_fault(WHAT)?;
        app_row::rekey(self.tx, table, key, &set_to).map_err(|e| refused(e, table))?;
        self.done.moved += 1;
        let Some(before) = before else { return Ok(()) };
        let mut now = before.clone();
        given
            .iter()
            .filter(|(c, _)| names.contains(&c.as_str()))
            .for_each(|(c, v)| set(&mut now, c, v));
        let links = family::links(self.tx, self.known, table)?;
        self.follow(&links, &before, &now, &Family::Whole)
    }
}

fn set(row: &mut Row, column: &str, value: &Value) {
    match row.0.iter_mut().find(|(c, _)| c == column) {
        Some((_, v)) => v.clone_from(value),
        None => row.0.push((column.to_owned(), value.clone())),
    }
}

fn refused(e: rusqlite::Error, table: &Table) -> Error {
    if is_unique(&e) {
        return Error::new(
            Code::Conflict,
            "another row here holds the unique value of the original",
            "change or delete that row in the app, then restore the original again",
        )
        .on_table(&table.name);
    }
    fault(e, WHAT)
}

/// The key that SQLite would hand out next.
fn fresh_key(tx: &Connection, table: &Table) -> Result<Key> {
    let column = table.key.first().map_or("rowid", String::as_str);
    let sql = format!("select max({}) from {}", ident(column), ident(&table.name));
    let highest: Option<i64> = tx.query_row(&sql, [], |r| r.get(0)).or_fault(WHAT)?;
    let mut last = highest.unwrap_or(0).max(0);
    if table.sql.to_ascii_lowercase().contains("autoincrement") {
        let handed_out: Option<i64> = tx
            .query_row(
                "select seq from sqlite_sequence where name = ?1 collate nocase",
                [&table.name],
                |r| r.get(0),
            )
            .optional()
            .or_fault(WHAT)?;
        last = last.max(handed_out.unwrap_or(0));
    }
    let next = last.checked_add(1).ok_or_else(|| {
        Error::new(
            Code::LocalUnusable,
            "the table has no integer key left",
            "give its rows smaller keys, then restore the original again",
        )
        .on_table(&table.name)
    })?;
    Ok(Key(vec![Value::Int(next)]))
}

/// A conflict as it is stored.
struct Stored {
    id: String,
    table: String,
    pk: String,
    kind: String,
    winner: String,
    local: Option<String>,
    remote: Option<String>,
    other: Option<String>,
    detected_at: i64,
    children: Option<String>,
    restored: Option<String>,
}

fn stored(r: &rusqlite::Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        id: r.get(0)?,
        table: r.get(1)?,
        pk: r.get(2)?,
        kind: r.get(3)?,
        winner: r.get(4)?,
        local: r.get(5)?,
        remote: r.get(6)?,
        other: r.get(7)?,
        detected_at: r.get(8)?,
        children: r.get(9)?,
        restored: r.get(10)?,
    })
}

impl Stored {
    /// Its losing side.
    fn read(self) -> Result<Original> {
        let kind = self.kind.as_str();
        let (loser, deleted) = if self.winner == "local" {
            (self.remote, kind == model::Kind::UpdateDelete.as_str())
        } else {
            (
                self.local,
                [model::Kind::DeleteUpdate.as_str(), "discarded"].contains(&kind),
            )
        };
        if loser.is_none() && !deleted {
            return Err(Error::new(
                Code::Configuration,
                "the original was removed: the row was made LOCAL_ONLY on the device that it came from",
                "nothing to do; acknowledge it with `tidewater conflicts ack`",
            )
            .on_table(&self.table));
        }
        let unreadable = |what: &str| {
            Error::new(
                Code::LocalUnusable,
                format!("a conflict's {what} cannot be read"),
                "restore the file from a backup",
            )
            .on_table(&self.table)
        };
        Ok(Original {
            key: Key::decode(&self.pk).ok_or_else(|| unreadable("key"))?,
            row: loser
                .map(|t| Row::from_json(&t).map_err(|_| unreadable("row")))
                .transpose()?,
            children: self
                .children
                .and_then(|t| serde_json::from_str(&t).ok())
                .unwrap_or_default(),
            restored: self.restored.as_deref().and_then(Key::decode),
            other: self.other.unwrap_or_default(),
            detected_at: self.detected_at,
            id: self.id,
            table: self.table,
            kind: self.kind,
            winner: self.winner,
        })
    }
}

/// The losing side of a conflict; `None` where no conflict has this id.
fn original(conn: &Connection, id: &str) -> Result<Option<Original>> {
    conn.query_row(
        &format!("select {COLUMNS} from tidewater_conflict where id = ?1"),
        [id],
        stored,
    )
    .optional()
    .or_fault(WHAT)?
    .map(Stored::read)
    .transpose()
}
