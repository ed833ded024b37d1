//! The table at the end of a soak.

use crate::faults::Fault;
use crate::lane::QueueType;
use crate::memory::Slope;
use crate::oracle::Findings;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What became of everything.
#[derive(Debug)]
pub struct Report {
    /// Which broker.
    pub broker: String,
    /// From which everything was drawn.
    pub seed: u64,
    /// How long it took, the time to settle what was open included.
    pub took: Duration,
    /// How often each fault was inflicted.
    pub faults: BTreeMap<Fault, usize>,
    /// One for each queue.
    pub(super) lanes: Vec<Row>,
}

/// What became of one queue's messages.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) queue_type: QueueType,
    pub(super) findings: Findings,
    pub(super) sent_again: usize,
    pub(super) duplicates_bound: usize,
    pub(super) memory: Option<Slope>,
}

impl Report {
    /// What must not be; empty when all is well.
    pub fn problems(&self) -> Vec<String> {
        let of = |row: &Row| row.findings.problems(row.duplicates_bound);
        self.lanes.iter().flat_map(of).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |row: &Row| row.queue_type.as_str().to_owned();
        line(f, "", self.lanes.iter().map(name))?;
        line(f, "---", self.lanes.iter().map(|_| "---:".to_owned()))?;
        let mut figure = |what: &str, of: &dyn Fn(&Row) -> String| line(f, what, self.lanes.iter().map(of));
        figure("published, confirmed", &|row| row.findings.published.to_string())?;
        figure("published again, no confirm came", &|row| {
            row.sent_again.to_string()
        })?;
        figure("accepted", &|row| row.findings.accepted.to_string())?;
        for reason in self.reasons() {
            figure(&format!("dead-lettered, `{reason}`"), &|row| {
                row.findings.dead.get(&reason).unwrap_or(&0).to_string()
            })?;
        }
        figure("lost", &|row| row.findings.lost.len().to_string())?;
        figure("bodies changed", &|row| row.findings.corrupt.len().to_string())?;
        figure("fate not explained", &|row| {
            (row.findings.contradictory.len() + row.findings.unexpected.len()).to_string()
        })?;
        figure("duplicates", &|row| row.findings.duplicates.to_string())?;
        figure("duplicates that the faults allow", &|row| {
            row.duplicates_bound.to_string()
        })?;
        figure("POSTs", &|row| row.findings.calls.to_string())?;
        figure("memory, peak, KiB", &|row| {
            memory(row, |slope| format!("{:.0}", slope.peak_kib))
        })?;
        figure("memory, growth, KiB per 10^6 POSTs", &|row| {
            memory(row, |slope| {
                format!("{:+.0} ± {:.0}", slope.kib_per_million, slope.error)
            })
        })?;
        figure("memory, most in each eighth, MiB", &|row| {
            memory(row, |slope| {
                let of = |kib: &f64| format!("{:.1}", kib / 1024.0);
                slope.course_kib.iter().map(of).collect::<Vec<_>>().join(" ")
            })
        })?;
        writeln!(
            f,
            "\n{}, seed {}, {} s",
            self.broker,
            self.seed,
            self.took.as_secs()
        )?;
        for (fault, times) in &self.faults {
            writeln!(f, "{times:>5} × {}", fault.as_str())?;
        }
        for problem in self.problems() {
            writeln!(f, "FAILED: {problem}")?;
        }
        Ok(())
    }
}

impl Report {
    fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<String> = self
            .lanes
            .iter()
            .flat_map(|row| row.findings.dead.keys().cloned())
            .collect();
        reasons.sort();
        reasons.dedup();
        reasons
    }
}

fn line(f: &mut fmt::Formatter<'_>, what: &str, cells: impl Iterator<Item = String>) -> fmt::Result {
    write!(f, "| {what} |")?;
    for cell in cells {
        write!(f, " {cell} |")?;
    }
    writeln!(f)
}

fn memory(row: &Row, text: impl Fn(&Slope) -> String) -> String {
    row.memory.as_ref().map_or_else(|| "–".to_owned(), text)
}
