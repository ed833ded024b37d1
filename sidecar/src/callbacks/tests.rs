use super::*;
use futures_util::FutureExt;

const SETTLED: Settled = Settled {
    verdict: "accepted",
    reason: "succeeded",
};

fn callbacks() -> Arc<Callbacks> {
    let address = "0.0.0.0:9464".parse().unwrap();
    Arc::new(Callbacks::at(Some(address), "127.0.0.1"))
}

/// The path of a callback's `done`.
fn path(callback: &Callback) -> String {
    let address = callback.callbacks.address(callback.id());
    let prefix = address.prefix.strip_prefix("http://127.0.0.1:9464").unwrap();
    format!("{prefix}{}/done", address.number)
}

async fn post(callbacks: &Callbacks, path: &str) -> Result<Settled, Refused> {
    callbacks.post(path, HeaderMap::new(), Bytes::new()).await
}

#[tokio::test]
async fn a_call_is_answered_when_the_message_is_settled_and_only_the_first_counts() {
    let callbacks = callbacks();
    let mut callback = callbacks.open().unwrap();
    let path = path(&callback);
    assert!(Callbacks::is_callback(&path));
    let settling = async {
        let (_headers, body) = callback.done().await;
        assert_eq!(post(&callbacks, &path).await, Err(Refused::Settled));
        callback.settled(SETTLED);
        body
    };
    let calling = callbacks.post(&path, HeaderMap::new(), Bytes::from_static(b"reply"));
    let (told, body) = tokio::join!(calling, settling);
    assert_eq!((told, &*body), (Ok(SETTLED), &b"reply"[..]));
    assert_eq!(post(&callbacks, &path).await, Err(Refused::Settled));
    assert!(callbacks.inner().open.is_empty(), "nothing is left of it");
}

#[tokio::test]
async fn a_wait_that_was_given_up_keeps_the_call_for_the_next() {
    let callbacks = callbacks();
    let mut callback = callbacks.open().unwrap();
    let path = path(&callback);
    assert!(callback.done().now_or_never().is_none());
    assert!(callback.done().now_or_never().is_none());
    let settling = async {
        let (_headers, body) = callback.done().await;
        assert!(callback.done().now_or_never().is_none(), "only the first counts");
        callback.settled(SETTLED);
        body
    };
    let calling = callbacks.post(&path, HeaderMap::new(), Bytes::from_static(b"late"));
    let (body, told) = tokio::join!(settling, calling);
    assert_eq!((told, &*body), (Ok(SETTLED), &b"late"[..]));
}

#[tokio::test]
async fn a_call_that_nobody_takes_is_told_why() {
    let callbacks = callbacks();
    for (is_lost, expected) in [(false, Refused::Settled), (true, Refused::Lost)] {
        let callback = callbacks.open().unwrap();
        let path = path(&callback);
        let ending = async {
            if is_lost {
                drop(callback);
            } else {
                callback.settled(SETTLED);
            }
        };
        let (told, ()) = tokio::join!(post(&callbacks, &path), ending);
        assert_eq!(told, Err(expected));
        assert_eq!(post(&callbacks, &path).await, Err(expected));
    }
    let next = callbacks.inner().next;
    let ours = |id: u64| format!("/callback/{}-{id}/done", callbacks.process);
    let earlier = format!("/callback/{}-0/done", uuid::Uuid::new_v4().simple());
    assert_eq!(post(&callbacks, &ours(next)).await, Err(Refused::Unknown));
    assert_eq!(post(&callbacks, &earlier).await, Err(Refused::Lost));
    for path in [
        "/callback/",
        "/callback/x/done",
        "/callback/x-1/done",
        "/callback/done",
    ] {
        assert_eq!(post(&callbacks, path).await, Err(Refused::Unknown), "{path}");
    }
}

#[test]
fn what_is_remembered_is_bounded() {
    let callbacks = callbacks();
    for _ in 0..2 * REMEMBERED {
        drop(callbacks.open());
    }
    let inner = callbacks.inner();
    assert_eq!((inner.lost.len(), inner.open.len()), (REMEMBERED, 0));
}

#[test]
fn there_are_addresses_only_where_the_worker_reaches_them() {
    let base = |address: &str, worker| {
        let callbacks = Callbacks::at(Some(address.parse().unwrap()), worker);
        let ending = format!("/{}-", callbacks.process);
        callbacks
            .prefix
            .map(|prefix| prefix.strip_suffix(&ending).unwrap().to_owned())
    };
    let v4 = Some("http://127.0.0.1:1/callback".to_owned());
    assert_eq!(base("127.0.0.1:1", "127.0.0.1"), v4);
    assert_eq!(base("0.0.0.0:1", "localhost"), v4);
    assert_eq!(base("[::]:1", "::1"), v4);
    assert_eq!(
        base("[::1]:1", "127.0.0.1").as_deref(),
        Some("http://[::1]:1/callback")
    );
    assert_eq!(base("10.0.0.1:1", "127.0.0.1"), None);
    assert_eq!(base("127.0.0.1:1", "worker.example"), None);
    assert_eq!(Callbacks::at(None, "127.0.0.1").prefix, None);
}
