//! Every integration test, in one program: they share a server and a build.

mod chinook;
mod crash;
mod demo;
mod flaws_notes;
mod infra;
mod layering;
mod pages;
mod sides;
mod size;
mod support;
