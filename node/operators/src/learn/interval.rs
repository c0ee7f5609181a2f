//! Intervals: a quantile of recent absolute residuals, at a level that follows the coverage
//! that was really reached (adaptive conformal).
//!
//! Outcomes come late: a level that moved fast would hear of its own step only after many more
//! predictions, and swing. So the more predictions lay between, the slower it moves.

use serde::{Deserialize, Serialize};

/// Residuals that are remembered: every one at first, then each eighth, since neighbours are alike.
const RECENT: usize = 512;
const STRIDE: u64 = 8;
/// How far the level moves per miss, at most; and in all within the delay of an outcome.
const RATE: f64 = 0.02;
const RATE_IN_DELAY: f64 = 1.0;
/// A level above one widens beyond the largest residual that is remembered.
const LEVEL_MAX: f64 = 2.0;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Residuals {
    /// A ring, once it is full: the next one takes the place of the oldest.
    recent: Vec<f64>,
    oldest: usize,
    /// The same, ascending.
    #[serde(skip)]
    sorted: Vec<f64>,
    level: f64,
    coverage: f64,
    seen: u64,
}

impl Residuals {
    pub fn new(coverage: f64) -> Residuals {
        Residuals { level: coverage, coverage, ..Residuals::default() }
    }

    /// Makes what is not stored.
    pub fn restore(&mut self) {
        self.sorted.clone_from(&self.recent);
        self.sorted.sort_unstable_by(f64::total_cmp);
    }

    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Half the interval's width, in units; none until a residual is known.
    pub fn width(&self) -> Option<f64> {
        let n = self.sorted.len();
        // The rank that holds the level among n + 1: the outcome to come is one of them.
        let rank = (self.level * (n as f64 + 1.0)).ceil() as usize;
        let at = rank.saturating_sub(1).min(n.checked_sub(1)?);
        Some(self.sorted.get(at)? * self.level.max(1.0))
    }

    /// `inside`: whether the truth lay between the bounds that were given; `delay`: how many
    /// predictions were made between this one and its outcome.
    pub fn learn(&mut self, residual: f64, inside: bool, delay: u64) {
        if !residual.is_finite() {
            return;
        }
        let missed = f64::from(u8::from(!inside));
        let rate = RATE.min(RATE_IN_DELAY / (delay as f64 + 1.0));
        self.level = (self.level + rate * (missed - (1.0 - self.coverage))).clamp(0.0, LEVEL_MAX);
        self.remember(residual);
    }

    /// A residual without a verdict.
    pub fn remember(&mut self, residual: f64) {
        self.seen += 1;
        if self.recent.len() >= RECENT && !self.seen.is_multiple_of(STRIDE) {
            return;
        }
        if self.recent.len() < RECENT {
            self.recent.push(residual);
        } else if let Some(place) = self.recent.get_mut(self.oldest) {
            let old = core::mem::replace(place, residual);
            self.oldest = (self.oldest + 1) % RECENT;
            let at = self.sorted.partition_point(|other| other.total_cmp(&old).is_lt());
            if at < self.sorted.len() {
                self.sorted.remove(at);
            }
        }
        let at = self.sorted.partition_point(|other| other.total_cmp(&residual).is_lt());
        self.sorted.insert(at, residual);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// The share of outcomes inside, where each is known `delay` predictions later.
    #[track_caller]
    fn covers(delay: usize, grows: f64) {
        let (mut residuals, mut inside) = (Residuals::new(0.8), 0);
        let mut waiting = VecDeque::new();
        for i in 0..10_000u64 {
            let residual = (i * 7919 % 1000) as f64 * if i > 5000 { grows } else { 1.0 };
            let hit = residual <= residuals.width().unwrap_or(f64::INFINITY);
            inside += u32::from(hit);
            waiting.push_back((residual, hit));
            if waiting.len() > delay
                && let Some((residual, hit)) = waiting.pop_front()
            {
                residuals.learn(residual, hit, delay as u64);
            }
        }
        let share = f64::from(inside) / 10_000.0;
        assert!((share - 0.8).abs() < 0.03, "{share} at a delay of {delay}");
        let mut restored = residuals.clone();
        restored.restore();
        assert_eq!(restored.sorted, residuals.sorted);
    }

    #[test]
    fn covers_what_was_asked_for_early_and_late() {
        covers(0, 1.0);
        covers(0, 3.0);
        covers(300, 1.0);
        covers(1000, 1.0);
    }
}
