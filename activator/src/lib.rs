//! Holds HTTP calls to a worker at zero, wakes it once, forwards; takes asynchronous calls.
//!
//! Start at [`pipeline`](self): `src/pipeline.rs` is the life of a request, a list of steps. `domain/` decides, `proxy/`
//! speaks HTTP, `waker.rs` watches targets, `outbox/` speaks AMQP, `app.rs` puts them together.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # async fn example(
//! #     targets: Arc<dyn activator::Targets>,
//! #     url: contract::broker::BrokerUrl,
//! # ) -> Result<(), activator::BindError> {
//! use activator::{Activator, Broker, Config, Routing};
//!
//! let config = Config::new("127.0.0.1:8080".parse().expect("invariant: an address"), Routing::ByName);
//! let outbox = Arc::new(Broker::new(url, "kubedaemon activator"));
//! let bound = Activator::bind(config, targets, outbox).await?;
//! println!("calls are taken at http://{}", bound.addr());
//! bound.run(ops::shutdown::Shutdown::new()).await;
//! # Ok(())
//! # }
//! ```

mod answer;
mod app;
mod config;
pub mod domain;
mod enqueue;
pub mod kubernetes;
mod load;
mod outbox;
mod pipeline;
mod proxy;
mod targets;
mod telemetry;
mod waker;

pub use app::{Activator, BindError, Bound, Drained, Port, Ports};
pub use config::{Config, Limits};
pub use domain::buffer::Bounds;
pub use domain::reject::Reason;
pub use domain::route::Routing;
pub use outbox::{Broker, Message, Outbox, OutboxError};
pub use targets::{TargetName, TargetState, Targets};
