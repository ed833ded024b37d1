//! For unit tests only.

use std::time::Instant;

/// Some instant to count from: `domain/` reads no clock, not even in its tests.
pub(crate) fn some_instant() -> Instant {
    tokio::time::Instant::now().into_std()
}
