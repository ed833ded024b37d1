//! Waiting between tries against something that is away: exponential with full jitter, for ever.

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use std::time::Duration;

/// Delays that double from `min` to `max` and then stay there. Each is drawn evenly from `[min, bound]` (full
/// jitter), so that many clients of one broker that went away together don't come back together.
///
/// Source: AWS Architecture Blog, "Exponential Backoff And Jitter".
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    bounds: ExponentialBackoff,
}

impl Backoff {
    /// Delays between `min` and `max`; `max` below `min` counts as `min`.
    pub fn new(min: Duration, max: Duration) -> Self {
        let max = max.max(min);
        Self {
            min,
            max,
            bounds: bounds(min, max),
        }
    }

    /// The next delay. Never ends.
    pub fn next_delay(&mut self) -> Duration {
        let bound = self.bounds.next().unwrap_or(self.max).min(self.max);
        let spread = bound.saturating_sub(self.min);
        self.min + spread.mul_f64(fastrand::f64())
    }

    /// Begins again at `min`: call it when a try has succeeded.
    pub fn reset(&mut self) {
        self.bounds = bounds(self.min, self.max);
    }
}

fn bounds(min: Duration, max: Duration) -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(min * 2)
        .with_max_delay(max)
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_within_their_bounds_and_never_end() {
        let (min, max) = (Duration::from_millis(10), Duration::from_secs(1));
        let mut backoff = Backoff::new(min, max);
        for _ in 0..10_000 {
            let delay = backoff.next_delay();
            assert!(delay >= min && delay <= max, "{delay:?}");
        }
    }

    #[test]
    fn reset_begins_at_the_least_delay_again() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_mins(1));
        for _ in 0..50 {
            backoff.next_delay();
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(20));
    }

    #[test]
    fn equal_bounds_give_a_constant_delay() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_millis(1));
        assert_eq!(backoff.next_delay(), Duration::from_secs(1));
        assert_eq!(backoff.next_delay(), Duration::from_secs(1));
    }
}
