//! Capture: triggers in the app's file that record which rows the app touched, and nothing else.
//!
//! It owns the triggers, the width of the key log, the eviction candidates and the ledger of keys. It never
//! reads or records a row's content, which is the claim's business, and never writes a table of the app.

mod install;
pub mod ledger;
mod nesting;
mod tokens;
mod triggers;

#[cfg(test)]
mod app_tests;
#[cfg(test)]
mod fuzz_shapes;
#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod ledger_tests;
#[cfg(test)]
mod tests;

pub(in crate::sqlite) use install::is_ours;
pub use install::{
    Installed, install, prune_candidates, remove, snapshot_rows, unrunnable, verify, wanted,
};
pub(in crate::sqlite) use tokens::name_after;
pub use triggers::{Trigger, trigger_sql, unseen};
