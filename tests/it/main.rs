//! Every integration test, in one program: they share a server and a build.

mod app_triggers;
mod chinook;
mod conflicts;
mod crash;
mod demo;
mod docs;
mod exactly_once;
mod flaws_by_hand;
mod flaws_concurrent;
mod flaws_notes;
mod infra;
mod late_commits;
mod layering;
mod mirrors;
mod offline;
mod pages;
mod poison;
mod privacy;
mod refusals;
mod running;
mod secrets;
mod sides;
mod size;
mod stories;
mod support;
mod swaps;
