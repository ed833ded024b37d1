//! Which acknowledgements to write, and when: the largest lever on the cost of a message.
//!
//! Delivery tags of a channel count 1, 2, 3 … without gaps. Deliveries are settled in any order; the window holds
//! acknowledgements back for a moment so that a contiguous run of them goes out as one `basic.ack` with
//! `multiple=true`. Three rules, proven below by properties:
//!
//! - a tag is covered by a write only after it was settled;
//! - no tag is written twice, because RabbitMQ answers that by closing the channel
//!   (`PRECONDITION_FAILED - unknown delivery tag`);
//! - a tag that ends a `multiple` is itself outstanding, for the same reason.
//!
//! One window serves one channel and dies with it: tags of another connection mean other messages (ADR 0002).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A delivery tag, 1-based, of one channel.
pub type Tag = u64;

/// When acknowledgements that wait are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushPolicy {
    /// As soon as so many wait.
    pub batch: usize,
    /// As soon as the oldest has waited so long.
    pub delay: Duration,
}

impl FlushPolicy {
    /// No worker notices such a wait.
    const DELAY: Duration = Duration::from_millis(2);

    /// What more acknowledgements in one write would save is not worth more messages that wait for another replica.
    const LARGEST_BATCH: u16 = 32;

    /// For a prefetch that leaves `spare` deliveries beyond what the worker has. Half of it may wait to be acknowledged:
    /// the other half is dispatched while the broker answers. Without a spare nothing waits, as nothing new could come.
    pub fn for_spare(spare: u16) -> Self {
        Self {
            batch: usize::from((spare / 2).clamp(1, Self::LARGEST_BATCH)),
            delay: Self::DELAY,
        }
    }
}

/// What is written on the channel, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// `basic.ack` of this tag and, with `multiple`, of everything outstanding below it.
    Ack {
        /// The tag.
        tag: Tag,
        /// Whether it stands for the lower ones too.
        multiple: bool,
    },
    /// `basic.nack` of this tag alone, with requeue.
    Release {
        /// The tag.
        tag: Tag,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// With the worker, or not yet handed out.
    Open,
    /// To be acknowledged, not written yet.
    Pending,
    /// Written.
    Done,
}

/// The settled and unsettled tags of one channel above the point up to which everything is written.
#[derive(Debug, Default)]
pub struct AckWindow {
    /// Everything below this tag is written.
    base: Tag,
    slots: VecDeque<Slot>,
    pending: usize,
    oldest_pending: Option<Instant>,
}

impl AckWindow {
    /// The window of a channel on which nothing was settled yet.
    pub fn new() -> Self {
        Self {
            base: 1,
            ..Self::default()
        }
    }

    /// Takes an acknowledgement. Returns `false`, and changes nothing, if the tag was settled before.
    pub fn ack(&mut self, tag: Tag, now: Instant) -> bool {
        if !self.put(tag, Slot::Pending) {
            return false;
        }
        self.pending += 1;
        self.oldest_pending.get_or_insert(now);
        true
    }

    /// Takes a release, which is written at once: others may be waiting for the message. `None` if the tag was
    /// settled before.
    pub fn release(&mut self, tag: Tag) -> Option<Write> {
        self.put(tag, Slot::Done).then_some(Write::Release { tag })
    }

    /// When acknowledgements that wait are due; `None` when none waits.
    pub fn due(&self, policy: FlushPolicy) -> Option<Instant> {
        self.oldest_pending.map(|oldest| oldest + policy.delay)
    }

    /// How many acknowledgements wait.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Whether it is time to [`flush`](Self::flush). `is_idle` says that nothing is left with the worker, so that
    /// waiting could gather nothing more.
    pub fn is_due(&self, policy: FlushPolicy, now: Instant, is_idle: bool) -> bool {
        self.pending > 0
            && (is_idle || self.pending >= policy.batch || self.due(policy).is_some_and(|due| due <= now))
    }

    /// Everything that can be written now, in order: the contiguous run as one, stragglers behind an open tag alone,
    /// so that one slow message holds nothing back.
    pub fn flush(&mut self) -> Vec<Write> {
        let mut writes = Vec::new();
        self.flush_run(&mut writes);
        self.flush_stragglers(&mut writes);
        self.pending = 0;
        self.oldest_pending = None;
        writes
    }

    fn flush_run(&mut self, writes: &mut Vec<Write>) {
        let run = self.slots.iter().take_while(|slot| **slot != Slot::Open).count();
        let last = self
            .slots
            .iter()
            .take(run)
            .rposition(|slot| *slot == Slot::Pending);
        if let Some(last) = last {
            let waiting = self
                .slots
                .iter()
                .take(run)
                .filter(|slot| **slot == Slot::Pending)
                .count();
            writes.push(Write::Ack {
                tag: self.base + last as Tag,
                multiple: waiting > 1,
            });
        }
        self.slots.drain(..run);
        self.base += run as Tag;
    }

    fn flush_stragglers(&mut self, writes: &mut Vec<Write>) {
        for (tag, slot) in (self.base..).zip(&mut self.slots) {
            if *slot == Slot::Pending {
                *slot = Slot::Done;
                writes.push(Write::Ack { tag, multiple: false });
            }
        }
    }

    fn put(&mut self, tag: Tag, settled: Slot) -> bool {
        let Some(position) = tag.checked_sub(self.base) else {
            return false;
        };
        let position = usize::try_from(position).expect("invariant: tags in flight are bounded by prefetch");
        if position >= self.slots.len() {
            self.slots.resize(position + 1, Slot::Open);
        }
        if self.slots[position] != Slot::Open {
            return false;
        }
        self.slots[position] = settled;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const POLICY: FlushPolicy = FlushPolicy {
        batch: 4,
        delay: Duration::from_millis(2),
    };

    fn at(milliseconds: u64) -> Instant {
        thread_local!(static START: Instant = tokio::time::Instant::now().into_std());
        START.with(|start| *start + Duration::from_millis(milliseconds))
    }

    fn acked(tags: &[Tag]) -> AckWindow {
        let mut window = AckWindow::new();
        for tag in tags {
            assert!(window.ack(*tag, at(0)));
        }
        window
    }

    #[test]
    fn half_of_the_spare_may_wait() {
        for (spare, batch) in [(0, 1), (1, 1), (2, 1), (3, 1), (9, 4), (64, 32), (u16::MAX, 32)] {
            assert_eq!(FlushPolicy::for_spare(spare).batch, batch, "{spare}");
        }
    }

    #[test]
    fn a_contiguous_run_is_one_write() {
        assert_eq!(
            acked(&[2, 1, 3]).flush(),
            [Write::Ack {
                tag: 3,
                multiple: true
            }]
        );
        assert_eq!(
            acked(&[1]).flush(),
            [Write::Ack {
                tag: 1,
                multiple: false
            }]
        );
    }

    #[test]
    fn stragglers_behind_an_open_tag_go_alone() {
        let mut window = acked(&[1, 2, 4, 5]);
        assert_eq!(
            window.flush(),
            [
                Write::Ack {
                    tag: 2,
                    multiple: true
                },
                Write::Ack {
                    tag: 4,
                    multiple: false
                },
                Write::Ack {
                    tag: 5,
                    multiple: false
                }
            ]
        );
        assert!(window.ack(3, at(1)));
        assert_eq!(
            window.flush(),
            [Write::Ack {
                tag: 3,
                multiple: false
            }]
        );
        assert!(window.ack(6, at(1)));
        assert_eq!(
            window.flush(),
            [Write::Ack {
                tag: 6,
                multiple: false
            }]
        );
    }

    #[test]
    fn a_multiple_never_ends_at_a_released_tag() {
        let mut window = acked(&[1, 2]);
        assert_eq!(window.release(3), Some(Write::Release { tag: 3 }));
        assert_eq!(
            window.flush(),
            [Write::Ack {
                tag: 2,
                multiple: true
            }]
        );
        assert!(!window.ack(3, at(0)));
        assert_eq!(window.release(2), None);
    }

    #[test]
    fn it_is_due_by_count_by_age_and_when_idle() {
        let window = acked(&[1]);
        assert!(!window.is_due(POLICY, at(1), false));
        assert!(window.is_due(POLICY, at(1), true));
        assert!(window.is_due(POLICY, at(2), false));
        assert!(acked(&[1, 2, 3, 9]).is_due(POLICY, at(0), false));
        assert!(!AckWindow::new().is_due(POLICY, at(99), true));
    }

    /// What RabbitMQ keeps for a channel: the outstanding tags. Panics where RabbitMQ closes the channel.
    struct Broker {
        outstanding: BTreeSet<Tag>,
    }

    impl Broker {
        fn apply(&mut self, write: Write) -> Vec<Tag> {
            match write {
                Write::Ack { tag, multiple } => {
                    assert!(self.outstanding.contains(&tag), "unknown delivery tag {tag}");
                    let from = if multiple { 0 } else { tag };
                    let covered: Vec<Tag> = self.outstanding.range(from..=tag).copied().collect();
                    self.outstanding.retain(|known| !covered.contains(known));
                    covered
                }
                Write::Release { tag } => {
                    assert!(self.outstanding.remove(&tag), "unknown delivery tag {tag}");
                    vec![tag]
                }
            }
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Ack(usize),
        Release(usize),
        Flush,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => any::<usize>().prop_map(Step::Ack),
            1 => any::<usize>().prop_map(Step::Release),
            2 => Just(Step::Flush),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
        #[test]
        fn whatever_the_order_every_settled_tag_is_written_once_and_no_other(steps in steps(), window_size in 1_usize..40) {
            let mut window = AckWindow::new();
            let mut broker = Broker { outstanding: BTreeSet::new() };
            let (mut open, mut settled, mut written) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
            let mut next: Tag = 1;
            for step in steps {
                while open.len() < window_size {
                    open.push(next);
                    broker.outstanding.insert(next);
                    next += 1;
                }
                let writes = match step {
                    Step::Ack(pick) => {
                        let tag = open.swap_remove(pick % open.len());
                        prop_assert!(window.ack(tag, at(0)));
                        prop_assert!(!window.ack(tag, at(0)), "settled twice");
                        settled.insert(tag);
                        Vec::new()
                    }
                    Step::Release(pick) => {
                        let tag = open.swap_remove(pick % open.len());
                        settled.insert(tag);
                        window.release(tag).into_iter().collect()
                    }
                    Step::Flush => window.flush(),
                };
                for write in writes {
                    for tag in broker.apply(write) {
                        prop_assert!(settled.contains(&tag), "{tag} was written but not settled");
                        prop_assert!(written.insert(tag), "{tag} was written twice");
                    }
                }
            }
            for write in window.flush() {
                written.extend(broker.apply(write));
            }
            prop_assert_eq!(written, settled);
            prop_assert_eq!(window.pending(), 0);
        }
    }
}
