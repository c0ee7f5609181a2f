//! The safety floor: the combination speaks only while it has lately earned more than the naive line,
//! or hardly less.
//!
//! Weights alone cannot promise that: on a random walk every expert costs a little, and what was
//! learned on one level is far off on the next. So the losses of what the combination says, heard or
//! not, are kept beside those of the naive line, and it begins, and falls back, as that.

use serde::{Deserialize, Serialize};

/// How much of a gain counts one outcome later.
const DISCOUNT: f64 = 0.9995;
/// What one outcome may gain and cost at most, in mean losses of the naive line. Luck counts for less
/// than harm: where values jump, one lucky word would pay for many that are far off.
const GAIN_MAX: f64 = 8.0;
const COST_MAX: f64 = 100.0;
/// What the combination may be behind and speak still: this part of what the naive line lost, a quarter of
/// what is promised. Else one early loss would silence for long what earns ever after.
const BEHIND: f64 = 0.005;
/// Mean losses of the naive line that the combination goes from it at most.
const REACH: f64 = 8.0;
/// Outcomes that the mean loss remembers.
const MEMORY: u64 = 2000;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Guard {
    /// How far the combination is ahead of the naive line.
    ahead: f64,
    /// Running mean of the naive line's loss.
    unit: f64,
    seen: u64,
}

impl Guard {
    pub fn speaks(&self) -> bool {
        // Where the naive line never erred there is nothing to gain.
        let lost = if self.unit > 0.0 { self.seen.min(MEMORY) as f64 } else { 0.0 };
        self.ahead > -BEHIND * lost
    }

    /// How far from the naive line the combination may go: what is far beyond all that happens lately
    /// was learned elsewhere.
    pub fn reach(&self) -> f64 {
        REACH * self.unit
    }

    /// Absolute errors of the naive line and of the combination, in one unit.
    pub fn learn(&mut self, naive: f64, combined: f64) {
        if !naive.is_finite() {
            return;
        }
        self.seen += 1;
        let bounded = if self.unit > 0.0 { naive.min(COST_MAX * self.unit) } else { naive };
        self.unit += (bounded - self.unit) / self.seen.min(MEMORY) as f64;
        self.ahead *= DISCOUNT;
        let gain = (naive - combined) / self.unit;
        if naive != combined {
            self.ahead += if gain.is_finite() { gain.clamp(-COST_MAX, GAIN_MAX) } else { -COST_MAX };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speaks_while_it_earns() {
        let mut guard = Guard::default();
        assert!(!guard.speaks());
        (0..10).for_each(|_| guard.learn(1.0, 0.5));
        assert!(guard.speaks());
        guard.learn(1.0, 100.0);
        assert!(!guard.speaks());
        (0..400).for_each(|_| guard.learn(1.0, 0.5));
        assert!(guard.speaks());
        guard.learn(0.0, f64::NAN);
        assert!(guard.ahead < 500.0 && guard.ahead.is_finite());
    }

    #[test]
    fn what_is_hardly_behind_speaks_and_what_costs_is_silenced() {
        let mut guard = Guard::default();
        (0..1000).for_each(|_| guard.learn(1.0, 1.0));
        guard.learn(1.0, 4.0);
        assert!(guard.speaks());
        guard.learn(1.0, 4.0);
        assert!(!guard.speaks());
        let (mut heard, mut cost) = (Guard::default(), 0.0);
        for _ in 0..10_000 {
            cost += if heard.speaks() { 0.1 } else { 0.0 };
            heard.learn(1.0, 1.1);
        }
        assert!(cost < 0.01 * 10_000.0, "{cost}");
    }

    #[test]
    fn where_nothing_moves_nothing_is_earned() {
        let mut guard = Guard::default();
        (0..10).for_each(|_| guard.learn(0.0, 0.0));
        assert!(!guard.speaks());
        guard.learn(0.0, 1e-300);
        assert!(!guard.speaks() && guard.ahead.is_finite());
    }
}
