//! Networks that remember, learned as they run: real-time recurrent learning (Williams and Zipser
//! 1989) below, recursive least squares on top.
//!
//! At each step the network takes a row in; a line on the row and the network's units says what comes
//! next. When that has come, the line learns it, and the network moves along the exact gradient of its
//! error: it keeps how each unit depends on each of its weights, through all the steps before, so
//! nothing has to be gone through backwards and no past is stored.

use core::fmt::Debug;

use serde::{Deserialize, Serialize};

use super::model::known;
use super::state::Kept;
use crate::forecast::Rls;

/// Inputs are held within this; missing ones are zero.
pub const INPUT_MAX: f64 = 5.0;
/// Steps that the line remembers.
const MEMORY: f64 = 2000.0;
/// Errors beyond so many times their running mean size pull no harder.
const CLIP: f64 = 4.0;

/// A network that takes rows in one after the other.
pub trait Net: Debug {
    /// Numbers of a row.
    fn inputs(&self) -> usize;

    /// Takes a row in; each number lies within [`INPUT_MAX`].
    fn step(&mut self, row: &[f64]);

    /// What its units say now, each between -1 and 1.
    fn units(&self) -> &[f64];

    /// Moves the weights against `pull`: the gradient of the loss by each unit, as they are now.
    fn learn(&mut self, pull: &[f64]);
}

/// A network and the lines on it: what comes next, and as much beside that as is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recurrent<N> {
    net: N,
    /// What comes next, then the others.
    lines: Rls,
    seen: Seen,
    /// Running mean size of the error of what came next.
    size: f64,
    learned: u64,
}

/// What the lines saw at a step: one, the row, the units; and their gain. It waits for outcomes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    sees: Vec<f64>,
    gain: Vec<f64>,
}

impl<N: Net> Recurrent<N> {
    pub fn new(net: N) -> Recurrent<N> {
        Recurrent::with(net, 0)
    }

    /// With so many lines more, whose outcomes come late.
    pub fn with(net: N, late: usize) -> Recurrent<N> {
        let sees = 1 + net.inputs() + net.units().len();
        let seen = Seen { sees: vec![0.0; sees], gain: Vec::new() };
        Recurrent { lines: Rls::new(MEMORY, sees, 1 + late), net, seen, size: 0.0, learned: 0 }
    }

    /// Takes a row in.
    pub fn step(&mut self, row: &[f64]) {
        let inputs = self.net.inputs();
        let row: Vec<f64> = row
            .iter()
            .map(|value| known(*value).map_or(0.0, |value| value.clamp(-INPUT_MAX, INPUT_MAX)))
            .chain(core::iter::repeat(0.0))
            .take(inputs)
            .collect();
        self.net.step(&row);
        let Seen { sees, gain } = &mut self.seen;
        sees.clear();
        sees.push(1.0);
        sees.extend_from_slice(&row);
        sees.extend_from_slice(self.net.units());
        *gain = self.lines.gain(sees);
    }

    /// What is expected to come now: zero before the first step.
    pub fn says(&self) -> f64 {
        self.lines.predict(&self.seen.sees).next().unwrap_or(0.0)
    }

    /// What the late lines expect.
    pub fn says_late(&self) -> impl Iterator<Item = f64> + '_ {
        self.lines.predict(&self.seen.sees).skip(1)
    }

    /// What the last step has left, for `learn_late`.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// What has come, after the last step.
    pub fn learn(&mut self, outcome: f64) {
        let Some(outcome) = known(outcome) else { return };
        let Seen { sees, gain } = &self.seen;
        if gain.is_empty() {
            return;
        }
        let error = outcome - self.says();
        self.learned += 1;
        let bound = if self.learned > 20 { CLIP * self.size } else { f64::INFINITY };
        let bounded = error.clamp(-bound, bound);
        self.size += (bounded.abs() - self.size) / self.learned.min(500) as f64;
        if self.size > 0.0 {
            let own = self.lines.weights(0).iter().skip(1 + self.net.inputs());
            // In sizes of the error, so that units do not matter.
            let pull: Vec<f64> = own.map(|weight| -weight * bounded / (self.size * self.size)).collect();
            self.net.learn(&pull);
        }
        self.lines.learn(0, sees, gain, outcome);
    }

    /// The outcome of a late line, as it was seen.
    pub fn learn_late(&mut self, line: usize, seen: &Seen, outcome: f64) {
        if !seen.gain.is_empty() {
            self.lines.learn(1 + line, &seen.sees, &seen.gain, outcome);
        }
    }

    /// Outcomes are measured by another unit: what was one is now `by`.
    pub fn rescale(&mut self, by: f64) {
        self.lines.rescale(&vec![1.0; self.lines.inputs()], by);
        self.size *= by;
    }
}

impl<N: Net + Kept> Kept for Recurrent<N> {
    const VERSION: u8 = N::VERSION;
}
