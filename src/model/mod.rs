//! Values and decisions, pure: no I/O, no clock, no async, no driver.
//!
//! What a change is, how keys and rows are written down, what a device has seen, and who wins a
//! conflict. Everything else in the crate moves these values about; nothing else decides.

mod change;
mod conflict;
mod key;
mod privacy;
mod table;
mod token;
mod value;

pub use change::{ChangeKey, Op};
pub use conflict::{Kind, Policy, Side, Stamp, decide, kind_of};
pub use key::Key;
pub use privacy::{Privacy, RowPrivacy};
pub use table::{Affinity, Column, ForeignKey, Misfit, Table, Unique, Wire};
pub use token::{Position, Snapshot, TOMBSTONES, Token};
pub use value::{Row, Value};
