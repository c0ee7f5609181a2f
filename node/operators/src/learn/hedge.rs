//! Weights of the experts: discounted losses, softmax, and the weighted median as the combination.
//!
//! A weighted median, not a mean: when most weight says "it stays", the answer is exactly that.

use serde::{Deserialize, Serialize};

use super::settings::EXPERTS;

const DISCOUNT: f64 = 0.999;
/// How fast weight follows lost ground, per loss in units of the naive line's mean loss.
const RATE: f64 = 0.4;
/// What the naive line begins ahead of the others, in the same unit.
const HEAD_START: f64 = 6.0;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hedge {
    /// Discounted sum of each expert's losses.
    losses: [f64; EXPERTS.len()],
    /// Running mean of the naive line's loss: the unit.
    unit: f64,
    seen: u64,
}

impl Hedge {
    pub fn new() -> Hedge {
        let mut losses = [HEAD_START; EXPERTS.len()];
        if let Some(naive) = losses.first_mut() {
            *naive = 0.0;
        }
        Hedge { losses, unit: 0.0, seen: 0 }
    }

    pub fn weights(&self, active: &[bool; EXPERTS.len()]) -> [f64; EXPERTS.len()] {
        let best =
            self.losses.iter().zip(active).filter(|(_, on)| **on).map(|(l, _)| *l).fold(f64::MAX, f64::min);
        let mut weights = [0.0; EXPERTS.len()];
        let mut sum = 0.0;
        for ((weight, loss), on) in weights.iter_mut().zip(&self.losses).zip(active) {
            *weight = if *on { (-RATE * (loss - best)).exp() } else { 0.0 };
            sum += *weight;
        }
        weights.iter_mut().for_each(|weight| *weight /= sum);
        weights
    }

    /// `errors`: each expert's absolute error, in units that do not depend on the series.
    pub fn learn(&mut self, errors: &[f64]) {
        let Some(naive) = errors.first().filter(|naive| naive.is_finite()) else { return };
        self.seen += 1;
        self.unit += (naive - self.unit) / self.seen.min(2000) as f64;
        if self.unit <= 0.0 {
            return;
        }
        for (loss, error) in self.losses.iter_mut().zip(errors) {
            let error = (error / self.unit).clamp(0.0, 20.0);
            *loss = *loss * DISCOUNT + if error.is_finite() { error } else { 20.0 };
        }
    }
}

/// The smallest value at which half of the weight is reached.
pub fn weighted_median(values: &[f64; EXPERTS.len()], weights: &[f64; EXPERTS.len()]) -> f64 {
    let mut order: [(f64, f64); EXPERTS.len()] = [(f64::NAN, 0.0); EXPERTS.len()];
    for ((place, value), weight) in order.iter_mut().zip(values).zip(weights) {
        if value.is_finite() && *weight > 0.0 {
            *place = (*value, *weight);
        }
    }
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let half = order.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    for (value, weight) in order.iter().filter(|(value, _)| value.is_finite()) {
        sum += weight;
        if sum >= half {
            return *value;
        }
    }
    values.first().copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_expert_takes_the_weight() {
        let mut hedge = Hedge::new();
        for _ in 0..500 {
            hedge.learn(&[1.0, 2.0, 0.5, f64::NAN, 2.0, 3.0, 3.0]);
        }
        let weights = hedge.weights(&[true; EXPERTS.len()]);
        assert!(weights[2] > 0.9);
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        let values = [5.0, 1.0, 9.0, 2.0, 3.0, 7.0, 4.0];
        assert_eq!(weighted_median(&values, &[0.6, 0.1, 0.15, 0.1, 0.05, 0.0, 0.0]), 5.0);
    }
}
