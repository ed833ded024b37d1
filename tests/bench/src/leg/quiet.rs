//! Waits for a broker that does nothing.

use crate::tree::Spent;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long it has to be quiet.
const LOOK: Duration = Duration::from_millis(200);

/// What it may spend in that time: its timers, and connections that are open. A broker that writes spends more.
const QUIET: Duration = Duration::from_millis(10);

/// Waits until the broker has written what was published, which it may do after it has confirmed it: a runner that is
/// started meanwhile would pay for it, and the next one not. It is waited for no longer than `patience`.
pub(super) async fn until_quiet(broker: u32, patience: Duration) {
    let began = Instant::now();
    let mut before = Spent::now(broker);
    while began.elapsed() < patience {
        sleep(LOOK).await;
        let now = Spent::now(broker);
        if now.processor_since(&before) < QUIET {
            return;
        }
        before = now;
    }
}
