//! The server in memory held against PostgreSQL: one list of steps for both, and the two must tell the
//! same of it. What differs by nature (ids, numbers of transactions, times) is not told.

use super::psql::{Psql, row};
use super::remote::{SimRemote, lock};
use super::server::Server;
use super::sweep::in_a_folder;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidewater::config::Config;
use tidewater::model::{ChangeKey, Key, Op, Policy, Row, Table, Token, Value};
use tidewater::postgres::{self, Options};
use tidewater::remote::{
    Batch, Hello, Item, Outcome, Page, PageRequest, PushAnswer, Remote, ServerState, Tracked,
};
use tidewater::sqlite::local::{Local, load_tables};
use tidewater::sync::{ops::InitOptions, parts};
use tidewater::throwaway;
use tokio_postgres::NoTls;

/// One device's side of the protocol, without a file.
struct Peer {
    id: String,
    seq: i64,
    prev: Option<String>,
    token: Token,
}

struct Talk<'a, R> {
    remote: &'a R,
    tracked: Vec<Tracked>,
    said: Vec<String>,
}

impl<R: Remote> Talk<'_, R> {
    fn say(&mut self, what: &str, answer: String) {
        self.said.push(format!("{what}: {answer}"));
    }

    async fn meet(&mut self, table: &Table, id: &str) -> Peer {
        let hello = Hello {
            device: id.to_owned(),
            name: id.to_owned(),
            tables: vec![table.clone()],
            user_version: 0,
            former: None,
            dropped: Default::default(),
        };
        let workspace = self.remote.prepare(&hello).await.expect("prepared");
        self.tracked = vec![Tracked {
            table: table.clone(),
            mirror: workspace.mirrors["items"].clone(),
        }];
        Peer {
            id: id.to_owned(),
            seq: workspace.push_seq,
            prev: workspace.last_batch,
            token: Token::empty(),
        }
    }

    async fn batch(&self, p: &Peer, items: Vec<Item>) -> Batch {
        let head = self.remote.head(&p.id).await.expect("a head");
        Batch {
            device: p.id.clone(),
            server: ServerState {
                identity: head.identity,
                xmax: 0,
                insert_lsn: 0,
            },
            seq: p.seq,
            key: ulid::Ulid::generate().to_string(),
            prev: p.prev.clone(),
            confirmed: p.seq,
            cursor: p.token.last.clone(),
            items,
            whole: false,
        }
    }

    async fn send(&mut self, what: &str, batch: &Batch) {
        let answer = self.remote.push(batch, &self.tracked).await;
        self.say(what, answer.map_or_else(|e| e.code.to_string(), told));
    }

    async fn push(&mut self, what: &str, p: &mut Peer, items: Vec<Item>) -> Batch {
        let batch = self.batch(p, items).await;
        self.send(what, &batch).await;
        p.seq += 1;
        p.prev = Some(batch.key.clone());
        batch
    }

    /// Reads one page and moves the token.
    async fn page(&mut self, what: &str, p: &mut Peer, rows: usize) -> Page {
        let request = PageRequest {
            device: p.id.clone(),
            former: Vec::new(),
            identity: None,
            token: p.token.clone(),
            rows,
            bytes: 1 << 20,
            tables: self.tracked.clone(),
        };
        let page = self.remote.page(&request).await.expect("a page");
        p.token = page.next.clone();
        let rows: Vec<String> = page
            .rows
            .iter()
            .map(|r| {
                let by = if r.version.device == "0" {
                    "psql"
                } else {
                    &r.version.device
                };
                format!("{}={} by {by}", r.key.encode(), content(&r.version.row))
            })
            .collect();
        let conflicts: Vec<String> = page
            .conflicts
            .iter()
            .map(|c| {
                let (l, r) = (content(&c.local), content(&c.remote));
                format!("{} {l} against {r}, {:?} wins", c.kind.as_str(), c.winner)
            })
            .collect();
        self.say(what, format!("{rows:?} {conflicts:?} more {}", page.more));
        page
    }

    async fn read_all(&mut self, what: &str, p: &mut Peer) {
        while self.page(what, p, 100).await.more {}
    }

    async fn fetch(&mut self, what: &str, p: &Peer, ids: &[i64]) {
        let keys: Vec<Key> = ids.iter().map(|i| Key(vec![Value::Int(*i)])).collect();
        let answer = self
            .remote
            .fetch(&p.id, &p.token, &self.tracked[0], &keys, 1 << 20)
            .await;
        let (_, found) = answer.expect("fetched");
        let found: Vec<String> = found
            .iter()
            .map(|f| {
                let there = f.version.as_ref().map(|v| content(&v.row));
                format!("{} {there:?} seen {}", f.key.encode(), f.seen)
            })
            .collect();
        self.say(what, format!("{found:?}"));
    }
}

fn content(row: &Option<Row>) -> String {
    match row.as_ref().and_then(|r| r.get("v")) {
        Some(Value::Text(t)) => t.clone(),
        _ => "nothing".into(),
    }
}

fn told(answer: PushAnswer) -> String {
    match answer {
        PushAnswer::Done {
            outcomes,
            conflicts,
        } => {
            let outcomes: Vec<String> = outcomes
                .iter()
                .map(|o| match o {
                    Outcome::Refused(r) => format!("refused {}", r.sqlstate),
                    o => format!("{o:?}"),
                })
                .collect();
            format!("{outcomes:?}, {conflicts} conflicts")
        }
        other => format!("{other:?}"),
    }
}

/// A change of a row, at a time that loses against everything or wins.
fn change(p: &Peer, id: i64, v: Option<&str>, late: bool) -> Item {
    let time = if late { i64::MAX } else { 1 };
    Item {
        change: ChangeKey::new(time, ulid::Ulid::generate().random()),
        table: "items".into(),
        key: Key(vec![Value::Int(id)]),
        op: if v.is_some() { Op::Upsert } else { Op::Delete },
        row: v.map_or_else(Row::default, |v| row(id, v)),
        base: p.token.clone(),
        known: true,
        settle: None,
        seen: Vec::new(),
        policy: Policy::LastWriteWins,
        bury: false,
        erase: false,
    }
}

async fn steps<R: Remote>(remote: &R, psql: &mut Psql, table: &Table) -> Vec<String> {
    let mut t = Talk {
        remote,
        tracked: Vec::new(),
        said: Vec::new(),
    };
    let mut a = t.meet(table, "a").await;
    let mut b = t.meet(table, "b").await;
    t.read_all("a reads nothing", &mut a).await;
    t.read_all("b reads nothing", &mut b).await;

    let items = vec![change(&a, 1, Some("a1"), true)];
    let first = t.push("a inserts", &mut a, items).await;
    t.send("the same again", &first).await;
    let mut other = first.clone();
    other.key = "01HF7YAT00000000000000000Z".into();
    t.send("its number under another key", &other).await;
    let mut ahead = t.batch(&a, vec![change(&a, 2, Some("a2"), true)]).await;
    ahead.seq += 1;
    t.send("ahead of the chain", &ahead).await;
    ahead.seq -= 1;
    ahead.prev = Some("01HF7YAT00000000000000000Y".into());
    t.send("off the chain", &ahead).await;
    let page = t.page("its own row does not come back", &mut a, 100).await;
    assert!(page.rows.is_empty());

    let items = vec![change(&b, 1, Some("a1"), false)];
    t.push("b writes the same", &mut b, items).await;
    let items = vec![change(&b, 1, Some("b1"), false)];
    t.push("b loses", &mut b, items).await;
    let items = vec![change(&b, 1, None, false)];
    t.push("b's delete loses", &mut b, items).await;
    t.read_all("b reads", &mut b).await;
    t.read_all("a hears of it", &mut a).await;
    let items = vec![change(&b, 1, Some("b2"), false)];
    t.push("b has seen it", &mut b, items).await;

    psql.put(1, Some("p1")).await;
    let items = vec![change(&a, 1, Some("a3"), false)];
    t.push("a loses against psql", &mut a, items).await;
    let items = vec![change(&a, 1, Some("a4"), true)];
    t.push("a wins against psql", &mut a, items).await;
    t.read_all("a reads", &mut a).await;
    t.read_all("b reads", &mut b).await;

    let items = vec![change(&b, 1, None, false)];
    t.push("b deletes what it has seen", &mut b, items).await;
    let items = vec![change(&b, 77, None, false)];
    t.push("a delete of nothing", &mut b, items).await;
    t.fetch("row, tombstone, nothing", &a, &[1, 77]).await;
    let items = vec![change(&a, 1, Some("a5"), false)];
    t.push("a is older than the delete", &mut a, items).await;
    let items = vec![change(&a, 1, None, false)];
    t.push("both delete", &mut a, items).await;
    t.read_all("a reads the delete", &mut a).await;
    let items = vec![change(&a, 1, Some("a6"), false)];
    t.push("a has seen the delete", &mut a, items).await;
    t.read_all("b reads", &mut b).await;
    t.fetch("the row is there again", &b, &[1]).await;

    psql.put(3, Some("p3")).await;
    psql.put(3, None).await;
    t.read_all("a reads a tombstone of psql", &mut a).await;
    let items = vec![change(&b, 3, Some("b3"), true)];
    t.push("b wins against the tombstone", &mut b, items).await;
    t.read_all("a reads", &mut a).await;
    t.read_all("b reads", &mut b).await;

    psql.open(5, "late").await;
    let items = vec![change(&b, 6, Some("b6"), true)];
    t.push("b is faster", &mut b, items).await;
    t.read_all("a does not see what is open", &mut a).await;
    psql.commit().await;
    t.fetch("not seen by the token", &a, &[5, 6]).await;
    t.read_all("a reads what came late", &mut a).await;
    t.read_all("b reads what came late", &mut b).await;

    for id in 10..15 {
        psql.put(id, Some(&format!("p{id}"))).await;
    }
    t.page("two rows", &mut a, 2).await;
    psql.put(10, Some("meanwhile")).await;
    psql.put(14, Some("meanwhile")).await;
    t.fetch("the middle of a round", &a, &[10, 11, 12, 14])
        .await;
    let items = vec![
        change(&a, 11, Some("seen"), false),
        change(&a, 12, Some("not seen"), false),
    ];
    t.push("a base in the middle of a round", &mut a, items)
        .await;
    while t.page("the round goes on", &mut a, 2).await.more {}
    t.read_all("the next round", &mut a).await;

    let items = vec![
        change(&a, 20, Some("good"), true),
        change(&a, 21, Some("bad"), true),
        change(&a, 22, Some("good"), true),
        change(&a, 23, None, true),
    ];
    let refused = t.push("one of four is refused", &mut a, items).await;
    t.send("and again", &refused).await;
    t.read_all("b reads", &mut b).await;

    let listed = remote
        .list("a", &a.token, &t.tracked[0], None, 3, 1 << 20)
        .await
        .expect("listed");
    t.say("a listing ends at its cap", listed.len().to_string());

    // Deletes go once all have read them.
    let old = b.token.clone();
    let items = vec![change(&a, 20, None, true)];
    t.push("a deletes", &mut a, items).await;
    t.read_all("a reads", &mut a).await;
    t.read_all("b reads", &mut b).await;
    let kept = remote
        .collect("a", 0, Duration::ZERO)
        .await
        .expect("collected");
    t.say("nothing goes before it was read", (kept > 0).to_string());
    for p in [&a, &b] {
        remote.tell(&p.id, &p.token.last).await.expect("told");
    }
    psql.put(30, Some("p30")).await;
    let gone = remote
        .collect("a", 0, Duration::ZERO)
        .await
        .expect("collected");
    t.say("then it goes", (gone > 0).to_string());
    b.token = old;
    let items = vec![change(&b, 20, Some("from the dead"), true)];
    let batch = t.batch(&b, items).await;
    t.send("a base from before", &batch).await;
    t.said
}

fn table(folder: &std::path::Path, config: &Config) -> Table {
    let path = folder.join("table.db");
    rusqlite::Connection::open(&path)
        .and_then(|c| c.execute_batch("create table items (id integer primary key, v text)"))
        .expect("a file");
    let mut config = config.clone();
    config.local.path = Some(path.clone());
    let mut local = Local::open(&path).expect("it opens");
    parts::install(&config, &InitOptions::default(), &mut local).expect("init");
    let known = load_tables(local.conn()).expect("its table");
    known[0].table.clone()
}

async fn in_memory(table: &Table) -> Vec<String> {
    let mut server = Server::new(1, "");
    server.now = tidewater::world::now_ms();
    let server = Arc::new(Mutex::new(server));
    let remote = SimRemote {
        server: Arc::clone(&server),
        line: Arc::default(),
    };
    lock(&remote.line).is_free = true;
    let mut psql = Psql::Memory(server, None);
    steps(&remote, &mut psql, table).await
}

async fn on_postgres(table: &Table, config: &Config) -> Vec<String> {
    let server = throwaway::Server::start(throwaway::Options::default())
        .unwrap_or_else(|e| panic!("{e}\n{}", e.remedy));
    let with_url = Config::new("nothing.db", &server.url()).expect("a configuration");
    let conn = with_url.remote.conn.expect("a connection");
    let options = Options {
        schema: "app".into(),
        pool_size: 2,
        connect_timeout: Duration::from_secs(60),
        statement_timeout: Duration::from_secs(60),
    };
    let remote = postgres::connect(&conn, &config.device.name, options).expect("a pool");
    let mut clients = Vec::new();
    for _ in 0..2 {
        let (client, connection) = tokio_postgres::connect(&server.url(), NoTls)
            .await
            .expect("a connection");
        tokio::spawn(connection);
        clients.push(Box::new(client));
    }
    let hello = Hello {
        device: "first".into(),
        name: "first".into(),
        tables: vec![table.clone()],
        user_version: 0,
        former: None,
        dropped: Default::default(),
    };
    remote.prepare(&hello).await.expect("prepared");
    clients[0]
        .batch_execute(
            "alter table app.items add check (v not like 'bad%'); \
             delete from app.tidewater_devices where id = 'first'",
        )
        .await
        .expect("a check");
    let (second, first) = (clients.remove(1), clients.remove(0));
    let mut psql = Psql::Postgres(first, second);
    steps(&remote, &mut psql, table).await
}

#[test]
fn the_server_in_memory_answers_like_postgres() {
    in_a_folder(|folder, config| {
        let table = table(&folder, config);
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (memory, real) = runtime
            .block_on(async { (in_memory(&table).await, on_postgres(&table, config).await) });
        for line in &real {
            println!("{line}");
        }
        let differs = memory.iter().zip(&real).find(|(m, r)| m != r);
        assert_eq!(differs, None, "in memory, on PostgreSQL");
        assert_eq!(memory.len(), real.len());
    });
}
