//! The decisions of the sidecar as functions of values: no waiting, no clocks, no connections.

pub mod ack_window;
pub mod answer;
pub mod delivery;
pub mod journal;
pub mod lever;
pub mod outcome;
pub mod request;
pub mod retry;
pub mod settlement;
pub mod sockets;
pub mod verdict;
