//! The whole sidecar on simulated time, against a simulated RabbitMQ, network and worker, thousands of times.
//!
//! Its own supervisor, sessions, settler, copies, pipeline, HTTP client and levers run; what is simulated stands behind
//! its ports. A simulation is drawn from its seed, and the same seed gives the same simulation:
//!
//! ```text
//! KUBEDAEMON_SEED=42 cargo test -p sidecar --test simulation -- --nocapture       # one, with its trace
//! KUBEDAEMON_SEEDS=100000 cargo test -p sidecar --test simulation -- --nocapture  # more of them
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    missing_debug_implementations,
    reason = "tests"
)]

mod found;
mod oracle;
mod ports;
mod rabbit;
mod scenario;
mod watched;
mod worker;
mod world;

use oracle::Totals;
use scenario::run;
use std::time::Duration;
use world::Bug;

const SEEDS: u64 = 3_000;

fn number(variable: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "how a run of the tests is steered")]
    let given = std::env::var(variable).ok()?;
    Some(given.parse().expect("the variable is a number"))
}

fn replay(seed: u64) -> String {
    format!("replay: KUBEDAEMON_SEED={seed} cargo test -p sidecar --test simulation -- --nocapture")
}

#[test]
fn nothing_is_lost_doubled_or_stuck_whatever_happens() {
    if let Some(seed) = number("KUBEDAEMON_SEED") {
        let report = run(seed, None, true);
        println!("{}", report.trace.join("\n"));
        println!("{:?}", report.totals);
        assert!(report.wrongs.is_empty(), "{}", report.wrongs.join("\n"));
        return;
    }
    let seeds = number("KUBEDAEMON_SEEDS").unwrap_or(SEEDS);
    let first = fastrand::u64(..u64::MAX / 2);
    println!("{seeds} simulations from seed {first}");
    let (mut sum, mut took, mut failed) = (Totals::default(), Duration::ZERO, Vec::new());
    for seed in first..first + seeds {
        let report = run(seed, None, false);
        sum.add(&report.totals);
        took += report.took;
        if !report.wrongs.is_empty() {
            println!("{}\n{}", report.wrongs.join("\n"), replay(seed));
            failed.push(seed);
        }
    }
    println!("{sum:?} in {took:?} of simulated time");
    assert!(failed.is_empty(), "{} of {seeds} fail: {failed:?}", failed.len());
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let first = fastrand::u64(..u64::MAX / 2);
    for seed in first..first + 20 {
        let (once, again) = (run(seed, None, true), run(seed, None, true));
        let differs = once
            .trace
            .iter()
            .zip(&again.trace)
            .position(|(one, other)| one != other);
        assert_eq!(differs, None, "{}", replay(seed));
        assert_eq!(once.trace.len(), again.trace.len(), "{}", replay(seed));
        assert!(once.trace.len() > 5);
    }
}

#[test]
fn mistakes_at_the_ports_are_found() {
    for bug in [
        Bug::AckBeforeConfirm,
        Bug::SettleAcrossGenerations,
        Bug::AckIsAlwaysMultiple,
        Bug::AckTwice,
        Bug::AckForgotten,
        Bug::ReleaseForgotten,
    ] {
        let found = (1..=300).find_map(|seed| {
            let report = run(seed, Some(bug), false);
            report.wrongs.first().map(|wrong| (seed, wrong.clone()))
        });
        let (seed, wrong) = found.unwrap_or_else(|| panic!("{bug:?} is not found"));
        println!("{bug:?}: found by seed {seed}: {wrong}");
    }
}
