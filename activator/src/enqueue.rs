//! Asynchronous calls: read, published, confirmed, and only then answered 202.

use crate::config::Limits;
use crate::domain::reject::{Reason, Reject};
use crate::outbox::{Message, Outbox, OutboxError};
use crate::proxy::body::{Uncollected, collect};
use crate::proxy::headers::{CALL_ID, end_to_end};
use crate::targets::TargetName;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, request};
use hyper::body::Incoming;
use std::fmt;
use std::sync::Arc;
use tokio::time::Instant;
use uuid::Uuid;

/// What an AMQP short string holds, bytes: properties such as the message's id are short strings.
const SHORT_STRING: usize = 255;
/// Headers that a message carries of its call. RabbitMQ takes them within one frame of 128 KiB.
const MOST_HEADERS: usize = 64;
/// Bytes of names and values of these headers.
const MOST_HEADER_BYTES: usize = 16 << 10;
/// The path and query after the target's name, as reverse proxies call it.
const FORWARDED_URI: &str = "x-forwarded-uri";
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static(contract::headers::http::IDEMPOTENCY_KEY);
/// Headers that RabbitMQ or a sidecar would take for its own.
const RESERVED: [&str; 6] = [
    "x-kubedaemon-",
    "x-death",
    "x-first-death-",
    "x-last-death-",
    "x-delivery-count",
    "x-acquired-count",
];

/// Puts asynchronous calls into queues.
pub(crate) struct Mailer {
    outbox: Arc<dyn Outbox>,
    limits: Limits,
}

/// A call that the broker has confirmed.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) id: String,
    pub(crate) queue: String,
}

impl Mailer {
    /// A mailer over `outbox`.
    pub(crate) fn new(outbox: Arc<dyn Outbox>, limits: Limits) -> Self {
        Self { outbox, limits }
    }

    /// The most memory that a call may come to hold: its body's length, or the bound when it does not say.
    pub(crate) fn cost(&self, head: &request::Parts) -> u64 {
        let said = head
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        let bound = self.limits.async_body as u64;
        said.unwrap_or(bound).min(bound)
    }

    /// Reads the call's body and publishes it to `queue`; returns when the broker has confirmed it.
    ///
    /// # Errors
    ///
    /// [`Reject`]; then nothing was promised, and with [`Reason::Unconfirmed`] the message may be there all the same.
    pub(crate) async fn enqueue(
        &self,
        target: &TargetName,
        queue: String,
        head: &request::Parts,
        rest: Option<String>,
        body: &mut Option<Incoming>,
    ) -> Result<Queued, Reject> {
        let id = call_id(&head.headers)?;
        let mut message = message(id, &head.headers, rest)?;
        message.body = self.read(body).await?;
        let id = message.id.clone();
        let deadline = Instant::now() + self.limits.publish_timeout;
        let publishing = self.outbox.publish_for(target, &queue, message, deadline);
        match publishing.await {
            Ok(()) => Ok(Queued { id, queue }),
            Err(OutboxError::Unavailable(cause)) => Err(Reject::new(
                Reason::BrokerUnavailable,
                format!("the call to {target} was not taken, nothing of it is queued: {cause}"),
            )),
            Err(OutboxError::Unconfirmed(cause)) => Err(Reject::new(
                Reason::Unconfirmed,
                format!(
                    "whether the call to {target} was queued is not known: {cause}; sent again with the same \
                     Idempotency-Key ({id}) the worker can tell that it is the same call"
                ),
            )),
        }
    }

    async fn read(&self, body: &mut Option<Incoming>) -> Result<Bytes, Reject> {
        let limit = self.limits.async_body;
        collect(body, limit, self.limits.body_timeout).await.map_err(|uncollected| match uncollected {
            Uncollected::TooLarge => Reject::new(
                Reason::BodyTooLarge,
                format!("the body of an asynchronous call may have {limit} bytes; put more where the worker can get it"),
            ),
            Uncollected::TooSlow => {
                let seconds = self.limits.body_timeout.as_secs_f64();
                Reject::new(Reason::RequestTimeout, format!("nothing of the body came for {seconds} s"))
            }
            Uncollected::BrokenOff => Reject::new(Reason::ClientGone, "the request broke off in the middle of its body"),
        })
    }
}

/// The queue for an asynchronous call, when it is one that can be taken.
///
/// # Errors
///
/// [`Reason::MethodNotAllowed`] for anything but a POST, [`Reason::NoQueue`].
pub(crate) fn queue_for(
    target: &TargetName,
    method: &Method,
    queue: Option<String>,
) -> Result<String, Reject> {
    if method != Method::POST {
        return Err(Reject::new(
            Reason::MethodNotAllowed,
            "an asynchronous call is a POST",
        ));
    }
    let detail = || format!("{target} takes no asynchronous calls: no queue is set for it");
    queue.ok_or_else(|| Reject::new(Reason::NoQueue, detail()))
}

/// What confirms a call: the body of the 202.
pub(crate) fn confirmation(queued: &Queued) -> String {
    serde_json::json!({ "id": queued.id, "queue": queued.queue }).to_string()
}

/// The call's id as a header; it is printable ASCII by construction.
pub(crate) fn id_header(queued: &Queued) -> Option<(HeaderName, HeaderValue)> {
    HeaderValue::try_from(&queued.id).ok().map(|id| (CALL_ID, id))
}

/// The caller's `Idempotency-Key`, or a new id.
///
/// The key is a string of RFC 9651 in quotes, as draft-ietf-httpapi-idempotency-key-header-07 has it, or bare, as many
/// clients send it.
fn call_id(headers: &HeaderMap) -> Result<String, Reject> {
    let mut keys = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else {
        return Ok(Uuid::new_v4().to_string());
    };
    let valid = match (key.to_str(), keys.next()) {
        (Ok(text), None) => unquoted(text.trim()),
        _ => None,
    };
    valid
        .filter(|key| (1..=SHORT_STRING).contains(&key.len()))
        .ok_or_else(|| {
            Reject::new(
                Reason::BadIdempotencyKey,
                format!(
                    "Idempotency-Key is sent once and has 1 to {SHORT_STRING} printable ASCII characters"
                ),
            )
        })
}

/// The content of a quoted string, or the text itself when it does not begin with a quote; `None` for neither.
fn unquoted(text: &str) -> Option<String> {
    let plain = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let Some(quoted) = text.strip_prefix('"') else {
        return plain(text).then(|| text.to_owned());
    };
    let mut content = String::new();
    let mut characters = quoted.strip_suffix('"')?.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return None,
            '\\' => content.push(
                characters
                    .next()
                    .filter(|escaped| matches!(escaped, '"' | '\\'))?,
            ),
            _ => content.push(character),
        }
    }
    plain(&content).then_some(content)
}

/// A message without its body.
fn message(id: String, headers: &HeaderMap, rest: Option<String>) -> Result<Message, Reject> {
    let mut headers = headers.clone();
    end_to_end(&mut headers);
    headers.remove(CONTENT_LENGTH);
    headers.remove(&IDEMPOTENCY_KEY);
    headers.remove(FORWARDED_URI);
    let content_type = property(&mut headers, &CONTENT_TYPE)?;
    let content_encoding = property(&mut headers, &CONTENT_ENCODING)?;
    let mut carried: Vec<(String, Vec<u8>)> = rest
        .map(|rest| (FORWARDED_URI.to_owned(), rest.into()))
        .into_iter()
        .collect();
    for name in headers.keys() {
        if !RESERVED
            .iter()
            .any(|reserved| name.as_str().starts_with(reserved))
        {
            let separator: &[u8] = if name == http::header::COOKIE {
                b"; "
            } else {
                b", "
            };
            let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
            carried.push((name.as_str().to_owned(), lines.join(separator)));
        }
    }
    let bytes: usize = carried.iter().map(|(name, value)| name.len() + value.len()).sum();
    if carried.len() > MOST_HEADERS
        || bytes > MOST_HEADER_BYTES
        || carried.iter().any(|(name, _)| name.len() > SHORT_STRING)
    {
        return Err(Reject::new(
            Reason::HeadersTooLarge,
            format!(
                "an asynchronous call may have {MOST_HEADERS} headers of {MOST_HEADER_BYTES} bytes together, with names \
                 of at most {SHORT_STRING}"
            ),
        ));
    }
    let timestamp = ops::clock::since_epoch().as_secs();
    Ok(Message {
        id,
        content_type,
        content_encoding,
        headers: carried,
        timestamp,
        body: Bytes::new(),
    })
}

/// Takes a header out, for a property of the message.
fn property(headers: &mut HeaderMap, name: &HeaderName) -> Result<Option<String>, Reject> {
    let Some(value) = headers.remove(name) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(text) if text.len() <= SHORT_STRING => Ok(Some(text.to_owned())),
        _ => Err(Reject::new(
            Reason::BadRequest,
            format!("{name} has at most {SHORT_STRING} printable ASCII characters in an asynchronous call"),
        )),
    }
}

impl fmt::Debug for Mailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailer")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn an_idempotency_key_is_the_id() {
        for (keys, expected) in [
            (&["order-17"][..], Some("order-17")),
            (&["  order-17 "], Some("order-17")),
            (&[r#""a \"b\" \\c""#], Some(r#"a "b" \c"#)),
            (&["a", "a"], None),
            (&[""], None),
            (&[r#""""#], None),
            (&[r#""open"#], None),
            (&[r#""a"b""#], None),
            (&[r#""a\n""#], None),
            (&["smörgås"], None),
            (&["a\tb"], None),
        ] {
            let lines: Vec<(&str, &str)> = keys.iter().map(|key| ("idempotency-key", *key)).collect();
            let id = call_id(&map(&lines));
            match expected {
                Some(expected) => assert_eq!(id.unwrap(), expected, "{keys:?}"),
                None => assert_eq!(id.unwrap_err().reason, Reason::BadIdempotencyKey, "{keys:?}"),
            }
        }
        let bounds = |length| call_id(&map(&[("idempotency-key", &"k".repeat(length))])).is_ok();
        assert!(bounds(255) && !bounds(256));
        let (first, second) = (call_id(&map(&[])).unwrap(), call_id(&map(&[])).unwrap());
        assert!(first != second && Uuid::parse_str(&first).unwrap().get_version_num() == 4);
    }

    #[test]
    fn a_message_carries_what_is_meant_for_its_receiver() {
        let headers = map(&[
            ("host", "a"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("content-length", "3"),
            ("content-type", "text/plain"),
            ("content-encoding", "gzip"),
            ("idempotency-key", "k"),
            ("traceparent", "00-x"),
            ("accept", "a"),
            ("accept", "b"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-forwarded-uri", "/spoofed"),
            ("x-kubedaemon-attempts", "-1000"),
            ("x-death", "spoofed"),
            ("x-delivery-count", "0"),
        ]);
        let message = message("id".to_owned(), &headers, Some("/a?b=c".to_owned())).unwrap();
        let mut carried: Vec<String> = message
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
            .collect();
        carried.sort();
        assert_eq!(
            carried,
            [
                "accept: a, b",
                "cookie: a=1; b=2",
                "traceparent: 00-x",
                "x-forwarded-uri: /a?b=c"
            ]
        );
        assert_eq!(message.content_type.as_deref(), Some("text/plain"));
        assert_eq!(message.content_encoding.as_deref(), Some("gzip"));
    }

    #[test]
    fn headers_of_a_message_are_bounded() {
        let reason =
            |headers: &HeaderMap| message("id".to_owned(), headers, None).map_err(|reject| reject.reason);
        let many = |count: usize| -> HeaderMap {
            (0..count)
                .map(|n| {
                    (
                        HeaderName::try_from(format!("x-{n}")).unwrap(),
                        HeaderValue::from_static("v"),
                    )
                })
                .collect()
        };
        assert!(reason(&many(64)).is_ok());
        assert_eq!(reason(&many(65)), Err(Reason::HeadersTooLarge));
        assert_eq!(
            reason(&map(&[("accept", &"v".repeat(16 << 10))])),
            Err(Reason::HeadersTooLarge)
        );
        assert_eq!(
            reason(&map(&[("content-type", &"v".repeat(256))])),
            Err(Reason::BadRequest)
        );
        assert_eq!(reason(&map(&[("content-type", "é")])), Err(Reason::BadRequest));
    }
}
