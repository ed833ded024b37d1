//! From a message to the `POST` that the worker gets. Total: whatever a publisher wrote, there is a request.

use crate::domain::delivery::Message;
use crate::domain::journal::rfc3339;
use bytes::Bytes;
use contract::headers::http as names;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, InvalidHeaderName};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use std::time::Duration;

/// Application headers passed on; servers commonly refuse more than 100 in all.
pub(crate) const APPLICATION_HEADERS: usize = 60;
/// Bytes of application headers passed on; servers commonly refuse heads of more than 8 to 64 KiB.
pub(crate) const APPLICATION_HEADER_BYTES: usize = 6 * 1024;
/// Passed under their own names, so that traces go on (W3C Trace Context, W3C Baggage).
pub(crate) const TRACE_HEADERS: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// More headers of our own than a request has: it then grows once.
const OUR_HEADERS: usize = 24;

/// Names that need no check with every message.
macro_rules! header_names {
    ($($name:ident),+) => {
        $(const $name: HeaderName = HeaderName::from_static(names::$name);)+
    };
}
header_names!(
    APP_ID,
    CALLBACK_URL,
    CORRELATION_ID,
    DEADLINE,
    DELIVERY_ATTEMPT,
    ENQUEUED_AT,
    EXCHANGE,
    EXPIRATION,
    FIRST_SEEN,
    HEADERS_DROPPED,
    IDEMPOTENCY_KEY,
    MAX_ATTEMPTS,
    MESSAGE_ID,
    PRIORITY,
    QUEUE,
    REDELIVERED,
    REPLY_TO,
    ROUTING_KEY,
    TYPE,
    USER_ID
);

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
    callback: Option<&HeaderValue>,
    now: Duration,
) -> Request<Bytes> {
    let mut request = Request::new(message.body.clone());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.path.clone();
    let headers = request.headers_mut();
    headers.reserve(OUR_HEADERS + message.headers.len().min(APPLICATION_HEADERS));
    headers.insert(HOST, target.host.clone());
    let content_type = match &message.content_type {
        Some(text) => value(text),
        None => HeaderValue::from_static("application/octet-stream"),
    };
    headers.insert(CONTENT_TYPE, content_type);
    // Said for an empty body too, where hyper would leave it out: some servers answer 411 without (RFC 9110 §8.6).
    headers.insert(CONTENT_LENGTH, HeaderValue::from(message.body.len()));
    identity(headers, message, message_id, target);
    if let Some(callback) = callback {
        headers.insert(CALLBACK_URL, callback.clone());
    }
    for (name, text) in [
        (CONTENT_ENCODING, &message.content_encoding),
        (CORRELATION_ID, &message.correlation_id),
        (REPLY_TO, &message.reply_to),
        (TYPE, &message.kind),
        (APP_ID, &message.app_id),
        (USER_ID, &message.user_id),
        (EXPIRATION, &message.expiration),
    ] {
        if let Some(text) = text {
            headers.insert(name, value(text));
        }
    }
    if let Some(priority) = message.priority {
        headers.insert(PRIORITY, HeaderValue::from(u16::from(priority)));
    }
    if let Some(timestamp) = message.timestamp {
        headers.insert(ENQUEUED_AT, stamp(Duration::from_secs(timestamp)));
    }
    headers.insert(FIRST_SEEN, stamp(message.history.first_seen.unwrap_or(now)));
    headers.insert(DEADLINE, stamp(now.saturating_add(target.timeout)));
    application_headers(headers, &message.headers);
    request
}

/// Who the message is, how often it was tried, and how it came here.
fn identity(headers: &mut HeaderMap, message: &Message, message_id: &str, target: &Target) {
    let id = value(message_id);
    headers.insert(MESSAGE_ID, id.clone());
    headers.insert(IDEMPOTENCY_KEY, id);
    headers.insert(DELIVERY_ATTEMPT, HeaderValue::from(message.history.attempt()));
    headers.insert(MAX_ATTEMPTS, HeaderValue::from(target.max_attempts));
    headers.insert(QUEUE, value(&target.queue));
    headers.insert(EXCHANGE, value(&message.exchange));
    headers.insert(ROUTING_KEY, value(&message.routing_key));
    let redelivered = if message.redelivered { "true" } else { "false" };
    headers.insert(REDELIVERED, HeaderValue::from_static(redelivered));
}

/// The publisher's own headers as `x-amqp-<name>`, up to the bounds; how many were left out is said.
fn application_headers(headers: &mut HeaderMap, application: &[(String, String)]) {
    let mut bytes = 0;
    let mut dropped: u32 = 0;
    for (position, (name, text)) in application.iter().enumerate() {
        let (Ok(name), text) = (application_name(name), value(text)) else {
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
        headers.insert(HEADERS_DROPPED, HeaderValue::from(dropped));
    }
}

/// The name under which a header of the publisher's is passed on. What is no token character (RFC 9110 §5.6.2) becomes a
/// dash.
fn application_name(name: &str) -> Result<HeaderName, InvalidHeaderName> {
    let is_kept = |kept: &&str| name.eq_ignore_ascii_case(kept);
    if let Some(kept) = TRACE_HEADERS
        .iter()
        .chain([&names::SESSION_ID])
        .copied()
        .find(is_kept)
    {
        return Ok(HeaderName::from_static(kept));
    }
    let mut passed_on = String::with_capacity(names::AMQP_PREFIX.len() + name.len());
    passed_on.push_str(names::AMQP_PREFIX);
    passed_on.extend(name.chars().map(|c| match c {
        c if c.is_ascii_alphanumeric() => c.to_ascii_lowercase(),
        '-' | '_' | '.' | '!' | '#' | '$' | '&' | '\'' | '*' | '+' | '^' | '`' | '|' | '~' => c,
        _ => '-',
    }));
    HeaderName::try_from(passed_on)
}

fn stamp(since_epoch: Duration) -> HeaderValue {
    HeaderValue::try_from(rfc3339(since_epoch)).expect("invariant: a stamp is visible ASCII")
}

/// A header value. Visible ASCII with inner blanks passes unchanged. Anything else is percent-encoded (the percent
/// sign too), so that line feeds cannot end a header and no byte is lost.
fn value(text: &str) -> HeaderValue {
    // All bytes, and not up to the first that is another: the compiler then looks at many at once.
    let is_visible = text
        .bytes()
        .fold(true, |all, byte| all & matches!(byte, b' '..=b'~'));
    let is_plain = is_visible && !text.starts_with(' ') && !text.ends_with(' ');
    let value = if is_plain {
        HeaderValue::from_str(text)
    } else {
        HeaderValue::try_from(percent_encode(text))
    };
    value.expect("invariant: only visible ASCII is left")
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
