//! Orchestration of push and pull.

pub mod ops;
