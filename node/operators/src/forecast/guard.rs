//! The safety floor of one horizon: the combination speaks only while it has lately earned more than
//! the better of the two naive lines: fewer squares, and not at the price of as much more absolute error.
//!
//! Weights alone cannot promise that: on a random walk every expert costs a little, and where values
//! mostly stay, a mean is no median. So the naive lines' and the combination's discounted losses are
//! kept side by side, and the combination begins, and falls back, as the naive line.

use serde::{Deserialize, Serialize};

use super::hedge::{EXPERTS, Hedge};

const DISCOUNT: f64 = 0.998;
/// What the combination must have gained, in mean losses of the naive line, until it speaks.
const HEAD_START: f64 = 2.0;
/// One loss counts for so many of the naive line's mean losses at most.
const LOSS_MAX: f64 = 50.0;
/// Outcomes that the mean losses remember.
const MEMORY: u64 = 500;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    squared: Losses,
    absolute: Losses,
    seasonal: bool,
    combined: bool,
}

/// Of the last value, the seasonal one, and the combination.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Losses {
    sums: [f64; 3],
    /// Mean loss of the last value.
    unit: f64,
    seen: u64,
}

impl Losses {
    fn learn(&mut self, losses: [f64; 3]) {
        let [last, ..] = losses;
        if !last.is_finite() {
            return;
        }
        self.seen += 1;
        let bounded = if self.unit > 0.0 { last.min(LOSS_MAX * self.unit) } else { last };
        self.unit += (bounded - self.unit) / self.seen.min(MEMORY) as f64;
        if self.unit < 1e-200 {
            return;
        }
        for (sum, loss) in self.sums.iter_mut().zip(losses) {
            let loss = loss / self.unit;
            *sum = *sum * DISCOUNT + if loss < LOSS_MAX { loss } else { LOSS_MAX };
        }
    }
}

impl Guard {
    pub fn new() -> Guard {
        Guard { squared: Losses::default(), absolute: Losses::default(), seasonal: false, combined: false }
    }

    /// `weights`, or all weight on the naive line that leads.
    pub fn weights(&self, hedge: &Hedge, says: &[bool; EXPERTS]) -> [f64; EXPERTS] {
        if self.combined {
            return hedge.weights(says);
        }
        let mut weights = [0.0; EXPERTS];
        if let Some(weight) = weights.get_mut(usize::from(self.seasonal)) {
            *weight = 1.0;
        }
        weights
    }

    /// The errors of the last value, the seasonal one, and the combination.
    pub fn learn(&mut self, errors: [f64; 3]) {
        self.squared.learn(errors.map(|error| error * error));
        self.absolute.learn(errors.map(f64::abs));
        let ahead = |one: usize, other: usize, by: f64| {
            let of = |losses: &Losses, line: usize| losses.sums.get(line).copied().unwrap_or(0.0);
            let (squared, absolute) = (|line| of(&self.squared, line), |line| of(&self.absolute, line));
            squared(one) + by < squared(other)
                && squared(one) * absolute(one) < squared(other) * absolute(other)
        };
        // What more it errs in absolute terms it must more than make up for in squares.
        self.seasonal = if self.seasonal { !ahead(0, 1, 0.0) } else { ahead(1, 0, HEAD_START) };
        let leader = usize::from(self.seasonal);
        self.combined = ahead(2, leader, if self.combined { 0.0 } else { HEAD_START });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_combination_speaks_while_it_earns_more() {
        let (mut guard, hedge, says) = (Guard::new(), Hedge::new(), [true; EXPERTS]);
        let naive = |guard: &Guard, line: usize| guard.weights(&hedge, &says)[line] == 1.0;
        assert!(naive(&guard, 0));
        (0..100).for_each(|_| guard.learn([1.0, 0.5, 2.0]));
        assert!(naive(&guard, 1));
        (0..2000).for_each(|_| guard.learn([1.0, 0.5, 0.4]));
        assert!(guard.combined);
        // Fewer squares, but more in absolute terms: what mostly stays.
        (0..2000).for_each(|i| guard.learn(if i % 10 == 0 { [3.0, 9.0, 2.6] } else { [0.0, 9.0, 0.3] }));
        assert!(naive(&guard, 0));
    }
}
