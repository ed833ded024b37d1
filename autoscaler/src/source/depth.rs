//! What the autoscaler asks of a broker, whatever the protocol.

use crate::domain::{Depth, QueueName, SampleError};
use std::future::Future;

/// A source of queue depths: one broker, seen through one vhost.
///
/// Calls come one at a time. A source reconnects by itself and says so itself, once a change; while it cannot answer
/// it returns errors, and never an old depth.
pub trait DepthSource: Send + 'static {
    /// A bounded word for labels.
    fn name(&self) -> &'static str;

    /// The depth of each queue, in the order of `queues`. Returns within a few seconds whatever the broker does.
    ///
    /// # Errors
    /// One for each queue; [`SampleError::BrokerUnreachable`] for all when the connection is lost.
    fn sample(
        &mut self,
        queues: &[QueueName],
    ) -> impl Future<Output = Vec<Result<Depth, SampleError>>> + Send;

    /// Makes the queue, with `dead_letter` behind it, unless it exists; one that exists is used as it is. So the
    /// first message at zero replicas finds a queue.
    ///
    /// # Errors
    /// When it is not certain that both exist.
    fn ensure(
        &mut self,
        queue: &QueueName,
        dead_letter: &str,
    ) -> impl Future<Output = Result<(), SampleError>> + Send;

    /// Says goodbye to the broker.
    fn close(self) -> impl Future<Output = ()> + Send;
}
