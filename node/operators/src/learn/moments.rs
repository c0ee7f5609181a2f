//! Running mean and deviation, which one value that is out of all measure cannot spoil.

use serde::{Deserialize, Serialize};

/// Values that are remembered.
const MEMORY: f64 = 5000.0;
/// From so many values on, one is taken in at most so many deviations from the mean.
const SETTLED: f64 = 30.0;
const REACH: f64 = 20.0;

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    pub n: f64,
    pub mean: f64,
    square: f64,
}

impl Moments {
    pub fn learn(&mut self, value: f64) {
        let (reach, spread) = (REACH * self.deviation(), value - self.mean);
        // What never moved says nothing of how far is too far.
        let before = if self.n >= SETTLED && reach > 0.0 { spread.clamp(-reach, reach) } else { spread };
        self.n = (self.n + 1.0).min(MEMORY);
        self.mean += before / self.n;
        self.square += (before * (before - before / self.n) - self.square) / self.n;
    }

    pub fn deviation(&self) -> f64 {
        self.square.max(0.0).sqrt()
    }

    /// In deviations from the mean, held within `reach`.
    pub fn standard(&self, value: f64, reach: f64) -> f32 {
        let deviation = self.deviation();
        if deviation > 1e-9 * self.mean.abs().max(1e-290) {
            ((value - self.mean) / deviation).clamp(-reach, reach) as f32
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_out_of_all_measure_is_held() {
        let mut moments = Moments::default();
        (0..1000u32).for_each(|i| moments.learn(f64::from(i % 7)));
        moments.learn(1e99);
        assert!((moments.mean - 3.0).abs() < 0.1 && moments.deviation() < 3.0, "{moments:?}");
    }

    #[test]
    fn another_size_for_good_is_followed() {
        let mut moments = Moments::default();
        (0..1000u32).for_each(|i| moments.learn(f64::from(i % 7)));
        (0..20_000u32).for_each(|i| moments.learn(1e6 * f64::from(i % 7)));
        assert!((moments.mean / 3e6 - 1.0).abs() < 0.1, "{moments:?}");
        assert!((moments.deviation() / 2e6 - 1.0).abs() < 0.1, "{moments:?}");
    }
}
