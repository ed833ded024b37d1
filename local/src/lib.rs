//! The whole system on one machine: worker processes instead of pods.
//!
//! The map:
//!
//! - [`command`]: `run`, `up` and `publish`, from a command line to what is to be run;
//! - `app`: how the parts are put together, started and stopped;
//! - `fleet`: the replicas of one worker: what the autoscaler scales and the activator forwards to;
//! - `replica`: one worker process that is started again when it ends, and its sidecar; `process`: the process itself;
//! - `domain`: what is decided about all of them, as values;
//! - `display`, `output`, `status`: what the user sees.
//!
//! Sidecar, autoscaler and activator are the same as on a cluster; they only see processes instead of pods.
//!
//! Architecture invariants: no worker process outlives its fleet, unless this program is killed with SIGKILL; a
//! process is stopped only after its sidecar has settled what was in flight; workers never see the broker's address.

mod admin;
mod app;
pub mod command;
mod display;
mod domain;
mod fleet;
mod outbox;
mod output;
mod port;
mod process;
mod replica;
mod scaling;
mod sidecars;
mod signals;
mod status;
mod targets;
mod telemetry;
