//! Kept-alive connections to the worker.

use super::client::Worker;
use super::http1::Connection;
use super::network::Network;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// Sockets idle for longer are dropped, well before common servers drop them from their side (uvicorn and Node.js
/// after 5 s, gunicorn after 2 s): a request must not meet a closing socket.
const IDLE_TIMEOUT: Duration = Duration::from_millis(1500);

/// Connections that wait for their next request; the one used last is taken first, so that the surplus of a busy
/// time grows idle and goes. Never holds more than were ever in use at once.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// Those that wait longest are in front.
    connections: VecDeque<(Box<Connection>, Instant)>,
    /// Whether somebody drops those that have waited for too long.
    is_swept: bool,
}

impl std::fmt::Debug for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} connections", self.connections.len())
    }
}

impl Pool {
    /// A connection that is likely to be good still.
    pub(super) fn take(&self) -> Option<Box<Connection>> {
        let mut idle = self.idle();
        while let Some((mut connection, since)) = idle.connections.pop_back() {
            if since.elapsed() > IDLE_TIMEOUT {
                // All others have waited longer.
                idle.connections.clear();
                break;
            }
            if connection.is_quiet() {
                connection.is_reused = true;
                return Some(connection);
            }
        }
        None
    }

    /// Takes back a connection whose answer was read to its end.
    pub(super) fn give_back(self: &Arc<Self>, connection: Box<Connection>) {
        let mut idle = self.idle();
        idle.connections.push_back((connection, Instant::now()));
        if !std::mem::replace(&mut idle.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Drops every idle connection: the worker behind them is gone.
    pub(super) fn clear(&self) {
        self.idle().connections.clear();
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().expect("invariant: no holder panics")
    }
}

/// Drops connections that have waited for too long until there are none: the worker must not have to keep what nobody uses.
async fn sweep(pool: Weak<Pool>) {
    let mut until = Instant::now() + IDLE_TIMEOUT;
    loop {
        tokio::time::sleep_until(until).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle();
        while idle
            .connections
            .front()
            .is_some_and(|(_, since)| since.elapsed() >= IDLE_TIMEOUT)
        {
            idle.connections.pop_front();
        }
        let Some((_, since)) = idle.connections.front() else {
            idle.is_swept = false;
            return;
        };
        until = *since + IDLE_TIMEOUT;
    }
}

/// Opens a connection.
///
/// # Errors
/// Those of `connect(2)`; whether HTTP/1.1 is spoken there is not known yet.
pub(super) async fn connect(network: &dyn Network, worker: &Worker) -> io::Result<Box<Connection>> {
    network
        .connect(&worker.host, worker.port)
        .await
        .map(Connection::over)
        .map(Box::new)
}
