//! What must be true, whatever happens: kept beside the simulated broker and worker, and asked at the end.

use contract::headers;
use lapin::BasicProperties;
use lapin::types::AMQPValue;
use sidecar::{Config, Counts};
use std::collections::BTreeMap;
use std::time::Duration;

/// A confirm that takes longer may be given up and its copy published again. The sidecar waits for 30 s.
const PATIENT_CONFIRM: Duration = Duration::from_secs(29);
/// The most that one simulation may do in a second: a worker's port is tried every 2 ms at first.
const CALLS_A_SECOND: u32 = 3000;

/// What a connection and a timer may take of a timeout.
const LATE: Duration = Duration::from_millis(10);

/// What the worker answered, in the words of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Accept,
    DeadLetter,
    Retry,
    /// Retry, and it does not count.
    Throttle,
}

#[derive(Debug, Default)]
pub struct Oracle {
    messages: Vec<Message>,
    deliveries: Vec<Delivery>,
    sidecars: BTreeMap<usize, Sidecar>,
    calls: (u64, u32),
    wrongs: Vec<String>,
    faults: u32,
    /// Of workers, from when to when.
    deaths: Vec<(Duration, Duration)>,
    dead_letter: String,
    max_attempts: u32,
    timeout: Duration,
    /// Whether sidecars remember what was accepted.
    remembers: bool,
    pub totals: Totals,
}

/// What one simulation was made of.
#[derive(Debug, Default, Clone, Copy)]
pub struct Totals {
    pub messages: u64,
    pub deliveries: u64,
    pub posts: u64,
    pub duplicates: u64,
    pub faults: u64,
    pub dead_letters: u64,
    pub calls: u64,
}

impl Totals {
    pub fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.deliveries += other.deliveries;
        self.posts += other.posts;
        self.duplicates += other.duplicates;
        self.faults += other.faults;
        self.dead_letters += other.dead_letters;
        self.calls += other.calls;
    }
}

#[derive(Debug, Default)]
struct Message {
    is_confirmed: bool,
    accepted: u32,
    dead: u32,
    /// Ends of channels and timeouts after which a second copy of it may exist.
    touches: u32,
    /// Copies that say that the worker has died with it in hand.
    crashes: u32,
}

#[derive(Debug)]
struct Delivery {
    sidecar: usize,
    message: usize,
    attempts_before: u32,
    posts: u32,
    first_post: Duration,
    answer: Option<Answer>,
    /// The answer came when the sidecar had given up waiting, or nearly.
    is_late: bool,
    /// When its channel ended unsettled, and since when the sidecar can know.
    void_at: Option<Duration>,
    known_void: Option<Duration>,
    copies: u32,
    copy_is_dead: bool,
    confirmed: u32,
    slow_confirms: u32,
    is_settled: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Sidecar {
    faults: u32,
    is_forced: bool,
    posted: u64,
    accepted: u64,
    retried: u64,
    dead: u64,
    released: u64,
    requeued: u64,
}

impl Oracle {
    /// Knows what was asked of the sidecars, and nothing else yet.
    pub fn of(config: &Config) -> Self {
        Self {
            dead_letter: config.dead_letter.clone(),
            max_attempts: config.max_attempts,
            timeout: config.timeout,
            remembers: config.remember_completed > 0,
            ..Self::default()
        }
    }

    pub fn wrong(&mut self, what: String) {
        self.wrongs.push(what);
    }

    pub fn wrongs(&self) -> &[String] {
        &self.wrongs
    }

    pub fn call(&mut self, at: Duration) {
        self.totals.calls += 1;
        if self.calls.0 != at.as_secs() {
            self.calls = (at.as_secs(), 0);
        }
        self.calls.1 += 1;
        if self.calls.1 == CALLS_A_SECOND {
            self.wrong(format!("{CALLS_A_SECOND} calls within second {}", at.as_secs()));
        }
    }

    /// Something outside of this sidecar went wrong for it.
    pub fn fault(&mut self, sidecar: usize) {
        self.faults += 1;
        self.sidecars.entry(sidecar).or_default().faults += 1;
    }

    pub fn fault_of_all(&mut self) {
        self.faults += 1;
        for sidecar in self.sidecars.values_mut() {
            sidecar.faults += 1;
        }
    }

    pub fn forced(&mut self, sidecar: usize) {
        self.fault(sidecar);
        self.sidecars.entry(sidecar).or_default().is_forced = true;
    }

    pub fn faults(&self, sidecar: usize) -> u32 {
        self.sidecars.get(&sidecar).map_or(0, |sidecar| sidecar.faults)
    }

    /// The next message's number.
    pub fn message(&mut self) -> usize {
        self.messages.push(Message::default());
        self.messages.len() - 1
    }

    pub fn published(&mut self, message: usize) {
        self.messages[message].is_confirmed = true;
    }

    pub fn delivered(&mut self, sidecar: usize, message: usize, properties: &BasicProperties) -> usize {
        let header = |name: &str| match properties.headers().as_ref()?.inner().get(name)? {
            AMQPValue::LongLongInt(number) => u32::try_from(*number).ok(),
            _ => None,
        };
        self.sidecars.entry(sidecar).or_default();
        self.deliveries.push(Delivery {
            sidecar,
            message,
            attempts_before: header(headers::ATTEMPTS).unwrap_or(0),
            posts: 0,
            first_post: Duration::ZERO,
            answer: None,
            is_late: false,
            void_at: None,
            known_void: None,
            copies: 0,
            copy_is_dead: false,
            confirmed: 0,
            slow_confirms: 0,
            is_settled: false,
        });
        self.deliveries.len() - 1
    }

    /// The worker got it.
    pub fn posted(&mut self, serial: usize, attempt: u32, at: Duration) {
        self.totals.posts += 1;
        let delivery = &mut self.deliveries[serial];
        delivery.posts += 1;
        let is_first = delivery.posts == 1;
        if is_first {
            delivery.first_post = at;
        }
        let (message, expected) = (delivery.message, delivery.attempts_before + 1);
        let is_settled = delivery.is_settled;
        let is_void = delivery.void_at.is_some();
        let is_known = delivery.known_void.is_some_and(|known| at > known + LATE);
        let sidecar = self.sidecars.get_mut(&delivery.sidecar).unwrap();
        sidecar.posted += u64::from(is_first);
        // One more for each crash: a suspect may prove its innocence alone.
        let limit = self.max_attempts + self.messages[message].crashes;
        if attempt != expected || attempt > limit {
            self.wrong(format!(
                "delivery {serial} of message {message} is attempt {attempt}, expected {expected}, at most {limit}"
            ));
        }
        if is_void && is_first {
            self.messages[message].touches += 1;
        }
        if is_known && is_first {
            self.wrong(format!(
                "delivery {serial} is posted though its channel is known to be closed"
            ));
        }
        if is_settled {
            self.wrong(format!("delivery {serial} is posted after it was settled"));
        }
    }

    /// The worker has answered, in time or not.
    pub fn answered(&mut self, serial: usize, answer: Answer, at: Duration) {
        let delivery = &mut self.deliveries[serial];
        delivery.answer = Some(answer);
        delivery.is_late = at + LATE >= delivery.first_post + self.timeout;
    }

    /// A worker is dead from now until it is back.
    pub fn died(&mut self, at: Duration, back: Duration) {
        self.deaths.push((at, back));
    }

    /// Whether a worker was dead when this delivery was with one, so that the sidecar may have taken it for dead.
    fn seemed_dead(&self, serial: usize) -> bool {
        let begun = self.deliveries[serial].first_post;
        let ended = begun + self.timeout + LATE;
        self.deaths
            .iter()
            .any(|(at, back)| *at <= ended && begun <= *back + LATE)
    }

    /// What the sidecar gets to know of a delivery's void.
    pub fn told_void(&mut self, serials: &[usize], at: Duration) {
        for serial in serials {
            self.deliveries[*serial].known_void.get_or_insert(at);
        }
    }

    pub fn copied(&mut self, serial: usize, queue: &str, is_suspect: bool, at: Duration) {
        let seems_dead = self.seemed_dead(serial);
        self.messages[self.deliveries[serial].message].crashes += u32::from(is_suspect && seems_dead);
        let max_attempts = self.max_attempts;
        let is_dead = queue == self.dead_letter;
        let delivery = &mut self.deliveries[serial];
        let message = delivery.message;
        delivery.copies += 1;
        delivery.copy_is_dead = is_dead;
        if is_dead {
            self.messages[message].dead += 1;
        }
        let delivery = &self.deliveries[serial];
        if delivery.copies > 1 {
            self.messages[message].touches += 1;
            if delivery.slow_confirms == 0 {
                self.wrong(format!(
                    "delivery {serial} is copied twice without need, at {at:?}"
                ));
                return;
            }
        }
        let delivery = &self.deliveries[serial];
        let may_be_last = delivery.attempts_before + 1 >= max_attempts;
        let is_right = match delivery.answer {
            _ if delivery.is_late => true,
            Some(Answer::Accept) => false,
            Some(Answer::DeadLetter) => is_dead,
            Some(Answer::Retry) => is_dead == may_be_last,
            Some(Answer::Throttle) => !is_dead,
            None => !is_dead || may_be_last || seems_dead,
        };
        if !is_right {
            self.wrong(format!(
                "delivery {serial} is copied to {queue}: {delivery:?}",
                delivery = self.deliveries[serial]
            ));
        }
    }

    pub fn confirm_takes(&mut self, serial: usize, time: Duration) {
        self.deliveries[serial].slow_confirms += u32::from(time >= PATIENT_CONFIRM);
    }

    /// The sidecar has the confirm of its copy.
    pub fn confirmed(&mut self, serial: usize) {
        self.deliveries[serial].confirmed += 1;
    }

    fn settle(&mut self, serial: usize) {
        if std::mem::replace(&mut self.deliveries[serial].is_settled, true) {
            self.wrong(format!("delivery {serial} is settled twice"));
        }
    }

    /// Whether this sidecar's worker said yes to the same message before, and this delivery was not given to it.
    fn is_recalled(&self, serial: usize) -> bool {
        let delivery = &self.deliveries[serial];
        let is_same = |other: &&Delivery| {
            (other.sidecar, other.message) == (delivery.sidecar, delivery.message)
                && other.answer == Some(Answer::Accept)
        };
        self.remembers
            && delivery.posts == 0
            && delivery.copies == 0
            && self.deliveries.iter().any(|other| is_same(&other))
    }

    pub fn acked(&mut self, serial: usize) {
        self.settle(serial);
        let is_recalled = self.is_recalled(serial);
        let delivery = &self.deliveries[serial];
        let sidecar = self.sidecars.get_mut(&delivery.sidecar).unwrap();
        if delivery.confirmed > 0 {
            let kind = if delivery.copy_is_dead {
                &mut sidecar.dead
            } else {
                &mut sidecar.retried
            };
            *kind += 1;
        } else if is_recalled || (delivery.copies == 0 && delivery.answer == Some(Answer::Accept)) {
            sidecar.accepted += 1;
            self.messages[delivery.message].accepted += 1;
        } else {
            self.wrong(format!(
                "delivery {serial} is acknowledged before its fate is safe: {delivery:?}",
                delivery = self.deliveries[serial]
            ));
        }
    }

    pub fn released(&mut self, serial: usize) {
        self.settle(serial);
        let delivery = &self.deliveries[serial];
        self.sidecars.get_mut(&delivery.sidecar).unwrap().released += 1;
        if delivery.copies > 0 || delivery.answer.is_some() {
            self.wrong(format!(
                "delivery {serial} is given back after it was answered: {delivery:?}",
                delivery = self.deliveries[serial]
            ));
        }
    }

    /// Its channel ended before it was settled. Without a fault a sidecar settles all that it took before it closes a
    /// channel, and all that it has posted anyway.
    pub fn requeued(&mut self, serial: usize, is_excused: bool, is_closed: bool, at: Duration) {
        let delivery = &mut self.deliveries[serial];
        delivery.void_at = Some(at);
        let is_posted = delivery.posts > 0 || delivery.copies > 0;
        self.messages[delivery.message].touches += u32::from(is_posted);
        self.sidecars.get_mut(&delivery.sidecar).unwrap().requeued += 1;
        if !is_excused && (is_posted || is_closed) {
            self.wrong(format!("delivery {serial} is left unsettled without a fault"));
        }
    }

    /// The process has ended and counted so.
    pub fn ended(&mut self, sidecar: usize, counts: Counts, in_flight: u32) {
        let known = self.sidecars.get(&sidecar).copied().unwrap_or_default();
        let total = counts.accepted + counts.retried + counts.dead_lettered + counts.released + counts.lost;
        let mut expect = |is_right: bool, what: &str| {
            if !is_right {
                self.wrongs.push(format!(
                    "sidecar {sidecar} {what}: it counts {counts:?} with {in_flight} in flight, known is {known:?}"
                ));
            }
        };
        expect(in_flight == 0, "has something in flight after its end");
        expect(total >= known.posted, "counts fewer messages than it posted");
        expect(
            counts.accepted >= known.accepted
                && counts.retried >= known.retried
                && counts.dead_lettered >= known.dead,
            "counts less than it settled",
        );
        expect(
            counts.released <= known.released + known.requeued,
            "counts more than it gave back",
        );
        if known.faults == 0 {
            let settled = (counts.accepted, counts.retried, counts.dead_lettered);
            expect(
                settled == (known.accepted, known.retried, known.dead) && counts.lost == 0,
                "counts something else than it settled, without a fault",
            );
        }
    }

    /// Every message is in exactly one place, and in a second only for a reason. `remaining` are those in queues.
    pub fn conclude(&mut self, remaining: &[usize], may_remain: bool) {
        for (number, message) in self.messages.iter().enumerate() {
            let left = u32::try_from(remaining.iter().filter(|left| **left == number).count()).unwrap();
            let places = message.accepted + message.dead + left;
            let what = if message.is_confirmed && places == 0 {
                "is lost"
            } else if places > 1 + message.touches {
                "is there more often than faults explain"
            } else if left > 0 && !may_remain {
                "is stuck"
            } else {
                self.totals.duplicates += u64::from(places.saturating_sub(1));
                continue;
            };
            self.wrongs
                .push(format!("message {number} {what}: {message:?}, {left} in queues"));
        }
        self.totals.messages = self.messages.len() as u64;
        self.totals.deliveries = self.deliveries.len() as u64;
        self.totals.faults = self.faults.into();
        self.totals.dead_letters = self.messages.iter().map(|message| u64::from(message.dead)).sum();
    }
}
