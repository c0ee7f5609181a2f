//! Level and season by exponential smoothing (Holt 1957, Winters 1960), additive, without a trend:
//! least squares sees to trends, and the safety floor must not run away.

use serde::{Deserialize, Serialize};

/// How fast the season follows what the level left.
const SEASON_RATE: f64 = 0.1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HoltWinters {
    rate: f64,
    level: Option<f64>,
    /// By phase; empty while no season is known.
    season: Vec<f64>,
}

impl HoltWinters {
    pub fn new(rate: f64) -> HoltWinters {
        HoltWinters { rate, level: None, season: Vec::new() }
    }

    /// Begins a season of `recent.len()` phases; `recent[phase]` is the last value there.
    pub fn begin_season(&mut self, recent: Vec<f64>) {
        let mean = recent.iter().sum::<f64>() / recent.len().max(1) as f64;
        self.season = recent;
        self.season.iter_mut().for_each(|value| *value -= mean);
        self.level = Some(mean);
    }

    pub fn observe(&mut self, phase: usize, value: f64) {
        let Some(level) = &mut self.level else {
            self.level = Some(value);
            return;
        };
        let mut none = 0.0;
        let season = self.season.get_mut(phase).unwrap_or(&mut none);
        *level += self.rate * (value - *season - *level);
        *season += SEASON_RATE * (value - *level - *season);
    }

    pub fn predict(&self, phase: usize) -> Option<f64> {
        Some(self.level? + self.season.get(phase).copied().unwrap_or(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_level_and_season() {
        let value = |t: usize| 100.0 + [0.0, 5.0, -3.0, 1.0][t % 4];
        let mut smooth = HoltWinters::new(0.3);
        assert_eq!(smooth.predict(0), None);
        smooth.begin_season(vec![100.0, 100.0, 100.0, 100.0]);
        (0..400).for_each(|t| smooth.observe(t % 4, value(t)));
        for t in 400..404 {
            assert!((smooth.predict(t % 4).unwrap() - value(t)).abs() < 0.1);
        }
    }
}
