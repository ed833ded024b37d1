//! The life of one worker process, from its start to its restart: `starting` → `ready` → (it exits) → `restarting`
//! or `crash-loop` → `starting` …
//!
//! Like a pod with `restartPolicy: Always`: a worker that exits is started again whatever its exit status, with a
//! growing delay. The delay itself is drawn outside; this says when it begins anew.

use std::fmt;
use std::time::{Duration, Instant};

/// A worker that was ready for this long and then exits is restarted as if for the first time.
pub(crate) const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// A worker that runs but does not listen for this long is told about, because the usual cause is a fixed port.
pub(crate) const SLOW_START_AFTER: Duration = Duration::from_secs(5);

/// What a worker process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It runs, but its port does not accept connections yet.
    Starting,
    /// Its port accepts connections.
    Ready,
    /// It exited once and is started again in a moment.
    Restarting,
    /// It exited or could not be started again and again; the next start waits longer.
    CrashLoop,
    /// It was told to end.
    Stopping,
}

impl State {
    /// As `/status` writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Restarting => "restarting",
            Self::CrashLoop => "crash-loop",
            Self::Stopping => "stopping",
        }
    }
}

/// How a worker process ended, or why it never began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The command cannot be executed; a sentence that names it.
    CannotStart(String),
    /// It exited with this status.
    Exited(i32),
    /// A signal ended it.
    Killed(i32),
    /// It was not started, because another program listens on its port and would get its messages.
    PortTaken(u16),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CannotStart(sentence) => f.write_str(sentence),
            Self::Exited(code) => write!(f, "it exited with status {code}"),
            Self::Killed(signal) => write!(f, "signal {signal} ended it"),
            Self::PortTaken(port) => write!(f, "another program listens on its port {port}"),
        }
    }
}

/// Whether the delay before the next start grows or begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delay {
    /// It was healthy for a while before it failed.
    Anew,
    /// It failed soon after the last failure.
    Longer,
}

/// Where a worker process stands, and what went wrong since it was last healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    state: State,
    since: Instant,
    /// Without a healthy while in between.
    failures: u32,
    last_failure: Option<Failure>,
    /// It has been starting for [`SLOW_START_AFTER`].
    is_slow: bool,
}

impl Life {
    /// A process that is being started.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: State::Starting,
            since: now,
            failures: 0,
            last_failure: None,
            is_slow: false,
        }
    }

    /// What it is doing.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Since when.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// The delay is over and it is started again.
    pub(crate) fn started(&mut self, now: Instant) {
        self.enter(State::Starting, now);
    }

    /// Its port accepts.
    pub(crate) fn accepts(&mut self, now: Instant) {
        self.enter(State::Ready, now);
    }

    /// It still does not listen after [`SLOW_START_AFTER`].
    pub(crate) fn is_slow_to_start(&mut self) {
        self.is_slow = true;
    }

    /// It was told to end.
    pub(crate) fn stops(&mut self, now: Instant) {
        self.enter(State::Stopping, now);
    }

    /// It ended by itself or could not be started.
    pub(crate) fn failed(&mut self, failure: Failure, now: Instant) -> Delay {
        let was_healthy =
            self.state == State::Ready && now.saturating_duration_since(self.since) >= HEALTHY_AFTER;
        self.failures = if was_healthy {
            1
        } else {
            self.failures.saturating_add(1)
        };
        // A command that cannot be executed at all will hardly get better by itself.
        let is_hopeless = matches!(failure, Failure::CannotStart(_));
        self.last_failure = Some(failure);
        self.enter(
            if self.failures > 1 || is_hopeless {
                State::CrashLoop
            } else {
                State::Restarting
            },
            now,
        );
        if was_healthy { Delay::Anew } else { Delay::Longer }
    }

    /// Why it is not ready, in a sentence about worker `name` on `port`; `None` while nothing is known to be wrong.
    pub(crate) fn trouble(&self, name: &str, port: u16) -> Option<String> {
        if self.state == State::Ready {
            return None;
        }
        if self.is_slow {
            return Some(format!(
                "worker {name} runs but does not listen on 127.0.0.1:{port} (does it listen on the port that the \
                 environment variable PORT names?)"
            ));
        }
        let failure = self.last_failure.as_ref()?;
        Some(match failure {
            Failure::CannotStart(_) | Failure::PortTaken(_) => {
                format!("worker {name} does not start: {failure}")
            }
            Failure::Exited(_) | Failure::Killed(_) if self.failures > 1 => {
                format!("worker {name} ends again and again: {failure} (its output may say why)")
            }
            Failure::Exited(_) | Failure::Killed(_) => {
                format!("worker {name} ended by itself: {failure} (its output may say why)")
            }
        })
    }

    fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
        self.is_slow = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn begin() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn when_it_exits_once_it_is_restarting_and_then_crash_looping() {
        let start = begin();
        let mut life = Life::new(start);
        life.accepts(at(start, 1));
        assert_eq!(life.state(), State::Ready);
        assert_eq!(life.trouble("orders", 1), None);
        assert_eq!(life.failed(Failure::Exited(1), at(start, 2)), Delay::Longer);
        assert_eq!(life.state(), State::Restarting);
        life.started(at(start, 3));
        assert_eq!(life.failed(Failure::Exited(1), at(start, 3)), Delay::Longer);
        assert_eq!(life.state(), State::CrashLoop);
        let trouble = life.trouble("orders", 1).unwrap();
        assert!(
            trouble.contains("orders") && trouble.contains("again and again") && trouble.contains("status 1"),
            "{trouble}"
        );
    }

    #[test]
    fn when_it_was_healthy_for_a_while_the_delay_begins_anew() {
        let start = begin();
        let mut life = Life::new(start);
        for _ in 0..5 {
            life.failed(Failure::Killed(9), start);
            life.started(start);
        }
        life.accepts(start);
        assert_eq!(
            life.failed(Failure::Killed(9), start + HEALTHY_AFTER),
            Delay::Anew
        );
        assert_eq!(life.state(), State::Restarting);
    }

    #[test]
    fn when_it_was_starting_for_long_that_is_not_health() {
        let start = begin();
        let mut life = Life::new(start);
        assert_eq!(
            life.failed(Failure::Exited(0), start + 2 * HEALTHY_AFTER),
            Delay::Longer
        );
    }

    #[test]
    fn when_the_command_cannot_be_executed_it_is_a_crash_loop_at_once() {
        let mut life = Life::new(begin());
        life.failed(
            Failure::CannotStart("no command `pythn3` on PATH".to_owned()),
            begin(),
        );
        assert_eq!(life.state(), State::CrashLoop);
        assert_eq!(
            life.trouble("orders", 1).unwrap(),
            "worker orders does not start: no command `pythn3` on PATH"
        );
    }

    #[test]
    fn when_it_never_listens_the_port_is_named() {
        let mut life = Life::new(begin());
        assert_eq!(life.trouble("orders", 20001), None);
        life.is_slow_to_start();
        let trouble = life.trouble("orders", 20001).unwrap();
        assert!(
            trouble.contains("127.0.0.1:20001") && trouble.contains("PORT"),
            "{trouble}"
        );
        life.accepts(begin());
        assert_eq!(life.trouble("orders", 20001), None);
    }
}
