//! The demo tells its story to the end.

use std::process::Command;
use testkit::broker;

#[tokio::test]
async fn the_demo_ends_with_its_last_line() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.env("AMQP_URL", broker().await.url());
    let (output, said) = suite::programs::run(command).await;
    assert!(output.status.success(), "{said}");
    let last = said.lines().next_back().unwrap();
    let fields: Vec<(&str, &str)> = last
        .strip_prefix("demo: ")
        .unwrap()
        .split(' ')
        .filter_map(|field| field.split_once('='))
        .collect();
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        [
            "published",
            "settled",
            "dead",
            "lost",
            "duplicates",
            "replicas",
            "wake_ms"
        ],
        "{last}"
    );
    let value = |name: &str| fields.iter().find(|(known, _)| *known == name).unwrap().1;
    assert_eq!(
        (value("settled"), value("lost"), value("dead")),
        (value("published"), "0", "1"),
        "{last}"
    );
    assert!(
        value("replicas").starts_with("0>") && value("replicas").ends_with(">0"),
        "{last}"
    );
    testkit::say(last);
}
