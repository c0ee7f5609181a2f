//! Intervals of one horizon: so many times the mean size of late errors, where "so many" follows the
//! coverage that was really reached (quantile tracking; Angelopoulos, Candès and Tibshirani, "Conformal
//! PID control for time series prediction", 2023). Constant size, whatever the horizon.

use serde::{Deserialize, Serialize};

/// Errors that the mean size remembers.
const MEMORY: u64 = 300;
/// How far the factor moves per miss, at most; and in all within the delay of an outcome.
const RATE: f64 = 0.05;
const RATE_IN_DELAY: f64 = 1.0;
/// What the factor begins with (nine of ten, were errors normal), and its bounds.
const FACTOR: f64 = 2.1;
const FACTOR_MIN: f64 = 0.01;
const FACTOR_MAX: f64 = 100.0;
/// An error counts for so many of the mean size at most.
const STRAY: f64 = 30.0;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Band {
    size: f64,
    factor: f64,
    seen: u64,
}

impl Band {
    pub fn new() -> Band {
        Band { size: 0.0, factor: FACTOR, seen: 0 }
    }

    /// Half the interval's width; none until an error is known.
    pub fn width(&self) -> Option<f64> {
        (self.seen > 0).then_some(self.factor * self.size)
    }

    /// `error`: its size; `inside`: whether the truth lay between the bounds that were given;
    /// `delay`: the steps between.
    pub fn learn(&mut self, error: f64, inside: bool, delay: usize, coverage: f64) {
        if !error.is_finite() {
            return;
        }
        self.seen += 1;
        let bounded = if self.size > 0.0 { error.min(STRAY * self.size) } else { error };
        self.size += (bounded - self.size) / self.seen.min(MEMORY) as f64;
        let rate = RATE.min(RATE_IN_DELAY / (delay as f64 + 1.0));
        let missed = f64::from(u8::from(!inside));
        let step = (rate * (missed - (1.0 - coverage))).exp();
        self.factor = (self.factor * step).clamp(FACTOR_MIN, FACTOR_MAX);
    }

    /// The unit changed by this factor.
    pub fn rescale(&mut self, by: f64) {
        self.size *= by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[track_caller]
    fn covers(delay: usize, grows: f64) {
        let (mut band, mut inside, mut waiting) = (Band::new(), 0, VecDeque::new());
        for i in 0..10_000u64 {
            let error = (i * 7919 % 1000) as f64 * if i > 5000 { grows } else { 1.0 };
            let hit = error <= band.width().unwrap_or(f64::INFINITY);
            inside += u32::from(hit);
            waiting.push_back((error, hit));
            if waiting.len() > delay
                && let Some((error, hit)) = waiting.pop_front()
            {
                band.learn(error, hit, delay, 0.8);
            }
        }
        let share = f64::from(inside) / 10_000.0;
        assert!((share - 0.8).abs() < 0.03, "{share} at a delay of {delay}");
    }

    #[test]
    fn covers_what_was_asked_for_early_and_late() {
        covers(0, 1.0);
        covers(0, 3.0);
        covers(48, 1.0);
        covers(300, 1.0);
    }
}
