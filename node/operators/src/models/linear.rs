//! A line by stochastic gradient descent (Robbins and Monro 1951): least squares, or logistic.
//!
//! The intercept takes the same step as the weights; gradients are clipped. The step is constant, so
//! inputs must come in deviations (`standard`). Weights that diverge begin anew.

use serde::{Deserialize, Serialize};

use super::model::{Classifier, Regressor, known, sigmoid};
use super::state::Kept;

/// How far one row moves the weights along its gradient.
const STEP: f64 = 0.01;
/// Gradients of the loss by the prediction are clipped here.
const GRADIENT_MAX: f64 = 1e12;
/// Weights beyond this have diverged: all begin anew.
const WEIGHT_MAX: f64 = 1e15;

/// A line under the squared loss.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Linear(Line);

/// A line under the logistic loss.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Logistic(Line);

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Line {
    weights: Vec<f64>,
    intercept: f64,
}

impl Line {
    fn of(&self, row: &[f64]) -> f64 {
        let products = self.weights.iter().zip(row).filter_map(|(weight, x)| Some(weight * known(*x)?));
        products.sum::<f64>() + self.intercept
    }

    /// `gradient`: of the loss by what the line says.
    fn step(&mut self, row: &[f64], gradient: f64) {
        if self.weights.len() < row.len() {
            self.weights.resize(row.len(), 0.0);
        }
        let gradient = gradient.clamp(-GRADIENT_MAX, GRADIENT_MAX);
        self.intercept -= STEP * gradient;
        let mut sound = self.intercept.abs() < WEIGHT_MAX;
        for (weight, x) in self.weights.iter_mut().zip(row) {
            if let Some(x) = known(*x) {
                *weight -= STEP * (gradient * x);
            }
            sound &= weight.abs() < WEIGHT_MAX;
        }
        if !sound {
            *self = Line::default();
        }
    }
}

impl Regressor for Linear {
    fn predict(&self, row: &[f64]) -> f64 {
        self.0.of(row)
    }

    fn learn(&mut self, row: &[f64], outcome: f64) {
        if let Some(outcome) = known(outcome) {
            self.0.step(row, 2.0 * (self.0.of(row) - outcome));
        }
    }
}

impl Classifier for Logistic {
    fn probability(&self, row: &[f64]) -> f64 {
        sigmoid(self.0.of(row))
    }

    fn learn(&mut self, row: &[f64], happened: bool) {
        let gradient = self.probability(row) - f64::from(u8::from(happened));
        self.0.step(row, gradient);
    }
}

impl Kept for Linear {
    const VERSION: u8 = 1;
}

impl Kept for Logistic {
    const VERSION: u8 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: [f64; 3] = [0.7, -1.3, 0.2];

    /// A step goes along the negative numeric gradient of `loss`.
    #[track_caller]
    fn check(loss: impl Fn(&Line) -> f64, learned: &Line, before: &Line) {
        for place in 0..4 {
            let nudged = |by: f64| {
                let mut line = before.clone();
                match line.weights.get_mut(place) {
                    Some(weight) => *weight += by,
                    None => line.intercept += by,
                }
                loss(&line)
            };
            let gradient = (nudged(1e-6) - nudged(-1e-6)) / 2e-6;
            let moved = match learned.weights.get(place) {
                Some(weight) => weight - before.weights[place],
                None => learned.intercept - before.intercept,
            };
            assert!((moved + STEP * gradient).abs() < 1e-8, "{place}: {moved} {gradient}");
        }
    }

    #[test]
    fn steps_go_along_the_negative_numeric_gradient() {
        let before = Line { weights: vec![0.3, 0.1, -0.6], intercept: 0.4 };
        let mut linear = Linear(before.clone());
        linear.learn(&ROW, 1.7);
        check(|line| (line.of(&ROW) - 1.7).powi(2), &linear.0, &before);
        let mut logistic = Logistic(before.clone());
        logistic.learn(&ROW, true);
        check(|line| -sigmoid(line.of(&ROW)).ln(), &logistic.0, &before);
    }

    #[test]
    fn a_missing_input_says_and_learns_nothing() {
        let mut linear = Linear(Line { weights: vec![1.0, 2.0], intercept: 0.5 });
        assert_eq!(linear.predict(&[f64::NAN, 1.0]), 2.5);
        linear.learn(&[f64::INFINITY, 1.0], 3.0);
        assert_eq!(linear.0.weights[0], 1.0);
        assert!(linear.0.weights[1] > 2.0);
        let bytes = linear.pack();
        assert_eq!(Linear::unpack(&bytes).unwrap(), linear);
        assert!(Linear::unpack(&[9, 1, 2]).unwrap_err().to_string().contains("version 9"));
    }
}
