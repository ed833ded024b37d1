//! Connections: TLS, heartbeat, frame size, name; and the moment at which one is lost.

mod attempt;
mod heard;
mod reading;

use crate::Error;
use crate::legible::Count;
use crate::version::Server;
use contract::broker::BrokerUrl;
use futures_util::StreamExt;
use heard::Heard;
use lapin::protocol::{AMQPErrorKind, AMQPHardError};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{ConnectionProperties, ErrorKind, Event};
use reading::Listener;
use std::fmt;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// The longest a connection may take, from the TCP handshake to `connection.open-ok`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest a graceful close may take before the socket is simply dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// A half-open socket is noticed before two of these are over. RabbitMQ advises 5 to 20 s.
///
/// Source: <https://www.rabbitmq.com/docs/heartbeats>.
const HEARTBEAT_SECONDS: u16 = 10;
/// Always said, because lapin otherwise grows its two ring buffers after the handshake and touches 8 MiB for it; they are
/// 32 times as large. 8192 is the least that RabbitMQ 4.1 and later accept; larger bodies are split into frames.
const FRAME_BYTES: u32 = 32 * 1024;
/// Properties and headers of a message are one frame, which a broker hands over at the size at which it took it. This is
/// the most that RabbitMQ takes unless it is configured otherwise (<https://www.rabbitmq.com/docs/configure>).
const LARGE_FRAME_BYTES: u32 = 128 * 1024;

/// An open connection. Dropping it ends it at once, as the end of the process would; see [`close`](Self::close) for an
/// end in order.
pub struct Connection {
    inner: lapin::Connection,
    state: watch::Receiver<State>,
    /// A second handle on its socket.
    socket: Option<Arc<TcpStream>>,
    mended: watch::Receiver<Count>,
    server: Arc<OnceLock<Server>>,
}

impl Drop for Connection {
    /// lapin closes when the last of its handles is gone. A request that was dropped half way keeps one for ever: a
    /// consumer whose subscription was given up would take messages that nobody reads.
    fn drop(&mut self) {
        end(self.socket.as_deref());
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Open,
    /// The broker reads no more publishes: a memory or disk alarm, with its reason.
    Blocked(String),
    Lost(String),
}

/// How large frames may be: small, until one has come that is larger. Its clones are one. A message with large headers
/// ends a connection once, and not for ever.
#[derive(Debug, Clone, Default)]
pub struct Frames(Arc<AtomicBool>);

impl Frames {
    fn most_bytes(&self) -> u32 {
        if self.0.load(Relaxed) {
            LARGE_FRAME_BYTES
        } else {
            FRAME_BYTES
        }
    }

    /// Learns from what has ended a connection.
    fn learn(&self, error: &lapin::Error) {
        if let ErrorKind::ProtocolError(protocol) = error.kind()
            && *protocol.kind() == AMQPErrorKind::Hard(AMQPHardError::FRAMEERROR)
        {
            self.0.store(true, Relaxed);
        }
    }
}

/// Opens a connection that RabbitMQ's own tools show as `name`. Never retries; its owner does.
///
/// # Errors
/// [`Error::Unreachable`], [`Error::TimedOut`] after 10 s, [`Error::AccessRefused`] for a wrong user, password or
/// vhost, [`Error::Tls`].
pub async fn connect(broker: &BrokerUrl, name: &str) -> Result<Connection, Error> {
    connect_with(broker, name, &Frames::default()).await
}

/// As [`connect`], for whoever gets messages: `frames` outlives the connection.
///
/// # Errors
/// Those of [`connect`].
pub async fn connect_with(broker: &BrokerUrl, name: &str, frames: &Frames) -> Result<Connection, Error> {
    if broker.tls {
        // The first component of the process to speak TLS chooses the provider; all choose the same.
        let _already_chosen = rustls::crypto::aws_lc_rs::default_provider()
            .install_default()
            .is_err();
    }
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    // Boxed because a TLS handshake is large.
    let heard = Heard::default();
    let (mending, mended) = watch::channel(Count::default());
    let server = Arc::default();
    let listener = Listener {
        mended: mending,
        server: Arc::clone(&server),
    };
    let connecting = Box::pin(attempt::open(
        uri(broker, frames.most_bytes()),
        properties,
        heard.clone(),
        listener,
    ));
    let (inner, socket) = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_elapsed| Error::TimedOut {
            what: "the connection",
            within: CONNECT_TIMEOUT,
        })??;
    let socket = socket.map(Arc::new);
    let (sender, state) = watch::channel(State::Open);
    let mut events = inner.events_listener();
    let heartbeat = inner.configuration().heartbeat();
    let frames = frames.clone();
    let watched = socket.clone();
    // Ends with the connection: the stream does when lapin's last handle is dropped.
    tokio::spawn(async move {
        let silent = heard.until_silent(heartbeat);
        tokio::pin!(silent);
        loop {
            // Both are cancel safe.
            let event = tokio::select! {
                biased;
                event = events.next() => event,
                silence = &mut silent => {
                    // Nobody is told any more when its owner has let go of the connection.
                    let _told = sender.send(State::Lost(silent_for(silence)));
                    end(watched.as_deref());
                    return;
                }
            };
            let Some(event) = event else { return };
            let state = match event {
                Event::ConnectionBlocked(reason) => State::Blocked(reason),
                Event::ConnectionUnblocked => State::Open,
                // lapin reports the end of a channel here too; the connection survives that.
                Event::Error(error) if error.is_amqp_soft_error() => continue,
                Event::Error(error) => {
                    frames.learn(&error);
                    State::Lost(why_lost(error))
                }
                _ => continue,
            };
            let is_lost = matches!(state, State::Lost(_));
            if sender.send(state).is_err() || is_lost {
                return;
            }
        }
    });
    Ok(Connection {
        inner,
        state,
        socket,
        mended,
        server,
    })
}

impl Connection {
    /// Opens a channel.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn create_channel(&self) -> Result<lapin::Channel, Error> {
        Ok(self.inner.create_channel().await?)
    }

    /// Whether the connection can still be used.
    pub fn is_open(&self) -> bool {
        self.inner.status().connected() && !matches!(*self.state.borrow(), State::Lost(_))
    }

    /// Waits until the connection is lost and says why. Cancel safe.
    pub async fn lost(&self) -> String {
        let mut state = self.state.clone();
        match state
            .wait_for(|state| matches!(state, State::Lost(_)))
            .await
            .as_deref()
        {
            Ok(State::Lost(cause)) => cause.clone(),
            _ => "the connection was closed".to_owned(),
        }
    }

    /// Why the broker holds back publishes on this connection (an alarm), if it does.
    pub fn blocked(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Blocked(reason) => Some(reason.clone()),
            State::Open | State::Lost(_) => None,
        }
    }

    /// Waits until the broker holds back publishes on this connection and says why; for ever if it never does. Cancel
    /// safe.
    pub async fn until_blocked(&self) -> String {
        let mut state = self.state.clone();
        let blocked = state.wait_for(|state| matches!(state, State::Blocked(_))).await;
        match blocked.map(|state| state.clone()) {
            Ok(State::Blocked(reason)) => reason,
            // Lost: what waits for it hears of that by itself.
            _ => std::future::pending().await,
        }
    }

    /// Waits until the broker has not held back publishes for `time` without a break. Cancel safe.
    pub(crate) async fn unblocked_for(&self, time: Duration) {
        let mut state = self.state.clone();
        while tokio::time::timeout(time, self.until_blocked()).await.is_ok() {
            // Cannot fail but by a loss, of which what waits hears by itself.
            let _unblocked = state
                .wait_for(|state| !matches!(state, State::Blocked(_)))
                .await
                .is_ok();
        }
    }

    /// What came on it that was not legible and was mended: how much so far, and more as it comes.
    pub fn mended(&self) -> watch::Receiver<Count> {
        self.mended.clone()
    }

    /// What the broker says that it is; `None` when it does not say so in words that can be read.
    pub fn server(&self) -> Option<&Server> {
        self.server.get()
    }

    /// Closes gracefully within 3 s: what was written before is processed by the broker first.
    pub async fn close(&self) {
        // A connection that is lost already, or that does not answer, is dropped; the broker cleans up the same way.
        let _closed = tokio::time::timeout(CLOSE_TIMEOUT, self.inner.close(200, "OK".into())).await;
    }
}

fn why_lost(error: lapin::Error) -> String {
    let is_garbage = matches!(error.kind(), ErrorKind::ParsingError(_));
    let error = match Error::from(error) {
        // It did speak AMQP once.
        Error::Unreachable(_) if is_garbage => {
            Error::Unreachable("what comes from it is no AMQP any more".to_owned())
        }
        error => error,
    };
    error.to_string()
}

fn silent_for(time: Duration) -> String {
    let seconds = time.as_secs();
    let why = format!("nothing came from it for {seconds} s, not even a heartbeat");
    Error::Unreachable(why).to_string()
}

/// Ends what is left of a connection that is as good as gone: lapin lets go of it when its socket says so.
fn end(socket: Option<&TcpStream>) {
    if let Some(socket) = socket {
        // One that is closed already is as good.
        let _shut = socket.shutdown(Shutdown::Both);
    }
}

fn uri(broker: &BrokerUrl, frame_bytes: u32) -> AMQPUri {
    AMQPUri {
        scheme: if broker.tls {
            AMQPScheme::AMQPS
        } else {
            AMQPScheme::AMQP
        },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: broker.username.clone(),
                password: broker.password.reveal().to_owned(),
            },
            host: broker.host.clone(),
            port: broker.port,
        },
        vhost: broker.vhost.clone(),
        query: AMQPQueryString {
            frame_max: Some(frame_bytes),
            heartbeat: Some(broker.heartbeat.unwrap_or(HEARTBEAT_SECONDS)),
            ..AMQPQueryString::default()
        },
    }
}
