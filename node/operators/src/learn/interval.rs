//! Intervals: a quantile of recent absolute residuals, at a level that follows the coverage
//! that was really reached (adaptive conformal).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Residuals that are remembered: every one at first, then each eighth, since neighbours are alike.
const RECENT: usize = 512;
const STRIDE: u64 = 8;
const RATE: f64 = 0.02;
/// A level above one widens beyond the largest residual that is remembered.
const LEVEL_MAX: f64 = 2.0;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Residuals {
    recent: VecDeque<f64>,
    /// The same, ascending.
    sorted: Vec<f64>,
    level: f64,
    coverage: f64,
    seen: u64,
}

impl Residuals {
    pub fn new(coverage: f64) -> Residuals {
        Residuals { recent: VecDeque::new(), sorted: Vec::new(), level: coverage, coverage, seen: 0 }
    }

    /// Half the interval's width, in units; zero until a residual is known.
    pub fn width(&self) -> f64 {
        let last = self.sorted.len().saturating_sub(1);
        let at = (self.level * self.sorted.len() as f64).floor() as usize;
        self.sorted.get(at.min(last)).copied().unwrap_or(0.0) * self.level.max(1.0)
    }

    /// `inside`: whether the truth lay between the bounds that were given.
    pub fn learn(&mut self, residual: f64, inside: bool) {
        if !residual.is_finite() {
            return;
        }
        let missed = f64::from(u8::from(!inside));
        self.level = (self.level + RATE * (missed - (1.0 - self.coverage))).clamp(0.0, LEVEL_MAX);
        self.seen += 1;
        if self.recent.len() >= RECENT && !self.seen.is_multiple_of(STRIDE) {
            return;
        }
        if self.recent.len() >= RECENT
            && let Some(old) = self.recent.pop_front()
        {
            let at = self.sorted.partition_point(|other| other.total_cmp(&old).is_lt());
            if at < self.sorted.len() {
                self.sorted.remove(at);
            }
        }
        let at = self.sorted.partition_point(|other| other.total_cmp(&residual).is_lt());
        self.sorted.insert(at, residual);
        self.recent.push_back(residual);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_what_was_asked_for() {
        let mut residuals = Residuals::new(0.8);
        let mut inside = 0;
        for i in 0..5000u64 {
            let residual = (i * 7919 % 1000) as f64 * if i > 2500 { 3.0 } else { 1.0 };
            let hit = residual <= residuals.width();
            inside += u32::from(hit);
            residuals.learn(residual, hit);
        }
        assert!((f64::from(inside) / 5000.0 - 0.8).abs() < 0.03);
        assert_eq!(residuals.recent.len(), residuals.sorted.len());
    }
}
