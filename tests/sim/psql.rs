//! Somebody in `psql`, beside the server in memory and beside PostgreSQL.

use super::remote::lock;
use super::server::{Handle, Server, Txn, Version};
use std::sync::{Arc, Mutex};
use tidewater::model::{Key, Row, Value};
use tokio_postgres::Client;

/// Somebody in `psql`.
pub enum Psql {
    Memory(Arc<Mutex<Server>>, Option<Handle>),
    Postgres(Box<Client>, Box<Client>),
}

pub fn row(id: i64, v: &str) -> Row {
    Row(vec![
        ("id".into(), Value::Int(id)),
        ("v".into(), Value::Text(v.into())),
    ])
}

/// Writes or deletes one row in a transaction of the server in memory.
fn write(server: &mut Server, txn: &mut Txn, id: i64, v: Option<&str>) {
    let key = Key(vec![Value::Int(id)]);
    let cell = (1, key.encode());
    let change = server.change();
    let version = Version {
        key,
        row: v.map(|v| row(id, v)),
        change,
        xid: txn.xid,
        device: "0".into(),
    };
    txn.locks.insert(cell.clone());
    if v.is_some() {
        txn.rows.insert(cell.clone(), Some(version));
        txn.graves.insert(cell, None);
    } else {
        txn.rows.insert(cell.clone(), None);
        txn.graves.insert(cell, Some(version));
    }
}

impl Psql {
    /// A transaction of its own.
    pub async fn put(&mut self, id: i64, v: Option<&str>) {
        match self {
            Psql::Memory(server, _) => {
                let mut server = lock(server);
                let mut txn = server.begin();
                write(&mut server, &mut txn, id, v);
                let handle = (txn.xid, server.life);
                server.keep(txn);
                server.end(handle, true);
                server.now += 2;
            }
            Psql::Postgres(client, _) => {
                // What comes next has a later time.
                let sql = format!("{}; select pg_sleep(0.002)", sql(id, v));
                client.batch_execute(&sql).await.expect("sql");
            }
        }
    }

    /// A transaction that stays open.
    pub async fn open(&mut self, id: i64, v: &str) {
        match self {
            Psql::Memory(server, open) => {
                let mut server = lock(server);
                let mut txn = server.begin();
                write(&mut server, &mut txn, id, Some(v));
                *open = Some((txn.xid, server.life));
                server.keep(txn);
            }
            Psql::Postgres(_, client) => {
                let sql = format!("begin; {}", sql(id, Some(v)));
                client.batch_execute(&sql).await.expect("sql");
            }
        }
    }

    pub async fn commit(&mut self) {
        match self {
            Psql::Memory(server, open) => lock(server).end(open.take().expect("open"), true),
            Psql::Postgres(_, client) => client.batch_execute("commit").await.expect("commit"),
        }
    }
}

fn sql(id: i64, v: Option<&str>) -> String {
    match v {
        Some(v) => format!(
            "insert into app.items (id, v) values ({id}, '{v}') \
             on conflict (id) do update set v = excluded.v"
        ),
        None => format!("delete from app.items where id = {id}"),
    }
}
