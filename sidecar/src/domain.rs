//! The decisions of the sidecar as functions of values: no waiting, no clocks, no connections.

pub mod ack_window;
pub mod answer;
pub mod budget;
pub mod completed;
pub mod deferral;
pub mod delivery;
pub mod fields;
pub mod introduction;
pub mod journal;
pub mod lever;
pub mod outcome;
pub mod reply;
pub mod request;
pub mod retry;
pub mod settlement;
pub mod sockets;
pub mod stall;
pub mod verdict;
