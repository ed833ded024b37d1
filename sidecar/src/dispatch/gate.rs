//! Whether the worker's port answers. No message is taken before it does: attempts must not be burnt on a worker that
//! is still starting.

use super::client::Worker;
use super::network::Network;
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// How often the port is tried at first: a quick worker should not wait for us.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
/// How often it is tried later.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// The part of the time waited so far that a pause may add: no start is delayed by more, and 10 ms are reached after
/// 2.5 s.
const SHARE: u32 = 256;
/// A port behind a black hole counts as silent after this.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a worker that gets no messages is tried while it is up.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// Whether somebody accepts connections there now.
pub(super) async fn answers(network: &dyn Network, worker: &Worker) -> bool {
    match tokio::time::timeout(PROBE_TIMEOUT, network.connect(&worker.host, worker.port)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => is_broken(&error),
        Err(_elapsed) => false,
    }
}

/// Whether connecting failed because somebody accepted and broke the connection before we looked at it: that is an answer,
/// if a rude one.
pub(super) fn is_broken(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(
        error.kind(),
        ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected
    )
}

/// Waits until somebody does. Cancel safe.
pub(super) async fn until_it_answers(network: &dyn Network, worker: &Worker) {
    keep_trying(|| answers(network, worker)).await;
}

/// Waits until nobody does any more. Cancel safe.
pub(super) async fn until_it_is_silent(network: &dyn Network, worker: &Worker) {
    while answers(network, worker).await {
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}

/// Tries at once, and then ever more slowly, until it succeeds.
async fn keep_trying<A: Future<Output = bool>>(mut attempt: impl FnMut() -> A) {
    let begun = Instant::now();
    while !attempt().await {
        let pause = begun.elapsed() / SHARE;
        tokio::time::sleep(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_try_is_immediate_and_no_start_is_delayed_by_much() {
        let begun = Instant::now();
        let mut tries = Vec::new();
        let end = Duration::from_mins(3);
        keep_trying(|| {
            tries.push(begun.elapsed());
            std::future::ready(begun.elapsed() > end)
        })
        .await;
        assert_eq!(tries[0], Duration::ZERO);
        for pair in tries.windows(2) {
            let (at, pause) = (pair[0], pair[1].saturating_sub(pair[0]));
            let most = match at.as_millis() {
                // The timer counts whole milliseconds.
                0..=500 => 3,
                501..=2500 => 11,
                _ => 251,
            };
            assert!(pause <= Duration::from_millis(most), "{pause:?} after {at:?}");
        }
        let count = |within| {
            tries
                .iter()
                .filter(|at| **at <= Duration::from_secs(within))
                .count()
        };
        assert!((250..=600).contains(&count(2)), "{} in two seconds", count(2));
        assert!(count(180) < 3500, "{} in three minutes", count(180));
        let last = tries[tries.len() - 1].saturating_sub(tries[tries.len() - 2]);
        assert!(last >= LONGEST_PAUSE, "{last:?}");
    }
}
