//! Medians, bootstrap intervals, and the gate that rejects a run on a machine too noisy for it.

/// How often a sample is drawn again for an interval. With 10,000 the ends move by less than a hundredth of the
/// interval's width from seed to seed.
pub const RESAMPLES: usize = 10_000;

/// How far from 1 the interval of a runner against itself may reach.
pub const GATE: f64 = 0.05;

/// A median with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The sample's median.
    pub median: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
}

/// The middle value, or the mean of the two in the middle; `None` of nothing.
pub fn median(sample: &[f64]) -> Option<f64> {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    median_of_sorted(&sorted)
}

fn median_of_sorted(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

/// The sample's median with the 95 % interval of the percentile bootstrap (Efron 1979): the sample is drawn again with
/// replacement many times, and the interval holds the middle 95 % of the medians. Deterministic for one seed.
///
/// `None` of nothing. An interval of fewer than about ten values is too narrow; the tests of this module say how much.
pub fn bootstrap(sample: &[f64], resamples: usize, seed: u64) -> Option<Estimate> {
    let median = median(sample)?;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut drawn = vec![0.0; sample.len()];
    let mut medians: Vec<f64> = (0..resamples.max(1))
        .filter_map(|_| {
            for value in &mut drawn {
                *value = sample[random.usize(..sample.len())];
            }
            drawn.sort_by(f64::total_cmp);
            median_of_sorted(&drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let last = medians.len() - 1;
    Some(Estimate {
        median,
        low: medians[last * 25 / 1000],
        high: medians[last - last * 25 / 1000],
    })
}

/// Why a run is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The interval does not hold 1: the harness favours one of two equal runners.
    Biased,
    /// The interval holds 1 but reaches further than ±5 %: the machine is too noisy for what would be claimed.
    TooWide,
    /// There is no pair to judge by.
    NotMeasured,
    /// The hypervisor took more than a fiftieth of the processor time away, during more pairs than may be set aside.
    Stolen,
}

impl Rejection {
    /// A word for files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Biased => "biased",
            Self::TooWide => "too_wide",
            Self::NotMeasured => "not_measured",
            Self::Stolen => "stolen",
        }
    }

    /// A sentence: what is wrong and what to do.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Biased => {
                "a runner against itself does not come out as 1: something else runs on this machine, or the bench is \
                 wrong; measure again on an idle machine"
            }
            Self::TooWide => {
                "a runner against itself comes out as 1, but not to within 5 %: measure on an idle machine, or more \
                 pairs (--pairs)"
            }
            Self::NotMeasured => {
                "no runner was measured against itself: let the run go on to its end, with a workload that has a gate"
            }
            Self::Stolen => {
                "the hypervisor took more than 2 % of the processor time away during more than a fifth of the \
                 pairs: measure when its host is idle"
            }
        }
    }
}

/// Judges the ratio of a runner to itself.
///
/// # Errors
/// Why a run with it is rejected.
pub fn gate(same: Option<Estimate>) -> Result<(), Rejection> {
    let same = same.ok_or(Rejection::NotMeasured)?;
    if !(same.low <= 1.0 && same.high >= 1.0) {
        return Err(Rejection::Biased);
    }
    if same.low < 1.0 - GATE || same.high > 1.0 + GATE {
        return Err(Rejection::TooWide);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
