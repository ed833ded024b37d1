//! May one more call wait?
//!
//! A call that no endpoint can take at once waits in the buffer, and a waiting call costs memory. Three bounds
//! hold at every moment: calls per target, calls in total, bytes in total. Within the totals the room is shared
//! by *dynamic thresholds* (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet
//! switches", 1998, with α = 1): a target may hold as much as is still free. One target alone gets at most half
//! of the total, two a third each, *n* an *n + 1*-th each, and as long as anything is free a target that holds
//! nothing gets in, however long another target's line is.
//!
//! A [`Ticket`] is the right to wait. It gives its place back when it is dropped, whatever the reason: the call
//! was forwarded, was rejected, or its caller went away.

use crate::targets::TargetName;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Waiting calls of one target; at least 1.
    pub calls_per_target: usize,
    /// Waiting calls of all targets; at least 1.
    pub calls: usize,
    /// Bytes that waiting calls hold, of all targets.
    pub bytes: u64,
}

/// Which bound refused a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The target has as many waiting calls as one target may have.
    Target,
    /// The target has its share of all the calls that may wait.
    Calls,
    /// The target has its share of all the bytes that may wait.
    Bytes,
}

/// Counts what waits. Clones share the count.
#[derive(Debug, Clone)]
pub struct Buffer {
    bounds: Bounds,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    total: Share,
    targets: HashMap<TargetName, Share>,
}

/// What waits, of one target or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Waiting calls.
    pub calls: usize,
    /// Bytes that they hold.
    pub bytes: u64,
}

/// One call's place in the buffer, given back on drop.
#[derive(Debug)]
#[must_use = "dropping the ticket gives the place back"]
pub struct Ticket {
    target: TargetName,
    bytes: u64,
    held: Arc<Mutex<Held>>,
}

impl Buffer {
    /// An empty buffer.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            held: Arc::default(),
        }
    }

    /// Lets one more call of `target` wait, which holds `bytes` of memory.
    ///
    /// # Errors
    ///
    /// The bound that stands in the way. It may be gone as soon as another call has left.
    pub fn admit(&self, target: &TargetName, bytes: u64) -> Result<Ticket, Full> {
        let mut held = lock(&self.held);
        let share = held.targets.get(target).copied().unwrap_or_default();
        self.bounds.judge(held.total, share, bytes)?;
        held.total.calls += 1;
        held.total.bytes += bytes;
        let share = held.targets.entry(target.clone()).or_default();
        share.calls += 1;
        share.bytes += bytes;
        Ok(Ticket {
            target: target.clone(),
            bytes,
            held: Arc::clone(&self.held),
        })
    }

    /// The bounds.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// What waits of one target.
    pub fn of(&self, target: &TargetName) -> Share {
        lock(&self.held).targets.get(target).copied().unwrap_or_default()
    }

    /// What waits of all targets.
    pub fn total(&self) -> Share {
        lock(&self.held).total
    }
}

impl Bounds {
    /// Whether a call of `bytes` may join, when all targets hold `total` and its own holds `share` of it.
    ///
    /// # Errors
    ///
    /// The first bound that it would break.
    pub fn judge(&self, total: Share, share: Share, bytes: u64) -> Result<(), Full> {
        if share.calls >= self.calls_per_target {
            return Err(Full::Target);
        }
        if share.calls >= self.calls.saturating_sub(total.calls) {
            return Err(Full::Calls);
        }
        let free = self.bytes.saturating_sub(total.bytes);
        // What a target holds must fit into what is free *beside* the newcomer, except for its first call: a
        // body bigger than half of the budget could never wait otherwise.
        let fair = share.calls == 0 || share.bytes.saturating_add(bytes) <= free;
        if bytes > free || !fair {
            return Err(Full::Bytes);
        }
        Ok(())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        held.total.calls -= 1;
        held.total.bytes -= self.bytes;
        let Some(share) = held.targets.get_mut(&self.target) else {
            return;
        };
        share.calls -= 1;
        share.bytes -= self.bytes;
        if share.calls == 0 {
            held.targets.remove(&self.target);
        }
    }
}

/// The counts are valid after every statement, so a panic elsewhere that poisoned the lock does not spoil them.
fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(name: &str) -> TargetName {
        TargetName {
            namespace: "default".to_owned(),
            name: name.to_owned(),
        }
    }

    fn bounds(calls_per_target: usize, calls: usize, bytes: u64) -> Bounds {
        Bounds {
            calls_per_target,
            calls,
            bytes,
        }
    }

    #[test]
    fn each_bound_refuses() {
        let share = |calls, bytes| Share { calls, bytes };
        for (total, own, bytes, expected) in [
            (share(0, 0), share(0, 0), 0, Ok(())),
            (share(3, 0), share(3, 0), 0, Ok(())),
            (share(4, 0), share(4, 0), 0, Err(Full::Target)),
            (share(9, 0), share(0, 0), 0, Ok(())),
            (share(9, 0), share(1, 0), 0, Err(Full::Calls)),
            (share(10, 0), share(0, 0), 0, Err(Full::Calls)),
            (share(0, 0), share(0, 0), 100, Ok(())),
            (share(0, 0), share(0, 0), 101, Err(Full::Bytes)),
            (share(1, 40), share(1, 40), 20, Ok(())),
            (share(1, 40), share(1, 40), 21, Err(Full::Bytes)),
            (share(1, 40), share(0, 0), 60, Ok(())),
            (share(1, 40), share(0, 0), 61, Err(Full::Bytes)),
        ] {
            assert_eq!(
                bounds(4, 10, 100).judge(total, own, bytes),
                expected,
                "{total:?} {own:?} {bytes}"
            );
        }
    }

    #[test]
    fn a_dropped_ticket_leaves_no_trace() {
        let buffer = Buffer::new(bounds(1, 10, 100));
        let ticket = buffer.admit(&target("a"), 7).unwrap();
        assert_eq!(buffer.total(), Share { calls: 1, bytes: 7 });
        assert_eq!(buffer.admit(&target("a"), 0).unwrap_err(), Full::Target);
        drop(ticket);
        assert_eq!(buffer.total(), Share::default());
        assert!(lock(&buffer.held).targets.is_empty());
        drop(buffer.admit(&target("a"), 7).unwrap());
    }

    #[test]
    fn a_long_line_leaves_room_for_another_target() {
        let buffer = Buffer::new(bounds(1000, 100, u64::MAX));
        let mut tickets = Vec::new();
        while let Ok(ticket) = buffer.admit(&target("greedy"), 0) {
            tickets.push(ticket);
        }
        assert_eq!(buffer.of(&target("greedy")).calls, 50);
        while let Ok(ticket) = buffer.admit(&target("second"), 0) {
            tickets.push(ticket);
        }
        assert_eq!(buffer.of(&target("second")).calls, 25);
        drop(buffer.admit(&target("third"), 0).unwrap());
    }

    proptest! {
        /// Whatever comes and goes: no bound is ever exceeded, the counts are the tickets, and a target that holds
        /// nothing is let in while a call is free.
        #[test]
        fn bounds_hold_and_tickets_are_conserved(
            limits in (1usize..8, 1usize..24, 0u64..400),
            steps in prop::collection::vec((0usize..5, 0u64..60, prop::bool::ANY, any::<prop::sample::Index>()), 0..200),
        ) {
            let buffer = Buffer::new(bounds(limits.0, limits.1, limits.2));
            let names: Vec<TargetName> = ["a", "b", "c", "d", "e"].into_iter().map(target).collect();
            let mut tickets: Vec<Ticket> = Vec::new();
            for (name, bytes, leave, which) in steps {
                let before = (buffer.total(), buffer.of(&names[name]));
                if leave && !tickets.is_empty() {
                    drop(tickets.swap_remove(which.index(tickets.len())));
                } else {
                    match buffer.admit(&names[name], bytes) {
                        Ok(ticket) => tickets.push(ticket),
                        Err(full) => prop_assert!(
                            before.1.calls > 0 || before.0.calls >= limits.1 || full == Full::Bytes,
                            "{full:?} refused a newcomer while there was room: {before:?}"
                        ),
                    }
                }
                let total = buffer.total();
                prop_assert!(total.calls <= limits.1 && total.bytes <= limits.2);
                prop_assert_eq!(total.calls, tickets.len());
                prop_assert_eq!(total.bytes, tickets.iter().map(|ticket| ticket.bytes).sum::<u64>());
                for name in &names {
                    let share = buffer.of(name);
                    prop_assert!(share.calls <= limits.0);
                    prop_assert_eq!(share.calls, tickets.iter().filter(|ticket| ticket.target == *name).count());
                }
            }
            drop(tickets);
            prop_assert_eq!(buffer.total(), Share::default());
        }

        /// Targets that ask equally often get equally much: within one call of each other.
        #[test]
        fn equal_demand_gets_equal_shares(targets in 1usize..6, calls in 12usize..60) {
            let buffer = Buffer::new(bounds(usize::MAX, calls, u64::MAX));
            let names: Vec<TargetName> = (0..targets).map(|n| target(&n.to_string())).collect();
            let mut tickets = Vec::new();
            for _ in 0..calls {
                tickets.extend(names.iter().filter_map(|name| buffer.admit(name, 0).ok()));
            }
            let shares: Vec<usize> = names.iter().map(|name| buffer.of(name).calls).collect();
            let (least, most) = (*shares.iter().min().unwrap(), *shares.iter().max().unwrap());
            prop_assert!(most - least <= 1 && least >= calls / (targets + 1), "{shares:?} of {calls}");
        }
    }
}
