use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const HEAD: &[u8] = b"POST /message HTTP/1.1\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
static NOTHING: Bytes = Bytes::new();
const BOUNDS: Bounds = Bounds { kept: 64, read: 64 };

/// A connection, and the worker's end of it, with so many bytes on the way at most.
fn connection(on_the_way: usize) -> (Box<Connection>, DuplexStream) {
    let (ours, workers) = duplex(on_the_way);
    (Box::new(Connection::over(Box::new(ours))), workers)
}

async fn exchange(connection: &mut Connection, body: &Bytes) -> Result<(), Broken> {
    connection
        .exchange(|head| head.extend_from_slice(HEAD), body, BOUNDS)
        .await
}

fn body(length: usize) -> Bytes {
    (0..=u8::MAX).cycle().take(length).collect()
}

fn answer(connection: &mut Connection) -> Option<(u16, Bytes)> {
    let finished = connection
        .reader()
        .finish(|status, _, body| (status.as_u16(), body.bytes.clone()));
    finished.map(|finished| finished.answer)
}

#[tokio::test]
async fn head_and_body_arrive_byte_for_byte_whatever_their_length() {
    for on_the_way in [1, 7, 100_000] {
        let (mut connection, mut worker) = connection(on_the_way);
        for length in [0, 1, COPIED_BYTES, COPIED_BYTES + 1, 5 * COPIED_BYTES] {
            let body = body(length);
            let serving = async {
                let mut received = vec![0; HEAD.len() + length];
                worker.read_exact(&mut received).await.unwrap();
                worker.write_all(OK).await.unwrap();
                received
            };
            let (received, exchanged) = tokio::join!(serving, exchange(&mut connection, &body));
            assert!(received == [HEAD, &body].concat(), "{length} bytes");
            assert_eq!((exchanged, connection.sent()), (Ok(()), Sent::Wholly));
            assert_eq!(answer(&mut connection), Some((200, Bytes::from_static(b"ok"))));
        }
    }
}

#[tokio::test]
async fn a_request_that_is_answered_early_is_sent_to_its_end() {
    let (mut connection, mut worker) = connection(64);
    let body = body(10 * COPIED_BYTES);
    worker.write_all(OK).await.unwrap();
    assert_eq!(exchange(&mut connection, &body).await, Ok(()));
    assert_eq!(connection.sent(), Sent::Partly);
    assert_eq!(answer(&mut connection), Some((200, Bytes::from_static(b"ok"))));
    let mut received = Vec::new();
    let (read, ()) = tokio::join!(worker.read_to_end(&mut received), connection.send_rest());
    assert_eq!(read.unwrap(), HEAD.len() + body.len());
}

#[tokio::test]
async fn what_breaks_says_how_far_it_came() {
    for (answer, expected) in [
        (&b""[..], Broken::BeforeAnswer),
        (b"HTTP/1.1 200 OK\r\ncontent-", Broken::MidAnswer),
        (b"HTTP/1.1 100 Continue\r\n\r\n", Broken::BeforeAnswer),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no",
            Broken::MidAnswer,
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Broken::NotHttp),
    ] {
        let (mut connection, mut worker) = connection(1024);
        let serving = async move {
            worker.read_exact(&mut vec![0; HEAD.len()]).await.unwrap();
            worker.write_all(answer).await.unwrap();
        };
        let ((), broken) = tokio::join!(serving, exchange(&mut connection, &NOTHING));
        assert_eq!(broken, Err(expected), "{}", answer.escape_ascii());
    }
    let (mut connection, worker) = connection(1024);
    drop(worker);
    assert_eq!(
        exchange(&mut connection, &Bytes::new()).await,
        Err(Broken::Unsent)
    );
}

#[tokio::test]
async fn only_a_quiet_connection_is_used_again() {
    let (mut closed, worker) = connection(64);
    assert!(closed.is_quiet());
    drop(worker);
    assert!(!closed.is_quiet());
    // As servers do that close after a while.
    let (mut told, mut worker) = connection(64);
    worker
        .write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        .await
        .unwrap();
    assert!(!told.is_quiet());
}
