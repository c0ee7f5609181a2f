//! A network whose units see the row and each other as they were (Elman, "Finding structure in time",
//! 1990), with exact real-time recurrent learning.
//!
//! How each unit depends on each weight is kept and carried along: for n units and d inputs that is
//! n² (n + d + 1) numbers, and n times as many products for a step; so units are few.

use serde::{Deserialize, Serialize};

use super::draw::Draws;
use super::recurrent::Net;
use super::state::Kept;
use super::steps::Steps;

const RATE: f64 = 0.01;
/// A unit that depends on a weight more than this has no bounds any more: all that is forgotten.
const SLOPE_MAX: f64 = 1e3;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Elman {
    inputs: usize,
    units: Vec<f64>,
    /// By unit: of one, the row, and the units before.
    weights: Vec<f64>,
    /// By unit: how it depends on each weight.
    slopes: Vec<f64>,
    steps: Steps,
    draws: Draws,
    #[serde(skip)]
    room: Vec<f64>,
}

impl Elman {
    /// `units`: 8 to 16 do.
    pub fn new(inputs: usize, units: usize, seed: u64) -> Elman {
        Elman::begin(inputs, units, Draws::new(seed, 0))
    }

    fn begin(inputs: usize, units: usize, mut draws: Draws) -> Elman {
        let sees = 1 + inputs + units;
        let reach = 1.0 / (sees as f64).sqrt();
        let weights: Vec<f64> = (0..units * sees).map(|_| (2.0 * draws.part() - 1.0) * reach).collect();
        Elman {
            inputs,
            units: vec![0.0; units],
            slopes: vec![0.0; units * weights.len()],
            steps: Steps::new(RATE, weights.len()),
            weights,
            draws,
            room: Vec::new(),
        }
    }

    /// By weight, of a loss whose gradient by each unit is `pull`.
    fn gradient(&self, pull: &[f64]) -> Vec<f64> {
        let mut gradient = vec![0.0; self.weights.len()];
        for (pull, slopes) in pull.iter().zip(self.slopes.chunks(self.weights.len().max(1))) {
            gradient.iter_mut().zip(slopes).for_each(|(sum, slope)| *sum += pull * slope);
        }
        gradient
    }
}

impl Net for Elman {
    fn inputs(&self) -> usize {
        self.inputs
    }

    fn step(&mut self, row: &[f64]) {
        let mut sees = Vec::with_capacity(1 + self.inputs + self.units.len());
        sees.push(1.0);
        sees.extend(row.iter().copied().chain(core::iter::repeat(0.0)).take(self.inputs));
        sees.extend_from_slice(&self.units);
        let all = self.weights.len();
        let mut room = core::mem::take(&mut self.room);
        room.clear();
        room.resize(self.slopes.len(), 0.0);
        let mut sound = true;
        for (unit, (mine, weights)) in
            room.chunks_mut(all.max(1)).zip(self.weights.chunks(sees.len())).enumerate()
        {
            let sum: f64 = weights.iter().zip(&sees).map(|(weight, sees)| weight * sees).sum();
            let says = sum.tanh();
            // Through the units before, and by its own weights.
            let back = weights.iter().skip(1 + self.inputs);
            for (weight, slopes) in back.zip(self.slopes.chunks(all.max(1))) {
                mine.iter_mut().zip(slopes).for_each(|(sum, slope)| *sum += weight * slope);
            }
            mine.iter_mut().skip(unit * sees.len()).zip(&sees).for_each(|(sum, sees)| *sum += sees);
            let steep = 1.0 - says * says;
            for slope in mine.iter_mut() {
                *slope *= steep;
                sound &= slope.abs() < SLOPE_MAX;
            }
            if let Some(place) = self.units.get_mut(unit) {
                *place = says;
            }
        }
        if !sound {
            room.fill(0.0);
        }
        self.room = core::mem::replace(&mut self.slopes, room);
    }

    fn units(&self) -> &[f64] {
        &self.units
    }

    fn learn(&mut self, pull: &[f64]) {
        let gradient = self.gradient(pull);
        if !self.steps.take(self.weights.iter_mut(), gradient.into_iter()) {
            *self = Elman::begin(self.inputs, self.units.len(), self.draws);
        }
    }
}

impl Kept for Elman {
    const VERSION: u8 = 1;
}

#[cfg(test)]
mod tests {
    use super::super::recurrent::Recurrent;
    use super::*;

    fn rows(seed: u64) -> Vec<[f64; 2]> {
        let mut draws = Draws::new(seed, 9);
        (0..25).map(|_| [2.0 * draws.part() - 1.0, 2.0 * draws.part() - 1.0]).collect()
    }

    #[test]
    fn the_gradient_is_the_numeric_one_through_all_steps() {
        let pull = [0.7, -1.1, 0.4, 0.9];
        let of = |elman: &Elman| {
            let mut elman = elman.clone();
            rows(4).iter().for_each(|row| elman.step(row));
            let loss: f64 = elman.units.iter().zip(pull).map(|(unit, pull)| unit * pull).sum();
            (loss, elman)
        };
        let mut elman = Elman::new(2, 4, 8);
        elman.weights.iter_mut().for_each(|weight| *weight *= 1.7);
        let gradient = of(&elman).1.gradient(&pull);
        for (place, exact) in gradient.iter().enumerate() {
            let nudged = |by: f64| {
                let mut elman = elman.clone();
                elman.weights[place] += by;
                of(&elman).0
            };
            let numeric = (nudged(1e-6) - nudged(-1e-6)) / 2e-6;
            assert!((exact - numeric).abs() < 1e-7, "{place}: {exact} {numeric}");
        }
    }

    #[test]
    fn learns_what_no_line_on_the_row_can_say() {
        let (mut model, mut draws) = (Recurrent::new(Elman::new(1, 8, 1)), Draws::new(5, 5));
        let (mut before, mut error) = (0.0, 0.0);
        for i in 0..12_000 {
            let now = if draws.part() < 0.5 { -1.0 } else { 1.0 };
            model.step(&[now]);
            // Whether the last two were alike.
            let outcome = now * before;
            if i >= 11_000 {
                error += (model.says() - outcome).abs() / 1000.0;
            }
            model.learn(outcome);
            before = now;
        }
        assert!(error < 0.25, "{error}");
        assert_eq!(Recurrent::<Elman>::unpack(&model.pack()).unwrap().pack(), model.pack());
    }
}
