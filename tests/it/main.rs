//! Every integration test, in one program: they share a server and a build.

mod app_triggers;
mod chinook;
mod conflicts;
mod demo;
mod docs;
mod exactly_once;
mod flaws_by_hand;
mod flaws_concurrent;
mod flaws_notes;
mod infra;
mod late_commits;
mod layering;
mod privacy;
mod running;
mod sides;
mod stories;
mod support;
mod swaps;
