//! The words that every component shares: settings, annotations, headers, units. No IO.
//!
//! Start at [`settings::SETTINGS`]: one table from which annotations, environment variables, flags, their parsing
//! and the reference page all come.

pub mod annotations;
pub mod broker;
pub mod headers;
pub mod names;
pub mod pods;
pub mod quantity;
pub mod reference;
pub mod settings;
mod show;

/// What every annotation of ours begins with, before the slash.
pub const PREFIX: &str = "kubedaemon.io";
