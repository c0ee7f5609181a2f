//! Where a leaf may be cut by one input: all values that were seen, each with what came at it or
//! below, in a binary search tree (E-BST: Ikonomovska, Gama and Džeroski, "Learning model trees from
//! evolving data streams", 2011). Values are rounded to a tenth, so that near ones share a place.

use serde::{Deserialize, Serialize};

use super::moments::Moments;

/// Values of one input at most. Beyond, new ones count where they lie but are no place to cut.
const VALUES_MAX: usize = 1024;
/// Rows that each side of a cut must have.
const SIDE_MIN: f64 = 5.0;
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cuts {
    /// The root first.
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Node {
    value: f64,
    /// Outcomes here and in the left branch.
    outcomes: Moments,
    left: u32,
    right: u32,
}

/// The best place to cut: rows with at most `value` go left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    /// By how much the variance of outcomes falls.
    pub merit: f64,
    pub value: f64,
    pub left: Moments,
    pub right: Moments,
}

/// What the last try to cut the leaf has shown; it failed.
#[derive(Debug, Clone, Copy)]
pub struct Try {
    pub best: f64,
    /// The second best merit over the best.
    pub ratio: f64,
    /// Hoeffding's bound.
    pub bound: f64,
}

impl Cuts {
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// `full`: no new values, only more of the old.
    pub fn add(&mut self, value: f64, outcome: f64, full: bool) {
        let value = rounded(value);
        let full = full || self.nodes.len() >= VALUES_MAX;
        let next = self.nodes.len() as u32;
        let mut at = if self.nodes.is_empty() { NONE } else { 0 };
        while let Some(node) = self.nodes.get_mut(at as usize) {
            if value <= node.value {
                node.outcomes.add(outcome, 1.0);
            }
            if value == node.value {
                return;
            }
            let branch = if value < node.value { &mut node.left } else { &mut node.right };
            at = *branch;
            if at == NONE && !full {
                *branch = next;
            }
        }
        if !full {
            let mut outcomes = Moments::default();
            outcomes.add(outcome, 1.0);
            self.nodes.push(Node { value, outcomes, left: NONE, right: NONE });
        }
    }

    /// The best cut of a leaf with these outcomes.
    pub fn best(&self, all: &Moments) -> Option<Cut> {
        enum Op {
            Descend(u32),
            Look(u32),
            Below(u32),
            Above(u32),
        }
        let (mut best, mut below) = (None::<Cut>, Moments::default());
        let mut ops = vec![Op::Descend(0)];
        while let Some(op) = ops.pop() {
            match op {
                Op::Descend(at) => {
                    let Some(node) = self.nodes.get(at as usize) else { continue };
                    if node.right != NONE {
                        ops.extend([Op::Above(at), Op::Descend(node.right), Op::Below(at)]);
                    }
                    ops.push(Op::Look(at));
                    if node.left != NONE {
                        ops.push(Op::Descend(node.left));
                    }
                }
                Op::Look(at) => {
                    let Some(cut) = self.cut(at, all, &below) else { continue };
                    if best.is_none_or(|best| cut.merit > best.merit) {
                        best = Some(cut);
                    }
                }
                Op::Below(at) => {
                    self.nodes.get(at as usize).into_iter().for_each(|node| below.join(&node.outcomes))
                }
                Op::Above(at) => {
                    self.nodes.get(at as usize).into_iter().for_each(|node| below.leave(&node.outcomes))
                }
            }
        }
        best
    }

    /// `below`: outcomes under the node's own branch.
    fn cut(&self, at: u32, all: &Moments, below: &Moments) -> Option<Cut> {
        let node = self.nodes.get(at as usize)?;
        let (mut left, mut right) = (node.outcomes, *all);
        left.join(below);
        right.leave(&left);
        let merit = if left.n >= SIDE_MIN && right.n >= SIDE_MIN {
            all.variance() - left.n / all.n * left.variance() - right.n / all.n * right.variance()
        } else {
            0.0
        };
        Some(Cut { merit, value: node.value, left, right })
    }

    /// Drops places that are much worse than the best: whole branches from below, as in the paper.
    pub fn prune(&mut self, all: &Moments, last: Try) {
        enum Phase {
            Left,
            Right,
            Own,
        }
        let mut below = Moments::default();
        // Node, the one above it, what comes next, whether it was joined to `below`.
        let mut stack = vec![(0u32, NONE, Phase::Left, false)];
        let (mut bad, mut pruned) = (false, false);
        while let Some((at, above, phase, joined)) = stack.last_mut() {
            let at = *at;
            let Some(node) = self.nodes.get(at as usize) else { return };
            match phase {
                Phase::Left => {
                    *phase = Phase::Right;
                    bad = true;
                    if node.left != NONE {
                        stack.push((node.left, at, Phase::Left, false));
                    }
                }
                Phase::Right if !bad => {
                    stack.pop();
                }
                Phase::Right => {
                    *phase = Phase::Own;
                    if node.right != NONE {
                        below.join(&node.outcomes);
                        *joined = true;
                        stack.push((node.right, at, Phase::Left, false));
                    }
                }
                Phase::Own => {
                    let above = *above;
                    if *joined {
                        below.leave(&node.outcomes);
                    }
                    stack.pop();
                    let worse = |cut: Cut| cut.merit / last.best < last.ratio - 2.0 * last.bound;
                    bad = bad && self.cut(at, all, &below).is_some_and(worse);
                    if bad {
                        self.drop(at, above);
                        pruned = true;
                    }
                }
            }
        }
        if pruned {
            self.gather();
        }
    }

    fn drop(&mut self, at: u32, above: u32) {
        match self.nodes.get_mut(above as usize) {
            Some(node) if node.left == at => node.left = NONE,
            Some(node) => node.right = NONE,
            None => self.nodes.clear(),
        }
    }

    /// Leaves out what nothing leads to any more.
    fn gather(&mut self) {
        let mut kept: Vec<Node> = Vec::new();
        // Where a node is now, and where the link to it stands: the one above, and which side.
        let mut open = vec![(0u32, NONE, false)];
        while let Some((at, above, right)) = open.pop() {
            let Some(node) = self.nodes.get(at as usize).cloned() else { continue };
            let place = kept.len() as u32;
            if let Some(above) = kept.get_mut(above as usize) {
                if right { above.right = place } else { above.left = place }
            }
            open.extend([(node.right, place, true), (node.left, place, false)]);
            kept.push(Node { left: NONE, right: NONE, ..node });
        }
        self.nodes = kept;
    }
}

/// To the nearest tenth; exactly between two, to the even one.
fn rounded(value: f64) -> f64 {
    let tenths = value * 10.0;
    if tenths.fract().abs() != 0.5 {
        return tenths.round_ties_even() / 10.0;
    }
    // What the product left out says on which side the value truly lies.
    match value.mul_add(10.0, -tenths) {
        rest if rest > 0.0 => tenths.ceil() / 10.0,
        rest if rest < 0.0 => tenths.floor() / 10.0,
        _ => tenths.round_ties_even() / 10.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: impl Iterator<Item = (f64, f64)> + Clone) -> (Cuts, Moments) {
        let (mut cuts, mut all) = (Cuts::default(), Moments::default());
        for (value, outcome) in rows {
            cuts.add(value, outcome, false);
            all.add(outcome, 1.0);
        }
        (cuts, all)
    }

    #[test]
    fn the_cut_lies_where_outcomes_change() {
        let rows = (0..400u32).map(|i| (f64::from(i * 37 % 100) / 10.0, i * 37 % 100));
        let (cuts, all) = of(rows.map(|(value, place)| (value, if place < 42 { 1.0 } else { 5.0 })));
        let cut = cuts.best(&all).unwrap();
        assert_eq!((cut.value, cut.left.n, cut.right.n), (4.1, 168.0, 232.0));
        assert!(cut.left.variance() < 1e-9 && (cut.right.mean - 5.0).abs() < 1e-9);
    }

    #[test]
    fn pruning_keeps_the_best_and_drops_the_rest() {
        let rows = (0..400u32).map(|i| (f64::from(i * 37 % 100) / 10.0, i * 37 % 100));
        let (mut cuts, all) = of(rows.map(|(value, place)| (value, if place < 42 { 1.0 } else { 5.0 })));
        let (best, before) = (cuts.best(&all).unwrap(), cuts.len());
        cuts.prune(&all, Try { best: best.merit, ratio: 0.9, bound: 0.1 });
        assert!(cuts.len() < before && cuts.best(&all).unwrap().value == best.value, "{}", cuts.len());
        cuts.prune(&all, Try { best: best.merit * 1e9, ratio: 0.9, bound: 0.1 });
        assert_eq!(cuts.len(), 0);
        cuts.add(1.0, 2.0, false);
        assert_eq!(cuts.len(), 1);
    }

    #[test]
    fn sorted_values_reach_the_bound_and_all_outcomes_still_count() {
        let (cuts, all) = of((0..5000u32).map(|i| (f64::from(i), f64::from(i % 2))));
        assert_eq!(cuts.len(), VALUES_MAX);
        let cut = cuts.best(&all).unwrap();
        assert_eq!(cut.left.n + cut.right.n, 5000.0);
    }

    #[test]
    fn rounding_is_that_of_the_decimal_digits() {
        for i in -4000i32..4000 {
            let value = f64::from(i) * 0.05 + f64::from(i % 7) * 0.001;
            let digits: f64 = format!("{value:.1}").parse().unwrap();
            assert_eq!(rounded(value), digits, "{value}");
        }
        assert_eq!((rounded(0.25), rounded(0.75), rounded(0.35)), (0.2, 0.8, 0.3));
    }
}
