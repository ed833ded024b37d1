//! What a run is told through the environment, so that it can be replayed.

/// The seed of a run: everything drawn comes from it.
pub const SEED: &str = "KUBEDAEMON_SEED";
/// How many messages.
pub const MESSAGES: &str = "KUBEDAEMON_MESSAGES";
/// How often the broker is killed or restarted.
pub const BROKER_FAULTS: &str = "KUBEDAEMON_BROKER_FAULTS";

/// A number from the environment; `None` when it is not set.
///
/// Panics when it is no number.
#[expect(
    clippy::disallowed_methods,
    reason = "tests are told their seed and size here"
)]
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no whole number")),
    )
}

/// As [`number`], as a count.
pub fn count(name: &str, default: usize) -> usize {
    number(name).map_or(default, |number| usize::try_from(number).expect("a count fits"))
}

/// The seed to replay, or a new one; said in either case.
pub fn seed(what: &str) -> u64 {
    let seed = number(SEED).unwrap_or_else(|| fastrand::u64(..));
    testkit::say(&format!("{what}: seed {seed}, replay with {SEED}={seed}"));
    seed
}
