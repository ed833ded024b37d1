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
}

/// Every turn in its order: first the gates, then round by round each match once, shuffled within the round. Which
/// of the two goes first is drawn for each pair.
pub fn schedule(workloads: &[Workload], seed: u64) -> Vec<Turn> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut turns = Vec::new();
    for gate in [true, false] {
        let rounds = workloads.iter().map(|workload| workload.pairs).max();
        for round in 0..rounds.unwrap_or_default() {
            let mut of_round = Vec::new();
            for (at, workload) in workloads.iter().enumerate() {
                if round >= workload.pairs {
                    continue;
                }
                let matches = if gate {
                    same(workload).into_iter().collect()
                } else {
                    workload.matches()
                };
                for found in matches {
                    let b = found.b.as_deref().unwrap_or("alone");
                    of_round.push(Turn {
                        id: format!("{}/{}/{b}/{round}", workload.name, found.a),
                        workload: at,
                        b_first: random.bool(),
                        gate,
                        found,
                    });
                }
            }
            random.shuffle(&mut of_round);
            turns.append(&mut of_round);
        }
    }
    turns
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
    use super::schedule;
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
                workload.pairs * (workload.matches().len() + usize::from(workload.same.is_some()))
            })
            .sum();
        assert_eq!(turns.len(), expected);
        assert!(turns.is_sorted_by_key(|turn| !turn.gate));
        let b_first = turns.iter().filter(|turn| turn.b_first).count();
        assert!(
            (turns.len() / 4..turns.len() * 3 / 4).contains(&b_first),
            "{b_first}"
        );
    }

    #[test]
    fn a_match_is_spread_over_the_whole_run() {
        let workloads = workloads();
        let turns: Vec<_> = schedule(&workloads, 1)
            .into_iter()
            .filter(|turn| !turn.gate)
            .collect();
        let first = &turns[0];
        let most = workloads.iter().map(|workload| workload.pairs).max();
        if Some(workloads[first.workload].pairs) == most {
            let last = turns.iter().rposition(|turn| turn.found == first.found);
            assert!(last.unwrap() > turns.len() / 2);
        }
    }
}
