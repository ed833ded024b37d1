//! The admin port: probes, status, metrics, and who may pull the levers of intake.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use http::{Method, StatusCode};
use ops::admin::AdminRequest;
use sidecar::{App, State, admin, telemetry};
use std::collections::BTreeSet;
use support::{PATIENCE, Running, Scene, config};
use testkit::http::{get, post, request};
use testkit::unique;
use testkit::wait::until;
use testkit::worker::{Answer, Gate, Received, Worker};

fn url(sidecar: &Running, path: &str) -> String {
    format!("http://{}{path}", sidecar.admin.unwrap())
}

/// `/status` as a document.
async fn status(sidecar: &Running) -> serde_json::Value {
    let answer = get(&url(sidecar, "/status")).await.unwrap();
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (StatusCode::OK, "application/json")
    );
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn probes_and_status_tell_the_state() {
    let gate = Gate::shut();
    let answer = Answer::ok().when(&gate);
    let scene = Scene::new(move |_| answer.clone()).await;
    let ready = get(&url(&scene.sidecar, "/readyz")).await.unwrap();
    assert_eq!((ready.status, ready.text().trim()), (StatusCode::OK, "consuming"));
    let alive = get(&url(&scene.sidecar, "/healthz")).await.unwrap();
    assert_eq!((alive.status, alive.text().trim()), (StatusCode::OK, "ok"));
    let idle = status(&scene.sidecar).await;
    assert_eq!(idle["queue"], scene.queue);
    assert_eq!(
        (&idle["state"], &idle["in_flight"]),
        (&"consuming".into(), &0.into())
    );
    assert!(
        idle["idle_seconds"].is_number() && idle["broker_connected"] == true && idle["worker_up"] == true
    );

    scene.publish("m").await;
    scene.worker.wait_for(1).await;
    let busy = status(&scene.sidecar).await;
    assert!(busy["in_flight"] == 1 && busy["idle_seconds"].is_null());
    gate.open();
    scene.until_accepted(1).await;
    let done = status(&scene.sidecar).await;
    assert!(done["messages"]["accepted"] == 1 && done["service_time_seconds"].as_f64().unwrap() > 0.0);

    scene.worker.crash();
    scene.publish("m").await;
    scene.until_state(State::WaitingForWorker).await;
    let ready = get(&url(&scene.sidecar, "/readyz")).await.unwrap();
    assert_eq!(
        (ready.status, ready.text().trim()),
        (StatusCode::SERVICE_UNAVAILABLE, "waiting_for_worker")
    );
    scene.worker.start_again();
    scene.until_accepted(2).await;
    scene.end().await;
}

#[tokio::test]
async fn a_worker_is_not_made_unready_by_a_broker_that_is_away() {
    // Nobody listens on port 1.
    let sidecar = Running::start(config("amqp://127.0.0.1:1", "orders", 1)).await;
    let ready = get(&url(&sidecar, "/readyz")).await.unwrap();
    assert_eq!(
        (ready.status, ready.text().trim()),
        (StatusCode::OK, "connecting")
    );
    assert_eq!(status(&sidecar).await["broker_connected"], false);
    sidecar.stop().await;
}

#[tokio::test]
async fn drain_answers_at_once_or_when_nothing_is_in_flight_and_resume_takes_messages_again() {
    let gate = Gate::shut();
    let answer = Answer::ok().when(&gate);
    let scene = Scene::new(move |_| answer.clone()).await;
    scene.publish("m").await;
    scene.worker.wait_for(1).await;
    let drained = post(&url(&scene.sidecar, "/drain"), &[], "").await.unwrap();
    assert_eq!(drained.status, StatusCode::ACCEPTED);
    let document: serde_json::Value = serde_json::from_slice(&drained.body).unwrap();
    assert!(
        document["draining"] == true && document["in_flight"] == 1,
        "{document}"
    );

    let waiting = tokio::spawn({
        let url = url(&scene.sidecar, "/drain?wait");
        async move { post(&url, &[], "").await.unwrap() }
    });
    scene.until_state(State::Draining).await;
    let ready = get(&url(&scene.sidecar, "/readyz")).await.unwrap();
    assert_eq!(
        (ready.status, ready.text().trim()),
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    );
    assert!(!waiting.is_finished(), "a message is in flight");
    gate.open();
    let waited = waiting.await.unwrap();
    let document: serde_json::Value = serde_json::from_slice(&waited.body).unwrap();
    assert_eq!(
        (waited.status, &document["in_flight"]),
        (StatusCode::OK, &0.into())
    );

    scene.publish("m").await;
    let resumed = post(&url(&scene.sidecar, "/resume"), &[], "").await.unwrap();
    assert_eq!(resumed.status, StatusCode::OK);
    scene.until_accepted(2).await;
    scene.end().await;
}

#[tokio::test]
async fn the_metrics_are_those_of_the_reference() {
    ops::metrics::install();
    let broker = testkit::broker().await;
    let vhost = unique("team");
    let address = broker.add_user(&unique("sidecar"), "secret", &vhost).await;
    let worker = Worker::start(
        |request: &Received| match (request.text().as_str(), request.number) {
            ("bad", _) => 400,
            (_, 1) => 500,
            _ => 200,
        },
    )
    .await;
    let queue = unique("orders");
    let scene = Scene {
        sidecar: Running::start(config(&address, &queue, worker.port())).await,
        amqp: testkit::Amqp::connect(&address).await,
        queue,
        worker,
    };
    scene.until_state(State::Consuming).await;
    scene.publish("retried").await;
    scene.until_settled(1).await;
    scene.amqp.delete(&format!("{}.dead", scene.queue)).await;
    scene.publish("bad").await;
    scene.until_settled(2).await;
    let close = ["close_all_connections", "-p", &vhost, "closed by a test"];
    broker.ctl(&close).await.unwrap();
    let names = until("every metric is there", PATIENCE, || async {
        let page = get(&url(&scene.sidecar, "/metrics")).await.unwrap();
        assert_eq!(
            page.header("content-type"),
            "text/plain; version=0.0.4; charset=utf-8"
        );
        let page = page.text();
        let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let names: BTreeSet<_> = types
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect();
        for name in &names {
            assert!(
                page.contains(&format!("# HELP {name} ")),
                "{name} is not described"
            );
        }
        (names.len() >= telemetry::METRICS.len()).then_some(names)
    })
    .await;
    assert_eq!(names, telemetry::METRICS.map(str::to_owned).into());
    scene.sidecar.stop().await;
}

#[tokio::test]
async fn other_paths_and_methods_get_a_sentence() {
    let scene = Scene::new(|_| 200).await;
    for (method, path, status, sentence) in [
        (
            Method::GET,
            "/",
            404,
            "no such path; there is /healthz, /readyz, /status, /metrics, /drain and /resume",
        ),
        (
            Method::POST,
            "/stop",
            404,
            "no such path; there is /healthz, /readyz, /status, /metrics, /drain and /resume",
        ),
        (Method::POST, "/status", 405, "/status takes GET"),
        (Method::DELETE, "/metrics", 405, "/metrics takes GET"),
        (Method::GET, "/drain", 405, "/drain takes POST"),
        (Method::PUT, "/resume", 405, "/resume takes POST"),
    ] {
        let answer = request(method.clone(), &url(&scene.sidecar, path), &[], "")
            .await
            .unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.text().trim()),
            (status, sentence),
            "{method} {path}"
        );
    }
    assert!(!scene.sidecar.handle.status().draining);
    scene.end().await;
}

#[tokio::test]
async fn the_levers_answer_to_loopback_only() {
    let handle = App::bind(config("amqp://127.0.0.1:1", "orders", 1))
        .await
        .unwrap()
        .handle();
    let ask = |path: &str, peer: &str| {
        let request = AdminRequest {
            method: Method::POST,
            path: path.to_owned(),
            query: String::new(),
            peer: peer.parse().unwrap(),
            is_from_page: false,
        };
        admin::answer(handle.clone(), request)
    };
    for peer in [
        "10.0.0.7:40000",
        "192.168.1.1:1",
        "[fe80::1]:9",
        "[::ffff:10.0.0.7]:40000",
        "0.0.0.0:1",
    ] {
        for path in ["/drain", "/resume"] {
            let answer = ask(path, peer).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} from {peer}");
            let sentence = format!("{path} is answered to loopback only; in a pod use `sidecar drain`\n");
            assert_eq!(answer.body, sentence);
        }
        assert!(!handle.status().draining);
    }
    for peer in ["127.0.0.1:40000", "[::1]:9", "[::ffff:127.0.0.1]:40000"] {
        assert_eq!(ask("/drain", peer).await.status, StatusCode::ACCEPTED);
        assert!(handle.status().draining);
        assert_eq!(ask("/resume", peer).await.status, StatusCode::OK);
        assert!(!handle.status().draining);
    }
}

#[tokio::test]
async fn the_levers_do_not_answer_to_a_page_in_a_browser() {
    let scene = Scene::new(|_| 200).await;
    for path in ["/drain", "/drain?wait", "/resume"] {
        let origin = [("origin", "https://example.org")];
        let answer = post(&url(&scene.sidecar, path), &origin, "").await.unwrap();
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        assert!(answer.text().contains("is not for pages in a browser"), "{path}");
    }
    assert!(!scene.sidecar.handle.status().draining);
    scene.end().await;
}
