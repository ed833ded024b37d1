//! Decisions as values: no IO, no clocks, no environment.

pub mod admission;
pub mod model;
pub mod patch;
pub mod pod;
pub mod review;
mod sidecar;
pub mod workload;

/// Injected pods carry this: which sidecar they got. Whoever finds it together with the container leaves the pod
/// alone, so that a second review of the same pod changes nothing.
pub const STATUS: &str = "kubedaemon.io/status";

/// Pod templates carry this: which annotations were copied onto them from their workload, and what had stood there.
pub const COPIED: &str = "kubedaemon.io/copied";

/// Annotations of ours that nobody writes by hand.
pub const BOOKKEEPING: &[&str] = &[STATUS, COPIED];
