//! Whether the broker has forgotten this consumer: the queue has messages, there is room for them, and none comes.

use std::time::Duration;

/// How often the queue is looked at while nothing comes and there is room. It costs the broker one passive declare.
pub const LOOK_EVERY: Duration = Duration::from_secs(15);
/// When it is looked at again after it was not empty.
pub const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// So many looks in a row at a queue that is not empty make a stall: one may fall on a message that has just arrived.
const LOOKS: u32 = 2;
/// The same while others consume too, which may be on their way to take what is there.
const LOOKS_AMONG_OTHERS: u32 = 8;
/// Each stall that connecting anew did not help doubles the looks, up to 2⁵ times as many.
const MOST_DOUBLINGS: u32 = 5;

/// What one look shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Messages that wait in the queue.
    pub ready: u32,
    /// Consumers of the queue, this one included.
    pub consumers: u32,
    /// Whether the worker could have one more message now.
    pub has_room: bool,
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Look again after this time.
    Wait(Duration),
    /// The queue feeds one consumer at a time, and another one may be it: nothing is wrong. Look again after this time.
    StandBy(Duration),
    /// The broker does not deliver although it should.
    Stalled,
}

/// The looks since the last delivery.
#[derive(Debug, Clone)]
pub struct Watch {
    is_single_active: bool,
    stalls: u32,
    /// Looks in a row that showed messages.
    looks: u32,
}

impl Watch {
    /// Begins with a delivery or a subscription. `is_single_active` says that the queue feeds one consumer at a time,
    /// `stalls` how often connecting anew has not brought a delivery.
    pub fn new(is_single_active: bool, stalls: u32) -> Self {
        Self {
            is_single_active,
            stalls,
            looks: 0,
        }
    }

    /// Takes in one more look without a delivery since the last; `None` when the broker did not tell.
    pub fn look(&mut self, look: Option<Look>) -> Decision {
        // Not knowing is not a stall.
        let Some(look) = look.filter(|look| look.has_room && look.ready > 0) else {
            self.looks = 0;
            return Decision::Wait(LOOK_EVERY);
        };
        let is_alone = look.consumers <= 1;
        self.looks = self.looks.saturating_add(1);
        // The count of consumers does not help here: those that stand by are not always in it.
        if self.is_single_active {
            return if self.looks < LOOKS {
                Decision::Wait(LOOK_AGAIN)
            } else {
                Decision::StandBy(LOOK_EVERY)
            };
        }
        let wanted = if is_alone { LOOKS } else { LOOKS_AMONG_OTHERS };
        if self.looks >= wanted << self.stalls.min(MOST_DOUBLINGS) {
            return Decision::Stalled;
        }
        Decision::Wait(if is_alone { LOOK_AGAIN } else { LOOK_EVERY })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WAITING: Look = Look {
        ready: 7,
        consumers: 1,
        has_room: true,
    };

    /// How many looks like this one make a stall.
    fn looks_until_stalled(mut watch: Watch, look: Look) -> Option<usize> {
        (1..10_000).find(|_| watch.look(Some(look)) == Decision::Stalled)
    }

    #[test]
    fn one_look_is_not_enough_and_others_get_their_time() {
        assert_eq!(looks_until_stalled(Watch::new(false, 0), WAITING), Some(2));
        let among_others = Look {
            consumers: 3,
            ..WAITING
        };
        assert_eq!(looks_until_stalled(Watch::new(false, 0), among_others), Some(8));
    }

    #[test]
    fn connecting_anew_in_vain_is_tried_ever_more_rarely() {
        let looks =
            [0, 1, 2, 5, 6, u32::MAX].map(|stalls| looks_until_stalled(Watch::new(false, stalls), WAITING));
        assert_eq!(looks, [2, 4, 8, 64, 64, 64].map(Some));
    }

    #[test]
    fn a_queue_that_feeds_one_at_a_time_never_stalls() {
        let mut watch = Watch::new(true, 0);
        let decisions = [(); 3].map(|()| watch.look(Some(WAITING)));
        let stands_by = Decision::StandBy(LOOK_EVERY);
        assert_eq!(decisions, [Decision::Wait(LOOK_AGAIN), stands_by, stands_by]);
        assert_eq!(looks_until_stalled(Watch::new(true, 0), WAITING), None);
    }

    fn any_look() -> impl Strategy<Value = Option<Look>> {
        prop::option::of(
            (0_u32..3, 0_u32..4, any::<bool>()).prop_map(|(ready, consumers, has_room)| Look {
                ready,
                consumers,
                has_room,
            }),
        )
    }

    proptest! {
        #[test]
        fn a_stall_is_messages_and_room_at_every_one_of_the_last_looks(
            looks in prop::collection::vec(any_look(), 0..100), is_single_active: bool, stalls in 0_u32..3,
        ) {
            let mut watch = Watch::new(is_single_active, stalls);
            for end in 0..looks.len() {
                let decision = watch.look(looks[end]);
                if decision != Decision::Stalled {
                    continue;
                }
                let last = &looks[..=end];
                let wanted = 2 << stalls;
                prop_assert!(last.len() >= wanted && !is_single_active);
                for look in &last[last.len() - wanted..] {
                    let look = look.unwrap();
                    prop_assert!(look.has_room && look.ready > 0);
                }
                watch = Watch::new(is_single_active, stalls);
            }
        }

        #[test]
        fn the_broker_is_asked_rarely(looks in prop::collection::vec(any_look(), 1..100)) {
            let mut watch = Watch::new(false, 0);
            for look in looks {
                match watch.look(look) {
                    Decision::Wait(time) | Decision::StandBy(time) => prop_assert!(time >= LOOK_AGAIN),
                    Decision::Stalled => return Ok(()),
                }
            }
        }
    }
}
