//! The wall clock, read in one place so that decisions get `now` as a value.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since the Unix epoch, for stamps that leave the process (headers, journals). Never for measuring: the wall
/// clock may jump; `tokio::time::Instant` does not.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the wall clock"
)]
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
