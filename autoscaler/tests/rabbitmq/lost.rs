//! Connections that break, brokers that are away and brokers that do not answer. Tests that break a broker have one of their own.

use crate::{capture, own_broker, queue, sample_one, source};
use autoscaler::domain::SampleError;
use autoscaler::{DepthSource, PassiveDeclare};
use std::process::Command;
use std::time::Duration;
use testkit::wait::PATIENCE;
use testkit::{broker, table, unique};
use tokio::time::Instant;

/// A batch and the probe after it, with room for a busy machine.
const BOUND: Duration = Duration::from_secs(10);

/// Samples until it works again; every sample on the way is unreachable and bounded.
async fn until_known(source: &mut PassiveDeclare, name: &str) -> u32 {
    let begin = Instant::now();
    let mut failures = 0;
    loop {
        let asked = Instant::now();
        match sample_one(source, name).await {
            Ok(_) => return failures,
            Err(SampleError::BrokerUnreachable(_) | SampleError::TimedOut { .. }) => failures += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(asked.elapsed() < BOUND, "a sample took {:?}", asked.elapsed());
        assert!(begin.elapsed() < PATIENCE * 2, "never known again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_unknown(source: &mut PassiveDeclare, name: &str) -> SampleError {
    let begin = Instant::now();
    loop {
        if let Err(error) = sample_one(source, name).await {
            return error;
        }
        assert!(begin.elapsed() < PATIENCE, "still known");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn connections_closed_by_the_broker_are_opened_again() {
    let (broker, _turn) = own_broker().await;
    let amqp = broker.amqp().await;
    amqp.declare("orders", table([])).await;
    let logs = capture();
    let mut source = source(&broker);
    until_known(&mut source, "orders").await;
    for round in 1..=3 {
        broker.close_all_connections().await;
        testkit::wait::until("the loss is noticed", PATIENCE, || async {
            logs.matching("lost the broker").len() == round
        })
        .await;
        until_known(&mut source, "orders").await;
    }
    assert_eq!(logs.matching("connected to the broker").len(), 4, "{logs:?}");
    assert_eq!(logs.matching("lost the broker").len(), 3, "{logs:?}");
    assert_eq!(logs.lines().len(), 7, "one line a change: {logs:?}");
    source.close().await;
}

#[tokio::test]
async fn a_broker_that_stops_is_unreachable_for_all_until_it_is_back() {
    let (broker, _turn) = own_broker().await;
    let amqp = broker.amqp().await;
    amqp.declare("orders", table([])).await;
    let logs = capture();
    let mut source = source(&broker);
    until_known(&mut source, "orders").await;
    broker.stop().await;
    until_unknown(&mut source, "orders").await;
    let begin = Instant::now();
    for _ in 0..100 {
        let results = source.sample(&[queue("orders"), queue("invoices")]).await;
        for result in results {
            assert!(
                matches!(result, Err(SampleError::BrokerUnreachable(_))),
                "{result:?}"
            );
        }
    }
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "what is known to be away is not waited for"
    );
    testkit::wait::until("a try has failed", PATIENCE, || async {
        !logs.matching("cannot connect to the broker").is_empty()
    })
    .await;
    broker.start_again().await;
    until_known(&mut source, "orders").await;
    assert_eq!(logs.matching("lost the broker").len(), 1, "{logs:?}");
    assert_eq!(logs.matching("connected to the broker").len(), 2, "{logs:?}");
    let failures = logs.matching("cannot connect to the broker").len();
    assert!(
        (1..=3).contains(&failures),
        "one line a kind of failure, not one a try: {logs:?}"
    );
    source.close().await;
}

#[tokio::test]
async fn a_broker_that_is_away_at_first_is_found_when_it_comes() {
    let (broker, _turn) = own_broker().await;
    broker.amqp().await.declare("orders", table([])).await;
    broker.stop().await;
    let mut source = source(&broker);
    let error = sample_one(&mut source, "orders").await.unwrap_err();
    assert!(
        error.to_string().starts_with("the broker cannot be reached"),
        "{error}"
    );
    broker.start_again().await;
    until_known(&mut source, "orders").await;
    source.close().await;
}

/// Lets a process go on when the test ends, however it ends.
struct Frozen(u32);

impl Frozen {
    fn freeze(pid: u32) -> Self {
        signal(pid, "-STOP");
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal(self.0, "-CONT");
    }
}

fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args([name, &pid.to_string()])
        .status()
        .expect("kill runs");
    assert!(status.success(), "kill {name} {pid}");
}

#[tokio::test]
async fn a_broker_that_does_not_answer_is_given_up_within_the_deadline() {
    let (broker, _turn) = own_broker().await;
    broker.amqp().await.declare("orders", table([])).await;
    let mut source = source(&broker);
    until_known(&mut source, "orders").await;
    let frozen = Frozen::freeze(broker.pid().expect("a node of ours"));
    // A stopped process may still answer for a moment.
    let (error, took) = loop {
        let begin = Instant::now();
        if let Err(error) = sample_one(&mut source, "orders").await {
            break (error, begin.elapsed());
        }
    };
    assert!(matches!(error, SampleError::BrokerUnreachable(_)), "{error}");
    assert!(
        took >= Duration::from_secs(1),
        "a slow answer is waited for: {took:?}"
    );
    assert!(took < BOUND, "{took:?}");
    // The connection was given up, so nobody waits for it a second time.
    let begin = Instant::now();
    for _ in 0..20 {
        sample_one(&mut source, "orders").await.unwrap_err();
    }
    assert!(begin.elapsed() < BOUND, "{:?}", begin.elapsed());
    drop(frozen);
    until_known(&mut source, "orders").await;
    source.close().await;
}

#[tokio::test]
async fn a_wrong_password_is_said_once_and_never_shown() {
    let broker = broker().await;
    let logs = capture();
    let url = broker.url().replace("guest:guest", "guest:canary-7391");
    let mut source = PassiveDeclare::new(url.parse().unwrap(), "autoscaler-test");
    let error = until_unknown(&mut source, "orders").await;
    assert!(matches!(error, SampleError::BrokerUnreachable(_)), "{error:?}");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        let error = sample_one(&mut source, "orders").await.unwrap_err().to_string();
        assert!(!error.contains("canary"), "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(logs.lines().len(), 1, "one line a change: {logs:?}");
    assert!(!logs.text().contains("canary"), "{logs:?}");
    source.close().await;
}

#[tokio::test]
async fn closing_ends_the_connection() {
    let broker = broker().await;
    let name = unique("autoscaler-closing");
    let mut source = PassiveDeclare::new(broker.url().parse().unwrap(), name.as_str());
    let missing = sample_one(&mut source, &name).await;
    assert!(
        matches!(missing, Err(SampleError::QueueMissing(_))),
        "{missing:?}"
    );
    source.close().await;
    testkit::wait::until("no connection is left", PATIENCE, || async {
        let connections = broker.ctl(&["list_connections", "client_properties", "-q"]).await;
        connections.is_ok_and(|text| !text.contains(&name))
    })
    .await;
}
