//! Ten million random orders of settling against what RabbitMQ would accept: the acknowledgement window never covers an
//! unsettled tag, never writes a tag twice, ends a `multiple` at an outstanding tag only, and writes everything.
//!
//! An order is what befalls a run of up to 24 deliveries of one channel: each is handed out and settled, by
//! acknowledgement or release, in any order, with flushes at any moment. It is drawn from its own seed;
//! `KUBEDAEMON_SEED=<seed>` runs that one alone.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use fastrand::Rng;
use sidecar::domain::ack_window::{AckWindow, Tag, Write};
use std::time::Instant;

const ORDERS: u64 = 10_000_000;
const MOST_DELIVERIES: u64 = 24;

/// What is tested, so that broken ones can be put in its place.
trait Window {
    fn ack(&mut self, tag: Tag, now: Instant) -> bool;
    fn release(&mut self, tag: Tag) -> Option<Write>;
    fn flush(&mut self) -> Vec<Write>;
    fn pending(&self) -> usize;
}

impl Window for AckWindow {
    fn ack(&mut self, tag: Tag, now: Instant) -> bool {
        self.ack(tag, now)
    }

    fn release(&mut self, tag: Tag) -> Option<Write> {
        self.release(tag)
    }

    fn flush(&mut self) -> Vec<Write> {
        self.flush()
    }

    fn pending(&self) -> usize {
        self.pending()
    }
}

/// What RabbitMQ and we know of one channel; tag `t` is bit `t` of each set.
#[derive(Debug, Default)]
struct Channel {
    outstanding: u64,
    settled: u64,
}

impl Channel {
    /// Takes a write as RabbitMQ would, and says what is wrong with it.
    fn take(&mut self, write: Write) -> Result<(), String> {
        let (Write::Ack { tag, .. } | Write::Release { tag }) = write;
        let bit = u32::try_from(tag)
            .ok()
            .and_then(|tag| 1_u64.checked_shl(tag))
            .unwrap_or(0);
        if self.outstanding & bit == 0 {
            return Err(format!(
                "{write:?}: unknown delivery tag, RabbitMQ closes the channel"
            ));
        }
        let covered = match write {
            Write::Ack { multiple: true, .. } => self.outstanding & (bit | (bit - 1)),
            Write::Ack { multiple: false, .. } | Write::Release { .. } => bit,
        };
        if covered & !self.settled != 0 {
            return Err(format!(
                "{write:?} covers unsettled tags: bits {:b}",
                covered & !self.settled
            ));
        }
        self.outstanding &= !covered;
        Ok(())
    }

    /// The open tag at `position`, counted from the lowest.
    fn open(&self, position: u64) -> Tag {
        let mut open = self.outstanding & !self.settled;
        for _ in 0..position {
            open &= open - 1;
        }
        u64::from(open.trailing_zeros())
    }

    fn count_open(&self) -> u64 {
        u64::from((self.outstanding & !self.settled).count_ones())
    }
}

/// Runs the order of `seed`; returns how many deliveries and writes it had, or what is wrong.
fn run(seed: u64, mut window: impl Window, now: Instant) -> Result<(u64, u64), String> {
    let mut rng = Rng::with_seed(seed);
    let deliveries = rng.u64(1..=MOST_DELIVERIES);
    // From nearly strict order to none, from no releases to many, from a flush a step to hardly any.
    let (reach, release_percent, flush_percent) = (rng.u64(1..=12), rng.u8(0..40), rng.u8(1..60));
    let (mut channel, mut handed_out, mut writes) = (Channel::default(), 0, 0);
    while handed_out < deliveries || channel.count_open() > 0 {
        let open = channel.count_open();
        if handed_out < deliveries && (open == 0 || (open < reach && rng.bool())) {
            handed_out += 1;
            channel.outstanding |= 1 << handed_out;
        } else {
            let tag = channel.open(rng.u64(0..open));
            channel.settled |= 1 << tag;
            if rng.u8(0..100) < release_percent {
                let write = window
                    .release(tag)
                    .ok_or(format!("{tag} is open, its release was refused"))?;
                channel.take(write)?;
                writes += 1;
            } else if !window.ack(tag, now) {
                return Err(format!("{tag} is open, its acknowledgement was refused"));
            }
            if rng.u8(..) < 16 && (window.ack(tag, now) || window.release(tag).is_some()) {
                return Err(format!("{tag} could be settled twice"));
            }
        }
        if rng.u8(0..100) < flush_percent {
            for write in window.flush() {
                channel.take(write)?;
                writes += 1;
            }
            if channel.outstanding & channel.settled != 0 || window.pending() != 0 {
                return Err("a flush has left settled tags unwritten".to_owned());
            }
        }
    }
    for write in window.flush() {
        channel.take(write)?;
        writes += 1;
    }
    if channel.outstanding != 0 || window.pending() != 0 || !window.flush().is_empty() {
        return Err(format!("at the end {:b} are unwritten", channel.outstanding));
    }
    Ok((deliveries, writes))
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The seed to replay, if one is given.
fn given_seed() -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "how a run of the tests is steered")]
    let given = std::env::var("KUBEDAEMON_SEED").ok()?;
    Some(given.parse().expect("KUBEDAEMON_SEED is a number"))
}

#[test]
fn ten_million_orders_are_written_as_rabbitmq_accepts() {
    let now = now();
    if let Some(seed) = given_seed() {
        println!("order {seed}: {:?}", run(seed, AckWindow::new(), now).unwrap());
        return;
    }
    let first = fastrand::u64(..u64::MAX / 2);
    let (mut deliveries, mut writes) = (0, 0);
    for seed in first..first + ORDERS {
        match run(seed, AckWindow::new(), now) {
            Ok((these, written)) => {
                deliveries += these;
                writes += written;
            }
            Err(wrong) => panic!(
                "{wrong}\nreplay: KUBEDAEMON_SEED={seed} cargo test -p sidecar --test ack_orders -- --nocapture"
            ),
        }
    }
    println!(
        "{ORDERS} orders from seed {first}: {deliveries} deliveries settled by {writes} frames, every one accepted"
    );
}

/// How a window is broken on purpose.
#[derive(Debug, Clone, Copy)]
enum Fault {
    EveryAckIsMultiple,
    EveryWriteTwice,
    MultipleEndsOneLater,
    LastWriteForgotten,
    SettlesTwice,
}

struct Broken {
    window: AckWindow,
    fault: Fault,
}

impl Window for Broken {
    fn ack(&mut self, tag: Tag, now: Instant) -> bool {
        self.window.ack(tag, now) || matches!(self.fault, Fault::SettlesTwice)
    }

    fn release(&mut self, tag: Tag) -> Option<Write> {
        self.window.release(tag)
    }

    fn flush(&mut self) -> Vec<Write> {
        let mut writes = self.window.flush();
        match self.fault {
            Fault::EveryAckIsMultiple => {
                for write in &mut writes {
                    if let Write::Ack { multiple, .. } = write {
                        *multiple = true;
                    }
                }
            }
            Fault::EveryWriteTwice => writes = writes.iter().flat_map(|write| [*write, *write]).collect(),
            Fault::MultipleEndsOneLater => {
                for write in &mut writes {
                    if let Write::Ack { tag, multiple: true } = write {
                        *tag += 1;
                    }
                }
            }
            Fault::LastWriteForgotten => drop(writes.pop()),
            Fault::SettlesTwice => {}
        }
        writes
    }

    fn pending(&self) -> usize {
        self.window.pending()
    }
}

#[test]
fn every_broken_window_is_found_within_a_hundred_orders() {
    for fault in [
        Fault::EveryAckIsMultiple,
        Fault::EveryWriteTwice,
        Fault::MultipleEndsOneLater,
        Fault::LastWriteForgotten,
        Fault::SettlesTwice,
    ] {
        let broken = || Broken {
            window: AckWindow::new(),
            fault,
        };
        let found = (1..=100).find_map(|seed| run(seed, broken(), now()).err().map(|wrong| (seed, wrong)));
        let (seed, wrong) = found.unwrap_or_else(|| panic!("{fault:?} is not found"));
        println!("{fault:?}: found by order {seed}: {wrong}");
    }
}
