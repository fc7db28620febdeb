//! Reports as people read them: pure functions from a report to text of at most 80 columns.
//!
//! No clock, no terminal: the time and the permission to use colours are given. Everything that came
//! out of a database passes through `style::clean` or `style::value` first.

mod conflicts;
mod devices;
mod doctor;
mod explain;
mod layout;
mod lifecycle;
mod privacy;
mod queue;
mod status;
mod sync;

pub(crate) use conflicts::{acknowledged, conflict, conflicts, restored};
pub(crate) use devices::{devices, provisioned, retired, revoked};
pub(crate) use doctor::doctor;
pub(crate) use explain::{explain, queue_detail};
pub(crate) use lifecycle::{detach, prune};
pub(crate) use privacy::privacy;
pub(crate) use queue::{inbox, queue, results, would_send};
pub(crate) use status::{mode, row_status, status};
pub(crate) use sync::{dry_run, init, now, verify};
