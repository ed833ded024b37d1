//! The activator on a real Kubernetes. It runs on the machine, which pods reach like any other pod, so that even
//! Services can lead to it.

mod outage;
mod queue;
mod support;
mod takeover;
mod trouble;
mod wake;
