//! The ceiling: consumes and acknowledges many at a time, without HTTP. It is sink and runner in one.

use bench::ledger::{Expected, Ledger};
use bench::line::{Line, say};
use bench::{consume, serve};
use clap::Arg;
use futures_util::{FutureExt, StreamExt};
use lapin::options::BasicAckOptions;
use std::cell::RefCell;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let matches = consume::command("bench-raw", "Consumes and acknowledges, nothing else")
        .args(
            ["messages", "warm-up", "body-bytes", "seed", "ack-every"]
                .map(|name| Arg::new(name).long(name).required(true)),
        )
        .get_matches();
    let expected = Expected {
        messages: consume::number(&matches, "messages")?,
        warm_up: consume::number(&matches, "warm-up")?,
        body_bytes: consume::number(&matches, "body-bytes")?,
        seed: consume::number(&matches, "seed")?,
    };
    let ack_every: usize = consume::number(&matches, "ack-every")?;
    let ledger = RefCell::new(Ledger::new(expected));
    let subscription = consume::subscribe(&matches).await?;
    say(&Line::Ready { url: String::new() });
    let ended = tokio::select! {
        ended = consume_all(subscription, &ledger, ack_every) => ended,
        ended = serve::until_terminated(&ledger) => ended,
    };
    say(&Line::End(ledger.borrow().end()));
    ended
}

async fn consume_all(
    mut subscription: consume::Subscription,
    ledger: &RefCell<Ledger>,
    ack_every: usize,
) -> anyhow::Result<()> {
    let multiple = BasicAckOptions { multiple: true };
    let mut unacknowledged = 0;
    let mut last = 0;
    loop {
        // What is there is taken first; before a wait, what was taken is acknowledged.
        let ready = subscription.consumer.next().now_or_never();
        if ready.is_none() && unacknowledged > 0 {
            subscription.channel.basic_ack(last, multiple).await?;
            unacknowledged = 0;
        }
        let next = match ready {
            Some(next) => next,
            None => subscription.consumer.next().await,
        };
        let Some(delivery) = next else {
            return Ok(());
        };
        let delivery = delivery?;
        let line = ledger
            .borrow_mut()
            .note(&delivery.data, ops::clock::since_epoch());
        last = delivery.delivery_tag;
        unacknowledged += 1;
        let is_last = matches!(line, Some(Line::All { .. }));
        if unacknowledged >= ack_every || is_last {
            subscription.channel.basic_ack(last, multiple).await?;
            unacknowledged = 0;
        }
        if let Some(line) = line {
            say(&line);
        }
    }
}
