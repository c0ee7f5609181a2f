//! A line towards the median: pinball loss, steps that shrink as gradients add up.

use serde::{Deserialize, Serialize};

use super::rls::dot;

const RATE: f64 = 0.02;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MedianLine {
    weights: Vec<f64>,
    squares: Vec<f64>,
}

impl MedianLine {
    pub fn predict(&self, x: &[f32]) -> f64 {
        dot(&self.weights, x)
    }

    pub fn fit(&mut self, x: &[f32], y: f64) {
        if !y.is_finite() {
            return;
        }
        if x.len() > self.weights.len() {
            self.weights.resize(x.len(), 0.0);
            self.squares.resize(x.len(), 1.0);
        }
        let slope = slope(y - self.predict(x));
        for ((w, s), x) in self.weights.iter_mut().zip(&mut self.squares).zip(x) {
            let gradient = slope * f64::from(*x);
            *s += gradient * gradient;
            *w -= RATE * gradient / s.sqrt();
        }
    }
}

/// The derivative of |error| / 2 by the prediction.
fn slope(error: f64) -> f64 {
    if error > 0.0 {
        -0.5
    } else if error < 0.0 {
        0.5
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_the_numeric_gradient() {
        let loss = |prediction: f64| (1.5 - prediction).abs() / 2.0;
        for prediction in [0.0, 3.0] {
            let numeric = (loss(prediction + 1e-6) - loss(prediction - 1e-6)) / 2e-6;
            assert!((numeric - slope(1.5 - prediction)).abs() < 1e-6);
        }
    }

    #[test]
    fn outliers_do_not_move_a_median() {
        let mut line = MedianLine::default();
        for i in 0..30_000u32 {
            line.fit(&[1.0], if i % 5 == 0 { 1e9 } else { 0.3 });
        }
        assert!((line.predict(&[1.0]) - 0.3).abs() < 0.05);
    }
}
