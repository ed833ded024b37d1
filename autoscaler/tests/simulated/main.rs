//! The autoscaler against a simulated queue and fleet, in virtual time.

mod faults;
mod invariants;
mod loops;
mod scenarios;
mod stage;
mod telemetry;
mod world;
