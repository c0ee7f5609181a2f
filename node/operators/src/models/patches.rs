//! A forest of Hoeffding trees, each on some of the inputs and with each row counted by chance, none
//! or several times; trees that have begun to err more are replaced (Gomes, Read and Bifet, "Streaming
//! random patches for evolving data stream classification", 2019).
//!
//! A tree that warns gets another one grown behind it, which takes its place when the drift is sure.

use serde::{Deserialize, Serialize};

use super::adwin::{Adwin, Change};
use super::draw::Draws;
use super::model::Classifier;
use super::state::Kept;
use super::tree_classifier::{Growth, TreeClassifier};

const TREES: usize = 10;
/// The share of inputs that a tree sees.
const SHARE: f64 = 0.6;
/// How often a row counts, in the mean.
const TIMES: f64 = 6.0;
const GROWTH: Growth = Growth { grace: 50.0, delta: 0.01 };
const DRIFT: f64 = 1e-5;
const WARNING: f64 = 1e-4;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PatchesClassifier {
    inputs: usize,
    trees: Vec<Member>,
    draws: Draws,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Member {
    /// The inputs that it sees.
    inputs: Vec<u32>,
    tree: TreeClassifier,
    seen: f64,
    right: f64,
    drift: Adwin,
    warning: Adwin,
    behind: Option<Box<Member>>,
}

impl Member {
    fn new(inputs: usize, draws: &mut Draws) -> Member {
        let mut left: Vec<u32> = (0..inputs as u32).collect();
        let count = ((inputs as f64 * SHARE).round() as usize).clamp(1.min(inputs), inputs);
        let mut own: Vec<u32> = (0..count)
            .map(|_| {
                let place = (draws.part() * left.len() as f64) as usize;
                left.swap_remove(place.min(left.len() - 1))
            })
            .collect();
        own.sort_unstable();
        Member {
            inputs: own,
            tree: TreeClassifier::with(GROWTH),
            seen: 0.0,
            right: 0.0,
            drift: Adwin::new(DRIFT),
            warning: Adwin::new(WARNING),
            behind: None,
        }
    }

    fn row(&self, row: &[f64]) -> Vec<f64> {
        self.inputs.iter().map(|input| row.get(*input as usize).copied().unwrap_or(f64::NAN)).collect()
    }

    fn learn(&mut self, row: &[f64], happened: bool, inputs: usize, draws: &mut Draws) {
        let own = self.row(row);
        let right = (self.tree.probability(&own) > 0.5) == happened;
        self.seen += 1.0;
        self.right += f64::from(u8::from(right));
        let times = times(draws);
        if times > 0.0 {
            self.tree.learn_times(&own, happened, times);
        }
        if let Some(behind) = &mut self.behind {
            behind.learn(row, happened, inputs, draws);
        }
        let error = f64::from(u8::from(!right));
        let grew = |change: Option<Change>| change.is_some_and(|change| change.after > change.before);
        let (warns, drifts) = (grew(self.warning.learn(error)), grew(self.drift.learn(error)));
        if drifts {
            *self = match self.behind.take() {
                Some(behind) => *behind,
                None => Member::new(inputs, draws),
            };
        } else if warns && self.behind.is_none() {
            self.behind = Some(Box::new(Member::new(inputs, draws)));
        }
    }
}

/// By Poisson's law.
fn times(draws: &mut Draws) -> f64 {
    let (mut times, mut product) = (0.0, draws.part());
    let least = (-TIMES).exp();
    while product > least {
        times += 1.0;
        product *= draws.part();
    }
    times
}

impl PatchesClassifier {
    /// `inputs`: numbers of a row.
    pub fn new(inputs: usize, seed: u64) -> PatchesClassifier {
        let mut draws = Draws::new(seed, 0);
        let trees = (0..TREES).map(|_| Member::new(inputs, &mut draws)).collect();
        PatchesClassifier { inputs, trees, draws }
    }
}

impl Classifier for PatchesClassifier {
    fn probability(&self, row: &[f64]) -> f64 {
        let (mut sum, mut weights) = (0.0, 0.0);
        for tree in &self.trees {
            // One right of two, before any was seen.
            let weight = (tree.right + 1.0) / (tree.seen + 2.0);
            sum += weight * tree.tree.probability(&tree.row(row));
            weights += weight;
        }
        (sum / weights).clamp(0.0, 1.0)
    }

    fn learn(&mut self, row: &[f64], happened: bool) {
        let PatchesClassifier { inputs, trees, draws } = self;
        trees.iter_mut().for_each(|tree| tree.learn(row, happened, *inputs, draws));
    }
}

impl Kept for PatchesClassifier {
    const VERSION: u8 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_upside_down_is_learned_anew() {
        let mut forest = PatchesClassifier::new(3, 5);
        let mut draws = Draws::new(1, 1);
        let (mut right, mut turned) = (0, 0);
        for i in 0..6000 {
            let row = [draws.part(), draws.part(), draws.part()];
            let happened = (row[0] + row[1] > 1.0) != (i >= 3000);
            let hit = (forest.probability(&row) > 0.5) == happened;
            right += u32::from(hit && (2000..3000).contains(&i));
            turned += u32::from(hit && i >= 5000);
            forest.learn(&row, happened);
        }
        assert!(right > 850 && turned > 850, "{right} {turned}");
    }

    #[test]
    fn rows_count_as_often_as_they_should_in_the_mean() {
        let mut draws = Draws::new(3, 0);
        let sum: f64 = (0..10_000).map(|_| times(&mut draws)).sum();
        assert!((sum / 10_000.0 - TIMES).abs() < 0.1, "{sum}");
    }
}
