//! Deliveries: what publishers wrote, to the request for the worker, to copies, and from a copy again.
//!
//! An input is the exchange, the routing key and the properties as on the wire, and then the body, with lengths that
//! say too much cut down to what is there. So the bytes of a real message mean that message.

use super::answer::answer;
use crate::Target;
use crate::input::Input;
use crate::wire;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::protocol::basic::parse_properties;
use lapin::types::{FieldTable, ShortString};
use sidecar::broker::{Original, of_copy, take_apart};
use sidecar::domain::delivery::Message;
use sidecar::domain::outcome::Outcome;
use sidecar::domain::request::{CallbackAddress, Target as Worker, write_head};
use sidecar::domain::retry::Policy;
use sidecar::domain::settlement::{Case, Copy, Destination, Settlement, plan};
use sidecar::domain::verdict::{Circumstances, Reason, Verdict, judge};
use std::time::Duration;

pub(crate) const TARGET: Target = Target {
    name: "message",
    what: "AMQP properties and tables: a request with valid, bounded headers; copies that keep body and properties",
    run,
};

const NOW: Duration = Duration::from_hours(489_922);
const QUEUE: &str = "orders";
const ID: &str = "id-1";

/// Headers by which a broker acts, or that it writes itself.
const ACTED_ON: [&str; 10] = [
    "CC",
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
    "x-delivery-count",
    "x-acquired-count",
];

/// What all headers together may need: names and values of properties, each a short string percent-encoded, and the
/// bound on application headers.
const HEAD_BYTES: usize = 16 * 1024;
/// Servers commonly refuse more.
const HEADERS: usize = 100;
/// Where the worker may settle later.
const CALLBACK: &str = "http://127.0.0.1:9464/callback/0123456789abcdef-";

fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let kind = input.byte();
    let delivery = delivery(&mut input);
    let (properties, body) = (delivery.properties.clone(), delivery.data.clone());
    let (tag, message, original) = take_apart(delivery);
    assert_eq!(tag, 7);
    assert_eq!(message.body, body, "the body as the worker gets it");
    check_request(&message);

    let outcome = outcome(kind);
    let verdict = judge(&outcome, circumstances(&message));
    let case = Case {
        message: &message,
        message_id: "m",
        queue: QUEUE,
        reply_to: None,
        outcome: &outcome,
        now: NOW,
    };
    let Settlement::CopyThenAck { copy, .. } = plan(&verdict, case) else {
        return;
    };
    check_copy(&properties, &message, &original, &copy, &verdict);
}

/// An answer, or what else may happen, by a number.
fn outcome(kind: u8) -> Outcome {
    let answered = |status| {
        let status = StatusCode::from_u16(status).expect("a status");
        let body = Bytes::from_static(b"broken \xff");
        Outcome::Answered(answer(status, &HeaderMap::new(), &body, None, NOW))
    };
    match kind % 6 {
        0 => answered(500),
        1 => answered(404),
        2 => Outcome::Crashed,
        3 => Outcome::TimedOut,
        4 => Outcome::NotHttp,
        _ => answered(204),
    }
}

fn circumstances(message: &Message) -> Circumstances<'_> {
    Circumstances {
        history: &message.history,
        max_attempts: 5,
        backoff: Policy {
            min: Duration::from_secs(1),
            max: Duration::from_mins(5),
        },
        draining: false,
        alone: true,
        draw: 0.5,
    }
}

/// The headers of a head as a server reads them; nothing may be left of it.
fn parsed(head: &[u8]) -> HeaderMap {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut fields);
    let length = request.parse(head).expect("a request of HTTP/1.1");
    assert_eq!(length, httparse::Status::Complete(head.len()));
    assert_eq!((request.method, request.path), (Some("POST"), Some("/message")));
    let mut headers = HeaderMap::new();
    for field in request.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).expect("a valid name");
        headers.append(name, HeaderValue::from_bytes(field.value).expect("a valid value"));
    }
    headers
}

/// One POST, whatever was published, and nothing in it that ends a header or adds one.
fn check_request(message: &Message) {
    let worker = Worker::new(
        Uri::from_static("/message"),
        "127.0.0.1:8080".to_owned(),
        QUEUE.to_owned(),
        5,
        Duration::from_mins(1),
    );
    let callback = CallbackAddress {
        prefix: CALLBACK,
        number: 7,
    };
    let mut head = Vec::new();
    write_head(&mut head, message, ID, &worker, Some(callback), NOW);
    let headers = &parsed(&head);
    let mut bytes = 0;
    for (name, value) in headers {
        let value = value.as_bytes();
        HeaderName::from_bytes(name.as_str().as_bytes()).expect("a valid name");
        assert!(
            value.iter().all(|byte| matches!(byte, b' '..=b'~')),
            "{name} has {value:?}"
        );
        assert!(
            !value.starts_with(b" ") && !value.ends_with(b" "),
            "{name} has {value:?}"
        );
        bytes += name.as_str().len() + value.len() + ": \r\n".len();
    }
    for once in [
        "host",
        "content-length",
        "content-type",
        "x-message-id",
        "x-delivery-attempt",
    ] {
        assert_eq!(headers.get_all(once).iter().count(), 1, "{once}");
    }
    assert_eq!(headers["content-length"], message.body.len().to_string());
    assert!(headers.get("transfer-encoding").is_none() && headers.get("connection").is_none());
    assert!(headers.len() <= HEADERS, "{} headers", headers.len());
    assert!(bytes <= HEAD_BYTES, "{bytes} bytes of headers");
    let of_application = headers.iter().filter(|(name, _)| {
        let name = name.as_str();
        name.starts_with("x-amqp-")
            || ["traceparent", "tracestate", "baggage", "x-session-id"].contains(&name)
    });
    let dropped = headers.get("x-headers-dropped").map_or(0, |count| {
        let count = count.to_str().expect("digits");
        count.parse().expect("a number")
    });
    assert_eq!(of_application.count() + dropped, message.headers.len());
}

fn check_copy(old: &BasicProperties, message: &Message, original: &Original, copy: &Copy, verdict: &Verdict) {
    let new = of_copy(original, copy, ID);
    assert_eq!(original.body, message.body, "the body of the copy");
    macro_rules! assert_kept {
        ($($getter:ident),+) => { $(assert_eq!(new.$getter(), old.$getter(), stringify!($getter));)+ };
    }
    assert_kept!(
        content_type,
        content_encoding,
        priority,
        correlation_id,
        reply_to,
        timestamp,
        kind,
        app_id,
        cluster_id
    );
    assert_eq!(*new.delivery_mode(), Some(2));
    assert_eq!((new.expiration(), new.user_id()), (&None, &None));
    let none = FieldTable::default();
    let (old_table, table) = (
        old.headers().as_ref().unwrap_or(&none).inner(),
        new.headers().as_ref().unwrap_or(&none).inner(),
    );
    for (name, value) in old_table {
        let name = name.as_str();
        if ACTED_ON.contains(&name) {
            assert!(!table.contains_key(name), "{name} is on the copy");
        } else if !name.starts_with("x-kubedaemon-") {
            let on_wire = |value| {
                let mut bytes = Vec::new();
                wire::write_value(&mut bytes, value);
                bytes
            };
            assert_eq!(
                table.get(name).map(on_wire),
                Some(on_wire(value)),
                "{name} on the copy"
            );
        }
    }
    survives_the_wire(&new);

    // The next attempt sees the same message, one attempt on.
    let (_, again, copied) = take_apart(delivery_of(
        new.clone(),
        ShortString::default(),
        copied_to(copy).into(),
        &original.body,
    ));
    let counted = match verdict {
        Verdict::Retry { counts, .. } => u32::from(*counts),
        _ => 1,
    };
    assert_eq!(
        again.history.attempts,
        message.history.attempts.saturating_add(counted)
    );
    let first_seen = message.history.first_seen.unwrap_or(NOW);
    assert_eq!(again.history.first_seen, Some(first_seen));
    assert!(again.history.journal.len() <= 20);
    if verdict.reason() == Reason::CrashedWorker {
        assert!(again.history.crashes > message.history.crashes || message.history.crashes == u32::MAX);
    }
    let same = Message {
        history: message.history.clone(),
        message_id: message.message_id.clone(),
        redelivered: message.redelivered,
        ..again
    };
    assert_eq!(&same, message, "what the worker sees of the copy");
    // A copy of the copy is no larger: nothing piles up from attempt to attempt.
    let third = of_copy(&copied, copy, ID);
    assert_eq!(wire::write(&third), wire::write(&new), "a copy of the copy");
}

fn copied_to(copy: &Copy) -> String {
    match copy.to {
        Destination::Retry(delay) => contract::names::retry_queue(QUEUE, delay),
        Destination::DeadLetter => contract::names::dead_letter_queue(QUEUE),
    }
}

/// What is written to a broker is read from it again, by the client's own reader.
fn survives_the_wire(properties: &BasicProperties) {
    let wire = wire::write(properties);
    let (rest, read) = parse_properties(wire.as_slice()).expect("properties that can be read");
    assert!(rest.is_empty(), "{} bytes are left", rest.len());
    assert_eq!(wire::write(&read), wire);
}

/// The delivery that an input describes.
fn delivery(input: &mut Input<'_>) -> Delivery {
    let (exchange, routing_key) = (wire::short(input), wire::short(input));
    let properties = wire::read(input);
    delivery_of(properties, exchange, routing_key, input.rest())
}

fn delivery_of(
    properties: BasicProperties,
    exchange: ShortString,
    routing_key: ShortString,
    body: &[u8],
) -> Delivery {
    let mut delivery = Delivery::mock(7, exchange, routing_key, false, body.to_vec());
    delivery.properties = properties;
    delivery
}
