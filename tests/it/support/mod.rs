//! What the tests stand on: a server, faults on the wire, the program as its users run it.

// Each test uses a part of it.
#![allow(dead_code)]

pub mod certificates;
pub mod cli;
pub mod fleet;
pub mod http;
pub mod neighbour;
pub mod proxy;
pub mod seed;
pub mod server;
pub mod wait;
mod wire;
