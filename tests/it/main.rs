//! Every integration test, in one program: they share a server and a build.

mod demo;
mod infra;
mod layering;
mod support;
