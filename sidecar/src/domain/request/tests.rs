use super::*;
use crate::domain::delivery::History;
use http::{Method, Request};
use proptest::prelude::*;

/// 2025-11-21T10:00:00Z.
const NOW: Duration = Duration::from_hours(489_922);

fn target() -> Target {
    let path = Uri::from_static("/message");
    Target::new(
        path,
        "127.0.0.1:8080".into(),
        "orders".into(),
        5,
        Duration::from_mins(1),
    )
}

/// What a server makes of it.
fn build(message: &Message, message_id: &str) -> Request<()> {
    let callback = CallbackAddress {
        prefix: "http://127.0.0.1:9/callback/a-",
        number: 7,
    };
    let mut bytes = b"kept".to_vec();
    write_head(&mut bytes, message, message_id, &target(), Some(callback), NOW);
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut parsed = httparse::Request::new(&mut fields);
    let length = parsed.parse(&bytes["kept".len()..]).unwrap();
    assert_eq!(length, httparse::Status::Complete(bytes.len() - "kept".len()));
    let mut request = Request::builder()
        .method(parsed.method.unwrap())
        .uri(parsed.path.unwrap());
    for field in parsed.headers {
        request = request.header(field.name, field.value);
    }
    request.body(()).unwrap()
}

fn header<'a>(request: &'a Request<()>, name: &str) -> Option<&'a str> {
    request.headers().get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn a_bare_message_gets_the_least_headers() {
    let message = Message {
        body: Bytes::from_static(b"\0\xff"),
        ..Message::default()
    };
    let request = build(&message, "id-1");
    assert_eq!(
        (request.method(), request.uri().path()),
        (&Method::POST, "/message")
    );
    for (name, expected) in [
        ("content-type", "application/octet-stream"),
        ("content-length", "2"),
        ("host", "127.0.0.1:8080"),
        ("x-message-id", "id-1"),
        ("idempotency-key", "id-1"),
        ("x-delivery-attempt", "1"),
        ("x-max-attempts", "5"),
        ("x-queue", "orders"),
        ("x-redelivered", "false"),
        ("x-callback-url", "http://127.0.0.1:9/callback/a-7"),
        ("x-first-seen", "2025-11-21T10:00:00Z"),
        ("x-deadline", "2025-11-21T10:01:00Z"),
    ] {
        assert_eq!(header(&request, name), Some(expected), "{name}");
    }
}

#[test]
fn properties_and_history_are_passed_on() {
    let text = |text: &str| Some(text.to_owned());
    let message = Message {
        content_type: text("application/json"),
        content_encoding: text("gzip"),
        correlation_id: text("c-1"),
        reply_to: text("answers"),
        kind: text("order.created"),
        app_id: text("shop"),
        user_id: text("guest"),
        priority: Some(7),
        expiration: text("60000"),
        timestamp: Some(1_763_719_000),
        exchange: "shop".into(),
        routing_key: "order.new".into(),
        redelivered: true,
        history: History {
            attempts: 2,
            first_seen: Some(NOW.checked_sub(Duration::from_secs(9)).unwrap()),
            ..History::default()
        },
        headers: vec![
            ("Tenant Name".into(), "Café\r\nHost: evil".into()),
            (
                "traceparent".into(),
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
            ),
            ("x-session-id".into(), "s-9".into()),
        ],
        ..Message::default()
    };
    let request = build(&message, "id-1");
    for (name, expected) in [
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
        ("x-correlation-id", "c-1"),
        ("x-reply-to", "answers"),
        ("x-type", "order.created"),
        ("x-app-id", "shop"),
        ("x-user-id", "guest"),
        ("x-priority", "7"),
        ("x-expiration", "60000"),
        ("x-enqueued-at", "2025-11-21T09:56:40Z"),
        ("x-exchange", "shop"),
        ("x-routing-key", "order.new"),
        ("x-redelivered", "true"),
        ("x-delivery-attempt", "3"),
        ("x-first-seen", "2025-11-21T09:59:51Z"),
        ("x-amqp-tenant-name", "Caf%C3%A9%0D%0AHost:%20evil"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("x-session-id", "s-9"),
    ] {
        assert_eq!(header(&request, name), Some(expected), "{name}");
    }
}

#[test]
fn too_many_or_too_long_headers_are_left_out_and_counted() {
    let many = (0..200).map(|n| (format!("h{n}"), "v".to_owned())).collect();
    let request = build(
        &Message {
            headers: many,
            ..Message::default()
        },
        "i",
    );
    assert_eq!(header(&request, "x-headers-dropped"), Some("140"));
    assert!(request.headers().len() < 100);
    let long = vec![("big".to_owned(), "x".repeat(100_000))];
    let request = build(
        &Message {
            headers: long,
            ..Message::default()
        },
        "i",
    );
    assert_eq!(header(&request, "x-headers-dropped"), Some("1"));
}

proptest! {
    #[test]
    fn any_text_makes_a_request_and_no_text_breaks_out(
        name in ".{0,40}", text in ".{0,80}", id in ".{0,40}", content_type in proptest::option::of(".{0,30}"),
    ) {
        let message = Message { content_type, headers: vec![(name, text.clone())], routing_key: text, ..Message::default() };
        let request = build(&message, &id);
        for value in request.headers().values() {
            prop_assert!(value.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte)));
        }
        prop_assert_eq!(request.headers().get_all("host").iter().count(), 1);
    }
}
