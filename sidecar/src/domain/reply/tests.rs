use super::*;

fn message(reply_to: Option<&str>, correlation_id: Option<&str>) -> Message {
    Message {
        reply_to: reply_to.map(str::to_owned),
        correlation_id: correlation_id.map(str::to_owned),
        ..Message::default()
    }
}

#[test]
fn a_callers_own_wish_comes_before_the_response_queue() {
    let of = |reply_to, queue| Address::of(&message(reply_to, None), queue);
    assert_eq!(of(None, None), None);
    assert_eq!(of(Some(""), None), None);
    assert_eq!(of(Some("me"), None), Some(Address::Caller("me".into())));
    assert_eq!(
        of(Some("me"), Some("results")),
        Some(Address::Caller("me".into()))
    );
    assert_eq!(of(None, Some("results")), Some(Address::Queue("results".into())));
    assert!(of(Some("amq.rabbitmq.reply-to.g1h2"), None).unwrap().is_direct());
    assert!(!of(Some("amq.gen-7"), None).unwrap().is_direct());
}

#[test]
fn a_reply_can_be_told_from_others_and_repetitions_from_each_other() {
    let reply = |correlation_id, message_id: &str| {
        let message = message(Some("me"), correlation_id);
        let replied = Replied {
            message: &message,
            message_id,
            queue: "orders",
        };
        of_dead_letter(
            Address::Caller("me".into()),
            replied,
            None,
            Reason::TimedOut,
            Reason::TimedOut,
        )
    };
    let ids = |reply: Reply| (reply.correlation_id, reply.message_id);
    assert_eq!(ids(reply(Some("c-1"), "m-1")), ("c-1".into(), "m-1.reply".into()));
    assert_eq!(ids(reply(None, "m-1")), ("m-1".into(), "m-1.reply".into()));
    let long = "m".repeat(255);
    assert_eq!(ids(reply(None, &long)), (long.clone(), long.clone()));
}

#[test]
fn properties_that_amqp_has_no_room_for_are_left_out() {
    let (message, long) = (message(Some("me"), None), "x".repeat(256));
    let replied = Replied {
        message: &message,
        message_id: "m-1",
        queue: "orders",
    };
    let answer = Answer {
        status: http::StatusCode::OK,
        explicit: None,
        retry_after: None,
        deferred: None,
        excerpt: Bytes::new(),
        content: None,
    };
    let content = Content {
        content_type: Some(long.clone()),
        content_encoding: Some(long),
        headers_dropped: 2,
        ..Content::default()
    };
    let reply = of_answer(
        Address::Caller("me".into()),
        replied,
        &answer,
        &content,
        Reason::Succeeded,
    );
    assert_eq!((reply.content_type, reply.content_encoding), (None, None));
    let set: Vec<_> = reply.set.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        set,
        [
            "x-kubedaemon-verdict",
            "x-kubedaemon-reason",
            "x-kubedaemon-queue",
            "x-kubedaemon-status",
            "x-kubedaemon-headers-dropped"
        ]
    );
}
