//! tidewater: an app's SQLite file and a PostgreSQL workspace, kept equal in both directions.
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
