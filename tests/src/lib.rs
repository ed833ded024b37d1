//! What the process-level tests, the demo and the figures share: where our programs are, and which answer a test
//! worker gives to which message.

pub mod fate;
pub mod programs;
pub mod report;
