//! A forecast that was made, with all that its settling needs.

use dunlin_protocol::time::Time;
use serde::{Deserialize, Serialize};

use super::hedge::{EXPERTS, FAMILIES};
use super::nets::Both;

/// What was said at one event about one target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    pub at: Time,
    pub last_value: f64,
    /// By horizon.
    pub value: Vec<f64>,
    /// Half the width of the interval, by horizon.
    pub width: Vec<f64>,
    /// By family, mean over the horizons.
    pub weights: [f64; FAMILIES.len()],
    /// How likely it was that the value at which it was made lay so far from what had been said of it.
    pub tail: Option<f64>,
}

impl Forecast {
    /// The interval's bounds, by horizon.
    pub fn bounds(&self, side: f64) -> impl Iterator<Item = f64> + '_ {
        self.value.iter().zip(&self.width).map(move |(value, width)| rounded(value + side * width, *width))
    }
}

/// To about a thousandth of the interval's width: what lies beyond says nothing and costs room.
pub fn rounded(value: f64, width: f64) -> f64 {
    if !(width > 0.0 && width.is_finite()) {
        return value;
    }
    let digits = 3 - width.log10().floor() as i32;
    let (up, down) = (10f64.powi(digits.max(0)), 10f64.powi((-digits).max(0)));
    let scaled = value * up / down;
    // Where a float has no digits to spare it stays as it is.
    if scaled.abs() < 1e15 && up < 1e100 { scaled.round() / up * down } else { value }
}

/// A forecast that waits for its outcomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    pub forecast: Forecast,
    /// The target's how manieth value it was made at.
    pub number: u64,
    /// What each line saw, and its gain.
    pub inputs: Vec<f64>,
    pub gains: Vec<Vec<f64>>,
    /// What the networks saw.
    pub nets: Both,
    /// What each expert said, by horizon: changes from the last value, in units.
    pub said: Vec<[f32; EXPERTS]>,
    /// What they said together, guarded or not, by horizon.
    pub combined: Vec<f32>,
    /// Outcomes so far, by horizon.
    pub truth: Vec<f64>,
    /// How likely it was that the first of them lay so far from what was said, or farther.
    pub tail: Option<f64>,
}

impl Origin {
    /// The unit changed.
    pub fn rescale(&mut self, inputs: &[f64], outcomes: f64) {
        for (input, by) in self.inputs.iter_mut().zip(inputs) {
            *input *= by;
        }
        // A gain is the covariance times the inputs: it goes the other way.
        for (gain, by) in self.gains.iter_mut().flat_map(|gain| gain.iter_mut().zip(inputs)) {
            *gain /= by;
        }
        for said in self.said.iter_mut().flatten().chain(&mut self.combined) {
            *said *= outcomes as f32;
        }
    }
}

/// A forecast whose last outcome has come.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    pub forecast: Forecast,
    pub truth: Vec<f64>,
    /// As its origin's.
    pub tail: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forecast_is_as_long_as_its_interval_allows() {
        assert_eq!(rounded(38.661_998_748, 0.52), 38.662);
        assert_eq!(rounded(6_442_450_944.37, 123_456.0), 6_442_450_900.0);
        assert_eq!(rounded(-1.25e-9, 2e-10), -1.25e-9);
        for (value, width) in [(1.0 / 3.0, 0.0), (1e90, 1e-5), (0.1, f64::NAN), (1.0 / 3.0, 1e-120)] {
            assert_eq!(rounded(value, width), value);
        }
    }
}
