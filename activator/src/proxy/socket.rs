//! A TCP socket that more than its protocol driver can look at.
//!
//! hyper owns the socket that it serves. Two questions have to be asked of it all the same: has the caller of a
//! waiting request gone away, and has a worker closed a connection that lies idle?

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A shared TCP socket. One clone reads and writes; the others look.
#[derive(Debug, Clone)]
pub(crate) struct Socket(Arc<TcpStream>);

impl Socket {
    /// Wraps a connected stream; what is written leaves at once (`TCP_NODELAY`).
    pub(crate) fn new(stream: TcpStream) -> Self {
        // Without it the socket works all the same, only later.
        let _slower = stream.set_nodelay(true).is_err();
        Self(Arc::new(stream))
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::new(TcpStream::connect(address).await?))
    }

    /// Waits until the peer has closed its side or reset the connection, even if bytes from before lie unread, which
    /// is when hyper cannot tell. What a peer has written beyond our receive window hides its end from everybody,
    /// until it is read. Cancel safe.
    ///
    /// `Interest::PRIORITY` becomes ready with `READ_CLOSED`, without becoming ready when there is something to
    /// read. On what is not Linux it never resolves; then the wait ends with its deadline.
    pub(crate) async fn closed_by_peer(&self) {
        #[cfg(target_os = "linux")]
        if self.0.ready(Interest::PRIORITY | Interest::ERROR).await.is_ok() {
            return;
        }
        std::future::pending::<()>().await;
    }

    /// Whether an idle connection is of no use any more: the peer has closed it, or sent what nobody asked for.
    ///
    /// Asks the kernel, not the runtime: a FIN that arrived a microsecond ago is seen, although the task that drives
    /// the connection has not run yet.
    pub(crate) fn is_spent(&self) -> bool {
        let Ok(duplicate) = self.0.as_fd().try_clone_to_owned() else {
            return false;
        };
        match std::net::TcpStream::from(duplicate).peek(&mut [0]) {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read_buf(buffer) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A shutdown is the socket's, whichever of its descriptors it is asked of.
        let duplicate = std::net::TcpStream::from(self.0.as_fd().try_clone_to_owned()?);
        match duplicate.shutdown(std::net::Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = Socket::connect(listener.local_addr().unwrap());
        let (ours, theirs) = tokio::join!(connecting, listener.accept());
        (ours.unwrap(), theirs.unwrap().0)
    }

    #[tokio::test]
    async fn a_peer_that_closes_is_noticed_behind_unread_bytes() {
        let (ours, mut theirs) = pair().await;
        theirs.write_all(b"unread").await.unwrap();
        let mut closed = Box::pin(ours.closed_by_peer());
        let pending = std::future::poll_fn(|cx| Poll::Ready(closed.as_mut().poll(cx).is_pending())).await;
        assert!(pending, "bytes alone are not an end");
        drop(theirs);
        closed.await;
    }

    #[tokio::test]
    async fn an_idle_connection_is_spent_once_its_peer_says_anything_or_closes() {
        let (ours, mut theirs) = pair().await;
        assert!(!ours.is_spent());
        theirs
            .write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
            .await
            .unwrap();
        ours.0.readable().await.unwrap();
        assert!(ours.is_spent());
        let (ours, theirs) = pair().await;
        drop(theirs);
        ours.closed_by_peer().await;
        assert!(ours.is_spent());
    }

    #[tokio::test]
    async fn shutdown_ends_our_side_only() {
        let (mut ours, mut theirs) = pair().await;
        ours.write_all(b"ping").await.unwrap();
        ours.shutdown().await.unwrap();
        let mut said = String::new();
        theirs.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "ping");
        theirs.write_all(b"pong").await.unwrap();
        drop(theirs);
        said.clear();
        ours.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "pong");
    }
}
