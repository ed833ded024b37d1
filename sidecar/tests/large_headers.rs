//! Messages whose headers are larger than the frames that a connection begins with.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use lapin::BasicProperties;
use support::Scene;
use testkit::worker::Received;
use testkit::{table, text};

/// Publishers may send up to 128 KiB of them, and nobody else can take the message out of their way.
#[tokio::test]
async fn headers_of_100_kb_end_one_connection_and_are_taken_and_copied_by_the_next() {
    let second_time = |request: &Received| {
        if request.header("x-delivery-attempt") == "1" {
            500
        } else {
            200
        }
    };
    let scene = Scene::new(second_time).await;
    let large = BasicProperties::default().with_headers(table([("large", text(&"x".repeat(100_000)))]));
    scene.amqp.publish(&scene.queue, "m", large).await;
    scene
        .amqp
        .publish(&scene.queue, "behind it", BasicProperties::default())
        .await;
    scene.until_settled(2).await;
    let attempts: Vec<String> = scene
        .worker
        .requests()
        .iter()
        .filter(|request| request.text() == "m")
        .map(|request| request.header("x-delivery-attempt").to_owned())
        .collect();
    assert_eq!(attempts, ["1", "2"]);
    scene.end().await;
}
