//! Where queue depths come from.

mod depth;
mod link;
mod passive_declare;
mod sampler;

pub use depth::DepthSource;
pub use passive_declare::PassiveDeclare;
pub(crate) use sampler::{Questions, Sampler, sampler};
