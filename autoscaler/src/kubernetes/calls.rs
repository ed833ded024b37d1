//! Calls that wait or are being answered, as all activators tell. What one of them has not told is not known.

use super::http::Http;
use super::telemetry;
use crate::domain::Calls;
use contract::pods::CALLS_PATH;
use futures_util::future::join_all;
use http::Method;
use k8s::{Clients, View};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(1);
/// How long changes of the activators' endpoints may go untold.
const STALE: Duration = Duration::from_secs(3);
/// The port's name in the activators' `EndpointSlice`s.
const PORT: &str = "admin";

/// What was told in the last round. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct CallBoard {
    inner: Arc<Mutex<Told>>,
}

#[derive(Debug, Default)]
struct Told {
    /// By `namespace/name`; who is not named has none.
    counts: BTreeMap<String, u32>,
    /// Why these are not all, in a sentence.
    missing: Option<String>,
    receivers: HashMap<String, watch::Sender<Calls>>,
}

impl Told {
    fn calls(&self, path: &str) -> Calls {
        let count = self.counts.get(path).copied().unwrap_or_default();
        if self.missing.is_none() {
            Calls::Known(count)
        } else {
            Calls::AtLeast(count)
        }
    }
}

#[derive(Deserialize)]
struct Document {
    calls: BTreeMap<String, u32>,
}

impl CallBoard {
    /// A board on which nothing is known yet.
    pub(super) fn unknown() -> Self {
        let board = Self::default();
        board.lock().missing = Some("no activator was asked yet".to_owned());
        board
    }

    /// The calls for a workload, now and later.
    pub(super) fn subscribe(&self, path: &str) -> watch::Receiver<Calls> {
        let mut told = self.lock();
        let now = told.calls(path);
        let sender = told
            .receivers
            .entry(path.to_owned())
            .or_insert_with(|| watch::channel(now).0);
        sender.subscribe()
    }

    fn tell(&self, counts: BTreeMap<String, u32>, missing: Option<String>) {
        let mut told = self.lock();
        match (&told.missing, &missing) {
            (None, Some(why)) => telemetry::activators_silent(why),
            (Some(_), None) => telemetry::activators_told(),
            _ => {}
        }
        (told.counts, told.missing) = (counts, missing);
        let mut receivers = std::mem::take(&mut told.receivers);
        receivers.retain(|path, sender| {
            let calls = told.calls(path);
            sender.send_if_modified(|known| std::mem::replace(known, calls) != calls);
            sender.receiver_count() > 0
        });
        told.receivers = receivers;
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks all activators behind a Service again and again; never ends.
    pub(super) async fn follow(self, clients: Clients, namespace: String, service: String) {
        let labels = format!("kubernetes.io/service-name={service}");
        let slices: View<EndpointSlice> = View::follow(&clients, Some(&namespace), &labels, |_| {});
        slices.ready().await;
        let http = Http::default();
        loop {
            let began = Instant::now();
            let (counts, missing) = round(&slices, &http).await;
            self.tell(counts, missing);
            sleep_until(began + EVERY).await;
        }
    }
}

async fn round(slices: &View<EndpointSlice>, http: &Http) -> (BTreeMap<String, u32>, Option<String>) {
    let mut missing = slices
        .trouble()
        .filter(|trouble| trouble.since.elapsed() >= STALE)
        .map(|trouble| format!("who the activators are is not known: {}", trouble.sentence));
    let activators: Vec<Activator> = slices.all().iter().flat_map(|slice| activators(slice)).collect();
    let answers = join_all(activators.iter().map(|activator| ask(http, activator.address))).await;
    let mut counts = BTreeMap::new();
    for (activator, answer) in activators.iter().zip(answers) {
        match answer {
            Ok(told) => {
                for (path, count) in told {
                    let sum: &mut u32 = counts.entry(path).or_default();
                    *sum = sum.saturating_add(count);
                }
            }
            // One that is ending or not ready yet need not answer.
            Err(why) if activator.is_ready => {
                missing = Some(format!("an activator does not tell its calls: {why}"));
            }
            Err(_) => {}
        }
    }
    (counts, missing)
}

async fn ask(http: &Http, address: SocketAddr) -> Result<BTreeMap<String, u32>, String> {
    let answer = http.send(Method::GET, address, CALLS_PATH, None).await?;
    if !answer.status.is_success() {
        return Err(format!(
            "{address} answers {CALLS_PATH} with {}",
            answer.status.as_u16()
        ));
    }
    let document: Document = serde_json::from_slice(&answer.body)
        .map_err(|error| format!("{address} answers {CALLS_PATH} with something else: {error}"))?;
    Ok(document.calls)
}

#[derive(Debug, PartialEq, Eq)]
struct Activator {
    address: SocketAddr,
    is_ready: bool,
}

/// The activators of a slice: those that are ready, and those that are ending and may have calls still.
fn activators(slice: &EndpointSlice) -> Vec<Activator> {
    let ports = slice.ports.iter().flatten();
    let port = ports
        .filter(|port| port.name.as_deref() == Some(PORT))
        .find_map(|port| u16::try_from(port.port?).ok());
    let Some(port) = port else { return Vec::new() };
    let mut found = Vec::new();
    for endpoint in &slice.endpoints {
        let conditions = endpoint.conditions.as_ref();
        // Nothing said means ready (https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#conditions).
        let is_ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
        let is_serving = conditions
            .and_then(|conditions| conditions.serving)
            .unwrap_or(is_ready);
        if !is_ready && !is_serving {
            continue;
        }
        for address in &endpoint.addresses {
            if let Ok(ip) = address.parse::<IpAddr>() {
                let address = SocketAddr::new(ip, port);
                found.push(Activator { address, is_ready });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ready_and_ending_activators_are_asked() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}, {"name": "admin", "port": 9464}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": false}},
                {"addresses": ["10.0.0.4"]},
            ],
        }))
        .unwrap();
        let found: Vec<_> = activators(&slice)
            .iter()
            .map(|activator| (activator.address.to_string(), activator.is_ready))
            .collect();
        let expected = [
            ("10.0.0.1:9464", true),
            ("10.0.0.2:9464", false),
            ("10.0.0.4:9464", true),
        ];
        assert_eq!(
            found,
            expected.map(|(address, ready)| (address.to_owned(), ready))
        );
    }

    #[test]
    fn what_was_not_told_is_not_zero() {
        let board = CallBoard::unknown();
        let mut calls = board.subscribe("shop/orders");
        assert_eq!(*calls.borrow_and_update(), Calls::AtLeast(0));
        board.tell(BTreeMap::from([("shop/orders".to_owned(), 2)]), None);
        assert_eq!(*calls.borrow_and_update(), Calls::Known(2));
        board.tell(BTreeMap::new(), Some("one is silent".to_owned()));
        assert_eq!(*calls.borrow_and_update(), Calls::AtLeast(0));
        assert_eq!(*board.subscribe("shop/other").borrow(), Calls::AtLeast(0));
        drop(calls);
        board.tell(BTreeMap::new(), None);
        assert!(board.lock().receivers.is_empty());
    }
}
