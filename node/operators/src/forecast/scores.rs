//! Running metrics of one horizon, over all that was settled.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    pub n: u64,
    absolute: f64,
    absolute_last_value: f64,
    squared: f64,
    inside: u64,
}

impl Scores {
    pub fn add(&mut self, error: f64, error_last_value: f64, inside: bool) {
        self.n += 1;
        self.absolute = add(self.absolute, error);
        self.absolute_last_value = add(self.absolute_last_value, error_last_value);
        self.squared = add(self.squared, error * error);
        self.inside += u64::from(inside);
    }

    fn mean(&self, sum: f64) -> f64 {
        sum / self.n.max(1) as f64
    }

    pub fn mae(&self) -> f64 {
        self.mean(self.absolute)
    }

    pub fn mae_last_value(&self) -> f64 {
        self.mean(self.absolute_last_value)
    }

    pub fn rmse(&self) -> f64 {
        self.mean(self.squared).sqrt()
    }

    /// The share of truths that lay within their interval.
    pub fn inside(&self) -> f64 {
        self.mean(self.inside as f64)
    }
}

/// Sums stay finite.
fn add(sum: f64, more: f64) -> f64 {
    (sum + if more.is_finite() { more } else { f64::MAX }).min(f64::MAX)
}
