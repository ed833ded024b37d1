//! Annotations that are not settings: they say whether a workload takes part, not how it behaves.

/// `"false"` keeps the sidecar out of an otherwise annotated workload; `"true"` takes a workload in that has no
/// queue and is only called over HTTP.
pub const INJECT: &str = "kubedaemon.io/inject";

/// All of them, for telling a known annotation from a misspelt one.
pub const ALL: &[&str] = &[INJECT];
