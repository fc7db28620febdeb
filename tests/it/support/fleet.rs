//! Devices of one workspace, and the questions that tests of the exchange ask of them.

use super::cli::{Device, Output};
use super::proxy::Proxy;
use super::server::Schema;
use super::wait::PATIENCE;
use serde_json::Value;
use std::path::PathBuf;
use tidewater::config::{Config, Overrides};
use tidewater::postgres::{Options, PgRemote, connect};

/// What most of these tests replicate.
pub const ITEMS: &str = "create table items (id text primary key, body text, n integer);";

/// All of it, readable on both sides.
pub const ALL: &str = "select id, body, n from items order by id";

/// A workspace and what its devices have in common.
pub struct Fleet {
    pub schema: Schema,
    ddl: String,
    more: String,
}

impl Fleet {
    /// Devices with this schema in their files.
    pub fn new(ddl: &str) -> Fleet {
        Fleet::configured(ddl, "")
    }

    /// Further sections of every device's configuration.
    pub fn configured(ddl: &str, more: &str) -> Fleet {
        Fleet::within(Schema::new(), ddl, more)
    }

    /// In a schema of the test's choice.
    pub fn within(schema: Schema, ddl: &str, more: &str) -> Fleet {
        Fleet {
            schema,
            ddl: ddl.to_owned(),
            more: more.to_owned(),
        }
    }

    /// A device, initialised.
    #[track_caller]
    pub fn device(&self, name: &str) -> Device {
        self.make(self.schema.url(), name, "")
    }

    /// A device whose way to the server leads through a proxy.
    #[track_caller]
    pub fn device_through(&self, proxy: &Proxy, name: &str, more: &str) -> Device {
        let url = self.schema.url_through(proxy.host(), proxy.port());
        self.make(&url, name, more)
    }

    #[track_caller]
    fn make(&self, url: &str, name: &str, more: &str) -> Device {
        let more = format!("{}\n{more}", self.more);
        let device = Device::with_url(url, self.schema.name(), name, &more);
        device.sql(&self.ddl);
        device.tw(&["init"]).ok();
        device
    }

    /// The rows of the workspace.
    #[track_caller]
    pub fn server(&self, query: &str) -> Vec<Vec<String>> {
        self.schema.rows(query)
    }

    /// Syncs all devices until each has seen what the others sent, then compares them with the server.
    #[track_caller]
    pub fn converge(&self, devices: &[&Device], query: &str) {
        for _ in 0..2 {
            for d in devices {
                d.json(&["now"]);
            }
        }
        self.expect_equal(devices, query);
    }

    /// Fails the test unless all hold the same rows.
    #[track_caller]
    pub fn expect_equal(&self, devices: &[&Device], query: &str) {
        let there = self.server(query);
        for (i, d) in devices.iter().enumerate() {
            assert_eq!(
                d.rows(query),
                there,
                "device {i} (left) and the server (right)"
            );
        }
    }

    /// How many conflicts the workspace has recorded.
    #[track_caller]
    pub fn conflicts(&self) -> u64 {
        let n = self.schema.one("select count(*) from tidewater_conflicts");
        n.parse().expect("a number")
    }

    /// Rows that live although their tombstone lies there.
    #[track_caller]
    pub fn undead(&self, table: &str, key_text: &str) -> Vec<Vec<String>> {
        self.server(&format!(
            "select m.{key_text} from {table} m join tidewater_tombstones g \
             on g.pk = '[' || to_json(m.{key_text})::text || ']' \
             join tidewater_tables t on t.id = g.table_id and t.name = '{table}'"
        ))
    }
}

/// The conflicts that a device lists, the oldest first.
#[track_caller]
pub fn conflicts(device: &Device) -> Vec<Value> {
    let mut list = device.json(&["conflicts"])["conflicts"]
        .as_array()
        .expect("a list")
        .clone();
    list.reverse();
    list
}

/// The id that a device has now.
#[track_caller]
pub fn id(device: &Device) -> String {
    state(device, "device_id")
}

/// One fact of a device's own state.
#[track_caller]
pub fn state(device: &Device, name: &str) -> String {
    let rows = device.rows(&format!(
        "select value from tidewater_state where name = '{name}'"
    ));
    rows.into_iter()
        .flatten()
        .next()
        .unwrap_or_else(|| panic!("no {name}"))
}

/// Runs the program with one crash point armed, `name` or `name:n` for its n-th hit; fails the test unless it dies there.
#[track_caller]
pub fn crash(device: &Device, point: &str, arguments: &[&str]) -> Output {
    let log: PathBuf = device.folder().join("crash.log");
    let _ = std::fs::remove_file(&log);
    let mut command = device.command(arguments);
    command
        .env("TIDEWATER_FAILPOINT", point)
        .env("TIDEWATER_FAILPOINT_LOG", &log);
    let output = super::cli::Running::spawn(command).wait(PATIENCE);
    let hit = std::fs::read_to_string(&log).unwrap_or_default();
    assert_eq!(
        (output.code, hit.trim()),
        (-libc::SIGKILL, point.split(':').next().unwrap_or(point)),
        "{output:#?}"
    );
    output
}

/// The configuration that a device's folder holds.
#[track_caller]
pub fn config(device: &Device) -> Config {
    let overrides = Overrides {
        config: Some(device.config()),
        ..Overrides::default()
    };
    Config::load(&overrides).expect("a configuration")
}

/// The engine's own remote for a device.
#[track_caller]
pub fn remote(device: &Device) -> PgRemote {
    let config = config(device);
    let options = Options {
        schema: config.remote.schema.clone(),
        pool_size: 2,
        connect_timeout: PATIENCE,
        statement_timeout: PATIENCE,
    };
    let conn = config.conn().expect("a connection");
    connect(conn, &config.device.name, options).expect("a remote")
}
