//! A runner that is wrong on purpose, so that the oracle can be seen to notice: every 50th message it posts twice,
//! every 70th it acknowledges without posting, of every 90th it changes a byte.

use bench::consume;
use bytes::Bytes;
use clap::Arg;
use futures_util::StreamExt;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lapin::options::BasicAckOptions;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let matches = consume::command("bench-liar", "Loses, repeats and changes messages")
        .args(["sink", "in-flight"].map(|name| Arg::new(name).long(name).required(true)))
        .get_matches();
    let sink = matches.get_one::<String>("sink").cloned().unwrap_or_default();
    let http: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let mut subscription = consume::subscribe(&matches).await?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut number = 0_u64;
    loop {
        // Cancel safe: a delivery that is not taken stays in the stream.
        let next = tokio::select! {
            next = subscription.consumer.next() => next,
            _ = terminated.recv() => return Ok(()),
        };
        let Some(delivery) = next else { return Ok(()) };
        let delivery = delivery?;
        number += 1;
        let mut body = delivery.data.clone();
        if number.is_multiple_of(90)
            && let Some(last) = body.last_mut()
        {
            *last ^= 1;
        }
        let body = Bytes::from(body);
        let times = if number.is_multiple_of(70) {
            0
        } else {
            1 + u64::from(number.is_multiple_of(50))
        };
        for _ in 0..times {
            let request = Request::post(sink.as_str()).body(Full::new(body.clone()))?;
            http.request(request).await?.into_body().collect().await?;
        }
        delivery.ack(BasicAckOptions::default()).await?;
    }
}
