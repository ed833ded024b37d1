//! Process plumbing without product words: telemetry, admin server, shutdown, back-off, the wall clock.

pub mod admin;
pub mod backoff;
pub mod clock;
pub mod metrics;
pub mod shutdown;
pub mod telemetry;
pub mod watching;
