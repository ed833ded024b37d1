//! The autoscaler as a process, with exactly the documented rights, on a real Kubernetes and a real RabbitMQ.

mod leading;
mod outage;
mod scaling;
mod support;
mod targets;
