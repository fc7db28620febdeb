//! Every integration test, in one program: they share a server and a build.

mod chinook;
mod converge;
mod demo;
mod docs;
mod flaws_by_hand;
mod flaws_concurrent;
mod flaws_notes;
mod infra;
mod layering;
mod offline;
mod poison;
mod privacy;
mod refusals;
mod running;
mod secrets;
mod sides;
mod stories;
mod support;
