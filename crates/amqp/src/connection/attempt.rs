//! One attempt to open a connection, which costs little and can be given up.
//!
//! lapin opens a connection on a thread of its own, with its buffers, and has no way to stop that: an attempt at a
//! broker that accepts and then says nothing would keep them for as long as that lasts, and every further attempt would
//! add its own. So the socket is opened here before lapin begins, and is shut down when the attempt is dropped.

use super::heard::{Heard, Listening};
use super::reading::{Legible, Listener, Reading};
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use lapin::ConnectionProperties;
use lapin::tcp::{AMQPUriTcpExt, AsyncTcpStream, TLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::Mutex;

/// Opens a connection whose bytes are counted in `heard` and that tells `listener` what came, and returns it with a second
/// handle on its socket. Dropping the future ends the attempt.
pub(super) async fn open(
    uri: AMQPUri,
    properties: ConnectionProperties,
    heard: Heard,
    listener: Listener,
) -> lapin::Result<(lapin::Connection, Option<TcpStream>)> {
    let tokio = Tokio::current();
    let listening = Listening {
        tokio: tokio.clone(),
        heard,
    };
    let runtime = Runtime::new(RuntimeParts::new(tokio.clone(), listening.clone()));
    let plain = AMQPUri {
        scheme: AMQPScheme::AMQP,
        ..uri.clone()
    };
    let mut stream = plain.connect_async(&runtime).await?;
    let socket = match &stream {
        AsyncTcpStream::Plain(plain) => Some(plain.stream.get_ref().as_fd().try_clone_to_owned()?.into()),
        // There is no TLS yet.
        _ => None,
    };
    if uri.scheme == AMQPScheme::AMQPS {
        stream = stream.into_tls(&uri.authority.host, TLSConfig::default()).await?;
    }
    let attempt = Attempt { socket };
    // For lapin it is plain: what it reads is in clear.
    let stream = AsyncTcpStream::Plain(Legible::new(stream, listener.clone()));
    let runtime = Runtime::new(RuntimeParts::new(tokio, Reading { listening, listener }));
    let stream = Mutex::new(Some(stream));
    let hand_over = async move |_uri, _runtime| {
        let stream = stream.lock().expect("invariant: no holder panics").take();
        // There is none for a second try, which is ours to make.
        Ok(stream.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted))?)
    };
    let connection = lapin::Connection::connector(uri, runtime, hand_over, properties).await?;
    Ok((connection, attempt.succeeded()))
}

/// What lapin has begun and has not finished.
struct Attempt {
    /// A second handle on its socket.
    socket: Option<TcpStream>,
}

impl Attempt {
    /// Hands over the socket, which is the connection's own from now on.
    fn succeeded(mut self) -> Option<TcpStream> {
        self.socket.take()
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            // One that is closed already is as good.
            let _shut = socket.shutdown(Shutdown::Both);
        }
    }
}
