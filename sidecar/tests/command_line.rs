//! The command line: every wrong value gets one sentence and exit code 2, and no password is ever shown.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use contract::settings::{Component, Kind, SETTINGS, Setting, used_by};
use rustix::process::Signal;
use support::{PATIENCE, binary};

/// A value that no setting of its kind takes.
fn wrong(setting: &Setting) -> &'static str {
    match setting.kind {
        Kind::Broker => "http://127.0.0.1",
        Kind::Vhost => "a\tb",
        Kind::Queue | Kind::PlainQueue => "amq.orders",
        Kind::Path => "message",
        Kind::Whole { .. } => "many",
        Kind::Duration { .. } => "soon",
        Kind::DurationRange { .. } => "5s..1s",
    }
}

/// Runs the binary with this, and asserts that it refuses with one sentence, which has all of these in it.
async fn refused(arguments: &[&str], environment: &[(&str, &str)], parts: &[&str]) {
    let ended = binary::run(arguments, environment).await;
    assert_eq!(ended.code, Some(2), "{arguments:?} {environment:?}: {ended:?}");
    assert_eq!(
        ended.stderr.lines().count(),
        1,
        "{arguments:?} {environment:?}: {ended:?}"
    );
    assert_eq!(ended.stdout, "", "{ended:?}");
    for part in parts {
        assert!(ended.stderr.contains(part), "no {part:?} in {ended:?}");
    }
}

/// The arguments and the variables that a run needs besides `name`.
fn besides(name: &str) -> &'static [&'static str] {
    if name == "queue" {
        &[]
    } else {
        &["--queue", "orders"]
    }
}

#[tokio::test]
async fn every_wrong_flag_is_refused_with_one_sentence() {
    for setting in used_by(Component::Sidecar) {
        let (flag, value) = (setting.flag(), wrong(setting));
        let arguments = [besides(setting.name), &[&flag, value]].concat();
        let shown = format!("{flag} is {value:?}, which ");
        refused(
            &arguments,
            &[],
            &[&shown, &format!(": write {}", setting.accepted())],
        )
        .await;
    }
}

#[tokio::test]
async fn every_wrong_variable_is_refused_with_one_sentence() {
    for setting in SETTINGS {
        let (variable, value) = (setting.env(), wrong(setting));
        let shown = format!("{variable} is {value:?}, which ");
        let accepted = format!(": write {}", setting.accepted());
        refused(besides(setting.name), &[(&variable, value)], &[&shown, &accepted]).await;
    }
}

#[tokio::test]
async fn what_only_the_process_has_is_refused_with_one_sentence_too() {
    for (name, value, parts) in [
        (
            "target",
            "127.0.0.1:8080",
            &["which is no HTTP address of a worker", "http://127.0.0.1:8080"][..],
        ),
        (
            "admin",
            "9464",
            &["which is no address to listen on", "127.0.0.1:9464", "off"],
        ),
        ("grace", "30", &["which is no duration", "30s"]),
        ("log-format", "xml", &["which is no log format", "text or json"]),
        (
            "log",
            "side car=loud",
            &["is not understood", "sidecar=debug,info"],
        ),
    ] {
        let (flag, variable) = (
            format!("--{name}"),
            format!("KUBEDAEMON_{}", name.to_uppercase().replace('-', "_")),
        );
        let quoted = format!("{value:?}");
        let (named, parts) = (
            |name| {
                if name == "--log" || name == "KUBEDAEMON_LOG" {
                    "log filter"
                } else {
                    name
                }
            },
            parts,
        );
        let with_flag = [&[named(&flag), quoted.as_str()], parts].concat();
        refused(&["--queue", "orders", &flag, value], &[], &with_flag).await;
        let with_variable = [&[named(&variable), quoted.as_str()], parts].concat();
        refused(&["--queue", "orders"], &[(&variable, value)], &with_variable).await;
    }
}

#[tokio::test]
async fn a_missing_queue_and_everything_else_that_is_wrong_are_said_at_once() {
    refused(&[], &[], &["--queue is missing: write the name of the queue"]).await;
    let ended = binary::run(
        &["--timeout", "soon", "--admin", "x"],
        &[("KUBEDAEMON_CONCURRENCY", "0"), ("KUBEDAEMON_QUEUE", "orders")],
    )
    .await;
    assert_eq!(
        (ended.code, ended.stderr.lines().count()),
        (Some(2), 3),
        "{ended:?}"
    );
}

#[tokio::test]
async fn an_unknown_flag_and_an_unknown_variable_get_the_nearest_name() {
    let ended = binary::run(&["--queue", "orders", "--max-atempts", "3"], &[]).await;
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.stderr.contains("'--max-atempts'") && ended.stderr.contains("'--max-attempts'"),
        "{ended:?}"
    );
    let unknown = [
        ("KUBEDAEMON_MAX_ATEMPTS", "3"),
        ("KUBEDAEMON_BROKER", "amqp://127.0.0.1:1"),
    ];
    let sidecar = binary::start(&["--queue", "orders", "--admin", "off"], &unknown);
    let line = sidecar.wait_for_line("WARN").await;
    assert!(
        line.contains("KUBEDAEMON_MAX_ATEMPTS") && line.contains("KUBEDAEMON_MAX_ATTEMPTS"),
        "{line}"
    );
    sidecar.wait_for_line("broker cannot be used").await;
}

#[tokio::test]
async fn help_lists_every_setting() {
    let ended = binary::run(&["--help"], &[]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for setting in used_by(Component::Sidecar) {
        for part in [setting.flag(), setting.env(), setting.accepted()] {
            assert!(ended.stdout.contains(&part), "no {part:?} in {}", ended.stdout);
        }
    }
    for part in ["--target", "--admin", "--grace", "--log", "--log-format", "drain"] {
        assert!(ended.stdout.contains(part), "no {part:?} in {}", ended.stdout);
    }
    for variable in sidecar::config::VARIABLES {
        assert!(
            ended.stdout.contains(variable),
            "no {variable:?} in {}",
            ended.stdout
        );
    }
}

#[tokio::test]
async fn an_admin_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let arguments = ["--queue", "orders", "--admin", &address];
    let ended = binary::run(&arguments, &[]).await;
    assert_ne!(ended.code, Some(0), "{ended:?}");
    let sentence = format!("admin address {address} cannot be bound: ");
    assert!(
        ended.stderr.lines().count() == 1 && ended.stderr.starts_with(&sentence),
        "{ended:?}"
    );
}

#[tokio::test]
async fn no_output_has_a_password_in_it() {
    let canary = "canary-1234";
    let right = format!("amqp://guest:{canary}@127.0.0.1:1/");
    for (arguments, environment) in [
        (
            &["--broker", &right, "--queue", "orders", "--log", "trace"][..],
            &[][..],
        ),
        (
            &["--queue", "orders", "--log-format", "json"],
            &[("KUBEDAEMON_BROKER", right.as_str())],
        ),
    ] {
        let arguments = [arguments, &["--admin", "off"]].concat();
        let sidecar = binary::start(&arguments, environment);
        tokio::time::timeout(PATIENCE, sidecar.wait_for_line("broker cannot be used"))
            .await
            .unwrap();
        sidecar.signal(Signal::TERM);
        assert_eq!(sidecar.wait().await.code(), Some(0));
        assert_eq!(sidecar.matching(canary).len(), 0, "{:#?}", sidecar.lines());
    }
    for wrong in [
        format!("amqp://guest:{canary}@:99999/"),
        format!("http://guest:{canary}@host"),
        format!("amqp://guest:{canary}"),
        format!("amqp://guest:{canary}@host/a/b?x=1"),
        format!("guest:{canary}@host"),
    ] {
        let ended = binary::run(&["--queue", "orders", "--broker", &wrong], &[]).await;
        assert_eq!(ended.code, Some(2));
        assert!(!ended.stderr.contains(canary), "{ended:?}");
    }
}
