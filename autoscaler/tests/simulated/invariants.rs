//! What holds after every tick, whatever the history: messages, calls, faults and odd replicas come at random.

use crate::world::{Millis, World, policy};
use autoscaler::domain::{Assessment, Decision, HoldReason, Memory, Policy, QueueSample, Sample, decide};
use autoscaler::{Fleet, Phase, Replica, ReplicaId};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

#[derive(Debug, Clone)]
enum Event {
    Publish {
        messages: usize,
        service: Millis,
    },
    /// As `Publish`, but just between the next tick's sample and what is done about it.
    Race {
        messages: usize,
        service: Millis,
    },
    Calls(u32),
    Broker(bool),
    FleetKnown(bool),
    /// A replica crashes, its messages go back to the queue.
    Crash(usize),
    /// A replica that can never be resumed any more.
    Stubborn(usize),
    Wait(Millis),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..40_usize, prop_oneof![1..50_u64, 500..3000_u64, 60_000..600_000_u64])
            .prop_map(|(messages, service)| Event::Publish { messages, service }),
        2 => (1..10_usize, prop_oneof![1..50_u64, 500..60_000_u64])
            .prop_map(|(messages, service)| Event::Race { messages, service }),
        2 => (0..4_u32).prop_map(Event::Calls),
        1 => any::<bool>().prop_map(Event::Broker),
        1 => any::<bool>().prop_map(Event::FleetKnown),
        1 => (0..8_usize).prop_map(Event::Crash),
        1 => (0..8_usize).prop_map(Event::Stubborn),
        6 => (1..20_000_u64).prop_map(Event::Wait),
    ]
}

fn any_policy() -> impl Strategy<Value = Policy> {
    (0..3_u32, 1..8_u32, 1..20_u32, 0..15_u64)
        .prop_map(|(min, more, per_replica, cool_down)| policy(min, min + more, per_replica, cool_down))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a simulation needs some instant to begin at"
)]
fn world() -> World {
    World::new(Instant::now())
}

fn find<'a>(fleet: &'a Fleet, id: &ReplicaId) -> &'a Replica {
    fleet
        .replicas
        .iter()
        .find(|replica| replica.id == *id)
        .expect("a replica of the sample")
}

/// Ticks and judges every decision.
struct Judge {
    policy: Policy,
    memory: Memory,
    world: World,
    /// (when, desired count) of every tick at which the queue and the fleet were known.
    known: Vec<(Instant, u32)>,
    last_up: Option<Instant>,
    resumed: BTreeSet<String>,
    /// Whether a call came or went since the last tick.
    called: bool,
    race: Option<(usize, Millis)>,
    /// Between deciding and applying, in milliseconds.
    delay: Millis,
}

impl Judge {
    fn new(policy: Policy, delay: Millis) -> Self {
        Self {
            policy,
            memory: Memory::new(&policy),
            world: world(),
            known: Vec::new(),
            last_up: None,
            resumed: BTreeSet::new(),
            called: false,
            race: None,
            delay,
        }
    }

    fn happen(&mut self, event: &Event) {
        let world = &mut self.world;
        match event {
            Event::Publish { messages, service } => world.publish(*messages, *service),
            Event::Race { messages, service } => self.race = Some((*messages, *service)),
            Event::Calls(calls) => {
                self.called |= world.calls != *calls;
                if world.calls != *calls {
                    world.last_demand = world.now;
                }
                world.calls = *calls;
            }
            Event::Broker(is_up) => world.is_broker_up = *is_up,
            Event::FleetKnown(is_known) => world.is_fleet_known = *is_known,
            Event::Crash(index) if *index < world.workers.len() => {
                world.workers.remove(*index);
                world.queue.push_back(10);
            }
            Event::Stubborn(index) if *index < world.workers.len() => {
                world.workers[*index].is_stubborn = true;
            }
            Event::Crash(_) | Event::Stubborn(_) => {}
            Event::Wait(millis) => {
                let end = world.now + millis;
                while self.world.now < end {
                    self.tick();
                    let step = if self.world.active() == 0 { 250 } else { 1000 };
                    let next = (self.world.now + step).min(end);
                    self.world.advance_to(next);
                }
            }
        }
        self.world.advance_to(self.world.now);
    }

    fn tick(&mut self) {
        let sample = self.world.sample(std::mem::take(&mut self.called));
        let assessment = decide(&mut self.memory, &self.policy, &sample);
        self.judge(&sample, &assessment);
        if let Some((messages, service)) = self.race.take() {
            self.world.publish(messages, service);
        }
        // The world does not stand still between the sample and what is done about it.
        self.world.advance_to(self.world.now + self.delay);
        self.world.apply(&assessment.decision);
    }

    fn judge(&mut self, sample: &Sample, assessment: &Assessment) {
        let (min, max) = (self.policy.min_replicas(), self.policy.max_replicas());
        let Assessment {
            decision, desired, ..
        } = assessment;
        assert!(
            (min..=max).contains(desired),
            "{desired} is outside {min}..={max}"
        );
        let Ok(fleet) = &sample.fleet else {
            assert_eq!(
                *decision,
                Decision::Hold {
                    reason: HoldReason::FleetUnknown
                }
            );
            return;
        };
        let is_queue_known = !matches!(sample.queue, QueueSample::Unknown(_));
        let has_work = self.world.in_flight() + self.world.queue.len() > 0 || sample.calls > 0;
        if is_queue_known {
            assert!(*desired > 0 || !has_work, "zero is desired while there is work");
            self.known.push((sample.at, *desired));
        }
        match decision {
            Decision::ScaleUp { .. } | Decision::Resume { .. } => self.judge_up(sample.at, fleet, assessment),
            Decision::Drain { .. } | Decision::Remove { .. } => {
                assert!(is_queue_known, "scaled down on an unknown queue");
                self.judge_down(sample.at, fleet, assessment, has_work);
            }
            Decision::Hold { .. } => {}
        }
        self.resumed.retain(|id| {
            fleet
                .replicas
                .iter()
                .any(|r| r.id.0 == *id && r.phase == Phase::Draining)
        });
    }

    fn judge_up(&mut self, now: Instant, fleet: &Fleet, assessment: &Assessment) {
        let counts = assessment.counts.unwrap();
        match &assessment.decision {
            Decision::ScaleUp { to, .. } => {
                assert!(
                    *to <= self.policy.max_replicas() && *to > counts.total(),
                    "{to} of {counts:?}"
                );
                assert!(assessment.desired > counts.active());
                for replica in fleet
                    .replicas
                    .iter()
                    .filter(|replica| replica.phase == Phase::Draining)
                {
                    assert!(
                        self.resumed.contains(&replica.id.0),
                        "{} could be resumed",
                        replica.id
                    );
                }
            }
            Decision::Resume { replicas, .. } => {
                assert!(replicas.iter().all(|id| find(fleet, id).phase == Phase::Draining));
                assert!(u64::from(counts.active()) + replicas.len() as u64 <= u64::from(assessment.desired));
                self.resumed.extend(replicas.iter().map(|id| id.0.clone()));
            }
            other => panic!("{other:?} is not up"),
        }
        self.last_up = Some(now);
    }

    fn judge_down(&mut self, now: Instant, fleet: &Fleet, assessment: &Assessment, has_work: bool) {
        let counts = assessment.counts.unwrap();
        match &assessment.decision {
            Decision::Drain { victims, .. } => {
                for victim in victims {
                    let replica = find(fleet, victim);
                    assert!(
                        replica.phase != Phase::Draining && replica.in_flight == 0,
                        "{replica:?}"
                    );
                }
                let left = counts.active() - u32::try_from(victims.len()).unwrap();
                assert!(left >= self.policy.min_replicas(), "{left} are left");
                assert!(left > 0 || !has_work, "zero while there is work");
                if left == 0 {
                    let quiet = Duration::from_millis(self.world.now - self.world.last_demand);
                    assert!(
                        quiet >= self.policy.cool_down(),
                        "to zero {quiet:?} after the last demand"
                    );
                }
                self.judge_cool_down(now, left);
            }
            Decision::Remove { replicas } => {
                for id in replicas {
                    let replica = find(fleet, id);
                    assert!(
                        replica.phase == Phase::Draining && replica.in_flight == 0,
                        "{replica:?}"
                    );
                }
                assert!(counts.active() > 0 || !has_work, "zero while there is work");
            }
            other => panic!("{other:?} is not down"),
        }
    }

    /// By brute force: nothing in the trailing cool-down asked for more than is left.
    fn judge_cool_down(&self, now: Instant, left: u32) {
        let cool_down = self.policy.cool_down();
        let recent = self
            .known
            .iter()
            .rev()
            .take_while(|(at, _)| now.duration_since(*at) < cool_down);
        let highest = recent.map(|(_, desired)| *desired).max().unwrap_or(0);
        assert!(
            left >= highest,
            "{left} are left, and {highest} were desired within the cool-down"
        );
        if let Some(up) = self.last_up {
            assert!(
                now.duration_since(up) >= cool_down,
                "down within a cool-down of going up"
            );
        }
    }
}

proptest! {
    #[test]
    fn the_promises_hold_after_every_tick(
        policy in any_policy(),
        delay in 0..200_u64,
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut judge = Judge::new(policy, delay);
        for event in &events {
            judge.happen(event);
        }
    }

    #[test]
    fn demand_that_no_sample_sees_counts_towards_the_cool_down(
        cool_down in 1..15_u64,
        waits in prop::collection::vec((1..9_000_u64, any::<bool>()), 1..60),
    ) {
        let mut judge = Judge::new(policy(0, 3, 10, cool_down), 1);
        judge.happen(&Event::Publish { messages: 1, service: 5 });
        for (wait, is_call) in waits {
            judge.happen(&Event::Wait(wait));
            if is_call {
                judge.happen(&Event::Calls(1));
                judge.happen(&Event::Calls(0));
            } else {
                judge.happen(&Event::Race { messages: 1, service: 5 });
            }
        }
    }

    #[test]
    fn all_is_done_and_gone_in_the_end(
        policy in any_policy(),
        events in prop::collection::vec(event(), 1..30),
    ) {
        let mut judge = Judge::new(policy, 0);
        for event in &events {
            judge.happen(event);
        }
        for event in [Event::Broker(true), Event::FleetKnown(true), Event::Calls(0), Event::Wait(1000)] {
            judge.happen(&event);
        }
        // A single replica may have all of them to do, and takes the next one only when the world moves: once a
        // second. The longest one takes ten minutes.
        let work: Millis = judge.world.queue.iter().map(|service| service + 1000).sum();
        judge.happen(&Event::Wait(work + 700_000));
        prop_assert_eq!(judge.world.queue.len() + judge.world.in_flight(), 0);
        prop_assert_eq!(judge.world.workers.len(), judge.policy.min_replicas() as usize);
    }

    #[test]
    fn constant_demand_converges_and_then_nothing_changes(
        policy in any_policy(),
        present in 0..10_u32,
        ready in 0..200_u64,
        calls in 0..3_u32,
    ) {
        let mut world = world();
        world.starts_in = 700;
        world.scale_up(present);
        world.advance_to(1000);
        let begin = world.now;
        let mut memory = Memory::new(&policy);
        let (mut turns, mut last) = (0, None);
        let settled = u64::try_from(policy.cool_down().as_millis()).unwrap() + 3000;
        while world.now < begin + settled + 60_000 {
            let mut sample = world.sample(false);
            sample.queue = QueueSample::Known(autoscaler::domain::Depth { ready, consumers: 0 });
            sample.calls = calls;
            let decision = decide(&mut memory, &policy, &sample).decision;
            let is_up = match &decision {
                Decision::ScaleUp { .. } | Decision::Resume { .. } => Some(true),
                Decision::Drain { .. } => Some(false),
                Decision::Remove { .. } | Decision::Hold { .. } => None,
            };
            if let Some(is_up) = is_up {
                turns += u32::from(last.replace(is_up).is_some_and(|last| last != is_up));
            }
            prop_assert!(decision.is_hold() || world.now < begin + settled, "{decision:?} at {}", world.now);
            world.apply(&decision);
            world.advance_to(world.now + 250);
        }
        prop_assert!(turns <= 1, "{turns} changes of direction");
        prop_assert_eq!(world.active(), policy.bounded(policy.asked(ready, calls)) as usize);
    }

    #[test]
    fn the_window_equals_its_definition(
        cool_down in 0..50_u64,
        records in prop::collection::vec((1..20_u64, 0..9_u32), 1..60),
    ) {
        use autoscaler::domain::window::Window;
        #[expect(clippy::disallowed_methods, reason = "a simulation needs some instant to begin at")]
        let start = Instant::now();
        let cool_down = Duration::from_secs(cool_down);
        let mut window = Window::new(cool_down);
        let mut steps: Vec<(u32, Instant)> = Vec::new();
        let mut now = start;
        for (wait, desired) in records {
            now += Duration::from_secs(wait);
            window.record(now, desired, 0);
            if let Some((_, until)) = steps.last_mut() {
                *until = now;
            }
            steps.push((desired, now));
            let held = steps.iter().filter(|(_, until)| now.duration_since(*until) < cool_down);
            let expected = held.map(|(desired, _)| *desired).max().unwrap_or(0).max(desired);
            prop_assert_eq!(window.highest(now), expected);
        }
    }
}
