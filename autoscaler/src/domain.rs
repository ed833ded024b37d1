//! The decisions, as functions of values: no clocks, no IO, no logs. `now` is always [`Sample::at`].
//!
//! - [`sample`]: what is known at one moment, and what is not
//! - [`policy`]: the numbers that a user sets
//! - [`window`]: what was needed in the trailing cool-down
//! - [`victims`]: which replicas may go
//! - [`decision`]: what can be decided, and why
//! - [`decide`](mod@decide): all of it together: one decision for one sample
//! - [`sentence`]: the decision in words

pub mod decide;
pub mod decision;
pub mod policy;
pub mod sample;
pub mod sentence;
pub mod victims;
pub mod window;

pub use decide::{Assessment, Memory, decide};
pub use decision::{Decision, DownReason, HoldReason, UpReason};
pub use policy::{Policy, PolicyError};
pub use sample::{Calls, Counts, Depth, QueueName, QueueSample, Sample, SampleError};
