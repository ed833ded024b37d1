//! Addresses of brokers as people write them: TLS with a private authority, awkward passwords and virtual hosts.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use lapin::BasicProperties;
use support::{PATIENCE, Running, Scene, binary, config};
use testkit::worker::Worker;
use testkit::{Amqp, Broker, unique};

/// Runs the binary with this environment on a queue, lets it take one message, and ends it.
async fn one_message(environment: &[(&str, &str)], amqp: &Amqp) {
    let (queue, worker) = (unique("orders"), Worker::start(|_| 200).await);
    amqp.declare_quorum(&queue).await;
    amqp.publish(&queue, "m", BasicProperties::default()).await;
    let target = worker.url();
    let arguments = ["--queue", &queue, "--target", &target, "--admin", "127.0.0.1:0"];
    let sidecar = binary::start(&arguments, environment);
    binary::until_status(&sidecar, "it is accepted", |status| {
        status["messages"]["accepted"] == 1
    })
    .await;
    sidecar.signal(rustix::process::Signal::TERM);
    assert_eq!(sidecar.wait().await.code(), Some(0));
    support::until_ready(amqp, &queue, 0).await;
    amqp.delete(&queue).await;
}

#[tokio::test]
async fn a_private_authority_is_trusted_through_ssl_cert_file() {
    let broker = testkit::broker().await;
    let authority = broker.ca_path();
    let environment = [
        ("KUBEDAEMON_BROKER", broker.url_tls()),
        ("SSL_CERT_FILE", authority.to_str().unwrap()),
    ];
    one_message(&environment, &broker.amqp().await).await;
    let by_name = broker.url_tls().replace("127.0.0.1", "localhost");
    let environment = [
        ("KUBEDAEMON_BROKER", by_name.as_str()),
        ("SSL_CERT_FILE", authority.to_str().unwrap()),
    ];
    one_message(&environment, &broker.amqp().await).await;
}

#[tokio::test]
async fn an_unknown_authority_is_refused_with_a_sentence() {
    let broker = testkit::broker().await;
    let arguments = ["--queue", "orders", "--admin", "off"];
    let sidecar = binary::start(&arguments, &[("KUBEDAEMON_BROKER", broker.url_tls())]);
    let line = sidecar.wait_for_line("TLS to the broker failed: ").await;
    assert!(
        line.contains("a private authority is trusted through SSL_CERT_FILE"),
        "{line}"
    );
    assert_eq!(sidecar.matching("WARN").len(), 1, "{:#?}", sidecar.lines());
}

#[tokio::test]
async fn tls_to_a_port_without_it_and_the_other_way_round_are_said() {
    let broker = testkit::broker().await;
    let arguments = ["--queue", "orders", "--admin", "off"];
    let plain_port = broker.url().replace("amqp://", "amqps://");
    let tls = binary::start(&arguments, &[("KUBEDAEMON_BROKER", &plain_port)]);
    let tls_port = broker.url_tls().replace("amqps://", "amqp://");
    let plain = binary::start(&arguments, &[("KUBEDAEMON_BROKER", &tls_port)]);
    let line = tls.wait_for_line("TLS to the broker failed: ").await;
    assert!(line.contains("a port without TLS wants amqp://"), "{line}");
    plain.wait_for_line("a port with TLS wants amqps://").await;
}

/// A user with an awkward password on a vhost, both as they are.
async fn awkward(broker: &Broker, vhost: &str) -> String {
    let user = unique("o'b");
    broker.add_user(&user, "p@ss:w/rd", vhost).await;
    user
}

#[tokio::test]
async fn a_password_may_be_written_as_it_is_or_percent_encoded() {
    let broker = testkit::broker().await;
    let vhost = unique("team");
    let user = awkward(broker, &vhost).await;
    for password in ["p@ss:w/rd", "p%40ss%3Aw%2Frd", "p%40ss:w/rd"] {
        let url = format!("amqp://{user}:{password}@127.0.0.1:{}/{vhost}", broker.port());
        let (queue, worker) = (unique("orders"), Worker::start(|_| 200).await);
        let logs = testkit::logs::capture();
        let sidecar = Running::start(config(&url, &queue, worker.port())).await;
        let encoded = url.replace(password, "p%40ss%3Aw%2Frd");
        let scene = Scene {
            amqp: Amqp::connect(&encoded).await,
            queue,
            worker,
            sidecar,
        };
        scene.until_state(sidecar::State::Consuming).await;
        scene.publish("m").await;
        scene.until_accepted(1).await;
        scene.end().await;
        for secret in ["p@ss", "p%40ss", "w/rd", "w%2Frd"] {
            assert!(!logs.text().contains(secret), "{logs:#?}");
        }
    }
}

#[tokio::test]
async fn a_virtual_host_may_be_written_in_the_address_or_beside_it() {
    let broker = testkit::broker().await;
    let vhost = format!("{}/a b", unique("team"));
    let user = awkward(broker, &vhost).await;
    let server = format!("amqp://{user}:p@ss:w/rd@127.0.0.1:{}", broker.port());
    let encoded = vhost.replace('/', "%2f").replace(' ', "%20");
    let address = format!("{server}/{encoded}");
    let amqp = Amqp::connect(&address.replace("p@ss:w/rd", "p%40ss%3Aw%2Frd")).await;
    one_message(&[("KUBEDAEMON_BROKER", &address)], &amqp).await;
    one_message(
        &[("KUBEDAEMON_BROKER", &server), ("KUBEDAEMON_VHOST", &vhost)],
        &amqp,
    )
    .await;
    // The default one, in every spelling.
    let guest = format!("amqp://127.0.0.1:{}", broker.port());
    let amqp = broker.amqp().await;
    for path in ["", "/", "/%2f"] {
        one_message(&[("KUBEDAEMON_BROKER", &format!("{guest}{path}"))], &amqp).await;
    }
}

#[tokio::test]
async fn a_wrong_password_is_said_without_showing_it() {
    let broker = testkit::broker().await;
    let url = format!("amqp://guest:canary-1234@127.0.0.1:{}/", broker.port());
    let arguments = ["--queue", "orders", "--admin", "off", "--log", "trace,lapin=off"];
    let sidecar = binary::start(&arguments, &[("KUBEDAEMON_BROKER", &url)]);
    let line = tokio::time::timeout(PATIENCE, sidecar.wait_for_line("ACCESS_REFUSED"))
        .await
        .unwrap();
    assert!(
        line.contains("check user, password, vhost and permissions"),
        "{line}"
    );
    assert_eq!(sidecar.matching("canary").len(), 0, "{:#?}", sidecar.lines());
}
