//! tidewater: an app's SQLite file and a PostgreSQL workspace, kept equal in both directions.
#![warn(missing_docs)]

pub mod error;
pub mod model;
pub mod remote;
pub mod sqlite;
pub mod throwaway;
