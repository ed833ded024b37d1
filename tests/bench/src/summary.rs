//! From samples to rows: JSON for programs, a table for people, every sample as CSV.

use crate::leg::{Sample, unit};
use crate::machine::Machine;
use crate::runner::Runner;
use crate::state::{Pair, STOLEN_AT_MOST};
use crate::stats::{self, Estimate, RESAMPLES, Rejection};
use crate::workload::{Better, Compare, Figure, Judged, Queue, Workload};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write;

/// `summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Where it was measured.
    pub machine: Machine,
    /// Of the order.
    pub seed: u64,
    /// When the last pair was measured, seconds since the Unix epoch.
    pub measured_at: u64,
    /// Why the run is rejected; absent when it is accepted.
    pub rejected: Option<String>,
    /// The share of processor time that the hypervisor took, at most, during a pair.
    pub stolen_at_most: f64,
    /// How many pairs were set aside because it took too much, and measured again.
    pub set_aside: usize,
    /// The load averages between which pairs were measured.
    pub load: (f64, f64),
    /// Runners against themselves.
    pub gates: Vec<Row>,
    /// One row a figure.
    pub rows: Vec<Row>,
    /// Runners that are not installed, with the reason, and figures without a sample or whose gate sends them back.
    pub not_measured: Vec<String>,
    /// Who was measured, with settings and versions.
    pub runners: Vec<Described>,
    /// On what, with sizes and seeds.
    pub workloads: Vec<Workload>,
}

/// A runner with everything that its figures depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Described {
    /// As `runners.json` has it: what it is, its program, its arguments.
    #[serde(flatten)]
    pub runner: Runner,
    /// What a peer is made of, a package and its version each; empty for our own.
    pub versions: Vec<String>,
}

/// A figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Of the figure.
    pub name: String,
    /// Of the numbers.
    pub unit: String,
    /// Which direction is good.
    pub better: Better,
    /// The median of the pairs.
    pub median: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// How many pairs (or samples, of an absolute figure).
    pub pairs: usize,
    /// What has to be met, if anything.
    pub must: Option<f64>,
    /// What is aimed at.
    pub aim: Option<f64>,
    /// Messages that the runner lost in these pairs.
    pub lost: u64,
    /// Messages that came again in these pairs.
    pub duplicates: u64,
    /// What was measured.
    pub measure: String,
    /// On which workload.
    pub workload: String,
    /// The runner.
    pub of: String,
    /// The one it is compared with.
    pub over: Option<String>,
    /// Messages that the other lost.
    pub lost_by_other: u64,
    /// Messages that came again from the other.
    pub duplicates_by_other: u64,
    /// Pairs that were left out because they were disturbed.
    pub discarded: usize,
    /// Whether it meets what it has to.
    pub verdict: Verdict,
}

/// Whether a figure meets what it has to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It meets what is aimed at.
    Aim,
    /// It meets what has to be met.
    Must,
    /// It does not.
    Missed,
    /// Nothing has to be met.
    Context,
    /// Messages were lost: a speed without them is none.
    Lossy,
}

impl Verdict {
    /// A word for tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aim => "aim met",
            Self::Must => "met",
            Self::Missed => "missed",
            Self::Context => "–",
            Self::Lossy => "loses messages",
        }
    }

    fn of(figure: &Figure, estimate: Estimate, lost: u64) -> Self {
        if lost > 0 {
            return Self::Lossy;
        }
        let value = match (figure.judged, figure.better) {
            (Judged::Median, _) => estimate.median,
            (Judged::WorseEnd, Better::Higher) => estimate.low,
            (Judged::WorseEnd, Better::Lower) => estimate.high,
        };
        let meets = |target: Option<f64>| {
            target.is_some_and(|target| match figure.better {
                Better::Higher => value >= target,
                Better::Lower => value <= target,
            })
        };
        match (meets(figure.must), meets(figure.aim)) {
            _ if figure.must.is_none() && figure.aim.is_none() => Self::Context,
            (_, true) => Self::Aim,
            (true, false) => Self::Must,
            (false, false) => Self::Missed,
        }
    }
}

/// What is made of all pairs so far.
#[derive(Debug, Clone, Copy)]
pub struct Measured<'a> {
    /// The workloads that were to be measured.
    pub workloads: &'a [Workload],
    /// What was.
    pub pairs: &'a [Pair],
    /// How many were set aside.
    pub set_aside: usize,
    /// Of the order; also of the intervals.
    pub seed: u64,
    /// Why runners were left out.
    pub absent: &'a [String],
    /// The runners, measured or not.
    pub runners: &'a [Described],
}

/// Runners against themselves. Each gate speaks for the workloads on its kind of queue: what makes drains of one kind
/// uneven, such as the log of quorum queues, says nothing of the other.
struct Gates {
    rows: Vec<Row>,
    verdicts: Vec<(Queue, Result<(), Rejection>)>,
}

impl Gates {
    fn of(workloads: &[Workload], pairs: &[Pair], seed: u64) -> Self {
        let (mut rows, mut verdicts) = (Vec::new(), Vec::new());
        for workload in workloads {
            let Some(figure) = gate_of(workload) else { continue };
            let of_gate: Vec<&Pair> = pairs
                .iter()
                .filter(|pair| pair.workload == workload.name && pair.gate)
                .collect();
            let row = row(workload, &figure, &of_gate, seed);
            verdicts.push((workload.queue, stats::gate(row.as_ref().map(Row::estimate))));
            rows.extend(row);
        }
        Self { rows, verdicts }
    }

    /// What may be said of workloads on this kind of queue. A run that is rejected as a whole is told whole.
    fn verdict_within_an_accepted_run(&self, queue: Queue) -> Result<(), Rejection> {
        if self.any().is_err() {
            return Ok(());
        }
        let mut own = self.verdicts.iter().filter(|(kind, _)| *kind == queue);
        own.try_for_each(|(_, verdict)| *verdict)
    }

    /// Whether anything may be said.
    fn any(&self) -> Result<(), Rejection> {
        let mut verdicts = self.verdicts.iter().map(|(_, verdict)| *verdict);
        let first = verdicts.next().unwrap_or(Err(Rejection::NotMeasured));
        verdicts.fold(first, Result::or)
    }
}

impl Summary {
    /// Makes every row that there are samples for.
    pub fn of(measured: Measured<'_>, machine: Machine, measured_at: u64) -> Self {
        let Measured {
            workloads,
            pairs,
            set_aside,
            seed,
            absent,
            runners,
        } = measured;
        let mut not_measured = absent.to_vec();
        let gates = Gates::of(workloads, pairs, seed);
        let mut rows = Vec::new();
        for workload in workloads {
            let of_workload: Vec<&Pair> = pairs
                .iter()
                .filter(|pair| pair.workload == workload.name && !pair.gate)
                .collect();
            let verdict = gates.verdict_within_an_accepted_run(workload.queue);
            for figure in &workload.figures {
                match (row(workload, figure, &of_workload, seed), verdict) {
                    (Some(row), Ok(())) => rows.push(row),
                    (Some(_), Err(rejection)) => {
                        not_measured.push(format!("{}: {}", figure.name, rejection.sentence()));
                    }
                    (None, _) => not_measured.push(format!("{}: no sample", figure.name)),
                }
            }
        }
        let stolen = pairs.iter().map(|pair| pair.stolen).fold(0.0, f64::max);
        let loads = || pairs.iter().map(|pair| pair.load);
        let verdict = match gates.any() {
            Ok(()) if stolen > STOLEN_AT_MOST => Err(Rejection::Stolen),
            verdict => verdict,
        };
        Self {
            machine,
            seed,
            measured_at,
            rejected: verdict
                .err()
                .map(|rejection| format!("{}: {}", rejection.as_str(), rejection.sentence())),
            stolen_at_most: stolen,
            set_aside,
            load: (
                loads().reduce(f64::min).unwrap_or_default(),
                loads().reduce(f64::max).unwrap_or_default(),
            ),
            gates: gates.rows,
            rows,
            not_measured,
            runners: described(runners, pairs),
            workloads: workloads.to_vec(),
        }
    }

    /// The table, in Markdown.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "| figure | unit | median | 95 % interval | pairs | must | aim | lost | duplicates | verdict |\n\
             |---|---|---:|---|---:|---:|---:|---:|---:|---|\n",
        );
        for row in self.gates.iter().chain(&self.rows) {
            // Writing to a string cannot fail.
            let _written = writeln!(
                text,
                "| {} | {} | {} | {} – {} | {} | {} | {} | {} | {} | {} |",
                row.name,
                row.unit,
                number(row.median),
                number(row.low),
                number(row.high),
                row.pairs,
                row.must.map_or_else(String::new, number),
                row.aim.map_or_else(String::new, number),
                beside(row.lost, row.lost_by_other),
                beside(row.duplicates, row.duplicates_by_other),
                row.verdict.as_str(),
            )
            .is_ok();
        }
        text
    }
}

impl Row {
    /// Median and interval.
    pub fn estimate(&self) -> Estimate {
        Estimate {
            median: self.median,
            low: self.low,
            high: self.high,
        }
    }
}

/// Those that took part.
fn described(runners: &[Described], pairs: &[Pair]) -> Vec<Described> {
    let took_part: BTreeSet<&str> = pairs
        .iter()
        .flat_map(|pair| std::iter::once(&pair.a).chain(&pair.b))
        .map(|sample| sample.runner.as_str())
        .collect();
    let took_part = runners
        .iter()
        .filter(|described| took_part.contains(described.runner.name.as_str()));
    took_part.cloned().collect()
}

/// A count, with that of the other runner when it has any.
fn beside(own: u64, other: u64) -> String {
    match other {
        0 => own.to_string(),
        _ => format!("{own}, the other {other}"),
    }
}

/// Three digits that say something.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// The figure of a runner against itself.
fn gate_of(workload: &Workload) -> Option<Figure> {
    let same = workload.same.as_ref()?;
    Some(Figure {
        name: format!("same_{}", workload.name.replace('-', "_")),
        measure: same.measure.clone(),
        of: same.runner.clone(),
        over: Some(same.runner.clone()),
        compare: Compare::Ratio,
        unit: "ratio".to_owned(),
        better: Better::Higher,
        must: None,
        aim: None,
        judged: Judged::Median,
        discard_disturbed: false,
    })
}

fn row(workload: &Workload, figure: &Figure, pairs: &[&Pair], seed: u64) -> Option<Row> {
    let measure = |sample: &Sample| sample.measures.get(&figure.measure).copied();
    // The samples of both, pair by pair; those of one runner alone have no other.
    let mut found: Vec<(&Sample, Option<&Sample>)> = Vec::new();
    for pair in pairs {
        match (&figure.over, &pair.b) {
            (Some(over), Some(b)) if pair.a.runner == figure.of && b.runner == *over => {
                found.push((&pair.a, Some(b)));
            }
            (None, b) => {
                // The second of a runner with itself has other sizes.
                let b = b
                    .iter()
                    .filter(|b| workload.against.is_none() || b.runner != pair.a.runner);
                let samples = std::iter::once(&pair.a).chain(b);
                found.extend(
                    samples
                        .filter(|sample| sample.runner == figure.of)
                        .map(|sample| (sample, None)),
                );
            }
            _ => {}
        }
    }
    let others: Vec<f64> = found
        .iter()
        .filter_map(|(_, other)| other.and_then(measure))
        .collect();
    let bound = stats::median(&others).map(|median| 3.0 * median);
    let is_disturbed = |other: f64| figure.discard_disturbed && bound.is_some_and(|bound| other > bound);
    let mut discarded = 0;
    let mut values = Vec::new();
    for (sample, other) in &found {
        let of = measure(sample);
        let value = match (figure.compare, of, other.and_then(measure)) {
            (Compare::Absolute, Some(of), _) => of,
            (_, Some(_), Some(over)) if is_disturbed(over) => {
                discarded += 1;
                continue;
            }
            (Compare::Ratio, Some(of), Some(over)) if over > 0.0 => of / over,
            (Compare::Difference, Some(of), Some(over)) => of - over,
            // One of the two did not come to its end: it lost messages, which stands beside.
            _ => continue,
        };
        values.push(value);
    }
    let estimate = stats::bootstrap(&values, RESAMPLES, seed)?;
    let sum = |count: fn(&Sample) -> u64| {
        let of: u64 = found.iter().map(|(sample, _)| count(sample)).sum();
        let other: u64 = found.iter().filter_map(|(_, other)| other.map(count)).sum();
        (of, other)
    };
    let (lost, lost_by_other) = sum(|sample| sample.lost + sample.corrupt);
    let (duplicates, duplicates_by_other) = sum(|sample| sample.duplicates);
    Some(Row {
        name: figure.name.clone(),
        unit: figure.unit.clone(),
        better: figure.better,
        median: estimate.median,
        low: estimate.low,
        high: estimate.high,
        pairs: values.len(),
        must: figure.must,
        aim: figure.aim,
        lost,
        duplicates,
        measure: figure.measure.clone(),
        workload: workload.name.clone(),
        of: figure.of.clone(),
        over: figure.over.clone(),
        lost_by_other,
        duplicates_by_other,
        discarded,
        verdict: Verdict::of(figure, estimate, lost),
    })
}

/// Every sample, one a line, with its measures in columns of their own.
pub fn csv(pairs: &[Pair]) -> String {
    let samples = || {
        pairs.iter().flat_map(|pair| {
            let a = std::iter::once((pair, "a", &pair.a));
            a.chain(pair.b.iter().map(move |b| (pair, "b", b)))
        })
    };
    let measures: BTreeSet<&str> = samples()
        .flat_map(|(_, _, sample)| sample.measures.keys().map(String::as_str))
        .collect();
    let mut text =
        String::from("pair,workload,gate,side,first,runner,lost,duplicates,corrupt,unsettled,load,stolen");
    for measure in &measures {
        let unit = unit(measure).replace('µ', "u");
        let _written = write!(text, ",{measure} [{unit}]").is_ok();
    }
    text.push('\n');
    for (pair, side, sample) in samples() {
        let is_first = (side == "b") == pair.b_first;
        let _written = write!(
            text,
            "{},{},{},{side},{is_first},{},{},{},{},{},{},{}",
            pair.id,
            pair.workload,
            pair.gate,
            sample.runner,
            sample.lost,
            sample.duplicates,
            sample.corrupt,
            sample.unsettled,
            pair.load,
            pair.stolen,
        )
        .is_ok();
        for measure in &measures {
            text.push(',');
            if let Some(value) = sample.measures.get(*measure) {
                let _written = write!(text, "{value}").is_ok();
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
