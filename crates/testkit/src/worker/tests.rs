//! Tests of the test worker, through the test client.

use super::{Answer, Gate, Worker};
use crate::http::{get, post};
use crate::wait::{PATIENCE, until};
use std::time::Duration;

#[tokio::test]
async fn records_method_path_headers_and_body_of_every_request() {
    let worker = Worker::start(|_| 204).await;
    let url = format!("{}/message?a=b", worker.url());
    let answer = post(&url, &[("x-message-id", "m1")], "hello").await.unwrap();
    assert_eq!(answer.status, 204);
    let request = worker.wait_for(1).await.remove(0);
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/message?a=b")
    );
    assert_eq!(
        (request.header("x-message-id"), request.text().as_str()),
        ("m1", "hello")
    );
    assert_eq!((request.number, request.connection), (1, 1));
}

#[tokio::test]
async fn answers_in_the_order_of_its_script_and_stays_with_the_last() {
    let last = Answer::status(429).header("retry-after", "7").body("slow down");
    let worker = Worker::scripted([Answer::status(500), last]).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(get(&worker.url()).await.unwrap().status.as_u16());
    }
    assert_eq!(statuses, [500, 429, 429]);
    let answer = get(&worker.url()).await.unwrap();
    assert_eq!(
        (answer.header("retry-after"), answer.text().as_str()),
        ("7", "slow down")
    );
}

#[tokio::test]
async fn holds_answers_until_a_gate_opens() {
    let gate = Gate::shut();
    let script = gate.clone();
    let worker = Worker::start(move |_| Answer::ok().when(&script)).await;
    let url = worker.url();
    let calls = tokio::spawn(async move { tokio::join!(get(&url), get(&url)) });
    worker.wait_for(2).await;
    assert_eq!((worker.in_flight(), worker.most_in_flight()), (2, 2));
    assert!(!calls.is_finished());
    gate.open();
    let (first, second) = calls.await.unwrap();
    assert_eq!(
        (first.unwrap().status, second.unwrap().status),
        (http::StatusCode::OK, http::StatusCode::OK)
    );
    until("nothing is in flight", PATIENCE, || async {
        worker.in_flight() == 0
    })
    .await;
}

#[tokio::test]
async fn breaks_connections_as_told() {
    let worker = Worker::scripted([Answer::reset(), Answer::ok().body("half").cut_short()]).await;
    let before = get(&worker.url()).await.unwrap_err();
    assert!(before.0.contains("no answer"), "{before}");
    let amid = get(&worker.url()).await.unwrap_err();
    assert!(amid.0.contains("the answer broke off"), "{amid}");
}

#[tokio::test]
async fn never_answers_when_told_so() {
    let worker = Worker::start(|_| Answer::never()).await;
    let url = worker.url();
    let call = tokio::time::timeout(Duration::from_millis(100), get(&url)).await;
    call.unwrap_err();
    assert_eq!(worker.count(), 1);
}

#[tokio::test]
async fn a_crash_closes_the_port_and_the_connections_and_keeps_the_record() {
    let worker = Worker::start(|_| Answer::never()).await;
    let url = worker.url();
    let call = tokio::spawn(async move { get(&url).await });
    worker.wait_for(1).await;
    worker.crash();
    call.await.unwrap().unwrap_err();
    let refused = get(&worker.url()).await.unwrap_err();
    assert!(refused.0.contains("no connection"), "{refused}");

    worker.start_again();
    let url = worker.url();
    let call = tokio::spawn(async move { get(&url).await });
    worker.wait_for(2).await;
    call.abort();
    assert_eq!(worker.connections(), 2);
}
