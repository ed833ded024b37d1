//! The one connection to a broker: opened in the background, opened again for ever.

use crate::telemetry;
use contract::broker::BrokerUrl;
use ops::backoff::Backoff;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Between two tries to connect, from the first to the last; a scaler that comes back late wakes nobody.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A connection that lived this long was a good one: the next try after it does not wait for long.
const GOOD_LIFE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
enum State {
    /// The first try is under way.
    Connecting,
    Up(Arc<amqp::Connection>),
    Down(String),
}

/// A handle to the task that keeps the connection. The task ends when it is dropped.
#[derive(Debug)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    mistrust: Arc<Notify>,
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl Link {
    /// Begins to connect. `name` is how the broker's tools show the connection.
    pub(super) fn open(broker: BrokerUrl, name: String) -> Self {
        let (sender, state) = watch::channel(State::Connecting);
        let mistrust = Arc::new(Notify::new());
        let stop = CancellationToken::new();
        let keeper = Keeper {
            broker,
            name,
            state: sender,
            mistrust: Arc::clone(&mistrust),
            stop: stop.clone(),
        };
        Self {
            state,
            mistrust,
            stop: stop.drop_guard(),
            task: tokio::spawn(keeper.run()),
        }
    }

    /// The connection. Waits for the first try to end, until `deadline`, and for no other.
    ///
    /// # Errors
    /// Why there is none, in a sentence.
    pub(super) async fn connection(&mut self, deadline: Instant) -> Result<Arc<amqp::Connection>, String> {
        let decided = self.state.wait_for(|state| !matches!(state, State::Connecting));
        match timeout_at(deadline, decided).await {
            Err(_elapsed) => Err("the broker has not answered yet".to_owned()),
            Ok(Err(_closed)) => Err("the connection is being closed".to_owned()),
            Ok(Ok(state)) => match &*state {
                State::Up(connection) if connection.is_open() => Ok(Arc::clone(connection)),
                State::Up(_) | State::Connecting => Err("the connection to the broker was lost".to_owned()),
                State::Down(cause) => Err(cause.clone()),
            },
        }
    }

    /// Gives the connection up: it looks open and does not answer.
    pub(super) fn mistrust(&self) {
        self.mistrust.notify_one();
    }

    /// Closes the connection and waits for the end.
    pub(super) async fn close(self) {
        drop(self.stop);
        // A panic in the task was printed by its hook; there is nothing left to close then.
        let _ended = self.task.await;
    }
}

struct Keeper {
    broker: BrokerUrl,
    name: String,
    state: watch::Sender<State>,
    mistrust: Arc<Notify>,
    stop: CancellationToken,
}

impl Keeper {
    async fn run(self) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut failing_with = None;
        loop {
            // Dropping a connect that is under way closes its socket.
            let connected = tokio::select! {
                () = self.stop.cancelled() => return,
                connected = amqp::connect(&self.broker, &self.name) => connected,
            };
            match connected {
                Ok(connection) => {
                    failing_with = None;
                    telemetry::broker_connected(&self.broker);
                    let began = Instant::now();
                    if self.keep(Arc::new(connection)).await.is_break() {
                        return;
                    }
                    if began.elapsed() >= GOOD_LIFE {
                        backoff.reset();
                    }
                }
                Err(error) => {
                    if failing_with.replace(error.kind()) != Some(error.kind()) {
                        telemetry::broker_unreachable(&self.broker, &error);
                    }
                    self.state.send_replace(State::Down(error.to_string()));
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sleep(backoff.next_delay()) => {}
            }
        }
    }

    /// Offers the connection until it is lost (continue) or nobody wants it any more (break).
    async fn keep(&self, connection: Arc<amqp::Connection>) -> std::ops::ControlFlow<()> {
        self.state.send_replace(State::Up(Arc::clone(&connection)));
        // All branches are cancel safe: each waits for something that stays so.
        let cause = tokio::select! {
            () = self.stop.cancelled() => {
                connection.close().await;
                return std::ops::ControlFlow::Break(());
            }
            cause = connection.lost() => cause,
            () = self.mistrust.notified() => "the broker no longer answers on it".to_owned(),
        };
        telemetry::broker_lost(&self.broker, &cause);
        self.state.send_replace(State::Down(format!(
            "the connection to the broker was lost: {cause}"
        )));
        std::ops::ControlFlow::Continue(())
    }
}
