//! Everything that touches the app's SQLite file; the only importer of `rusqlite`.

pub mod capture;
pub mod fault;
pub mod introspect;
pub mod quote;
mod skip;
pub mod value;
