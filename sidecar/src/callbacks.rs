//! Callbacks: where a worker that has answered 202 with `X-Defer` settles the message later.
//!
//! Every request carries an address of its own, `x-callback-url`. What is posted to `<address>/done` reaches the task that
//! holds the delivery, wherever that stands: a worker may call before its own answer has been read. The call is answered
//! when the message is settled, so that a worker which has its 200 need not remember anything.

use crate::domain::request::CallbackAddress;
use bytes::Bytes;
use http::HeaderMap;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::oneshot;

/// What the path of every callback begins with.
const PREFIX: &str = "/callback";
/// What it ends with.
const DONE: &str = "/done";
/// Messages lost while they were deferred that are remembered, so that a late worker is told what became of them.
const REMEMBERED: usize = 1024;

/// The addresses of one sidecar's deliveries.
#[derive(Debug)]
pub struct Callbacks {
    /// What every address begins with, up to the number of the delivery; `None` while nothing can be deferred.
    prefix: Option<String>,
    /// Tells the addresses of this process from those of an earlier one, and lets nobody guess one.
    process: String,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    open: HashMap<u64, Slot>,
    lost: VecDeque<u64>,
}

/// What there is of the one call that counts.
#[derive(Debug)]
enum Slot {
    /// Nothing: as with almost every message, which is settled by its answer.
    Open,
    /// The delivery waits for it.
    Awaited(oneshot::Sender<Done>),
    /// It came before the delivery began to wait.
    Early(Done),
    /// It was handed over.
    Taken,
}

/// What a worker posted.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    told: oneshot::Sender<Settled>,
}

/// What became of the message by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The word of the verdict.
    pub verdict: &'static str,
    /// The word of the reason.
    pub reason: &'static str,
}

/// Why a call changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There never was such an address.
    Unknown,
    /// It was settled before.
    Settled,
    /// The message is the broker's again.
    Lost,
}

impl Refused {
    /// The sentence for the worker.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Unknown => "there is no such callback: use the address in x-callback-url as it is",
            Self::Settled => {
                "the message is settled already: by its answer, by another call, or because its time was over"
            }
            Self::Lost => {
                "the message cannot be settled any more, because the connection to the broker was lost or the sidecar was \
                 started again: the broker delivers it again"
            }
        }
    }
}

impl Callbacks {
    /// Callbacks that are served at this address; none can be made when it is `None`, or is not one that the worker on
    /// this machine reaches.
    pub(crate) fn at(address: Option<SocketAddr>, worker_host: &str) -> Self {
        let is_here = worker_host == "localhost"
            || worker_host
                .parse()
                .is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback());
        let process = uuid::Uuid::new_v4().simple().to_string();
        let prefix = address
            .filter(|address| is_here && (address.ip().is_loopback() || address.ip().is_unspecified()))
            .map(|mut address| {
                if address.ip().is_unspecified() {
                    address.set_ip(Ipv4Addr::LOCALHOST.into());
                }
                format!("http://{address}{PREFIX}/{process}-")
            });
        Self {
            prefix,
            process,
            inner: Mutex::default(),
        }
    }

    /// An address for one delivery; `None` when it cannot be deferred.
    pub(crate) fn open(self: &Arc<Self>) -> Option<Callback> {
        self.prefix.as_ref()?;
        let mut inner = self.inner();
        let id = inner.next;
        inner.next += 1;
        inner.open.insert(id, Slot::Open);
        drop(inner);
        Some(Callback {
            id,
            done: None,
            told: None,
            is_settled: false,
            callbacks: Arc::clone(self),
        })
    }

    /// The address of this one.
    pub(crate) fn address(&self, id: u64) -> CallbackAddress<'_> {
        CallbackAddress {
            prefix: self.prefix.as_deref().unwrap_or_default(),
            number: id,
        }
    }

    /// Whether `path` is that of a callback.
    pub fn is_callback(path: &str) -> bool {
        path.strip_prefix(PREFIX)
            .is_some_and(|rest| rest.starts_with('/'))
    }

    /// Hands over what was posted to `path` and waits until the message is settled.
    ///
    /// # Errors
    /// Why it changes nothing.
    pub(crate) async fn post(&self, path: &str, headers: HeaderMap, body: Bytes) -> Result<Settled, Refused> {
        let id = self.id(path)?;
        let settled = {
            let mut inner = self.inner();
            let Some(slot) = inner.open.get_mut(&id) else {
                return Err(inner.why_not(id));
            };
            let (told, settled) = oneshot::channel();
            let done = Done { headers, body, told };
            *slot = match std::mem::replace(slot, Slot::Taken) {
                Slot::Open => Slot::Early(done),
                Slot::Awaited(sender) => {
                    // A receiver that is gone has dropped `told`.
                    let _received = sender.send(done).is_ok();
                    Slot::Taken
                }
                before @ (Slot::Early(_) | Slot::Taken) => {
                    *slot = before;
                    return Err(Refused::Settled);
                }
            };
            settled
        };
        settled.await.map_err(|_dropped| self.inner().why_not(id))
    }

    fn id(&self, path: &str) -> Result<u64, Refused> {
        let token = path
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix('/')?.strip_suffix(DONE));
        let (process, id) = token
            .and_then(|token| token.split_once('-'))
            .ok_or(Refused::Unknown)?;
        let id = id.parse().map_err(|_not_a_number| Refused::Unknown)?;
        let is_ours = process == self.process;
        let is_anothers = process.len() == self.process.len();
        match (is_ours, is_anothers) {
            (true, _) => Ok(id),
            (false, true) => Err(Refused::Lost),
            (false, false) => Err(Refused::Unknown),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("invariant: no holder panics")
    }
}

impl Inner {
    fn why_not(&self, id: u64) -> Refused {
        if id >= self.next {
            Refused::Unknown
        } else if self.lost.contains(&id) {
            Refused::Lost
        } else {
            Refused::Settled
        }
    }
}

/// The address of one delivery, for as long as it is not settled. Dropping it unsettled tells a worker that calls later
/// that the message is the broker's again.
#[derive(Debug)]
pub(crate) struct Callback {
    id: u64,
    /// Once it is waited for.
    done: Option<oneshot::Receiver<Done>>,
    told: Option<oneshot::Sender<Settled>>,
    is_settled: bool,
    callbacks: Arc<Callbacks>,
}

impl Callback {
    /// Which of the addresses it is.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the worker's call; for ever when there has been one. Cancel safe.
    pub(crate) async fn done(&mut self) -> (HeaderMap, Bytes) {
        if self.told.is_none()
            && let Some(Done { headers, body, told }) = self.call().await
        {
            self.told = Some(told);
            return (headers, body);
        }
        std::future::pending().await
    }

    /// The first call, which may have come already. Cancel safe: what has begun to wait is kept.
    async fn call(&mut self) -> Option<Done> {
        let done = if let Some(done) = &mut self.done {
            done
        } else {
            let (sender, done) = oneshot::channel();
            let mut inner = self.callbacks.inner();
            let slot = inner.open.get_mut(&self.id)?;
            if let Slot::Early(done) = std::mem::replace(slot, Slot::Awaited(sender)) {
                *slot = Slot::Taken;
                return Some(done);
            }
            self.done.insert(done)
        };
        done.await.ok()
    }

    /// The message is settled.
    pub(crate) fn settled(mut self, settled: Settled) {
        self.is_settled = true;
        if let Some(told) = self.told.take() {
            // A worker that has hung up does not want to know.
            let _hung_up = told.send(settled).is_err();
        }
    }
}

impl Drop for Callback {
    fn drop(&mut self) {
        // Whoever waits is woken by the end of our fields or of what was in the slot, after this.
        let mut inner = self.callbacks.inner();
        let _slot = inner.open.remove(&self.id);
        if !self.is_settled {
            if inner.lost.len() == REMEMBERED {
                inner.lost.pop_front();
            }
            inner.lost.push_back(self.id);
        }
    }
}

#[cfg(test)]
mod tests;
