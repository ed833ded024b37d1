//! `GET /drained`: what holds back the end of the worker when its pod ends.
//!
//! When a pod ends, the kubelet runs the `preStop` hooks of all containers at once, and sends a container SIGTERM when
//! its own hook is over. The sidecar's hook is `sidecar drain`, which stops intake. The worker's is this path: the
//! kubelet itself asks for it over the pod's address, so that the worker's image needs nothing. It answers when the
//! worker may go.
//!
//! Anybody on the network can ask. So it changes nothing: it waits for what others do, for a bounded time where they do
//! not, and not for many at once.

use crate::app::Handle;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long the sidecar's own hook, a process to be started in the container, may take to stop intake.
const BEGIN_WITHIN: Duration = Duration::from_secs(3);
/// Services go on sending calls to a pod for a moment after its end began, until every node has heard of it: a worker
/// that stopped at once would refuse them.
const AT_THE_EARLIEST: Duration = Duration::from_secs(2);
/// How long connections from outside are waited for. Many callers keep theirs open without using them, and a worker
/// closes those itself at its end.
const CONNECTIONS_WITHIN: Duration = Duration::from_secs(10);
/// How often connections are counted meanwhile.
const COUNT_EVERY: Duration = Duration::from_millis(100);

/// Waits of one address at once. A node asks once for each container that has the hook.
const MOST_OF_ONE: u8 = 4;
/// Waits at once, so that strangers cost little; by address, so that they cannot take the kubelet's place either.
const MOST: usize = 16;

/// Waits for the end of all work, as described above; `false` when intake is not stopped. Cancel safe.
pub(super) async fn wait(handle: &Handle) -> bool {
    let asked = Instant::now();
    loop {
        if timeout(BEGIN_WITHIN, handle.intake_stopped()).await.is_err() {
            return false;
        }
        // All are cancel safe.
        tokio::select! {
            biased;
            // Not the end of the pod, or not any more: begin again.
            () = handle.intake_resumed() => {}
            () = over(handle.drained(), || handle.connections(), asked) => return true,
        }
    }
}

/// Waits until nothing is in flight, and then, until a while after it was `asked` for, for the worker's callers.
async fn over(drained: impl Future<Output = ()>, connections: impl Fn() -> Option<u32>, asked: Instant) {
    drained.await;
    sleep_until(asked + AT_THE_EARLIEST).await;
    while asked.elapsed() < CONNECTIONS_WITHIN && connections().is_some_and(|count| count > 0) {
        sleep(COUNT_EVERY).await;
    }
}

/// Counts those who wait.
#[derive(Debug, Default)]
pub(super) struct Waits {
    by_address: Mutex<HashMap<IpAddr, u8>>,
}

/// A place among those who wait; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    waits: Arc<Waits>,
    ip: IpAddr,
}

impl Waits {
    /// A place for a caller from `ip`, if there is one.
    pub(super) fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let mut by_address = self.by_address.lock().expect("invariant: no holder panics");
        let all: usize = by_address.values().map(|count| usize::from(*count)).sum();
        if all >= MOST || by_address.get(&ip).is_some_and(|count| *count >= MOST_OF_ONE) {
            return None;
        }
        *by_address.entry(ip).or_default() += 1;
        Some(Place {
            waits: Arc::clone(self),
            ip,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.waits.by_address.lock().expect("invariant: no holder panics");
        if let Some(count) = by_address.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long the end takes, in seconds, when what is in flight takes `work` and the callers leave after `callers`;
    /// `None` when they cannot be counted.
    async fn takes(work: u64, callers: Option<u64>) -> f64 {
        let asked = Instant::now();
        let connections = || {
            let leave = Duration::from_secs(callers?);
            Some(u32::from(asked.elapsed() < leave))
        };
        over(sleep(Duration::from_secs(work)), connections, asked).await;
        (asked.elapsed().as_secs_f64() * 10.0).round() / 10.0
    }

    #[tokio::test(start_paused = true)]
    async fn the_worker_goes_after_its_messages_and_callers_but_not_at_once_and_not_never() {
        for (work, callers, expected) in [
            (0, Some(0), 2.0),
            (0, None, 2.0),
            (1, Some(1), 2.0),
            (0, Some(5), 5.0),
            (0, Some(60), 10.0),
            (7, None, 7.0),
            (7, Some(8), 8.0),
            // There was time enough to leave.
            (30, Some(60), 30.0),
        ] {
            let took = takes(work, callers).await;
            assert!(
                (took - expected).abs() < 0.15,
                "{work} {callers:?}: {took} s, not {expected} s"
            );
        }
    }

    #[test]
    fn places_are_few_for_each_and_for_all_and_come_back() {
        let waits = Arc::new(Waits::default());
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        let mut places = Vec::new();
        for last in 0..4 {
            for _ in 0..MOST_OF_ONE {
                places.push(waits.enter(ip(last)).unwrap());
            }
            assert!(waits.enter(ip(last)).is_none());
        }
        assert_eq!(places.len(), MOST);
        assert!(waits.enter(ip(9)).is_none());
        drop(places.pop());
        assert!(waits.enter(ip(9)).is_some());
        places.clear();
        assert!(waits.by_address.lock().unwrap().is_empty());
    }
}
