//! Decisions as values: no IO, no clocks, no environment.

pub mod admission;
pub mod model;
pub mod patch;
pub mod pod;
pub mod review;
mod sidecar;
pub mod workload;
