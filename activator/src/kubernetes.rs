//! The activator on a cluster: what can be called, how it is woken, and how the activator stands in for Services.
//!
//! | part | what it does |
//! |---|---|
//! | `workload` | what an annotated Deployment or StatefulSet asks for |
//! | `pods` | which pods can be called, and why none can |
//! | `views` | what the API server tells, pruned |
//! | `targets` | the two together as [`Targets`](crate::Targets) |
//! | `scale` | the one write to a replica count: from zero to its least |
//! | `probe` | asks a starting worker itself rather than wait for the kubelet to |
//! | `takeover` | the activator's own EndpointSlices behind Services of targets that nothing is ready behind |
//! | `outbox` | the broker of each target |
//! | `config`, `run`, `admin` | the process |
//!
//! Calls do not need the API server: what was last known of it is used until it says otherwise.

mod admin;
mod config;
mod outbox;
mod pods;
mod probe;
mod run;
mod scale;
mod takeover;
mod targets;
mod views;
mod workload;

pub use config::{Config, Identity, command};
pub use run::{Bound, Error, bind};

/// Under which name the API server records what the activator writes.
const FIELD_MANAGER: &str = "kubedaemon-activator";
