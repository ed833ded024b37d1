//! Events on workloads, for whoever runs `kubectl describe`.

use super::telemetry::{self, Request};
use super::workload::{Key, Workload};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::PostParams;
use ops::backoff::Backoff;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// Events that wait to be sent; what comes on top is dropped, and stays in the log.
const WAITING: usize = 256;
/// The longest note, in bytes (<https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/>).
const MAX_NOTE: usize = 1024;
/// How often an Event is tried, and the pause between.
const TRIES: u32 = 6;
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Who reports.
const CONTROLLER: &str = "kubedaemon.io/autoscaler";

/// Why there is an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reason {
    /// More replicas.
    ScaledUp,
    /// Fewer replicas.
    ScaledDown,
    /// Annotations cannot be read.
    BadAnnotation,
    /// The depth of the queue is not known.
    BrokerUnreachable,
    /// Replicas cannot be told or changed.
    CannotScale,
    /// Pods have no sidecar.
    NotInjected,
    /// Something else scales the same workload.
    ConflictingAutoscaler,
    /// Pods do not become ready.
    WorkerNotStarting,
    /// The workload is given back with the replicas that it had.
    Restored,
}

impl Reason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ScaledUp => "ScaledUp",
            Self::ScaledDown => "ScaledDown",
            Self::BadAnnotation => "BadAnnotation",
            Self::BrokerUnreachable => "BrokerUnreachable",
            Self::CannotScale => "CannotScale",
            Self::NotInjected => "NotInjected",
            Self::ConflictingAutoscaler => "ConflictingAutoscaler",
            Self::WorkerNotStarting => "WorkerNotStarting",
            Self::Restored => "Restored",
        }
    }

    pub(super) fn is_warning(self) -> bool {
        !matches!(self, Self::ScaledUp | Self::ScaledDown | Self::Restored)
    }
}

/// Takes Events. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Events(mpsc::Sender<Note>);

/// An Event to be sent.
#[derive(Debug)]
pub(super) struct Note {
    regarding: ObjectReference,
    reason: Reason,
    text: String,
}

impl Events {
    pub(super) fn new() -> (Self, mpsc::Receiver<Note>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Tells it in the log and as an Event.
    pub(super) fn tell(&self, workload: &Workload, reason: Reason, note: &str) {
        let key: &Key = &workload.key;
        telemetry::event(key, reason, note);
        let note = Note {
            regarding: workload.reference(),
            reason,
            text: shortened(note),
        };
        // More than can be sent: the log has it.
        let _dropped = self.0.try_send(note);
    }
}

/// Sends Events until nobody has any more.
pub(super) async fn send(client: kube::Client, instance: String, mut notes: mpsc::Receiver<Note>) {
    while let Some(Note {
        regarding,
        reason,
        text,
    }) = notes.recv().await
    {
        let now = super::timestamp();
        let namespace = regarding.namespace.clone().unwrap_or_default();
        let name = regarding.name.as_deref().unwrap_or_default();
        let event = Event {
            action: Some("Scale".to_owned()),
            event_time: Some(MicroTime(now)),
            metadata: ObjectMeta {
                name: Some(format!(
                    "{name}.{:x}{:04x}",
                    now.as_microsecond(),
                    fastrand::u16(..)
                )),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            note: Some(text),
            reason: Some(reason.as_str().to_owned()),
            regarding: Some(regarding),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(instance.clone()),
            type_: Some(if reason.is_warning() { "Warning" } else { "Normal" }.to_owned()),
            ..Event::default()
        };
        create(&Api::namespaced(client.clone(), &namespace), &event).await;
    }
}

/// Nobody repeats an Event that is dropped, so one that an API server in trouble has not taken is tried again.
async fn create(events: &Api<Event>, event: &Event) {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    for _ in 0..TRIES {
        let Err(error) = events.create(&PostParams::default(), event).await else {
            return;
        };
        telemetry::api_error(Request::Event, &error);
        // What is refused once is refused again; a conflict says that an earlier try had arrived.
        if matches!(&error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
        {
            return;
        }
        sleep(backoff.next_delay()).await;
    }
}

fn shortened(note: &str) -> String {
    if note.len() <= MAX_NOTE {
        return note.to_owned();
    }
    let end = note.floor_char_boundary(MAX_NOTE - '…'.len_utf8());
    format!("{}…", &note[..end])
}
