//! What a model can do.

use core::fmt::Debug;

/// Beyond, a number counts as missing: its square must stay finite.
pub const NUMBER_MAX: f64 = 1e100;

/// Says a number.
pub trait Regressor: Debug {
    /// What is expected of this row: always a finite number.
    fn predict(&self, row: &[f64]) -> f64;

    /// The row's outcome. One that is missing teaches nothing.
    fn learn(&mut self, row: &[f64], outcome: f64);
}

/// Says how likely something is.
pub trait Classifier: Debug {
    /// Between 0 and 1.
    fn probability(&self, row: &[f64]) -> f64;

    fn learn(&mut self, row: &[f64], happened: bool);
}

/// The number, unless it is missing.
pub fn known(value: f64) -> Option<f64> {
    (value.abs() < NUMBER_MAX).then_some(value)
}

pub fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit.clamp(-30.0, 30.0)).exp())
}
