//! Workloads as files: which messages, how they come, who is measured against whom, and which figures are made of it.

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// What is done with a runner. The letters are those of the method in `docs/performance.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// D1: the queue is filled, then the runner is started; throughput, processor time, peak memory.
    Drain,
    /// D2: messages come at a fixed rate, whatever the runner does; latency from when each was due.
    Steady,
    /// D4: one message waits; start to its acknowledgement, then memory and wake-ups with nothing to do.
    Footprint,
    /// D5: as drain, but the runner is killed half-way and started again; time to the next arrival.
    Recovery,
    /// D4: nothing runs; the file is weighed.
    Size,
    /// P1: requests through a proxy in a closed loop. Messages are requests, what is in flight are connections; a body
    /// of 0 bytes makes it a `GET`.
    Proxy,
}

/// A kind of RabbitMQ queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Queue {
    /// `x-queue-type: classic`, durable.
    Classic,
    /// `x-queue-type: quorum`, of one replica on one node.
    Quorum,
}

impl Queue {
    /// The value of `x-queue-type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }
}

/// A workload. Counts are messages; all messages are persistent and published with confirms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// The file's name without `.json`, whatever the file says.
    #[serde(default)]
    pub name: String,
    /// One sentence for the report.
    pub about: String,
    /// What is done.
    pub kind: Kind,
    /// Of this kind of queue.
    pub queue: Queue,
    /// How many messages.
    pub messages: u64,
    /// After how many arrivals the clocks start.
    pub warm_up: u64,
    /// Bytes of each body, at least [`LEAST_BYTES`](crate::body::LEAST_BYTES).
    pub body_bytes: usize,
    /// Text headers of each message, of 16 bytes each.
    pub headers: usize,
    /// Posts at the same time.
    pub in_flight: u16,
    /// Prefetch of the peers: what our sidecar takes for `in_flight`, so that all have the same.
    pub prefetch: u16,
    /// How long the sink waits before it answers, milliseconds.
    pub handler_ms: u64,
    /// Steady only: messages in a second.
    #[serde(default)]
    pub rate: u32,
    /// Footprint only: how long nothing is done, seconds.
    #[serde(default)]
    pub idle_seconds: u32,
    /// After how many seconds without any progress a runner is given up, and how many the broker has to come to rest
    /// before.
    pub patience_seconds: u32,
    /// Of bodies and of nothing else.
    pub seed: u64,
    /// How many pairs of each match.
    pub pairs: usize,
    /// The runner that is measured against itself, and by which measure: the gate.
    #[serde(default)]
    pub same: Option<Same>,
    /// Other sizes for the second of a pair of a runner with itself: how its cost grows with them.
    #[serde(default)]
    pub against: Option<Against>,
    /// What is made of the samples.
    pub figures: Vec<Figure>,
    /// What `smoke` has instead; a workload without it is not part of `smoke`.
    #[serde(default)]
    pub smoke: Option<Smoke>,
}

/// A runner against itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Same {
    /// The runner.
    pub runner: String,
    /// What is compared.
    pub measure: String,
    /// How many pairs, if not as many as of the workload's other matches: uneven runs need more to tell the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<usize>,
}

/// What a runner has instead of the workload's when it is the second of a pair with itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Against {
    /// How many messages.
    pub messages: u64,
    /// After how many arrivals the clocks start.
    pub warm_up: u64,
    /// Bytes of each body.
    pub body_bytes: usize,
    /// Posts at the same time.
    pub in_flight: u16,
    /// Prefetch of the peers.
    pub prefetch: u16,
}

/// Sizes that take a second or so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smoke {
    /// Instead of the workload's.
    pub messages: u64,
    /// Instead of the workload's.
    pub warm_up: u64,
    /// Instead of the workload's.
    pub pairs: usize,
}

/// How two runners, or one, become a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    /// `of ÷ over`, pair by pair.
    Ratio,
    /// `of − over`, pair by pair.
    Difference,
    /// `of` alone.
    Absolute,
}

/// Which direction is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// Which number of the interval must meet the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judged {
    /// The median.
    #[default]
    Median,
    /// The end of the interval that is worse for us.
    WorseEnd,
}

/// One row of the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// Unique among all workloads.
    pub name: String,
    /// Which measure of the samples: `throughput`, `cpu_per_message`, `latency_p50`, …
    pub measure: String,
    /// The runner.
    pub of: String,
    /// The one it is compared with.
    #[serde(default)]
    pub over: Option<String>,
    /// How.
    pub compare: Compare,
    /// `ratio`, `µs`, `ms`, `MB`, …
    pub unit: String,
    /// Which direction is good.
    pub better: Better,
    /// What has to be met, if anything.
    #[serde(default)]
    pub must: Option<f64>,
    /// What is aimed at.
    #[serde(default)]
    pub aim: Option<f64>,
    /// What of the interval meets it.
    #[serde(default)]
    pub judged: Judged,
    /// Leaves out pairs in which `over` is more than three times its own median: a disturbed minute says nothing of
    /// either. How many, is told.
    #[serde(default)]
    pub discard_disturbed: bool,
}

/// Two runners to be measured in turn, or one alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Match {
    /// The one that figures are of.
    pub a: String,
    /// The one it is compared with.
    pub b: Option<String>,
}

impl Workload {
    /// Reads every `*.json` of a directory, sorted by name.
    ///
    /// # Errors
    /// Names the file and what is wrong in it.
    pub fn read_all(directory: &Path) -> anyhow::Result<Vec<Self>> {
        let entries = fs::read_dir(directory)
            .with_context(|| format!("there are no workloads in {}", directory.display()))?;
        let mut workloads = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = fs::read_to_string(&path)?;
            let mut workload: Self =
                serde_json::from_str(&text).with_context(|| path.display().to_string())?;
            workload.name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            workload.validate().with_context(|| path.display().to_string())?;
            workloads.push(workload);
        }
        workloads.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(workloads)
    }

    fn validate(&self) -> anyhow::Result<()> {
        if self.against.is_some() {
            ensure!(
                self.same.is_none(),
                "same and against would both measure a runner with itself"
            );
            self.second("it", "it").validate()?;
        }
        ensure!(
            self.warm_up < self.messages,
            "warm_up must be less than messages, or nothing is measured"
        );
        ensure!(
            self.prefetch >= self.in_flight && self.in_flight > 0,
            "prefetch must be at least in_flight, and in_flight at least 1"
        );
        ensure!(
            self.body_bytes >= crate::body::LEAST_BYTES || (self.kind == Kind::Proxy && self.body_bytes == 0),
            "body_bytes must be at least {}",
            crate::body::LEAST_BYTES
        );
        ensure!(
            (self.kind == Kind::Steady) == (self.rate > 0),
            "rate belongs to the kind steady, and must be there at least 1"
        );
        for figure in &self.figures {
            ensure!(
                figure.over.is_none() == (figure.compare == Compare::Absolute),
                "figure {} compares with another runner or is absolute",
                figure.name
            );
        }
        Ok(())
    }

    /// The workload of `b` in a pair with `a`: the same, but for the sizes that [`against`](Self::against) names when
    /// both are one runner.
    #[must_use]
    pub fn second(&self, a: &str, b: &str) -> Self {
        let mut second = self.clone();
        if a == b
            && let Some(against) = second.against.take()
        {
            (second.messages, second.warm_up) = (against.messages, against.warm_up);
            second.body_bytes = against.body_bytes;
            (second.in_flight, second.prefetch) = (against.in_flight, against.prefetch);
        }
        second
    }

    /// So many pairs of every match, of the gate too.
    pub fn set_pairs(&mut self, pairs: usize) {
        self.pairs = pairs;
        if let Some(same) = &mut self.same {
            same.pairs = None;
        }
    }

    /// The same workload in the sizes of `smoke`; `None` when it is not part of it.
    pub fn smoke(mut self) -> Option<Self> {
        let smoke = self.smoke.clone()?;
        (self.messages, self.warm_up) = (smoke.messages, smoke.warm_up);
        self.set_pairs(smoke.pairs);
        self.idle_seconds = self.idle_seconds.min(1);
        self.patience_seconds = self.patience_seconds.min(10);
        Some(self)
    }

    /// Who is measured, in the order of the figures: the pairs first, then those that are in no pair.
    pub fn matches(&self) -> Vec<Match> {
        let mut matches: Vec<Match> = Vec::new();
        for figure in self.figures.iter().filter(|figure| figure.over.is_some()) {
            let found = Match {
                a: figure.of.clone(),
                b: figure.over.clone(),
            };
            if !matches.contains(&found) {
                matches.push(found);
            }
        }
        for figure in self.figures.iter().filter(|figure| figure.over.is_none()) {
            let measured = matches
                .iter()
                .any(|found| found.a == figure.of || found.b.as_ref() == Some(&figure.of));
            if !measured {
                matches.push(Match {
                    a: figure.of.clone(),
                    b: None,
                });
            }
        }
        matches
    }
}

#[cfg(test)]
mod tests {
    use super::{Match, Workload};
    use contract::settings::default_prefetch;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn workloads() -> Vec<Workload> {
        Workload::read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads")).unwrap()
    }

    #[test]
    fn the_files_can_be_read_and_figures_have_names_of_their_own() {
        let workloads = workloads();
        let figures: Vec<&str> = workloads
            .iter()
            .flat_map(|workload| workload.figures.iter().map(|figure| figure.name.as_str()))
            .collect();
        let unique: BTreeSet<&str> = figures.iter().copied().collect();
        assert_eq!(unique.len(), figures.len(), "{figures:?}");
        for workload in &workloads {
            assert!(!workload.matches().is_empty(), "{}", workload.name);
        }
        assert!(
            workloads.iter().any(|workload| workload.same.is_some()),
            "a run has a gate"
        );
    }

    /// Our sidecar takes its prefetch from its concurrency; peers are given the same.
    #[test]
    fn peers_have_the_prefetch_of_the_sidecar() {
        for workload in workloads() {
            for side in [workload.second("it", "it"), workload] {
                let expected = default_prefetch(side.in_flight);
                assert_eq!(side.prefetch, expected, "{}", side.name);
            }
        }
    }

    #[test]
    fn the_second_of_a_pair_has_other_sizes_and_nothing_else() {
        let mut workload = workloads().remove(0);
        assert_eq!(workload.second("it", "it"), workload);
        workload.against = Some(super::Against {
            messages: 7,
            warm_up: 1,
            body_bytes: 16,
            in_flight: 1,
            prefetch: 1,
        });
        assert_eq!(workload.second("it", "other"), workload);
        let second = workload.second("it", "it");
        let sizes = (second.messages, second.warm_up, second.body_bytes);
        assert_eq!(sizes, (7, 1, 16));
        assert_eq!((second.in_flight, second.prefetch), (1, 1));
        assert_eq!((second.seed, second.queue), (workload.seed, workload.queue));
        assert_eq!(second.against, None);
    }

    #[test]
    fn a_mistake_in_a_file_is_named() {
        let directory = std::env::temp_dir().join(testkit::unique("workloads"));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("wrong.json"), r#"{"aboot": "x"}"#).unwrap();
        let error = format!("{:#}", Workload::read_all(&directory).unwrap_err());
        assert!(error.contains("wrong.json") && error.contains("aboot"), "{error}");
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn every_runner_of_a_figure_is_measured_once() {
        let mut workload = workloads().remove(0);
        let mut figure = workload.figures[0].clone();
        figure.compare = super::Compare::Absolute;
        figure.over = None;
        let pair = super::Figure {
            over: Some("y".to_owned()),
            of: "x".to_owned(),
            ..figure.clone()
        };
        let of = |name: &str| super::Figure {
            of: name.to_owned(),
            ..figure.clone()
        };
        workload.figures = vec![of("z"), pair.clone(), of("y"), pair, of("x")];
        let expected = [
            Match {
                a: "x".to_owned(),
                b: Some("y".to_owned()),
            },
            Match {
                a: "z".to_owned(),
                b: None,
            },
        ];
        assert_eq!(workload.matches(), expected);
    }
}
