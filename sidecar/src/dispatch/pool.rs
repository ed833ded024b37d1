//! Keep-alive connections to one worker.

use super::client::Worker;
use super::network::Network;
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Sockets idle for longer are dropped, well before common servers drop them from their side (uvicorn and Node.js
/// after 5 s, gunicorn after 2 s): a request must not meet a closing socket.
const IDLE_TIMEOUT: Duration = Duration::from_millis(1500);

/// One HTTP/1.1 connection, ready for a request.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: SendRequest<Full<Bytes>>,
    /// Whether it has carried a request before; then the worker may have closed it in the meantime.
    pub(super) is_reused: bool,
}

/// Connections that wait for their next request; the one used last is taken first, so that the surplus of a busy
/// time grows idle and goes. Never holds more than were ever in use at once.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<(SendRequest<Full<Bytes>>, Instant)>>,
}

impl Pool {
    /// A connection that is likely to be good still.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().expect("invariant: no holder panics");
        let mut busy = Vec::new();
        let taken = loop {
            let Some((sender, since)) = idle.pop() else {
                break None;
            };
            if since.elapsed() > IDLE_TIMEOUT {
                // All below it have waited longer.
                idle.clear();
                break None;
            }
            if sender.is_ready() {
                break Some(sender);
            }
            // The body of a request that was answered early is still on its way: nobody else shall wait for that.
            if !sender.is_closed() {
                busy.push((sender, since));
            }
        };
        idle.splice(0..0, busy);
        taken.map(|sender| Connection {
            sender,
            is_reused: true,
        })
    }

    /// Takes back a connection whose answer was read to its end.
    pub(super) fn give_back(&self, sender: SendRequest<Full<Bytes>>) {
        if !sender.is_closed() {
            self.idle
                .lock()
                .expect("invariant: no holder panics")
                .push((sender, Instant::now()));
        }
    }

    /// Drops every idle connection: the worker behind them is gone.
    pub(super) fn clear(&self) {
        self.idle.lock().expect("invariant: no holder panics").clear();
    }
}

/// Opens a connection.
///
/// # Errors
/// Those of `connect(2)`; an HTTP handshake with HTTP/1.1 says nothing yet.
pub(super) async fn connect(network: &dyn Network, worker: &Worker) -> io::Result<Connection> {
    let stream = network.connect(&worker.host, worker.port).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // Ends when the sender is dropped or the worker closes. Its errors reach whoever waits for an answer.
    tokio::spawn(async move {
        let _reported_to_the_sender = connection.await;
    });
    Ok(Connection {
        sender,
        is_reused: false,
    })
}
