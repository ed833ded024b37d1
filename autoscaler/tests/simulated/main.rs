//! The autoscaler against a simulated queue and fleet, in virtual time.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod faults;
mod invariants;
mod loops;
mod scenarios;
mod stage;
mod telemetry;
mod world;

/// Captures this test's logs.
///
/// While a process has only one subscriber, tracing asks only the thread that meets a log line for the first time
/// whether anybody wants it, and remembers a no for all. Other tests run on threads without a subscriber, so a second
/// subscriber that wants nothing is kept for ever.
fn capture() -> testkit::logs::Logs {
    static SECOND: std::sync::OnceLock<tracing::Dispatch> = std::sync::OnceLock::new();
    SECOND.get_or_init(|| tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new()));
    testkit::logs::capture()
}
