//! Forests of Mondrian trees (`mondrian`): each tree cuts as its own draws tell, and the forest says
//! the mean (Lakshminarayanan, Roy and Teh 2014; aggregated: Mourtada, Gaïffas and Scornet 2021).
//!
//! Steps in an input are measured by its running deviation, and squares by that of the outcomes, so
//! that units do not matter.

use serde::{Deserialize, Serialize};

use super::draw::Draws;
use super::model::{Classifier, Regressor, known};
use super::moments::Moments;
use super::mondrian::{Mondrian, Task};
use super::state::Kept;

const TREES: usize = 10;

/// Says a number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForestRegressor {
    forest: Forest,
    outcomes: Moments,
}

/// Says how likely a yes is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForestClassifier {
    forest: Forest,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Forest {
    inputs: Vec<Moments>,
    trees: Vec<Mondrian>,
}

impl Forest {
    fn new(inputs: usize, trees: usize, seed: u64) -> Forest {
        let tree = |which| Mondrian::new(inputs, Draws::new(seed, which as u64));
        Forest { inputs: vec![Moments::default(); inputs], trees: (0..trees).map(tree).collect() }
    }

    fn row(&self, row: &[f64]) -> Vec<f64> {
        let values = row.iter().copied().chain(core::iter::repeat(f64::NAN));
        values.take(self.inputs.len()).map(|value| known(value).unwrap_or(f64::NAN)).collect()
    }

    fn predict(&self, row: &[f64], task: Task) -> f64 {
        let row = self.row(row);
        self.trees.iter().map(|tree| tree.predict(&row, task)).sum::<f64>() / self.trees.len().max(1) as f64
    }

    fn learn(&mut self, row: &[f64], outcome: f64, task: Task) {
        let row = self.row(row);
        for (moments, value) in self.inputs.iter_mut().zip(&row) {
            if !value.is_nan() {
                moments.add(*value, 1.0);
            }
        }
        let scale: Vec<f64> = self.inputs.iter().map(|moments| moments.variance().max(0.0).sqrt()).collect();
        self.trees.iter_mut().for_each(|tree| tree.learn(&row, outcome, &scale, task));
    }
}

impl ForestRegressor {
    /// `inputs`: numbers of a row.
    pub fn new(inputs: usize, seed: u64) -> ForestRegressor {
        ForestRegressor { forest: Forest::new(inputs, TREES, seed), outcomes: Moments::default() }
    }

    fn task(&self) -> Task {
        Task::Number { unit: self.outcomes.variance().max(0.0).sqrt() }
    }
}

impl Regressor for ForestRegressor {
    fn predict(&self, row: &[f64]) -> f64 {
        self.forest.predict(row, self.task())
    }

    fn learn(&mut self, row: &[f64], outcome: f64) {
        let Some(outcome) = known(outcome) else { return };
        self.outcomes.add(outcome, 1.0);
        let task = self.task();
        self.forest.learn(row, outcome, task);
    }
}

impl ForestClassifier {
    /// `inputs`: numbers of a row.
    pub fn new(inputs: usize, seed: u64) -> ForestClassifier {
        ForestClassifier { forest: Forest::new(inputs, TREES, seed) }
    }
}

impl Classifier for ForestClassifier {
    fn probability(&self, row: &[f64]) -> f64 {
        self.forest.predict(row, Task::Chance).clamp(0.0, 1.0)
    }

    fn learn(&mut self, row: &[f64], happened: bool) {
        self.forest.learn(row, f64::from(u8::from(happened)), Task::Chance);
    }
}

impl Kept for ForestRegressor {
    const VERSION: u8 = 1;
}

impl Kept for ForestClassifier {
    const VERSION: u8 = 1;
}
