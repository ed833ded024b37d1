//! Decisions as values: no IO, no clocks, no environment.

pub mod model;
