//! Two rows that claim one unique value: decided under the lock of the row that holds it, like any other
//! conflict, by the same pure function.
//!
//! Only the uniqueness of the SQLite table counts, for that is what every device enforces; a constraint
//! that somebody added on the server stays a refusal. The loser is kept whole under its own key. A pushed
//! row that loses is not written; a holder that loses is deleted, which every device hears of by its
//! tombstone.

use super::decode::{key, key_exprs};
use super::encode::{bind_one, wire_of};
use super::push_sql::{key_match, keys_as_u};
use super::quote::{Statement, ident, qualified};
use super::rival::Rivals;
use crate::error::Result;
use crate::model::{Key, Kind, Side, Unique, Value, Wire};
use crate::remote::Item;

const WHAT: &str = "sending a batch";

/// What became of a collision.
pub enum Settled {
    /// Nothing: the constraint is the server's own, or the holder's own change may yet free the value.
    NotNow,
    /// The pushed row lost; so many conflicts were recorded.
    Lost(u32),
    /// The holders lost and are gone; the row can be written.
    Free(u32),
}

/// Decides between a pushed row and the rows that hold its unique values. Nothing is decided against a row
/// whose own change is still on its way: beside this batch, or `unsettled` in it.
pub async fn settle(rivals: &Rivals<'_>, item: &Item, unsettled: &[&Key]) -> Result<Settled> {
    let beside = item.settle.as_deref().unwrap_or_default();
    let mut holders: Vec<Key> = Vec::new();
    for unique in rivals.group.tracked.table.exclusions() {
        for holder in locked(rivals, item, &unique).await? {
            if !holders.contains(&holder) {
                holders.push(holder);
            }
        }
    }
    let may_move = |k: &Key| unsettled.contains(&k) || beside.contains(&k.encode());
    if holders.iter().any(may_move) {
        return Ok(Settled::NotNow);
    }
    let keys: Vec<&Key> = holders.iter().collect();
    let mut rows = rivals.rows(&keys).await?;
    let mut losers = Vec::new();
    for holder in &holders {
        let Some(rival) = rows.remove(&holder.encode()) else {
            continue;
        };
        if rivals.verdict(item, &rival).await? == Side::Remote {
            let kept = rivals
                .keep(item, &rival, false, Kind::UniqueCollision, &item.key)
                .await?;
            return Ok(Settled::Lost(kept));
        }
        losers.push((holder, rival));
    }
    if losers.is_empty() {
        return Ok(Settled::NotNow);
    }
    let mut kept = 0;
    for (holder, rival) in losers {
        kept += rivals
            .keep(item, &rival, true, Kind::UniqueCollision, holder)
            .await?;
        remove(rivals, holder).await?;
    }
    Ok(Settled::Free(kept))
}

/// The other rows that hold the values of one UNIQUE, locked.
async fn locked(rivals: &Rivals<'_>, item: &Item, unique: &Unique) -> Result<Vec<Key>> {
    let t = rivals.group.tracked;
    let mut s = Statement::default();
    let Some(holds) = holds(rivals, item, unique, &mut s) else {
        return Ok(Vec::new());
    };
    s.sql = format!(
        "select {} from {} m where {holds} for update of m",
        key_exprs("m", &t.table, &t.mirror).join(", "),
        qualified(rivals.schema, &t.table.name)
    );
    rivals
        .session
        .query(&s, WHAT)
        .await?
        .iter()
        .map(|r| key(r, 0, &t.table, &t.mirror))
        .filter(|k| k.as_ref().map_or(true, |k| *k != item.key))
        .collect()
}

/// The condition that a row holds the item's values of a UNIQUE; `None` where the form has no counterpart
/// on the server or a value is NULL.
fn holds(rivals: &Rivals<'_>, item: &Item, unique: &Unique, s: &mut Statement) -> Option<String> {
    let t = rivals.group.tracked;
    if unique.partial {
        return None;
    }
    let mut conditions = Vec::new();
    for (name, collation) in &unique.columns {
        let name = name.as_deref()?;
        let value = item.row.get(name).filter(|v| **v != Value::Null)?;
        let wire = wire_of(&t.mirror, name).ok()?;
        let theirs = format!("m.{}", ident(name));
        let ours = bind_one(s, name, wire, value).ok()?;
        conditions.push(match collation.to_ascii_uppercase().as_str() {
            "NOCASE" if wire == Wire::Text => {
                format!("lower({theirs} collate \"C\") = lower({ours} collate \"C\")")
            }
            "RTRIM" if wire == Wire::Text => {
                format!("rtrim({theirs}, ' ') = rtrim({ours}, ' ')")
            }
            _ => format!("{theirs} = {ours}"),
        });
    }
    (!conditions.is_empty()).then(|| conditions.join(" and "))
}

/// Deletes a holder that lost. Its tombstone stays that of nobody in particular: every device, the pushing
/// one included, hears of it.
async fn remove(rivals: &Rivals<'_>, holder: &Key) -> Result<()> {
    let t = rivals.group.tracked;
    let mut s = Statement::default();
    let from = keys_as_u(&mut s, t, &[holder]).map_err(super::rival::refused)?;
    s.sql = format!(
        "delete from {} m using {from} where {}",
        qualified(rivals.schema, &t.table.name),
        key_match(t)
    );
    rivals.session.query(&s, WHAT).await?;
    Ok(())
}
