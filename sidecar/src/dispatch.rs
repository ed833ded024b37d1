//! HTTP to the worker.

mod client;
mod gate;
mod http1;
mod network;
mod pool;
pub mod response;

pub use client::{Dispatcher, Post, Worker};
pub use network::{Network, Stream, Tcp};

#[cfg(test)]
mod tests;
