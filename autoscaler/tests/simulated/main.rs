//! The autoscaler against a simulated queue and fleet, in virtual time.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod faults;
mod invariants;
mod loops;
mod scenarios;
mod stage;
mod telemetry;
mod world;
