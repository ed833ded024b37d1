//! The activator as callers see it: a real socket on one side, real workers on the other.

#![allow(
    clippy::unwrap_used,
    reason = "a test that meets what it does not expect has failed"
)]

mod asynchronous;
mod broker;
mod cold;
mod drain;
mod faults;
mod protocol;
mod rejections;
mod streaming;
mod support;
mod upgrade;
