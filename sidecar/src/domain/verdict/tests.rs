use super::*;
use bytes::Bytes;
use proptest::prelude::*;

const BACKOFF: retry::Policy = retry::Policy {
    min: Duration::from_secs(1),
    max: Duration::from_mins(5),
};

fn answered(status: u16) -> Answer {
    Answer {
        status: StatusCode::from_u16(status).unwrap(),
        explicit: None,
        retry_after: None,
        deferred: None,
        excerpt: Bytes::new(),
        content: None,
    }
}

fn circumstances(history: &History) -> Circumstances<'_> {
    Circumstances {
        history,
        max_attempts: 5,
        backoff: BACKOFF,
        draining: false,
        alone: true,
        draw: 0.5,
    }
}

fn first(outcome: &Outcome) -> (&'static str, &'static str, bool) {
    let verdict = judge(outcome, circumstances(&History::default()));
    let counts = matches!(verdict, Verdict::Retry { counts: true, .. });
    (verdict.as_str(), verdict.reason().as_str(), counts)
}

#[test]
fn every_status_has_its_verdict() {
    for status in 100..=999 {
        let expected = match status {
            200..=299 => ("accepted", "succeeded", false),
            300..=399 => ("dead_letter", "redirected", false),
            408 => ("retry", "request_timeout", true),
            425 => ("retry", "too_early", true),
            429 => ("retry", "too_many_requests", true),
            400..=499 => ("dead_letter", "rejected", false),
            500..=599 => ("retry", "server_error", true),
            _ => ("retry", "unknown_status", true),
        };
        assert_eq!(first(&Outcome::Answered(answered(status))), expected, "{status}");
    }
}

#[test]
fn an_explicit_verdict_outranks_every_status() {
    for status in [200, 404, 500, 503] {
        for (explicit, expected) in [
            (Explicit::Ack, ("accepted", "explicit_ack", false)),
            (Explicit::Retry, ("retry", "explicit_retry", true)),
            (Explicit::Reject, ("dead_letter", "explicit_reject", false)),
            (Explicit::Unknown, ("retry", "unknown_verdict", true)),
        ] {
            let answer = Answer {
                explicit: Some(explicit),
                ..answered(status)
            };
            assert_eq!(
                first(&Outcome::Answered(answer)),
                expected,
                "{status} {explicit:?}"
            );
        }
    }
}

#[test]
fn retry_after_counts_only_where_it_means_throttling() {
    let hint = Some(Duration::from_secs(7));
    for (status, counts, reason) in [
        (429, false, "throttled"),
        (503, false, "throttled"),
        (500, true, "server_error"),
        (408, true, "request_timeout"),
    ] {
        let verdict = judge(
            &Outcome::Answered(Answer {
                retry_after: hint,
                ..answered(status)
            }),
            circumstances(&History::default()),
        );
        let Verdict::Retry {
            reason: why,
            delay,
            counts: counted,
        } = verdict
        else {
            panic!("{status}: {verdict:?}")
        };
        assert_eq!((why.as_str(), counted), (reason, counts), "{status}");
        assert_eq!(delay, Duration::from_secs(7), "{status}");
    }
}

#[test]
fn throttling_is_never_the_last_attempt() {
    let history = History {
        attempts: 4,
        ..History::default()
    };
    let answer = Answer {
        retry_after: Some(Duration::ZERO),
        ..answered(503)
    };
    assert_eq!(
        judge(&Outcome::Answered(answer), circumstances(&history)).as_str(),
        "retry"
    );
}

#[test]
fn the_last_attempt_dead_letters_and_keeps_its_cause() {
    for (attempts, expected) in [(3, "retry"), (4, "dead_letter"), (5, "dead_letter")] {
        let history = History {
            attempts,
            ..History::default()
        };
        let verdict = judge(&Outcome::Answered(answered(500)), circumstances(&history));
        assert_eq!(verdict.as_str(), expected, "{attempts}");
        if let Verdict::DeadLetter { reason, cause } = verdict {
            assert_eq!((reason, cause), (Reason::AttemptsExhausted, Reason::ServerError));
        }
    }
}

#[test]
fn what_happens_on_the_wire_has_its_verdict() {
    assert_eq!(first(&Outcome::TimedOut), ("retry", "timed_out", true));
    assert_eq!(first(&Outcome::Reset), ("retry", "reset", true));
    assert_eq!(first(&Outcome::DeferExpired), ("retry", "defer_expired", true));
    assert_eq!(
        first(&Outcome::BodyTooLarge),
        ("dead_letter", "body_too_large", false)
    );
    assert_eq!(first(&Outcome::NotHttp), ("retry", "not_http", true));
    assert_eq!(first(&Outcome::Crashed), ("retry", "crashed_worker", true));
    assert_eq!(
        first(&Outcome::Refused),
        ("released", "worker_unreachable", false)
    );
}

#[test]
fn a_suspect_that_crashes_the_worker_alone_is_the_killer() {
    let suspect = History {
        attempts: 1,
        crashes: 1,
        ..History::default()
    };
    let alone = circumstances(&suspect);
    assert_eq!(judge(&Outcome::Crashed, alone), dead(Reason::CrashedWorker));
    assert_eq!(
        judge(
            &Outcome::Crashed,
            Circumstances {
                alone: false,
                ..alone
            }
        )
        .as_str(),
        "retry"
    );
}

#[test]
fn a_crash_among_several_gives_each_one_attempt_alone_even_beyond_the_limit() {
    let (first, suspect) = (
        History::default(),
        History {
            attempts: 1,
            crashes: 1,
            ..History::default()
        },
    );
    let among_several = |history| Circumstances {
        alone: false,
        max_attempts: 1,
        ..circumstances(history)
    };
    assert_eq!(judge(&Outcome::Crashed, among_several(&first)).as_str(), "retry");
    assert_eq!(
        judge(&Outcome::Crashed, among_several(&suspect)).as_str(),
        "dead_letter"
    );
}

#[test]
fn a_worker_that_goes_away_while_draining_costs_no_attempt() {
    let history = History::default();
    for outcome in [Outcome::Reset, Outcome::Crashed] {
        let verdict = judge(
            &outcome,
            Circumstances {
                draining: true,
                ..circumstances(&history)
            },
        );
        assert_eq!(verdict, Verdict::Released(Reason::Draining));
    }
}

#[test]
fn a_yes_that_is_too_long_for_a_reply_is_given_up_and_not_cut() {
    let cut = |status, explicit| {
        first(&Outcome::Answered(Answer {
            explicit,
            content: Some(Box::default()),
            ..answered(status)
        }))
    };
    let too_long = ("dead_letter", "reply_too_long", false);
    assert_eq!(cut(200, None), too_long);
    assert_eq!(cut(500, Some(Explicit::Ack)), too_long);
    // What is no yes has no reply.
    assert_eq!(cut(500, None), ("retry", "server_error", true));
    assert_eq!(cut(404, None), ("dead_letter", "rejected", false));
}

#[test]
fn a_deferral_is_never_taken_for_a_yes() {
    let answer = Answer {
        deferred: Some(Duration::MAX),
        ..answered(202)
    };
    assert_eq!(
        first(&Outcome::Answered(answer)),
        ("dead_letter", "defer_unsupported", false)
    );
}

#[test]
fn every_failed_attempt_waits_as_long_as_the_worker_asks() {
    for explicit in [None, Some(Explicit::Retry), Some(Explicit::Unknown)] {
        let answer = Answer {
            explicit,
            retry_after: Some(Duration::from_mins(10)),
            ..answered(500)
        };
        let verdict = judge(&Outcome::Answered(answer), circumstances(&History::default()));
        let Verdict::Retry { delay, .. } = verdict else {
            panic!("{explicit:?}: {verdict:?}")
        };
        assert_eq!(delay, Duration::from_mins(10), "{explicit:?}");
    }
}

proptest! {
    #[test]
    fn no_failure_is_accepted_and_attempts_are_bounded(
        status in 300_u16..1000, attempts in 0_u32..100, max_attempts in 1_u32..50, crashes in 0_u32..3, draining: bool, alone: bool, draw in 0.0..1.0,
        wire in 0_usize..7,
    ) {
        let history = History { attempts, crashes, ..History::default() };
        let outcome = [
            Outcome::Answered(answered(status)), Outcome::TimedOut, Outcome::Refused, Outcome::Reset, Outcome::Crashed, Outcome::NotHttp,
                Outcome::DeferExpired,
        ][wire].clone();
        let circumstances = Circumstances { history: &history, max_attempts, backoff: BACKOFF, draining, alone, draw };
        match judge(&outcome, circumstances) {
            Verdict::Accepted(_) => prop_assert!(false, "{outcome:?} was accepted"),
            // The one attempt alone that a crash among several grants comes once, for it makes a suspect.
            Verdict::Retry { reason: Reason::CrashedWorker, .. } if !alone => {
                prop_assert!(crashes == 0 || attempts + 1 < max_attempts);
            }
            Verdict::Retry { counts: true, .. } => prop_assert!(attempts + 1 < max_attempts),
            Verdict::Retry { .. } | Verdict::DeadLetter { .. } | Verdict::Released(_) => {}
        }
    }
}
