//! A Hoeffding tree for numbers (Domingos and Hulten 2000; regression after FIMT: Ikonomovska, Gama and
//! Džeroski 2011), with a mean and a line in each leaf.
//!
//! A leaf is cut in two once the best cut by one input is better than the second best by more than
//! Hoeffding's bound. It answers by whichever of its mean and its line has erred less of late. A row
//! whose input at a cut is missing goes where most have gone.

use serde::{Deserialize, Serialize};

use super::cuts::{Cut, Cuts, Try};
use super::linear::Linear;
use super::model::{Regressor, known};
use super::moments::Moments;
use super::state::Kept;

/// Rows between two tries to cut a leaf.
const GRACE: f64 = 200.0;
/// One minus the certainty of a cut.
const DELTA: f64 = 1e-7;
/// Below this bound the best two are as good as each other, and one of them is taken.
const TIE: f64 = 0.05;
/// What a squared error counts one row later.
const DECAY: f64 = 0.95;
/// Nodes of the tree, and values that its leaves remember in all. Beyond: leaves go on learning their
/// mean and line, but are not cut; and learn no new places to cut.
const NODES_MAX: usize = 1023;
const VALUES_MAX: usize = 1 << 16;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TreeRegressor {
    /// The root first.
    nodes: Vec<Node>,
    /// Values that the leaves remember.
    values: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Node {
    Leaf(Box<Leaf>),
    Branch(Branch),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Branch {
    input: u32,
    value: f64,
    left: u32,
    right: u32,
    /// Rows that have gone left and right.
    gone: [f64; 2],
}

impl Branch {
    fn is_right(&self, row: &[f64]) -> bool {
        match row.get(self.input as usize).copied().and_then(known) {
            Some(value) => value > self.value,
            None => {
                let [left, right] = self.gone;
                left < right
            }
        }
    }

    fn next(&self, row: &[f64]) -> u32 {
        if self.is_right(row) { self.right } else { self.left }
    }

    /// The same, for a row that is learned.
    fn take(&mut self, row: &[f64]) -> u32 {
        let is_right = self.is_right(row);
        let [left, right] = &mut self.gone;
        *if is_right { right } else { left } += 1.0;
        if is_right { self.right } else { self.left }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Leaf {
    outcomes: Moments,
    /// By input.
    cuts: Vec<Cuts>,
    line: Linear,
    /// Squared errors of late, of the mean and of the line.
    mean_errors: f64,
    line_errors: f64,
    /// Rows there were at the last try to cut it.
    tried_at: f64,
}

impl Leaf {
    fn says(&self, row: &[f64]) -> f64 {
        if self.mean_errors < self.line_errors { self.outcomes.mean } else { self.line.predict(row) }
    }

    /// Gives the values that it remembers more than before.
    fn learn(&mut self, row: &[f64], outcome: f64, full: bool) -> usize {
        let error = |says: f64| (outcome - says) * (outcome - says);
        self.mean_errors = DECAY * self.mean_errors + error(self.outcomes.mean);
        self.line_errors = DECAY * self.line_errors + error(self.line.predict(row)).min(f64::MAX / 100.0);
        self.outcomes.add(outcome, 1.0);
        if self.cuts.len() < row.len() {
            self.cuts.resize(row.len(), Cuts::default());
        }
        let mut more = 0;
        for (cuts, value) in self.cuts.iter_mut().zip(row) {
            let Some(value) = known(*value) else { continue };
            let before = cuts.len();
            cuts.add(value, outcome, full);
            more += cuts.len() - before;
        }
        self.line.learn(row, outcome);
        more
    }

    fn values(&self) -> usize {
        self.cuts.iter().map(Cuts::len).sum()
    }

    /// The input and the place at which it is to be cut now.
    fn attempt(&mut self) -> Option<(u32, Cut)> {
        self.tried_at = self.outcomes.n;
        // A later one wins among equals.
        let (mut best, mut second) = (None::<(u32, Cut)>, f64::NEG_INFINITY);
        for (input, cuts) in self.cuts.iter().enumerate() {
            let Some(cut) = cuts.best(&self.outcomes) else { continue };
            match best {
                Some((_, best)) if cut.merit < best.merit => second = second.max(cut.merit),
                before => {
                    second = before.map_or(second, |(_, before)| before.merit);
                    best = Some((input as u32, cut));
                }
            }
        }
        let (input, cut) = best.filter(|(_, cut)| cut.merit > 0.0)?;
        let bound = ((1.0 / DELTA).ln() / (2.0 * self.outcomes.n)).sqrt();
        let ratio = second / cut.merit;
        if ratio < 1.0 - bound || bound < TIE {
            return Some((input, cut));
        }
        if second > 0.0 {
            let last = Try { best: cut.merit, ratio, bound };
            self.cuts.iter_mut().for_each(|cuts| cuts.prune(&self.outcomes, last));
        }
        None
    }

    /// What takes the place of one side of it.
    fn side(&self, outcomes: Moments) -> Node {
        Node::Leaf(Box::new(Leaf {
            outcomes,
            cuts: Vec::new(),
            line: self.line.clone(),
            mean_errors: self.mean_errors,
            line_errors: self.line_errors,
            tried_at: outcomes.n,
        }))
    }
}

impl Default for TreeRegressor {
    fn default() -> TreeRegressor {
        TreeRegressor { nodes: vec![Node::Leaf(Box::default())], values: 0 }
    }
}

impl TreeRegressor {
    pub fn new() -> TreeRegressor {
        TreeRegressor::default()
    }

    pub fn leaves(&self) -> usize {
        self.nodes.len().div_ceil(2)
    }
}

impl Regressor for TreeRegressor {
    fn predict(&self, row: &[f64]) -> f64 {
        let mut at = 0;
        loop {
            match self.nodes.get(at as usize) {
                Some(Node::Branch(branch)) => at = branch.next(row),
                Some(Node::Leaf(leaf)) => return leaf.says(row),
                None => return 0.0,
            }
        }
    }

    fn learn(&mut self, row: &[f64], outcome: f64) {
        let Some(outcome) = known(outcome) else { return };
        let (mut at, next) = (0, self.nodes.len() as u32);
        let full = self.values >= VALUES_MAX;
        loop {
            match self.nodes.get_mut(at as usize) {
                Some(Node::Branch(branch)) => {
                    at = branch.take(row);
                }
                Some(Node::Leaf(leaf)) => {
                    self.values += leaf.learn(row, outcome, full);
                    if leaf.outcomes.n - leaf.tried_at < GRACE || next as usize + 2 > NODES_MAX {
                        return;
                    }
                    let before = leaf.values();
                    let cut = leaf.attempt();
                    self.values -= before - leaf.values();
                    let Some((input, Cut { value, left, right, .. })) = cut else { return };
                    self.values -= leaf.values();
                    let sides = [left, right].map(|outcomes| leaf.side(outcomes));
                    let gone = [left.n, right.n];
                    let branch = Branch { input, value, left: next, right: next + 1, gone };
                    if let Some(node) = self.nodes.get_mut(at as usize) {
                        *node = Node::Branch(branch);
                    }
                    self.nodes.extend(sides);
                    return;
                }
                None => return,
            }
        }
    }
}

impl Kept for TreeRegressor {
    const VERSION: u8 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_step_that_no_line_can() {
        let mut tree = TreeRegressor::new();
        let row = |i: u32| [f64::from(i * 37 % 100) / 10.0, f64::from(i * 7 % 10)];
        let truth = |row: [f64; 2]| if row[0] > 4.0 { 10.0 } else { -10.0 };
        (0..4000).for_each(|i| tree.learn(&row(i), truth(row(i))));
        assert!(tree.leaves() > 1);
        let wrong = (4000..4100).filter(|i| (tree.predict(&row(*i)) - truth(row(*i))).abs() > 1.0).count();
        assert!(wrong <= 3, "{wrong}");
        assert_eq!(TreeRegressor::unpack(&tree.pack()).unwrap(), tree);
        let heavier = tree.predict(&[f64::NAN, 1.0]);
        assert!((heavier.abs() - 10.0).abs() < 1.0, "{heavier}");
    }
}
