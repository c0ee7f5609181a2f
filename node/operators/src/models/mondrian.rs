//! One tree of a forest (`forest`): a Mondrian process grown as rows come, with every pruning of the
//! tree weighed by how well it has predicted (AMF: Mourtada, Gaïffas and Scornet, "AMF: Aggregated
//! Mondrian forests for online learning", 2021).
//!
//! A node holds the box of its rows. A row outside of a node's box may cut it: after a time that is
//! drawn by how far outside it lies, along an input that is drawn by how far outside it is in that.
//! Each node predicts by its own rows; the tree predicts by the exact mean over all prunings.

use serde::{Deserialize, Serialize};

use super::draw::Draws;

/// Nodes of a tree. Beyond: they go on learning, but are not cut.
const NODES_MAX: usize = 1023;
/// Rows that each outcome counts for before any came.
const PRIOR: f64 = 0.5;
const NONE: u32 = u32::MAX;

/// What is predicted, and so by which loss prunings are weighed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Task {
    /// A mean, in squares of this unit.
    Number { unit: f64 },
    /// The share of ones among zeros and ones, in nats.
    Chance,
}

impl Task {
    /// What a node expects that has seen so many rows with this mean.
    fn expects(self, n: f64, mean: f64) -> f64 {
        match self {
            Task::Number { .. } => mean,
            Task::Chance => (n * mean + PRIOR) / (n + 2.0 * PRIOR),
        }
    }

    fn loss(self, expects: f64, outcome: f64) -> f64 {
        match self {
            Task::Number { unit } if unit > 0.0 => {
                let error = ((expects - outcome) / unit).clamp(-1e3, 1e3);
                error * error / 2.0
            }
            Task::Number { .. } => 0.0,
            Task::Chance => -if outcome > 0.5 { expects } else { 1.0 - expects }.ln(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mondrian {
    inputs: usize,
    /// The root first.
    nodes: Vec<Node>,
    /// The boxes' least and greatest values, node by node, input by input; missing where none was seen.
    least: Vec<f64>,
    greatest: Vec<f64>,
    draws: Draws,
    #[serde(skip)]
    path: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Node {
    /// Of a leaf: none.
    left: u32,
    right: u32,
    input: u32,
    value: f64,
    /// When the node was cut off from the one above.
    time: f64,
    n: f64,
    mean: f64,
    /// The logarithms of its own weight, and of that of all prunings below.
    weight: f64,
    below: f64,
}

impl Node {
    fn leaf(time: f64) -> Node {
        Node {
            left: NONE,
            right: NONE,
            input: 0,
            value: 0.0,
            time,
            n: 0.0,
            mean: 0.0,
            weight: 0.0,
            below: 0.0,
        }
    }

    fn is_leaf(&self) -> bool {
        self.left == NONE
    }
}

/// Where a node is cut.
struct Cut {
    time: f64,
    input: u32,
    value: f64,
    /// The row that cuts it lies on the right.
    right: bool,
}

impl Mondrian {
    pub fn new(inputs: usize, draws: Draws) -> Mondrian {
        let boxes = vec![f64::NAN; inputs];
        Mondrian {
            inputs,
            nodes: vec![Node::leaf(0.0)],
            least: boxes.clone(),
            greatest: boxes,
            draws,
            path: Vec::new(),
        }
    }

    /// `row`: as long as the tree's, NaN where missing.
    pub fn predict(&self, row: &[f64], task: Task) -> f64 {
        // Downwards, with the share that each node leaves to those below.
        let (mut at, mut left, mut sum) = (0, 1.0, 0.0);
        while let Some(node) = self.nodes.get(at as usize) {
            let expects = task.expects(node.n, node.mean);
            if node.is_leaf() {
                return sum + left * expects;
            }
            let own = 0.5 * (node.weight - node.below).exp().clamp(0.0, 2.0);
            sum += left * own * expects;
            left *= 1.0 - own;
            at = self.next(node, row);
        }
        sum
    }

    /// `scale`: what a step in each input is measured by; zero for one that does not count.
    pub fn learn(&mut self, row: &[f64], outcome: f64, scale: &[f64], task: Task) {
        let mut path = core::mem::take(&mut self.path);
        path.clear();
        let mut at = 0;
        loop {
            path.push(at);
            let cut = self.cut(at, row, outcome, scale, task);
            let is_cut = cut.is_some();
            let other = cut.map(|cut| self.split(at, &cut));
            self.update(at, row, outcome, task, true);
            if let Some(other) = other {
                // The leaf of the row that has cut it off.
                path.push(other);
                self.update(other, row, outcome, task, false);
            }
            match self.nodes.get(at as usize) {
                Some(node) if !is_cut && !node.is_leaf() => at = self.next(node, row),
                _ => break,
            }
        }
        while let Some(at) = path.pop() {
            let of = |child: u32| self.nodes.get(child as usize).map_or(0.0, |node| node.below);
            let Some(node) = self.nodes.get(at as usize) else { continue };
            let below = if node.is_leaf() {
                node.weight
            } else {
                mean_of_exponents(node.weight, of(node.left) + of(node.right))
            };
            if let Some(node) = self.nodes.get_mut(at as usize) {
                node.below = below;
            }
        }
        self.path = path;
    }

    fn next(&self, node: &Node, row: &[f64]) -> u32 {
        let value = row.get(node.input as usize).copied().unwrap_or(f64::NAN);
        let n = |child: u32| self.nodes.get(child as usize).map_or(0.0, |node| node.n);
        let right = if value.is_nan() { n(node.left) < n(node.right) } else { value > node.value };
        if right { node.right } else { node.left }
    }

    fn bounds(&self, at: u32) -> (&[f64], &[f64]) {
        let from = at as usize * self.inputs;
        let of =
            |bounds: &'_ [f64]| -> core::ops::Range<usize> { from..(from + self.inputs).min(bounds.len()) };
        (self.least.get(of(&self.least)).unwrap_or(&[]), self.greatest.get(of(&self.greatest)).unwrap_or(&[]))
    }

    /// Whether the row cuts this node, and where.
    fn cut(&mut self, at: u32, row: &[f64], outcome: f64, scale: &[f64], task: Task) -> Option<Cut> {
        let node = self.nodes.get(at as usize)?;
        if node.n == 0.0 || self.nodes.len() + 2 > NODES_MAX {
            return None;
        }
        let (time, below) = (node.time, self.nodes.get(node.left as usize).map(|left| left.time));
        // What is all alike needs no cut.
        if node.mean == outcome && below.is_none() && matches!(task, Task::Number { .. }) {
            return None;
        }
        let (least, greatest) = self.bounds(at);
        let outside = |((row, scale), (least, greatest)): ((&f64, &f64), (&f64, &f64))| {
            let by = if row > greatest {
                row - greatest
            } else if row < least {
                least - row
            } else {
                0.0
            };
            if *scale > 0.0 { (by / scale).min(1e6) } else { 0.0 }
        };
        let each = || row.iter().zip(scale).zip(least.iter().zip(greatest)).map(outside);
        let sum: f64 = each().sum();
        if sum <= 0.0 {
            return None;
        }
        let mut draws = self.draws;
        let time = time - (1.0 - draws.part()).ln() / sum;
        if below.is_some_and(|below| time >= below) {
            self.draws = draws;
            return None;
        }
        let (mut rest, mut input) = (draws.part() * sum, None);
        for (place, by) in each().enumerate().filter(|(_, by)| *by > 0.0) {
            input = Some(place);
            rest -= by;
            if rest < 0.0 {
                break;
            }
        }
        let input = input?;
        let value = *row.get(input)?;
        let (least, greatest) = (*least.get(input)?, *greatest.get(input)?);
        let (right, from, to) =
            if value > greatest { (true, greatest, value) } else { (false, value, least) };
        let mut cut = from + (to - from) * draws.part();
        if cut >= to {
            cut = from;
        }
        self.draws = draws;
        Some(Cut { time, input: input as u32, value: cut, right })
    }

    /// Puts what the node was below it, beside a new leaf. Gives the leaf.
    fn split(&mut self, at: u32, cut: &Cut) -> u32 {
        let first = self.nodes.len() as u32;
        let Some(node) = self.nodes.get_mut(at as usize) else { return at };
        let was = Node { time: cut.time, ..node.clone() };
        (node.input, node.value) = (cut.input, cut.value);
        let (kept, new) = (first, first + 1);
        (node.left, node.right) = if cut.right { (kept, new) } else { (new, kept) };
        self.nodes.extend([was, Node::leaf(cut.time)]);
        let from = at as usize * self.inputs;
        for bounds in [&mut self.least, &mut self.greatest] {
            bounds.extend_from_within(from..from + self.inputs);
            bounds.resize(bounds.len() + self.inputs, f64::NAN);
        }
        new
    }

    fn update(&mut self, at: u32, row: &[f64], outcome: f64, task: Task, weigh: bool) {
        let from = at as usize * self.inputs;
        for ((least, greatest), value) in
            self.least.iter_mut().zip(&mut self.greatest).skip(from).take(self.inputs).zip(row)
        {
            // The least of a number and none is the number.
            *least = least.min(*value);
            *greatest = greatest.max(*value);
        }
        let Some(node) = self.nodes.get_mut(at as usize) else { return };
        if weigh && node.n > 0.0 {
            node.weight -= task.loss(task.expects(node.n, node.mean), outcome);
        }
        node.n += 1.0;
        node.mean += (outcome - node.mean) / node.n;
    }
}

/// ln((e^a + e^b) / 2).
fn mean_of_exponents(a: f64, b: f64) -> f64 {
    a.max(b) + (-(a - b).abs()).exp().ln_1p() - core::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_over_prunings_is_exact() {
        let mut tree = Mondrian::new(2, Draws::new(3, 0));
        for i in 0..40u32 {
            let row = [f64::from(i * 37 % 100) / 100.0, f64::from(i * 7 % 10) / 10.0];
            tree.learn(&row, f64::from(u8::from(row[0] > 0.5)), &[1.0, 1.0], Task::Chance);
        }
        // All prunings above the row's leaf, each by its own weight times that of all beside the path.
        let row = [0.3, 0.8];
        let (mut at, mut prior, mut beside) = (0u32, 1.0f64, 0.0);
        let (mut weights, mut sum) = (0.0, 0.0);
        loop {
            let node = &tree.nodes[at as usize];
            let stop = if node.is_leaf() { prior } else { prior / 2.0 };
            let weight = stop * (node.weight + beside).exp();
            weights += weight;
            sum += weight * Task::Chance.expects(node.n, node.mean);
            if node.is_leaf() {
                break;
            }
            prior /= 2.0;
            let next = tree.next(node, &row);
            let other = if next == node.left { node.right } else { node.left };
            beside += tree.nodes[other as usize].below;
            at = next;
        }
        assert!((tree.predict(&row, Task::Chance) - sum / weights).abs() < 1e-9);
        assert!((weights.ln() - tree.nodes[0].below).abs() < 1e-9);
    }

    #[test]
    fn boxes_hold_their_rows_and_children_lie_on_their_sides() {
        let mut tree = Mondrian::new(3, Draws::new(9, 1));
        for i in 0..2000u64 {
            let row = [i * 37 % 101, i * 11 % 13, i * i % 17].map(|x| x as f64);
            tree.learn(&row, row[0] - row[1], &[100.0, 13.0, 17.0], Task::Number { unit: 30.0 });
        }
        assert!(tree.nodes.len() > 100 && tree.nodes.len() <= NODES_MAX);
        for (at, node) in tree.nodes.iter().enumerate().filter(|(_, node)| !node.is_leaf()) {
            let input = node.input as usize;
            assert!(tree.bounds(node.left).1[input] <= node.value, "{at}");
            assert!(tree.bounds(node.right).0[input] > node.value, "{at}");
            assert_eq!(node.n, tree.nodes[node.left as usize].n + tree.nodes[node.right as usize].n);
            assert!(tree.nodes[node.left as usize].time >= node.time);
        }
    }
}
