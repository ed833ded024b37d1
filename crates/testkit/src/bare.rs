//! A publisher without an AMQP library: its messages have whatever properties it is given, byte for byte.

use crate::Broker;
use crate::toxic::{method, text};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
const END: u8 = 0xCE;
/// The most that RabbitMQ offers.
const FRAME_MAX: u32 = 128 * 1024;
const CHANNEL: u16 = 1;

/// A connection with one channel that has publisher confirms. Panics when the broker does not speak as AMQP has it.
#[derive(Debug)]
pub struct BarePublisher {
    stream: TcpStream,
}

impl BarePublisher {
    /// Connects as `guest`.
    pub async fn connect(broker: &Broker) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", broker.port())).await;
        let mut publisher = Self {
            stream: stream.expect("the broker accepts"),
        };
        publisher.open().await.expect("the broker lets a guest in");
        publisher
    }

    async fn open(&mut self) -> io::Result<()> {
        self.stream.write_all(b"AMQP\0\0\x09\x01").await?;
        self.until((10, 10)).await;
        let login = long(b"\0guest\0guest");
        let start_ok = [&long(b"")[..], &text(b"PLAIN"), &login, &text(b"en_US")].concat();
        self.stream.write_all(&method(0, 10, 11, &start_ok)).await?;
        self.until((10, 30)).await;
        // No heartbeats.
        let tune_ok = [&CHANNEL.to_be_bytes()[..], &FRAME_MAX.to_be_bytes(), &[0, 0]].concat();
        self.stream.write_all(&method(0, 10, 31, &tune_ok)).await?;
        let open = [&text(b"/")[..], &[0, 0]].concat();
        self.stream.write_all(&method(0, 10, 40, &open)).await?;
        self.until((10, 41)).await;
        self.stream.write_all(&method(CHANNEL, 20, 10, &[0])).await?;
        self.until((20, 11)).await;
        self.stream.write_all(&method(CHANNEL, 85, 10, &[0])).await?;
        self.until((85, 11)).await;
        Ok(())
    }

    /// Publishes, and waits for the broker's confirm. `properties` begin with their flags, as AMQP 0-9-1 has them in
    /// 4.2.6.1. The body is one frame.
    ///
    /// # Errors
    /// With the broker's words when it does not take the message; the connection is of no more use then.
    pub async fn publish(
        &mut self,
        exchange: &str,
        routing_key: &[u8],
        properties: &[u8],
        body: &[u8],
    ) -> Result<(), String> {
        let publish = [&[0, 0][..], &text(exchange.as_bytes()), &text(routing_key), &[0]].concat();
        let header = [&[0, 60, 0, 0][..], &(body.len() as u64).to_be_bytes(), properties].concat();
        let message = [
            &method(CHANNEL, 60, 40, &publish)[..],
            &frame(HEADER, &header),
            &frame(BODY, body),
        ]
        .concat();
        // A broker that is closing does not read; what it said before tells why.
        let _sent = self.stream.write_all(&message).await;
        match self.next().await {
            ((60, 80), _) => Ok(()),
            // The code, and a short string.
            ((10, 50) | (20, 40), said) => {
                Err(String::from_utf8_lossy(&said[3..said.len() - 4]).into_owned())
            }
            (other, _) => panic!("the broker says {other:?} and confirms nothing"),
        }
    }

    async fn until(&mut self, wanted: (u16, u16)) {
        let (method, said) = self.next().await;
        let said = String::from_utf8_lossy(&said);
        assert_eq!(method, wanted, "the broker says {said}");
    }

    /// The next method, and its arguments.
    async fn next(&mut self) -> ((u16, u16), Vec<u8>) {
        loop {
            let mut head = [0; 7];
            let read = self.stream.read_exact(&mut head).await;
            read.expect("the broker says something");
            let [frame_type, _, _, length @ ..] = head;
            let length = usize::try_from(u32::from_be_bytes(length)).expect("lengths fit");
            let mut payload = vec![0; length + 1];
            let read = self.stream.read_exact(&mut payload).await;
            read.expect("the broker says all of it");
            if frame_type == HEARTBEAT {
                continue;
            }
            let number = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
            return ((number(0), number(2)), payload[4..length].to_vec());
        }
    }
}

fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a long string fits into a frame");
    [&length.to_be_bytes(), bytes].concat()
}

fn frame(frame_type: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = CHANNEL.to_be_bytes();
    [&[frame_type, high, low][..], &long(payload), &[END]].concat()
}
