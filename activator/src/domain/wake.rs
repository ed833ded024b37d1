//! Does this call have to wake its target, or is somebody else's wake already under way?
//!
//! One state machine a target: (state, event, now) → (state, effect). Callers never ask for a wake themselves,
//! they only say that they are there; so a thousand callers of a sleeping target cause one wake, because only the
//! first of them finds it asleep.
//!
//! | state | event | state after | effect |
//! |---|---|---|---|
//! | asleep | a call, no endpoint | waking | ask for a wake |
//! | asleep | endpoints are there | awake | – (somebody else woke it) |
//! | waking | a call, no endpoint | waking | – |
//! | waking | endpoints are there | awake | woken |
//! | waking | no endpoint for `ask_again`, calls wait | waking, anew | ask again |
//! | awake | a call, no endpoint | waking | ask for a wake |
//! | awake | endpoints are gone, calls wait | waking | ask for a wake |
//! | awake | endpoints are gone, nobody waits | asleep | fell asleep |
//!
//! When every caller of a waking target goes away, it stays waking: the wake that was asked for goes on. Asking
//! again after `ask_again` is for the wake that got lost, because whoever was asked died with it.
//!
//! `now` is the time since any fixed moment, the same for all calls; it never goes back.

use std::time::Duration;

/// Where a target stands, as far as the activator has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No endpoint, and no wake was asked for.
    Asleep,
    /// A wake was asked for and no endpoint has come yet.
    Waking {
        /// When it was asked for, last.
        since: Duration,
    },
    /// There are endpoints.
    Awake,
}

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A call has come.
    Called {
        /// Whether there are endpoints.
        ready: bool,
    },
    /// The target was looked at, because it changed or because time has passed.
    Observed {
        /// Whether there are endpoints.
        ready: bool,
        /// Whether calls wait for one.
        waiting: bool,
    },
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Ask that the target leaves zero.
    Wake {
        /// Whether this repeats a wake that brought nothing.
        again: bool,
    },
    /// Say that the wake has brought endpoints.
    Woken {
        /// From asking to the first endpoint.
        took: Duration,
    },
    /// Say that the target is at zero.
    FellAsleep,
}

impl State {
    /// The word for it: metric label and log field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asleep => "asleep",
            Self::Waking { .. } => "waking",
            Self::Awake => "awake",
        }
    }

    /// The state after `event`, and what to do. A wake that brought no endpoint within `ask_again` is asked for
    /// again while calls wait or when one comes.
    pub fn step(self, event: Event, now: Duration, ask_again: Duration) -> (Self, Option<Effect>) {
        let (ready, wanted) = match event {
            Event::Called { ready } => (ready, true),
            Event::Observed { ready, waiting } => (ready, waiting),
        };
        let overdue = |since: Duration| wanted && now.saturating_sub(since) >= ask_again;
        match (self, ready) {
            (Self::Asleep | Self::Awake, true) => (Self::Awake, None),
            (Self::Waking { since }, true) => (
                Self::Awake,
                Some(Effect::Woken {
                    took: now.saturating_sub(since),
                }),
            ),
            (Self::Asleep | Self::Awake, false) if wanted => {
                (Self::Waking { since: now }, Some(Effect::Wake { again: false }))
            }
            (Self::Asleep, false) => (Self::Asleep, None),
            (Self::Awake, false) => (Self::Asleep, Some(Effect::FellAsleep)),
            (Self::Waking { since }, false) if overdue(since) => {
                (Self::Waking { since: now }, Some(Effect::Wake { again: true }))
            }
            (Self::Waking { since }, false) => (Self::Waking { since }, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ASK_AGAIN: Duration = Duration::from_secs(30);

    /// Nobody begins to count at zero.
    const START: Duration = Duration::from_secs(1000);

    const ASKED: Option<Effect> = Some(Effect::Wake { again: false });
    const ASKED_AGAIN: Option<Effect> = Some(Effect::Wake { again: true });
    const CALLED: Event = Event::Called { ready: false };
    const CALLED_READY: Event = Event::Called { ready: true };
    const UP: Event = Event::Observed {
        ready: true,
        waiting: true,
    };
    const GONE: Event = Event::Observed {
        ready: false,
        waiting: false,
    };
    const GONE_BUT_WANTED: Event = Event::Observed {
        ready: false,
        waiting: true,
    };

    /// `asleep`, `awake`, or `waking` since so many seconds after the start.
    fn state(word: &str, since: u64) -> State {
        match word {
            "asleep" => State::Asleep,
            "awake" => State::Awake,
            _ => State::Waking {
                since: START + Duration::from_secs(since),
            },
        }
    }

    #[test]
    fn every_row_of_the_table() {
        let woken = Some(Effect::Woken {
            took: Duration::from_secs(2),
        });
        for (before, event, after_seconds, (after, since), effect) in [
            ("asleep", CALLED, 0, ("waking", 0), ASKED),
            ("asleep", CALLED_READY, 0, ("awake", 0), None),
            ("asleep", GONE, 0, ("asleep", 0), None),
            ("asleep", UP, 0, ("awake", 0), None),
            ("waking", CALLED, 1, ("waking", 0), None),
            ("waking", GONE, 99, ("waking", 0), None),
            ("waking", GONE_BUT_WANTED, 29, ("waking", 0), None),
            ("waking", UP, 2, ("awake", 0), woken),
            ("waking", CALLED, 30, ("waking", 30), ASKED_AGAIN),
            ("waking", GONE_BUT_WANTED, 31, ("waking", 31), ASKED_AGAIN),
            ("awake", CALLED_READY, 0, ("awake", 0), None),
            ("awake", CALLED, 5, ("waking", 5), ASKED),
            ("awake", GONE_BUT_WANTED, 5, ("waking", 5), ASKED),
            ("awake", GONE, 0, ("asleep", 0), Some(Effect::FellAsleep)),
        ] {
            let now = START + Duration::from_secs(after_seconds);
            let expected = (state(after, since), effect);
            assert_eq!(
                state(before, 0).step(event, now, ASK_AGAIN),
                expected,
                "{before} {event:?}"
            );
        }
    }

    fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
        let event = prop_oneof![
            prop::bool::ANY.prop_map(|ready| Event::Called { ready }),
            (prop::bool::ANY, prop::bool::ANY)
                .prop_map(|(ready, waiting)| Event::Observed { ready, waiting }),
        ];
        prop::collection::vec((0u64..20_000, event), 0..200)
    }

    proptest! {
        /// Between two wakes that were asked for lies an endpoint or the time after which asking again is right.
        #[test]
        fn one_wake_whatever_the_number_of_callers(events in events()) {
            let mut now = START;
            let mut state = State::Asleep;
            let mut asked: Option<Duration> = None;
            for (millis, event) in events {
                now += Duration::from_millis(millis);
                let (next, effect) = state.step(event, now, ASK_AGAIN);
                let ready = matches!(event, Event::Called { ready: true } | Event::Observed { ready: true, .. });
                if let Some(Effect::Wake { again }) = effect {
                    prop_assert!(!ready);
                    prop_assert_eq!(again, asked.is_some());
                    prop_assert!(asked.is_none_or(|asked| now >= asked + ASK_AGAIN));
                    asked = Some(now);
                }
                if ready {
                    asked = None;
                }
                state = next;
            }
        }

        /// A call that finds no endpoint always leaves the target waking, and one that finds some leaves it awake.
        #[test]
        fn a_call_is_never_forgotten(events in events(), ready in prop::bool::ANY) {
            let now = START;
            let state = events.into_iter().fold(State::Asleep, |state, (_, event)| state.step(event, now, ASK_AGAIN).0);
            let (after, _) = state.step(Event::Called { ready }, now, ASK_AGAIN);
            prop_assert_eq!(after.as_str(), if ready { "awake" } else { "waking" });
        }
    }
}
