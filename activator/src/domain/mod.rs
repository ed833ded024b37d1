//! Decisions as functions of values: nothing here waits, reads a clock, logs or counts.

pub mod buffer;
pub mod reject;
pub mod route;
pub mod wake;
