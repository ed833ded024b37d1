//! Messages that lapin cannot read as they come: each would end the connection or the process, again and again.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use futures_util::future::join_all;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ExchangeKind};
use std::time::Duration;
use support::Scene;
use testkit::worker::Received;
// Each test captures: with one subscriber alone, what threads without any log first is taken for nobody's from then on.
use testkit::{BarePublisher, logs, table, text, unique};

/// The flag of the table of headers.
const HEADERS: u16 = 1 << 13;
const MESSAGE_ID: u16 = 1 << 7;
/// What RabbitMQ takes for UTF-8, and Rust does not.
const SURROGATE: &[u8] = b"\xED\xA0\x80";

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// Properties with these headers alone.
fn headers(table: &[u8]) -> Vec<u8> {
    [&HEADERS.to_be_bytes()[..], &long(table)].concat()
}

fn named(name: &[u8], value: &str) -> Vec<u8> {
    [&short(name)[..], b"S", &long(value.as_bytes())].concat()
}

/// A value of so many lists or tables in one another.
fn nested(levels: usize, is_list: bool) -> Vec<u8> {
    let (before, per_level): (&[u8], usize) = if is_list { (b"", 5) } else { (b"\x01t", 7) };
    let mut value = Vec::with_capacity(levels * per_level + 1);
    for level in (0..levels).rev() {
        value.push(if is_list { b'A' } else { b'F' });
        let length = level * per_level + before.len() + 1;
        value.extend(u32::try_from(length).unwrap().to_be_bytes());
        value.extend(before);
    }
    value.push(b'V');
    value
}

/// The headers of a message with something deep among them.
fn deep(levels: usize, is_list: bool) -> Vec<u8> {
    [
        &short(b"deep")[..],
        &nested(levels, is_list),
        &named(b"beside", "it"),
    ]
    .concat()
}

/// What is tried, by the body of the message.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("name", headers(&named(b"caf\xE9", "yes"))),
        (
            "two names",
            headers(&[named(b"\xFF\xFE", "1"), named(b"ok", "2")].concat()),
        ),
        ("a name in a table", {
            let inner = named(b"\x80", "x");
            headers(&[&short(b"table")[..], b"F", &long(&inner)].concat())
        }),
        ("3,000 lists", headers(&deep(3_000, true))),
        ("20,000 lists", headers(&deep(20_000, true))),
        ("3,000 tables", headers(&deep(3_000, false))),
        ("18,000 tables", headers(&deep(18_000, false))),
        (
            "a property",
            [&MESSAGE_ID.to_be_bytes()[..], &short(SURROGATE)].concat(),
        ),
    ]
}

async fn publish(bare: &mut BarePublisher, scene: &Scene, body: &str, properties: &[u8]) {
    let published = bare
        .publish("", scene.queue.as_bytes(), properties, body.as_bytes())
        .await;
    assert_eq!(published, Ok(()), "{body}");
}

/// A scene whose connection takes frames of any length already: the first one that is large ends a connection, and what was
/// in flight on it comes twice.
async fn used_to_large_frames(script: impl Fn(&Received) -> u16 + Send + Sync + 'static) -> Scene {
    let scene = Scene::new(script).await;
    let large = BasicProperties::default().with_headers(table([("large", text(&"x".repeat(100_000)))]));
    scene.amqp.publish(&scene.queue, "large", large).await;
    until_settled(&scene, 1).await;
    scene
}

/// RabbitMQ 4.0 measures each level anew when it hands a message over, which takes it seconds for one of 20,000 levels.
async fn until_settled(scene: &Scene, count: u64) {
    testkit::wait::until("every message is settled", Duration::from_mins(3), || async {
        let counts = scene.sidecar.handle.status().counts;
        counts.accepted + counts.dead_lettered == count
    })
    .await;
}

fn attempts(scene: &Scene, body: &str) -> usize {
    let requests = scene.worker.requests();
    requests.iter().filter(|request| request.text() == body).count()
}

/// Each among ordinary messages, retried once and then accepted: the retry copy passes through lapin and the broker too.
#[tokio::test]
async fn all_are_delivered_retried_and_settled_and_the_queue_goes_on() {
    let logs = logs::capture();
    let second_time = |request: &Received| {
        if request.header("x-delivery-attempt") == "1" {
            500
        } else {
            200
        }
    };
    let scene = used_to_large_frames(second_time).await;
    let mut bare = BarePublisher::connect(testkit::broker().await).await;
    for (body, properties) in messages() {
        publish(&mut bare, &scene, body, &properties).await;
        scene.publish(&format!("behind {body}")).await;
    }
    until_settled(&scene, 1 + 2 * messages().len() as u64).await;
    for (body, _) in messages() {
        assert_eq!(attempts(&scene, body), 2, "{body}");
        assert_eq!(attempts(&scene, &format!("behind {body}")), 2, "{body}");
    }
    let named = scene
        .worker
        .requests()
        .into_iter()
        .find(|request| request.text() == "name");
    assert_eq!(named.unwrap().header("x-amqp-caf-"), "yes");
    let said = |words: &str| logs.matching(words).len();
    assert_eq!(
        said("is not UTF-8: those bytes are shown as ?"),
        1,
        "{}",
        logs.text()
    );
    assert_eq!(said("nested too deep: what is deeper is shown as bytes"), 1);
    assert_eq!(
        said("broker connection lost"),
        1,
        "for the large frame: {}",
        logs.text()
    );
    scene.end().await;
}

/// Dead letters are copies too, and can be read by any client.
#[tokio::test]
async fn all_become_dead_letters_that_can_be_read() {
    let _logs = logs::capture();
    let scene = used_to_large_frames(|_| 400).await;
    let mut bare = BarePublisher::connect(testkit::broker().await).await;
    for (body, properties) in messages() {
        publish(&mut bare, &scene, body, &properties).await;
    }
    until_settled(&scene, 1 + messages().len() as u64).await;
    let letters = scene.dead_letters().await;
    assert_eq!(letters.len(), 1 + messages().len());
    let of = |body: &str| letters.iter().find(|letter| letter.text() == body).unwrap();
    assert_eq!(of("name").header_text("caf?").as_deref(), Some("yes"));
    assert_eq!(of("two names").header_text("??").as_deref(), Some("1"));
    assert_eq!(of("two names").header_text("ok").as_deref(), Some("2"));
    for body in ["3,000 lists", "20,000 lists", "3,000 tables", "18,000 tables"] {
        assert_eq!(of(body).header_text("beside").as_deref(), Some("it"), "{body}");
        assert!(
            (1..32).contains(&depth(of(body).header("deep").unwrap())),
            "{body}"
        );
    }
    let id = of("a property").properties.message_id().clone();
    assert_eq!(id.unwrap().as_str(), "???");
    scene.end().await;
}

fn depth(value: &AMQPValue) -> usize {
    let inner = match value {
        AMQPValue::FieldArray(items) => items.as_slice().iter().map(depth).max(),
        AMQPValue::FieldTable(table) => table.into_iter().map(|(_, value)| depth(value)).max(),
        _ => return 0,
    };
    inner.unwrap_or(0) + 1
}

/// The routing key comes in a frame of its own, before the properties.
#[tokio::test]
async fn a_routing_key_that_is_not_utf_8_is_shown_with_question_marks() {
    let _logs = logs::capture();
    let scene = Scene::new(|_| 200).await;
    let (exchange, channel) = (unique("events"), scene.amqp.channel().await);
    let (name, queue) = (exchange.as_str(), scene.queue.as_str());
    let auto_delete = ExchangeDeclareOptions {
        auto_delete: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(
            name.into(),
            ExchangeKind::Fanout,
            auto_delete,
            FieldTable::default(),
        )
        .await
        .unwrap();
    let (bind, none) = (QueueBindOptions::default(), FieldTable::default());
    channel
        .queue_bind(queue.into(), name.into(), "".into(), bind, none)
        .await
        .unwrap();
    let mut bare = BarePublisher::connect(testkit::broker().await).await;
    let published = bare.publish(name, SURROGATE, &[0, 0], b"m").await;
    assert_eq!(published, Ok(()));
    scene.publish("behind it").await;
    scene.until_accepted(2).await;
    let requests = scene.worker.requests();
    let request = requests.iter().find(|request| request.text() == "m").unwrap();
    assert_eq!(request.header("x-routing-key"), "???");
    scene.end().await;
}

/// What the mending covers is what the broker takes: a type of value that lapin does not know would stop a queue too.
#[tokio::test]
async fn the_broker_takes_no_type_of_value_that_cannot_be_read() {
    let _logs = logs::capture();
    let scene = Scene::new(|_| 200).await;
    let letters = (b'A'..=b'Z').chain(b'a'..=b'z');
    let queue = scene.queue.as_str();
    let asked =
        letters.map(|letter| async move { is_taken(queue, letter).await.then_some(char::from(letter)) });
    let taken: String = join_all(asked).await.into_iter().flatten().collect();
    scene.until_accepted(taken.len() as u64).await;
    assert_eq!(taken, "ABDFILSTVbdfilstux");
    scene.end().await;
}

/// Whether the broker takes a header whose value is of this type. It closes the connection on which it does not.
async fn is_taken(queue: &str, letter: u8) -> bool {
    // Zeros for a value of any fixed length, and for one that is empty.
    for zeros in [0, 1, 2, 4, 5, 8] {
        let table = [&short(b"a")[..], &[letter], &[0; 8][..zeros]].concat();
        let mut bare = BarePublisher::connect(testkit::broker().await).await;
        let published = bare.publish("", queue.as_bytes(), &headers(&table), b"m").await;
        if published.is_ok() {
            return true;
        }
    }
    false
}

/// The worker's own view of it all is bounded, whatever the bytes were.
#[tokio::test]
async fn a_deep_header_reaches_the_worker_as_bounded_text() {
    let _logs = logs::capture();
    let scene = Scene::new(|_| 200).await;
    let mut bare = BarePublisher::connect(testkit::broker().await).await;
    publish(&mut bare, &scene, "m", &headers(&deep(40, true))).await;
    scene.until_accepted(1).await;
    let requests = scene.worker.requests();
    let shown = requests[0].header("x-amqp-deep");
    assert!(shown.starts_with(&"[".repeat(20)), "{shown}");
    scene
        .amqp
        .publish(&scene.queue, "next", BasicProperties::default())
        .await;
    scene.until_accepted(2).await;
    scene.end().await;
}
