//! One page of existing rows: read, put on disk, sent, and acknowledged or left to the claim.
//!
//! Owns the batches that have a `first_table`. Never recomposes what was perhaps applied: it is read
//! again, and the ledger says which of the two counts.

use super::{Part, advance, count, forget, give_up, is_carried, move_to_end, part_of, remove};
use crate::error::Result;
use crate::model::{ChangeKey, Key, Op, Policy, Token};
use crate::remote::{Batch, Item, Tracked};
use crate::sqlite::app_row;
use crate::sqlite::fault::OrFault;
use crate::sqlite::local::{Known, Local, check_schema, has_table, load_tables};
use crate::sqlite::outbox::BatchLimits;
use crate::sqlite::state;
use crate::sqlite::value;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

const WHAT: &str = "sending the existing rows";

/// A page: a batch whose items stand in the app's table, not in the outbox.
#[derive(Debug)]
pub struct Page {
    /// The batch, to be applied whole.
    pub batch: Batch,
    /// Whether it was formed before, and perhaps sent.
    pub resumed: bool,
    table: String,
    to: i64,
    /// Log rows that an entry of the outbox carries by now.
    carried: Vec<i64>,
}

/// A batch that was formed before, of either kind.
struct Former {
    seq: i64,
    key: String,
    prev: Option<String>,
    table: Option<String>,
    to: Option<i64>,
}

fn under_way(conn: &Connection) -> Result<Option<Former>> {
    conn.query_row(
        "select seq, batch_key, prev_key, first_table, first_to from tidewater_batch \
         order by seq limit 1",
        [],
        |r| {
            Ok(Former {
                seq: r.get(0)?,
                key: r.get(1)?,
                prev: r.get(2)?,
                table: r.get(3)?,
                to: r.get(4)?,
            })
        },
    )
    .optional()
    .or_fault(WHAT)
}

/// The page that is under way, or the next one. `None` where there is none to be sent now.
pub fn next_page(
    local: &mut Local,
    limits: BatchLimits,
    row_bytes_max: usize,
    policy: &dyn Fn(&str) -> Policy,
) -> Result<Option<Page>> {
    loop {
        let known = load_tables(&local.conn)?;
        let under_way = under_way(&local.conn)?;
        if let Some(former) = under_way {
            let (Some(table), Some(to)) = (former.table, former.to) else {
                // An ordinary batch comes first: the chain has one order.
                return Ok(None);
            };
            let part = part_of(&local.conn, &table)?.map(|(from, _)| (from, to));
            if let Some(read) = read(local, &known, &table, part, None, row_bytes_max, policy)?
                && read.aside.is_empty()
            {
                return Ok(Some(Page {
                    batch: batch(&local.conn, former.seq, former.key, former.prev, read.items)?,
                    resumed: true,
                    table,
                    to,
                    carried: read.carried,
                }));
            }
            // It cannot be told again what it held: see `give_up`.
            let tx = local.begin()?;
            give_up(&tx)?;
            tx.commit().or_fault(WHAT)?;
            return Ok(None);
        }
        let next = known
            .iter()
            .filter(|k| k.mirror.is_some())
            .find_map(|k| match part_of(&local.conn, &k.table.name) {
                Ok(None) => None,
                Ok(Some(part)) => Some(Ok((k.table.name.clone(), part))),
                Err(e) => Some(Err(e)),
            })
            .transpose()?;
        let Some((table, part)) = next else {
            return Ok(None);
        };
        let Some(read) = read(
            local,
            &known,
            &table,
            Some(part),
            Some(limits),
            row_bytes_max,
            policy,
        )?
        else {
            return Ok(None);
        };
        if let Some(page) = form(local, &table, part, read)? {
            return Ok(Some(page));
        }
    }
}

/// What a part of the log comes to.
#[derive(Default)]
struct Read {
    items: Vec<Item>,
    /// The last log row looked at, and the last of those that go with the page.
    seen: i64,
    last: i64,
    /// Log rows whose rows cannot go in a page.
    aside: Vec<i64>,
    carried: Vec<i64>,
}

/// Reads a page's rows, in a transaction for reading alone; `None` where the table is not there.
fn read(
    local: &Local,
    known: &[Known],
    table: &str,
    part: Option<Part>,
    limits: Option<BatchLimits>,
    row_bytes_max: usize,
    policy: &dyn Fn(&str) -> Policy,
) -> Result<Option<Read>> {
    let tx =
        Transaction::new_unchecked(&local.conn, TransactionBehavior::Deferred).or_fault(WHAT)?;
    check_schema(&tx)?;
    let tracked = known.iter().find(|k| k.table.name == table);
    let tracked = tracked.and_then(|k| {
        k.mirror.clone().map(|mirror| Tracked {
            table: k.table.clone(),
            mirror,
        })
    });
    let (Some(t), Some((from, to))) = (tracked, part) else {
        return Ok(None);
    };
    if !has_table(&tx, table)? {
        return Ok(None);
    }
    let policy = policy(table);
    let mut out = Read {
        last: from - 1,
        ..Read::default()
    };
    let rows_max = limits.map_or(i64::MAX, |l| i64::try_from(l.items).unwrap_or(i64::MAX));
    let mut s = tx
        .prepare_cached(
            "select * from tidewater_log where id between ?1 and ?2 and tbl = ?3 and op = 'B' \
             order by id limit ?4",
        )
        .or_fault(WHAT)?;
    let first_key = s.column_index("k1").or_fault(WHAT)?;
    let mut rows = s.query(params![from, to, table, rows_max]).or_fault(WHAT)?;
    let mut bytes = 0_usize;
    while let Some(r) = rows.next().or_fault(WHAT)? {
        let id: i64 = r.get("id").or_fault(WHAT)?;
        let key = value::key(r, first_key, t.table.key.len()).or_fault(WHAT)?;
        let item = item(&tx, &t, key, row_bytes_max, policy)?;
        if let One::Row(item) = &item {
            bytes = bytes.saturating_add(item.row.weight());
            if limits.is_some_and(|l| bytes > l.bytes) && !out.items.is_empty() {
                break;
            }
        }
        out.seen = id;
        match item {
            One::Row(item) => out.items.push(*item),
            // Its delete is logged, and there is nothing else to be said of it.
            One::Gone => {}
            One::Carried => out.carried.push(id),
            One::Aside => {
                out.aside.push(id);
                continue;
            }
        }
        out.last = id;
    }
    Ok(Some(out))
}

/// What one log row comes to.
enum One {
    Row(Box<Item>),
    Gone,
    Carried,
    /// The claim and the server say what is wrong with it.
    Aside,
}

fn item(
    tx: &Connection,
    t: &Tracked,
    key: Key,
    row_bytes_max: usize,
    policy: Policy,
) -> Result<One> {
    if key.has_null() {
        return Ok(One::Aside);
    }
    if is_carried(tx, &t.table.name, &key.encode())? {
        return Ok(One::Carried);
    }
    let Some(row) = app_row::read(tx, &t.table, &key).or_fault(WHAT)? else {
        return Ok(One::Gone);
    };
    let fits = row.weight() <= row_bytes_max
        && row.0.iter().all(|(c, v)| {
            let wire = t.mirror.wires.get(c);
            wire.is_none_or(|w| w.misfit(v).is_none())
        });
    if !fits {
        return Ok(One::Aside);
    }
    Ok(One::Row(Box::new(Item {
        // The smallest time: what stood there at init never beats an edit.
        change: ChangeKey::new(0, crate::world::ulid().random()),
        table: t.table.name.clone(),
        key,
        op: Op::Upsert,
        row,
        base: Token::empty(),
        known: false,
        settle: None,
        seen: Vec::new(),
        policy,
        bury: false,
        erase: false,
    })))
}

fn batch(
    conn: &Connection,
    seq: i64,
    key: String,
    prev: Option<String>,
    items: Vec<Item>,
) -> Result<Batch> {
    Ok(Batch {
        device: state::device_id(conn)?,
        server: state::server(conn)?,
        seq,
        key,
        prev,
        confirmed: state::number(conn, "confirmed")?,
        cursor: state::token(conn)?.last,
        items,
        whole: true,
    })
}

/// Puts a page on disk before it is sent; `None` where nothing of it is to be sent.
fn form(local: &mut Local, table: &str, part: Part, read: Read) -> Result<Option<Page>> {
    let tx = local.begin()?;
    check_schema(&tx)?;
    // Behind all others, where the claim finds them.
    for id in &read.aside {
        move_to_end(&tx, *id)?;
    }
    if read.items.is_empty() {
        remove(&tx, table, part.0, read.seen.max(read.last))?;
        advance(&tx, table, read.seen.max(read.last) + 1)?;
        tx.commit().or_fault(WHAT)?;
        return Ok(None);
    }
    // The end of the part may have moved; its last row must stand.
    advance(&tx, table, part.0)?;
    let seq = state::number(&tx, "push_seq")?;
    let key = crate::world::ulid().to_string();
    let prev = state::get(&tx, "chain_key")?;
    tx.execute(
        "insert into tidewater_batch (seq, batch_key, prev_key, first_table, first_to) \
         values (?1, ?2, ?3, ?4, ?5)",
        params![seq, key, prev, table, read.last],
    )
    .or_fault(WHAT)?;
    state::set_number(&tx, "push_seq", seq + 1)?;
    tx.commit().or_fault(WHAT)?;
    crate::failpoint::hit("first_formed");
    Ok(Some(Page {
        batch: batch(&local.conn, seq, key, prev, read.items)?,
        resumed: false,
        table: table.to_owned(),
        to: read.last,
        carried: read.carried,
    }))
}

/// The page was applied: its log rows go, exactly they, with the batch.
pub fn acknowledge(local: &mut Local, page: &Page, now_ms: i64) -> Result<()> {
    let sent = i64::try_from(page.batch.items.len()).unwrap_or(0);
    let tx = local.begin()?;
    if let Some((from, _)) = part_of(&tx, &page.table)? {
        remove(&tx, &page.table, from, page.to)?;
        advance(&tx, &page.table, page.to + 1)?;
    }
    tx.execute(
        "delete from tidewater_batch where seq = ?1",
        [page.batch.seq],
    )
    .or_fault(WHAT)?;
    state::set_number(&tx, "confirmed", page.batch.seq + 1)?;
    state::set(&tx, "chain_key", &page.batch.key)?;
    let total = state::number(&tx, "synced_total")?;
    state::set_number(&tx, "synced_total", total + sent)?;
    count(&tx, sent, now_ms)?;
    state::set_number(&tx, "last_push_at", now_ms)?;
    state::bump_epoch(&tx)?;
    crate::failpoint::hit("first_ack_before_commit");
    tx.commit().or_fault(WHAT)?;
    crate::failpoint::hit("first_ack_after_commit");
    Ok(())
}

/// Takes a page back that the server has provably not applied; its rows are in the next one.
pub fn release(local: &mut Local, page: &Page) -> Result<()> {
    let tx = local.begin()?;
    take_back(&tx, page)?;
    tx.commit().or_fault(WHAT)
}

fn take_back(tx: &Connection, page: &Page) -> Result<()> {
    tx.execute(
        "delete from tidewater_batch where seq = ?1",
        [page.batch.seq],
    )
    .or_fault(WHAT)?;
    state::set_number(tx, "push_seq", page.batch.seq)
}

/// The same, and leaves its rows to the claim: with `all`, the rest of the table's too.
pub fn leave(local: &mut Local, page: &Page, all: bool) -> Result<()> {
    let tx = local.begin()?;
    take_back(&tx, page)?;
    for id in &page.carried {
        forget(&tx, *id)?;
    }
    if all {
        tx.execute(
            "update tidewater_table set first_from = null, first_to = null where name = ?1",
            [&page.table],
        )
        .or_fault(WHAT)?;
    } else {
        advance(&tx, &page.table, page.to + 1)?;
    }
    tx.commit().or_fault(WHAT)
}
