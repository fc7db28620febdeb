//! tidewater: an app's SQLite file and a PostgreSQL workspace, kept equal in both directions.
//!
//! Layers, reading down: `cli` → [`sync`] (push, pull, schedule) → {[`sqlite`], [`remote`]} → [`model`].
//! `postgres` implements [`remote`] at the side. `model` is pure; `sqlite` alone knows rusqlite,
//! `postgres` alone knows tokio-postgres, and the two never see each other.
#![warn(missing_docs)]

pub mod cli;
pub mod config;
pub mod error;
pub mod failpoint;
pub mod model;
pub mod postgres;
pub mod remote;
pub mod report;
pub mod sqlite;
pub mod sync;
pub mod throwaway;
