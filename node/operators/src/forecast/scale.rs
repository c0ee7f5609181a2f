//! What size a series has: mean and deviation of late, with strays held in.
//!
//! One value may move them by no more than a few deviations' worth (winsorised moments), so a single
//! absurd number does not make everything after it look like nothing, and a lasting change of size is
//! still followed within some hundred values.

use serde::{Deserialize, Serialize};

/// Values that are remembered.
const MEMORY: f64 = 2000.0;
/// A value counts as no further from the mean than so many deviations.
const STRAY: f64 = 8.0;
/// The unit is kept until the deviation has left it by this factor.
const KEPT: f64 = 4.0;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    n: f64,
    pub mean: f64,
    square: f64,
    /// What the series is measured in; zero until two values have differed.
    pub unit: f64,
}

impl Scale {
    /// Takes a value in. Some(factor): the unit changed, and what was measured in it must be
    /// multiplied by that.
    pub fn observe(&mut self, value: f64) -> Option<f64> {
        self.n = (self.n + 1.0).min(MEMORY);
        if self.n == 1.0 {
            self.mean = value;
            return None;
        }
        let before = self.square.max(0.0).sqrt();
        let reach = if before > 0.0 { STRAY * before } else { f64::MAX / 4.0 };
        let away = (value - self.mean).clamp(-reach, reach);
        self.mean += away / self.n;
        let square = away * (away - away / self.n);
        // The square of what is beyond all measure is no number.
        self.square += (square.min(1e300) - self.square) / self.n;
        let deviation = self.square.max(0.0).sqrt();
        if deviation <= 1e-12 * self.mean.abs() || deviation < 1e-150 {
            return None;
        }
        if self.unit > deviation / KEPT && self.unit < deviation * KEPT {
            return None;
        }
        let factor = if self.unit > 0.0 { self.unit / deviation } else { 1.0 };
        self.unit = deviation;
        Some(factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_absurd_value_changes_little_and_a_lasting_change_is_followed() {
        let mut scale = Scale::default();
        for i in 0..500u32 {
            scale.observe(f64::from(i % 7));
        }
        let unit = scale.unit;
        assert!((1.0..4.0).contains(&unit));
        scale.observe(1e90);
        assert!(scale.unit < unit * 4.0 && scale.mean < 4.0);
        for i in 0..4000u32 {
            scale.observe(1e6 + 1e5 * f64::from(i % 7));
        }
        assert!((scale.mean / 1.3e6 - 1.0).abs() < 0.2 && scale.unit > 5e4, "{scale:?}");
    }
}
