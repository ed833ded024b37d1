//! Asynchronous calls go to the broker of their target.

use crate::support::{Replica, cluster_with_worker, worker};
use serde_json::json;
use testkit::broker;
use testkit::http::post;

#[tokio::test]
async fn an_asynchronous_call_goes_to_the_broker_of_its_target() {
    if cluster::skip("an_asynchronous_call_goes_to_the_broker_of_its_target") {
        return;
    }
    let cluster = cluster_with_worker().await;
    let namespace = cluster.namespace("queue").await;
    let (broker, queue) = (broker().await, testkit::unique("orders"));
    let amqp = broker.amqp().await;
    amqp.declare_quorum(&queue).await;
    let mut worker = worker();
    worker["metadata"]["annotations"] =
        json!({ "kubedaemon.io/queue": queue, "kubedaemon.io/broker": broker.url() });
    namespace.apply(&worker.to_string()).await;
    // Nothing is behind the activator's own broker.
    let flags = ["--takeover", "off", "--broker", "amqp://127.0.0.1:9"];
    let replica = Replica::start(cluster, &namespace, &flags).await;
    replica.knows(&namespace).await;
    let url = format!("{}/async/{}/worker", replica.url, namespace.name());
    let answer = post(&url, &[], "an order").await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.text());
    let message = amqp.get(&queue).await.unwrap();
    assert_eq!(message.text(), "an order");
    amqp.delete(&queue).await;
}
