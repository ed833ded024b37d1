//! The bench: our programs and their peers, measured so that a sceptic is convinced.
//!
//! Every runner is a process that is given the same broker, queue, prefetch and sink. Two runners are measured in
//! turn, in random order, many times; what is reported is the median of the ratios pair by pair with a bootstrap
//! interval. A runner is measured against itself first, and a run in which that does not come out as 1 is rejected.
//! Beside every speed stands what was lost and what came twice. The method with its reasons: `docs/performance.md`.
//!
//! | step | module |
//! |---|---|
//! | which messages, how fast, which pairs, which figures | [`workload`] |
//! | a message that can be recognised and checked, and what is around it | [`body`], [`envelope`] |
//! | who measures what in which order, from a seed | [`schedule`] |
//! | one runner on one workload, start to end | [`leg`] |
//! | what arrived: each once, several times, never | [`ledger`] |
//! | requests to a proxy, each answer checked | [`load`] |
//! | processor time, memory and wake-ups of a tree of processes | [`tree`] |
//! | what was measured is kept, so that a run can be taken up again | [`state`] |
//! | medians, intervals, the gate | [`stats`] |
//! | rows for programs, tables and plots for people | [`summary`], [`plot`] |

pub mod body;
pub mod consume;
pub mod envelope;
pub mod ledger;
pub mod leg;
pub mod line;
pub mod load;
pub mod machine;
pub mod plot;
pub mod publish;
pub mod relay;
pub mod runner;
pub mod schedule;
pub mod serve;
pub mod state;
pub mod stats;
pub mod summary;
pub mod tree;
pub mod workload;
