//! The sync core in a world of its own: every fault, every order, from one seed.
//!
//! `TIDEWATER_SIM_SEED=n` runs one schedule again, with its steps told.

mod conformance;
mod feed;
mod found;
mod ghost;
mod mutants;
mod node;
mod oracle;
mod profile;
mod psql;
mod push;
mod remote;
mod schedule;
mod server;
mod sweep;
mod world;
mod writer;
