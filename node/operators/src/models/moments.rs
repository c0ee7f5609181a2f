//! Weight, mean and variance of numbers, one by one (Welford 1962), and of two heaps together or one
//! without the other (Chan, Golub and LeVeque 1983).

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    pub n: f64,
    pub mean: f64,
    /// Sum of squared distances from the mean.
    squares: f64,
}

impl Moments {
    pub fn add(&mut self, value: f64, weight: f64) {
        if weight <= 0.0 {
            return;
        }
        let before = self.mean;
        self.n += weight;
        self.mean += (weight / self.n) * (value - self.mean);
        self.squares += weight * (value - before) * (value - self.mean);
    }

    /// Of a sample: zero for less than two.
    pub fn variance(&self) -> f64 {
        if self.n > 1.0 { self.squares / (self.n - 1.0) } else { 0.0 }
    }

    pub fn join(&mut self, other: &Moments) {
        let n = self.n + other.n;
        if n <= 0.0 {
            return;
        }
        let apart = self.mean - other.mean;
        self.squares = self.squares + other.squares + apart * apart * self.n * other.n / n;
        self.mean = (self.n * self.mean + other.n * other.mean) / n;
        self.n = n;
    }

    /// Takes out what was joined before.
    pub fn leave(&mut self, other: &Moments) {
        let n = self.n - other.n;
        if n > 0.0 {
            self.mean = (self.n * self.mean - other.n * other.mean) / n;
            self.n = n;
        } else {
            (self.n, self.mean) = (0.0, 0.0);
        }
        let apart = self.mean - other.mean;
        let both = self.n + other.n;
        let between = if both > 0.0 { apart * apart * self.n * other.n / both } else { 0.0 };
        self.squares = self.squares - other.squares - between;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_and_parted_heaps_are_as_if_counted_alone() {
        let of = |values: &[f64]| {
            let mut moments = Moments::default();
            values.iter().for_each(|value| moments.add(*value, 1.0));
            moments
        };
        let (a, b) = (of(&[1.0, 4.0, 2.5]), of(&[-3.0, 7.0]));
        let mut both = a;
        both.join(&b);
        let all = of(&[1.0, 4.0, 2.5, -3.0, 7.0]);
        assert!((both.mean - all.mean).abs() < 1e-12 && (both.variance() - all.variance()).abs() < 1e-12);
        both.leave(&b);
        assert!((both.mean - a.mean).abs() < 1e-12 && (both.variance() - a.variance()).abs() < 1e-12);
        both.leave(&a);
        assert_eq!((both.n, both.mean), (0.0, 0.0));
    }
}
