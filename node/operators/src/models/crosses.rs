//! A logistic line over what values the inputs have, one by one and two by two, each hashed into a
//! cell (Weinberger and others, "Feature hashing for large scale multitask learning", 2009), by
//! adaptive steps (AdaGrad: Duchi, Hazan and Singer 2011).
//!
//! A value is told by its sign, its power of two and the next two bits, so few values are exact and
//! many are steps of about a fifth. Two that share a cell share what they learn.

use serde::{Deserialize, Serialize};

use super::draw::mixed;
use super::model::{Classifier, known, sigmoid};
use super::state::Kept;

const CELLS: usize = 1 << 14;
/// Inputs that are crossed. Later ones take part alone.
const CROSSED: usize = 32;
const STEP: f32 = 0.1;
/// What the root of a cell's squares is taken to be before any came.
const CAUTION: f32 = 1.0;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Crosses {
    seed: u64,
    cells: Vec<Cell>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Cell {
    weight: f32,
    /// Sum of squared gradients.
    squares: f32,
}

impl Crosses {
    pub fn new(seed: u64) -> Crosses {
        Crosses { seed, cells: vec![Cell::default(); CELLS] }
    }

    /// The cells of a row; the first is that of all rows.
    fn places(&self, row: &[f64]) -> Vec<usize> {
        let token = |(input, value): (usize, &f64)| {
            let value = known(*value)?;
            // Zero is zero, whatever its sign.
            let steps = (value + 0.0).to_bits() >> 50;
            Some(mixed(mixed(self.seed ^ (input as u64 + 1)) ^ steps))
        };
        let tokens: Vec<u64> = row.iter().enumerate().filter_map(token).collect();
        let place = |hash: u64| (hash >> 50) as usize;
        let mut places = Vec::with_capacity(1 + tokens.len() * (tokens.len() + 1) / 2);
        places.push(place(mixed(self.seed)));
        for (count, token) in tokens.iter().enumerate() {
            places.push(place(mixed(*token)));
            let others = tokens.iter().take(count.min(CROSSED));
            if count < CROSSED {
                places.extend(others.map(|other| place(mixed(token ^ other.rotate_left(17)))));
            }
        }
        places
    }

    fn sum(&self, places: &[usize]) -> f64 {
        places.iter().filter_map(|place| self.cells.get(*place)).map(|cell| f64::from(cell.weight)).sum()
    }
}

impl Classifier for Crosses {
    fn probability(&self, row: &[f64]) -> f64 {
        sigmoid(self.sum(&self.places(row)))
    }

    fn learn(&mut self, row: &[f64], happened: bool) {
        let places = self.places(row);
        let gradient = (sigmoid(self.sum(&places)) - f64::from(u8::from(happened))) as f32;
        for place in places {
            let Some(Cell { weight, squares }) = self.cells.get_mut(place) else { continue };
            *squares += gradient * gradient;
            *weight -= STEP * gradient / (squares.sqrt() + CAUTION);
        }
    }
}

impl Kept for Crosses {
    const VERSION: u8 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_what_only_two_inputs_together_tell() {
        let mut crosses = Crosses::new(1);
        let row = |i: u32| [f64::from(i % 2), f64::from(i / 2 % 2), f64::from(i % 7)];
        let truth = |row: [f64; 3]| row[0] != row[1];
        (0..2000).for_each(|i| crosses.learn(&row(i), truth(row(i))));
        assert!((0..28).all(|i| (crosses.probability(&row(i)) > 0.5) == truth(row(i))));
    }

    #[test]
    fn the_first_step_goes_along_the_negative_gradient() {
        let (row, mut crosses) = ([1.0, 2.0], Crosses::new(1));
        let places = crosses.places(&row);
        assert_eq!(places.len(), 4);
        let loss = |crosses: &Crosses| -crosses.probability(&row).ln();
        let before = crosses.clone();
        let mut nudged = before.clone();
        nudged.cells[places[1]].weight += 1e-3;
        let gradient = (loss(&nudged) - loss(&before)) / 1e-3;
        crosses.learn(&row, true);
        let step = f64::from(crosses.cells[places[1]].weight);
        let expected = -f64::from(STEP) * gradient / (gradient.abs() + 1.0);
        assert!((step - expected).abs() < 1e-4, "{step} {expected}");
    }
}
