//! The test broker itself: brokers do not meet, data survives restarts, nothing is left behind.
#![allow(clippy::unwrap_used, reason = "tests")]

use lapin::BasicProperties;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use testkit::process::Process;
use testkit::wait::until;
use testkit::{Amqp, Broker, table, text, unique};

const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn two_brokers_run_at_once_and_know_nothing_of_each_other() {
    let (one, two) = tokio::join!(Broker::start(), Broker::start());
    assert_ne!(one.port(), two.port());
    let queue = unique("orders");
    let (first, second) = (one.amqp().await, two.amqp().await);
    first.declare_quorum(&queue).await;
    first
        .publish(&queue, "only here", BasicProperties::default())
        .await;
    assert_eq!(second.depth(&queue).await, None);
    until("the message is counted", PATIENCE, || async {
        first.depth(&queue).await == Some((1, 0))
    })
    .await;
    assert_eq!(first.get(&queue).await.unwrap().text(), "only here");
}

#[tokio::test]
async fn confirmed_messages_survive_a_stop_and_a_kill() {
    let broker = Broker::start().await;
    let queue = unique("orders");
    let amqp = broker.amqp().await;
    amqp.declare_quorum(&queue).await;
    let messages = (0..1000).map(|n: u32| (n.to_string(), BasicProperties::default()));
    amqp.publish_many(&queue, messages).await;

    broker.stop().await;
    assert_eq!(broker.pid(), None);
    broker.start_again().await;
    broker.kill().await;
    broker.start_again().await;

    let amqp = broker.amqp().await;
    // The queue's leader is elected a moment after the port opens.
    until("the queue is back", PATIENCE, || async {
        amqp.depth(&queue).await == Some((1000, 0))
    })
    .await;
    let bodies: Vec<String> = amqp
        .get_all(&queue)
        .await
        .iter()
        .map(testkit::Message::text)
        .collect();
    assert_eq!(bodies, (0..1000).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn closes_connections_from_its_side() {
    let broker = Broker::start().await;
    let amqp = broker.amqp().await;
    let channel = amqp.channel().await;
    broker.close_all_connections().await;
    until("the client notices", PATIENCE, || async {
        !channel.status().connected()
    })
    .await;
    Amqp::connect(broker.url()).await;
}

#[tokio::test]
async fn has_users_with_awkward_names_and_a_configuration_of_the_tests_choice() {
    let broker = Broker::start_with("consumer_timeout = 12345").await;
    let timeout = broker
        .ctl(&["eval", "application:get_env(rabbit, consumer_timeout)."])
        .await
        .unwrap();
    assert_eq!(timeout.trim(), "{ok,12345}");
    let failed = broker.ctl(&["no_such_command"]).await.unwrap_err();
    assert!(failed.contains("no_such_command"), "{failed}");

    let url = broker.add_user("o'b@b", "p@ss:w/rd", "team/a").await;
    assert!(
        url.starts_with("amqp://o%27b%40b:p%40ss%3Aw%2Frd@127.0.0.1:"),
        "{url}"
    );
    let amqp = Amqp::connect(&url).await;
    let queue = unique("orders");
    amqp.declare(&queue, table([("x-queue-type", text("classic"))]))
        .await;
    assert_eq!(
        broker.amqp().await.depth(&queue).await,
        None,
        "it is in the other vhost"
    );
    assert!(fs::read_to_string(broker.log_path()).unwrap().contains("o'b@b"));
}

#[tokio::test]
async fn offers_tls_with_a_certificate_of_its_own_authority() {
    let broker = Broker::start().await;
    let ca = fs::read_to_string(broker.ca_path()).unwrap();
    let tls = lapin::tcp::OwnedTLSConfig {
        identity: None,
        cert_chain: Some(ca),
    };
    let connect = |tls| {
        let runtime = lapin::runtime::default_runtime().unwrap();
        lapin::Connection::connect_with_config(
            broker.url_tls(),
            lapin::ConnectionProperties::default(),
            tls,
            runtime,
        )
    };
    let connection = connect(tls).await.unwrap();
    connection.create_channel().await.unwrap();
    assert!(
        connect(lapin::tcp::OwnedTLSConfig::default()).await.is_err(),
        "an unknown authority is not trusted"
    );
}

#[tokio::test]
async fn is_reached_over_another_address_by_a_user_with_a_password() {
    // Without a network the second address is loopback too, and only the listeners are tested.
    let ip = testkit::machine_ip().unwrap_or(Ipv4Addr::new(127, 0, 0, 2));
    let (one, all) = tokio::join!(Broker::start_on(ip), Broker::start_on(Ipv4Addr::UNSPECIFIED));
    for broker in [&one, &all] {
        let queue = unique("orders");
        let (near, far) = (broker.amqp().await, Amqp::connect(&broker.url_on(ip)).await);
        far.declare_quorum(&queue).await;
        near.publish(&queue, "m", BasicProperties::default()).await;
        assert_eq!(far.get(&queue).await.unwrap().text(), "m");
        let port = broker.port();
        for stranger in [
            format!("amqp://guest:guest@{ip}:{port}/%2f"),
            format!("amqp://kubedaemon:guess@{ip}:{port}/%2f"),
        ] {
            let connected = lapin::Connection::connect(&stranger, lapin::ConnectionProperties::default());
            assert!(connected.await.is_err(), "{stranger}");
        }
    }
    let elsewhere = std::net::TcpStream::connect((Ipv4Addr::new(127, 0, 0, 3), one.port()));
    assert!(elsewhere.is_err(), "it listens where it was not told to");
    one.stop().await;
    one.start_again().await;
    Amqp::connect(&one.url_on(ip)).await;
}

#[tokio::test]
#[should_panic(expected = "does not listen on 10.0.0.1")]
async fn has_no_address_where_it_does_not_listen() {
    testkit::broker().await.url_on(Ipv4Addr::new(10, 0, 0, 1));
}

#[tokio::test]
async fn nothing_is_left_behind_when_the_owner_is_killed() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_with-broker"));
    let show = "echo dir=$KUBEDAEMON_TEST_BROKER_DIR; while kill -0 $PPID 2>/dev/null; do sleep 0.1; done";
    command.args(["/bin/sh", "-c", show]);
    let owner = Process::start(command);
    let line = until("the broker runs", PATIENCE * 2, || async {
        owner.matching("dir=").pop()
    })
    .await;
    let dir = line.trim_start_matches("dir=").to_owned();
    assert!(Path::new(&dir).is_dir());
    let started = of_broker(&dir);
    for program in ["beam.smp", "epmd", "sh"] {
        assert!(
            started.iter().any(|(_, name)| name == program),
            "{program} is not among {started:?}"
        );
    }

    owner.signal(rustix::process::Signal::KILL);
    owner.wait().await;
    until("the broker is gone", PATIENCE, || async {
        of_broker(&dir).is_empty()
    })
    .await;
    until("the directory is gone", PATIENCE, || async {
        !Path::new(&dir).exists()
    })
    .await;
}

/// Running processes whose home is the run directory `dir`, with their names: all that a broker starts.
fn of_broker(dir: &str) -> Vec<(u32, String)> {
    let home = format!("HOME={dir}");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == home.as_bytes())
        {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push((pid, name.trim().to_owned()));
        }
    }
    found
}
