//! The annotation model: what the annotations of a workload mean for its sidecar, or why they mean nothing; and the
//! admission webhook that acts on them.
//!
//! Start at [`pipeline`]: the life of a review. [`manifest::read`] takes workloads out of YAML or JSON,
//! [`domain::model::decide`] says what happens to one of them, [`report`] tells it to a person: `webhook-injector
//! check`, and local mode, need no more. [`server`] is the rest of `webhook-injector serve`.

pub mod domain;
pub mod manifest;
pub mod pipeline;
pub mod report;
pub mod server;
mod telemetry;
