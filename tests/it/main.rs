//! Every integration test, in one program: they share a server and a build.

mod conflicts;
mod exactly_once;
mod flaws_by_hand;
mod flaws_concurrent;
mod flaws_notes;
mod infra;
mod late_commits;
mod layering;
mod support;
