//! HTTP to the worker.

mod client;
mod gate;
mod pool;

pub use client::{Dispatcher, Worker};

#[cfg(test)]
mod tests;
