//! What an activator is told: where to listen, how calls find their target, and every limit with its unit, default
//! and reason.

use crate::domain::buffer::Bounds;
use crate::domain::route::Routing;
use std::net::SocketAddr;
use std::time::Duration;

/// An activator's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where callers connect; port 0 takes a free one, which `Bound::addr` then tells.
    pub listen: SocketAddr,
    /// How calls find their target.
    pub routing: Routing,
    /// The limits.
    pub limits: Limits,
}

impl Config {
    /// A configuration with default limits.
    pub fn new(listen: SocketAddr, routing: Routing) -> Self {
        Self {
            listen,
            routing,
            limits: Limits::default(),
        }
    }
}

/// What an activator lets itself be burdened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How long a call waits for an endpoint that accepts it, all tries together; default 60 s. Longer than a cold
    /// start with an image pull from a near registry, shorter than most callers' patience.
    pub wake_timeout: Duration,
    /// How long one connection to an endpoint may take; default 1 s. Within a cluster a handshake takes
    /// milliseconds, and the kernel repeats a lost SYN after one second.
    pub connect_timeout: Duration,
    /// How long a worker may stay silent between taking the whole request and its response head; `None` for ever.
    /// Default 5 min, as Knative's and KEDA's.
    pub response_timeout: Option<Duration>,
    /// How long a caller may take for a request head, and stay idle between two; default 30 s. Bounds connections
    /// that only hold their place.
    pub header_timeout: Duration,
    /// How long a caller may stay silent within the body of an asynchronous call; default 30 s.
    pub body_timeout: Duration,
    /// How long the broker may take to confirm an asynchronous call; default 10 s.
    pub publish_timeout: Duration,
    /// How long a drain may take before waiting calls are rejected and connections cut; default 25 s, within the
    /// 30 s that Kubernetes grants by default.
    pub drain_timeout: Duration,
    /// How long an unused connection to a worker is kept; default 1.5 s. Shorter than the shortest keep-alive in
    /// wide use (gunicorn 2 s, Node.js 5 s), so that we hang up first.
    pub idle_timeout: Duration,
    /// What may wait for endpoints; default 10,000 calls a target, 20,000 and 128 MiB in total.
    pub buffer: Bounds,
    /// The longest body of an asynchronous call in bytes; default 1 MiB.
    pub async_body: usize,
    /// Callers' connections at one time; default 16,384. More wait in the kernel's backlog.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wake_timeout: Duration::from_mins(1),
            connect_timeout: Duration::from_secs(1),
            response_timeout: Some(Duration::from_mins(5)),
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            publish_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(25),
            idle_timeout: Duration::from_millis(1500),
            buffer: Bounds {
                calls_per_target: 10_000,
                calls: 20_000,
                bytes: 128 << 20,
            },
            async_body: 1 << 20,
            connections: 16_384,
        }
    }
}
