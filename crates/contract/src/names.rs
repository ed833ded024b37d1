//! Names of the queues that stand beside a worker's queue.

use crate::quantity::format_duration;
use std::time::Duration;

/// The longest name that AMQP can carry, in bytes: names are "short strings" (AMQP 0-9-1, 4.2.5.3).
pub const MAX_NAME_BYTES: usize = 255;

/// The longest queue name, in bytes, that leaves room for [`retry_queue`] and [`dead_letter_queue`].
///
/// The longest suffix is `.retry.23h59m59.999s`: delays are whole milliseconds and never longer than
/// [`MAX_RETRY_DELAY`].
pub const MAX_QUEUE_BYTES: usize = MAX_NAME_BYTES - ".retry.23h59m59.999s".len();

/// The longest delay between two attempts that any setting allows.
pub const MAX_RETRY_DELAY: Duration = Duration::from_hours(24);

/// The queue that takes messages which are given up: `<queue>.dead`.
pub fn dead_letter_queue(queue: &str) -> String {
    format!("{queue}.dead")
}

/// The queue in which messages wait for their next attempt: `<queue>.retry.<delay>`, as in `orders.retry.1m30s`.
///
/// `delay` is rounded up to whole milliseconds, the unit of a queue's TTL, so that one name stands for one TTL.
pub fn retry_queue(queue: &str, delay: Duration) -> String {
    let millis = delay.as_nanos().div_ceil(1_000_000);
    let delay = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
    format!("{queue}.retry.{}", format_duration(delay))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_beside_the_queue() {
        assert_eq!(dead_letter_queue("orders"), "orders.dead");
        assert_eq!(
            retry_queue("orders", Duration::from_secs(90)),
            "orders.retry.1m30s"
        );
        assert_eq!(
            retry_queue("orders", Duration::from_millis(1500)),
            "orders.retry.1.5s"
        );
        assert_eq!(
            retry_queue("orders", Duration::from_micros(1)),
            "orders.retry.1ms"
        );
    }

    #[test]
    fn the_longest_queue_leaves_room_for_every_suffix() {
        let queue = "q".repeat(MAX_QUEUE_BYTES);
        let day = MAX_RETRY_DELAY.as_millis();
        let longest = (0..day)
            .step_by(997)
            .chain([day - 1, day])
            .map(|millis| retry_queue(&queue, Duration::from_millis(u64::try_from(millis).unwrap())).len())
            .max();
        assert_eq!(longest, Some(MAX_NAME_BYTES));
        assert!(dead_letter_queue(&queue).len() <= MAX_NAME_BYTES);
    }
}
