//! A Hoeffding tree for yes or no (VFDT: Domingos and Hulten, "Mining high-speed data streams", 2000),
//! with naive Bayes in each leaf where that has been right as often (Gama, Rocha and Medas 2003).
//!
//! A leaf is cut in two once the best cut by one input tells more than the second best, by more than
//! Hoeffding's bound. A row whose input at a cut is missing goes where most have gone.

use serde::{Deserialize, Serialize};

use super::bells::{Bells, Cut};
use super::model::{Classifier, known};
use super::state::Kept;

/// Below this bound the best two are as good as each other, and one of them is taken.
const TIE: f64 = 0.05;
/// A leaf with a greater share of one outcome is not cut.
const PURE: f64 = 0.99;
/// Nodes of the tree. Beyond: leaves go on learning, but are not cut.
const NODES_MAX: usize = 1023;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TreeClassifier {
    /// The root first.
    nodes: Vec<Node>,
    growth: Growth,
}

/// How readily it grows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// Rows between two tries to cut a leaf.
    pub grace: f64,
    /// One minus the certainty of a cut.
    pub delta: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Node {
    Leaf(Box<Leaf>),
    Branch { input: u32, value: f64, left: u32, right: u32, gone: [f64; 2] },
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Leaf {
    /// Rows by outcome: no, yes.
    rows: [f64; 2],
    /// By input.
    bells: Vec<Bells>,
    /// Rows of which the more frequent outcome, and naive Bayes, were right.
    most_right: f64,
    bayes_right: f64,
    /// Rows there were at the last try to cut it.
    tried_at: f64,
}

impl Leaf {
    fn seen(&self) -> f64 {
        self.rows.iter().sum()
    }

    fn share(&self) -> f64 {
        let [_, yes] = self.rows;
        if self.seen() > 0.0 { yes / self.seen() } else { 0.5 }
    }

    /// The probability by naive Bayes; inputs that an outcome has no distribution of say nothing of it.
    fn bayes(&self, row: &[f64]) -> f64 {
        let [no, yes] = [0, 1].map(|outcome| {
            let n = self.rows.get(outcome).copied().unwrap_or(0.0);
            if n <= 0.0 {
                return f64::NEG_INFINITY;
            }
            let inputs = self.bells.iter().zip(row);
            let densities = inputs.filter_map(|(bells, value)| bells.density(known(*value)?, outcome));
            (n / self.seen()).ln() + densities.sum::<f64>()
        });
        if no == yes { self.share() } else { 1.0 / (1.0 + (no - yes).exp()) }
    }

    fn says(&self, row: &[f64]) -> f64 {
        if self.bayes_right >= self.most_right { self.bayes(row) } else { self.share() }
    }

    fn learn(&mut self, row: &[f64], happened: bool, times: f64) {
        let right = |says: f64| if (says > 0.5) == happened { times } else { 0.0 };
        self.most_right += if self.seen() > 0.0 { right(self.share()) } else { times };
        if self.seen() > 0.0 {
            self.bayes_right += right(self.bayes(row));
        }
        let outcome = usize::from(happened);
        if let Some(rows) = self.rows.get_mut(outcome) {
            *rows += times;
        }
        if self.bells.len() < row.len() {
            self.bells.resize(row.len(), Bells::default());
        }
        for (bells, value) in self.bells.iter_mut().zip(row) {
            if let Some(value) = known(*value) {
                bells.add(value, outcome, times);
            }
        }
    }

    /// The input and the place at which it is to be cut now.
    fn attempt(&mut self, delta: f64) -> Option<(u32, Cut)> {
        self.tried_at = self.seen();
        let [no, yes] = self.rows;
        if no.min(yes) <= 0.0 {
            return None;
        }
        if no.max(yes) > PURE * self.seen() {
            // What it knows of its inputs is from before it was so pure.
            self.bells.clear();
            return None;
        }
        let (mut best, mut second) = (None::<(u32, Cut)>, f64::NEG_INFINITY);
        for (input, bells) in self.bells.iter().enumerate() {
            let Some(cut) = bells.best(self.rows) else { continue };
            match best {
                Some((_, best)) if cut.merit < best.merit => second = second.max(cut.merit),
                before => {
                    second = before.map_or(second, |(_, before)| before.merit);
                    best = Some((input as u32, cut));
                }
            }
        }
        let (input, cut) = best?;
        let bound = ((1.0 / delta).ln() / (2.0 * self.seen())).sqrt();
        (cut.merit - second > bound || bound < TIE).then_some((input, cut))
    }
}

impl Default for TreeClassifier {
    fn default() -> TreeClassifier {
        TreeClassifier::with(Growth { grace: 200.0, delta: 1e-7 })
    }
}

impl TreeClassifier {
    pub fn new() -> TreeClassifier {
        TreeClassifier::default()
    }

    pub fn with(growth: Growth) -> TreeClassifier {
        TreeClassifier { nodes: vec![Node::Leaf(Box::default())], growth }
    }

    pub fn leaves(&self) -> usize {
        self.nodes.len().div_ceil(2)
    }

    /// As `learn`, for a row that counts so many times.
    pub fn learn_times(&mut self, row: &[f64], happened: bool, times: f64) {
        let Growth { grace, delta } = self.growth;
        let (mut at, next) = (0, self.nodes.len() as u32);
        loop {
            match self.nodes.get_mut(at as usize) {
                Some(Node::Branch { input, value, left, right, gone }) => {
                    let is_right = is_right(row, *input, *value, *gone);
                    let [gone_left, gone_right] = gone;
                    *if is_right { gone_right } else { gone_left } += 1.0;
                    at = if is_right { *right } else { *left };
                }
                Some(Node::Leaf(leaf)) => {
                    leaf.learn(row, happened, times);
                    if leaf.seen() - leaf.tried_at < grace || next as usize + 2 > NODES_MAX {
                        return;
                    }
                    let Some((input, Cut { value, left, right, .. })) = leaf.attempt(delta) else { return };
                    let side = |rows: [f64; 2]| {
                        Node::Leaf(Box::new(Leaf { rows, tried_at: rows.iter().sum(), ..Leaf::default() }))
                    };
                    let gone = [left, right].map(|rows| rows.iter().sum());
                    if let Some(node) = self.nodes.get_mut(at as usize) {
                        *node = Node::Branch { input, value, left: next, right: next + 1, gone };
                    }
                    self.nodes.extend([left, right].map(side));
                    return;
                }
                None => return,
            }
        }
    }
}

/// Whether the row goes right.
fn is_right(row: &[f64], input: u32, value: f64, [left, right]: [f64; 2]) -> bool {
    match row.get(input as usize).copied().and_then(known) {
        Some(mine) => mine > value,
        None => left < right,
    }
}

impl Classifier for TreeClassifier {
    fn probability(&self, row: &[f64]) -> f64 {
        let mut at = 0;
        loop {
            match self.nodes.get(at as usize) {
                Some(Node::Branch { input, value, left, right, gone }) => {
                    at = if is_right(row, *input, *value, *gone) { *right } else { *left };
                }
                Some(Node::Leaf(leaf)) => return leaf.says(row),
                None => return 0.5,
            }
        }
    }

    fn learn(&mut self, row: &[f64], happened: bool) {
        self.learn_times(row, happened, 1.0);
    }
}

impl Kept for TreeClassifier {
    const VERSION: u8 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_no_line_can() {
        let mut tree = TreeClassifier::new();
        let row = |i: u32| [f64::from(i * 37 % 100) / 10.0, f64::from(i * 7 % 10)];
        let truth = |row: [f64; 2]| (3.0..6.0).contains(&row[0]);
        (0..4000).for_each(|i| tree.learn(&row(i), truth(row(i))));
        assert!(tree.leaves() > 2, "{}", tree.leaves());
        let wrong = (0..100).filter(|i| (tree.probability(&row(*i)) > 0.5) != truth(row(*i))).count();
        assert!(wrong <= 3, "{wrong}");
        assert_eq!(TreeClassifier::unpack(&tree.pack()).unwrap(), tree);
    }
}
