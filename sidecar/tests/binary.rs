//! The binary as a process: its command line, its signals, its exit codes, `sidecar drain`.

mod support;

use contract::settings::{Component, Kind, SETTINGS, Setting, used_by};
use lapin::BasicProperties;
use rustix::process::Signal;
use support::{PATIENCE, binary};
use testkit::http::post;
use testkit::process::Process;
use testkit::unique;
use testkit::worker::{Answer, Gate, Worker};

/// A value that no setting of its kind takes.
fn wrong(setting: &Setting) -> &'static str {
    match setting.kind {
        Kind::Broker => "http://127.0.0.1",
        Kind::Vhost => "a\tb",
        Kind::Queue | Kind::DeadLetterQueue => "amq.orders",
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
    refused(
        &["drain", "--admin", "off"],
        &[],
        &["--admin is \"off\", which leaves nobody to ask"],
    )
    .await;
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
