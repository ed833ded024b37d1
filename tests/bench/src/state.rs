//! What was measured is kept line by line outside the tree, so that a run can be stopped and taken up again.

use crate::leg::Sample;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
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

/// A run's directory.
#[derive(Debug)]
pub struct State {
    directory: PathBuf,
    /// What was measured so far, in the order in which it was.
    pub pairs: Vec<Pair>,
}

const PLAN: &str = "plan.json";
const PAIRS: &str = "pairs.jsonl";

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
        let text = fs::read_to_string(directory.join(PAIRS)).unwrap_or_default();
        let state = Self {
            directory: directory.to_owned(),
            // A run that was ended while it wrote leaves half a line, which is measured again.
            pairs: text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect(),
        };
        Ok((state, plan.seed))
    }

    /// Forgets what is in the directory.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(directory: &Path) -> anyhow::Result<()> {
        for name in [PLAN, PAIRS] {
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

    /// Keeps a pair.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, pair: Pair) -> anyhow::Result<()> {
        let mut file = self.file()?;
        // Ends what an interrupted write left of a line.
        let mut line = b"\n".to_vec();
        serde_json::to_writer(&mut line, &pair)?;
        line.push(b'\n');
        file.write_all(&line)?;
        self.pairs.push(pair);
        Ok(())
    }

    fn file(&self) -> anyhow::Result<File> {
        let path = self.directory.join(PAIRS);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.with_context(|| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::{Pair, State};
    use crate::leg::Sample;
    use std::io::Write;

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
        state.add(pair("one")).unwrap();
        state.file().unwrap().write_all(b"{\"id\":\"half").unwrap();
        let (mut state, again) = State::open(&directory, None, "x").unwrap();
        assert_eq!((again, state.done().len()), (seed, 1));
        state.add(pair("two")).unwrap();
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
}
