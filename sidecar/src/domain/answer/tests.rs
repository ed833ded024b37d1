use super::*;
use crate::domain::fields::Field;
use proptest::prelude::*;

const NOW: Duration = Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT

const JSON: (&str, &str) = (
    "content-type",
    "application/vnd.kubedaemon.verdict+json; charset=utf-8",
);
type Case = (
    &'static [(&'static str, &'static str)],
    &'static str,
    Option<Explicit>,
);

fn body(text: &str) -> Body {
    Body {
        bytes: Bytes::copy_from_slice(text.as_bytes()),
        is_whole: true,
    }
}

const WANTED: Wanted = Wanted {
    excerpt: 8,
    reply: Some(16),
};

fn fields_of<'a>(pairs: &[(&'a str, &'a str)]) -> Vec<Field<'a>> {
    let field = |(name, value): &(&'a str, &'a str)| Field {
        name,
        value: value.as_bytes(),
    };
    pairs.iter().map(field).collect()
}

fn read(pairs: &[(&str, &str)], text: &str) -> Answer {
    Answer::read(
        StatusCode::OK,
        Fields::new(&fields_of(pairs)),
        &body(text),
        WANTED,
        NOW,
    )
}

#[test]
fn explicit_verdicts_in_header_and_json() {
    let cases: &[Case] = &[
        (&[], "", None),
        (&[("x-message-verdict", "ack")], "", Some(Explicit::Ack)),
        (&[("x-message-verdict", "Retry ")], "", Some(Explicit::Retry)),
        (&[("x-message-verdict", "reject")], "", Some(Explicit::Reject)),
        (&[("x-message-verdict", "bananas")], "", Some(Explicit::Unknown)),
        (&[JSON], r#"{"status":"ACK"}"#, Some(Explicit::Ack)),
        (&[JSON], r#"{"status":"RETRY"}"#, Some(Explicit::Retry)),
        (&[JSON], r#"{"status":"ERR"}"#, Some(Explicit::Reject)),
        (&[JSON], r#"{"status":"SUCCESS"}"#, Some(Explicit::Ack)),
        (&[JSON], r#"{"status":"DROP"}"#, Some(Explicit::Reject)),
        (&[JSON], r#"{"status":7}"#, Some(Explicit::Unknown)),
        (&[JSON], "not json", Some(Explicit::Unknown)),
        (
            &[("content-type", "application/json")],
            r#"{"status":"DROP"}"#,
            None,
        ),
        (
            &[JSON, ("x-message-verdict", "ack")],
            r#"{"status":"DROP"}"#,
            Some(Explicit::Ack),
        ),
    ];
    for (headers, body, expected) in cases {
        assert_eq!(read(headers, body).explicit, *expected, "{headers:?} {body}");
    }
}

#[test]
fn retry_after_as_seconds_and_as_date() {
    let cases = [
        ("120", Some(120)),
        (" 0 ", Some(0)),
        ("999999999999999999999999", Some(3600)),
        ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
        ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
        ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
        ("Sat, 06 Nov 2094 08:49:37 GMT", Some(3600)),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
    ];
    for (value, expected) in cases {
        assert_eq!(
            read(&[("retry-after", value)], "").retry_after,
            expected.map(Duration::from_secs),
            "{value}"
        );
    }
}

#[test]
fn the_excerpt_is_bounded() {
    assert_eq!(read(&[], "0123456789").excerpt, "01234567");
    assert_eq!(read(&[], "01").excerpt, "01");
}

proptest! {
    #[test]
    fn reading_never_panics_and_stays_capped(value in "[ -~]{0,40}", body in proptest::collection::vec(any::<u8>(), 0..64)) {
        let fields = fields_of(&[("Retry-After", &value), JSON]);
        let body = Body { bytes: Bytes::from(body), is_whole: true };
        let answer = Answer::read(StatusCode::OK, Fields::new(&fields), &body, WANTED, NOW);
        prop_assert!(answer.retry_after.unwrap_or_default() <= RETRY_AFTER_CAP);
        prop_assert!(answer.excerpt.len() <= 8);
    }
}

#[test]
fn content_is_the_whole_answer_or_nothing() {
    let content = |pairs: &[(&str, &str)], body: &Body, reply| {
        let wanted = Wanted { reply, ..WANTED };
        Answer::read(StatusCode::OK, Fields::new(&fields_of(pairs)), body, wanted, NOW).content
    };
    let plain = [("content-type", "text/plain"), ("content-encoding", "br")];
    let read = content(&plain, &body("0123456789abcdef"), Some(16)).unwrap();
    assert_eq!(read.body.as_deref(), Some(&b"0123456789abcdef"[..]));
    assert_eq!(
        (read.content_type.as_deref(), read.content_encoding.as_deref()),
        (Some("text/plain"), Some("br"))
    );
    assert_eq!(
        content(&plain, &body("0123456789abcdefg"), Some(16))
            .unwrap()
            .body,
        None
    );
    let cut = Body {
        is_whole: false,
        ..body("0123")
    };
    assert_eq!(content(&plain, &cut, Some(16)).unwrap().body, None);
    assert_eq!(content(&plain, &body("0123"), None), None);
}

#[test]
fn a_verdict_document_is_no_reply_but_may_have_one() {
    let reply = |document: &str| {
        let content = read(&[JSON], document).content.unwrap();
        (content.body, content.content_type)
    };
    let json = Some("application/json".to_owned());
    assert_eq!(reply(r#"{"status":"ack"}"#), (Some(Bytes::new()), None));
    assert_eq!(
        reply(r#"{"status":"ack","reply":{"id":7}}"#),
        (Some(Bytes::from_static(b"{\"id\":7}")), json.clone())
    );
    assert_eq!(
        reply(r#"{"status":"ack","reply":"yes"}"#),
        (Some(Bytes::from_static(b"\"yes\"")), json.clone())
    );
    assert_eq!(
        reply(r#"{"status":"ack","reply":"this is too long for one"}"#),
        (None, json)
    );
}

#[test]
fn headers_of_a_reply_are_those_asked_for_and_bounded() {
    let content = read(
        &[
            ("x-amqp-tenant", "acme"),
            ("x-amqp-x-kubedaemon-attempts", "9"),
            ("x-amqp-x-death", "no"),
            ("x-amqp-", "no name"),
            ("traceparent", "00-a-b-01"),
            ("server", "none of theirs"),
        ],
        "",
    )
    .content
    .unwrap();
    let mut kept = content.headers;
    kept.sort();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(kept, [pair("tenant", "acme"), pair("traceparent", "00-a-b-01")]);
    assert_eq!(content.headers_dropped, 3);

    let many: Vec<(String, String)> = (0..100)
        .map(|n| (format!("x-amqp-n{n}"), "v".repeat(200)))
        .collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&**name, &**value)).collect();
    let content = read(&many, "").content.unwrap();
    let bytes: usize = content
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    assert!(bytes <= 6 * 1024 && content.headers.len() <= 60, "{bytes}");
    assert_eq!(content.headers.len() + content.headers_dropped as usize, 100);
}

#[test]
fn a_deferral_is_told_by_status_and_header_together() {
    let deferred = |status, pairs: &[(&str, &str)]| {
        let status = StatusCode::from_u16(status).unwrap();
        Answer::read(status, Fields::new(&fields_of(pairs)), &body(""), WANTED, NOW).deferred
    };
    assert_eq!(
        deferred(202, &[("x-defer", " 90 ")]),
        Some(Duration::from_secs(90))
    );
    assert_eq!(deferred(202, &[("x-defer", "0")]), Some(Duration::ZERO));
    assert_eq!(deferred(202, &[("x-defer", "a while")]), Some(Duration::MAX));
    assert_eq!(deferred(202, &[]), None);
    assert_eq!(deferred(200, &[("x-defer", "90")]), None);
}
