//! The binary as a process: its signals, its exit codes, `sidecar drain`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use lapin::BasicProperties;
use rustix::process::Signal;
use support::binary;
use testkit::http::post;
use testkit::process::Process;
use testkit::unique;
use testkit::worker::{Answer, Gate, Worker};

/// A running sidecar with one message in flight whose answer waits for a gate.
struct Busy {
    sidecar: Process,
    admin: String,
    worker: Worker,
    gate: Gate,
    queue: String,
}

async fn busy() -> Busy {
    let broker = testkit::broker().await;
    let (queue, amqp, gate) = (unique("orders"), broker.amqp().await, Gate::shut());
    amqp.declare_quorum(&queue).await;
    amqp.publish(&queue, "m", BasicProperties::default()).await;
    let answer = Answer::ok().when(&gate);
    let worker = Worker::start(move |_| answer.clone()).await;
    let target = worker.url();
    let arguments = ["--queue", &queue, "--target", &target, "--admin", "127.0.0.1:0"];
    let sidecar = binary::start(&arguments, &[("KUBEDAEMON_BROKER", broker.url())]);
    worker.wait_for(1).await;
    Busy {
        admin: binary::admin(&sidecar).await,
        sidecar,
        worker,
        gate,
        queue,
    }
}

#[tokio::test]
async fn sigterm_finishes_what_is_in_flight_and_exits_0() {
    let busy = busy().await;
    busy.sidecar.signal(Signal::TERM);
    binary::until_status(&busy.sidecar, "it drains", |status| status["state"] == "draining").await;
    assert_eq!(busy.worker.in_flight(), 1);
    busy.gate.open();
    assert_eq!(busy.sidecar.wait().await.code(), Some(0));
    support::until_ready(&testkit::broker().await.amqp().await, &busy.queue, 0).await;
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_the_message_goes_back() {
    let busy = busy().await;
    busy.sidecar.signal(Signal::INT);
    binary::until_status(&busy.sidecar, "it drains", |status| status["state"] == "draining").await;
    busy.sidecar.signal(Signal::TERM);
    assert_eq!(busy.sidecar.wait().await.code(), Some(1));
    busy.sidecar.wait_for_line("forced to end").await;
    support::until_ready(&testkit::broker().await.amqp().await, &busy.queue, 1).await;
}

#[tokio::test]
async fn drain_waits_until_nothing_is_in_flight_and_exits_0() {
    let busy = busy().await;
    let address = busy.admin.trim_start_matches("http://");
    // As the hook of a container, which has the sidecar's own environment.
    let drain = binary::start(&["drain"], &[("KUBEDAEMON_ADMIN", address)]);
    binary::until_status(&busy.sidecar, "it drains", |status| status["state"] == "draining").await;
    assert_eq!(drain.ended(), None, "a message is in flight");
    let hasty = binary::run(&["drain", "--admin", address, "--grace", "50ms"], &[]).await;
    assert_eq!(hasty.code, Some(1), "{hasty:?}");
    assert!(hasty.stderr.contains("still has messages in flight"), "{hasty:?}");
    busy.gate.open();
    assert_eq!(drain.wait().await.code(), Some(0));
    assert_eq!(drain.lines(), Vec::<String>::new());
    assert_eq!(busy.sidecar.ended(), None, "it drained and still runs");
    assert!(
        post(&format!("{}/resume", busy.admin), &[], "")
            .await
            .unwrap()
            .status
            .is_success()
    );
    busy.sidecar.signal(Signal::TERM);
    assert_eq!(busy.sidecar.wait().await.code(), Some(0));
}

#[tokio::test]
async fn drain_says_when_nobody_listens() {
    let ended = binary::run(&["drain", "--admin", "127.0.0.1:1"], &[]).await;
    assert_eq!(
        (ended.code, ended.stderr.lines().count()),
        (Some(1), 1),
        "{ended:?}"
    );
    let sentence = "the sidecar at 127.0.0.1:1 cannot be asked to drain: ";
    assert!(ended.stderr.starts_with(sentence), "{ended:?}");
    let ended = binary::run(&["drain", "--admin", "off"], &[]).await;
    assert_eq!(ended.code, Some(2));
    assert!(
        ended
            .stderr
            .starts_with("--admin is \"off\", which leaves nobody to ask"),
        "{ended:?}"
    );
}
