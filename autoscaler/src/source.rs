//! Where queue depths come from.

mod depth;
mod link;
mod no_queues;
mod passive_declare;
mod sampler;

pub use depth::DepthSource;
pub use no_queues::NoQueues;
pub use passive_declare::PassiveDeclare;
pub(crate) use sampler::{Questions, Sampler, sampler};
