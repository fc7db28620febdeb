//! Everything that touches the app's SQLite file; the only importer of `rusqlite`.
//!
//! What happens to a local write: `capture` (triggers), `claim` (key log to outbox), `outbox` (batches),
//! `ended` (acknowledgements). What happens when a remote row arrives: `apply` (and `install`), `notes`, `inbox`,
//! `conflicts`. What rows keep here, both ways: `private`.

pub mod app_row;
pub mod apply;
mod aside;
mod barred;
pub mod brake;
pub mod build;
pub mod capture;
pub mod claim;
pub mod conflicts;
pub mod demo;
pub mod detach;
mod ended;
pub mod family;
pub mod fault;
pub mod first;
pub mod heal_log;
pub mod health;
pub mod inbox;
pub mod inspect;
pub mod install;
pub mod introspect;
pub mod journal;
mod levels;
pub mod local;
pub mod met;
pub mod notes;
pub mod outbox;
pub mod private;
pub mod queue;
pub mod quote;
pub mod recall;
mod refusal;
pub mod request;
pub mod restore;
pub mod scan;
pub mod skip;
pub mod state;
pub mod status_view;
pub mod stock;
pub mod stopped;
mod swap;
pub mod types;
pub mod value;
