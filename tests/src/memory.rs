//! How a process's memory grows with the messages that it has seen through: least squares over samples.

/// Of a course.
const PARTS: usize = 8;

/// Samples of one process: after so many messages it had so many KiB.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    points: Vec<(f64, f64)>,
}

/// A straight line through samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Slope {
    /// KiB for each million messages.
    pub kib_per_million: f64,
    /// The standard error of that.
    pub error: f64,
    /// The most that was seen, in KiB.
    pub peak_kib: f64,
    /// The most in each eighth of the messages, in KiB; the last of them tell whether it still grows.
    pub course_kib: Vec<f64>,
    /// How many samples.
    pub samples: usize,
}

impl Samples {
    /// Adds one.
    pub fn add(&mut self, messages: usize, kib: u64) {
        self.points.push((to_f64(messages), to_f64(kib)));
    }

    /// How many messages it was watched for.
    pub fn span(&self) -> usize {
        let last = self.points.last().map_or(0.0, |point| point.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count that was put in as one"
        )]
        let span = last as usize;
        span
    }

    /// The least-squares line through the samples after the first `skip` messages, in which buffers grow to their
    /// size. `None` when fewer than three are left, or all are of the same moment.
    pub fn slope(&self, skip: usize) -> Option<Slope> {
        let points: Vec<_> = self
            .points
            .iter()
            .filter(|(messages, _)| *messages >= to_f64(skip))
            .collect();
        let count = to_f64(points.len());
        let mean =
            |value: fn(&(f64, f64)) -> f64| points.iter().map(|point| value(point)).sum::<f64>() / count;
        let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        if points.len() < 3 || spread <= 0.0 {
            return None;
        }
        let together: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
        let slope = together / spread;
        let residues: f64 = points
            .iter()
            .map(|(x, y)| (y - mean_y - slope * (x - mean_x)).powi(2))
            .sum();
        Some(Slope {
            kib_per_million: slope * 1e6,
            error: (residues / (count - 2.0) / spread).sqrt() * 1e6,
            peak_kib: self.points.iter().map(|point| point.1).fold(0.0, f64::max),
            course_kib: self.course(),
            samples: points.len(),
        })
    }

    fn course(&self) -> Vec<f64> {
        let end = to_f64(self.span());
        let mut most = vec![0.0_f64; PARTS];
        for (messages, kib) in &self.points {
            let part = (0..PARTS)
                .rfind(|part| *messages >= end * to_f64(*part) / to_f64(PARTS))
                .unwrap_or(0);
            most[part] = most[part].max(*kib);
        }
        most
    }
}

/// Exact for everything that is counted here.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn to_f64<N: TryInto<u64>>(number: N) -> f64 {
    number.try_into().map_or(f64::NAN, |number| number as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_of_a_line_is_found_and_the_beginning_is_left_out() {
        let mut samples = Samples::default();
        samples.add(0, 1);
        for thousand in 1..=10_usize {
            samples.add(thousand * 1000, 5000 + thousand as u64 * 2);
        }
        let slope = samples.slope(1000).unwrap();
        assert!((slope.kib_per_million - 2000.0).abs() < 1e-6, "{slope:?}");
        assert!(slope.error < 1e-6, "{slope:?}");
        assert_eq!(slope.samples, 10);
        assert!((slope.peak_kib - 5020.0).abs() < 1e-6);
        assert_eq!(
            slope.course_kib,
            [5002.0, 5004.0, 5006.0, 5008.0, 5012.0, 5014.0, 5016.0, 5020.0]
        );
    }

    #[test]
    fn nothing_is_said_about_too_little() {
        let mut samples = Samples::default();
        assert_eq!(samples.slope(0), None);
        for _ in 0..5 {
            samples.add(7, 5);
        }
        assert_eq!(samples.slope(0), None);
    }
}
