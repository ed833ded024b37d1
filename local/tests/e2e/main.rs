//! The `kubedaemon` binary with real worker processes and a real broker.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod calls;
mod cli;
mod manifests;
mod queue;
mod support;
mod terminal;
