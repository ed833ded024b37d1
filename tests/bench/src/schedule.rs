//! Who is measured when: random, from a seed, so that a run can be taken up again and repeated.

use crate::workload::{Match, Workload};

/// One pair, or one runner alone, to be measured at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// `<workload>/<a>/<b>/<number>`, unique.
    pub id: String,
    /// Which workload, by its place in the list.
    pub workload: usize,
    /// Who.
    pub found: Match,
    /// Whether `b` goes first.
    pub b_first: bool,
    /// Whether it is the runner against itself.
    pub gate: bool,
    /// Which of the pairs of its match, from 0.
    pub number: usize,
}

impl Turn {
    /// Whether a run without it cannot be published: it is of a gate, or of the first pairs of its match.
    pub fn is_needed(&self) -> bool {
        self.gate || self.number < ENOUGH
    }
}

/// Pairs of a match without which nothing is said of it.
const ENOUGH: usize = 2;

/// Every turn in its order: first the gates, then all others. The pairs of each match are spread evenly over the whole run,
/// each at a random moment of its share, so that a run that is ended early has the same part of every match. Which of the
/// two goes first is drawn for every other pair, and the pair after it goes the other way.
pub fn schedule(workloads: &[Workload], seed: u64) -> Vec<Turn> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut turns = Vec::new();
    for gate in [true, false] {
        let mut placed = Vec::new();
        for (at, workload) in workloads.iter().enumerate() {
            let matches = if gate {
                same(workload).into_iter().collect()
            } else {
                workload.matches()
            };
            let pairs = if gate {
                gate_pairs(workload)
            } else {
                workload.pairs
            };
            for found in matches {
                let b = found.b.as_deref().unwrap_or("alone");
                let mut b_first = false;
                for number in 0..pairs {
                    // Each first once in two pairs: on some machines the first of two is faster, on others the second.
                    b_first = if number % 2 == 0 { random.bool() } else { !b_first };
                    let turn = Turn {
                        id: format!("{}/{}/{b}/{number}", workload.name, found.a),
                        workload: at,
                        b_first,
                        gate,
                        number,
                        found: found.clone(),
                    };
                    placed.push((share(number, pairs, random.f64()), turn));
                }
            }
        }
        placed.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        turns.extend(placed.into_iter().map(|(_, turn)| turn));
    }
    turns
}

/// When in a run, of which the beginning is 0 and the end 1, a pair is measured.
#[expect(clippy::cast_precision_loss, reason = "there are some dozens of pairs")]
fn share(number: usize, pairs: usize, draw: f64) -> f64 {
    (number as f64 + draw) / pairs as f64
}

/// How often a workload's runner is measured against itself.
fn gate_pairs(workload: &Workload) -> usize {
    let own = workload.same.as_ref().and_then(|same| same.pairs);
    own.unwrap_or(workload.pairs)
}

/// The match of a workload's runner against itself.
pub fn same(workload: &Workload) -> Option<Match> {
    let same = workload.same.as_ref()?;
    Some(Match {
        a: same.runner.clone(),
        b: Some(same.runner.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::{Turn, gate_pairs, schedule};
    use crate::workload::Workload;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn workloads() -> Vec<Workload> {
        Workload::read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads")).unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_order_and_another_another() {
        let workloads = workloads();
        assert_eq!(schedule(&workloads, 7), schedule(&workloads, 7));
        assert_ne!(schedule(&workloads, 7), schedule(&workloads, 8));
    }

    #[test]
    fn every_pair_is_there_once_the_gates_first_and_either_side_begins() {
        let workloads = workloads();
        let turns = schedule(&workloads, 1);
        let ids: BTreeSet<&str> = turns.iter().map(|turn| turn.id.as_str()).collect();
        assert_eq!(ids.len(), turns.len());
        let expected: usize = workloads
            .iter()
            .map(|workload| {
                let gate = workload.same.as_ref().map_or(0, |_| gate_pairs(workload));
                workload.pairs * workload.matches().len() + gate
            })
            .sum();
        assert_eq!(turns.len(), expected);
        assert!(turns.is_sorted_by_key(|turn| !turn.gate));
        let firsts: BTreeSet<bool> = turns.iter().map(|turn| turn.b_first).collect();
        assert_eq!(firsts.len(), 2);
    }

    #[test]
    fn either_side_of_a_match_goes_first_as_often() {
        let turns = schedule(&workloads(), 1);
        for turn in &turns {
            let same = |other: &&Turn| {
                (other.workload, other.gate, &other.found) == (turn.workload, turn.gate, &turn.found)
            };
            let all = turns.iter().filter(same).count();
            let b_first = turns.iter().filter(same).filter(|turn| turn.b_first).count();
            assert!(
                (2 * b_first).abs_diff(all) <= 1,
                "{}: {b_first} of {all}",
                turn.id
            );
        }
    }

    #[test]
    fn a_run_that_is_ended_early_has_the_same_part_of_every_match() {
        let workloads = workloads();
        let turns: Vec<_> = schedule(&workloads, 1)
            .into_iter()
            .filter(|turn| !turn.gate)
            .collect();
        let half = &turns[..turns.len() / 2];
        for turn in &turns {
            let same = |other: &&Turn| (other.workload, &other.found) == (turn.workload, &turn.found);
            let (all, done) = (
                turns.iter().filter(same).count(),
                half.iter().filter(same).count(),
            );
            assert!(done.abs_diff(all / 2) <= 1, "{}: {done} of {all}", turn.id);
        }
        let numbers = |id: &str| -> Vec<usize> {
            let of_match = |turn: &&Turn| turn.id.starts_with(id);
            turns.iter().filter(of_match).map(|turn| turn.number).collect()
        };
        assert!(numbers("d1-classic-1k/sidecar/raw/").is_sorted());
    }
}
