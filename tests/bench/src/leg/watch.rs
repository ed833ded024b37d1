//! Listens to the ledger while a leg goes on, and reads the runner's cost at the moments that it tells.

use crate::line::{End, Line};
use crate::runner::Running;
use crate::tree::{self, Spent};
use anyhow::Context;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::ChildStdout;
use tokio::time::{Instant, sleep};

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The lines of a ledger.
pub(super) struct Told {
    lines: Lines<BufReader<ChildStdout>>,
}

/// Whose cost is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pids {
    pub(super) runner: u32,
    /// Absent when the broker is not ours.
    pub(super) broker: Option<u32>,
}

/// A moment and what there had been spent by then.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    /// When, since the Unix epoch, as the ledger tells it.
    pub(super) at: Duration,
    /// By the runner's tree.
    pub(super) spent: Spent,
    /// By the broker.
    pub(super) broker: Spent,
}

/// What a leg looked like from outside.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// The end of the warm-up.
    pub(super) warm: Option<Moment>,
    /// The last message; absent when some never came.
    pub(super) all: Option<Moment>,
    /// KiB.
    pub(super) peak_rss: u64,
    /// KiB, at the moments we looked.
    pub(super) peak_anonymous: u64,
}

/// Until when is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The end of the warm-up.
    Warm,
}

impl Told {
    /// What a process tells that was started with its output piped.
    pub(super) fn of(process: &mut Running) -> anyhow::Result<Self> {
        let stdout = process.stdout().context("its output is piped")?;
        Ok(Self {
            lines: BufReader::new(stdout).lines(),
        })
    }

    /// The next line; `None` when there is no more, or what comes is none of ours. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Line> {
        let line = self.lines.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    }

    /// Skips to the last line.
    pub(super) async fn end(&mut self) -> Option<End> {
        loop {
            if let Line::End(end) = self.next().await? {
                return Some(end);
            }
        }
    }

    /// Watches until all messages have come, or `until`, or nothing new has come for `patience`.
    pub(super) async fn watch(
        &mut self,
        pids: Pids,
        patience: Duration,
        until: Option<Until>,
    ) -> anyhow::Result<Watched> {
        let mut watched = Watched::default();
        let mut heard = Instant::now();
        while heard.elapsed() < patience {
            // Both may be dropped: a line that is not complete stays in its reader.
            let line = tokio::select! {
                line = self.next() => Some(line.context("the ledger's process has ended")?),
                () = sleep(LOOK_EVERY) => None,
            };
            if line.is_some() {
                heard = Instant::now();
            }
            let moment = |at| Moment {
                at,
                spent: Spent::now(pids.runner),
                broker: pids.broker.map(Spent::now).unwrap_or_default(),
            };
            match line {
                Some(Line::Warm { now }) => {
                    watched.warm = Some(moment(now));
                    if until == Some(Until::Warm) {
                        return Ok(watched);
                    }
                }
                Some(Line::All { now }) => {
                    watched.all = Some(moment(now));
                    watched.look(pids.runner);
                    return Ok(watched);
                }
                // A runner that has ended has no memory left, and nothing more will come of it.
                _ if !watched.look(pids.runner) => return Ok(watched),
                _ => {}
            }
        }
        Ok(watched)
    }
}

impl Watched {
    /// Whether the runner still lives.
    fn look(&mut self, runner: u32) -> bool {
        let memory = tree::memory(runner);
        self.peak_rss = self.peak_rss.max(memory.peak_rss);
        self.peak_anonymous = self.peak_anonymous.max(memory.anonymous);
        memory.rss > 0
    }
}
