//! Calls that go to a queue.

use crate::support::{FakeOutbox, FakeTargets, Running, target};
use activator::{Limits, Message, Routing};
use std::sync::Arc;
use testkit::http::post;

async fn start(routing: Routing) -> (Arc<FakeOutbox>, Arc<FakeTargets>, Running) {
    let targets = FakeTargets::at_zero(&["orders", "shop/mail"]);
    let outbox = Arc::<FakeOutbox>::default();
    let running = Running::start_with(&targets, Limits::default(), routing, Arc::clone(&outbox) as _).await;
    (outbox, targets, running)
}

fn only(outbox: &FakeOutbox) -> (String, Message) {
    let mut published = outbox.published.lock().unwrap();
    assert_eq!(published.len(), 1);
    published.remove(0)
}

#[tokio::test]
async fn a_confirmed_call_is_202_with_its_id() {
    let (outbox, targets, running) = start(Routing::ByName).await;
    let headers = [
        ("content-type", "text/plain"),
        ("traceparent", "00-x"),
        ("x-kubedaemon-attempts", "9"),
    ];
    let answer = post(&running.url("/async/orders"), &headers, "work")
        .await
        .unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.header("content-type")),
        (202, "application/json")
    );
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let (queue, message) = only(&outbox);
    assert_eq!(body, serde_json::json!({ "id": message.id, "queue": "orders" }));
    assert_eq!(answer.header("x-call-id"), message.id);
    assert_eq!(message.id.len(), 36, "a UUID: {}", message.id);
    assert_eq!((queue.as_str(), &message.body[..]), ("orders", &b"work"[..]));
    assert_eq!(message.content_type.as_deref(), Some("text/plain"));
    assert_eq!(message.headers, [("traceparent".to_owned(), b"00-x".to_vec())]);
    assert!(message.timestamp > 1_700_000_000);
    assert_eq!((targets.wakes("orders"), targets.loads("orders").len()), (0, 0));
}

#[tokio::test]
async fn every_way_to_name_a_target() {
    let (outbox, _targets, running) = start(Routing::ByName).await;
    for (path, queue, rest) in [
        ("/async/orders", "orders", None),
        ("/async/default/orders", "orders", None),
        ("/async/shop/mail/a/b?c=d", "mail", Some("/a/b?c=d")),
        ("/async-function/mail", "mail", None),
        ("/async-function/mail.shop/a", "mail", Some("/a")),
    ] {
        assert_eq!(
            post(&running.url(path), &[], "x").await.unwrap().status.as_u16(),
            202,
            "{path}"
        );
        let (to, message) = only(&outbox);
        assert_eq!(to, queue);
        let uri = message
            .headers
            .iter()
            .find(|(name, _)| name == "x-forwarded-uri")
            .map(|(_, value)| value.clone());
        assert_eq!(uri, rest.map(|rest| rest.as_bytes().to_vec()), "{path}");
    }
    let (outbox, targets, running) = start(Routing::Single(target("orders"))).await;
    targets.queue("orders", Some("jobs"));
    for path in [
        "/async/orders",
        "/async/default/orders",
        "/async/jobs",
        "/async-function/orders",
    ] {
        assert_eq!(
            post(&running.url(path), &[], "x").await.unwrap().status.as_u16(),
            202,
            "{path}"
        );
        assert_eq!(only(&outbox).0, "jobs");
    }
}

#[tokio::test]
async fn the_idempotency_key_is_the_id() {
    let (outbox, _targets, running) = start(Routing::ByName).await;
    for (key, id) in [("order-17", "order-17"), ("\"order 17\"", "order 17")] {
        let answer = post(&running.url("/async/orders"), &[("Idempotency-Key", key)], "x")
            .await
            .unwrap();
        assert_eq!((answer.status.as_u16(), answer.header("x-call-id")), (202, id));
        let (_, message) = only(&outbox);
        assert_eq!(message.id, id);
        assert!(message.headers.is_empty(), "{:?}", message.headers);
    }
}

#[tokio::test]
async fn bodies_of_every_length_up_to_the_bound_arrive_whole() {
    let (outbox, _targets, running) = start(Routing::ByName).await;
    for length in [0, 1, 65_535, 65_536, 1 << 20] {
        let body: Vec<u8> = (0..251u8).cycle().take(length).collect();
        let answer = post(&running.url("/async/orders"), &[], body.clone())
            .await
            .unwrap();
        assert_eq!(answer.status.as_u16(), 202, "{length}");
        assert!(only(&outbox).1.body == body, "{length}");
    }
    let answer = post(&running.url("/async/orders"), &[], vec![0; (1 << 20) + 1])
        .await
        .unwrap();
    assert_eq!(answer.status.as_u16(), 413);
}
