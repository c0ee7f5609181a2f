//! Trees as experts (`models`), where `models` names them: a Hoeffding tree with a line in each leaf,
//! and a forest of Mondrian trees, on the numbers that the lines take.
//!
//! They are large beside the lines, and what an outcome changes of them lies scattered; so they are
//! silent by default.

use serde::{Deserialize, Serialize};

use super::settings::{FOREST, Settings, TREE};
use crate::models::forest::ForestRegressor;
use crate::models::model::Regressor;
use crate::models::tree_regressor::TreeRegressor;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trees {
    tree: Option<TreeRegressor>,
    forest: Option<ForestRegressor>,
}

impl Trees {
    /// Those that are asked for, on so many numbers at most.
    pub fn new(settings: &Settings, inputs: usize) -> Trees {
        let on = |expert: usize| settings.active.get(expert) == Some(&true);
        Trees {
            tree: on(TREE).then(TreeRegressor::new),
            forest: on(FOREST).then(|| ForestRegressor::new(inputs, settings.seed)),
        }
    }

    /// The change that each expects; none of who is silent.
    pub fn predict(&self, x: &[f32]) -> [f64; 2] {
        if self.tree.is_none() && self.forest.is_none() {
            return [0.0; 2];
        }
        let row = row(x);
        let tree = self.tree.as_ref().map(|tree| tree.predict(&row));
        let forest = self.forest.as_ref().map(|forest| forest.predict(&row));
        [tree, forest].map(|says| says.unwrap_or(0.0))
    }

    pub fn learn(&mut self, x: &[f32], change: f64) {
        let Trees { tree, forest } = self;
        if tree.is_none() && forest.is_none() {
            return;
        }
        let row = row(x);
        tree.iter_mut().for_each(|tree| tree.learn(&row, change));
        forest.iter_mut().for_each(|forest| forest.learn(&row, change));
    }
}

fn row(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}
