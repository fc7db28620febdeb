//! How the app writes the values of columns whose Postgres type knows one form only: learned from its
//! own newest rows, once, and offered to the workspace, where the first form to be offered stays.
//!
//! Until a form holds, every value is kept in the workspace as it was written; so nothing depends on
//! when this happens.

use super::device::Device;
use crate::error::Result;
use crate::model::{Form, Wire};
use crate::remote::{Mirror, Remote, Tracked};
use crate::sqlite::app_row;
use crate::sqlite::fault::OrFault;
use crate::sqlite::local::{Connection, set_mirror};
use std::collections::BTreeMap;

/// The newest rows that are looked at.
const ROWS: usize = 500;

/// Whether a mirror has columns without a form.
fn is_open(t: &Tracked) -> bool {
    open(t).next().is_some()
}

/// Whether nothing of these tables is left to be learned.
pub fn are_settled(tables: &[Tracked]) -> bool {
    !tables.iter().any(is_open)
}

/// The columns whose form is not known yet.
fn open(t: &Tracked) -> impl Iterator<Item = (&str, crate::model::Typed)> {
    t.table.replicated().filter_map(|c| {
        let known = t.mirror.forms.contains_key(&c.name) || t.table.key.contains(&c.name);
        match t.mirror.wires.get(&c.name) {
            Some(Wire::Typed(typed)) if typed.has_forms() && !known => {
                Some((c.name.as_str(), *typed))
            }
            _ => None,
        }
    })
}

fn learn(conn: &Connection, t: &Tracked) -> Result<BTreeMap<String, Form>> {
    let mut out = BTreeMap::new();
    for (column, typed) in open(t) {
        let values = app_row::newest(conn, &t.table, column, ROWS)
            .or_fault("reading how the app writes its values")?;
        if let Some(form) = typed.learn(values.iter()) {
            out.insert(column.to_owned(), form);
        }
    }
    Ok(out)
}

/// The mirror with the forms that hold, after this device offered its own.
pub async fn offer<R: Remote>(device: &Device<R>, t: &Tracked) -> Result<Mirror> {
    let mut mirror = t.mirror.clone();
    if is_open(t) {
        let learned = learn(device.local.conn(), t)?;
        if !learned.is_empty() {
            mirror.forms = device.remote.offer_forms(t, &learned).await?;
        }
    }
    Ok(mirror)
}

/// Offers what can be learned by now.
pub async fn settle<R: Remote>(device: &mut Device<R>) -> Result<()> {
    let before = device.tables.clone();
    for t in before.iter().filter(|t| is_open(t)) {
        let mirror = offer(device, t).await?;
        if mirror != t.mirror {
            set_mirror(device.local.conn(), &t.table.name, Some(&mirror))?;
        }
    }
    if before.iter().any(is_open) {
        device.reload()?;
    }
    Ok(())
}
