//! Every status there is.

use crate::play::RawScene;
use std::collections::BTreeMap;
use std::time::Duration;
use testkit::raw::{Exchange, Patience, RawWorker, Step};

/// Verdict and reason of an empty answer with a status, by the table of `docs/reference/verdicts.md`, when one attempt is
/// allowed.
fn expected(status: u16) -> (&'static str, &'static str) {
    match status {
        // Interim: the final answer never comes.
        100 | 102..=199 => ("dead_letter", "timed_out"),
        200..=299 => ("accepted", "succeeded"),
        300..=399 => ("dead_letter", "redirected"),
        408 => ("dead_letter", "request_timeout"),
        425 => ("dead_letter", "too_early"),
        429 => ("dead_letter", "too_many_requests"),
        400..=499 => ("dead_letter", "rejected"),
        500..=599 => ("dead_letter", "server_error"),
        101 | 600..=999 => ("dead_letter", "unknown_status"),
        _ => ("dead_letter", "not_http"),
    }
}

#[tokio::test]
async fn every_status() {
    let statuses: Vec<u16> = (0..100)
        .step_by(9)
        .chain(100..=599)
        .chain((600..=999).step_by(7))
        .collect();
    let worker = RawWorker::start(Patience::Whole, |exchange: &Exchange| {
        let status: u16 = exchange.text().parse().unwrap();
        let length = match status {
            100..=199 | 204 | 304 => "",
            _ => "Content-Length: 0\r\n",
        };
        vec![Step::send(format!("HTTP/1.1 {status:03} Word\r\n{length}\r\n"))]
    });
    let scene = RawScene::new(worker, |config| {
        config.max_attempts = 1;
        config.concurrency = 64;
        config.timeout = Duration::from_secs(2);
    })
    .await;
    for status in &statuses {
        scene.publish(status.to_string()).await;
    }
    scene.until_settled(statuses.len() as u64).await;
    let letters = scene.dead_letters().await;
    let reasons: BTreeMap<u16, String> = letters
        .iter()
        .map(|letter| {
            let journal = crate::support::journal(letter);
            let (_, reason) = journal.rsplit_once("reason=").unwrap();
            let reason = reason.split(' ').next().unwrap();
            (letter.text().parse().unwrap(), reason.to_owned())
        })
        .collect();
    for status in &statuses {
        let (verdict, reason) = expected(*status);
        let found = reasons.get(status).map_or("succeeded", String::as_str);
        assert_eq!(found, reason, "{status}");
        assert_eq!(reasons.contains_key(status), verdict == "dead_letter", "{status}");
    }
    assert_eq!(letters.len(), reasons.len(), "each once");
    let counts = scene.sidecar.handle.status().counts;
    assert_eq!((counts.retried, counts.released), (0, 0));
    scene.end().await;
}
