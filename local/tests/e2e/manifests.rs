//! `kubedaemon up` with manifests as they are for a cluster.

use crate::support::{Folder, Kubedaemon, worker_script};
use rustix::process::Signal;
use testkit::{broker, http, unique};

fn manifest(orders: &str, emails: &str) -> String {
    let script = worker_script();
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: orders
  annotations:
    kubedaemon.io/queue: {orders}
    kubedaemon.io/broker: amqp://rabbitmq.shop.svc.cluster.local
    kubedaemon.io/path: /orders
    kubedaemon.io/max-replicas: "2"
spec:
  template:
    spec:
      containers:
        - name: worker
          image: shop/orders:7
          command: [python3, {script}]
          args: [--port=$(PORT), $(GREETING)]
          workingDir: work
          env:
            - name: NAME
              value: shop
            - name: GREETING
              value: hello $(NAME)
---
apiVersion: v1
kind: Service
metadata:
  name: orders
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: emails
  namespace: mail
spec:
  template:
    metadata:
      annotations:
        kubedaemon.io/queue: {emails}
        kubedaemon.io/cooldown: 5s
    spec:
      containers:
        - name: worker
          image: mail/emails:3
          command: [python3, {script}]
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: website
spec:
  template:
    spec:
      containers:
        - name: nginx
          image: nginx
"#
    )
}

#[tokio::test]
async fn two_workloads_of_one_manifest() {
    let broker = broker().await;
    let amqp = broker.amqp().await;
    let (orders, emails) = (unique("orders"), unique("emails"));
    let folder = Folder::new();
    std::fs::create_dir(folder.0.join("work")).unwrap();
    let file = folder.file("shop.yaml", &manifest(&orders, &emails));
    let override_broker = format!("--broker={}", broker.url());
    let flags = [
        "up",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        &override_broker,
        &file,
    ];
    let kubedaemon = Kubedaemon::start(&flags).await;
    kubedaemon
        .process
        .wait_for_line("Deployment default/website is left out")
        .await;
    kubedaemon.process.wait_for_line("kubedaemon.io/cool-down").await;
    kubedaemon.wait_for_queue().await;
    amqp.publish(&orders, "an order", lapin::BasicProperties::default())
        .await;
    kubedaemon
        .process
        .wait_for_line("orders-1 | took an order path /orders attempt 1")
        .await;
    kubedaemon.process.wait_for_line("'hello shop'] in=work").await;
    let port = kubedaemon.status().await["workers"][0]["replicas"][0]["port"].to_string();
    kubedaemon
        .process
        .wait_for_line(&format!("args=['--port={port}', 'hello shop']"))
        .await;
    let url = kubedaemon.url();
    let answer = http::get(&format!("{url}/default/orders/a")).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (200, "/a hello shop")
    );
    assert!(kubedaemon.process.matching("emails-1 |").is_empty());
    let answer = http::request(
        http::Method::POST,
        &format!("{url}/b"),
        &[("host", "emails.mail.svc.cluster.local")],
        "a mail",
    )
    .await
    .unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "a mail"));
    kubedaemon
        .process
        .wait_for_line("emails-1 | took a mail path /b")
        .await;
    let answer = http::post(&format!("{url}/async/emails"), &[], "later")
        .await
        .unwrap();
    assert_eq!(answer.status.as_u16(), 202, "{}", answer.text());
    kubedaemon
        .process
        .wait_for_line("emails-1 | took later path /message attempt 1")
        .await;
    let answer = http::get(&format!("{url}/default/nobody/")).await.unwrap();
    assert_eq!(answer.status.as_u16(), 404);
    kubedaemon.process.signal(Signal::INT);
    assert_eq!(kubedaemon.process.wait().await.code(), Some(0));
    kubedaemon.assert_nothing_is_left();
}
