//! From a message to the `POST` that the worker gets. Total: whatever a publisher wrote, there is a request.

use crate::domain::delivery::Message;
use crate::domain::journal::rfc3339;
use bytes::Bytes;
use contract::headers::http as names;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use std::time::Duration;

/// Application headers passed on; servers commonly refuse more than 100 in all.
pub(crate) const APPLICATION_HEADERS: usize = 60;
/// Bytes of application headers passed on; servers commonly refuse heads of more than 8 to 64 KiB.
pub(crate) const APPLICATION_HEADER_BYTES: usize = 6 * 1024;
/// Passed under their own names, so that traces go on (W3C Trace Context, W3C Baggage).
pub(crate) const TRACE_HEADERS: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// Where and how messages are posted; the same for every message of a sidecar.
#[derive(Debug, Clone)]
pub struct Target {
    /// The path, `/message`.
    pub path: Uri,
    /// The value of `Host`.
    pub host: HeaderValue,
    /// The queue that messages come from.
    pub queue: String,
    /// The last attempt that is allowed.
    pub max_attempts: u32,
    /// How long the worker has.
    pub timeout: Duration,
}

/// Builds the request for one attempt that begins at `now` (since the Unix epoch). `message_id` is the publisher's,
/// or one made up for this message; `callback` is where the worker may settle it later, if it may.
pub fn build(
    message: &Message,
    message_id: &str,
    target: &Target,
    callback: Option<&str>,
    now: Duration,
) -> Request<Bytes> {
    let mut request = Request::new(message.body.clone());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.path.clone();
    let headers = request.headers_mut();
    headers.insert(HOST, target.host.clone());
    let content_type = message
        .content_type
        .as_deref()
        .unwrap_or("application/octet-stream");
    headers.insert(CONTENT_TYPE, value(content_type));
    // Said for an empty body too, where hyper would leave it out: some servers answer 411 without (RFC 9110 §8.6).
    headers.insert(CONTENT_LENGTH, HeaderValue::from(message.body.len()));
    let optional = |headers: &mut HeaderMap, name: HeaderName, text: Option<&str>| {
        if let Some(text) = text {
            headers.insert(name, value(text));
        }
    };
    optional(headers, CONTENT_ENCODING, message.content_encoding.as_deref());
    identity(headers, message, message_id, target);
    let from = HeaderName::from_static;
    optional(
        headers,
        from(names::CORRELATION_ID),
        message.correlation_id.as_deref(),
    );
    optional(headers, from(names::CALLBACK_URL), callback);
    optional(headers, from(names::REPLY_TO), message.reply_to.as_deref());
    optional(headers, from(names::TYPE), message.kind.as_deref());
    optional(headers, from(names::APP_ID), message.app_id.as_deref());
    optional(headers, from(names::USER_ID), message.user_id.as_deref());
    optional(headers, from(names::EXPIRATION), message.expiration.as_deref());
    if let Some(priority) = message.priority {
        headers.insert(from(names::PRIORITY), HeaderValue::from(u16::from(priority)));
    }
    if let Some(timestamp) = message.timestamp {
        headers.insert(
            from(names::ENQUEUED_AT),
            value(&rfc3339(Duration::from_secs(timestamp))),
        );
    }
    let first_seen = message.history.first_seen.unwrap_or(now);
    headers.insert(from(names::FIRST_SEEN), value(&rfc3339(first_seen)));
    headers.insert(
        from(names::DEADLINE),
        value(&rfc3339(now.saturating_add(target.timeout))),
    );
    application_headers(headers, &message.headers);
    request
}

/// Who the message is, how often it was tried, and how it came here.
fn identity(headers: &mut HeaderMap, message: &Message, message_id: &str, target: &Target) {
    let from = HeaderName::from_static;
    headers.insert(from(names::MESSAGE_ID), value(message_id));
    headers.insert(from(names::IDEMPOTENCY_KEY), value(message_id));
    headers.insert(
        from(names::DELIVERY_ATTEMPT),
        HeaderValue::from(message.history.attempt()),
    );
    headers.insert(from(names::MAX_ATTEMPTS), HeaderValue::from(target.max_attempts));
    headers.insert(from(names::QUEUE), value(&target.queue));
    headers.insert(from(names::EXCHANGE), value(&message.exchange));
    headers.insert(from(names::ROUTING_KEY), value(&message.routing_key));
    let redelivered = if message.redelivered { "true" } else { "false" };
    headers.insert(from(names::REDELIVERED), HeaderValue::from_static(redelivered));
}

/// The publisher's own headers as `x-amqp-<name>`, up to the bounds; how many were left out is said.
fn application_headers(headers: &mut HeaderMap, application: &[(String, String)]) {
    let mut bytes = 0;
    let mut dropped: u32 = 0;
    for (position, (name, text)) in application.iter().enumerate() {
        let lower = name.to_ascii_lowercase();
        let name = if TRACE_HEADERS.contains(&lower.as_str()) || lower == names::SESSION_ID {
            HeaderName::try_from(lower)
        } else {
            HeaderName::try_from(format!("{}{}", names::AMQP_PREFIX, token(&lower)))
        };
        let (Ok(name), text) = (name, value(text)) else {
            dropped += 1;
            continue;
        };
        bytes += name.as_str().len() + text.len() + ": \r\n".len();
        if position >= APPLICATION_HEADERS || bytes > APPLICATION_HEADER_BYTES {
            dropped += 1;
            continue;
        }
        headers.append(name, text);
    }
    if dropped > 0 {
        headers.insert(
            HeaderName::from_static(names::HEADERS_DROPPED),
            HeaderValue::from(dropped),
        );
    }
}

/// A header value. Visible ASCII with inner blanks passes unchanged. Anything else is percent-encoded (the percent
/// sign too), so that line feeds cannot end a header and no byte is lost.
fn value(text: &str) -> HeaderValue {
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim() == text;
    let encoded = if is_plain {
        None
    } else {
        Some(percent_encode(text))
    };
    HeaderValue::from_str(encoded.as_deref().unwrap_or(text)).expect("invariant: only visible ASCII is left")
}

fn percent_encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if matches!(byte, b'!'..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            let _infallible = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// What is no token character (RFC 9110 §5.6.2) becomes a dash.
fn token(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "!#$&'*+.^_`|~-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::delivery::History;
    use proptest::prelude::*;

    /// 2025-11-21T10:00:00Z.
    const NOW: Duration = Duration::from_hours(489_922);

    fn target() -> Target {
        Target {
            path: Uri::from_static("/message"),
            host: HeaderValue::from_static("127.0.0.1:8080"),
            queue: "orders".into(),
            max_attempts: 5,
            timeout: Duration::from_mins(1),
        }
    }

    fn header<'a>(request: &'a Request<Bytes>, name: &str) -> Option<&'a str> {
        request.headers().get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn a_bare_message_gets_the_least_headers() {
        let message = Message {
            body: Bytes::from_static(b"\0\xff"),
            ..Message::default()
        };
        let request = build(&message, "id-1", &target(), None, NOW);
        assert_eq!(
            (request.method(), request.uri().path()),
            (&Method::POST, "/message")
        );
        assert_eq!(request.body(), &Bytes::from_static(b"\0\xff"));
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
        let request = build(&message, "id-1", &target(), None, NOW);
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
            &target(),
            None,
            NOW,
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
            &target(),
            None,
            NOW,
        );
        assert_eq!(header(&request, "x-headers-dropped"), Some("1"));
    }

    proptest! {
        #[test]
        fn any_text_makes_a_request_and_no_text_breaks_out(
            name in ".{0,40}", text in ".{0,80}", id in ".{0,40}", content_type in proptest::option::of(".{0,30}"),
        ) {
            let message = Message { content_type, headers: vec![(name, text.clone())], routing_key: text, ..Message::default() };
            let request = build(&message, &id, &target(), None, NOW);
            for value in request.headers().values() {
                prop_assert!(value.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte)));
            }
            prop_assert_eq!(request.headers().get_all("host").iter().count(), 1);
        }
    }
}
