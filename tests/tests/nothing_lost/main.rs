//! Nothing is lost, whatever ends at whatever moment: on both types of queue, from a printed seed, judged by one
//! oracle. `KUBEDAEMON_SEED=…` replays a run.
#![allow(clippy::unwrap_used, reason = "tests")]

mod broker;
mod drains;
mod kills;
mod poison;

use suite::fate::Mix;
use suite::lane::{QueueType, Setup};

/// Small messages, quick answers.
fn setup(queue_type: QueueType, mix: Mix, seed: u64) -> Setup {
    Setup {
        queue_type,
        mix,
        seed: queue_type.seed(seed),
        concurrency: 16,
        timeout_seconds: 10,
        max_attempts: 3,
    }
}
