//! The admin port: probes, status, metrics, and who may pull the levers of intake.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use http::{Method, StatusCode};
use lapin::BasicProperties;
use ops::admin::{AdminRequest, AdminResponse};
use sidecar::admin::Admin;
use sidecar::domain::lever::Remote;
use sidecar::{App, State, telemetry};
use std::collections::BTreeSet;
use support::{PATIENCE, Running, Scene, config};
use testkit::http::{get, post, request};
use testkit::unique;
use testkit::wait::until;
use testkit::worker::{Answer, Gate, Received, Worker};
use token::{Action, Signer, Verifier};

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
    assert_eq!(idle["connections"], 0, "ours is none from outside");

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
        (StatusCode::OK, "waiting_for_worker"),
        "whether the worker is ready is its own probe's affair"
    );
    scene.worker.start_again();
    scene.until_accepted(2).await;
    scene.end().await;
}

#[tokio::test]
async fn a_worker_is_not_made_unready_by_a_broker_that_is_away() {
    // Nobody listens on port 1.
    let worker = Worker::start(|_| Answer::ok()).await;
    let sidecar = Running::start(config("amqp://127.0.0.1:1", "orders", worker.port())).await;
    let ready = get(&url(&sidecar, "/readyz")).await.unwrap();
    assert_eq!(
        (ready.status, ready.text().trim()),
        (StatusCode::OK, "connecting")
    );
    assert_eq!(status(&sidecar).await["broker_connected"], false);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_worker_is_not_ready_before_its_port_has_answered() {
    let worker = Worker::start(|_| Answer::ok()).await;
    worker.crash();
    let sidecar = Running::start(config("amqp://127.0.0.1:1", "orders", worker.port())).await;
    let ready = get(&url(&sidecar, "/readyz")).await.unwrap();
    assert_eq!(
        (ready.status, ready.text().trim()),
        (StatusCode::SERVICE_UNAVAILABLE, "waiting_for_worker")
    );
    worker.start_again();
    let is_ready = || async { get(&url(&sidecar, "/readyz")).await.unwrap().status == StatusCode::OK };
    until("the worker is ready", PATIENCE, is_ready).await;
    worker.crash();
    assert!(is_ready().await, "from now on its own probe tells");
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
            ("bad", _) => Answer::status(400),
            ("deferred", 3) => Answer::status(202).header("x-defer", "0"),
            (_, 1) => Answer::status(500),
            _ => Answer::ok(),
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
    scene.publish("deferred").await;
    scene.until_settled(2).await;
    scene.amqp.delete(&format!("{}.dead", scene.queue)).await;
    let asking = BasicProperties::default().with_reply_to("nobody".into());
    scene.amqp.publish(&scene.queue, "bad", asking).await;
    scene.until_settled(3).await;
    let origin = [("origin", "https://example.org")];
    post(&url(&scene.sidecar, "/drain"), &origin, "").await.unwrap();
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
            "no such path; there is /healthz, /readyz, /status, /metrics, /drained, /drain and /resume",
        ),
        (
            Method::POST,
            "/stop",
            404,
            "no such path; there is /healthz, /readyz, /status, /metrics, /drained, /drain and /resume",
        ),
        (Method::POST, "/status", 405, "/status takes GET"),
        (Method::DELETE, "/metrics", 405, "/metrics takes GET"),
        (Method::POST, "/drained", 405, "/drained takes GET"),
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

const POD: &str = "shop/worker-1";

/// Answers of a sidecar that has no queue and, with a key, is pod [`POD`].
async fn levers(signer: Option<&Signer>) -> (sidecar::Handle, Admin) {
    let mut config = config("amqp://127.0.0.1:1", "", 1);
    config.report_only = true;
    config.remote = signer.map(|signer| Remote {
        pod: POD.to_owned(),
        verifier: Verifier::read(&signer.public_key()).unwrap(),
    });
    let handle = App::bind(config).await.unwrap().handle();
    (handle.clone(), Admin::new(handle))
}

async fn pull(admin: &Admin, path: &str, peer: &str, bearer: Option<&str>) -> AdminResponse {
    let request = AdminRequest {
        method: Method::POST,
        path: path.to_owned(),
        query: String::new(),
        headers: http::HeaderMap::new(),
        body: Some(bytes::Bytes::new()),
        peer: peer.parse().unwrap(),
        is_from_page: false,
        bearer: bearer.map(str::to_owned),
    };
    admin.answer(request).await
}

#[tokio::test]
async fn without_a_key_the_levers_answer_to_loopback_only() {
    let (handle, admin) = levers(None).await;
    let token = Signer::generate()
        .unwrap()
        .sign(POD, Action::Drain, ops::clock::since_epoch());
    for peer in [
        "10.0.0.7:40000",
        "192.168.1.1:1",
        "[fe80::1]:9",
        "[::ffff:10.0.0.7]:40000",
        "0.0.0.0:1",
    ] {
        for path in ["/drain", "/resume"] {
            let answer = pull(&admin, path, peer, Some(&token)).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} from {peer}");
            let sentence = format!("{path} is answered to loopback only; in a pod use `sidecar drain`\n");
            assert_eq!(answer.body, sentence);
        }
        assert!(!handle.status().draining);
    }
    for peer in ["127.0.0.1:40000", "[::1]:9", "[::ffff:127.0.0.1]:40000"] {
        assert_eq!(
            pull(&admin, "/drain", peer, None).await.status,
            StatusCode::ACCEPTED
        );
        assert!(handle.status().draining);
        assert_eq!(pull(&admin, "/resume", peer, None).await.status, StatusCode::OK);
        assert!(!handle.status().draining);
    }
}

#[tokio::test]
async fn with_a_key_the_levers_answer_to_a_permission_for_this_pod() {
    ops::metrics::install();
    let (signer, stranger) = (Signer::generate().unwrap(), Signer::generate().unwrap());
    let (handle, admin) = levers(Some(&signer)).await;
    let now = ops::clock::since_epoch();
    let past = now.saturating_sub(2 * token::LIFETIME);
    let drain = signer.sign(POD, Action::Drain, now);
    let resume = signer.sign(POD, Action::Resume, now);
    let peer = "10.0.0.7:40000";
    for (bearer, status, reason, part) in [
        (
            None,
            401,
            "no_token",
            "needs a permission: send `Authorization: Bearer <token>`",
        ),
        (Some("secret".to_owned()), 401, "malformed", "this is no token"),
        (
            Some(stranger.sign(POD, Action::Drain, now)),
            401,
            "signature",
            "signed with another key",
        ),
        (
            Some(signer.sign(POD, Action::Drain, past)),
            401,
            "expired",
            "has expired",
        ),
        (
            Some(signer.sign("shop/worker-2", Action::Drain, now)),
            403,
            "pod",
            "for another pod",
        ),
        (Some(resume.clone()), 403, "action", "permits something else"),
    ] {
        let answer = pull(&admin, "/drain", peer, bearer.as_deref()).await;
        assert_eq!(answer.status.as_u16(), status, "{reason}: {answer:?}");
        assert!(
            answer.body.starts_with("/drain ")
                && answer.body.contains(part)
                && answer.body.lines().count() == 1,
            "{answer:?}"
        );
        let page = ops::metrics::install().render();
        let counted = format!("sidecar_lever_refusals_total{{reason=\"{reason}\"}}");
        assert!(page.contains(&counted), "no {counted} in {page}");
        assert!(!handle.status().draining);
    }
    let answer = pull(&admin, "/drain", peer, Some(&drain)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert!(handle.status().draining);
    assert_eq!(
        pull(&admin, "/resume", peer, Some(&drain)).await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        pull(&admin, "/resume", peer, Some(&resume)).await.status,
        StatusCode::OK
    );
    assert!(!handle.status().draining);
}

#[tokio::test]
async fn a_permission_comes_in_the_header_of_a_call_over_the_network() {
    let Some(ip) = testkit::machine_ip() else {
        return; // This machine has no address but loopback.
    };
    let (signer, worker) = (
        Signer::generate().unwrap(),
        Worker::start(|_: &Received| 200).await,
    );
    let mut config = config("amqp://127.0.0.1:1", "", worker.port());
    config.report_only = true;
    config.admin = Some("0.0.0.0:0".parse().unwrap());
    config.remote = Some(Remote {
        pod: POD.to_owned(),
        verifier: Verifier::read(&signer.public_key()).unwrap(),
    });
    let sidecar = Running::start(config).await;
    let url = format!("http://{ip}:{}/drain", sidecar.admin.unwrap().port());
    let token = signer.sign(POD, Action::Drain, ops::clock::since_epoch());
    let refused = post(&url, &[], "").await.unwrap();
    assert_eq!(
        (refused.status, refused.header("www-authenticate")),
        (StatusCode::UNAUTHORIZED, "Bearer")
    );
    for (header, status) in [
        (format!("Basic {token}"), StatusCode::UNAUTHORIZED),
        (token.clone(), StatusCode::UNAUTHORIZED),
        (format!("Bearer {token}x"), StatusCode::UNAUTHORIZED),
        (format!("bearer  {token}"), StatusCode::ACCEPTED),
        (format!("Bearer {token}"), StatusCode::ACCEPTED),
    ] {
        let answer = post(&url, &[("authorization", &header)], "").await.unwrap();
        assert_eq!(answer.status, status, "{header}: {}", answer.text());
    }
    let page = [
        ("authorization", format!("Bearer {token}")),
        ("origin", "null".to_owned()),
    ];
    let page = page.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(post(&url, &page, "").await.unwrap().status, StatusCode::FORBIDDEN);
    sidecar.stop().await;
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
