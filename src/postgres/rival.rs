//! The slow path of one group: what did not simply apply meets its rival under the row's lock, the
//! model decides, and whoever loses is kept whole in the same transaction.

use super::decode::{get, key, key_exprs, row};
use super::grave;
use super::judge;
use super::kin;
use super::push::Done;
use super::push_sql::{self, Group, key_match, keys_as_u};
use super::quote::{Statement, ident, qualified};
use super::session::Session;
use super::typed;
use crate::error::{Code, Disposition, Error, Result};
use crate::model::{ChangeKey, Key, Kind, Op, Row, Side, Stamp, Value, decide, kind_of};
use crate::remote::{Batch, Item, Outcome, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::types::Type;

/// A version on the server that a pushed change meets.
pub struct Rival {
    change: String,
    xid: String,
    device: String,
    /// Own or seen by the change's base.
    seen: bool,
    /// Every column of the mirror; `None` for a tombstone.
    row: Option<Row>,
}

/// One group on the slow path.
pub struct Rivals<'a> {
    /// The open transaction.
    pub session: &'a Session,
    /// The workspace.
    pub schema: &'a str,
    /// The batch.
    pub batch: &'a Batch,
    /// The group.
    pub group: &'a Group<'a>,
}

const WHAT: &str = "sending a batch";

/// Rows of the server that are in memory at once.
const RIVALS: usize = 4;

/// A value that slipped past the check before sending.
pub fn refused(r: Refusal) -> Error {
    Error::new(
        Code::InvalidPayload,
        r.message,
        "correct the row in the app",
    )
    .with_sqlstate(r.sqlstate)
    .with_disposition(Disposition::Row)
}

impl Rivals<'_> {
    /// Applies the group and adds what became of its items.
    pub async fn apply(&self, done: &mut Done) -> Result<()> {
        let written = self.write(self.group, false).await?;
        let mut graves = self.tombstones().await?;
        let missing: Vec<usize> = self
            .group
            .members
            .iter()
            .copied()
            .filter(|i| !written.contains(&self.batch.items[*i].key.encode()))
            .collect();
        let mut rest = missing.as_slice();
        let mut rows = BTreeMap::new();
        let mut forced = Vec::new();
        for &i in &self.group.members {
            let item = &self.batch.items[i];
            let pk = item.key.encode();
            let grave = graves.remove(&pk);
            if written.contains(&pk) {
                let outcome = self.written(item, grave, done).await?;
                done.outcomes.push((i, outcome));
                continue;
            }
            if rest.first() == Some(&i) {
                // A few at a time: each is a whole row of whatever size.
                let (now, later) = rest.split_at(rest.len().min(RIVALS));
                let keys: Vec<&Key> = now.iter().map(|i| &self.batch.items[*i].key).collect();
                rows = self.rows(&keys).await?;
                rest = later;
            }
            match self.meet(item, rows.remove(&pk), grave, done).await? {
                Some(outcome) => done.outcomes.push((i, outcome)),
                None => forced.push(i),
            }
        }
        self.force(forced, done).await
    }

    fn seen_by_item(item: &Item, rival: &Rival) -> bool {
        let tail = tail_of(&rival.change);
        rival.seen || item.seen.iter().any(|t| t == tail)
    }

    /// Runs the group's statement; returns the keys that came back.
    async fn write(&self, g: &Group<'_>, forced: bool) -> Result<BTreeSet<String>> {
        let statement = match g.op {
            Op::Upsert => push_sql::upsert(self.schema, self.batch, g, forced),
            Op::Delete => push_sql::delete(self.schema, self.batch, g, forced),
        }
        .map_err(refused)?;
        let rows = self.session.query(&statement, WHAT).await?;
        if g.op == Op::Delete {
            let sign = push_sql::own_tombstones(self.schema, self.batch, g);
            self.session.query(&sign, WHAT).await?;
        } else if self.is_meddled_with().await? {
            let disown = push_sql::disown(self.schema, self.batch, g).map_err(refused)?;
            self.session.query(&disown, WHAT).await?;
        }
        let t = g.tracked;
        let written = rows
            .iter()
            .map(|r| Ok(key(r, 0, &t.table, &t.mirror)?.encode()))
            .collect::<Result<BTreeSet<String>>>()?;
        for s in typed::keep(self.schema, self.batch, g, |pk| written.contains(pk)) {
            self.session.query(&s, WHAT).await?;
        }
        Ok(written)
    }

    /// Whether somebody's trigger may rewrite rows of this table before they are stored.
    async fn is_meddled_with(&self) -> Result<bool> {
        let name = self.group.tracked.table.name.as_str();
        let count = push_sql::count_meddlers(self.schema, &[name]);
        let rows = self.session.query(&count, WHAT).await?;
        Ok(rows.first().map(|r| get::<i64>(r, 0)).transpose()? != Some(0))
    }

    /// The tombstones under the group's keys, locked, except those this transaction just made.
    async fn tombstones(&self) -> Result<BTreeMap<String, Rival>> {
        let g = self.group;
        let mut s = Statement::default();
        let id = s.bind(g.tracked.mirror.id, Type::INT4);
        let pks = s.bind(g.pks(self.batch), Type::TEXT_ARRAY);
        let device = s.text(&self.batch.device);
        let seen = judge::tombstone_seen(&mut s, "g", g.base);
        s.sql = format!(
            "select g.pk, g.tidewater_change, g.tidewater_xid::text, g.tidewater_device, \
             g.tidewater_device = {device} or {seen} \
             from {}.tidewater_tombstones g \
             where g.table_id = {id} and g.pk = any({pks}::text[]) \
             and g.tidewater_xid <> pg_current_xact_id() order by g.pk for update",
            ident(self.schema)
        );
        let mut out = BTreeMap::new();
        for r in self.session.query(&s, WHAT).await? {
            let rival = Rival {
                change: get(&r, 1)?,
                xid: get(&r, 2)?,
                device: get(&r, 3)?,
                seen: get(&r, 4)?,
                row: None,
            };
            out.insert(get(&r, 0)?, rival);
        }
        Ok(out)
    }

    /// The rows under these keys, locked, with every column that the mirror has.
    pub async fn rows(&self, keys: &[&Key]) -> Result<BTreeMap<String, Rival>> {
        if keys.is_empty() {
            return Ok(BTreeMap::new());
        }
        let t = self.group.tracked;
        // Whoever loses is kept whole: redacted columns and those that only others know included.
        let columns: Vec<_> = t
            .table
            .columns
            .iter()
            .filter(|c| !c.generated)
            .filter_map(|c| t.mirror.wires.get(&c.name).map(|w| (c, *w)))
            .collect();
        let mut s = Statement::default();
        let from = keys_as_u(&mut s, t, keys).map_err(refused)?;
        let device = s.text(&self.batch.device);
        let seen = judge::row_seen(&mut s, "m", t, self.group.base).map_err(refused)?;
        let mut picks = key_exprs("m", &t.table, &t.mirror);
        let width = picks.len();
        for (c, w) in &columns {
            picks.push(typed::select(self.schema, &mut s, "m", t, &c.name, *w));
        }
        let mut known: Vec<String> = columns.iter().map(|(c, _)| c.name.clone()).collect();
        known.extend(["change", "xid", "device"].map(|c| format!("tidewater_{c}")));
        let known = s.bind(known, Type::TEXT_ARRAY);
        let order: Vec<String> = t
            .table
            .key
            .iter()
            .map(|c| format!("m.{}", ident(c)))
            .collect();
        s.sql = format!(
            "select {}, m.tidewater_change, m.tidewater_xid::text, m.tidewater_device, \
             m.tidewater_device = {device} or {seen}, (to_jsonb(m) - {known}::text[])::text \
             from {} m join {from} on {} \
             order by {} for update of m",
            picks.join(", "),
            qualified(self.schema, &t.table.name),
            key_match(t),
            order.join(", "),
        );
        let mut out = BTreeMap::new();
        for r in self.session.query(&s, WHAT).await? {
            let after = width + columns.len();
            let mut whole = row(&r, width, &columns)?;
            whole.0.extend(foreign(get(&r, after + 4)?));
            let rival = Rival {
                change: get(&r, after)?,
                xid: get(&r, after + 1)?,
                device: get(&r, after + 2)?,
                seen: get(&r, after + 3)?,
                row: Some(whole),
            };
            out.insert(key(&r, 0, &t.table, &t.mirror)?.encode(), rival);
        }
        Ok(out)
    }

    /// A row that was written over a tombstone that lay there: the tombstone goes, unless it was
    /// concurrent and wins; then the row goes again and the tombstone stays as it was.
    async fn written(&self, item: &Item, grave: Option<Rival>, done: &mut Done) -> Result<Outcome> {
        let Some(grave) = grave else {
            return Ok(Outcome::Applied);
        };
        if item.op == Op::Delete {
            // The delete removed a row and its own tombstone replaced this one.
            return Ok(Outcome::Applied);
        }
        if Self::seen_by_item(item, &grave) {
            grave::bury_not(self, item).await?;
            return Ok(Outcome::Applied);
        }
        match self.verdict(item, &grave).await? {
            Side::Local => {
                grave::bury_not(self, item).await?;
                done.conflicts += self.record(item, &grave, true).await?;
                Ok(Outcome::Applied)
            }
            Side::Remote => {
                self.undo(item, &grave).await?;
                done.conflicts += self.record(item, &grave, false).await?;
                Ok(Outcome::Lost)
            }
        }
    }

    /// An item that did not come back meets what stands there. `None`: it is to be written by force.
    async fn meet(
        &self,
        item: &Item,
        row: Option<Rival>,
        grave: Option<Rival>,
        done: &mut Done,
    ) -> Result<Option<Outcome>> {
        let Some(rival) = row.or(grave) else {
            // Neither row nor tombstone: a delete has nothing to do; an upsert was swallowed.
            if item.bury {
                grave::bury(self, item).await?;
            }
            return Ok(Some(match item.op {
                Op::Delete => Outcome::Applied,
                Op::Upsert => swallowed(),
            }));
        };
        if tail_of(&rival.change) == item.change.tail() {
            return Ok(Some(Outcome::Applied));
        }
        let equal = match (&rival.row, item.op) {
            (None, Op::Delete) => true,
            (Some(r), Op::Upsert) => item.row.agrees_with(r),
            _ => false,
        };
        if Self::seen_by_item(item, &rival) {
            return Ok(match (&rival.row, item.op) {
                (None, Op::Delete) => Some(Outcome::Applied),
                _ if rival.seen && rival.row.is_some() => Some(swallowed()),
                _ => None,
            });
        }
        let are_two = equal && kin::have_other_parents(self, item).await?;
        if equal && !are_two {
            return Ok(Some(Outcome::Same));
        }
        if let Some(there) = &rival.row
            && !are_two
            && item.op == Op::Upsert
            && rival.device == "0"
            && self.group.tracked.means_same(&item.row, there)
        {
            // Written in Postgres, where there is one form only: the app's own takes its place.
            return Ok(None);
        }
        match self.verdict(item, &rival).await? {
            Side::Local => {
                done.conflicts += self.record(item, &rival, true).await?;
                Ok(None)
            }
            Side::Remote => {
                done.conflicts += self.record(item, &rival, false).await?;
                Ok(Some(Outcome::Lost))
            }
        }
    }

    /// Writes what won against a version that it had not seen.
    async fn force(&self, members: Vec<usize>, done: &mut Done) -> Result<()> {
        if members.is_empty() {
            return Ok(());
        }
        let group = Group {
            tracked: self.group.tracked,
            op: self.group.op,
            columns: self.group.columns.clone(),
            base: self.group.base,
            members,
        };
        let written = self.write(&group, true).await?;
        for &i in &group.members {
            let item = &self.batch.items[i];
            let outcome = if written.contains(&item.key.encode()) {
                if item.op == Op::Upsert {
                    grave::bury_not(self, item).await?;
                }
                Outcome::Applied
            } else {
                swallowed()
            };
            done.outcomes.push((i, outcome));
        }
        Ok(())
    }

    /// Who wins; the time of the pushed change is cut to the server's now.
    pub async fn verdict(&self, item: &Item, rival: &Rival) -> Result<Side> {
        let s = Statement::fixed(format!(
            "select {}.tidewater_time10(clock_timestamp())",
            ident(self.schema)
        ));
        let rows = self.session.query(&s, WHAT).await?;
        let now10: String = match rows.first() {
            Some(r) => get(r, 0)?,
            None => String::new(),
        };
        let pushed = Stamp::new(&item.change, &self.batch.device, &now10);
        let server = Stamp {
            time10: rival.change.get(..10).unwrap_or_default().to_owned(),
            tail: tail_of(&rival.change).to_owned(),
            device: rival.device.clone(),
        };
        // Content that is to stay on its device is taken back whatever it meets; else, changes taken
        // over by a new identity are decided by time, whatever the policy.
        let table = &self.group.tracked.table;
        let takes_back = item.erase
            && match (item.op, &rival.row) {
                (Op::Delete, _) => true,
                (Op::Upsert, there) => there.as_ref().is_some_and(|r| table.holds_content(r)),
            };
        let policy = if takes_back {
            crate::model::Policy::LocalWins
        } else if item.seen.is_empty() {
            item.policy
        } else {
            crate::model::Policy::LastWriteWins
        };
        Ok(decide(policy, &pushed, &server))
    }

    /// Keeps both sides of a decided conflict; returns how many records were new.
    async fn record(&self, item: &Item, rival: &Rival, pushed_won: bool) -> Result<u32> {
        let rival_op = if rival.row.is_some() {
            Op::Upsert
        } else {
            Op::Delete
        };
        let kind = match kind_of(item.op, item.known, rival_op) {
            // Nobody gave either row its key. What is only repaired here, or has gone by another identity
            // of this file, is one row with an unknown history.
            Kind::InsertInsert
                if self.group.tracked.table.assigns_keys()
                    && item.seen.is_empty()
                    && !item.change.is_repair() =>
            {
                Kind::KeyCollision
            }
            kind => kind,
        };
        self.keep(item, rival, pushed_won, kind, &item.key).await
    }

    /// Keeps both sides under the loser's key.
    pub async fn keep(
        &self,
        item: &Item,
        rival: &Rival,
        pushed_won: bool,
        kind: Kind,
        key: &Key,
    ) -> Result<u32> {
        let loser = if pushed_won {
            tail_of(&rival.change)
        } else {
            item.change.tail()
        };
        let mut s = Statement::default();
        let values = [
            s.text(&ulid::Ulid::generate().to_string()),
            s.text(&item.table),
            s.text(&key.encode()),
            s.text(kind.as_str()),
            s.text(item.policy.as_str()),
            s.bind(pushed_won, Type::BOOL),
            s.text(&self.batch.device),
            s.text(&rival.device),
            s.text(item.change.as_str()),
            s.text(&rival.change),
            s.bind(
                (item.op == Op::Upsert).then(|| item.row.to_json()),
                Type::TEXT,
            ),
            s.bind(rival.row.as_ref().map(Row::to_json), Type::TEXT),
            s.text(loser),
        ];
        s.sql = format!(
            "insert into {}.tidewater_conflicts (id, table_name, pk, kind, policy, pushed_won, \
             pushed_device, server_device, pushed_change, server_change, pushed_row, server_row, \
             loser_tail) values ({}) on conflict do nothing returning true",
            ident(self.schema),
            values.join(", ")
        );
        let rows = self.session.query(&s, WHAT).await?;
        Ok(u32::try_from(rows.len()).unwrap_or(u32::MAX))
    }

    /// Takes back an upsert that lost to a tombstone: the row goes and the tombstone stays as it was,
    /// transaction and all, for whoever has seen it must not see it again.
    async fn undo(&self, item: &Item, grave: &Rival) -> Result<()> {
        let t = self.group.tracked;
        let mut s = Statement::default();
        let from = keys_as_u(&mut s, t, &[&item.key]).map_err(refused)?;
        s.sql = format!(
            "delete from {} m using {from} where {}",
            qualified(self.schema, &t.table.name),
            key_match(t)
        );
        self.session.query(&s, WHAT).await?;
        let mut s = Statement::default();
        let id = s.bind(t.mirror.id, Type::INT4);
        let pk = s.text(&item.key.encode());
        let (change, xid) = (s.text(&grave.change), s.text(&grave.xid));
        let device = s.text(&grave.device);
        s.sql = format!(
            "update {}.tidewater_tombstones set tidewater_change = {change}, \
             tidewater_xid = {xid}::text::xid8, tidewater_device = {device} \
             where table_id = {id} and pk = {pk}",
            ident(self.schema)
        );
        self.session.query(&s, WHAT).await?;
        Ok(())
    }
}

/// Columns that this device does not know, in the form that the server's JSON gives them.
fn foreign(json: &str) -> Vec<(String, Value)> {
    let fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(json).unwrap_or_default();
    fields
        .into_iter()
        .map(|(c, v)| {
            let value = serde_json::from_value(v.clone()).unwrap_or(Value::Text(v.to_string()));
            (c, value)
        })
        .collect()
}

/// The identity of a change key in text; the whole text where it is none of ours.
fn tail_of(change: &str) -> &str {
    ChangeKey::parse(change).map_or(change, |_| &change[change.len().min(10)..])
}

/// The write vanished though nobody else had changed the row.
fn swallowed() -> Outcome {
    Outcome::Refused(Refusal {
        sqlstate: "42501".into(),
        message: "a trigger or policy on the server swallowed the write".into(),
        later: true,
    })
}
