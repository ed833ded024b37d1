//! Connections to the worker from outside, counted in a network of its own: on one machine everything else is loopback.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use http::StatusCode;
use sidecar::State;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use support::{PATIENCE, Running, config};
use testkit::http::get;
use testkit::wait::until;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

const POD: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 7);
const CALLER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 9);

/// Runs [`in_a_pod`] in a new network namespace that has the addresses [`POD`] and [`CALLER`].
#[test]
fn connections_from_outside_are_counted_and_hold_back_the_end_of_the_worker() {
    let network = format!(
        "ip link set lo up && ip address add {POD}/32 dev lo && ip address add {CALLER}/32 dev lo || exit 99
         exec \"$0\" --exact in_a_pod"
    );
    let test = std::env::current_exe().unwrap();
    let run = Command::new("unshare")
        .args(["--net", "--map-root-user", "sh", "-c", &network])
        .arg(test)
        .output();
    let Ok(run) = run else {
        return; // There is no unshare here.
    };
    let text = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    if run.status.code() == Some(99) || text.contains("unshare failed") || text.contains("not permitted") {
        return; // This system, or this user, may have no network of its own.
    }
    assert!(run.status.success() && text.contains("1 passed"), "{text}");
}

/// A connection from `from` to the pod's worker at `to`.
async fn call(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

async fn until_connections(sidecar: &Running, expected: u32) {
    let what = format!("{expected} connections are counted");
    until(&what, PATIENCE, || async {
        sidecar.handle.connections() == Some(expected)
    })
    .await;
}

#[tokio::test]
async fn in_a_pod() {
    if TcpListener::bind((CALLER, 0)).await.is_err() {
        return; // The test above runs it in a network of its own; there is nothing to see elsewhere.
    }
    // A worker that listens on IPv6 for both has its callers in the other table, as mapped addresses.
    for any in [
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    ] {
        let Ok(listener) = TcpListener::bind(any).await else {
            continue; // This machine has no IPv6.
        };
        let port = listener.local_addr().unwrap().port();
        let mut config = config("amqp://127.0.0.1:1", "", port);
        config.report_only = true;
        let sidecar = Running::start(config).await;
        let mut state = sidecar.handle.watch_state();
        state.wait_for(|state| *state == State::Consuming).await.unwrap();
        until_connections(&sidecar, 0).await;

        let _near = [
            call(Ipv4Addr::LOCALHOST, (Ipv4Addr::LOCALHOST, port).into()).await,
            call(POD, (POD, port).into()).await,
        ];
        let calls = [
            call(CALLER, (POD, port).into()).await,
            call(CALLER, (POD, port).into()).await,
        ];
        until_connections(&sidecar, 2).await;

        let url = format!("http://{}", sidecar.admin.unwrap());
        let status = get(&format!("{url}/status")).await.unwrap();
        let status: serde_json::Value = serde_json::from_slice(&status.body).unwrap();
        assert_eq!(status["connections"], 2);
        sidecar.handle.drain();
        let asked = Instant::now();
        let hook = tokio::spawn(async move { get(&format!("{url}/drained")).await.unwrap() });
        until("the shortest time is over", PATIENCE, || async {
            asked.elapsed().as_millis() > 2300
        })
        .await;
        assert!(!hook.is_finished(), "callers are connected");
        // The worker closes its ends, too.
        while let Ok(accepted) = tokio::time::timeout(std::time::Duration::ZERO, listener.accept()).await {
            drop(accepted.unwrap());
        }
        drop(calls);
        assert_eq!(hook.await.unwrap().status, StatusCode::OK);
        assert!(asked.elapsed().as_secs() < 9, "it did not wait until it gave up");
        sidecar.stop().await;
    }
}
