//! What workers did, told by themselves: an HTTP server of the test's, which pods reach.

use crate::kube_api::lasting;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// One thing that a worker told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// `begin` or `end`.
    pub event: String,
    /// The message's id.
    pub id: String,
    /// The worker's pod.
    pub pod: String,
    /// When it was told.
    pub at: Instant,
}

/// Takes what workers tell at `POST /<shop>/<event>/<id>/<pod>`.
#[derive(Debug)]
pub struct Recorder {
    address: SocketAddr,
    told: Told,
}

type Told = Arc<Mutex<BTreeMap<String, Vec<Recorded>>>>;

impl Recorder {
    /// Listens on an address that pods reach.
    pub(crate) async fn start(address: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let told = Told::default();
        let shared = Arc::clone(&told);
        lasting().spawn(serve(listener.into_std().unwrap(), shared));
        Self { address, told }
    }

    /// Where the workers of a shop tell what they do.
    pub(crate) fn url(&self, shop: &str) -> String {
        format!("http://{}/{shop}", self.address)
    }

    /// What the workers of a shop have told so far, in order.
    pub fn told(&self, shop: &str) -> Vec<Recorded> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(shop).cloned().unwrap_or_default()
    }
}

/// Takes the listener of another runtime.
async fn serve(listener: std::net::TcpListener, told: Told) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let told = Arc::clone(&told);
        let answer = service_fn(move |request: Request<Incoming>| {
            record(&told, request.uri().path());
            std::future::ready(Ok::<_, Infallible>(Response::new(Full::new(Bytes::new()))))
        });
        tokio::spawn(async move {
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            // A worker that is killed ends its connections without a word.
            connection.await.ok();
        });
    }
}

fn record(told: &Told, path: &str) {
    let mut parts = path.trim_start_matches('/').split('/').map(str::to_owned);
    let (Some(shop), Some(event), Some(id), Some(pod)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return;
    };
    let at = Instant::now();
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    told.entry(shop)
        .or_default()
        .push(Recorded { event, id, pod, at });
}
