//! Waiting on a condition: the only way tests of this repository wait.

use std::future::Future;
use std::panic::Location;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// How long most conditions may take: far longer than they do, because two cores may be busy with a build.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(5);

/// What a check may answer: `true`, or `Some(value)` that [`until`] then returns.
pub trait Condition {
    /// What is known once the condition holds.
    type Value;

    /// The value when the condition holds, `None` while it does not.
    fn met(self) -> Option<Self::Value>;
}

impl Condition for bool {
    type Value = ();

    fn met(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Condition for Option<T> {
    type Value = T;

    fn met(self) -> Option<T> {
        self
    }
}

/// Runs `check` every few milliseconds until it answers `true` or `Some(value)`, and returns the value.
///
/// Panics with `what`, the time waited and the caller's place when the condition does not hold within `patience`;
/// a check that hangs ends by the same limit. Under tokio's paused clock the patience is virtual time and runs out
/// at once: pause the clock only where nothing real is waited for.
#[track_caller]
pub fn until<C, F, Fut>(what: &str, patience: Duration, mut check: F) -> impl Future<Output = C::Value>
where
    C: Condition,
    F: FnMut() -> Fut,
    Fut: Future<Output = C>,
{
    let place = Location::caller();
    async move {
        let deadline = Instant::now() + patience;
        loop {
            if let Ok(Some(value)) = timeout_at(deadline, check()).await.map(Condition::met) {
                return value;
            }
            assert!(
                Instant::now() < deadline,
                "waited {patience:?} in vain until {what} ({place})"
            );
            sleep(POLL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::panic::AssertUnwindSafe;

    #[tokio::test]
    async fn returns_the_value_of_the_first_check_that_has_one() {
        let calls = Cell::new(0);
        let value = until("three calls", PATIENCE, || async {
            calls.set(calls.get() + 1);
            (calls.get() == 3).then_some("done")
        });
        assert_eq!(value.await, "done");
        assert_eq!(calls.get(), 3);
    }

    #[tokio::test]
    async fn panics_with_what_was_waited_for_even_when_the_check_hangs() {
        let wait = AssertUnwindSafe(until(
            "the moon is green",
            Duration::from_millis(20),
            std::future::pending::<bool>,
        ));
        let panic = futures_util::FutureExt::catch_unwind(wait).await.unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains("until the moon is green"), "{message}");
        assert!(
            message.contains("wait.rs"),
            "the caller's place is named: {message}"
        );
    }
}
