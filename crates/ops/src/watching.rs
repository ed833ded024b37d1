//! Waiting for a shared value to become something.

use tokio::sync::watch;

/// Waits until the value satisfies `wanted`; returns at once if it does already. Cancel safe.
pub async fn until<T>(value: &watch::Sender<T>, wanted: impl FnMut(&T) -> bool) {
    let mut receiver = value.subscribe();
    // Cannot fail: the sender lives as long as its borrow. The guard must not outlive this line, or whoever awaits
    // next holds the value's lock.
    drop(receiver.wait_for(wanted).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_returns_at_once_or_after_the_change() {
        let value = watch::Sender::new(1);
        until(&value, |value| *value == 1).await;
        let (waited, ()) = tokio::join!(until(&value, |value| *value == 2), async {
            value.send_replace(2);
        });
        assert_eq!(((), 2), (waited, *value.borrow()));
    }
}
