//! Values and decisions, pure: no I/O, no clock, no async, no driver.
//!
//! What a change is, how keys and rows are written down, what a device has seen, and who wins a
//! conflict. Everything else in the crate moves these values about; nothing else decides.

mod affinity;
mod change;
mod conflict;
mod form;
mod json_text;
mod key;
mod limit;
mod moment;
mod privacy;
mod table;
mod token;
mod typed;
mod value;
mod wire;

pub use affinity::Affinity;
pub use change::{ChangeKey, Op};
pub use conflict::{Kind, Policy, Side, Stamp, decide, kind_of};
pub use form::Form;
pub use key::Key;
pub use limit::Limit;
pub use privacy::{Privacy, RowPrivacy};
pub use table::{Column, ForeignKey, Table, Unique};
pub use token::{Position, Snapshot, TOMBSTONES, Token};
pub use typed::Typed;
pub use value::{Row, Value};
pub use wire::{Misfit, PgType, Wire};
