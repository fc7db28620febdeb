//! The engine: when what is sent and received. Knows the SQLite side and the [`Remote`] trait; knows
//! PostgreSQL only where the two are put together (`connect`).
//!
//! One task does everything in turn, so no acknowledgement is ever processed while a page is
//! outstanding (PROTOCOL F5), and at most one batch is under way.
//!
//! [`Remote`]: crate::remote::Remote

mod account;
mod adopt;
mod circuit;
mod clone;
mod compare;
mod connect;
mod detach;
mod device;
mod devices;
mod doctor;
mod ear;
mod first;
mod flight;
mod forms;
mod heal;
mod init;
mod lock;
mod look;
mod mount;
mod now;
mod observer;
pub mod ops;
mod preserve;
mod provision;
mod pull;
mod push;
mod reconcile;
mod relist;
mod repair;
mod repeat;
mod retention;
mod retry;
mod service;
mod tell;
mod verify;
pub mod view;

pub use device::Device;
pub use observer::Observer;

/// What the simulation drives, without a process, a configuration file or a server.
#[cfg(feature = "failpoints")]
pub mod parts {
    pub use super::init::install;
    pub use super::now::{Request, sync};
}
