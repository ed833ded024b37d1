//! Annotations that are not settings: they say whether a workload takes part, not how it behaves.

/// `"false"` keeps the sidecar out of an otherwise annotated workload; `"true"` takes a workload in that has no
/// queue and is only called over HTTP.
pub const INJECT: &str = "kubedaemon.io/inject";

/// All that people write, for telling a known annotation from a misspelt one.
pub const ALL: &[&str] = &[INJECT];

/// Injected pods carry this: which sidecar they got. Whoever finds it together with the container leaves the pod
/// alone, so that a second review of the same pod changes nothing.
pub const STATUS: &str = "kubedaemon.io/status";

/// Pod templates carry this: which annotations were copied onto them from their workload, and what had stood there.
pub const COPIED: &str = "kubedaemon.io/copied";

/// Scaled workloads carry this: how many replicas there were before the autoscaler took them over. It gives them back
/// when the workload is no longer annotated.
pub const ORIGINAL_REPLICAS: &str = "kubedaemon.io/original-replicas";

/// Scaled workloads carry this: what the autoscaler last decided and why, for people.
pub const SCALING: &str = "kubedaemon.io/scaling";

/// Annotations of ours that nobody writes by hand.
pub const BOOKKEEPING: &[&str] = &[STATUS, COPIED, ORIGINAL_REPLICAS, SCALING];
