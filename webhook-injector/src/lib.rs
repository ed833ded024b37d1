//! The annotation model: what the annotations of a workload mean for its sidecar, or why they mean nothing.
//!
//! [`manifest::read`] takes workloads out of YAML or JSON; [`domain::model::decide`] says what happens to one of
//! them; [`report`] tells it to a person. Local mode uses the first two.

pub mod domain;
pub mod manifest;
pub mod report;
