//! What was measured is kept line by line outside the tree, so that a run can be stopped and taken up again.

use crate::leg::Sample;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What must be the same for samples to belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Of the order.
    pub seed: u64,
    /// Workloads, runners and the programs that are measured, in one number.
    pub fingerprint: String,
}

/// One turn that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Of its turn in the schedule.
    pub id: String,
    /// The workload's name.
    pub workload: String,
    /// Whether it is the runner against itself.
    pub gate: bool,
    /// Whether `b` went first.
    pub b_first: bool,
    /// The load average of the machine before it.
    pub load: f64,
    /// The share of processor time that the hypervisor took meanwhile.
    pub stolen: f64,
    /// The one that figures are of.
    pub a: Sample,
    /// The one it is compared with.
    pub b: Option<Sample>,
}

/// A fiftieth of the processor time stolen, and nothing is claimed.
pub const STOLEN_AT_MOST: f64 = 0.02;

/// How many pairs of a run may be set aside: a fifth of its turns. A machine that is disturbed more often is not one to
/// measure on.
pub fn may_set_aside(turns: usize) -> usize {
    turns / 5
}

impl Pair {
    /// Whether it may be set aside: the hypervisor took too much, and nothing else is the matter. What was lost is told,
    /// whoever had the processor.
    fn is_disturbed(&self) -> bool {
        let mut samples = std::iter::once(&self.a).chain(&self.b);
        self.stolen > STOLEN_AT_MOST && samples.all(|sample| sample.lost + sample.corrupt == 0)
    }
}

/// A run's directory.
#[derive(Debug)]
pub struct State {
    directory: PathBuf,
    /// What was measured so far, in the order in which it was.
    pub pairs: Vec<Pair>,
    /// Pairs that were disturbed, and measured again: no figure is made of them.
    pub set_aside: Vec<Pair>,
}

const PLAN: &str = "plan.json";
const PAIRS: &str = "pairs.jsonl";
const SET_ASIDE: &str = "set-aside.jsonl";

impl State {
    /// Opens the directory: takes the run in it up again, or begins one with `seed`. Returns the seed to use.
    ///
    /// # Errors
    /// When it holds a run of another plan, with what to do.
    pub fn open(directory: &Path, seed: Option<u64>, fingerprint: &str) -> anyhow::Result<(Self, u64)> {
        fs::create_dir_all(directory)?;
        let path = directory.join(PLAN);
        let begun: Option<Plan> = match fs::read(&path) {
            Ok(text) => Some(serde_json::from_slice(&text).with_context(|| path.display().to_string())?),
            Err(_) => None,
        };
        let plan = match begun {
            Some(plan) if plan.fingerprint == fingerprint && seed.is_none_or(|seed| seed == plan.seed) => {
                plan
            }
            Some(_) => bail!(
                "{} holds a run of other programs, workloads or another seed: go on with those, or begin anew with \
                 --fresh",
                directory.display()
            ),
            None => Plan {
                seed: seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000)),
                fingerprint: fingerprint.to_owned(),
            },
        };
        fs::write(&path, serde_json::to_vec_pretty(&plan)?)?;
        let state = Self {
            directory: directory.to_owned(),
            pairs: read(&directory.join(PAIRS)),
            set_aside: read(&directory.join(SET_ASIDE)),
        };
        Ok((state, plan.seed))
    }

    /// Forgets what is in the directory.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(directory: &Path) -> anyhow::Result<()> {
        for name in [PLAN, PAIRS, SET_ASIDE] {
            let path = directory.join(name);
            if path.exists() {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// The turns that need not be measured again.
    pub fn done(&self) -> BTreeSet<String> {
        self.pairs.iter().map(|pair| pair.id.clone()).collect()
    }

    /// Keeps a pair: among those that figures are made of, or set aside, when it was disturbed and no more than
    /// `may_set_aside` are. Returns it when it counts, and otherwise its turn is to be measured again.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, pair: Pair, may_set_aside: usize) -> anyhow::Result<Option<&Pair>> {
        let counts = !pair.is_disturbed() || self.set_aside.len() >= may_set_aside;
        let (name, kept) = if counts {
            (PAIRS, &mut self.pairs)
        } else {
            (SET_ASIDE, &mut self.set_aside)
        };
        // Ends what an interrupted write left of a line.
        let mut line = b"\n".to_vec();
        serde_json::to_writer(&mut line, &pair)?;
        line.push(b'\n');
        append(&self.directory.join(name), &line)?;
        kept.push(pair);
        Ok(kept.last().filter(|_| counts))
    }
}

/// A run that was ended while it wrote leaves half a line, which is measured again.
fn read(path: &Path) -> Vec<Pair> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn append(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(bytes));
    written.with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::{PAIRS, Pair, State, append};
    use crate::leg::Sample;

    fn pair(id: &str) -> Pair {
        Pair {
            id: id.to_owned(),
            workload: "w".to_owned(),
            gate: false,
            b_first: true,
            load: 0.5,
            stolen: 0.0,
            a: Sample::default(),
            b: None,
        }
    }

    #[test]
    fn a_run_is_taken_up_where_it_was_stopped() {
        let directory = std::env::temp_dir().join(testkit::unique("state"));
        let (mut state, seed) = State::open(&directory, None, "x").unwrap();
        state.add(pair("one"), 0).unwrap();
        append(&directory.join(PAIRS), b"{\"id\":\"half").unwrap();
        let (mut state, again) = State::open(&directory, None, "x").unwrap();
        assert_eq!((again, state.done().len()), (seed, 1));
        state.add(pair("two"), 0).unwrap();
        let (state, _) = State::open(&directory, Some(seed), "x").unwrap();
        assert_eq!(state.pairs, [pair("one"), pair("two")]);

        let error = State::open(&directory, None, "y").unwrap_err().to_string();
        assert!(error.contains("--fresh"), "{error}");
        State::open(&directory, Some(seed + 1), "x").unwrap_err();
        State::forget(&directory).unwrap();
        let (state, _) = State::open(&directory, Some(seed + 1), "y").unwrap();
        assert!(state.pairs.is_empty());
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn disturbed_pairs_are_measured_again_up_to_a_number_and_one_with_losses_is_told() {
        let directory = std::env::temp_dir().join(testkit::unique("state"));
        let (mut state, _) = State::open(&directory, None, "x").unwrap();
        let mut disturbed = pair("one");
        disturbed.stolen = 0.03;
        assert!(state.add(disturbed.clone(), 2).unwrap().is_none());
        // Those before a run was stopped count.
        let (mut state, _) = State::open(&directory, None, "x").unwrap();
        assert!(state.done().is_empty());
        assert!(state.add(disturbed.clone(), 2).unwrap().is_none());
        assert_eq!(state.add(disturbed.clone(), 2).unwrap(), Some(&disturbed));
        assert_eq!((state.pairs.len(), state.set_aside.len()), (1, 2));

        let mut lossy = pair("two");
        (lossy.stolen, lossy.a.lost) = (0.03, 1);
        assert!(state.add(lossy, 9).unwrap().is_some());
        assert!(state.add(pair("three"), 9).unwrap().is_some());
        let (state, _) = State::open(&directory, None, "x").unwrap();
        assert_eq!((state.pairs.len(), state.set_aside.len()), (3, 2));
        State::forget(&directory).unwrap();
        let (state, _) = State::open(&directory, None, "x").unwrap();
        assert!(state.pairs.is_empty() && state.set_aside.is_empty());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
