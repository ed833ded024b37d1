//! A real API server asks the injector: workloads and pods as people make them, the injector away, certificates that
//! change. The injector runs on the machine with the rights of `permissions.yaml`, and is asked as
//! `webhook-configuration.yaml` says.

mod certificates;
mod injection;
mod outage;
mod support;
