//! Every order of events around a change of generation, for a few messages: a model checker over the settler itself.
//!
//! A state is reached by running its history through the real [`Settler`], [`Receipt`]s, writers and windows, on a paused
//! clock, against a broker with the rules of RabbitMQ. Two histories that lead to the same [`View`] are one state: it
//! has everything that what follows depends on, for a window is what was settled less what was written.

use super::{Receipt, Settler};
use crate::broker::port::{Channel, Consumer};
use crate::domain::ack_window::{FlushPolicy, Tag};
use crate::status::{Fate, Ledger};
use amqp::Error;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use stateright::{Checker, Model, Property};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::task::TaskTracker;

type Message = u8;

const PREFETCH: usize = 3;

/// Nothing is written because enough waits, so that as much as can wait does.
const POLICY: FlushPolicy = FlushPolicy {
    batch: 16,
    delay: Duration::from_millis(2),
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The broker hands a message over on the newest connection.
    Deliver,
    /// The receipt of this generation and tag is used.
    Ack(usize, Tag),
    Release(usize, Tag),
    /// Or dropped, as by a forced end.
    Drop(usize, Tag),
    /// The writers run; no time passes.
    Run,
    /// Time passes: whatever waits in a window is due.
    Wait,
    /// The broker processes what was written first of what it has not.
    Process(usize),
    /// The newest connection breaks: what is on its way is gone, what is unsettled goes back.
    Lose,
    /// The sidecar learns of it.
    Learn,
    /// And connects again: tags begin at 1.
    Reconnect,
    /// What is left is settled, written and processed.
    Finish,
}

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Kept,
    /// A window goes on when its generation is gone: what it writes goes out on the newest channel.
    WindowSurvives,
    EveryAckIsMultiple,
    EveryAckIsWrittenTwice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Settled {
    Acked,
    Released,
    Dropped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Frame {
    Ack(Tag, bool),
    Release(Tag),
}

/// One generation as broker and sidecar know it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Generation {
    /// At the broker.
    outstanding: BTreeMap<Tag, Message>,
    tags: Tag,
    wire: VecDeque<Frame>,
    /// At the sidecar: receipts that are not used yet, and how the others were.
    held: BTreeSet<Tag>,
    settled: BTreeMap<Tag, Settled>,
    /// Used, and not looked at by the writer yet.
    queued: Vec<Tag>,
    /// Covered by what was written.
    written: BTreeSet<Tag>,
    is_lost: bool,
    is_known: bool,
}

/// Everything that what follows depends on, and what went wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct View {
    queue: VecDeque<Message>,
    generations: Vec<Generation>,
    done: BTreeSet<Message>,
    fates: [u64; 3],
    releases: u8,
    is_finished: bool,
    wrong: Option<&'static str>,
}

impl View {
    fn process(&mut self, number: usize) {
        let generation = &mut self.generations[number];
        let Some(frame) = generation.wire.pop_front() else {
            return;
        };
        let (Frame::Ack(tag, _) | Frame::Release(tag)) = frame;
        if !generation.outstanding.contains_key(&tag) {
            self.wrong = Some("unknown delivery tag");
            return;
        }
        let covered: Vec<Tag> = match frame {
            Frame::Ack(tag, true) => generation
                .outstanding
                .range(..=tag)
                .map(|(tag, _)| *tag)
                .collect(),
            Frame::Ack(tag, false) | Frame::Release(tag) => vec![tag],
        };
        for tag in covered {
            let message = generation.outstanding.remove(&tag).unwrap();
            match (frame, generation.settled.get(&tag)) {
                (Frame::Ack(..), Some(Settled::Acked)) => {
                    self.done.insert(message);
                }
                (Frame::Release(_), Some(Settled::Released)) => self.queue.push_front(message),
                _ => self.wrong = Some("what was not settled so was written"),
            }
        }
    }
}

type Shared = Arc<Mutex<View>>;

/// The channel of one generation.
#[derive(Debug)]
struct Wire {
    view: Shared,
    number: usize,
    rule: Rule,
}

impl Wire {
    fn write(&self, frame: Frame) -> bool {
        let mut view = self.view.lock().unwrap();
        let newest = view.generations.len() - 1;
        let number = match self.rule {
            Rule::WindowSurvives => newest,
            _ => self.number,
        };
        let generation = &mut view.generations[number];
        if generation.is_known {
            return false;
        }
        let covered: Vec<Tag> = match frame {
            Frame::Ack(tag, true) => generation.settled.range(..=tag).map(|(tag, _)| *tag).collect(),
            Frame::Ack(tag, false) | Frame::Release(tag) => vec![tag],
        };
        generation.written.extend(covered);
        // On its way for ever when the connection is broken.
        if !generation.is_lost {
            generation.wire.push_back(frame);
            if self.rule == Rule::EveryAckIsWrittenTwice {
                generation.wire.push_back(frame);
            }
        }
        true
    }
}

impl Channel for Wire {
    fn is_open(&self) -> bool {
        !self.view.lock().unwrap().generations[self.number].is_known
    }

    fn consume<'a>(&'a self, _queue: &'a str) -> BoxFuture<'a, Result<Consumer, Error>> {
        unreachable!("deliveries are made by hand")
    }

    fn cancel<'a>(&'a self, _consumer: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        unreachable!("deliveries are made by hand")
    }

    fn ack(&self, tag: Tag, multiple: bool) -> bool {
        self.write(Frame::Ack(tag, multiple || self.rule == Rule::EveryAckIsMultiple))
    }

    fn release(&self, tag: Tag) -> bool {
        self.write(Frame::Release(tag))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}

/// The real thing, at the end of a history.
struct Run {
    rule: Rule,
    view: Shared,
    ledger: Arc<Ledger>,
    tasks: TaskTracker,
    settler: Option<Settler>,
    receipts: BTreeMap<(usize, Tag), Receipt>,
}

impl Run {
    fn new(rule: Rule, messages: Message) -> Self {
        let view = View {
            queue: (0..messages).collect(),
            ..View::default()
        };
        let now = tokio::time::Instant::now().into_std();
        let mut run = Self {
            rule,
            view: Arc::new(Mutex::new(view)),
            ledger: Arc::new(Ledger::new(now)),
            tasks: TaskTracker::new(),
            settler: None,
            receipts: BTreeMap::new(),
        };
        run.connect();
        run
    }

    fn connect(&mut self) {
        let number = {
            let mut view = self.view.lock().unwrap();
            view.generations.push(Generation::default());
            view.generations.len() - 1
        };
        let wire = Wire {
            view: Arc::clone(&self.view),
            number,
            rule: self.rule,
        };
        let prefetch = u16::try_from(PREFETCH).unwrap();
        let ledger = Arc::clone(&self.ledger);
        self.settler = Some(Settler::start(
            Arc::new(wire),
            prefetch,
            POLICY,
            ledger,
            &self.tasks,
        ));
    }

    fn newest<T>(&self, change: impl FnOnce(&mut View, usize) -> T) -> T {
        let mut view = self.view.lock().unwrap();
        let newest = view.generations.len() - 1;
        change(&mut view, newest)
    }

    fn settle(&mut self, number: usize, tag: Tag, how: Settled) {
        let receipt = self.receipts.remove(&(number, tag)).unwrap();
        {
            let generation = &mut self.view.lock().unwrap().generations[number];
            generation.held.remove(&tag);
            generation.settled.insert(tag, how);
            if how != Settled::Dropped {
                generation.queued.push(tag);
            }
        }
        match how {
            Settled::Acked => receipt.ack(Fate::Accepted),
            Settled::Released => receipt.release(Fate::Released),
            Settled::Dropped => drop(receipt),
        }
    }

    /// Lets the writers do what they can at this instant.
    async fn run_writers(&self) {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        for generation in &mut self.view.lock().unwrap().generations {
            generation.queued.clear();
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Deliver => {
                let (number, tag) = self.newest(|view, newest| {
                    let message = view.queue.pop_front().unwrap();
                    let generation = &mut view.generations[newest];
                    generation.tags += 1;
                    generation.outstanding.insert(generation.tags, message);
                    generation.held.insert(generation.tags);
                    (newest, generation.tags)
                });
                let receipt = self.settler.as_ref().unwrap().receipt(tag);
                self.receipts.insert((number, tag), receipt);
            }
            Step::Ack(number, tag) => self.settle(number, tag, Settled::Acked),
            Step::Release(number, tag) => {
                self.view.lock().unwrap().releases += 1;
                self.settle(number, tag, Settled::Released);
            }
            Step::Drop(number, tag) => self.settle(number, tag, Settled::Dropped),
            Step::Run => self.run_writers().await,
            Step::Wait => {
                tokio::time::advance(Duration::from_millis(3)).await;
                self.run_writers().await;
            }
            Step::Process(number) => self.view.lock().unwrap().process(number),
            Step::Lose => self.newest(|view, newest| {
                let generation = &mut view.generations[newest];
                generation.is_lost = true;
                generation.wire.clear();
                let unsettled = std::mem::take(&mut generation.outstanding);
                for message in unsettled.into_values().rev() {
                    view.queue.push_front(message);
                }
            }),
            Step::Learn => self.newest(|view, newest| view.generations[newest].is_known = true),
            Step::Reconnect => self.connect(),
            Step::Finish => self.finish().await,
        }
        let counts = self.ledger.snapshot().counts;
        self.view.lock().unwrap().fates = [counts.accepted, counts.released, counts.lost];
    }

    async fn finish(&mut self) {
        let held: Vec<(usize, Tag)> = self.receipts.keys().copied().collect();
        for (number, tag) in held {
            self.settle(number, tag, Settled::Acked);
        }
        self.settler = None;
        tokio::time::advance(Duration::from_millis(3)).await;
        self.run_writers().await;
        let counts = self.ledger.snapshot().counts;
        let mut view = self.view.lock().unwrap();
        view.is_finished = true;
        for number in 0..view.generations.len() {
            while view.wrong.is_none() && !view.generations[number].wire.is_empty() {
                view.process(number);
            }
        }
        let used: usize = view
            .generations
            .iter()
            .map(|generation| generation.settled.len())
            .sum();
        let counted = counts.accepted + counts.released + counts.lost;
        let is_left = view.generations.iter().any(|generation| {
            let mut left = generation.outstanding.keys();
            left.any(|tag| generation.settled[tag] != Settled::Dropped)
        });
        let wrong = if counted != used as u64 {
            Some("a fate is counted not once")
        } else if is_left {
            Some("what was settled is not written")
        } else {
            None
        };
        view.wrong = view.wrong.or(wrong);
    }
}

/// How far it goes.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    messages: Message,
    generations: usize,
    releases: u8,
}

#[derive(Debug, Clone, Copy)]
struct Settling {
    rule: Rule,
    bounds: Bounds,
}

#[derive(Debug, Clone)]
struct State {
    history: Vec<Step>,
    view: View,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.view == other.view
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.view.hash(state);
    }
}

impl Settling {
    fn replay(&self, history: Vec<Step>) -> State {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let view = runtime.block_on(async {
            let mut run = Run::new(self.rule, self.bounds.messages);
            for step in &history {
                run.take(*step).await;
            }
            run.view.lock().unwrap().clone()
        });
        State { history, view }
    }
}

impl Model for Settling {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.replay(Vec::new())]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        let view = &state.view;
        if view.is_finished || view.wrong.is_some() {
            return;
        }
        let newest = view.generations.last().unwrap();
        if !newest.is_lost && !view.queue.is_empty() && newest.outstanding.len() < PREFETCH {
            steps.push(Step::Deliver);
        }
        for (number, generation) in view.generations.iter().enumerate() {
            for tag in &generation.held {
                steps.push(Step::Ack(number, *tag));
                if view.releases < self.bounds.releases {
                    steps.push(Step::Release(number, *tag));
                }
                steps.push(Step::Drop(number, *tag));
            }
            if !generation.wire.is_empty() {
                steps.push(Step::Process(number));
            }
        }
        if view
            .generations
            .iter()
            .any(|generation| !generation.queued.is_empty())
        {
            steps.push(Step::Run);
        }
        let waits = |generation: &Generation| {
            let mut settled = generation.settled.keys();
            settled.any(|tag| !generation.written.contains(tag))
        };
        if view.generations.iter().any(waits) {
            steps.push(Step::Wait);
        }
        if !newest.is_lost {
            steps.push(Step::Lose);
        } else if !newest.is_known {
            steps.push(Step::Learn);
        } else if view.generations.len() < self.bounds.generations {
            steps.push(Step::Reconnect);
        }
        steps.push(Step::Finish);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut history = state.history.clone();
        history.push(step);
        Some(self.replay(history))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing wrong is written", |_, state: &State| {
                state.view.wrong.is_none()
            }),
            Property::always("no message is lost", |model: &Self, state: &State| {
                let view = &state.view;
                let is_there = |message: Message| {
                    let mut generations = view.generations.iter();
                    view.done.contains(&message)
                        || view.queue.contains(&message)
                        || generations.any(|one| one.outstanding.values().any(|held| *held == message))
                };
                (0..model.bounds.messages).all(is_there)
            }),
            // That the bounds are wide enough for what matters.
            Property::sometimes(
                "a late receipt is used beside a new delivery of the same tag",
                |_, state: &State| {
                    let generations = &state.view.generations;
                    generations.len() > 1
                        && generations[1].held.contains(&1)
                        && generations[0].settled.contains_key(&1)
                        && generations[0].tags > 0
                },
            ),
            Property::sometimes("everything is done", |model: &Self, state: &State| {
                state.view.done.len() == usize::from(model.bounds.messages)
            }),
        ]
    }
}

fn check(rule: Rule, bounds: Bounds) -> impl Checker<Settling> {
    let begun = tokio::time::Instant::now();
    let checker = Settling { rule, bounds }.checker().threads(2).spawn_bfs().join();
    println!(
        "{rule:?} with {bounds:?}: {} states, {} of them different, {} steps deep, in {:?}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        begun.elapsed(),
    );
    checker
}

#[test]
fn in_every_order_around_a_change_of_generation_what_was_settled_is_written_once() {
    for bounds in [
        Bounds {
            messages: 2,
            generations: 2,
            releases: 1,
        },
        Bounds {
            messages: 1,
            generations: 3,
            releases: 1,
        },
    ] {
        check(Rule::Kept, bounds).assert_properties();
    }
}

#[test]
fn every_broken_rule_is_found() {
    let bounds = Bounds {
        messages: 2,
        generations: 2,
        releases: 0,
    };
    for rule in [
        Rule::WindowSurvives,
        Rule::EveryAckIsMultiple,
        Rule::EveryAckIsWrittenTwice,
    ] {
        let checker = check(rule, bounds);
        let path = checker.assert_any_discovery("nothing wrong is written");
        println!("{rule:?}: {:?}", path.into_actions());
    }
}
