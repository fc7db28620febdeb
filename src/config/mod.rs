//! The configuration: found, layered, checked and typed.
//!
//! Owns the keys of `tidewater.toml`, their defaults and ranges, and how a connection is described
//! the way libpq's users expect. It must never accept a key and ignore it, and never let a password
//! into an error, a log or a file that others can read. It opens no database. Every failure is
//! SYNC-013 with the key, the value, what is allowed, the place and the remedy.

mod conninfo;
mod embed;
mod env;
mod fault;
mod listen;
mod load;
mod reader;
mod secret;
mod source;
mod suggest;
#[doc(hidden)]
pub mod template;

pub use conninfo::{ChannelBinding, ClientCert, Conn, Host, Keepalives, Session, SslMode, Target};
#[doc(hidden)]
pub use env::Env;
pub use listen::HostPort;
pub use secret::Secret;

use crate::error::{Error, Result};
pub use crate::model::{PgType, Policy, Privacy};
use fault::refusal;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file's name where none is given.
pub const FILE_NAME: &str = "tidewater.toml";

/// Default of `remote.schema`.
pub const SCHEMA: &str = "public";
/// Default of `remote.pool_size`.
pub const POOL_SIZE: usize = 2;
/// Default of `remote.connect_timeout_seconds`.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Default of `remote.statement_timeout_seconds`.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// Default of `upload.poll_interval_seconds`.
pub const UPLOAD_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Default of `upload.batch_size`.
pub const BATCH_SIZE: usize = 50;
/// Default of `upload.batch_size_max`.
pub const BATCH_SIZE_MAX: usize = 5000;
/// Default of `upload.batch_bytes_max`.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Default of `upload.row_bytes_max`.
pub const ROW_BYTES_MAX: usize = 16 << 20;
/// Default of `upload.max_in_flight`.
pub const MAX_IN_FLIGHT: usize = 4;
/// Default of `download.poll_interval_seconds`.
pub const DOWNLOAD_POLL_INTERVAL: Duration = Duration::from_secs(30);
/// Default of `download.page_size`.
pub const PAGE_SIZE: usize = 1000;
/// Default of `download.page_bytes_max`.
pub const PAGE_BYTES_MAX: usize = 4 << 20;
/// Default of `retry.max_attempts`.
pub const MAX_ATTEMPTS: u32 = 5;
/// Default of `retry.base_delay_seconds`.
pub const BASE_DELAY: Duration = Duration::from_secs(1);
/// Default of `retry.max_delay_seconds`.
pub const MAX_DELAY: Duration = Duration::from_secs(300);
/// Default of `conflict.directory`.
pub const CONFLICT_DIRECTORY: &str = ".tidewater/conflicts";
/// Default of `retention.synced_days`.
pub const SYNCED_DAYS: u32 = 7;
/// Default of `retention.conflict_days`.
pub const CONFLICT_DAYS: u32 = 90;
/// Default of `metrics.listen`.
pub const METRICS_LISTEN: &str = "127.0.0.1:9842";
/// Default of `retention.tombstone_days`.
pub const TOMBSTONE_DAYS: u32 = 90;

/// What the command line says in place of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config FILE`.
    pub config: Option<PathBuf>,
    /// `--db FILE`.
    pub db: Option<PathBuf>,
    /// `--remote URL`.
    pub remote: Option<String>,
    /// `--schema NAME`.
    pub schema: Option<String>,
    /// Looks for no file at all, for a command that makes one.
    pub no_file: bool,
    /// Listens nowhere unless told to, for a program that embeds the engine.
    pub no_endpoint: bool,
}

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from; `None` where there is no file.
    pub source: Option<PathBuf>,
    /// What is odd without being wrong, to be logged once the log exists.
    pub warnings: Vec<String>,
    /// `[local]`.
    pub local: Local,
    /// `[device]`.
    pub device: Device,
    /// `[remote]`.
    pub remote: Remote,
    /// `[upload]`.
    pub upload: Upload,
    /// `[download]`.
    pub download: Download,
    /// `[retry]`.
    pub retry: Retry,
    /// `[conflict]`.
    pub conflict: Conflict,
    /// `[retention]`.
    pub retention: Retention,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `[tables.NAME]` by the name as written; look up with [`Config::table`].
    pub tables: BTreeMap<String, TableConfig>,
}

/// `[local]`
#[derive(Clone, Debug)]
pub struct Local {
    /// The app's SQLite file, ready to be opened from the current directory.
    pub path: Option<PathBuf>,
    /// Globs of the tables to track.
    pub tables: Vec<String>,
    /// Globs of the tables to leave out.
    pub exclude: Vec<String>,
    /// Whether the file may be on a network file system: only this machine opens it.
    pub network_filesystem: bool,
}

/// `[device]`
#[derive(Clone, Debug)]
pub struct Device {
    /// The device's name: 1 to 63 bytes without control characters.
    pub name: String,
}

/// `[remote]`
#[derive(Clone, Debug)]
pub struct Remote {
    /// How to reach the server, where anything says so; [`Config::conn`] for those who need it.
    pub conn: Option<Conn>,
    /// The workspace's schema.
    pub schema: String,
    /// Connections in the pool.
    pub pool_size: usize,
    /// The deadline of a connection attempt; `Conn::connect_timeout` may say otherwise.
    pub connect_timeout: Duration,
    /// The deadline of a round trip.
    pub statement_timeout: Duration,
}

/// `[upload]`
#[derive(Clone, Debug)]
pub struct Upload {
    /// How often the outbox is looked at when nothing wakes it.
    pub poll_interval: Duration,
    /// Items in a batch.
    pub batch_size: usize,
    /// Items in a batch under backlog; never below `batch_size`.
    pub batch_size_max: usize,
    /// Encoded bytes in a batch.
    pub batch_bytes_max: usize,
    /// A larger row fails.
    pub row_bytes_max: usize,
    /// Batches under way at once.
    pub max_in_flight: usize,
}

/// `[download]`
#[derive(Clone, Debug)]
pub struct Download {
    /// How often the feed is read when nothing wakes it.
    pub poll_interval: Duration,
    /// Rows in a page.
    pub page_size: usize,
    /// Bytes in a page.
    pub page_bytes_max: usize,
    /// Whether a wait is cut short by LISTEN where that works.
    pub listen: bool,
}

/// `[retry]`
#[derive(Clone, Debug)]
pub struct Retry {
    /// Refusals of one item before it is parked.
    pub max_attempts: u32,
    /// The first wait; never above `max_delay`.
    pub base_delay: Duration,
    /// The longest wait.
    pub max_delay: Duration,
}

/// `[conflict]`
#[derive(Clone, Debug)]
pub struct Conflict {
    /// Who wins, where a table does not say otherwise.
    pub policy: Policy,
    /// Whether each loser is also written as a JSON file.
    pub preserve_original: bool,
    /// As written; [`Config::conflict_directory`] is the place itself.
    pub directory: PathBuf,
}

/// `[retention]`
#[derive(Clone, Debug)]
pub struct Retention {
    /// Days that acknowledged outbox and applied inbox entries are kept.
    pub synced_days: u32,
    /// Days that acknowledged conflicts are kept.
    pub conflict_days: u32,
    /// Days that deletes are remembered on the remote.
    pub tombstone_days: u32,
}

/// `[metrics]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Where the endpoint listens; it has a port. `None`: nowhere.
    pub listen: Option<HostPort>,
    /// Further names that it answers to; one without a port answers on any.
    pub allowed_hosts: Vec<HostPort>,
}

/// `[tables.NAME]`
#[derive(Clone, Debug, Default)]
pub struct TableConfig {
    /// What may leave the device.
    pub privacy: Privacy,
    /// The column that holds a row's own level, which wins over `privacy`.
    pub privacy_column: Option<String>,
    /// The columns that never leave when the level is redacted.
    pub redact: Vec<String>,
    /// The Postgres types of columns that differ from the default mapping.
    pub types: BTreeMap<String, PgType>,
    /// This table's own policy.
    pub policy: Option<Policy>,
}

impl TableConfig {
    /// Whether a column's content never leaves, by SQLite's rule that names ignore ASCII case.
    pub fn redacts(&self, column: &str) -> bool {
        self.privacy == Privacy::Redacted
            && self
                .redact
                .iter()
                .any(|name| name.eq_ignore_ascii_case(column))
    }
}

impl Local {
    /// Whether the globs select a table. What is always left out (tidewater's own tables, SQLite's,
    /// migration book-keeping) is not known here.
    pub fn selects(&self, table: &str) -> bool {
        let any = |globs: &[String]| {
            globs.iter().any(|text| {
                let options = glob::MatchOptions {
                    case_sensitive: false,
                    ..glob::MatchOptions::new()
                };
                glob::Pattern::new(text).is_ok_and(|glob| glob.matches_with(table, options))
            })
        };
        any(&self.tables) && !any(&self.exclude)
    }
}

impl Config {
    /// Finds, layers and checks the configuration as the program does.
    pub fn load(overrides: &Overrides) -> Result<Config> {
        Config::load_in(overrides, &Env::process())
    }

    /// Finds, layers and checks the configuration in given surroundings.
    #[doc(hidden)]
    pub fn load_in(overrides: &Overrides, env: &Env) -> Result<Config> {
        load::load(overrides, env)
    }

    /// The app's SQLite file, for whoever cannot go on without it.
    pub fn path(&self) -> Result<&Path> {
        self.local.path.as_deref().ok_or_else(|| {
            self.missing(
                "no SQLite file is named",
                "Name it with --db FILE, with local.path in tidewater.toml, or with TIDEWATER_LOCAL__PATH.",
            )
        })
    }

    /// The connection, for whoever cannot go on without it.
    pub fn conn(&self) -> Result<&Conn> {
        self.remote.conn.as_ref().ok_or_else(|| {
            self.missing(
                "no PostgreSQL server is named",
                "Name it with --remote URL, with remote.url in tidewater.toml, with TIDEWATER_REMOTE__URL, or with PGHOST and its kin.",
            )
        })
    }

    /// The folder for the originals of conflicts, beside the SQLite file where it is relative.
    pub fn conflict_directory(&self) -> Result<PathBuf> {
        let folder = self.path()?.parent().unwrap_or(Path::new(""));
        Ok(folder.join(&self.conflict.directory))
    }

    /// What is configured for a table, by SQLite's rule that names ignore ASCII case.
    pub fn table(&self, name: &str) -> TableConfig {
        self.tables
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, table)| table.clone())
            .unwrap_or_default()
    }

    /// The policy that decides a table's conflicts.
    pub fn policy(&self, table: &str) -> Policy {
        self.table(table).policy.unwrap_or(self.conflict.policy)
    }

    fn missing(&self, what: &str, remedy: &str) -> Error {
        match &self.source {
            Some(file) => refusal(format!("{what} ({} does not say)", file.display()), remedy),
            None => refusal(format!("{what}, and no {FILE_NAME} was found"), remedy),
        }
    }
}

#[cfg(test)]
mod tests;
