//! Life of a review: decode → decide → encode.
//!
//! 1. **Decode** the `AdmissionReview` ([`review::decode`]). What is no review cannot be answered with one and is
//!    HTTP 400; a review without an object is refused with a sentence.
//! 2. **Decide** ([`decide`]): a workload gets its own annotations onto its pod template ([`workload`]), a pod its
//!    sidecar ([`pod`]). A patch, a skip or a denial, each with its reason, and warnings.
//! 3. **Encode** the answer under the same `uid` ([`review::encode`]).
//!
//! There is one way out, so each review has one answer, one count and one line in the log. Nothing here waits: a
//! review is answered from what is in it.

use crate::domain::admission::{Admission, Outcome, SkipReason};
use crate::domain::pod::{self, Injection};
use crate::domain::review::{self, Kind, Operation, Request, Undecodable};
use crate::domain::workload;
use crate::telemetry;
use tokio::time::Instant;

/// Answers a review with the body of the HTTP response.
///
/// # Errors
/// A sentence when the body is no review at all.
pub fn answer(body: &[u8], injection: &Injection) -> Result<Vec<u8>, String> {
    let begun = Instant::now();
    let (uid, subject, admission) = match review::decode(body) {
        Ok(request) => {
            let admission = decide(&request, injection);
            (request.uid, Some((request.operation, request.kind)), admission)
        }
        Err(Undecodable::Answerable { uid, sentence }) => (uid, None, review::unreadable(&sentence)),
        Err(Undecodable::NoReview(sentence)) => {
            telemetry::not_a_review(&sentence);
            return Err(sentence);
        }
    };
    let answer = review::encode(&uid, &admission).to_string().into_bytes();
    telemetry::answered(subject, &uid, &admission, begun.elapsed());
    Ok(answer)
}

/// Decides on what is asked for.
pub fn decide(request: &Request, injection: &Injection) -> Admission {
    if request.is_subresource {
        return Outcome::Skip(SkipReason::UnsupportedOperation).into();
    }
    match (request.kind, request.operation) {
        (Kind::Pod, Operation::Create) => pod::decide(&request.object, injection),
        (Kind::Deployment | Kind::StatefulSet, Operation::Create | Operation::Update) => {
            workload::decide(&request.object, injection)
        }
        (Kind::Other, _) => Outcome::Skip(SkipReason::UnsupportedKind).into(),
        // The containers of a pod cannot be changed any more.
        (Kind::Pod | Kind::Deployment | Kind::StatefulSet, _) => {
            Outcome::Skip(SkipReason::UnsupportedOperation).into()
        }
    }
}
