//! Recursive least squares for many horizons at once, with forgetting.
//!
//! The gain depends on the inputs alone, so one covariance and one gain per origin serve all
//! horizons: the gain is computed when the origin is made, waits with it, and is applied to each
//! horizon's coefficients when that horizon's outcome comes. That is the same recursion, to the last
//! step, as one least squares per horizon whose labels come late, at O(d² + H d) per event.
//!
//! Where inputs stay silent, forgetting would let the covariance grow without bound (wind-up). So
//! each step also gives one coefficient, in turn, a little certainty of its own (regularised
//! forgetting: Gunnarsson, "Combining tracking and regularization in recursive least squares
//! identification", 1996), and the trace is held under that of the prior. Innovations are clipped.

use serde::{Deserialize, Serialize};

/// Variance of a coefficient before anything is known: the inverse of the ridge.
const PRIOR: f64 = 0.1;
/// Rows' worth of certainty that each coefficient keeps, whatever is forgotten.
const CERTAIN: f64 = 100.0;
/// Innovations are clipped at so many times their running mean size.
const CLIP: f64 = 8.0;
/// Outcomes until the clip begins, and how many its size remembers.
const CLIP_AFTER: u64 = 20;
const CLIP_MEMORY: u64 = 500;
/// Coefficients beyond this have diverged: the horizon's begin anew.
const WEIGHT_MAX: f64 = 1e4;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rls {
    forget: f64,
    /// Symmetric: row by row up to the diagonal.
    covariance: Vec<f64>,
    horizons: Vec<Coefficients>,
    inputs: usize,
    steps: u64,
    #[serde(skip)]
    column: Vec<f64>,
}

/// Those of one horizon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Coefficients {
    weights: Vec<f64>,
    /// Running mean size of the innovation.
    size: f64,
    seen: u64,
}

impl Rls {
    /// `memory`: rows after which a row's weight has fallen to about a third.
    pub fn new(memory: f64, inputs: usize, horizons: usize) -> Rls {
        let blank = Coefficients { weights: vec![0.0; inputs], size: 0.0, seen: 0 };
        Rls {
            forget: 1.0 - 1.0 / memory,
            covariance: prior(inputs),
            horizons: vec![blank; horizons],
            inputs,
            steps: 0,
            column: Vec::new(),
        }
    }

    /// Numbers that a row has.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// What each horizon expects. What a row has beyond the line's inputs does not count.
    pub fn predict<'a>(&'a self, x: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        self.horizons.iter().map(|horizon| dot(&horizon.weights, x))
    }

    /// A horizon's coefficients.
    pub fn weights(&self, horizon: usize) -> &[f64] {
        self.horizons.get(horizon).map_or(&[], |horizon| &horizon.weights)
    }

    /// Takes a new origin's inputs in; the gain waits with the origin for its outcomes.
    pub fn gain(&mut self, x: &[f64]) -> Vec<f64> {
        let mut gain = vec![0.0; self.inputs];
        self.times(x, &mut gain);
        let spread = dot(&gain, x).max(0.0);
        let scale = 1.0 / (self.forget + spread);
        self.downdate(&gain, scale, 1.0 / self.forget);
        gain.iter_mut().for_each(|gain| *gain *= scale);
        self.hold();
        gain
    }

    /// One horizon's outcome for the origin with these inputs and this gain.
    pub fn learn(&mut self, horizon: usize, x: &[f64], gain: &[f64], outcome: f64) {
        let Some(Coefficients { weights, size, seen }) = self.horizons.get_mut(horizon) else { return };
        let error = outcome - dot(weights, x);
        if !error.is_finite() {
            return;
        }
        *seen += 1;
        let bound = if *seen > CLIP_AFTER { CLIP * *size } else { f64::INFINITY };
        let error = error.clamp(-bound, bound);
        *size += (error.abs() - *size) / (*seen).min(CLIP_MEMORY) as f64;
        let mut sound = true;
        for (weight, gain) in weights.iter_mut().zip(gain) {
            *weight += gain * error;
            sound &= weight.abs() < WEIGHT_MAX;
        }
        if !sound {
            weights.fill(0.0);
        }
    }

    /// Units changed: input i and its waiting copies were multiplied by `inputs[i]`, outcomes by
    /// `outcomes`. Every expectation stays what it was, in the new unit.
    pub fn rescale(&mut self, inputs: &[f64], outcomes: f64) {
        for horizon in &mut self.horizons {
            horizon.size *= outcomes;
            horizon.weights.iter_mut().zip(inputs).for_each(|(weight, by)| *weight *= outcomes / by);
        }
        let mut rest = self.covariance.as_mut_slice();
        for (i, by) in inputs.iter().take(self.inputs).enumerate() {
            let Some((row, below)) = rest.split_at_mut_checked(i + 1) else { return };
            rest = below;
            row.iter_mut().zip(inputs).for_each(|(p, other)| *p /= by * other);
        }
        self.hold();
    }

    /// The covariance times `x`; each entry below the diagonal stands for its mirror image too.
    fn times(&self, x: &[f64], out: &mut [f64]) {
        let mut rest = self.covariance.as_slice();
        for (i, xi) in x.iter().enumerate() {
            let Some((row, below)) = rest.split_at_checked(i + 1) else { return };
            rest = below;
            let Some((diagonal, row)) = row.split_last() else { return };
            let mut sum = diagonal * xi + dot(row, x);
            for (p, out) in row.iter().zip(out.iter_mut()) {
                *out += p * xi;
            }
            if let Some(out) = out.get_mut(i) {
                sum += *out;
                *out = sum;
            }
        }
    }

    /// P = (P - scale v v') keep.
    fn downdate(&mut self, v: &[f64], scale: f64, keep: f64) {
        let mut rest = self.covariance.as_mut_slice();
        for (i, vi) in v.iter().enumerate() {
            let Some((row, below)) = rest.split_at_mut_checked(i + 1) else { return };
            rest = below;
            let by = scale * vi;
            row.iter_mut().zip(v).for_each(|(p, vj)| *p = (*p - by * vj) * keep);
        }
    }

    /// Holds the covariance between its bounds.
    fn hold(&mut self) {
        let turn = (self.steps % self.inputs.max(1) as u64) as usize;
        self.steps += 1;
        let mut column = core::mem::take(&mut self.column);
        column.clear();
        column.extend((0..self.inputs).map(|other| self.entry(turn, other)));
        let certainty = CERTAIN * (1.0 - self.forget) * self.inputs as f64;
        let own = column.get(turn).copied().unwrap_or(0.0).max(0.0);
        self.downdate(&column, certainty / (1.0 + certainty * own), 1.0);
        self.column = column;

        let (mut trace, mut sound) = (0.0, true);
        for i in 0..self.inputs {
            let diagonal = self.entry(i, i);
            sound &= diagonal > 0.0;
            trace += diagonal;
        }
        let bound = PRIOR * self.inputs as f64;
        if !sound || !trace.is_finite() {
            self.covariance = prior(self.inputs);
        } else if trace > bound {
            let shrink = bound / trace;
            self.covariance.iter_mut().for_each(|p| *p *= shrink);
        }
    }

    fn entry(&self, i: usize, j: usize) -> f64 {
        let (row, column) = (i.max(j), i.min(j));
        self.covariance.get(row * (row + 1) / 2 + column).copied().unwrap_or(0.0)
    }
}

fn prior(inputs: usize) -> Vec<f64> {
    (0..inputs).flat_map(|i| (0..=i).map(move |j| if i == j { PRIOR } else { 0.0 })).collect()
}

/// In eight sums, so that it runs in the width of the machine and yet in one order everywhere. The
/// longer one's rest does not count.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let length = a.len().min(b.len());
    let (a, b) = (a.get(..length).unwrap_or(a), b.get(..length).unwrap_or(b));
    let ((a, more_a), (b, more_b)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f64>() + more_a.iter().zip(more_b).map(|(a, b)| a * b).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(i: u64) -> f64 {
        (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    }

    fn row(i: u64) -> Vec<f64> {
        let mut x: Vec<f64> = (0..11).map(|j| noise(i * 31 + j)).collect();
        x[0] = 1.0;
        x
    }

    #[test]
    fn late_labels_with_waiting_gains_are_the_recursion_of_least_squares() {
        let truth = |x: &[f64]| x.iter().enumerate().map(|(j, x)| x * (j as f64 - 4.0)).sum::<f64>();
        let outcome = |i: u64, x: &[f64], horizon: usize| truth(x) + horizon as f64 + noise(i * 7 + 3);
        // The same rows, late by another number of steps for each horizon, and each at once.
        let (mut late, mut at_once) = (Rls::new(200.0, 11, 3), Rls::new(200.0, 11, 3));
        let mut waiting = Vec::new();
        for i in 0..300u64 {
            let x = row(i);
            let gain = at_once.gain(&x);
            (0..3).for_each(|h| at_once.learn(h, &x, &gain, outcome(i, &x, h)));
            waiting.push((i, x.clone(), late.gain(&x)));
            for (h, behind) in [0usize, 5, 40].into_iter().enumerate() {
                if let Some(at) = waiting.len().checked_sub(behind + 1) {
                    let (i, x, gain) = &waiting[at];
                    late.learn(h, x, gain, outcome(*i, x, h));
                }
            }
        }
        for (h, behind) in [0usize, 5, 40].into_iter().enumerate() {
            for (i, x, gain) in &waiting[300 - behind..] {
                late.learn(h, x, gain, outcome(*i, x, h));
            }
        }
        assert_eq!(late, at_once);
        let x = row(9999);
        for (horizon, expects) in at_once.predict(&x).enumerate() {
            assert!((expects - truth(&x) - horizon as f64).abs() < 0.5, "{expects} at {horizon}");
        }
    }

    #[test]
    fn dots_of_any_length() {
        for (n, m) in [(0, 0), (3, 3), (8, 8), (19, 19), (5, 19), (16, 19), (19, 16), (8, 3)] {
            let (a, b) = (vec![2.0; n], vec![3.0; m]);
            assert_eq!(dot(&a, &b), 6.0 * n.min(m) as f64, "{n} {m}");
        }
    }

    #[test]
    fn another_unit_leaves_every_expectation() {
        let mut rls = Rls::new(300.0, 11, 2);
        for i in 0..200 {
            let x = row(i);
            let gain = rls.gain(&x);
            rls.learn(1, &x, &gain, x[3] * 2.0 + x[0]);
        }
        let x = row(777);
        let before: Vec<f64> = rls.predict(&x).collect();
        let by: Vec<f64> = (0..11).map(|j| if j == 0 { 1.0 } else { 0.125 }).collect();
        rls.rescale(&by, 0.125);
        let scaled: Vec<f64> = x.iter().zip(&by).map(|(x, by)| x * by).collect();
        for (before, after) in before.iter().zip(rls.predict(&scaled)) {
            assert!((before * 0.125 - after).abs() < 1e-12);
        }
    }

    #[test]
    fn silence_and_a_short_memory_do_not_wind_it_up() {
        let mut rls = Rls::new(20.0, 11, 1);
        let silent = vec![0.0; 11];
        for i in 0..20_000 {
            let x = if i % 1000 == 0 { row(i) } else { silent.clone() };
            let gain = rls.gain(&x);
            rls.learn(0, &x, &gain, 1.0);
        }
        assert!(rls.covariance.iter().all(|p| p.is_finite() && p.abs() <= PRIOR * 11.0));
        assert!(rls.predict(&row(5)).all(|y| y.abs() < 10.0));
    }
}
