//! One PostgreSQL server for the whole test process, and one schema in it for each test.
//!
//! The server is never dropped: it ends when the process does, through its supervisor's pipe.

use super::neighbour::Pooler;
use super::wait::next_millisecond;
use std::cell::Cell;
use std::future::Future;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tidewater::throwaway::{Options, Server};
use tokio::runtime::Runtime;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// The server that all tests share. A test that stops, crashes or reloads its server starts its own.
pub fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| start(Options::default()))
}

thread_local! {
    /// The port of what stands between this test's devices and the shared server, if anything does.
    static BETWEEN: Cell<Option<u16>> = const { Cell::new(None) };
}

/// Runs a test's body with the devices of every [`Schema::new`] behind a pooler. What the test itself
/// asks of the server goes there directly.
pub fn behind<T>(pooler: &Pooler, body: impl FnOnce() -> T) -> T {
    struct Back;
    impl Drop for Back {
        fn drop(&mut self) {
            BETWEEN.set(None);
        }
    }
    BETWEEN.set(Some(pooler.port()));
    let _back = Back;
    body()
}

/// Where devices reach the shared server.
pub fn way_to_shared() -> (&'static str, u16) {
    let server = shared();
    (server.host(), BETWEEN.get().unwrap_or(server.port()))
}

/// A server of the test's own.
pub fn start(options: Options) -> Server {
    Server::start(options).unwrap_or_else(|e| panic!("{e}\n{}", e.remedy))
}

/// A connection for plain `#[test]` functions; every method blocks.
pub struct Client {
    runtime: Runtime,
    client: tokio_postgres::Client,
}

impl Client {
    pub fn connect(url: &str) -> Client {
        Client::try_connect(url).unwrap_or_else(|e| panic!("connecting to {url}: {e:?}"))
    }

    pub fn try_connect(url: &str) -> Result<Client, tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let (client, connection) = runtime.block_on(tokio_postgres::connect(url, NoTls))?;
        runtime.spawn(connection);
        Ok(Client { runtime, client })
    }

    /// The rows of the last statement that returned any, as text; NULL is `NULL`.
    pub fn try_rows(&self, sql: &str) -> Result<Vec<Vec<String>>, tokio_postgres::Error> {
        let messages = self.block_on(self.client.simple_query(sql))?;
        let mut rows = Vec::new();
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(_) => rows.clear(),
                SimpleQueryMessage::Row(row) => rows.push(
                    (0..row.len())
                        .map(|i| row.get(i).unwrap_or("NULL").to_owned())
                        .collect(),
                ),
                _ => {}
            }
        }
        Ok(rows)
    }

    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        self.try_rows(sql)
            .unwrap_or_else(|e| panic!("{sql}: {e:?}"))
    }

    /// The one value of the one row.
    #[track_caller]
    pub fn one(&self, sql: &str) -> String {
        let mut rows = self.rows(sql);
        assert!(
            rows.len() == 1 && rows[0].len() == 1,
            "not one value: {sql}: {rows:?}"
        );
        rows.remove(0).remove(0)
    }

    #[track_caller]
    pub fn exec(&self, sql: &str) {
        self.try_exec(sql)
            .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    pub fn try_exec(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.block_on(self.client.batch_execute(sql))
    }

    /// The driver's own client, for [`Client::block_on`].
    pub fn driver(&self) -> &tokio_postgres::Client {
        &self.client
    }

    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

/// A schema of a random name, dropped with everything in it; the name is printed where a test fails.
pub struct Schema {
    name: String,
    url: String,
    /// How devices reach the server, where that is another way.
    way: Option<String>,
    client: Mutex<Option<Client>>,
}

impl Schema {
    /// In the shared server.
    pub fn new() -> Schema {
        let mut schema = Schema::on(&shared().url());
        let (host, port) = way_to_shared();
        schema.way = Some(schema.url_through(host, port));
        schema
    }

    /// In another server or another database. `url` has a query part already.
    pub fn on(url: &str) -> Schema {
        let schema = Schema {
            name: format!("t_{}", ulid::Ulid::generate()).to_lowercase(),
            url: url.to_owned(),
            way: None,
            client: Mutex::new(None),
        };
        schema.exec(&format!("create schema {}", schema.name));
        schema
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server's URL for a device, without the schema.
    pub fn url(&self) -> &str {
        self.way.as_deref().unwrap_or(&self.url)
    }

    /// The same URL by way of another address, such as a proxy's.
    pub fn url_through(&self, host: &str, port: u16) -> String {
        let (head, rest) = self.url.split_once('@').expect("a user in the URL");
        let (_, tail) = rest.split_once('/').expect("a database in the URL");
        format!("{head}@{host}:{port}/{tail}")
    }

    /// A new connection whose search path is this schema.
    pub fn client(&self) -> Client {
        let client = Client::connect(&self.url);
        client.exec(&format!("set search_path = {}", self.name));
        client
    }

    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        self.with_client(|c| c.rows(sql))
    }

    #[track_caller]
    pub fn one(&self, sql: &str) -> String {
        self.with_client(|c| c.one(sql))
    }

    #[track_caller]
    pub fn exec(&self, sql: &str) {
        self.with_client(|c| c.exec(sql));
        next_millisecond();
    }

    fn with_client<T>(&self, work: impl FnOnce(&Client) -> T) -> T {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        // A connection that a restarted server has closed is replaced.
        if client.as_ref().is_none_or(|c| c.try_exec("").is_err()) {
            *client = Some(self.client());
        }
        work(client.as_ref().expect("just made"))
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the schema of this test was {} at {}", self.name, self.url);
        }
        // A connection that the test left open may hold a lock: the schema then goes with the server.
        let timeout = Duration::from_secs(5).as_millis();
        if let Ok(client) = Client::try_connect(&self.url) {
            let _ = client.try_exec(&format!(
                "set lock_timeout = {timeout}; drop schema if exists {} cascade",
                self.name
            ));
        }
    }
}
