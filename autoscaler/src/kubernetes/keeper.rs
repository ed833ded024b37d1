//! The life of one target: taken over, scaled, told of, let go.

use super::calls::CallBoard;
use super::events::{Events, Reason};
use super::explain::explain;
use super::intent::Scaled;
use super::observe;
use super::target::{KubeTarget, Means};
use super::telemetry;
use super::workload::{Key, Workload};
use crate::app::{Registry, TargetHandle, TargetSpec};
use crate::domain::{Decision, HoldReason};
use crate::report::Report;
use contract::annotations::{ORIGINAL_REPLICAS, SCALING};
use ops::backoff::Backoff;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

/// How often is looked for what has lasted for too long.
const LOOK: Duration = Duration::from_secs(1);
/// The least between two writes of the status annotation: each is a review and an update of the workload.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// How long something must be wrong before it is told: brokers and API servers come back.
const LASTING: Duration = Duration::from_secs(2);
/// The least between two Events of one reason with different notes.
const EVENT_EVERY: Duration = Duration::from_secs(30);
/// Between two tries to write.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The last report of each target, for `/status`. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Board(Arc<Mutex<BTreeMap<Key, Option<Report>>>>);

impl Board {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Option<Report>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All targets with their last reports.
    pub(super) fn to_json(&self) -> Value {
        let targets = self.lock();
        let entries = targets.iter().map(|(key, report)| {
            let report = report.as_ref().map(|report| {
                let counts = report.replicas;
                json!({
                    "replicas": counts.map(|counts| counts.total()),
                    "starting": counts.map(|counts| counts.starting),
                    "draining": counts.map(|counts| counts.draining),
                    "in_flight": counts.map(|counts| counts.in_flight),
                    "desired": report.desired,
                    "ready": report.ready,
                    "calls": report.calls,
                    "decision": report.decision.as_str(),
                    "reason": report.decision.reason(),
                    "sentence": report.sentence,
                    "trouble": report.trouble,
                })
            });
            (key.to_string(), report.unwrap_or(Value::Null))
        });
        Value::Object(entries.collect())
    }
}

/// What all keepers use.
#[derive(Debug, Clone)]
pub(super) struct Office {
    pub(super) means: Arc<Means>,
    pub(super) events: Events,
    pub(super) calls: CallBoard,
    pub(super) board: Board,
}

/// Keeps one target.
pub(super) struct Keeper {
    office: Office,
    key: Key,
    uid: String,
    told: Told,
    change: Arc<Mutex<Option<(u32, u32)>>>,
    status: Status,
}

/// What was told in Events, so that nothing is told twice.
#[derive(Default)]
struct Told {
    wrong: HashMap<Reason, (String, Instant)>,
    since: HashMap<Reason, Instant>,
}

/// The status annotation.
#[derive(Default)]
struct Status {
    /// Decision and reason as they are written.
    written: Option<(String, String)>,
    at: Option<Instant>,
    /// Decision and reason now, and since when.
    now: Option<(String, String)>,
    since: String,
}

impl Keeper {
    pub(super) fn new(office: Office, workload: &Workload) -> Self {
        let written = workload.own.get(SCALING).and_then(|text| {
            let status: Value = serde_json::from_str(text).ok()?;
            let word = |name: &str| Some(status.get(name)?.as_str()?.to_owned());
            Some((word("decision")?, word("reason")?))
        });
        Self {
            office,
            key: workload.key.clone(),
            uid: workload.uid.clone(),
            told: Told::default(),
            change: Arc::default(),
            status: Status {
                written,
                ..Status::default()
            },
        }
    }

    /// Takes the workload over and scales it until `stop`.
    pub(super) async fn run(mut self, scaled: Scaled, registry: Registry, stop: CancellationToken) {
        if stop.run_until_cancelled(self.take_over()).await.is_none() {
            return;
        }
        telemetry::target_added(&self.key);
        let handle = registry.add(TargetSpec {
            name: self.key.to_string(),
            queue: scaled.queue,
            dead_letter: scaled.dead_letter,
            policy: scaled.policy,
            target: KubeTarget {
                key: self.key.clone(),
                uid: self.uid.clone(),
                means: Arc::clone(&self.office.means),
                aside: Mutex::new(HashSet::new()),
                change: Arc::clone(&self.change),
            },
            calls: self.office.calls.subscribe(&self.key.path()),
        });
        stop.run_until_cancelled(self.follow(&handle)).await;
        handle.remove();
        self.office.board.lock().remove(&self.key);
        telemetry::target_removed(&self.key);
    }

    /// Remembers how many replicas there were before.
    async fn take_over(&self) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            match self.workload() {
                Some(workload) if workload.original().is_none() => {
                    let original = json!({ORIGINAL_REPLICAS: workload.replicas.to_string()});
                    match self.office.means.writer.annotate(&self.key, &original).await {
                        Ok(()) => return,
                        Err(error) => {
                            telemetry::trying_again("take over the workload", &self.key, &error.reason);
                        }
                    }
                }
                Some(_) => return,
                // It will be let go in a moment.
                None => {}
            }
            sleep(backoff.next_delay()).await;
        }
    }

    async fn follow(&mut self, handle: &TargetHandle) {
        let mut reports: watch::Receiver<Option<Report>> = handle.reports();
        let mut look = interval(LOOK);
        loop {
            // Both branches are cancel safe.
            tokio::select! {
                changed = reports.changed() => if changed.is_err() {
                    // The autoscaler of this broker has ended; whoever ended it lets us go too.
                    std::future::pending::<()>().await;
                },
                _ = look.tick() => {}
            }
            let report = reports.borrow_and_update().clone();
            self.office.board.lock().insert(self.key.clone(), report.clone());
            let (Some(report), Some(workload)) = (report, self.workload()) else {
                continue;
            };
            self.tell_change(&workload, &report);
            self.tell_wrong(&workload, &report);
            self.write_status(&report).await;
        }
    }

    fn workload(&self) -> Option<Workload> {
        let found = self.office.means.views.workload(&self.key);
        found.filter(|workload| workload.uid == self.uid)
    }

    fn tell_change(&self, workload: &Workload, report: &Report) {
        let change = self.change.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((from, to)) = change else { return };
        let reason = if to > from {
            Reason::ScaledUp
        } else {
            Reason::ScaledDown
        };
        let note = format!("from {from} to {to}: {}", report.sentence);
        self.office.events.tell(workload, reason, &note);
    }

    /// Tells what is wrong, each once until it is right again or something else is wrong.
    fn tell_wrong(&mut self, workload: &Workload, report: &Report) {
        let hold = match &report.decision {
            Decision::Hold { reason } => Some(*reason),
            _ => None,
        };
        let sentence = || report.sentence.clone();
        let unreachable = (hold == Some(HoldReason::SampleUnknown)).then(sentence);
        let cannot = (hold == Some(HoldReason::FleetUnknown))
            .then(sentence)
            .or(report.trouble.clone());
        let mut pods = self.office.means.views.pods_of(workload);
        pods.retain(|pod| observe::is_alive(pod));
        let bare = pods
            .iter()
            .filter(|pod| !observe::has_sidecar(pod))
            .map(|pod| observe::name(pod));
        let bare: Vec<&str> = bare.take(3).collect();
        let bare = (!bare.is_empty()).then(|| {
            format!(
                "without the sidecar, started before the annotations or while the webhook-injector was away: {}; \
                 they are never removed: restart them with kubectl rollout restart",
                bare.join(", ")
            )
        });
        let stuck = explain(workload, pods.iter().map(|pod| &**pod));
        for (reason, note) in [
            (Reason::BrokerUnreachable, unreachable),
            (Reason::CannotScale, cannot),
            (Reason::NotInjected, bare),
            (Reason::WorkerNotStarting, stuck),
        ] {
            if let Some(note) = self.told.news(reason, note) {
                self.office.events.tell(workload, reason, &note);
            }
        }
    }

    /// Writes the status annotation when the decision or its reason is another, and not too often.
    async fn write_status(&mut self, report: &Report) {
        let now = (
            report.decision.as_str().to_owned(),
            report.decision.reason().to_owned(),
        );
        let status = &mut self.status;
        if status.now.as_ref() != Some(&now) {
            (status.now, status.since) = (Some(now.clone()), super::second(super::timestamp()));
        }
        let is_early = status.at.is_some_and(|at| at.elapsed() < STATUS_EVERY);
        if is_early || status.written.as_ref() == Some(&now) {
            return;
        }
        let document = json!({
            "replicas": report.replicas.map(|counts| counts.total()),
            "desired": report.desired,
            "ready": report.ready,
            "calls": report.calls,
            "decision": now.0,
            "reason": now.1,
            "sentence": report.sentence,
            "since": status.since,
        });
        status.at = Some(Instant::now());
        let annotations = json!({SCALING: document.to_string()});
        // One that fails is counted, and tried again a little later.
        if self
            .office
            .means
            .writer
            .annotate(&self.key, &annotations)
            .await
            .is_ok()
        {
            self.status.written = Some(now);
        }
    }
}

impl Told {
    /// The note when it is to be told now.
    fn news(&mut self, reason: Reason, note: Option<String>) -> Option<String> {
        let Some(note) = note else {
            self.since.remove(&reason);
            self.wrong.remove(&reason);
            return None;
        };
        let now = Instant::now();
        let since = *self.since.entry(reason).or_insert(now);
        if now.saturating_duration_since(since) < LASTING {
            return None;
        }
        let is_told = self
            .wrong
            .get(&reason)
            .is_some_and(|(known, at)| *known == note || now.saturating_duration_since(*at) < EVENT_EVERY);
        if is_told {
            return None;
        }
        self.wrong.insert(reason, (note.clone(), now));
        Some(note)
    }
}
