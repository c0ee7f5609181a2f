//! Networks that remember, as experts (`models`): each value steps them on, and what they remember is
//! what their lines see, for all horizons.
//!
//! They are learned from what comes next; the lines on them from each horizon's outcome, like the
//! others.

use serde::{Deserialize, Serialize};

use super::hedge::{DIAGONAL, ELMAN};
use super::settings::Settings;
use crate::models::diagonal::Diagonal;
use crate::models::elman::Elman;
use crate::models::recurrent::{Recurrent, Seen};

/// What they take in of a value: its last move, its level, and where in the season it stands.
pub const TAKES: usize = 4;
const ELMANS_UNITS: usize = 8;
const CELLS: usize = 8;
/// What the lines on both see, and about how many numbers both hold beside those lines' coefficients.
pub const SEES: usize = 2 * (1 + TAKES) + ELMANS_UNITS + 2 * CELLS;
pub const NUMBERS: usize = 2000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Nets {
    elman: Option<Recurrent<Elman>>,
    diagonal: Option<Recurrent<Diagonal>>,
}

/// What both saw at a step; it waits with the forecast.
pub type Both = [Option<Seen>; 2];

impl Nets {
    /// Those that are asked for.
    pub fn new(settings: &Settings) -> Nets {
        let (horizons, seed) = (settings.horizons(), settings.seed);
        let on = |expert: usize| settings.active.get(expert) == Some(&true);
        Nets {
            elman: on(ELMAN).then(|| Recurrent::with(Elman::new(TAKES, ELMANS_UNITS, seed), horizons)),
            diagonal: on(DIAGONAL).then(|| Recurrent::with(Diagonal::new(TAKES, CELLS, seed), horizons)),
        }
    }

    /// How far the next value has moved, in units.
    pub fn came(&mut self, moved: f64) {
        self.elman.iter_mut().for_each(|net| net.learn(moved));
        self.diagonal.iter_mut().for_each(|net| net.learn(moved));
    }

    /// Takes a value in. Gives what each says of each horizon.
    pub fn step(&mut self, takes: &[f64; TAKES]) -> [Vec<f64>; 2] {
        self.elman.iter_mut().for_each(|net| net.step(takes));
        self.diagonal.iter_mut().for_each(|net| net.step(takes));
        [
            self.elman.iter().flat_map(Recurrent::says_late).collect(),
            self.diagonal.iter().flat_map(Recurrent::says_late).collect(),
        ]
    }

    pub fn seen(&self) -> Both {
        [
            self.elman.as_ref().map(|net| net.seen().clone()),
            self.diagonal.as_ref().map(|net| net.seen().clone()),
        ]
    }

    pub fn learn(&mut self, horizon: usize, [elman, diagonal]: &Both, outcome: f64) {
        if let (Some(net), Some(seen)) = (&mut self.elman, elman) {
            net.learn_late(horizon, seen, outcome);
        }
        if let (Some(net), Some(seen)) = (&mut self.diagonal, diagonal) {
            net.learn_late(horizon, seen, outcome);
        }
    }

    /// The unit changed by this factor.
    pub fn rescale(&mut self, by: f64) {
        self.elman.iter_mut().for_each(|net| net.rescale(by));
        self.diagonal.iter_mut().for_each(|net| net.rescale(by));
    }
}
