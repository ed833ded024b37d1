//! Decisions of local mode as values: no processes, no clocks, no streams.

pub(crate) mod expand;
pub(crate) mod life;
pub(crate) mod line;
pub(crate) mod summary;
