//! Every integration test, in one program: they share a server and a build.

mod chinook;
mod crash;
mod demo;
mod flaws_by_hand;
mod flaws_concurrent;
mod flaws_notes;
mod infra;
mod layering;
mod pages;
mod privacy;
mod running;
mod service;
mod sides;
mod size;
mod stories;
mod support;
