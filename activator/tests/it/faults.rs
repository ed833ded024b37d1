//! Workers that come and go under load.

use crate::support::{FakeTargets, Running};
use activator::Limits;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use testkit::http::post;
use testkit::worker::{Answer, Worker};

/// Three workers die and come back in turn under forty callers. A call that was answered arrived exactly once; one
/// that was answered 502 arrived at most once; no other answer is given, and nobody is left without one.
#[tokio::test]
async fn no_call_is_sent_twice_whatever_dies() {
    let workers: Vec<Arc<Worker>> = {
        let mut workers = Vec::new();
        for _ in 0..3 {
            workers.push(Arc::new(Worker::start(|_| Answer::ok().body("done")).await));
        }
        workers
    };
    let targets = FakeTargets::at_zero(&["orders"]);
    let running = Arc::new(Running::start(&targets, Limits::default()).await);
    let endpoints: Vec<SocketAddr> = workers.iter().map(|worker| worker.address()).collect();
    targets.endpoints("orders", &endpoints);

    let callers: Vec<_> = (0..40)
        .map(|caller| {
            let running = Arc::clone(&running);
            tokio::spawn(async move {
                let mut statuses = HashMap::new();
                for n in 0..25 {
                    let id = format!("{caller}-{n}");
                    let answer = post(&running.url("/default/orders"), &[], id.clone())
                        .await
                        .unwrap();
                    statuses.insert(id, answer.status.as_u16());
                }
                statuses
            })
        })
        .collect();
    for round in 0..9 {
        let worker = &workers[round % 3];
        worker.wait_for(worker.count() + 10).await;
        worker.crash();
        worker.start_again();
    }
    let mut statuses = HashMap::new();
    for caller in callers {
        statuses.extend(caller.await.unwrap());
    }
    let mut arrivals: HashMap<String, usize> = HashMap::new();
    for request in workers.iter().flat_map(|worker| worker.requests()) {
        *arrivals.entry(request.text()).or_default() += 1;
    }
    assert_eq!(statuses.len(), 1000);
    for (id, status) in &statuses {
        let arrived = arrivals.get(id).copied().unwrap_or(0);
        match status {
            200 => assert_eq!(arrived, 1, "{id}"),
            502 => assert!(arrived <= 1, "{id} arrived {arrived} times"),
            other => panic!("{id} was answered {other}"),
        }
    }
    targets.loaded("orders", 0).await;
}
