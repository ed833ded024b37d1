//! What the sidecar knows of itself: counted once a message, asked for by the autoscaler, probes and people.

use crate::domain::verdict::Verdict;
use crate::telemetry::Meters;
use serde_json::json;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Where the sidecar stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// No connection to the broker yet, or not any more.
    #[default]
    Connecting,
    /// Connected, or without a queue; the worker's port does not answer.
    WaitingForWorker,
    /// Takes messages; without a queue: the worker's port answers.
    Consuming,
    /// Intake stopped; finishing what is in flight.
    Draining,
    /// Intake stopped, nothing in flight.
    Drained,
}

impl State {
    /// The word in `/status`, logs and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::WaitingForWorker => "waiting_for_worker",
            Self::Consuming => "consuming",
            Self::Draining => "draining",
            Self::Drained => "drained",
        }
    }
}

/// Messages by fate. Every message that was dispatched is in exactly one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Acknowledged because the worker said yes.
    pub accepted: u64,
    /// Copied to a retry queue.
    pub retried: u64,
    /// Copied to the dead-letter queue.
    pub dead_lettered: u64,
    /// Given back.
    pub released: u64,
    /// Handled, but the connection was gone before the broker could be told: it delivers them again.
    pub lost: u64,
}

/// A snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Where the sidecar stands.
    pub state: State,
    /// Messages with the worker now.
    pub in_flight: u32,
    /// Since when nothing is in flight; `None` while something is.
    pub idle_since: Option<Instant>,
    /// Messages by fate.
    pub counts: Counts,
    /// Mean time from dispatch to answer; zero before the first.
    pub service_time: Duration,
    /// Whether the broker is connected.
    pub broker_connected: bool,
    /// Whether the worker's port answered when it was last tried.
    pub worker_up: bool,
    /// Whether intake is stopped.
    pub draining: bool,
}

/// How a message ended, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// See [`Counts::accepted`].
    Accepted,
    /// See [`Counts::retried`].
    Retried,
    /// See [`Counts::dead_lettered`].
    DeadLettered,
    /// See [`Counts::released`].
    Released,
    /// See [`Counts::lost`].
    Lost,
}

impl Fate {
    /// The word in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Retried => "retried",
            Self::DeadLettered => "dead_lettered",
            Self::Released => "released",
            Self::Lost => "lost",
        }
    }
}

impl From<&Verdict> for Fate {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Accepted(_) => Self::Accepted,
            Verdict::Retry { .. } => Self::Retried,
            Verdict::DeadLetter { .. } => Self::DeadLettered,
            Verdict::Released(_) => Self::Released,
        }
    }
}

/// The live numbers behind [`Status`].
#[derive(Debug)]
pub struct Ledger {
    state: watch::Sender<State>,
    in_flight: AtomicU32,
    idle_since: Mutex<Option<Instant>>,
    fates: [AtomicU64; 5],
    answered: AtomicU64,
    service_microseconds: AtomicU64,
    broker_connected: AtomicBool,
    worker_up: AtomicBool,
    intake_stopped: AtomicBool,
    meters: Meters,
}

impl Ledger {
    /// Nothing has happened yet at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            state: watch::Sender::new(State::Connecting),
            in_flight: AtomicU32::new(0),
            idle_since: Mutex::new(Some(now)),
            fates: Default::default(),
            answered: AtomicU64::new(0),
            service_microseconds: AtomicU64::new(0),
            broker_connected: AtomicBool::new(false),
            worker_up: AtomicBool::new(false),
            intake_stopped: AtomicBool::new(false),
            meters: Meters::default(),
        }
    }

    /// A message goes to the worker. The returned number is how many are with it now, this one included.
    pub fn begun(&self) -> u32 {
        self.meters.begun();
        *self.idle_since.lock().expect("invariant: no holder panics") = None;
        self.in_flight.fetch_add(1, Relaxed) + 1
    }

    /// A message has left the worker, whatever its fate.
    pub fn ended(&self, now: Instant) {
        self.meters.ended();
        if self.in_flight.fetch_sub(1, Relaxed) == 1 {
            *self.idle_since.lock().expect("invariant: no holder panics") = Some(now);
        }
    }

    /// The worker took so long to answer.
    pub fn served(&self, took: Duration) {
        self.answered.fetch_add(1, Relaxed);
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.service_microseconds.fetch_add(microseconds, Relaxed);
    }

    /// Counts a message's end.
    pub fn count(&self, fate: Fate) {
        self.meters.settled(fate);
        self.fates[fate as usize].fetch_add(1, Relaxed);
    }

    /// Its metrics.
    pub(crate) fn meters(&self) -> &Meters {
        &self.meters
    }

    /// The state changed; returns whether it was another before.
    pub fn set_state(&self, state: State) -> bool {
        self.state
            .send_if_modified(|current| std::mem::replace(current, state) != state)
    }

    /// The state and its changes.
    pub fn watch_state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Waits for a state. Cancel safe.
    pub async fn until_state(&self, wanted: State) {
        ops::watching::until(&self.state, |state| *state == wanted).await;
    }

    /// The broker connection came or went.
    pub fn set_broker_connected(&self, connected: bool) {
        self.broker_connected.store(connected, Relaxed);
    }

    /// The worker's port answered or not.
    pub fn set_worker_up(&self, up: bool) {
        self.worker_up.store(up, Relaxed);
    }

    /// Intake was stopped or resumed.
    pub fn set_intake_stopped(&self, stopped: bool) {
        self.intake_stopped.store(stopped, Relaxed);
    }

    /// Messages with the worker now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Whether intake is stopped.
    pub fn is_intake_stopped(&self) -> bool {
        self.intake_stopped.load(Relaxed)
    }

    /// Everything at once.
    pub fn snapshot(&self) -> Status {
        let count = |fate: Fate| self.fates[fate as usize].load(Relaxed);
        let answered = self.answered.load(Relaxed);
        let microseconds = self
            .service_microseconds
            .load(Relaxed)
            .checked_div(answered)
            .unwrap_or(0);
        Status {
            state: *self.state.borrow(),
            in_flight: self.in_flight(),
            idle_since: *self.idle_since.lock().expect("invariant: no holder panics"),
            counts: Counts {
                accepted: count(Fate::Accepted),
                retried: count(Fate::Retried),
                dead_lettered: count(Fate::DeadLettered),
                released: count(Fate::Released),
                lost: count(Fate::Lost),
            },
            service_time: Duration::from_micros(microseconds),
            broker_connected: self.broker_connected.load(Relaxed),
            worker_up: self.worker_up.load(Relaxed),
            draining: self.is_intake_stopped(),
        }
    }
}

impl Status {
    /// The document at `/status`; `queue` is `None` when there is none, `connections` are those from outside to the
    /// worker's port when they are known, and `now` is for the idle time.
    pub fn to_json(&self, queue: Option<&str>, connections: Option<u32>, now: Instant) -> serde_json::Value {
        json!({
            "queue": queue,
            "state": self.state.as_str(),
            "in_flight": self.in_flight,
            "idle_seconds": self.idle_since.map(|since| now.saturating_duration_since(since).as_secs_f64()),
            "service_time_seconds": self.service_time.as_secs_f64(),
            "broker_connected": self.broker_connected,
            "worker_up": self.worker_up,
            "connections": connections,
            "draining": self.draining,
            "messages": {
                "accepted": self.counts.accepted,
                "retried": self.counts.retried,
                "dead_lettered": self.counts.dead_lettered,
                "released": self.counts.released,
                "lost": self.counts.lost,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_begins_with_the_last_message_in_flight() {
        let start = tokio::time::Instant::now().into_std();
        let ledger = Ledger::new(start);
        assert_eq!(ledger.snapshot().idle_since, Some(start));
        assert_eq!((ledger.begun(), ledger.begun()), (1, 2));
        let later = start + Duration::from_secs(1);
        ledger.ended(later);
        assert_eq!(ledger.snapshot().idle_since, None);
        ledger.ended(later);
        assert_eq!(
            (ledger.snapshot().idle_since, ledger.in_flight()),
            (Some(later), 0)
        );
    }

    #[test]
    fn every_fate_is_counted_by_itself() {
        let ledger = Ledger::new(tokio::time::Instant::now().into_std());
        for fate in [
            Fate::Accepted,
            Fate::Retried,
            Fate::DeadLettered,
            Fate::Released,
            Fate::Lost,
        ] {
            ledger.count(fate);
        }
        let expected = Counts {
            accepted: 1,
            retried: 1,
            dead_lettered: 1,
            released: 1,
            lost: 1,
        };
        assert_eq!(ledger.snapshot().counts, expected);
        let now = tokio::time::Instant::now().into_std();
        let document = ledger.snapshot().to_json(Some("orders"), Some(3), now);
        assert_eq!(
            (&document["queue"], &document["connections"]),
            (&"orders".into(), &3.into())
        );
        let unknown = ledger.snapshot().to_json(None, None, now);
        assert!(unknown["queue"].is_null() && unknown["connections"].is_null());
        assert_eq!(document["messages"]["dead_lettered"], 1);
        assert_eq!(document["state"], "connecting");
    }
}
