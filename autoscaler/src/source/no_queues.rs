//! The source of targets without queues.

use crate::domain::{Depth, QueueName, SampleError};
use crate::source::DepthSource;

/// For targets that are only called; it is never asked.
#[derive(Debug, Clone, Copy)]
pub struct NoQueues;

impl DepthSource for NoQueues {
    fn name(&self) -> &'static str {
        "none"
    }

    async fn sample(&mut self, queues: &[QueueName]) -> Vec<Result<Depth, SampleError>> {
        queues
            .iter()
            .map(|queue| Err(SampleError::QueueMissing(queue.clone())))
            .collect()
    }

    async fn ensure(&mut self, queue: &QueueName, _dead_letter: &str) -> Result<(), SampleError> {
        Err(SampleError::QueueMissing(queue.clone()))
    }

    async fn close(self) {}
}
