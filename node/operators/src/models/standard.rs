//! Rows in deviations from their running mean, by the moments of all rows learned so far (Welford
//! 1962). An input that never varied is zero; a missing one stays missing.

use serde::{Deserialize, Serialize};

use super::model::{Classifier, Regressor, known};
use super::state::Kept;

/// Rows by which one can tell what lies far off.
const KNOWN: f64 = 30.0;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Standard {
    inputs: Vec<Input>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Input {
    n: f64,
    mean: f64,
    variance: f64,
}

impl Standard {
    pub fn learn(&mut self, row: &[f64]) {
        if self.inputs.len() < row.len() {
            self.inputs.resize(row.len(), Input::default());
        }
        for (Input { n, mean, variance }, value) in self.inputs.iter_mut().zip(row) {
            let Some(value) = known(*value) else { continue };
            *n += 1.0;
            let before = *mean;
            *mean += (value - before) / *n;
            *variance += ((value - before) * (value - *mean) - *variance) / *n;
        }
    }

    /// The same, but what lies more than `reach` deviations off counts as if it lay there, once some are
    /// known, and only so many rows are remembered: a stray does not make all others look alike for ever,
    /// and a new level is learned.
    pub fn learn_within(&mut self, row: &[f64], reach: f64, memory: f64) {
        if self.inputs.len() < row.len() {
            self.inputs.resize(row.len(), Input::default());
        }
        for (Input { n, mean, variance }, value) in self.inputs.iter_mut().zip(row) {
            let Some(mut value) = known(*value) else { continue };
            if *n >= KNOWN && *variance > 0.0 {
                let room = reach * variance.sqrt();
                value = value.clamp(*mean - room, *mean + room);
            }
            *n = (*n + 1.0).min(memory);
            let before = *mean;
            *mean += (value - before) / *n;
            *variance += ((value - before) * (value - *mean) - *variance) / *n;
        }
    }

    pub fn of(&self, row: &[f64]) -> Vec<f64> {
        let nothing = Input::default();
        let inputs = self.inputs.iter().chain(core::iter::repeat(&nothing));
        let standard = |(value, Input { mean, variance, .. }): (&f64, &Input)| match known(*value) {
            None => f64::NAN,
            Some(value) if *variance > 0.0 => (value - mean) / variance.sqrt(),
            Some(_) => 0.0,
        };
        row.iter().zip(inputs).map(standard).collect()
    }
}

/// A model that sees rows in deviations from their running mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standardised<M> {
    standard: Standard,
    model: M,
}

impl<M> Standardised<M> {
    pub fn new(model: M) -> Standardised<M> {
        Standardised { standard: Standard::default(), model }
    }
}

impl<M: Regressor> Regressor for Standardised<M> {
    fn predict(&self, row: &[f64]) -> f64 {
        self.model.predict(&self.standard.of(row))
    }

    fn learn(&mut self, row: &[f64], outcome: f64) {
        self.standard.learn(row);
        self.model.learn(&self.standard.of(row), outcome);
    }
}

impl<M: Classifier> Classifier for Standardised<M> {
    fn probability(&self, row: &[f64]) -> f64 {
        self.model.probability(&self.standard.of(row))
    }

    fn learn(&mut self, row: &[f64], happened: bool) {
        self.standard.learn(row);
        self.model.learn(&self.standard.of(row), happened);
    }
}

impl<M: Kept> Kept for Standardised<M> {
    const VERSION: u8 = M::VERSION;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stray_is_forgotten_and_a_new_level_learned() {
        let mut standard = Standard::default();
        let learn = |standard: &mut Standard, level: f64, rows: u32| {
            (0..rows).for_each(|i| standard.learn_within(&[level + f64::from(i % 5)], 8.0, 500.0));
        };
        learn(&mut standard, 0.0, 1000);
        let before = standard.of(&[4.0])[0];
        standard.learn_within(&[1e9], 8.0, 500.0);
        assert!((standard.of(&[4.0])[0] - before).abs() < 0.3 * before, "{standard:?}");
        learn(&mut standard, 1e6, 20_000);
        assert!((standard.of(&[1e6 + 4.0])[0] - before).abs() < 0.1 * before, "{standard:?}");
    }

    #[test]
    fn rows_come_out_in_deviations() {
        let mut standard = Standard::default();
        [1.0, 3.0, 5.0].into_iter().for_each(|value| standard.learn(&[value, 7.0, f64::NAN]));
        let out = standard.of(&[5.0, 7.0, f64::NAN, 2.0]);
        assert!((out[0] - 2.0 / (8.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!((out[1], out[3]), (0.0, 0.0));
        assert!(out[2].is_nan());
    }
}
