//! One attempt to open a connection, which can be given up.
//!
//! lapin opens a connection on a thread of its own and has no way to stop that: an attempt at a broker that accepts and
//! then says nothing would keep its thread, its buffers and its socket for as long as that lasts, and every further
//! attempt would add its own. So the socket is opened here, and shut down when the attempt is dropped.

use super::CONNECT_TIMEOUT;
use lapin::ConnectionProperties;
use lapin::tcp::{AMQPUriTcpExt, AsyncTcpStream, TLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, Weak};

/// A second handle on the socket, from when there is one until the attempt is over.
type Slot = Mutex<Option<TcpStream>>;

#[derive(Default)]
struct Attempt {
    socket: Arc<Slot>,
}

/// Opens a connection. Dropping the future ends the attempt.
pub(super) async fn open(uri: AMQPUri, properties: ConnectionProperties) -> lapin::Result<lapin::Connection> {
    let attempt = Attempt::default();
    let slot = Arc::downgrade(&attempt.socket);
    let runtime = lapin::runtime::default_runtime()?;
    let connecting = lapin::Connection::connector(
        uri,
        runtime,
        async move |uri, runtime| {
            let connecting = async {
                let plain = AMQPUri {
                    scheme: AMQPScheme::AMQP,
                    ..uri.clone()
                };
                let stream = plain.connect_async(&runtime).await?;
                if let AsyncTcpStream::Plain(socket) = &stream {
                    keep(socket.get_ref().as_fd(), &slot)?;
                }
                match uri.scheme {
                    AMQPScheme::AMQP => Ok(stream),
                    AMQPScheme::AMQPS => stream.into_tls(&uri.authority.host, TLSConfig::default()).await,
                }
            };
            // Nobody can end this part from outside, so it ends itself.
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
            Ok(connected.map_err(io::Error::from)??)
        },
        properties,
    );
    let connection = connecting.await?;
    attempt.succeeded();
    Ok(connection)
}

/// Leaves a second handle on a socket in `slot`.
fn keep(socket: BorrowedFd<'_>, slot: &Weak<Slot>) -> io::Result<()> {
    // Gone when the attempt was given up in the meantime.
    let slot = slot.upgrade().ok_or(io::ErrorKind::ConnectionAborted)?;
    let socket = TcpStream::from(socket.try_clone_to_owned()?);
    *slot.lock().expect("invariant: no holder panics") = Some(socket);
    Ok(())
}

impl Attempt {
    /// Lets go of the socket, which is the connection's own from now on.
    fn succeeded(self) {
        *self.socket.lock().expect("invariant: no holder panics") = None;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.lock().expect("invariant: no holder panics").take() {
            // One that is closed already is as good.
            let _shut = socket.shutdown(Shutdown::Both);
        }
    }
}
