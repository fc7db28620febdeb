//! The rows that refer to a row which lost its key to another (`key_collision`), and whose they are.
//!
//! Two rows met under one key, so a foreign key alone does not say to which of them a third row belongs;
//! the history of the file does, which the retention forgets. So it is written down once the conflict has
//! arrived. Never changes a row of the app; `restore` moves them.

use super::fault::OrFault;
use super::local::{Known, Local, load_tables};
use super::quote::{ident, idents};
use super::value;
use crate::error::Result;
use crate::model::{Key, Kind, Row, Table, Value};
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use std::collections::{BTreeMap, HashSet};

const WHAT: &str = "looking for what belongs to a row";

/// Conflicts of one round.
const ROUND: i64 = 100;

/// A foreign key that refers to the key of a table.
pub struct Link<'k> {
    /// The table that refers.
    pub child: &'k Table,
    /// Its columns.
    pub columns: Vec<String>,
    /// The columns of the parent's key, in the same order.
    pub parents: Vec<String>,
}

impl Link<'_> {
    /// The values by which `child` refers to a row; `None` where one is missing or NULL.
    pub fn values(&self, parent: &Row) -> Option<Vec<Value>> {
        self.parents
            .iter()
            .map(|c| parent.get(c).filter(|v| **v != Value::Null).cloned())
            .collect()
    }

    /// Whether a row of the child's table refers to these values.
    pub fn refers(&self, child: &Row, values: &[Value]) -> bool {
        let theirs = self.columns.iter().map(|c| child.get(c));
        theirs.eq(values.iter().map(Some))
    }

    /// Whether the reference is part of the child's own key.
    pub fn is_in_key(&self) -> bool {
        self.columns.iter().any(|c| self.child.key.contains(c))
    }

    /// Whether the reference is part of a UNIQUE: what collided there does so no more under another parent.
    pub fn is_in_unique(&self) -> bool {
        let uniques = self.child.uniques.iter().flat_map(|u| &u.columns);
        let mut names = uniques.filter_map(|(name, _)| name.as_ref());
        names.any(|name| self.columns.contains(name))
    }

    /// The keys of the rows that refer to these values now.
    pub fn keys(&self, conn: &Connection, values: &[Value]) -> Result<Vec<Key>> {
        let conditions: Vec<String> = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, c)| format!("{} = ?{}", ident(c), i + 1))
            .collect();
        let sql = format!(
            "select {} from {} where {}",
            idents(self.child.key.iter().map(String::as_str)),
            ident(&self.child.name),
            conditions.join(" and ")
        );
        let width = self.child.key.len();
        let mut s = conn.prepare_cached(&sql).or_fault(WHAT)?;
        s.query_map(params_from_iter(values), |r| value::key(r, 0, width))
            .and_then(Iterator::collect)
            .or_fault(WHAT)
    }
}

/// The foreign keys of tracked tables that refer to the key of `table`, or to a part of it.
pub fn links<'k>(conn: &Connection, known: &'k [Known], table: &Table) -> Result<Vec<Link<'k>>> {
    let mut out = Vec::new();
    for k in known {
        let child = &k.table;
        let mut s = conn
            .prepare_cached(
                "select id, \"from\", \"to\" from pragma_foreign_key_list(?1) \
                 where \"table\" = ?2 collate nocase order by id, seq",
            )
            .or_fault(WHAT)?;
        let mut found: BTreeMap<i64, Vec<(String, Option<String>)>> = BTreeMap::new();
        let mut rows = s.query([&child.name, &table.name]).or_fault(WHAT)?;
        while let Some(r) = rows.next().or_fault(WHAT)? {
            let pair = (r.get(1).or_fault(WHAT)?, r.get(2).or_fault(WHAT)?);
            found
                .entry(r.get(0).or_fault(WHAT)?)
                .or_default()
                .push(pair);
        }
        for pairs in found.into_values() {
            let parents: Option<Vec<String>> = pairs
                .iter()
                .enumerate()
                .map(|(i, (_, to))| match to {
                    Some(to) => table
                        .key
                        .iter()
                        .find(|k| k.eq_ignore_ascii_case(to))
                        .cloned(),
                    None => table.key.get(i).cloned(),
                })
                .collect();
            if let Some(parents) = parents {
                let columns = pairs.into_iter().map(|(from, _)| from).collect();
                out.push(Link {
                    child,
                    columns,
                    parents,
                });
            }
        }
    }
    Ok(out)
}

/// A collision that was lost here and whose family was not looked for.
struct Lost {
    id: String,
    table: String,
    pk: String,
    row: Row,
    change: String,
    by: String,
}

/// Writes down what belongs to the rows that lost their keys. Reads without a lock, writes a short line
/// for each conflict.
pub fn note(local: &mut Local) -> Result<()> {
    loop {
        let round = unnoted(&local.conn)?;
        if round.is_empty() {
            return Ok(());
        }
        let known = load_tables(&local.conn)?;
        for lost in round {
            let found = members(&local.conn, &known, &lost)?;
            let text = serde_json::to_string(&found).unwrap_or_default();
            let tx = local.begin()?;
            tx.execute(
                "update tidewater_conflict set children = ?2 where id = ?1",
                [&lost.id, &text],
            )
            .or_fault(WHAT)?;
            tx.commit().or_fault(WHAT)?;
        }
    }
}

fn unnoted(conn: &Connection) -> Result<Vec<Lost>> {
    let mut s = conn
        .prepare_cached(
            "select id, tbl, pk, local, local_change, remote_device from tidewater_conflict \
             where kind = 'key_collision' and winner = 'remote' and children is null limit ?1",
        )
        .or_fault(WHAT)?;
    s.query_map([ROUND], |r| {
        let text: Option<String> = r.get(3)?;
        Ok(Lost {
            id: r.get(0)?,
            table: r.get(1)?,
            pk: r.get(2)?,
            row: text
                .and_then(|t| Row::from_json(&t).ok())
                .unwrap_or_default(),
            change: r.get::<_, Option<String>>(4)?.unwrap_or_default(),
            by: r.get::<_, Option<String>>(5)?.unwrap_or_default(),
        })
    })
    .and_then(Iterator::collect)
    .or_fault(WHAT)
}

/// Tables and keys of the rows that refer to the loser.
fn members(conn: &Connection, known: &[Known], lost: &Lost) -> Result<Vec<(String, String)>> {
    let Some(parent) = known.iter().find(|k| k.table.name == lost.table) else {
        return Ok(Vec::new());
    };
    let sent: Option<(i64, bool)> = conn
        .prepare_cached(
            "select id, coalesce(error_code = 'SYNC-003', 0) from tidewater_outbox \
             where tbl = ?1 and pk = ?2 and change_key = ?3",
        )
        .and_then(|mut s| {
            s.query_row([&lost.table, &lost.pk, &lost.change], |r| {
                Ok((r.get(0)?, r.get(1)?))
            })
            .optional()
        })
        .or_fault(WHAT)?;
    let mut out = Vec::new();
    for link in links(conn, known, &parent.table)? {
        let Some(values) = link.values(&lost.row) else {
            continue;
        };
        let name = &link.child.name;
        let logged = logged(conn, link.child)?;
        out.extend(lost_beside(conn, &link, &values)?);
        for key in link.keys(conn, &values)? {
            let pk = key.encode();
            let edited = match sent {
                _ if logged.contains(&pk) => true,
                Some((entry, _)) => edited_since(conn, name, &pk, entry)?,
                None => false,
            };
            // What lost in its own push was never seen elsewhere: only edits of this file can mean it.
            let only_here = sent.is_some_and(|(_, in_push)| in_push);
            if edited || (!only_here && !came_from(conn, name, &pk, &lost.by)?) {
                out.push((name.clone(), pk));
            }
        }
    }
    Ok(out)
}

/// Rows that referred to the loser and lost their own keys with it.
fn lost_beside(
    conn: &Connection,
    link: &Link<'_>,
    values: &[Value],
) -> Result<Vec<(String, String)>> {
    let mut s = conn
        .prepare_cached(
            "select pk, local from tidewater_conflict where tbl = ?1 and winner = 'remote' \
             and kind in ('key_collision', 'insert_insert', 'unique_collision')",
        )
        .or_fault(WHAT)?;
    let found: Vec<(String, Option<String>)> = s
        .query_map([&link.child.name], |r| Ok((r.get(0)?, r.get(1)?)))
        .and_then(Iterator::collect)
        .or_fault(WHAT)?;
    Ok(found
        .into_iter()
        .filter(|(_, row)| {
            let row = row.as_deref().and_then(|t| Row::from_json(t).ok());
            row.is_some_and(|r| link.refers(&r, values))
        })
        .map(|(pk, _)| (link.child.name.clone(), pk))
        .collect())
}

/// Keys of a table's rows that the app wrote and nobody claimed yet.
fn logged(conn: &Connection, table: &Table) -> Result<HashSet<String>> {
    let mut s = conn
        .prepare_cached("select * from tidewater_log where tbl = ?1")
        .or_fault(WHAT)?;
    let first_key = s.column_index("k1").or_fault(WHAT)?;
    s.query_map([&table.name], |r| {
        Ok(value::key(r, first_key, table.key.len())?.encode())
    })
    .and_then(Iterator::collect)
    .or_fault(WHAT)
}

/// Whether this file wrote a row after an entry. What lost as an edit is another's row now; what lost as
/// a new row is looked for among the conflicts.
fn edited_since(conn: &Connection, table: &str, pk: &str, entry: i64) -> Result<bool> {
    conn.prepare_cached(
        "select exists (select 1 from tidewater_outbox where tbl = ?1 and pk = ?2 and id > ?3 \
         and (coalesce(error_code, '') <> 'SYNC-003' or not known))",
    )
    .and_then(|mut s| s.query_row(params![table, pk, entry], |r| r.get(0)))
    .or_fault(WHAT)
}

/// Whether a device sent this row, and this file has not edited it since, until the two rows met.
pub fn is_theirs(
    conn: &Connection,
    table: &str,
    pk: &str,
    device: &str,
    met_at: i64,
) -> Result<bool> {
    let arrived: Option<i64> = conn
        .prepare_cached(
            "select max(at) from tidewater_inbox where tbl = ?1 and pk = ?2 \
             and status = 'applied' and device = ?3",
        )
        .and_then(|mut s| s.query_row([table, pk, device], |r| r.get(0)))
        .or_fault(WHAT)?;
    let Some(arrived) = arrived else {
        return Ok(false);
    };
    conn.prepare_cached(
        "select not exists (select 1 from tidewater_outbox where tbl = ?1 and pk = ?2 \
         and created_at > ?3 and created_at <= ?4)",
    )
    .and_then(|mut s| s.query_row(params![table, pk, arrived, met_at], |r| r.get(0)))
    .or_fault(WHAT)
}

/// Whether a device sent this row.
fn came_from(conn: &Connection, table: &str, pk: &str, device: &str) -> Result<bool> {
    conn.prepare_cached(
        "select exists (select 1 from tidewater_inbox where tbl = ?1 and pk = ?2 \
         and status = 'applied' and device = ?3)",
    )
    .and_then(|mut s| s.query_row([table, pk, device], |r| r.get(0)))
    .or_fault(WHAT)
}

/// Whether the row of this key is the one that won it, seen from a side that lost it.
pub fn was_taken(conn: &Connection, table: &str, pk: &str, winner: &str) -> Result<bool> {
    conn.prepare_cached(
        "select exists (select 1 from tidewater_conflict where tbl = ?1 and pk = ?2 \
         and kind in (?3, ?4) and winner = ?5)",
    )
    .and_then(|mut s| {
        let kinds = [Kind::KeyCollision.as_str(), Kind::InsertInsert.as_str()];
        s.query_row([table, pk, kinds[0], kinds[1], winner], |r| r.get(0))
    })
    .or_fault(WHAT)
}
