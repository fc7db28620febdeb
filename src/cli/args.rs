//! The grammar of the command line, and what it alone cannot refuse.

use super::secret;
use crate::config::Overrides;
use crate::error::{Code, Error, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Keeps an app's SQLite file and a PostgreSQL workspace equal, in both directions.
#[derive(Debug, Parser)]
#[command(
    name = "tidewater",
    version,
    max_term_width = 80,
    subcommand_required = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The configuration [default: ./tidewater.toml, then the user's]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The app's SQLite file
    #[arg(long, global = true, value_name = "FILE")]
    pub db: Option<PathBuf>,
    /// The PostgreSQL server, without a password
    #[arg(long, global = true, value_name = "URL")]
    pub remote: Option<String>,
    /// The workspace
    #[arg(long, global = true, value_name = "NAME")]
    pub schema: Option<String>,
    /// Print one JSON document
    #[arg(long, global = true)]
    pub json: bool,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Colours
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
    /// No progress bars
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// The form of log lines
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start to replicate a SQLite file; safe to run again
    Init {
        /// Globs of tables to track, comma-separated
        #[arg(
            long,
            value_delimiter = ',',
            value_name = "GLOBS",
            value_parser = clap::builder::NonEmptyStringValueParser::new()
        )]
        tables: Vec<String>,
        /// Print every SQL statement for both databases and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Fill the app's empty tables from the workspace
        #[arg(long)]
        adopt_remote: bool,
    },
    /// Replicate until stopped
    Run {
        /// Wait for the file and its tables to appear, and initialise them
        #[arg(long)]
        init: bool,
    },
    /// Sync once, at once
    Now {
        /// Only send
        #[arg(long)]
        push: bool,
        /// Only receive
        #[arg(long)]
        pull: bool,
        /// Give up after so many seconds
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        timeout: Option<Duration>,
        /// Only list what would be sent; needs no remote and changes nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Health at a glance, or the sync status of one row
    Status {
        /// The table of one row
        table: Option<String>,
        /// The row's key, one word for each of its columns
        #[arg(requires = "table", allow_negative_numbers = true)]
        key: Vec<String>,
        /// Show it again every second, until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// What waits to be sent
    Queue {
        /// Only what failed
        #[arg(long, conflicts_with = "ready")]
        errors: bool,
        /// At most so many items
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// What was received
        #[arg(long)]
        inbox: bool,
        /// Only what no waiting time holds back
        #[arg(long, conflicts_with = "inbox")]
        ready: bool,
        #[command(subcommand)]
        what: Option<QueueCommand>,
    },
    /// Try failed items again now
    Retry {
        /// Change keys, beginnings of them, or a code (SYNC-015); without any, all that failed
        key: Vec<String>,
        /// Ignore the backoff clock
        #[arg(long)]
        force: bool,
    },
    /// Give up failed items; they are kept under conflicts
    Discard {
        /// Change keys, beginnings of them, or a code (SYNC-015)
        #[arg(required = true)]
        key: Vec<String>,
        /// Yes, give them up
        #[arg(long)]
        yes: bool,
    },
    /// Let changes queue, until `resume`
    Pause,
    /// Go on after `pause`
    Resume,
    /// List conflicts, look at one, bring the loser back
    Conflicts {
        #[command(subcommand)]
        what: Option<ConflictsCommand>,
    },
    /// Make a new device from a workspace
    Clone {
        /// The SQLite file to make; it must not exist
        file: PathBuf,
    },
    /// Compare SQLite and PostgreSQL row by row
    Verify {
        /// Only this table; may be given again
        #[arg(long = "table", value_name = "TABLE")]
        tables: Vec<String>,
        /// Queue or fetch what is missing
        #[arg(long)]
        repair: bool,
    },
    /// See it all in a temporary folder: two devices, a PostgreSQL, a conflict
    Demo {
        /// Leave everything running, and say how to play with it
        #[arg(long)]
        keep: bool,
    },
    /// One row's whole life
    Explain {
        /// The table
        table: String,
        /// The row's key, one word for each of its columns
        #[arg(required = true, allow_negative_numbers = true)]
        key: Vec<String>,
    },
    /// Check everything, and say the remedy for each fault
    Doctor,
    /// The workspace's devices
    Devices {
        #[command(subcommand)]
        what: Option<DevicesCommand>,
    },
    /// What can leave this device, by table and column
    Privacy,
    /// Make a workspace, its owner role and a login for each device
    Provision {
        /// A device to make a login for; may be given again
        #[arg(long = "device", value_name = "NAME")]
        devices: Vec<String>,
        /// Only print the statements
        #[arg(long)]
        dry_run: bool,
    },
    /// Apply the retention now
    Prune {
        /// Also discard what failed
        #[arg(long, requires = "older_than")]
        failed: bool,
        /// Only what failed so many days ago
        #[arg(long, value_name = "DAYS", requires = "failed")]
        older_than: Option<u32>,
        /// Yes, give them up
        #[arg(long)]
        yes: bool,
    },
    /// Take tidewater out of the SQLite file; the app's data stay
    Detach {
        /// Even with changes that were not sent; they are written as JSON first
        #[arg(long)]
        yes: bool,
    },
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum QueueCommand {
    /// One item, in full, with the row's content
    Show {
        /// Its change key, or a beginning of it
        key: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DevicesCommand {
    /// Let tombstones go on without a device
    Retire {
        /// The device: its id or name, or a beginning of either
        id: String,
    },
    /// End a device's login
    Revoke {
        /// The device: its id or name, or a beginning of either
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConflictsCommand {
    /// Both sides, column by column
    Show {
        /// The conflict, or a beginning of its id
        id: String,
    },
    /// Write the preserved original back as a new local edit
    Restore {
        /// The conflict, or a beginning of its id
        id: String,
    },
    /// Mark as seen
    Ack {
        /// Conflicts
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Vec<String>,
        /// All of them
        #[arg(long)]
        all: bool,
    },
}

impl Cli {
    /// What the grammar alone cannot refuse.
    pub fn check(&self) -> Result<()> {
        if self
            .global
            .remote
            .as_deref()
            .is_some_and(secret::holds_password)
        {
            return Err(Error::new(
                Code::Configuration,
                "`--remote` holds a password, and everybody on this machine can read a command line",
                "take it out; put it into PGPASSWORD, the pgpass file, or `[remote] url` in tidewater.toml",
            ));
        }
        match &self.command {
            Command::Status {
                table: Some(table),
                key,
                ..
            } if key.is_empty() => Err(Error::new(
                Code::Configuration,
                "`status` with a table needs the key of a row",
                "give the values of the primary key after the table, or leave the table out",
            )
            .on_table(table)),
            Command::Clone { .. } if self.global.db.is_some() => Err(Error::new(
                Code::Configuration,
                "`clone` makes the file that it is given last; `--db` means nothing there",
                "leave `--db` out",
            )),
            Command::Demo { .. }
                if self.global.config.is_some()
                    || self.global.db.is_some()
                    || self.global.remote.is_some()
                    || self.global.schema.is_some() =>
            {
                Err(Error::new(
                    Code::Configuration,
                    "`demo` brings its own files, server and workspace, and touches nothing else",
                    "leave out `--config`, `--db`, `--remote` and `--schema`",
                ))
            }
            Command::Discard { key, yes: false } => Err(Error::new(
                Code::Configuration,
                format!(
                    "`discard` gives up {} for good, and nothing was given up yet",
                    match key.len() {
                        _ if key.iter().any(|k| Code::parse(k).is_some()) =>
                            "all that failed so".to_owned(),
                        1 => "1 queued change".to_owned(),
                        n => format!("{n} queued changes"),
                    }
                ),
                "repeat the command with --yes; what is given up stays under `tidewater conflicts`",
            )),
            _ => Ok(()),
        }
    }

    /// What these arguments say over the configuration.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            no_file: false,
            no_endpoint: false,
            config: self.global.config.clone(),
            db: self.global.db.clone(),
            remote: self.global.remote.clone(),
            schema: self.global.schema.clone(),
        }
    }
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .filter(|s| *s > 0.0)
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .ok_or_else(|| "expected a number of seconds above 0".to_owned())
}

#[cfg(test)]
mod tests;
