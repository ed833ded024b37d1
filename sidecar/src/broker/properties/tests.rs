use super::*;
use crate::domain::settlement::Destination;
use lapin::types::{DecimalValue, FieldArray};
use proptest::prelude::*;

fn text(text: &str) -> AMQPValue {
    long_text(text)
}

fn array(items: Vec<AMQPValue>) -> AMQPValue {
    AMQPValue::FieldArray(FieldArray::from(items))
}

fn table(entries: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert((*name).into(), value.clone());
    }
    table
}

fn delivery(properties: BasicProperties) -> Delivery {
    let mut delivery = Delivery::mock(7, "shop".into(), "order.new".into(), true, b"body".to_vec());
    delivery.properties = properties;
    delivery
}

fn message(headers: &[(&str, AMQPValue)]) -> Message {
    take_apart(delivery(BasicProperties::default().with_headers(table(headers)))).1
}

fn copy_of(properties: BasicProperties, set: Vec<(&'static str, Value)>) -> BasicProperties {
    let (_, _, original) = take_apart(delivery(properties));
    let copy = Copy {
        to: Destination::DeadLetter,
        set,
    };
    of_copy(&original, &copy, "id-1")
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref().unwrap().inner().get(name)
}

#[test]
fn every_type_of_value_has_a_text() {
    let decimal = DecimalValue {
        scale: 2,
        value: 12_345,
    };
    let nested = table(&[("a", AMQPValue::LongInt(1)), ("b", array(vec![AMQPValue::Void]))]);
    for (value, expected) in [
        (AMQPValue::Boolean(true), "true"),
        (AMQPValue::ShortShortInt(-8), "-8"),
        (AMQPValue::ShortShortUInt(200), "200"),
        (AMQPValue::ShortInt(-16_000), "-16000"),
        (AMQPValue::ShortUInt(60_000), "60000"),
        (AMQPValue::LongInt(i32::MIN), "-2147483648"),
        (AMQPValue::LongUInt(u32::MAX), "4294967295"),
        (AMQPValue::LongLongInt(i64::MIN), "-9223372036854775808"),
        (AMQPValue::Float(0.1), "0.1"),
        (AMQPValue::Double(-0.1), "-0.1"),
        (AMQPValue::DecimalValue(decimal), "12345e-2"),
        (AMQPValue::ShortString("short".into()), "short"),
        (text("Grüße \"an\" alle"), "Grüße \"an\" alle"),
        (AMQPValue::LongString(b"a\xffb".to_vec().into()), "a\u{fffd}b"),
        (AMQPValue::Timestamp(1_763_719_200), "1763719200"),
        (AMQPValue::Timestamp(u64::MAX), "18446744073709551615"),
        (AMQPValue::ByteArray(b"raw".to_vec().into()), "raw"),
        (AMQPValue::Void, "null"),
        (
            array(vec![text("a"), AMQPValue::Boolean(false), AMQPValue::Float(0.5)]),
            r#"["a",false,0.5]"#,
        ),
        (AMQPValue::FieldTable(nested), r#"{"a":1,"b":[null]}"#),
    ] {
        let headers = message(&[("h", value.clone())]).headers;
        assert_eq!(headers, [("h".to_owned(), expected.to_owned())], "{value:?}");
    }
}

#[test]
fn the_worker_sees_neither_our_headers_nor_the_brokers() {
    let deaths = array(vec![AMQPValue::FieldTable(FieldTable::default())]);
    let mut headers: Vec<_> = BROKERS.iter().map(|name| (*name, deaths.clone())).collect();
    headers.extend([
        (headers::ATTEMPTS, AMQPValue::LongLongInt(2)),
        (headers::JOURNAL, array(vec![text("attempt=1")])),
        ("x-tenant", text("acme")),
        (headers::CC, array(vec![text("audit")])),
    ]);
    let mut seen = message(&headers).headers;
    seen.sort();
    let expected = [("CC", r#"["audit"]"#), ("x-tenant", "acme")];
    assert_eq!(
        seen,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
}

#[test]
fn the_history_is_read_whatever_wrote_it() {
    for (value, attempts) in [
        (AMQPValue::LongLongInt(3), 3),
        (AMQPValue::ShortShortUInt(3), 3),
        (text(" 3 "), 3),
        (AMQPValue::ShortString("3".into()), 3),
        (AMQPValue::LongLongInt(-1), 0),
        (AMQPValue::LongLongInt(i64::MAX), 0),
        (text("three"), 0),
        (AMQPValue::Boolean(true), 0),
    ] {
        let history = message(&[(headers::ATTEMPTS, value.clone())]).history;
        assert_eq!(history.attempts, attempts, "{value:?}");
    }
    let history = message(&[
        (headers::FIRST_SEEN, AMQPValue::LongLongInt(1_763_719_200_250)),
        (headers::CRASHES, AMQPValue::LongInt(1)),
        (
            headers::JOURNAL,
            array(vec![text("attempt=1"), text("attempt=2")]),
        ),
    ])
    .history;
    assert_eq!(history.first_seen, Some(Duration::from_millis(1_763_719_200_250)));
    assert_eq!((history.crashes, history.journal.len()), (1, 2));
    assert!(
        message(&[(headers::JOURNAL, text("no list"))])
            .history
            .journal
            .is_empty()
    );
}

#[test]
fn a_delivery_is_taken_apart_and_a_copy_still_knows_where_it_was_published() {
    let (tag, message, original) = take_apart(delivery(BasicProperties::default()));
    assert_eq!(
        (tag, &message.body[..], &original.body[..]),
        (7, &b"body"[..], &b"body"[..])
    );
    assert_eq!(
        (
            message.exchange.as_str(),
            message.routing_key.as_str(),
            message.redelivered
        ),
        ("shop", "order.new", true)
    );
    let message = self::message(&[
        (headers::EXCHANGE, text("")),
        (headers::ROUTING_KEY, text("orders")),
    ]);
    assert_eq!(
        (message.exchange.as_str(), message.routing_key.as_str()),
        ("", "orders")
    );
}

#[test]
fn a_publisher_who_claims_what_was_set_aside_cannot_flood_the_worker() {
    let long = "x".repeat(256);
    let message = self::message(&[
        (headers::EXCHANGE, text(&long)),
        (headers::ROUTING_KEY, text(&long)),
        (headers::USER_ID, text(&long)),
        (headers::EXPIRATION, text(&long)),
    ]);
    assert_eq!(
        (message.exchange.as_str(), message.routing_key.as_str()),
        ("shop", "order.new")
    );
    assert_eq!((message.user_id, message.expiration), (None, None));
    // The longest that a property can be is taken.
    let longest = "x".repeat(255);
    let message = self::message(&[(headers::ROUTING_KEY, text(&longest))]);
    assert_eq!(message.routing_key, longest);
}

#[test]
fn a_cc_header_is_seen_once_even_when_an_older_one_was_set_aside() {
    let both = [("CC", text("new")), (headers::CC, text("older"))];
    let seen = message(&both).headers;
    assert_eq!(seen, [("CC".to_owned(), "new".to_owned())]);
}

#[test]
fn headers_keep_their_order_from_attempt_to_attempt() {
    let names = |seen: Vec<(String, String)>| seen.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let first = [("A", text("1")), ("CC", text("audit")), ("z", text("2"))];
    let later = [("A", text("1")), (headers::CC, text("audit")), ("z", text("2"))];
    assert_eq!(names(message(&first).headers), ["CC", "A", "z"]);
    assert_eq!(names(message(&later).headers), ["CC", "A", "z"]);
}

#[test]
fn a_copy_keeps_every_property_and_header_but_those_that_the_broker_acts_on() {
    let cc = array(vec![text("audit")]);
    let deaths = array(vec![text("once")]);
    let old = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("gzip".into())
        .with_headers(table(&[
            ("tenant", text("acme")),
            ("CC", cc.clone()),
            ("x-death", deaths.clone()),
            ("x-delivery-count", AMQPValue::LongLongInt(4)),
            (headers::REASON, text("of an earlier life")),
        ]))
        .with_delivery_mode(1)
        .with_priority(3)
        .with_correlation_id("c-1".into())
        .with_reply_to("answers".into())
        .with_expiration("600".into())
        .with_message_id("theirs".into())
        .with_timestamp(1)
        .with_type("order".into())
        .with_user_id("guest".into())
        .with_app_id("shop".into())
        .with_cluster_id("c".into());
    let set = vec![
        (headers::ATTEMPTS, Value::Number(1)),
        (headers::REASON, Value::Text("rejected".to_owned())),
        (headers::JOURNAL, Value::Lines(vec!["attempt=1".to_owned()])),
    ];
    let kept = table(&[
        ("tenant", text("acme")),
        (headers::CC, cc),
        (headers::DEATH, deaths),
        (headers::EXPIRATION, text("600")),
        (headers::USER_ID, text("guest")),
        (headers::ATTEMPTS, AMQPValue::LongLongInt(1)),
        (headers::REASON, text("rejected")),
        (headers::JOURNAL, array(vec![text("attempt=1")])),
    ]);
    let expected = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("gzip".into())
        .with_headers(kept)
        .with_delivery_mode(2)
        .with_priority(3)
        .with_correlation_id("c-1".into())
        .with_reply_to("answers".into())
        .with_message_id("id-1".into())
        .with_timestamp(1)
        .with_type("order".into())
        .with_app_id("shop".into())
        .with_cluster_id("c".into());
    assert_eq!(copy_of(old, set), expected);
}

#[test]
fn a_copy_of_a_copy_keeps_what_was_set_aside_and_forgets_our_own_retry_queues() {
    let counted = || vec![(headers::ATTEMPTS, Value::Number(1))];
    let first = copy_of(
        BasicProperties::default()
            .with_expiration("600".into())
            .with_user_id("guest".into())
            .with_headers(table(&[("x-death", text("theirs")), ("CC", text("audit"))])),
        counted(),
    );
    // The broker adds its own on the way through the retry queue.
    let mut headers = first.headers().clone().unwrap();
    headers.insert("x-death".into(), text("ours"));
    let second = copy_of(first.with_headers(headers), counted());
    assert_eq!(header(&second, headers::DEATH), Some(&text("theirs")));
    assert_eq!(header(&second, headers::CC), Some(&text("audit")));
    assert_eq!(header(&second, headers::EXPIRATION), Some(&text("600")));
    assert_eq!(header(&second, headers::USER_ID), Some(&text("guest")));
    assert_eq!(header(&second, "x-death"), None);
    assert_eq!((second.expiration(), second.user_id()), (&None, &None));
    let (_, message, _) = take_apart(delivery(second));
    assert_eq!(
        (message.expiration.as_deref(), message.user_id.as_deref()),
        (Some("600"), Some("guest"))
    );
}

proptest! {
    #[test]
    fn any_bytes_and_numbers_have_a_text(bytes: Vec<u8>, double: f64, float: f32, number: u64) {
        for value in [
            AMQPValue::LongString(bytes.clone().into()),
            AMQPValue::ByteArray(bytes.into()),
            AMQPValue::Double(double),
            AMQPValue::Float(float),
            AMQPValue::Timestamp(number),
        ] {
            let nested = array(vec![value.clone()]);
            prop_assert_eq!(message(&[("a", value), ("b", nested)]).headers.len(), 2);
        }
    }
}
