//! Workers with a queue, against a real broker.

use crate::support::{Folder, Kubedaemon, binary};
use rustix::process::Signal;
use std::io::Write;
use std::process::{Output, Stdio};
use testkit::wait::{PATIENCE, until};
use testkit::{Amqp, broker, http, unique};

/// A broker connection, a queue name that nobody has, and `--broker`.
async fn bench() -> (Amqp, String, String) {
    let broker = broker().await;
    (
        broker.amqp().await,
        unique("local"),
        format!("--broker={}", broker.url()),
    )
}

/// `kubedaemon run` with that queue, once the queue is there.
async fn run(queue: &str, broker: &str, flags: &[&str]) -> Kubedaemon {
    let kubedaemon = Kubedaemon::run(&[&["--queue", queue, broker], flags].concat()).await;
    kubedaemon.wait_for_queue().await;
    kubedaemon
}

async fn publish(amqp: &Amqp, queue: &str, bodies: &[&str]) {
    for body in bodies {
        amqp.publish(queue, body, lapin::BasicProperties::default()).await;
    }
}

async fn until_empty(amqp: &Amqp, queue: &str) {
    until("the queue is empty and has no consumer", PATIENCE, || async {
        amqp.depth(queue).await == Some((0, 0))
    })
    .await;
}

#[tokio::test]
async fn from_zero_to_three_and_back_to_zero() {
    let (amqp, queue, broker) = bench().await;
    let flags = [
        "--messages-per-replica",
        "1",
        "--max-replicas",
        "3",
        "--cool-down",
        "300ms",
        "--name",
        "orders",
    ];
    let kubedaemon = run(&queue, &broker, &flags).await;
    publish(
        &amqp,
        &queue,
        &[
            "sleep 0.5 a",
            "sleep 0.5 b",
            "sleep 0.5 c",
            "sleep 0.5 d",
            "poison",
        ],
    )
    .await;
    kubedaemon.process.wait_for_line("replicas=3").await;
    kubedaemon.process.wait_for_line("done=4 retried=0 dead=1").await;
    kubedaemon
        .wait_for_status("back at zero", |worker| {
            worker["replicas"] == serde_json::json!([])
        })
        .await;
    kubedaemon.assert_nothing_is_left();
    until_empty(&amqp, &queue).await;
    assert_eq!(amqp.get_all(&format!("{queue}.dead")).await.len(), 1);
    // And once more: the totals go on.
    publish(&amqp, &queue, &["hello"]).await;
    kubedaemon.process.wait_for_line("done=5 retried=0 dead=1").await;
    kubedaemon.process.signal(Signal::INT);
    assert_eq!(kubedaemon.process.wait().await.code(), Some(0));
    kubedaemon.wait_for_last_status("done=5 retried=0 dead=1").await;
    kubedaemon.assert_nothing_is_left();
}

#[tokio::test]
async fn calls_and_asynchronous_calls_reach_the_worker_of_a_queue() {
    let (_amqp, queue, broker) = bench().await;
    let flags = ["--port", "0", "--name", "orders", "--path", "/in"];
    let kubedaemon = run(&queue, &broker, &flags).await;
    let url = kubedaemon.url();
    let answer = http::post(&format!("{url}/async/orders"), &[], "later")
        .await
        .unwrap();
    assert_eq!(answer.status.as_u16(), 202, "{}", answer.text());
    kubedaemon
        .process
        .wait_for_line("orders-1 | took later path /in attempt 1")
        .await;
    let answer = http::post(&format!("{url}/now"), &[], "at once").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "at once"));
    kubedaemon
        .process
        .wait_for_line("orders-1 | took at once path /now attempt None")
        .await;
    kubedaemon.process.signal(Signal::INT);
    assert_eq!(kubedaemon.process.wait().await.code(), Some(0));
}

#[tokio::test]
async fn the_first_ctrl_c_lets_messages_finish_and_takes_no_new_ones() {
    let (amqp, queue, broker) = bench().await;
    let kubedaemon = run(&queue, &broker, &["--max-replicas", "1"]).await;
    publish(&amqp, &queue, &["sleep 1 first"]).await;
    kubedaemon.process.wait_for_line("took sleep 1 first").await;
    publish(&amqp, &queue, &["second"]).await;
    kubedaemon.process.signal(Signal::INT);
    assert_eq!(kubedaemon.process.wait().await.code(), Some(0));
    kubedaemon.process.wait_for_line("done sleep 1 first").await;
    kubedaemon.assert_nothing_is_left();
    kubedaemon.wait_for_last_status("done=1 retried=0 dead=0").await;
    until("the second is there", PATIENCE, || async {
        amqp.depth(&queue).await == Some((1, 0))
    })
    .await;
    assert_eq!(amqp.get(&queue).await.unwrap().text(), "second");
}

#[tokio::test]
async fn the_second_ctrl_c_gives_messages_back() {
    let (amqp, queue, broker) = bench().await;
    let kubedaemon = run(&queue, &broker, &[]).await;
    publish(&amqp, &queue, &["sleep 3600"]).await;
    kubedaemon.process.wait_for_line("took sleep").await;
    kubedaemon.process.signal(Signal::INT);
    kubedaemon.process.wait_for_line("draining: ").await;
    kubedaemon.process.signal(Signal::INT);
    assert_eq!(kubedaemon.process.wait().await.code(), Some(130));
    kubedaemon.assert_nothing_is_left();
    until("the message is there again", PATIENCE, || async {
        amqp.depth(&queue).await == Some((1, 0))
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_cannot_start_burns_no_messages() {
    let (amqp, queue, broker) = bench().await;
    let kubedaemon =
        Kubedaemon::run_command(&["--queue", &queue, &broker], &["sh", "-c", "echo oh no; exit 3"]).await;
    kubedaemon.wait_for_queue().await;
    publish(&amqp, &queue, &["a", "b"]).await;
    until("started 4 times", PATIENCE, || async {
        kubedaemon.process.matching("| oh no").len() >= 4
    })
    .await;
    kubedaemon.process.wait_for_line("state=crash-loop").await;
    kubedaemon.process.signal(Signal::INT);
    assert_eq!(kubedaemon.process.wait().await.code(), Some(0));
    until("both are there", PATIENCE, || async {
        amqp.depth(&queue).await == Some((2, 0))
    })
    .await;
    for message in amqp.get_all(&queue).await {
        assert_eq!(message.header("x-kubedaemon-attempts"), None);
    }
}

#[tokio::test]
async fn a_message_that_kills_its_worker_ends_in_the_dead_letter_queue() {
    let (amqp, queue, broker) = bench().await;
    let flags = [
        "--max-attempts",
        "2",
        "--retry-backoff",
        "50ms",
        "--max-replicas",
        "1",
    ];
    let kubedaemon = run(&queue, &broker, &flags).await;
    publish(&amqp, &queue, &["crash", "hello", "world"]).await;
    kubedaemon
        .process
        .wait_for_line("ended by itself: it exited with status 9")
        .await;
    kubedaemon
        .wait_for_status("settled", |worker| worker["done"] == 2 && worker["dead"] == 1)
        .await;
    let dead = amqp.get_all(&format!("{queue}.dead")).await;
    assert_eq!(
        dead.iter().map(testkit::Message::text).collect::<Vec<_>>(),
        ["crash"]
    );
    kubedaemon.process.signal(Signal::INT);
    assert_eq!(kubedaemon.process.wait().await.code(), Some(0));
    kubedaemon.assert_nothing_is_left();
}

#[tokio::test]
async fn a_broker_that_is_away_is_told_once_and_calls_are_answered_all_the_same() {
    // Nobody listens on port 1.
    let flags = ["--queue", "orders", "--broker=amqp://127.0.0.1:1", "--port", "0"];
    let kubedaemon = Kubedaemon::run(&flags).await;
    let answer = http::post(&kubedaemon.url(), &[], "hello").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "hello"));
    kubedaemon.process.wait_for_line("127.0.0.1:1").await;
    kubedaemon.process.signal(Signal::INT);
    assert_eq!(kubedaemon.process.wait().await.code(), Some(0));
    kubedaemon.assert_nothing_is_left();
}

fn publish_command(arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = binary()
        .arg("publish")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Files win over standard input, which is then not read.
    let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[tokio::test]
async fn publish_prints_the_ids_of_what_the_broker_has() {
    let (amqp, queue, broker) = bench().await;
    amqp.declare_quorum(&queue).await;
    let folder = Folder::new();
    let (first, second) = (folder.file("1.json", "{\"a\": 1}"), folder.file("2.json", ""));
    let base = ["--queue", &queue, &broker];
    let mut expected = Vec::new();
    for (flags, input, bodies) in [
        (
            &["--file", &first, &second, "--content-type", "application/json"][..],
            "",
            &["{\"a\": 1}", ""][..],
        ),
        (&["--file", &second, "--file", &first], "", &["", "{\"a\": 1}"]),
        (&[], "two\nlines\n", &["two\nlines\n"]),
        (&["--lines"], "three\n\nlines\n", &["three", "", "lines"]),
    ] {
        let (code, ids, said) = publish_command(&[&base[..], flags].concat(), input);
        assert_eq!((code, said.as_str()), (Some(0), ""));
        let ids: Vec<_> = ids.lines().map(str::to_owned).collect();
        assert_eq!(ids.len(), bodies.len());
        expected.extend(bodies.iter().map(ToString::to_string).zip(ids));
    }
    let messages = amqp.get_all(&queue).await;
    let id = |message: &testkit::Message| message.properties.message_id().clone().unwrap().to_string();
    let found: Vec<_> = messages
        .iter()
        .map(|message| (message.text(), id(message)))
        .collect();
    assert_eq!(found, expected);
    let properties = &messages[0].properties;
    assert_eq!(
        properties.content_type().as_ref().unwrap().as_str(),
        "application/json"
    );
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert_eq!(messages[4].properties.content_type(), &None);
}

#[tokio::test]
async fn publish_says_what_is_wrong() {
    let (_amqp, queue, broker) = bench().await;
    let (code, ids, said) = publish_command(&["--queue", &queue, &broker], "hello");
    assert_eq!(
        (code, ids.as_str(), said.lines().count()),
        (Some(1), "", 1),
        "{said}"
    );
    assert!(said.contains(&queue) && said.contains("kubedaemon run"), "{said}");
    let (code, _, said) = publish_command(&["--queue", &queue, "--broker=amqp://127.0.0.1:1"], "hello");
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("127.0.0.1:1"), "{said}");
    let (code, _, said) = publish_command(&["--queue", &queue, &broker, "--file", "/no/such/file"], "");
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("/no/such/file cannot be read"), "{said}");
}
