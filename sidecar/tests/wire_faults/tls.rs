//! What happens below TLS, where no frame can be seen.

use crate::play::{Row, Then, seed};
use crate::support::{binary, until_ready};
use lapin::BasicProperties;
use std::time::Duration;
use testkit::toxic::{Fault, Toxic};
use testkit::worker::Worker;
use testkit::{say, unique};
use tokio::time::Instant;

const MESSAGES: u32 = 20;

/// Its row.
pub(crate) const ROW: Row = Row {
    name: "slow_tls",
    network: "with TLS, from the handshake on: 64 bytes at a time, 20 ms apart",
    then: Then::Carries,
};

#[tokio::test]
async fn slow_tls() {
    let broker = testkit::broker().await;
    let port: u16 = broker
        .url_tls()
        .rsplit(':')
        .next()
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let toxic = Toxic::before(port, seed(ROW.name));
    toxic.set(Fault::SlowBytes(64, Duration::from_millis(20)));
    let url = broker
        .url_tls()
        .replace(&format!(":{port}/"), &format!(":{}/", toxic.port()));
    let (queue, worker, amqp) = (
        unique("orders"),
        Worker::start(|_| 200).await,
        broker.amqp().await,
    );
    amqp.declare_quorum(&queue).await;
    let bodies = (0..MESSAGES).map(|number| (number.to_string(), BasicProperties::default()));
    amqp.publish_many(&queue, bodies).await;
    let (target, authority) = (worker.url(), broker.ca_path());
    let begun = Instant::now();
    let sidecar = binary::start(
        &["--queue", &queue, "--target", &target, "--admin", "127.0.0.1:0"],
        &[
            ("KUBEDAEMON_BROKER", url.as_str()),
            ("SSL_CERT_FILE", authority.to_str().unwrap()),
        ],
    );
    binary::until_status(&sidecar, "every message is accepted", |status| {
        status["messages"]["accepted"] == MESSAGES
    })
    .await;
    say(&format!(
        "slow_tls: all done {:?} after the start",
        begun.elapsed()
    ));
    assert_eq!(worker.count(), MESSAGES as usize, "none twice");
    assert_eq!(toxic.connections().len(), 2, "the first try succeeds");
    assert_eq!(sidecar.matching("broker connection lost").len(), 0);
    sidecar.signal(rustix::process::Signal::TERM);
    assert_eq!(sidecar.wait().await.code(), Some(0));
    until_ready(&amqp, &queue, 0).await;
    amqp.delete(&queue).await;
}
