//! Pulls messages from RabbitMQ, posts each to the worker, settles it by the answer.
//!
//! The map:
//!
//! - [`pipeline`]: the life of a delivery, step by step. Begin there.
//! - [`domain`]: every decision, as functions of values.
//! - [`broker`]: AMQP 0-9-1; [`dispatch`]: HTTP to the worker; [`connections`]: who else calls the worker.
//! - [`callbacks`]: where a worker settles what it has deferred.
//! - [`reporter`]: what runs in place of the broker where there is no queue.
//! - [`config`]: what can be set; [`status`]: what is counted; [`telemetry`]: what is said.
//! - [`app`]: how the parts are put together, started and stopped; [`admin`]: the admin port.
//!
//! The sidecar does not know Kubernetes: it runs against any broker and any HTTP port.

pub mod admin;
pub mod app;
pub mod broker;
pub mod callbacks;
pub mod command;
mod completions;
pub mod config;
pub mod connections;
pub mod dispatch;
pub mod domain;
pub mod pipeline;
pub mod reporter;
pub mod status;
pub mod telemetry;

pub use app::{App, Drained, Handle, Ports};
pub use config::Config;
pub use dispatch::Worker;
pub use status::{Counts, State, Status};
