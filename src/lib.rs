//! Offline-first replication between an app's SQLite file and PostgreSQL.
//!
//! An app writes to its own SQLite file, with the driver it has always used, and never waits for a
//! network. tidewater notices what changed, sends it to a PostgreSQL schema when there is a connection,
//! and brings back what other devices, `psql` or any other program changed there. When two sides changed
//! the same row while apart, one version wins and the other is kept whole.
//!
//! Most apps run it beside them, as the program `tidewater run`. This crate is the same engine for a
//! Rust app that would rather have it inside: no second process, no command line, no configuration
//! file. What is guaranteed, and what is not, is in the README; it is the same for both.
//!
//! # Embedding
//!
//! ```
//! use tidewater::{Config, Engine};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # // A server and a file for the example.
//! # let server = tidewater::throwaway::Server::start(Default::default())?;
//! # let url = server.url();
//! # let folder = tempfile::tempdir()?;
//! # let file = folder.path().join("notes.db");
//! // The app and its file, as ever.
//! let app = rusqlite::Connection::open(&file)?;
//! app.execute_batch("create table notes (id text primary key, body text)")?;
//!
//! // Prepare the file (safe to repeat at every start), then start.
//! let mut config = Config::new(&file, &url)?;
//! config.device.name = "laptop".into();
//! Engine::init(&config).await?;
//! let engine = Engine::start(config).await?;
//!
//! // Whatever the app commits travels by itself. Wait for it only where that matters:
//! app.execute("insert into notes values ('n1', 'milk')", [])?;
//! let done = engine.sync_now().await?;
//! assert_eq!(done.pending, 0);
//!
//! let status = engine.status().await?;
//! println!("{} changes wait", status.upload.pending);
//!
//! engine.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! - The engine takes no signal, sets up no log and opens no port that the configuration does not ask
//!   for. Log lines are [`tracing`] events: install a subscriber to see them.
//! - It works on a thread of its own, with its own connection to the file. Give the app's connection a
//!   busy timeout; the engine holds the write lock for milliseconds at a time.
//! - One engine or service per SQLite file. The commands of the program work beside it, for whoever
//!   operates the app: `tidewater status`, `queue`, `conflicts`, `explain`.
//! - An [`Error`] has a code that stays the same over versions, a sentence on what failed, and a remedy
//!   to show. Being offline is not an error of the engine: changes queue, and it goes on by itself.
//!
//! ```
//! use tidewater::{Code, Config, Engine};
//!
//! # #[tokio::main]
//! # async fn main() -> tidewater::Result<()> {
//! # let folder = tempfile::tempdir().expect("a folder");
//! # let file = folder.path().join("missing.db");
//! let config = Config::new(&file, "postgres://app@db.example/app")?;
//! match Engine::start(config).await {
//!     Ok(engine) => engine.stop().await?,
//!     Err(e) if e.code == Code::AnotherInstance => println!("syncing already"),
//!     Err(e) => eprintln!("{e}\n{}", e.remedy),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is public
//!
//! [`Engine`], [`Config`] with the sections of [`config`], [`Error`], and the documents in [`report`].
//! Everything else that this crate exports is for its own program and tests, is not documented, and may
//! change in any version.
#![warn(missing_docs)]
// Layers, reading down: `cli`, `engine` and `http` → `sync` (push, pull, schedule) → {`sqlite`, `remote`} →
// `model`. `postgres` implements `remote` at the side. `model` is pure; `sqlite` alone knows rusqlite,
// `postgres` alone knows tokio-postgres, and the two never see each other. `metrics` is told by
// all and knows nobody.

pub mod config;
pub mod report;

mod engine;

#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod failpoint;
#[doc(hidden)]
pub mod http;
#[doc(hidden)]
pub mod metrics;
#[doc(hidden)]
pub mod model;
#[doc(hidden)]
pub mod postgres;
#[doc(hidden)]
pub mod remote;
#[doc(hidden)]
pub mod sqlite;
#[doc(hidden)]
pub mod sync;
#[doc(hidden)]
pub mod throwaway;
#[doc(hidden)]
pub mod world;

pub use config::Config;
pub use engine::Engine;
pub use error::{Code, Error, Result};
