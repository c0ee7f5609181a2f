//! Weights of the experts of one horizon: discounted squared losses, softmax, and the weighted mean
//! as the combination (Freund and Schapire 1997; discounted, so that the best of late leads).

use serde::{Deserialize, Serialize};

/// The experts, in the order of every list of forecasts: the last value, the seasonal one, the
/// smoothings, the lines on the series' own past, the line that sees the other fields too, and the
/// networks.
pub const EXPERTS: usize = 12;
pub const FIELDS: usize = 9;
pub const ELMAN: usize = 10;
pub const DIAGONAL: usize = 11;
pub const SMOOTHINGS: [f64; 4] = [0.1, 0.3, 0.6, 0.9];
/// Memories of the own lines, and that of the line with fields, in steps.
pub const MEMORIES: [f64; 3] = [100.0, 330.0, 2000.0];
pub const FIELDS_MEMORY: f64 = 1000.0;
/// What experts are called in `models` and `weights`, and how many of them each name stands for.
pub const FAMILIES: [(&str, usize); 7] = [
    ("last_value", 1),
    ("seasonal", 1),
    ("holt_winters", SMOOTHINGS.len()),
    ("rls", MEMORIES.len()),
    ("fields", 1),
    ("elman", 1),
    ("diagonal", 1),
];

const DISCOUNT: f64 = 0.995;
/// How fast weight follows lost ground, per loss in units of the naive line's mean loss.
const RATE: f64 = 0.05;
/// What the two naive lines begin ahead of the others, in the same unit.
const HEAD_START: f64 = 40.0;
/// One loss counts for so many of the naive line's at most.
const LOSS_MAX: f64 = 50.0;
/// Outcomes that the unit remembers.
const MEMORY: u64 = 500;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hedge {
    losses: [f64; EXPERTS],
    /// Running mean of the naive line's loss.
    unit: f64,
    seen: u64,
}

impl Hedge {
    pub fn new() -> Hedge {
        let mut losses = [HEAD_START; EXPERTS];
        losses.iter_mut().take(2).for_each(|loss| *loss = 0.0);
        Hedge { losses, unit: 0.0, seen: 0 }
    }

    /// Those of the experts that have something to say; they sum to one.
    pub fn weights(&self, says: &[bool; EXPERTS]) -> [f64; EXPERTS] {
        let of = |(loss, says): (&f64, &bool)| if *says { *loss } else { f64::INFINITY };
        let best = self.losses.iter().zip(says).map(of).fold(f64::INFINITY, f64::min);
        let mut weights = [0.0; EXPERTS];
        for ((weight, loss), says) in weights.iter_mut().zip(&self.losses).zip(says) {
            *weight = if *says { (-RATE * (loss - best)).exp() } else { 0.0 };
        }
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
        weights
    }

    /// `errors`: each expert's error, in units of the series. The naive line's stands first.
    pub fn learn(&mut self, errors: impl Iterator<Item = f64> + Clone) {
        let Some(naive) = errors.clone().next().map(|error| error * error).filter(|e| e.is_finite()) else {
            return;
        };
        self.seen += 1;
        let bounded = if self.unit > 0.0 { naive.min(LOSS_MAX * self.unit) } else { naive };
        self.unit += (bounded - self.unit) / self.seen.min(MEMORY) as f64;
        if self.unit < 1e-200 {
            return;
        }
        for (loss, error) in self.losses.iter_mut().zip(errors) {
            let size = error * error / self.unit;
            *loss = *loss * DISCOUNT + if size < LOSS_MAX { size } else { LOSS_MAX };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_expert_of_late_takes_the_weight() {
        let mut hedge = Hedge::new();
        let says = std::array::from_fn(|i| i != 4);
        for (best, other) in [(6, 3), (3, 6)] {
            for _ in 0..3000 {
                hedge.learn((0..EXPERTS).map(|i| {
                    if i == best {
                        0.5
                    } else if i == 9 {
                        f64::NAN
                    } else {
                        2.0
                    }
                }));
            }
            let weights = hedge.weights(&says);
            assert!(weights[best] > 0.95 && weights[other] < 0.01, "{weights:?}");
            assert_eq!((weights[4], weights.iter().sum::<f64>() > 0.999), (0.0, true));
        }
    }

    #[test]
    fn the_families_are_all_experts() {
        assert_eq!(FAMILIES.iter().map(|(_, n)| n).sum::<usize>(), EXPERTS);
    }
}
