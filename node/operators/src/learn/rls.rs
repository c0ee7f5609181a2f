//! A linear model with a second-order step: recursive least squares, and with a weight of
//! p (1 - p) per row the same recursion for a logistic line.
//!
//! Forgetting divides the covariance by a factor just under one at each step; where inputs stay
//! silent that would let it grow without bound (wind-up), so its trace is held under a bound, and each
//! coefficient keeps some certainty of its own.

use serde::{Deserialize, Serialize};

/// Mean of the covariance's diagonal at most, in priors.
const WIND_UP: f64 = 1.0;
/// Rows' worth of certainty that each coefficient keeps, whatever is forgotten.
const CERTAIN: f64 = 30.0;
/// Steps from one coefficient's turn to the next one's.
const TURN: u64 = 4;
/// Errors beyond so many times their running mean size lose weight (Huber 1964).
const HUBER: f64 = 1.0;
/// Innovations are clipped at so many times their running mean size.
const CLIP: f64 = 4.0;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    forget: f64,
    /// Variance of a coefficient before anything is known: the inverse of the ridge.
    prior: f64,
    weights: Vec<f64>,
    /// Symmetric: row by row up to the diagonal.
    covariance: Vec<f64>,
    /// Running mean of the innovation's size, and how many it has seen.
    size: f64,
    seen: u64,
    steps: u64,
    #[serde(skip)]
    scratch: Scratch,
}

/// Room for one step.
#[derive(Debug, Clone, Default)]
struct Scratch {
    x: Vec<f64>,
    px: Vec<f64>,
}

impl Line {
    pub fn new(forget: f64, prior: f64) -> Line {
        Line {
            forget,
            prior,
            weights: Vec::new(),
            covariance: Vec::new(),
            size: 0.0,
            seen: 0,
            steps: 0,
            scratch: Scratch::default(),
        }
    }

    /// Inputs that are longer than the line has known so far bring new coefficients of zero.
    pub fn predict(&self, x: &[f32]) -> f64 {
        dot(&self.weights, x)
    }

    /// Least squares: one step towards `y`, with the innovation clipped.
    pub fn fit(&mut self, x: &[f32], y: f64) {
        let error = y - self.predict(x);
        if !error.is_finite() {
            return;
        }
        self.seen += 1;
        let bound = if self.seen > 20 { CLIP * self.size } else { f64::INFINITY };
        let clipped = error.clamp(-bound, bound);
        self.size += (clipped.abs() - self.size) / (self.seen.min(500) as f64);
        self.step(x, clipped, 1.0);
    }

    /// As `fit`, with less weight for what lies far out, so that it tends to the middle of outcomes.
    pub fn fit_robust(&mut self, x: &[f32], y: f64) {
        let error = y - self.predict(x);
        if !error.is_finite() {
            return;
        }
        self.seen += 1;
        let size = error.abs().min(if self.seen > 20 { CLIP * self.size } else { f64::INFINITY });
        self.size += (size - self.size) / (self.seen.min(500) as f64);
        let weight = if size > HUBER * self.size { HUBER * self.size / error.abs() } else { 1.0 };
        self.step(x, error * weight, weight);
    }

    /// Logistic loss: one step of `offset + line` towards the outcome.
    pub fn fit_offset(&mut self, x: &[f32], offset: f64, happened: bool) {
        let p = sigmoid(offset + self.predict(x));
        self.step(x, f64::from(u8::from(happened)) - p, (p * (1.0 - p)).max(0.02));
    }

    /// w += P x e / (f + v x'Px); P = (P - v P x x'P / (f + v x'Px)) / f.
    fn step(&mut self, x: &[f32], error: f64, weight: f64) {
        self.grow(x.len());
        let size = self.weights.len();
        if size == 0 {
            return;
        }
        let Scratch { x: xs, px } = &mut self.scratch;
        xs.clear();
        xs.extend(x.iter().map(|x| f64::from(*x)));
        xs.resize(size, 0.0);
        px.clear();
        px.resize(size, 0.0);
        times(&self.covariance, xs, px);
        let spread: f64 = px.iter().zip(xs.iter()).map(|(p, x)| p * x).sum();
        let scale = self.forget + weight * spread.max(0.0);
        for (w, p) in self.weights.iter_mut().zip(px.iter()) {
            *w += p * error / scale;
        }
        let keep = 1.0 / self.forget;
        let (mut rest, mut trace, mut sound) = (self.covariance.as_mut_slice(), 0.0, true);
        for (i, pi) in px.iter().enumerate() {
            let Some((row, below)) = rest.split_at_mut_checked(i + 1) else { return };
            rest = below;
            let gain = weight * pi / scale;
            for (p, pj) in row.iter_mut().zip(px.iter()) {
                *p = (*p - gain * pj) * keep;
            }
            let diagonal = row.last().copied().unwrap_or(0.0);
            sound &= diagonal > 0.0;
            trace += diagonal;
        }
        self.guard(size, if sound { trace } else { f64::NAN });
        self.hold(size);
    }

    /// Forgets everything.
    pub fn restart(&mut self) {
        *self = Line::new(self.forget, self.prior);
    }

    /// Gives one coefficient, in turn, a little certainty of its own (as `forecast`'s lines do): those
    /// whose inputs stay silent for long keep theirs.
    fn hold(&mut self, size: usize) {
        self.steps += 1;
        if !self.steps.is_multiple_of(TURN) {
            return;
        }
        let turn = (self.steps / TURN % size as u64) as usize;
        let column = &mut self.scratch.px;
        column.clear();
        let entry = |other: usize| {
            let (row, column) = (turn.max(other), turn.min(other));
            self.covariance.get(row * (row + 1) / 2 + column).copied().unwrap_or(0.0)
        };
        column.extend((0..size).map(entry));
        let certainty = CERTAIN * (1.0 - self.forget) * size as f64 * TURN as f64;
        let own = column.get(turn).copied().unwrap_or(0.0).max(0.0);
        let scale = certainty / (1.0 + certainty * own);
        let mut rest = self.covariance.as_mut_slice();
        for (i, pi) in column.iter().enumerate() {
            let Some((row, below)) = rest.split_at_mut_checked(i + 1) else { return };
            rest = below;
            let gain = scale * pi;
            row.iter_mut().zip(column.iter()).for_each(|(p, pj)| *p -= gain * pj);
        }
    }

    fn guard(&mut self, size: usize, trace: f64) {
        let bound = WIND_UP * self.prior * size as f64;
        if !trace.is_finite() || self.weights.iter().any(|w| !w.is_finite() || w.abs() > 1e6) {
            self.restart();
            self.grow(size);
        } else if trace > bound {
            let shrink = bound / trace;
            self.covariance.iter_mut().for_each(|p| *p *= shrink);
        }
    }

    fn grow(&mut self, size: usize) {
        for row in self.weights.len()..size {
            self.weights.push(0.0);
            self.covariance.resize(self.covariance.len() + row, 0.0);
            self.covariance.push(self.prior);
        }
    }
}

/// px += P x, where P stands row by row up to the diagonal: each entry below the diagonal stands for its
/// mirror image too. Four rows at once, whose sums do not wait for one another; each sum is taken in the
/// order that it has row by row.
fn times(covariance: &[f64], x: &[f64], px: &mut [f64]) {
    let (mut rest, mut i) = (covariance, 0);
    while let Some((x_before, [x0, x1, x2, x3])) = here(x, i)
        && let Some((row0, [d0], below)) = row(rest, i)
        && let Some((row1, [a1, d1], below)) = row(below, i)
        && let Some((row2, [a2, b2, d2], below)) = row(below, i)
        && let Some((row3, [a3, b3, c3, d3], below)) = row(below, i)
        && let Some((px_before, px_here)) = px.split_at_mut_checked(i)
        && let Some([px0, px1, px2, px3]) = px_here.first_chunk_mut()
    {
        let (mut s0, mut s1, mut s2, mut s3) = (d0 * x0, d1 * x1, d2 * x2, d3 * x3);
        let rows = row0.iter().zip(row1).zip(row2.iter().zip(row3));
        for (((p0, p1), (p2, p3)), (x, px)) in rows.zip(x_before.iter().zip(px_before)) {
            s0 += p0 * x;
            s1 += p1 * x;
            s2 += p2 * x;
            s3 += p3 * x;
            *px = *px + p0 * x0 + p1 * x1 + p2 * x2 + p3 * x3;
        }
        *px0 = *px0 + s0 + a1 * x1 + a2 * x2 + a3 * x3;
        *px1 = *px1 + (s1 + a1 * x0) + b2 * x2 + b3 * x3;
        *px2 = *px2 + (s2 + a2 * x0 + b2 * x1) + c3 * x3;
        *px3 += s3 + a3 * x0 + b3 * x1 + c3 * x2;
        (rest, i) = (below, i + 4);
    }
    for (i, x_here) in x.iter().enumerate().skip(i) {
        let Some((row, [diagonal], below)) = row(rest, i) else { return };
        let mut sum = diagonal * x_here;
        for ((p, other), px) in row.iter().zip(x).zip(px.iter_mut()) {
            sum += p * other;
            *px += p * x_here;
        }
        if let Some(px) = px.get_mut(i) {
            *px += sum;
        }
        rest = below;
    }
}

/// The entries before column `i`, those at it, and all rows below.
fn row<const N: usize>(rows: &[f64], i: usize) -> Option<(&[f64], &[f64; N], &[f64])> {
    let (before, rest) = rows.split_at_checked(i)?;
    let (here, below) = rest.split_first_chunk()?;
    Some((before, here, below))
}

/// The entries before `i`, and four from there.
fn here(x: &[f64], i: usize) -> Option<(&[f64], &[f64; 4])> {
    let (before, rest) = x.split_at_checked(i)?;
    Some((before, rest.first_chunk()?))
}

pub fn dot(weights: &[f64], x: &[f32]) -> f64 {
    weights.iter().zip(x).map(|(w, x)| w * f64::from(*x)).sum()
}

pub fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit.clamp(-30.0, 30.0)).exp())
}

pub fn logit(p: f64) -> f64 {
    let p = p.clamp(1e-4, 1.0 - 1e-4);
    (p / (1.0 - p)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_line_and_grows_with_its_inputs() {
        let mut line = Line::new(0.999, 0.5);
        for i in 0..400u32 {
            let a = ((i * 37 % 100) as f32 - 50.0) / 50.0;
            line.fit(&[1.0, a], 2.0 + 3.0 * f64::from(a));
        }
        assert!((line.predict(&[1.0, 0.5]) - 3.5).abs() < 0.05);
        line.fit(&[1.0, 0.5, 1.0], 3.5);
        assert!((line.predict(&[1.0, 0.5, 1.0]) - 3.5).abs() < 0.05);
    }

    #[test]
    fn the_logistic_step_goes_along_the_negative_numeric_gradient() {
        let x = [1.0f32, -0.7, 0.3];
        let loss = |w: &[f64]| -sigmoid(dot(w, &x)).ln();
        let mut line = Line::new(1.0, 0.5);
        line.grow(3);
        line.weights = vec![0.2, -0.1, 0.4];
        let before = line.weights.clone();
        line.fit_offset(&x, 0.0, true);
        for i in 0..3 {
            let (mut up, mut down) = (before.clone(), before.clone());
            up[i] += 1e-6;
            down[i] -= 1e-6;
            let gradient = (loss(&up) - loss(&down)) / 2e-6;
            // With the prior covariance a multiple of the identity, the step is a positive multiple of it.
            let ratio = (line.weights[i] - before[i]) / -gradient;
            assert!((ratio - (line.weights[0] - before[0]) / (1.0 - sigmoid(dot(&before, &x)))).abs() < 1e-6);
        }
    }

    #[test]
    fn four_rows_at_once_are_what_one_after_the_other_is() {
        for size in 0..23usize {
            let entry = |i: usize| ((i * 7919 % 997) as f64 - 498.0) / 37.0;
            let rows: Vec<f64> = (0..size * (size + 1) / 2).map(entry).collect();
            let x: Vec<f64> = (0..size).map(|i| entry(i + 300)).collect();
            let mut expect = vec![0.0; size];
            for i in 0..size {
                let (row, here) = (i * (i + 1) / 2, x[i]);
                let mut sum = rows[row + i] * here;
                for j in 0..i {
                    sum += rows[row + j] * x[j];
                    expect[j] += rows[row + j] * here;
                }
                expect[i] += sum;
            }
            let mut px = vec![0.0; size];
            times(&rows, &x, &mut px);
            assert_eq!(px, expect);
        }
    }

    #[test]
    fn silence_does_not_wind_it_up() {
        let mut line = Line::new(0.9, 0.5);
        for _ in 0..10_000 {
            line.fit(&[1.0, 0.0, 0.0], 1.0);
        }
        line.fit(&[1.0, 5.0, -5.0], 100.0);
        assert!(line.covariance.iter().all(|p| p.is_finite() && p.abs() < 10.0));
        assert!(line.weights.iter().all(|w| w.abs() < 100.0));
    }
}
