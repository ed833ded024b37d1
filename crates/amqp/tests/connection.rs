//! Connections against a real RabbitMQ: what can go wrong with one, and how its end is noticed.
#![allow(clippy::unwrap_used, reason = "tests")]

use amqp::{Error, connect};
use contract::broker::BrokerUrl;
use std::time::Duration;
use testkit::wait::until;
use testkit::{Broker, unique};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

const PATIENCE: Duration = Duration::from_secs(30);

async fn refused(address: &str) -> Error {
    let address: BrokerUrl = address.parse().unwrap();
    connect(&address, "test").await.unwrap_err()
}

#[tokio::test]
async fn each_kind_of_failure_has_its_word_and_its_sentence() {
    let broker = testkit::broker().await;
    let port = broker.port();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // Nobody listens on port 1.
    let absent = refused("amqp://127.0.0.1:1").await;
    assert_eq!((absent.kind(), absent.is_transient()), ("unreachable", true));
    assert!(
        absent.to_string().starts_with("the broker cannot be reached: "),
        "{absent}"
    );
    let unknown = refused("amqp://no-such-host.invalid").await;
    assert_eq!(unknown.kind(), "unreachable", "{unknown}");
    let password = refused(&format!("amqp://guest:canary@127.0.0.1:{port}/")).await;
    assert_eq!(
        (password.kind(), password.is_transient()),
        ("access_refused", false)
    );
    assert!(!password.to_string().contains("canary"), "{password}");
    let vhost = refused(&format!("amqp://127.0.0.1:{port}/no-such-vhost")).await;
    assert_eq!(vhost.kind(), "access_refused", "{vhost}");
    assert!(vhost.to_string().contains("no-such-vhost"), "{vhost}");
    let untrusted = refused(broker.url_tls()).await;
    assert_eq!(
        (untrusted.kind(), untrusted.is_transient()),
        ("tls", false),
        "{untrusted}"
    );

    tokio::time::pause();
    let slow = refused(&format!("amqp://{}", silent.local_addr().unwrap())).await;
    assert_eq!((slow.kind(), slow.is_transient()), ("timed_out", true));
    assert_eq!(
        slow.to_string(),
        "the broker did not answer the connection within 10 s"
    );
}

#[tokio::test]
async fn the_brokers_tools_show_its_name() {
    let broker = testkit::broker().await;
    let name = unique("shop/orders-7d9f");
    let connection = connect(&broker.url().parse().unwrap(), &name).await.unwrap();
    until("it is listed", PATIENCE, || async {
        let command = ["list_connections", "client_properties", "timeout", "frame_max"];
        broker.ctl(&command).await.unwrap().contains(&name)
    })
    .await;
    connection.close().await;
}

#[tokio::test]
async fn the_end_of_a_channel_is_not_the_end_of_the_connection() {
    let broker = testkit::broker().await;
    let connection = connect(&broker.url().parse().unwrap(), "test").await.unwrap();
    for _ in 0..3 {
        let channel = connection.create_channel().await.unwrap();
        let missing = unique("missing");
        let passive = lapin::options::QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let declared = channel
            .queue_declare(
                missing.as_str().into(),
                passive,
                lapin::types::FieldTable::default(),
            )
            .await;
        let error = Error::from(declared.unwrap_err());
        assert_eq!(error.kind(), "not_found", "{error}");
        assert!(error.to_string().contains(&missing), "{error}");
    }
    let lost = tokio::time::timeout(Duration::from_millis(100), connection.lost()).await;
    assert!(lost.is_err() && connection.is_open(), "{lost:?}");
    connection.close().await;
}

#[tokio::test]
async fn a_loss_is_noticed_with_its_cause_by_all_who_wait() {
    let broker = Broker::start().await;
    let connection = connect(&broker.url().parse().unwrap(), "test").await.unwrap();
    assert!(connection.is_open());
    let (first, second, ()) = tokio::time::timeout(PATIENCE, async {
        tokio::join!(
            connection.lost(),
            connection.lost(),
            broker.close_all_connections()
        )
    })
    .await
    .unwrap();
    assert!(first.contains("CONNECTION_FORCED") && first == second, "{first}");
    assert!(!connection.is_open());
    assert_eq!(connection.lost().await, first, "also later");
    assert_eq!(
        connection.create_channel().await.unwrap_err().kind(),
        "unreachable"
    );
    connection.close().await;

    let connection = connect(&broker.url().parse().unwrap(), "test").await.unwrap();
    broker.kill().await;
    let cause = tokio::time::timeout(PATIENCE, connection.lost()).await.unwrap();
    assert!(cause.starts_with("the broker cannot be reached: "), "{cause}");
    assert!(!connection.is_open());
}

#[tokio::test]
async fn an_alarm_blocks_and_unblocks_only_the_connection_that_publishes() {
    let broker = Broker::start().await;
    let address: BrokerUrl = broker.url().parse().unwrap();
    let idle = connect(&address, "idle").await.unwrap();
    let publishing = std::sync::Arc::new(connect(&address, "publishing").await.unwrap());
    let publisher = amqp::Publisher::open(publishing.clone()).await.unwrap();
    let queue = unique("orders");
    broker.amqp().await.declare_quorum(&queue).await;
    broker
        .ctl(&["set_vm_memory_high_watermark", "0.00001"])
        .await
        .unwrap();
    let publish = publisher.publish_through_alarms("", &queue, lapin::BasicProperties::default(), b"m");
    tokio::pin!(publish);
    let reason = tokio::select! {
        published = &mut publish => panic!("{published:?}"),
        reason = publishing.until_blocked() => reason,
    };
    assert_eq!(reason, "low on memory");
    assert_eq!((publishing.blocked(), idle.blocked()), (Some(reason), None));
    broker
        .ctl(&["set_vm_memory_high_watermark", "absolute", "2GB"])
        .await
        .unwrap();
    tokio::time::timeout(PATIENCE, publish).await.unwrap().unwrap();
    assert_eq!(publishing.blocked(), None);
    assert_eq!(broker.amqp().await.get_all(&queue).await.len(), 1);
}

/// A broker that accepts and then says nothing, as one does that hangs.
async fn silent() -> (TcpListener, BrokerUrl) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("amqp://{}", listener.local_addr().unwrap());
    (listener, address.parse().unwrap())
}

/// Reads until the other side closes, and returns what it said.
async fn heard(mut socket: TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    // A reset is an end too.
    let _end = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut heard))
        .await
        .unwrap();
    heard
}

#[tokio::test]
async fn an_attempt_that_is_given_up_leaves_nothing_behind() {
    let (listener, address) = silent().await;
    for _ in 0..10 {
        let socket = {
            let connecting = connect(&address, "test");
            tokio::pin!(connecting);
            // Given up some time after it was accepted, however long that took.
            let socket = tokio::select! {
                accepted = listener.accept() => accepted.unwrap().0,
                connected = &mut connecting => panic!("{connected:?}"),
            };
            tokio::time::timeout(Duration::from_millis(50), connecting)
                .await
                .unwrap_err();
            socket
        };
        assert!(b"AMQP\0\0\x09\x01".starts_with(&heard(socket).await[..]));
    }
    until("lapin's threads have ended", PATIENCE, || async {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.map(|task| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default());
        // Other tests of this process have connections of their own.
        names.filter(|name| name.starts_with("lapin")).count() < 10
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_is_dropped_is_closed_for_the_broker_too() {
    let broker = testkit::broker().await;
    let name = unique("dropped");
    let listed = async || {
        let command = ["list_connections", "client_properties"];
        broker.ctl(&command).await.unwrap().contains(&name)
    };
    let connection = connect(&broker.url().parse().unwrap(), &name).await.unwrap();
    until("it is listed", PATIENCE, &listed).await;
    drop(connection);
    until("it is gone", PATIENCE, async || !listed().await).await;
}
