//! Where a leaf may be cut by one input when outcomes are yes or no: each outcome's values as a normal
//! distribution, between the least and the greatest that were seen (Pfahringer, Holmes and Kirkby,
//! "Handling numeric attributes in Hoeffding trees", 2008). Twelve numbers, whatever comes.

use core::f64::consts::{SQRT_2, TAU};

use serde::{Deserialize, Serialize};

use super::moments::Moments;

/// Places that are tried between the least and the greatest value.
const PLACES: u32 = 10;
/// The share of rows that each side of a cut must have.
const SIDE_MIN: f64 = 0.01;

/// By outcome: no, yes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Bells([Bell; 2]);

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Bell {
    values: Moments,
    least: f64,
    greatest: f64,
}

impl Bell {
    fn add(&mut self, value: f64, times: f64) {
        if self.values.n == 0.0 {
            (self.least, self.greatest) = (value, value);
        }
        self.least = self.least.min(value);
        self.greatest = self.greatest.max(value);
        self.values.add(value, times);
    }

    /// How many of its values lie at or below.
    fn below(&self, value: f64) -> f64 {
        if value < self.least {
            0.0
        } else if value >= self.greatest {
            self.values.n
        } else {
            let deviation = self.values.variance().sqrt();
            let away = (value - self.values.mean) / deviation;
            self.values.n * 0.5 * (1.0 + libm::erf(away / SQRT_2))
        }
    }
}

/// The best place to cut: rows with at most `value` go left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    /// Information gained, in bits.
    pub merit: f64,
    pub value: f64,
    /// Rows by outcome.
    pub left: [f64; 2],
    pub right: [f64; 2],
}

impl Bells {
    pub fn add(&mut self, value: f64, outcome: usize, times: f64) {
        if let Some(bell) = self.0.get_mut(outcome) {
            bell.add(value, times);
        }
    }

    /// The logarithm of how densely this outcome's values lie there; none while that is not known.
    pub fn density(&self, value: f64, outcome: usize) -> Option<f64> {
        let values = &self.0.get(outcome)?.values;
        let variance = values.variance();
        let apart = value - values.mean;
        (variance > 0.0).then(|| -apart * apart / (2.0 * variance) - 0.5 * TAU.ln() - 0.5 * variance.ln())
    }

    /// The best cut of a leaf with so many rows by outcome.
    pub fn best(&self, rows: [f64; 2]) -> Option<Cut> {
        let seen = || self.0.iter().filter(|bell| bell.values.n > 0.0);
        let least = seen().map(|bell| bell.least).fold(f64::INFINITY, f64::min);
        let greatest = seen().map(|bell| bell.greatest).fold(f64::NEG_INFINITY, f64::max);
        let step = (greatest - least) / f64::from(PLACES + 1);
        let mut best = None::<Cut>;
        for place in 1..=PLACES {
            let value = least + step * f64::from(place);
            if !(value > least && value < greatest) {
                continue;
            }
            let left = self.0.each_ref().map(|bell| bell.below(value));
            let [no, yes] = &self.0;
            let [left_no, left_yes] = left;
            let right = [no.values.n - left_no, yes.values.n - left_yes];
            let (l, r) = (left_no + left_yes, right.iter().sum::<f64>());
            if l.min(r) <= SIDE_MIN * (l + r) {
                continue;
            }
            let merit = entropy(rows) - (l * entropy(left) + r * entropy(right)) / (l + r);
            if best.is_none_or(|best| merit > best.merit) {
                best = Some(Cut { merit, value, left, right });
            }
        }
        best
    }
}

/// In bits.
fn entropy(rows: [f64; 2]) -> f64 {
    let all: f64 = rows.iter().sum();
    let of = |n: &f64| if *n > 0.0 { -n * n.log2() } else { 0.0 };
    if all > 0.0 { (rows.iter().map(of).sum::<f64>() + all * all.log2()) / all } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_lies_between_the_outcomes() {
        let mut bells = Bells::default();
        for i in 0..200u32 {
            let spread = f64::from(i * 37 % 100) / 100.0;
            bells.add(if i % 2 == 0 { spread } else { 3.0 + spread }, (i % 2) as usize, 1.0);
        }
        let cut = bells.best([100.0, 100.0]).unwrap();
        assert!((1.0..3.0).contains(&cut.value) && cut.merit > 0.95, "{cut:?}");
        assert!(bells.density(0.5, 0) > bells.density(0.5, 1));
        assert!((entropy([5.0, 5.0]) - 1.0).abs() < 1e-12);
        assert_eq!(entropy([0.0, 7.0]), 0.0);
    }
}
