//! The cluster itself: what runs in it works as in any Kubernetes, and nothing is left of it.

mod clean;
mod support;
mod workloads;
