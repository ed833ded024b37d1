//! One connection through the proxy: a pump each way.

use super::frame::{Frame, close, method, text};
use super::{Fault, Harm, Inject, Role, Shared, Way};
use bytes::{Bytes, BytesMut};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// Pieces on their way: enough that latency does not limit the rate.
const ON_THE_WAY: usize = 4096;

/// What both pumps know of the connection.
#[derive(Default)]
struct Known {
    /// The channel that subscribed last, and its consumer's tag.
    consumer: Option<(u16, Bytes)>,
    publishes: bool,
    is_open: bool,
    /// Bytes of this way were swallowed: the rest is worth nothing.
    dead: [bool; 2],
    /// The side that this way comes from has ended, and nobody heard of it.
    ended_unheard: [bool; 2],
    /// The number of the fault that harmed it last.
    harmed_by: u64,
    /// Channels that the client was told are closed, and the broker was not.
    closing: Vec<u16>,
}

struct Link<'a> {
    shared: &'a Shared,
    known: Mutex<Known>,
}

impl Link<'_> {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self) -> (u64, Fault) {
        self.shared.fault.borrow().clone()
    }

    /// Whether the fault with this number has not harmed this connection before; it has from now on.
    fn is_first_harm(&self, number: u64) -> bool {
        let is_first = std::mem::replace(&mut self.known().harmed_by, number) != number;
        if is_first {
            self.shared.record().harmed += 1;
        }
        is_first
    }

    fn die(&self, way: Way, number: u64) {
        self.known().dead[way as usize] = true;
        self.is_first_harm(number);
    }
}

/// Bytes on their way.
struct Piece {
    due: Instant,
    bytes: Bytes,
    then_end: bool,
}

pub(super) async fn run(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    let fault = shared.fault.borrow().1.clone();
    match fault {
        Fault::Refuse | Fault::Silent => shared.record().harmed += 1,
        _ => return forward(client, shared).await,
    }
    if matches!(fault, Fault::Refuse) {
        return Ok(());
    }
    let mut changes = shared.fault.subscribe();
    let mut heard = BytesMut::new();
    tokio::select! {
        // Until it is healed, or the client has had enough.
        _healed = changes.changed() => {}
        () = async { while client.read_buf(&mut heard).await.is_ok_and(|n| n > 0) {} } => {}
    }
    Ok(())
}

async fn forward(client: TcpStream, shared: &Shared) -> io::Result<()> {
    let broker = TcpStream::connect(shared.upstream).await?;
    broker.set_nodelay(true)?;
    let link = Link {
        shared,
        known: Mutex::default(),
    };
    // One that was set before is about others, unless it is about frames to come.
    if matches!(link.fault().1, Fault::Reset) {
        link.known().harmed_by = link.fault().0;
    }
    let (client_reads, client_writes) = client.into_split();
    let (broker_reads, broker_writes) = broker.into_split();
    let (up, up_pieces) = mpsc::channel(ON_THE_WAY);
    let (down, down_pieces) = mpsc::channel(ON_THE_WAY);
    let reset = until_reset(&link);
    let pumps = async {
        // The end of one way ends the other, unless it vanished.
        tokio::select! {
            end = pump(&link, Way::Up, client_reads, up) => end,
            end = pump(&link, Way::Down, broker_reads, down) => end,
            end = write(&link, Way::Up, broker_writes.as_ref(), up_pieces) => end,
            end = write(&link, Way::Down, client_writes.as_ref(), down_pieces) => end,
        }
    };
    tokio::select! {
        () = reset => {
            client_writes.as_ref().set_zero_linger()?;
            broker_writes.as_ref().set_zero_linger()?;
            // Dropping them would tell an orderly end first.
            client_writes.forget();
            broker_writes.forget();
        }
        end = pumps => end?,
    }
    Ok(())
}

async fn until_reset(link: &Link<'_>) {
    let mut changes = link.shared.fault.subscribe();
    loop {
        let (number, fault) = link.fault();
        if matches!(fault, Fault::Reset) && link.is_first_harm(number) {
            return;
        }
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// One way of a connection: reads, and decides on every frame.
struct Pump<'a> {
    link: &'a Link<'a>,
    way: Way,
    to: mpsc::Sender<Piece>,
    buffer: BytesMut,
    last_due: Instant,
    swallowing: bool,
    has_begun: bool,
    was_blocked: bool,
}

/// Returns when the side has ended and that may be told to the other.
async fn pump(link: &Link<'_>, way: Way, mut from: OwnedReadHalf, to: mpsc::Sender<Piece>) -> io::Result<()> {
    let mut changes = link.shared.fault.subscribe();
    let mut pump = Pump {
        link,
        way,
        to,
        buffer: BytesMut::new(),
        last_due: Instant::now(),
        swallowing: false,
        has_begun: false,
        was_blocked: false,
    };
    loop {
        let (number, fault) = link.fault();
        if pump.holds_back(number, &fault).await? {
            link.is_first_harm(number);
            // Until it is healed.
            let _changed = changes.changed().await;
            continue;
        }
        let read = tokio::select! {
            _changed = changes.changed() => continue,
            read = from.read_buf(&mut pump.buffer) => read,
        };
        let (number, fault) = link.fault();
        if matches!(fault, Fault::BlackHole(ways) if ways.contains(&way)) {
            link.die(way, number);
        }
        let ended = read.map_or(true, |read| read == 0);
        if link.known().dead[way as usize] {
            pump.buffer.clear();
            if ended {
                // Nobody hears of it; the other side finds out by itself, and then nobody is left.
                link.known().ended_unheard[way as usize] = true;
                if link.known().ended_unheard == [true; 2] {
                    return Ok(());
                }
                std::future::pending::<()>().await;
            }
        } else if ended {
            // What is on its way still arrives.
            drop(pump);
            return std::future::pending().await;
        } else {
            pump.pass_on(number, &fault).await?;
        }
    }
}

impl Pump<'_> {
    /// Before anything is read: what the fault puts in between, and whether it lets nothing be read.
    async fn holds_back(&mut self, number: u64, fault: &Fault) -> io::Result<bool> {
        if let Some(bytes) = injected(self.link, self.way, number, fault) {
            self.send(bytes, self.last_due, false).await?;
        }
        let is_blocked = matches!(fault, Fault::Blocked(_)) && self.link.known().publishes;
        if self.way == Way::Down && is_blocked != self.was_blocked {
            self.was_blocked = is_blocked;
            // connection.blocked and connection.unblocked
            let bytes = match fault {
                Fault::Blocked(why) => method(0, 10, 60, &text(why.as_bytes())),
                _ => method(0, 10, 61, &[]),
            };
            self.send(bytes, self.last_due, false).await?;
        }
        Ok(match fault {
            Fault::Stall(ways) => ways.contains(&self.way),
            Fault::Blocked(_) => is_blocked && self.way == Way::Up,
            _ => false,
        })
    }

    /// Whatever of the buffer may be passed on.
    async fn pass_on(&mut self, number: u64, fault: &Fault) -> io::Result<()> {
        if matches!(fault, Fault::SlowBytes(..)) {
            let bytes = self.buffer.split().freeze();
            return self.send(bytes, Instant::now(), false).await;
        }
        if self.way == Way::Up && !self.has_begun {
            if self.buffer.len() < 8 {
                return Ok(());
            }
            self.has_begun = true;
            // `AMQP0091`, or the first bytes of something else, which passes as it is.
            let bytes = self.buffer.split_to(8).freeze();
            self.send(bytes, Instant::now(), false).await?;
        }
        while let Some(frame) = Frame::take(&mut self.buffer) {
            learn(self.link, self.way, &frame);
            let judged = judge(self.link, self.way, frame, number, fault, &mut self.swallowing);
            let Some((bytes, later, then_end)) = judged else {
                continue;
            };
            self.link.shared.record().bytes[self.way as usize] += bytes.len() as u64;
            self.last_due = self.last_due.max(Instant::now() + later);
            self.send(bytes, self.last_due, then_end).await?;
        }
        Ok(())
    }

    async fn send(&self, bytes: Bytes, due: Instant, then_end: bool) -> io::Result<()> {
        let piece = Piece { due, bytes, then_end };
        let sent = self.to.send(piece).await;
        sent.map_err(|_ended| io::ErrorKind::BrokenPipe.into())
    }
}

/// What passing frames tell about the connection.
fn learn(link: &Link<'_>, way: Way, frame: &Frame) {
    let mut known = link.known();
    match (way, frame.method()) {
        // basic.consume-ok
        (Way::Down, Some((60, 21))) => {
            known.consumer = frame.first_text().map(|tag| (frame.channel(), tag));
        }
        // confirm.select-ok
        (Way::Down, Some((85, 11))) => known.publishes = true,
        // connection.open-ok
        (Way::Down, Some((10, 41))) => known.is_open = true,
        _ => {}
    }
}

/// What becomes of a frame: its bytes, how much later they come, and whether the connection ends behind them.
fn judge(
    link: &Link<'_>,
    way: Way,
    mut frame: Frame,
    number: u64,
    fault: &Fault,
    swallowing: &mut bool,
) -> Option<(Bytes, Duration, bool)> {
    let is_method = |class, number| way == Way::Down && frame.method() == Some((class, number));
    let mut later = Duration::ZERO;
    match fault {
        Fault::Latency(base, jitter) => {
            link.is_first_harm(number);
            later = *base + jitter.mul_f64(fastrand::f64());
        }
        Fault::NoHeartbeats(ways) if ways.contains(&way) && frame.is_heartbeat() => return None,
        Fault::Swallow(class, method) if is_method(*class, *method) => {
            *swallowing = true;
            link.is_first_harm(number);
            return None;
        }
        Fault::Delay(class, method, time) if is_method(*class, *method) => {
            link.is_first_harm(number);
            later = *time;
        }
        Fault::SlowHandshake(time) if !link.known().is_open => {
            link.is_first_harm(number);
            later = *time;
        }
        Fault::Harm(class, method, harm) if is_method(*class, *method) && link.is_first_harm(number) => {
            let end = frame.0.len() - 1;
            match harm {
                Harm::EndInside => {
                    frame.0.truncate(end / 2);
                    return Some((frame.0.freeze(), later, true));
                }
                Harm::WrongEnd => frame.0[end] = 0,
                Harm::WrongType => frame.0[0] = 7,
                Harm::Length(length) => {
                    frame.0[3..7].copy_from_slice(&length.to_be_bytes());
                    frame.0.resize(*length as usize + 7, 0);
                    frame.0.extend_from_slice(&[0xCE]);
                }
            }
        }
        _ => {}
    }
    // Its content goes with it, whatever comes to be wrong meanwhile.
    if way == Way::Down && *swallowing {
        *swallowing = frame.is_content();
        if *swallowing {
            return None;
        }
    }
    // The client confirms that a channel is closed of which the broker knows nothing yet.
    let channel = frame.channel();
    let known = &mut link.known().closing;
    let position = known.iter().position(|closing| *closing == channel);
    match (way, frame.method(), position) {
        (Way::Up, Some((20, 41)), Some(_)) => {
            return Some((method(channel, 20, 40, &close(200, "OK")), later, false));
        }
        (Way::Down, Some((20, 41)), Some(position)) => {
            known.swap_remove(position);
            return None;
        }
        // A broker that has closed a channel sends nothing on it any more.
        (Way::Down, _, Some(_)) => return None,
        _ => {}
    }
    Some((frame.0.freeze(), later, false))
}

/// What comes down that the broker never sent.
fn injected(link: &Link<'_>, way: Way, number: u64, fault: &Fault) -> Option<Bytes> {
    let Fault::Inject(role, inject) = fault else {
        return None;
    };
    let (consumer, publishes) = {
        let known = link.known();
        (known.consumer.clone(), known.publishes)
    };
    let has_role = match role {
        Role::Any => true,
        Role::Consuming => consumer.is_some(),
        Role::Publishing => publishes,
    };
    if way != Way::Down || !has_role || !link.known().is_open || !link.is_first_harm(number) {
        return None;
    }
    let (channel, tag) = consumer.unwrap_or((0, Bytes::new()));
    Some(match inject {
        Inject::ChannelClose(code, why) => {
            link.known().closing.push(channel);
            method(channel, 20, 40, &close(*code, why))
        }
        Inject::ConnectionClose(code, why) => method(0, 10, 50, &close(*code, why)),
        Inject::Cancel => {
            let mut arguments = text(&tag);
            arguments.push(1);
            method(channel, 60, 30, &arguments)
        }
        Inject::Method(on_channel, class, number, arguments) => {
            method(if *on_channel { channel } else { 0 }, *class, *number, arguments)
        }
    })
}

/// Writes what is due, in the manner of the fault. Returns when the other side has ended.
async fn write(
    link: &Link<'_>,
    way: Way,
    to: &TcpStream,
    mut pieces: mpsc::Receiver<Piece>,
) -> io::Result<()> {
    while let Some(piece) = pieces.recv().await {
        sleep_until(piece.due).await;
        let mut rest = piece.bytes;
        while !rest.is_empty() {
            if link.known().dead[way as usize] {
                break;
            }
            let (number, fault) = link.fault();
            let (length, pause) = match fault {
                Fault::OneByteWrites => (1, Duration::ZERO),
                Fault::Resplit => (
                    fastrand::usize(1..600),
                    Duration::from_millis(fastrand::u64(0..3)),
                ),
                Fault::Bandwidth(rate) => (rate as usize / 20, Duration::from_millis(50)),
                Fault::SlowBytes(length, pause) => (length, pause),
                _ => (rest.len(), Duration::ZERO),
            };
            if length < rest.len() {
                link.is_first_harm(number);
            }
            let chunk = rest.split_to(length.min(rest.len()));
            write_all(to, &chunk).await?;
            sleep(pause).await;
        }
        if piece.then_end {
            return Ok(());
        }
    }
    Ok(())
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
