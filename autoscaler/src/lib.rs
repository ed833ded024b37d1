//! Samples queue depth and waiting calls, decides a replica count, applies it drain-first.
//!
//! `pipeline.rs` is the life of a tick and is read first. [`domain`] decides, [`source`] asks brokers, [`Autoscaler`]
//! runs many targets. What is scaled is a [`ScaleTarget`].
//!
//! Architecture invariants: the autoscaler never consumes a message; nothing but [`ScaleTarget`] changes anything;
//! replicas go only when the queue and the fleet are known.

mod app;
pub mod domain;
pub mod kubernetes;
mod pipeline;
mod report;
pub mod source;
mod target;
mod telemetry;
#[cfg(test)]
mod testing;

pub use app::{Autoscaler, Registry, TargetHandle, TargetSpec};
pub use report::Report;
pub use source::{DepthSource, NoQueues, PassiveDeclare};
pub use target::{Fleet, Phase, Replica, ReplicaId, ScaleTarget, TargetError};
