//! The server over real TLS connections: reviews, refusals, keep-alive, the drain, the binary.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "support/https.rs"]
mod https;

use http::{Method, Request, StatusCode};
use http_body_util::Full;
use https::{
    Folder, Server, admin, admitted, config, handshake, post, response, review, self_signed, send, speak,
    trusting,
};
use serde_json::json;
use std::process::{Command, Stdio};
use std::time::Duration;
use testkit::wait::{PATIENCE, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use webhook_injector::server::{Config, MAX_BODY_BYTES, PATH};

#[tokio::test]
async fn reviews_on_one_connection_each_get_their_own_answer() {
    let server = Server::start(config(self_signed()), None).await;
    let mut client = server.client().await;
    let first = response(
        &post(&mut client, "/mutate?timeout=2s", review("u-1", &admitted()))
            .await
            .unwrap(),
    );
    assert_eq!((&first["uid"], &first["allowed"]), (&json!("u-1"), &json!(true)));
    assert!(first["patch"].is_string());
    let wrong = json!({"kubedaemon.io/queue": "orders", "kubedaemon.io/timeout": "soon"});
    let second = response(&post(&mut client, PATH, review("u-2", &wrong)).await.unwrap());
    assert_eq!(
        (&second["uid"], &second["allowed"]),
        (&json!("u-2"), &json!(false))
    );
    let garbage = post(&mut client, PATH, b"garbage".to_vec()).await.unwrap();
    assert_eq!(garbage.0, StatusCode::BAD_REQUEST);
    assert!(garbage.1.contains("send an AdmissionReview"), "{}", garbage.1);
    let third = response(&post(&mut client, PATH, review("u-3", &json!({}))).await.unwrap());
    assert_eq!(third, json!({"uid": "u-3", "allowed": true}));

    let page = admin(server.admin, "/metrics").await;
    for name in [
        "injector_admission_requests_total{operation=\"create\",kind=\"Pod\"}",
        "injector_decisions_total{decision=\"patch\",reason=\"injected\"}",
        "injector_decisions_total{decision=\"deny\",reason=\"bad_annotation\"}",
        "injector_admission_duration_seconds_bucket{decision=\"patch\"",
        "injector_rejections_total{reason=\"not_a_review\"}",
        "injector_certificate_expiry_timestamp_seconds",
        "injector_certificate_reloads_total{result=\"ok\"}",
    ] {
        assert!(page.contains(name), "{name} is not in {page}");
    }
    drop(client);
    assert!(server.stop().await);
}

#[tokio::test]
async fn what_is_no_review_is_refused() {
    let server = Server::start(config(self_signed()), None).await;
    let mut client = server.client().await;
    let (status, said) = post(&mut client, "/", review("u", &admitted())).await.unwrap();
    assert_eq!(
        (status, said.as_str()),
        (StatusCode::NOT_FOUND, "no such path; there is /mutate\n")
    );

    let mut client = server.client().await;
    let get = Request::builder()
        .method(Method::GET)
        .uri(PATH)
        .body(Full::default())
        .unwrap();
    assert_eq!(
        send(&mut client, get).await.unwrap().0,
        StatusCode::METHOD_NOT_ALLOWED
    );

    // Announced as too long; and longer than can be known beforehand.
    for length in [
        format!("content-length: {}\r\n\r\n", MAX_BODY_BYTES + 1),
        "transfer-encoding: chunked\r\n\r\n".to_owned(),
    ] {
        let mut stream = server.tls().await;
        let head = format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\n{length}");
        stream.write_all(head.as_bytes()).await.unwrap();
        if length.starts_with("transfer") {
            let chunk = vec![b'x'; MAX_BODY_BYTES + 1];
            let sent = async {
                stream
                    .write_all(format!("{:x}\r\n", chunk.len()).as_bytes())
                    .await?;
                stream.write_all(&chunk).await
            };
            // The server may have answered and gone before everything was written.
            sent.await.ok();
        }
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).await.unwrap();
        assert_eq!(&begin, b"HTTP/1.1 413");
    }
    assert!(server.stop().await);
}

#[tokio::test]
async fn a_review_of_the_longest_length_is_answered() {
    let server = Server::start(config(self_signed()), None).await;
    let mut body = review("u", &admitted());
    body.resize(MAX_BODY_BYTES, b' ');
    let mut client = server.client().await;
    assert_eq!(
        response(&post(&mut client, PATH, body).await.unwrap())["allowed"],
        true
    );
    drop(client);
    assert!(server.stop().await);
}

#[tokio::test]
async fn a_slow_client_is_cut_off_and_keeps_nobody_waiting() {
    let server = Server::start(
        Config {
            deadline: Duration::from_millis(200),
            ..config(self_signed())
        },
        None,
    )
    .await;
    let mut slow = server.tls().await;
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{{");
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut client = server.client().await;
    assert_eq!(
        response(&post(&mut client, PATH, review("u", &admitted())).await.unwrap())["uid"],
        "u"
    );
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("did not arrive in time"),
        "{answer}"
    );
    // One that says nothing at all does not hold up the end either.
    let _silent = TcpStream::connect(server.address).await.unwrap();
    drop(client);
    server.shutdown.drain();
    server.shutdown.force();
    server.run.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_drain_says_so_and_ends_what_is_in_work() {
    let server = Server::start(
        Config {
            drain_delay: PATIENCE,
            ..config(self_signed())
        },
        None,
    )
    .await;
    assert!(admin(server.admin, "/readyz").await.starts_with("HTTP/1.1 200"));
    let mut begun = server.tls().await;
    let body = review("u-1", &admitted());
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    begun.write_all(head.as_bytes()).await.unwrap();
    server.shutdown.drain();
    until("it is not ready any more", PATIENCE, async || {
        admin(server.admin, "/readyz").await.starts_with("HTTP/1.1 503")
    })
    .await;
    assert!(admin(server.admin, "/healthz").await.starts_with("HTTP/1.1 200"));
    // During the delay reviews are answered as ever, new ones and those in work.
    let mut client = server.client().await;
    assert_eq!(
        response(&post(&mut client, PATH, review("u-2", &admitted())).await.unwrap())["uid"],
        "u-2"
    );
    begun.write_all(&body).await.unwrap();
    let mut answer = [0; 15];
    begun.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    server.shutdown.force();
    server.run.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_review_in_work_is_answered_when_the_server_closes() {
    let server = Server::start(config(self_signed()), None).await;
    let mut begun = server.tls().await;
    let body = review("u-1", &admitted());
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    begun.write_all(head.as_bytes()).await.unwrap();
    // The server has read the head and waits for the body.
    let mut go_on = [0; 25];
    begun.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    server.shutdown.drain();
    until("no new connection is taken", PATIENCE, async || {
        TcpStream::connect(server.address).await.is_err()
    })
    .await;
    begun.write_all(&body).await.unwrap();
    let mut answer = String::new();
    begun.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"uid\":\"u-1\""),
        "{answer}"
    );
    assert!(server.run.await.unwrap().unwrap());
}

fn binary(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_webhook-injector"));
    command
        .arg("serve")
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[tokio::test]
async fn the_binary_writes_its_authority_and_ends_on_sigterm() {
    let folder = Folder::new();
    let ca = folder.0.join("ca.pem");
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let listen = free.to_string();
    let args = [
        "--image",
        "i",
        "--self-signed",
        "--dns-name",
        "localhost",
        "--ca-out",
        ca.to_str().unwrap(),
    ];
    let rest = ["--listen", &listen, "--admin", "off", "--drain-delay", "0s"];
    let mut child = binary(&[&args[..], &rest[..]].concat()).spawn().unwrap();
    let answer = until("a review is answered", PATIENCE, async || {
        let trust = trusting(&std::fs::read_to_string(&ca).ok()?);
        let stream = handshake(free, &trust).await.ok()?;
        post(&mut speak(stream).await, PATH, review("u", &admitted()))
            .await
            .ok()
    })
    .await;
    assert_eq!(response(&answer)["allowed"], true);
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = until("it has ended", PATIENCE, || {
        std::future::ready(child.try_wait().unwrap())
    })
    .await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn without_an_api_server_the_binary_runs_and_is_not_ready() {
    let folder = Folder::new();
    let kubeconfig = folder.0.join("kubeconfig");
    // Nothing listens there: port 1 is nobody's.
    let cluster = json!({"name": "a", "cluster": {"server": "https://127.0.0.1:1"}});
    let user = json!({"name": "a", "user": {"token": "t"}});
    let context = json!({"name": "a", "context": {"cluster": "a", "user": "a"}});
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "clusters": [cluster], "users": [user], "contexts": [context],
    });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_webhook-injector"));
    command
        .args(["serve", "--image", "i", "--cluster-certificates"])
        .args(["--service", "s", "--webhook", "w"])
        .args([
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--drain-delay",
            "0s",
        ])
        .env("KUBEDAEMON_NAMESPACE", "n")
        .env("KUBECONFIG", &kubeconfig);
    let process = testkit::process::Process::start(command);
    let line = process.wait_for_line("admin port open").await;
    let at = line.split_once("address=").unwrap().1.trim().parse().unwrap();
    process.wait_for_line("the API server cannot be asked").await;
    assert!(admin(at, "/healthz").await.starts_with("HTTP/1.1 200"));
    let said = admin(at, "/readyz").await;
    assert!(
        said.starts_with("HTTP/1.1 503") && said.contains("there is no certificate yet"),
        "{said}"
    );
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.wait().await.code(), Some(0));
}

#[test]
fn a_wrong_command_line_is_answered_with_sentences_and_2() {
    let tls = ["--tls-cert", "/nowhere/tls.crt", "--tls-key", "/nowhere/tls.key"];
    for (args, expected) in [
        (vec![], "--image"),
        (vec!["--image", "i"], "--tls-cert"),
        (vec!["--image", "i", "--self-signed"], "--dns-name"),
        (vec!["--image", "i", "--cluster-certificates"], "--service"),
        (
            vec![
                "--image",
                "i",
                "--cluster-certificates",
                "--service",
                "s",
                "--webhook",
                "w",
            ],
            "KUBEDAEMON_NAMESPACE is missing: write the namespace that the injector runs in",
        ),
        (
            [&["--image", "i", "--drained-path", "x"][..], &tls].concat(),
            "--drained-path is \"x\", which does not begin with /: write a path such as /drained, or off",
        ),
        (
            [&["--image", "i"][..], &tls].concat(),
            "/nowhere/tls.crt cannot be read: No such file",
        ),
        (
            [
                &[
                    "--image",
                    "i",
                    "--broker-secret",
                    "x",
                    "--deadline",
                    "2",
                    "--listen",
                    "y",
                ][..],
                &tls,
            ]
            .concat(),
            "--broker-secret is \"x\", which is not NAME/KEY: write the name of a Secret and a key in it",
        ),
    ] {
        let output = binary(&args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
    }
}
