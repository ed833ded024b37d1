//! The activator as callers see it: a real socket on one side, real workers on the other.

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
