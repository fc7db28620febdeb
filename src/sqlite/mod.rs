//! Everything that touches the app's SQLite file; the only importer of `rusqlite`.

pub mod fault;
pub mod inspect;
pub mod quote;
pub mod value;
