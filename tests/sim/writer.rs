//! The writers: the apps beside their files, and somebody in `psql`.

use super::ghost::Cell;
use super::remote::lock;
use super::schedule::{Sim, Writer};
use rusqlite::{Connection, TransactionBehavior, params_from_iter, types};
use tidewater::model::{Key, Row, Value};

/// All keys of a schedule.
pub fn cells(keys: (usize, usize)) -> Vec<(&'static str, Key)> {
    let mut out = Vec::new();
    for n in 0..keys.0 {
        out.push(("items", Key(vec![Value::Int(n as i64 * 7 + 1)])));
    }
    for n in 0..keys.1 {
        let a = ["x", "\u{e9} \"q\"\n"][n % 2].to_owned();
        out.push(("links", Key(vec![Value::Text(a), Value::Int(n as i64 / 2)])));
    }
    out
}

/// The mark of a row's content.
pub fn mark_of(row: &Row) -> Option<String> {
    match row.get("v") {
        Some(Value::Text(t)) => Some(t.clone()),
        _ => None,
    }
}

fn draw_mark(sim: &mut Sim, refusable: bool) -> String {
    let drawn = sim.rng.u32(0..100);
    if refusable && drawn < sim.profile.bad {
        format!("bad{}", sim.ghost.mark())
    } else if drawn < sim.profile.bad + sim.profile.shared {
        format!("s{}", sim.rng.u8(0..3))
    } else {
        sim.ghost.mark()
    }
}

/// A second column of any type. What several writers write alike is alike in it, too.
fn draw_value(sim: &mut Sim, table: &str, mark: &str) -> Value {
    if mark.starts_with('s') {
        return Value::Null;
    }
    if table == "links" {
        return Value::Real(sim.rng.f64());
    }
    match sim.rng.u8(0..5) {
        0 => Value::Null,
        1 => Value::Int(sim.rng.i64(..)),
        2 => Value::Real(sim.rng.f64() * 1e300),
        3 => Value::Text(format!("\u{1f30a}{}", sim.rng.u32(..))),
        _ => Value::Blob(vec![0, sim.rng.u8(..), 255]),
    }
}

fn sql_value(v: &Value) -> types::Value {
    match v {
        Value::Int(n) => types::Value::Integer(*n),
        Value::Real(r) => types::Value::Real(*r),
        Value::Text(t) => types::Value::Text(t.clone()),
        Value::Blob(b) => types::Value::Blob(b.clone()),
        _ => types::Value::Null,
    }
}

fn key_columns(table: &str) -> &'static [&'static str] {
    if table == "items" {
        &["id"]
    } else {
        &["a", "b"]
    }
}

fn matching(table: &str, from: usize) -> String {
    key_columns(table)
        .iter()
        .enumerate()
        .map(|(i, c)| format!("{c} = ?{}", from + i))
        .collect::<Vec<_>>()
        .join(" and ")
}

fn exists(app: &Connection, table: &str, key: &Key) -> bool {
    app.prepare_cached(&format!(
        "select exists (select 1 from {table} where {})",
        matching(table, 1)
    ))
    .and_then(|mut s| s.query_row(params_from_iter(key.0.iter().map(sql_value)), |r| r.get(0)))
    .expect("a row or none")
}

/// One transaction of a device's app.
pub fn app(sim: &mut Sim, n: usize) {
    let statements = sim.rng.usize(1..4);
    let rolls_back = sim.rng.u8(0..20) == 0;
    // The app's own clock is the device's.
    let at = sim.world.now.get() + sim.nodes[n].skew;
    let mut app = sim.nodes[n].app.take().unwrap_or_else(|| {
        sim.nodes[n].app();
        sim.nodes[n].app.take().expect("open")
    });
    let mut written: Vec<(Cell, Option<String>)> = Vec::new();
    {
        let tx = app
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .expect("the app never waits at a gate");
        let logged: i64 = tx
            .query_row("select coalesce(max(id), 0) from tidewater_log", [], |r| {
                r.get(0)
            })
            .expect("the log");
        for _ in 0..statements {
            let (table, key) = sim.cells[sim.rng.usize(0..sim.cells.len())].clone();
            statement(sim, &tx, table, &key, &mut written);
        }
        tx.execute(
            "update tidewater_log set at = ?1 where id > ?2",
            [at, logged],
        )
        .expect("the log");
        if !rolls_back {
            tx.commit().expect("the app's commit");
        }
    }
    sim.nodes[n].app = Some(app);
    if rolls_back {
        return;
    }
    for (cell, mark) in &written {
        let over = sim.nodes[n].holds.get(cell).copied();
        let id = sim.ghost.write(cell.clone(), mark.clone(), over, Some(n));
        sim.nodes[n].holds.insert(cell.clone(), id);
    }
    sim.told(|| format!("app {n} writes {written:?}"));
}

fn statement(
    sim: &mut Sim,
    tx: &Connection,
    table: &'static str,
    key: &Key,
    written: &mut Vec<(Cell, Option<String>)>,
) {
    let mark = draw_mark(sim, true);
    let value = draw_value(sim, table, &mark);
    let cell = |k: &Key| (table.to_owned(), k.encode());
    let content = [types::Value::Text(mark.clone()), sql_value(&value)];
    let keyed: Vec<types::Value> = key.0.iter().map(sql_value).collect();
    let here = exists(tx, table, key);
    let columns = key_columns(table).join(", ");
    let places = if table == "items" {
        "?1, ?2, ?3"
    } else {
        "?1, ?2, ?3, ?4"
    };
    let insert = |or: &str| format!("insert {or} into {table} ({columns}, v, n) values ({places})");
    let all = || params_from_iter(keyed.iter().chain(&content).cloned().collect::<Vec<_>>());
    let width = key.0.len();
    let kind = sim.rng.u8(0..100);
    if !here {
        let sql = insert(if kind < 30 { "or replace" } else { "" });
        tx.execute(&sql, all()).expect("an insert");
        written.push((cell(key), Some(mark)));
    } else if kind < 55 {
        let sql = format!(
            "update {table} set v = ?{}, n = ?{} where {}",
            width + 1,
            width + 2,
            matching(table, 1)
        );
        tx.execute(&sql, all()).expect("an update");
        written.push((cell(key), Some(mark)));
    } else if kind < 78 {
        let sql = format!("delete from {table} where {}", matching(table, 1));
        tx.execute(&sql, params_from_iter(keyed)).expect("a delete");
        written.push((cell(key), None));
    } else if kind < 90 {
        tx.execute(&insert("or replace"), all()).expect("a replace");
        written.push((cell(key), Some(mark)));
    } else {
        let others: Vec<Key> = sim
            .cells
            .iter()
            .filter(|(t, k)| *t == table && k != key)
            .map(|(_, k)| k.clone())
            .collect();
        let Some(to) = others.get(sim.rng.usize(0..others.len().max(1))) else {
            return;
        };
        // UPDATE OR REPLACE evicts what stands there.
        let sets: Vec<String> = key_columns(table)
            .iter()
            .enumerate()
            .map(|(i, c)| format!("{c} = ?{}", width + 3 + i))
            .collect();
        let sql = format!(
            "update or replace {table} set v = ?{}, n = ?{}, {} where {}",
            width + 1,
            width + 2,
            sets.join(", "),
            matching(table, 1)
        );
        let mut values: Vec<types::Value> = keyed.iter().chain(&content).cloned().collect();
        values.extend(to.0.iter().map(sql_value));
        tx.execute(&sql, params_from_iter(values))
            .expect("a change of the key");
        written.push((cell(key), None));
        written.push((cell(to), Some(mark)));
    }
}

/// One statement, beginning or end of the server-side writer.
pub fn server(sim: &mut Sim) {
    if !sim.server_is_ready() {
        return;
    }
    let kind = sim.rng.u8(0..10);
    if sim.writers.is_empty() || (kind < 2 && sim.writers.len() < 3) {
        let mut server = lock(&sim.server);
        let mut txn = server.begin();
        txn.synchronous = sim.rng.bool();
        let handle = (txn.xid, server.life);
        server.keep(txn);
        drop(server);
        sim.writers.push(Writer {
            handle,
            versions: Vec::new(),
        });
    }
    let w = sim.rng.usize(0..sim.writers.len());
    if kind < 6 {
        put(sim, w);
    } else {
        end(sim, w, kind < 7);
    }
}

fn put(sim: &mut Sim, w: usize) {
    let (table, key) = sim.cells[sim.rng.usize(0..sim.cells.len())].clone();
    let xid = sim.writers[w].handle.0;
    let Some(mut txn) = lock(&sim.server).open.get(&xid).cloned() else {
        return;
    };
    let here = {
        let server = lock(&sim.server);
        let cell = (server.data.tables[table].0, key.encode());
        if server.is_locked(&cell, Some(xid)) {
            return;
        }
        server.row(&txn, &cell).is_some()
    };
    let row = if here && sim.rng.u8(0..4) == 0 {
        None
    } else {
        let mark = draw_mark(sim, false);
        let value = draw_value(sim, table, &mark);
        let names = key_columns(table).iter().map(|c| (*c).to_owned());
        let mut row: Vec<(String, Value)> = names.zip(key.0.iter().cloned()).collect();
        row.push(("v".into(), Value::Text(mark)));
        row.push(("n".into(), value));
        Some(Row(row))
    };
    let told = row.as_ref().and_then(mark_of);
    let id = sim.server_put(&mut txn, table, &key, row);
    sim.writers[w].versions.push(id);
    sim.told(|| format!("server {xid} writes {table} {} {told:?}", key.encode()));
}

/// Ends a transaction of the server-side writer.
pub fn end(sim: &mut Sim, w: usize, rolls_back: bool) {
    let writer = sim.writers.swap_remove(w);
    if rolls_back {
        for id in writer.versions {
            sim.ghost.versions[id].excused = true;
        }
    }
    lock(&sim.server).end(writer.handle, !rolls_back);
    sim.told(|| format!("server {:?} ends, rolled back: {rolls_back}", writer.handle));
}

/// Writes one row of the first table, by the app of a device.
pub fn put_item(sim: &mut Sim, n: usize, id: i64, mark: &str) {
    let at = sim.world.now.get() + sim.nodes[n].skew;
    let app = sim.nodes[n].app();
    app.execute(
        "insert or replace into items (id, v) values (?1, ?2)",
        (id, mark),
    )
    .expect("a write");
    app.execute("update tidewater_log set at = ?1", [at])
        .expect("the log");
    let cell = ("items".to_owned(), Key(vec![Value::Int(id)]).encode());
    let over = sim.nodes[n].holds.get(&cell).copied();
    let id = sim
        .ghost
        .write(cell.clone(), Some(mark.to_owned()), over, Some(n));
    sim.nodes[n].holds.insert(cell, id);
}
