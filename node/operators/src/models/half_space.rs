//! How strange a row is: how few rows have lately lain where it lies (half-space trees: Tan, Ting and
//! Liu, "Fast anomaly detection for streaming data", 2011).
//!
//! Each tree halves a box of space again and again, along inputs that are drawn before any row is
//! seen, and counts rows in each half, window by window: rows are judged by the window before. Inputs
//! are laid into the box by their running mean and deviation. Unlike the paper, trees are averaged by
//! the logarithm of what they count, so that a tree that has cut off a row weighs more than one that
//! has never looked at the input by which it is strange.

use serde::{Deserialize, Serialize};

use super::draw::Draws;
use super::model::known;
use super::standard::Standard;
use super::state::Kept;

const TREES: usize = 25;
/// Halvings from the root to a leaf.
const DEPTH: usize = 8;
/// Rows of a window, as the paper has it.
pub const WINDOW: u32 = 250;
/// A node with fewer than one row in so many of the window before is not looked below.
const FEW: u32 = 10;
/// Inputs at most. Those beyond are not looked at.
pub const INPUTS_MAX: usize = 32;
/// Windows whose mean and deviation lay rows into the box.
const REMEMBERED: f64 = 8.0;
/// Deviations from the mean at which the box ends. What lies beyond lies at its wall.
const REACH: f64 = 4.0;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct HalfSpaceTrees {
    inputs: u32,
    window: u32,
    seed: u64,
    standard: Standard,
    trees: Vec<Tree>,
    /// Rows of this window so far, and windows that are full.
    rows: u32,
    windows: u32,
}

/// What is kept: where trees cut follows from the seed.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    inputs: u32,
    window: u32,
    seed: u64,
    standard: Standard,
    /// By tree and node; those of this window are left out where it has no rows yet.
    before: Vec<Vec<u32>>,
    now: Vec<Vec<u32>>,
    rows: u32,
    windows: u32,
}

impl From<HalfSpaceTrees> for Stored {
    fn from(model: HalfSpaceTrees) -> Stored {
        let HalfSpaceTrees { inputs, window, seed, standard, trees, rows, windows } = model;
        let (before, now) = trees.into_iter().map(|tree| (tree.before, tree.now)).unzip();
        let now = if rows == 0 { Vec::new() } else { now };
        Stored { inputs, window, seed, standard, before, now, rows, windows }
    }
}

impl From<Stored> for HalfSpaceTrees {
    fn from(stored: Stored) -> HalfSpaceTrees {
        let Stored { inputs, window, seed, standard, before, now, rows, windows } = stored;
        let mut model = HalfSpaceTrees::new(inputs as usize, window, seed);
        for (tree, before) in model.trees.iter_mut().zip(before) {
            tree.before = before;
        }
        for (tree, now) in model.trees.iter_mut().zip(now) {
            tree.now = now;
        }
        HalfSpaceTrees { standard, rows, windows, ..model }
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Tree {
    /// Where each inner node is cut; the children of node i are 2 i + 1 and 2 i + 2.
    cuts: Vec<Cut>,
    /// Rows of the window before, and of this one, by node.
    before: Vec<u32>,
    now: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Cut {
    input: u32,
    value: f64,
}

impl Tree {
    fn new(inputs: usize, draws: &mut Draws) -> Tree {
        let nodes = (1 << (DEPTH + 1)) - 1;
        let mut tree = Tree { cuts: Vec::new(), before: vec![0; nodes], now: vec![0; nodes] };
        // A box around a middle of its own in each input, so that trees cut at different places.
        let space: Vec<[f64; 2]> = (0..inputs)
            .map(|_| {
                let middle = (2.0 * draws.part() - 1.0) * REACH / 3.0;
                let half = (middle - REACH).abs().max((middle + REACH).abs());
                [middle - half, middle + half]
            })
            .collect();
        // Level by level; each node's box is halved along an input that is drawn.
        let mut level = vec![space];
        for _ in 0..DEPTH {
            let mut below = Vec::with_capacity(2 * level.len());
            for space in level {
                let input = (draws.part() * inputs as f64) as usize;
                let [from, to] = space.get(input).copied().unwrap_or_default();
                let value = f64::midpoint(from, to);
                tree.cuts.push(Cut { input: input as u32, value });
                let half = |bounds| {
                    let mut half = space.clone();
                    half.get_mut(input).into_iter().for_each(|place| *place = bounds);
                    half
                };
                below.extend([half([from, value]), half([value, to])]);
            }
            level = below;
        }
        tree
    }

    /// The nodes from the root to the row's leaf.
    fn path<'a>(&'a self, row: &'a [f64]) -> impl Iterator<Item = usize> + 'a {
        let next = |at: &usize| {
            let Cut { input, value } = self.cuts.get(*at)?;
            let right = match row.get(*input as usize) {
                Some(x) if !x.is_nan() => x >= value,
                // A missing input goes where most have gone.
                _ => self.now.get(2 * at + 1) < self.now.get(2 * at + 2),
            };
            Some(2 * at + 1 + usize::from(right))
        };
        core::iter::successors(Some(0), next)
    }
}

impl HalfSpaceTrees {
    /// `inputs`: numbers of a row; `window`: rows after which the next ones are judged by these.
    pub fn new(inputs: usize, window: u32, seed: u64) -> HalfSpaceTrees {
        let inputs = inputs.min(INPUTS_MAX);
        let mut draws = Draws::new(seed, 2);
        let trees = (0..TREES).map(|_| Tree::new(inputs, &mut draws)).collect();
        let (standard, window) = (Standard::default(), window.max(1));
        HalfSpaceTrees { inputs: inputs as u32, window, seed, standard, trees, rows: 0, windows: 0 }
    }

    /// Whether a window is full, so that rows can be judged.
    pub fn judges(&self) -> bool {
        self.windows > 0
    }

    /// Whether a window has just begun: then it takes the least room to be kept.
    pub fn begins(&self) -> bool {
        self.rows == 0
    }

    fn place(&self, row: &[f64]) -> Vec<f64> {
        let row: Vec<f64> = row.iter().map(|value| known(*value).unwrap_or(f64::NAN)).collect();
        self.standard.of(&row).into_iter().map(|value| value.clamp(-REACH, REACH)).collect()
    }

    /// From 0, where most rows lie, to 1, where none does; 0 until a window is full.
    pub fn score(&self, row: &[f64]) -> f64 {
        if self.windows == 0 {
            return 0.0;
        }
        let row = self.place(row);
        let mut sum = 0.0;
        for tree in &self.trees {
            let mut size = 1.0;
            let mut mass = 0.0;
            for at in tree.path(&row) {
                let rows = tree.before.get(at).copied().unwrap_or(0);
                // As if all space were as full as this half.
                mass = f64::from(rows) * size;
                size *= 2.0;
                if rows < self.window / FEW {
                    break;
                }
            }
            sum += (1.0 + mass).ln();
        }
        // A row in a leaf with a tenth of the window's rows counts as common as can be.
        let most = f64::from(self.window) * f64::from(1u32 << DEPTH) / 10.0;
        1.0 - (sum / self.trees.len().max(1) as f64 / (1.0 + most).ln()).min(1.0)
    }

    pub fn learn(&mut self, row: &[f64]) {
        let memory = f64::from(self.window) * REMEMBERED;
        self.standard.learn_within(row, 2.0 * REACH, memory);
        let row = self.place(row);
        for tree in &mut self.trees {
            let path: Vec<usize> = tree.path(&row).collect();
            for at in path {
                tree.now.get_mut(at).into_iter().for_each(|rows| *rows += 1);
            }
        }
        self.rows += 1;
        if self.rows >= self.window {
            for tree in &mut self.trees {
                core::mem::swap(&mut tree.before, &mut tree.now);
                tree.now.fill(0);
            }
            self.rows = 0;
            self.windows = self.windows.saturating_add(1);
        }
    }
}

impl Kept for HalfSpaceTrees {
    const VERSION: u8 = 2;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(draws: &mut Draws) -> [f64; 3] {
        let near = |draws: &mut Draws| (0..6).map(|_| draws.part()).sum::<f64>() - 3.0;
        [10.0 + near(draws), 1e6 * near(draws), near(draws) - 4.0]
    }

    #[test]
    fn a_row_far_from_all_others_is_strange() {
        let (mut trees, mut draws) = (HalfSpaceTrees::new(3, WINDOW, 1), Draws::new(6, 6));
        for _ in 0..2000 {
            trees.learn(&common(&mut draws));
        }
        let usual: Vec<f64> = (0..500).map(|_| trees.score(&common(&mut draws))).collect();
        // Eight deviations away in one input, as usual in the others.
        let far = |input: usize, draws: &mut Draws| {
            let mut row = common(draws);
            row[input] += [6.0, -6e6, 6.0][input];
            trees.score(&row)
        };
        for input in 0..3 {
            let strange: Vec<f64> = (0..200).map(|_| far(input, &mut draws)).collect();
            let above = |score: &f64| usual.iter().filter(|other| score > other).count();
            let auc = strange.iter().map(above).sum::<usize>() as f64 / (200.0 * 500.0);
            assert!(auc > 0.9, "{auc} by input {input}");
        }
        let everywhere = trees.score(&[1e90, -1e90, 1e90]);
        assert!(usual.iter().all(|score| *score < everywhere), "{everywhere}");
        assert!((0.0..=1.0).contains(&trees.score(&[f64::NAN, 1.0])));
        assert_eq!(HalfSpaceTrees::unpack(&trees.pack()).unwrap(), trees);
    }

    #[test]
    fn nothing_is_strange_before_a_window_is_full() {
        let mut trees = HalfSpaceTrees::new(1, WINDOW, 1);
        (0..100).for_each(|i| trees.learn(&[f64::from(i % 3)]));
        assert_eq!(trees.score(&[1e9]), 0.0);
    }
}
