//! What one writes in an afternoon: a task for each delivery, hyper-util's client, an awaited acknowledgement each.

use bench::consume;
use bytes::Bytes;
use clap::Arg;
use futures_util::StreamExt;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

type Http = Client<HttpConnector, Full<Bytes>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let matches = consume::command("bench-naive", "Posts each message, acknowledges each")
        .args(["sink", "in-flight"].map(|name| Arg::new(name).long(name).required(true)))
        .get_matches();
    let sink: Arc<str> = matches
        .get_one::<String>("sink")
        .cloned()
        .unwrap_or_default()
        .into();
    let in_flight: u32 = consume::number(&matches, "in-flight")?;
    let slots = Arc::new(Semaphore::new(usize::try_from(in_flight)?));
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let http: Http = Client::builder(TokioExecutor::new()).build(connector);
    let mut subscription = consume::subscribe(&matches).await?;
    let mut terminated = signal(SignalKind::terminate())?;
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await?;
        // Cancel safe: a delivery that is not taken stays in the stream.
        let next = tokio::select! {
            next = subscription.consumer.next() => next,
            _ = terminated.recv() => break,
        };
        let Some(delivery) = next else { break };
        let (http, sink, delivery) = (http.clone(), Arc::clone(&sink), delivery?);
        tokio::spawn(async move {
            let _settled = dispatch(&http, &sink, delivery).await.is_ok();
            drop(slot);
        });
    }
    let _all_done = slots.acquire_many(in_flight).await?;
    subscription.connection.close(200, "done".into()).await?;
    Ok(())
}

async fn dispatch(http: &Http, sink: &str, mut delivery: Delivery) -> anyhow::Result<()> {
    let body = Full::from(std::mem::take(&mut delivery.data));
    let request = Request::post(sink).body(body)?;
    let accepted = async {
        let response = http.request(request).await?;
        let status: StatusCode = response.status();
        response.into_body().collect().await?;
        anyhow::Ok(status.is_success())
    };
    if accepted.await.unwrap_or(false) {
        delivery.ack(BasicAckOptions::default()).await?;
    } else {
        delivery.nack(BasicNackOptions::default()).await?;
    }
    Ok(())
}
