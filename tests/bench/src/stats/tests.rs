use super::{Estimate, Rejection, bootstrap, gate, median};
use proptest::prelude::*;

/// A normal deviate (Box and Muller 1958).
fn normal(random: &mut fastrand::Rng) -> f64 {
    let (u, v) = (1.0 - random.f64(), random.f64());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[test]
fn medians_of_known_samples() {
    assert_eq!(median(&[]), None);
    assert_eq!(median(&[3.0]), Some(3.0));
    assert_eq!(median(&[4.0, 1.0]), Some(2.5));
    assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
    assert_eq!(median(&[f64::INFINITY, 1.0, 2.0]), Some(2.0));
}

#[test]
fn a_constant_has_no_interval() {
    let estimate = bootstrap(&[2.0; 9], 500, 1);
    assert_eq!(
        estimate,
        Some(Estimate {
            median: 2.0,
            low: 2.0,
            high: 2.0
        })
    );
    assert_eq!(bootstrap(&[], 500, 1), None);
}

/// How often the interval holds the true median of ratios that scatter as ours do (log-normal).
fn coverage(pairs: usize, sigma: f64) -> f64 {
    const TRUE_MEDIAN: f64 = 1.5;
    const TRIALS: u32 = 600;
    let mut random = fastrand::Rng::with_seed(20_261_121);
    let mut held = 0;
    for trial in 0..TRIALS {
        let sample: Vec<f64> = (0..pairs)
            .map(|_| TRUE_MEDIAN * (sigma * normal(&mut random)).exp())
            .collect();
        let estimate = bootstrap(&sample, 200, u64::from(trial)).unwrap();
        held += u32::from(estimate.low <= TRUE_MEDIAN && TRUE_MEDIAN <= estimate.high);
    }
    f64::from(held) / f64::from(TRIALS)
}

#[test]
fn the_interval_covers_what_it_says() {
    // 95 % is the aim; of 600 trials one standard deviation is 0.9 %.
    for (pairs, sigma) in [(20, 0.1), (20, 0.4), (41, 0.1)] {
        let covered = coverage(pairs, sigma);
        assert!(
            (0.92..=0.985).contains(&covered),
            "{pairs} pairs, {sigma}: {covered}"
        );
    }
}

#[test]
fn the_interval_of_few_pairs_is_too_narrow_but_not_absurd() {
    let covered = coverage(5, 0.1);
    assert!((0.85..=0.99).contains(&covered), "{covered}");
}

#[test]
fn the_interval_narrows_as_pairs_are_added() {
    let width = |pairs: usize| {
        let mut random = fastrand::Rng::with_seed(5);
        let widths: Vec<f64> = (0..50)
            .map(|seed| {
                let sample: Vec<f64> = (0..pairs).map(|_| (0.1 * normal(&mut random)).exp()).collect();
                let estimate = bootstrap(&sample, 200, seed).unwrap();
                estimate.high - estimate.low
            })
            .collect();
        median(&widths).unwrap()
    };
    // Four times the pairs: half the width.
    let ratio = width(20) / width(80);
    assert!((1.5..2.7).contains(&ratio), "{ratio}");
}

#[test]
fn the_gate() {
    let same = |low, high| {
        gate(Some(Estimate {
            median: f64::midpoint(low, high),
            low,
            high,
        }))
    };
    assert_eq!(same(0.97, 1.03), Ok(()));
    assert_eq!(same(0.95, 1.05), Ok(()));
    assert_eq!(same(1.0, 1.0), Ok(()));
    assert_eq!(same(1.001, 1.02), Err(Rejection::Biased));
    assert_eq!(same(0.96, 0.999), Err(Rejection::Biased));
    assert_eq!(same(0.94, 1.01), Err(Rejection::TooWide));
    assert_eq!(same(0.99, 1.06), Err(Rejection::TooWide));
    assert_eq!(same(f64::NAN, 1.0), Err(Rejection::Biased));
    assert_eq!(gate(None), Err(Rejection::NotMeasured));
}

#[test]
fn the_gate_lets_equal_runners_pass_and_stops_unequal_ones() {
    let verdicts = |favour: f64, sigma: f64| {
        let mut random = fastrand::Rng::with_seed(11);
        (0..200_u64)
            .filter(|seed| {
                let sample: Vec<f64> = (0..40)
                    .map(|_| favour * (sigma * normal(&mut random)).exp())
                    .collect();
                gate(bootstrap(&sample, 200, *seed)).is_ok()
            })
            .count()
    };
    // A 95 % interval misses the truth in one of twenty cases, so that often a quiet machine is sent back.
    let passed = verdicts(1.0, 0.03);
    assert!((170..=199).contains(&passed), "a quiet machine passes: {passed}");
    assert_eq!(
        verdicts(1.1, 0.03),
        0,
        "a tenth in favour of one side never passes"
    );
    assert_eq!(verdicts(1.0, 0.4), 0, "a noisy machine never passes");
}

proptest! {
    #[test]
    fn the_interval_lies_within_the_sample_and_around_the_median(
        sample in prop::collection::vec(0.01_f64..100.0, 1..40),
        seed: u64,
    ) {
        let estimate = bootstrap(&sample, 200, seed).unwrap();
        let least = sample.iter().copied().fold(f64::INFINITY, f64::min);
        let most = sample.iter().copied().fold(0.0, f64::max);
        prop_assert!(least <= estimate.low && estimate.low <= estimate.median);
        prop_assert!(estimate.median <= estimate.high && estimate.high <= most);
        prop_assert_eq!(bootstrap(&sample, 200, seed), Some(estimate), "the same seed");
    }
}
