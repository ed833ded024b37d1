use super::*;
use crate::domain::answer::Content;
use crate::domain::delivery::History;
use bytes::Bytes;
use http::StatusCode;

/// 2025-11-21T10:00:00Z.
const NOW: Duration = Duration::from_hours(489_922);

fn answered() -> Outcome {
    Outcome::Answered(Answer {
        status: StatusCode::IM_A_TEAPOT,
        explicit: None,
        retry_after: None,
        deferred: None,
        excerpt: Bytes::from_static(b"short and stout"),
        content: None,
    })
}

fn value<'a>(copy: &'a Copy, name: &str) -> &'a Value {
    &copy
        .set
        .iter()
        .find(|(known, _)| *known == name)
        .unwrap_or_else(|| panic!("{name} is missing"))
        .1
}

fn copied(verdict: Verdict, outcome: &Outcome, message: &Message) -> Copy {
    match plan(&verdict, case(outcome, message, None)) {
        Settlement::CopyThenAck { copy, reply: None } => copy,
        other => panic!("{other:?}"),
    }
}

fn case<'a>(outcome: &'a Outcome, message: &'a Message, reply_to: Option<&'a Address>) -> Case<'a> {
    Case {
        message,
        message_id: "m-1",
        queue: "orders",
        reply_to,
        outcome,
        now: NOW,
    }
}

#[test]
fn only_a_yes_is_acknowledged_without_a_copy() {
    let message = Message::default();
    let outcome = answered();
    let plan = |verdict| plan(&verdict, case(&outcome, &message, None));
    assert_eq!(plan(Verdict::Accepted(Reason::Succeeded)), Settlement::Ack);
    assert_eq!(plan(Verdict::Released(Reason::Draining)), Settlement::Release);
}

#[test]
fn a_dead_letter_says_why_and_where_from() {
    let message = Message {
        exchange: "shop".into(),
        routing_key: "order.new".into(),
        ..Message::default()
    };
    let verdict = Verdict::DeadLetter {
        reason: Reason::Rejected,
        cause: Reason::Rejected,
    };
    let copy = copied(verdict, &answered(), &message);
    assert_eq!(copy.to, Destination::DeadLetter);
    let text = |text: &str| Value::Text(text.to_owned());
    assert_eq!(value(&copy, headers::REASON), &text("rejected"));
    assert_eq!(value(&copy, headers::STATUS), &Value::Number(418));
    assert_eq!(value(&copy, headers::ANSWER), &text("short and stout"));
    assert_eq!(value(&copy, headers::QUEUE), &text("orders"));
    assert_eq!(value(&copy, headers::EXCHANGE), &text("shop"));
    assert_eq!(value(&copy, headers::ROUTING_KEY), &text("order.new"));
    assert_eq!(value(&copy, headers::ATTEMPTS), &Value::Number(1));
}

#[test]
fn attempts_count_only_when_they_count() {
    let first_seen = Some(Duration::from_secs(1));
    let history = History {
        attempts: 2,
        first_seen,
        ..History::default()
    };
    let message = Message {
        history,
        ..Message::default()
    };
    for (counts, expected) in [(true, 3), (false, 2)] {
        let verdict = Verdict::Retry {
            reason: Reason::ServerError,
            delay: Duration::from_secs(1),
            counts,
        };
        let copy = copied(verdict, &answered(), &message);
        assert_eq!(value(&copy, headers::ATTEMPTS), &Value::Number(expected));
        assert_eq!(value(&copy, headers::FIRST_SEEN), &Value::Number(1000));
    }
}

#[test]
fn crashes_add_up_and_are_forgiven_by_any_other_end() {
    let suspect = Message {
        history: History {
            crashes: 1,
            ..History::default()
        },
        ..Message::default()
    };
    let retry = |reason| Verdict::Retry {
        reason,
        delay: Duration::from_secs(1),
        counts: true,
    };
    let crashed = copied(retry(Reason::CrashedWorker), &Outcome::Crashed, &suspect);
    assert_eq!(value(&crashed, headers::CRASHES), &Value::Number(2));
    let cleared = copied(retry(Reason::ServerError), &answered(), &suspect);
    assert_eq!(value(&cleared, headers::CRASHES), &Value::Number(0));
}

#[test]
fn who_waits_for_an_answer_gets_it_before_the_message_is_acknowledged() {
    let message = Message::default();
    let Outcome::Answered(mut answer) = answered() else {
        unreachable!()
    };
    answer.content = Some(Box::new(Content {
        body: Some(Bytes::from_static(b"tea")),
        ..Content::default()
    }));
    let outcome = Outcome::Answered(answer);
    let (caller, queue) = (Address::Caller("me".into()), Address::Queue("results".into()));
    let yes = Verdict::Accepted(Reason::ExplicitAck);
    for to in [&caller, &queue] {
        match plan(&yes, case(&outcome, &message, Some(to))) {
            Settlement::ReplyThenAck(reply) => assert_eq!((&reply.to, &*reply.body), (to, &b"tea"[..])),
            other => panic!("{other:?}"),
        }
    }
    // Accepted without an answer of the worker: there is nothing to send.
    assert_eq!(
        plan(&yes, case(&Outcome::TimedOut, &message, Some(&caller))),
        Settlement::Ack
    );
}

#[test]
fn only_a_caller_is_told_of_a_dead_letter_and_nobody_of_a_retry() {
    let (message, outcome) = (Message::default(), answered());
    let (caller, queue) = (Address::Caller("me".into()), Address::Queue("results".into()));
    let reply = |verdict, to| match plan(&verdict, case(&outcome, &message, Some(to))) {
        Settlement::CopyThenAck { reply, .. } => reply,
        other => panic!("{other:?}"),
    };
    let dead = Verdict::DeadLetter {
        reason: Reason::AttemptsExhausted,
        cause: Reason::ServerError,
    };
    let retry = Verdict::Retry {
        reason: Reason::ServerError,
        delay: Duration::from_secs(1),
        counts: true,
    };
    let told = reply(dead, &caller).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&told.body).unwrap();
    assert_eq!(
        document,
        serde_json::json!({
            "message_id": "m-1", "reason": "attempts_exhausted", "cause": "server_error", "attempts": 1,
            "status": 418, "answer": "short and stout",
        })
    );
    assert_eq!(reply(dead, &queue), None);
    assert_eq!(reply(retry, &caller), None);
}
