//! Drift marks: the test of Page (1954) and Hinkley (1971) for a growing mean, on the size of the
//! errors (of a forecast, those of its first horizon). A mark changes nothing by itself: experts with a
//! short memory, and the weights, follow a drift anyway.

use serde::{Deserialize, Serialize};

/// What errors may grow by, in mean sizes, without being counted.
const ALLOWED: f64 = 0.3;
/// The sum of what lies beyond at which a drift is marked, in mean sizes.
const MARK: f64 = 40.0;
/// One error counts for so many mean sizes at most.
const STRAY: f64 = 6.0;
/// Errors seen until marks begin, and that the mean remembers.
const WARM: u64 = 50;
const MEMORY: u64 = 1000;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    mean: f64,
    sum: f64,
    least: f64,
    seen: u64,
}

impl Drift {
    /// True when the errors have begun to be larger than they were.
    pub fn learn(&mut self, error: f64) -> bool {
        if !error.is_finite() {
            return false;
        }
        self.seen += 1;
        let bounded = if self.seen > WARM { error.min(STRAY * self.mean) } else { error };
        self.mean += (bounded - self.mean) / self.seen.min(MEMORY) as f64;
        if self.seen <= WARM || self.mean <= 0.0 {
            return false;
        }
        self.sum += bounded / self.mean - 1.0 - ALLOWED;
        self.least = self.least.min(self.sum);
        let drifts = self.sum - self.least > MARK;
        if drifts {
            *self = Drift::default();
        }
        drifts
    }

    /// The unit changed by this factor.
    pub fn rescale(&mut self, by: f64) {
        self.mean *= by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_growing_errors_once_and_steady_ones_never() {
        let error = |i: u64| (i * 7919 % 1000) as f64;
        let mut drift = Drift::default();
        assert!((0..20_000).all(|i| !drift.learn(error(i))));
        let marks: Vec<u64> = (0..3000).filter(|i| drift.learn(3.0 * error(*i))).collect();
        assert!(marks.len() == 1 && marks[0] < 200, "{marks:?}");
    }
}
