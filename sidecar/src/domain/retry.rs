//! How long a message waits before its next attempt.

use std::time::Duration;

/// The delays for which there are retry queues. A delay is rounded up to one of them: a message may come a little
/// later than asked, never earlier, and a queue a delay keeps the number of queues small.
const RUNGS: [Duration; 25] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(1500),
    Duration::from_secs(2),
    Duration::from_secs(3),
    Duration::from_secs(4),
    Duration::from_secs(5),
    Duration::from_secs(7),
    Duration::from_secs(10),
    Duration::from_secs(15),
    Duration::from_secs(20),
    Duration::from_secs(30),
    Duration::from_secs(45),
    Duration::from_mins(1),
    Duration::from_secs(90),
    Duration::from_mins(2),
    Duration::from_mins(3),
    Duration::from_mins(4),
    Duration::from_mins(5),
    Duration::from_mins(7),
    Duration::from_mins(10),
    Duration::from_mins(20),
    Duration::from_hours(1),
];

/// How delays grow with the attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The delay after the first attempt.
    pub min: Duration,
    /// The longest delay.
    pub max: Duration,
}

/// The delay after attempt number `attempt` (1-based): `min` doubled with each attempt, up to `max`, spread by ±20 %.
/// `draw` in `[0, 1)` is the random draw for the spread. A `hint` (Retry-After) can lengthen the wait, never shorten
/// it: a worker that asks for rest must not be hit earlier than our own back-off says.
pub fn delay(policy: Policy, attempt: u32, hint: Option<Duration>, draw: f64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(32);
    let backoff = policy
        .min
        .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
        .min(policy.max);
    let spread = backoff.mul_f64(0.8 + 0.4 * draw.clamp(0.0, 1.0));
    rung(spread.min(policy.max).max(hint.unwrap_or_default()))
}

/// The delay that a hint alone asks for, for answers that are no failed attempt.
pub fn hinted(hint: Duration) -> Duration {
    rung(hint)
}

/// The nearest rung that is not shorter; beyond the last, whole hours.
fn rung(delay: Duration) -> Duration {
    RUNGS.into_iter().find(|rung| *rung >= delay).unwrap_or_else(|| {
        let hours = delay.as_nanos().div_ceil(Duration::from_hours(1).as_nanos());
        Duration::from_hours(u64::try_from(hours).unwrap_or(u64::MAX).clamp(1, 24))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: Policy = Policy {
        min: Duration::from_secs(1),
        max: Duration::from_mins(5),
    };

    #[test]
    fn delays_double_up_to_the_longest() {
        let delays: Vec<u64> = (1..=11)
            .map(|attempt| delay(POLICY, attempt, None, 0.5).as_secs())
            .collect();
        assert_eq!(delays, [1, 2, 4, 10, 20, 45, 90, 180, 300, 300, 300]);
    }

    #[test]
    fn a_hint_lengthens_and_never_shortens() {
        let long = delay(POLICY, 1, Some(Duration::from_secs(55)), 0.5);
        assert_eq!(long, Duration::from_mins(1));
        let short = delay(POLICY, 9, Some(Duration::from_secs(1)), 0.5);
        assert_eq!(short, Duration::from_mins(5));
        let odd = hinted(Duration::from_hours(17) + Duration::from_millis(1));
        assert_eq!(odd, Duration::from_hours(18));
    }

    proptest! {
        #[test]
        fn delays_are_rungs_within_bounds(min in 1_u64..100_000, extra in 0_u64..1_000_000, attempt in 1_u32..5_000, draw in 0.0..1.0) {
            let policy = Policy { min: Duration::from_millis(min), max: Duration::from_millis(min + extra) };
            let delay = delay(policy, attempt, None, draw);
            prop_assert!(delay >= policy.min.mul_f64(0.79));
            prop_assert!(delay <= rung(policy.max));
            prop_assert_eq!(delay, rung(delay));
        }

        #[test]
        fn a_hint_is_never_undercut(hint in 0_u64..90_000_000) {
            let hint = Duration::from_millis(hint);
            let capped = hint.min(Duration::from_hours(24));
            prop_assert!(hinted(hint) >= capped);
        }
    }
}
