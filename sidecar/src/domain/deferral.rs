//! How long a deferred message is waited for.

use std::time::Duration;

/// The time left to a worker that `asked` for so much when it had taken `took`: what it asked for, but no more than `most`
/// in all, for the broker takes back what is held for too long.
pub fn time_left(asked: Duration, took: Duration, most: Duration) -> Duration {
    asked.min(most.saturating_sub(took))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_more_than_the_most_in_all() {
        let seconds = |asked, took| {
            let most = Duration::from_secs(100);
            time_left(asked, Duration::from_secs(took), most).as_secs()
        };
        assert_eq!(seconds(Duration::from_secs(30), 50), 30);
        assert_eq!(seconds(Duration::from_mins(1), 50), 50);
        assert_eq!(seconds(Duration::MAX, 0), 100);
        assert_eq!(seconds(Duration::from_secs(1), 200), 0);
    }
}
