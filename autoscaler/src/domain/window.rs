//! What was needed in the trailing cool-down, so that replicas go only after a lower demand has lasted.
//!
//! Terms: a *step* is a desired count that was in force from one record to the next. The highest step of the window
//! holds (the stabilisation window of the horizontal pod autoscaler, used down to zero as well). A step lasts until
//! the next record, whenever that comes: a time of which nothing is known does not count towards the cool-down.
//!
//! Steps alone would miss demand that comes and goes between two samples (one short message every ten seconds), so
//! the window also takes single [moments of demand](Window::demand), each worth one replica.
//!
//! Source: <https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/#stabilization-window>.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Desired counts of the trailing cool-down. Its memory is bounded by the number of different counts, because a step
/// that a later and higher one outlives is forgotten.
#[derive(Debug, Clone)]
pub struct Window {
    cool_down: Duration,
    /// From the highest, which is the oldest, to the newest, which is the lowest.
    steps: VecDeque<Step>,
    last_demand: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    desired: u32,
    /// The last moment at which it was in force.
    until: Instant,
}

impl Window {
    /// An empty window.
    pub fn new(cool_down: Duration) -> Self {
        Self {
            cool_down,
            steps: VecDeque::new(),
            last_demand: None,
        }
    }

    /// Records the desired count at `at`. `present` is the number of active replicas: the first record starts from
    /// it, because whoever started them before us knew why, and the cool-down then counts from now.
    pub fn record(&mut self, at: Instant, desired: u32, present: u32) {
        if let Some(newest) = self.steps.back_mut() {
            newest.until = newest.until.max(at);
        } else {
            self.steps.push_back(Step {
                desired: present,
                until: at,
            });
        }
        while self.steps.back().is_some_and(|newest| newest.desired <= desired) {
            self.steps.pop_back();
        }
        self.steps.push_back(Step { desired, until: at });
        while self.steps.len() > 1
            && self
                .steps
                .front()
                .is_some_and(|oldest| !self.holds(oldest.until, at))
        {
            self.steps.pop_front();
        }
    }

    /// Records that something was to be done at `at`, which may lie in the past.
    pub fn demand(&mut self, at: Instant) {
        self.last_demand = self.last_demand.max(Some(at));
    }

    /// The count that still holds at `now`; 0 when nothing was recorded.
    pub fn highest(&self, now: Instant) -> u32 {
        let newest = self.steps.back().map_or(0, |newest| newest.desired);
        let held = self
            .steps
            .iter()
            .find(|step| self.holds(step.until, now))
            .map_or(newest, |step| step.desired);
        held.max(u32::from(self.last_demand.is_some_and(|at| self.holds(at, now))))
    }

    fn holds(&self, until: Instant, now: Instant) -> bool {
        now.saturating_duration_since(until) < self.cool_down
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::some_instant;

    fn window(cool_down: u64) -> (Window, impl Fn(u64) -> Instant) {
        let start = some_instant();
        (Window::new(Duration::from_secs(cool_down)), move |second| {
            start + Duration::from_secs(second)
        })
    }

    #[test]
    fn the_highest_of_the_cool_down_holds() {
        let (mut window, at) = window(60);
        window.record(at(0), 5, 0);
        window.record(at(10), 2, 5);
        assert_eq!(window.highest(at(10)), 5);
        window.record(at(20), 0, 5);
        assert_eq!(window.highest(at(69)), 5, "5 was in force until 10");
        assert_eq!(window.highest(at(70)), 2, "2 was in force until 20");
        assert_eq!(window.highest(at(80)), 0);
    }

    #[test]
    fn rising_is_immediate() {
        let (mut window, at) = window(60);
        window.record(at(0), 1, 0);
        window.record(at(1), 7, 1);
        assert_eq!(window.highest(at(1)), 7);
        assert_eq!(window.steps.len(), 1, "what a higher step outlives is forgotten");
    }

    #[test]
    fn a_gap_does_not_count_towards_the_cool_down() {
        let (mut window, at) = window(60);
        window.record(at(0), 3, 0);
        // The broker was away for ten minutes.
        window.record(at(600), 0, 3);
        assert_eq!(window.highest(at(600)), 3);
        assert_eq!(window.highest(at(659)), 3);
        assert_eq!(window.highest(at(660)), 0);
    }

    #[test]
    fn replicas_that_were_there_before_us_stay_for_a_cool_down() {
        let (mut window, at) = window(60);
        window.record(at(0), 0, 4);
        assert_eq!(window.highest(at(59)), 4);
        assert_eq!(window.highest(at(60)), 0);
    }

    #[test]
    fn demand_between_two_samples_holds_one() {
        let (mut window, at) = window(60);
        for second in 0..100 {
            window.record(at(second), 0, 0);
        }
        window.demand(at(99));
        window.demand(at(50));
        assert_eq!(window.highest(at(158)), 1);
        assert_eq!(window.highest(at(159)), 0);
    }

    #[test]
    fn no_cool_down_holds_nothing() {
        let (mut window, at) = window(0);
        window.record(at(0), 5, 0);
        assert_eq!(window.highest(at(0)), 5);
        window.record(at(1), 0, 5);
        window.demand(at(1));
        assert_eq!(window.highest(at(1)), 0);
    }

    #[test]
    fn memory_is_bounded_by_the_number_of_counts() {
        let (mut window, at) = window(86_400);
        for second in 0..80_000 {
            let saw = u32::try_from(second % 11).unwrap();
            window.record(at(second), 10 - saw, 0);
        }
        assert!(window.steps.len() <= 11, "{}", window.steps.len());
    }
}
