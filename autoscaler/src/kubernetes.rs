//! The autoscaler on a Kubernetes cluster: workloads are its targets, their pods the replicas.
//!
//! `controller.rs` is read first: which workloads are targets, and while who leads. Then `keeper.rs`, the life of one
//! target, and `target.rs`, what is done to it. `api.rs` alone changes anything in the cluster.

mod admin;
mod api;
mod app;
mod calls;
pub mod config;
mod conflicts;
mod controller;
mod events;
mod explain;
mod http;
mod intent;
mod keeper;
mod key;
mod lease;
mod observe;
mod restore;
mod target;
mod telemetry;
mod views;
mod workload;

pub use app::App;
pub use config::Config;

use k8s_openapi::jiff::Timestamp;

/// Who changes something, in the API server's books.
const FIELD_MANAGER: &str = "kubedaemon-autoscaler";

/// The wall clock, for stamps that others read.
fn timestamp() -> Timestamp {
    let micros = i64::try_from(ops::clock::since_epoch().as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A stamp in whole seconds: `2026-01-31T12:00:00Z`.
fn second(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}
