//! HTTP to the worker.

mod client;
mod gate;
mod network;
mod pool;

pub use client::{Dispatcher, Worker};
pub use network::{Network, Stream, Tcp};

#[cfg(test)]
mod tests;
