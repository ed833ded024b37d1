//! What the process-level tests, the soak, the demo and the figures share: where our programs are, which answer a test
//! worker gives to which message, and everything that it takes to prove that no message is lost:
//!
//! | part | what it does |
//! |---|---|
//! | [`lane`] | one queue with its worker and its sidecar |
//! | [`publishing`] | publishes until the broker has confirmed every message, whatever happens to it |
//! | [`faults`] | what is done to a lane and to the broker |
//! | [`wire`] | stands between a sidecar and the broker, sees and stops what passes |
//! | [`worker_log`], [`letters`] | what the worker was asked, and what was dead-lettered |
//! | [`oracle`] | compares both with what was published: every message has one fate that can be explained |
//! | [`memory`] | how a sidecar's memory grows with the messages |
//! | [`soak`] | all of it at once, for as long as one likes |

pub mod fate;
pub mod faults;
pub mod lane;
pub mod letters;
pub mod memory;
pub mod oracle;
pub mod programs;
pub mod publishing;
pub mod settings;
pub mod soak;
pub mod wire;
pub mod worker_log;
