//! Units that each remember by themselves: a complex number that turns and fades at a pace which is
//! learned (linear recurrent units: Orvieto and others 2023; trace units: Elelimy and others 2024).
//!
//! No unit sees another, so how it depends on its own weights is one trace per weight, and real-time
//! recurrent learning is exact at about twice the price of only running (Zucchet and others, "Online
//! learning of long-range dependencies", 2023).
//!
//! h' = λ h + γ (b · x), λ = exp(-exp(v) + i a), γ = sqrt(1 - |λ|²); a unit says tanh Re h and tanh Im h.

use core::ops::{Add, Mul};

use serde::{Deserialize, Serialize};

use super::draw::Draws;
use super::recurrent::Net;
use super::state::Kept;
use super::steps::Steps;

const RATE: f64 = 0.01;
/// Steps that units remember in the beginning: from, to.
const MEMORIES: [f64; 2] = [1.5, 300.0];
/// Turns of a unit per step in the beginning, at most, in radians; long memories turn slower.
const TURN: f64 = 0.8;
/// Bounds of the pace at which a unit fades: a memory of half a step to ten thousand.
const PACES: [f64; 2] = [-9.2, 0.7];

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diagonal {
    inputs: usize,
    cells: Vec<Cell>,
    /// Real parts, then imaginary ones.
    units: Vec<f64>,
    steps: Steps,
    draws: Draws,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Cell {
    /// v and a.
    pace: f64,
    turn: f64,
    /// Of one and of the row.
    weights: Vec<Complex>,
    state: Complex,
    /// How the state depends on pace, turn and the real part of each weight.
    by_pace: Complex,
    by_turn: Complex,
    by_weight: Vec<Complex>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Complex {
    re: f64,
    im: f64,
}

impl Add for Complex {
    type Output = Complex;
    fn add(self, other: Complex) -> Complex {
        Complex { re: self.re + other.re, im: self.im + other.im }
    }
}

impl Mul for Complex {
    type Output = Complex;
    fn mul(self, other: Complex) -> Complex {
        Complex { re: self.re * other.re - self.im * other.im, im: self.re * other.im + self.im * other.re }
    }
}

impl Mul<f64> for Complex {
    type Output = Complex;
    fn mul(self, by: f64) -> Complex {
        Complex { re: self.re * by, im: self.im * by }
    }
}

impl Complex {
    /// A quarter turn.
    fn turned(self) -> Complex {
        Complex { re: -self.im, im: self.re }
    }
}

impl Cell {
    fn step(&mut self, row: &[f64]) {
        let Cell { pace, turn, weights, state, by_pace, by_turn, by_weight } = self;
        let fade = pace.exp();
        let size = (-fade).exp();
        let keeps = Complex { re: size * turn.cos(), im: size * turn.sin() };
        let takes = (1.0 - size * size).max(1e-12).sqrt();
        let mut sum = Complex::default();
        for ((weight, slope), x) in weights.iter().zip(by_weight).zip(core::iter::once(&1.0).chain(row)) {
            sum = sum + *weight * *x;
            *slope = keeps * *slope + Complex { re: takes * x, im: 0.0 };
        }
        let takes_by_pace = fade * size * size / takes;
        *by_pace = keeps * *by_pace + keeps * *state * -fade + sum * takes_by_pace;
        *by_turn = keeps * *by_turn + (keeps * *state).turned();
        *state = keeps * *state + sum * takes;
    }

    fn numbers(&self) -> usize {
        2 + 2 * self.weights.len()
    }

    /// By pace, turn and both parts of each weight, of a loss whose gradient by the state's parts is
    /// `pull`.
    fn gradient(&self, pull: Complex) -> impl Iterator<Item = f64> {
        let of = move |slope: Complex| pull.re * slope.re + pull.im * slope.im;
        let weights = self.by_weight.iter().flat_map(move |slope| [of(*slope), of(slope.turned())]);
        [of(self.by_pace), of(self.by_turn)].into_iter().chain(weights)
    }

    fn numbers_mut(&mut self) -> impl Iterator<Item = &mut f64> {
        let weights = self.weights.iter_mut().flat_map(|weight| [&mut weight.re, &mut weight.im]);
        [&mut self.pace, &mut self.turn].into_iter().chain(weights)
    }
}

impl Diagonal {
    /// `cells`: each says two units.
    pub fn new(inputs: usize, cells: usize, seed: u64) -> Diagonal {
        Diagonal::begin(inputs, cells, Draws::new(seed, 1))
    }

    fn begin(inputs: usize, cells: usize, mut draws: Draws) -> Diagonal {
        let [short, long] = MEMORIES;
        let reach = 1.0 / (1.0 + inputs as f64).sqrt();
        let cells: Vec<Cell> = (0..cells)
            .map(|cell| {
                let part = (cell as f64 + draws.part()) / cells as f64;
                let memory = short * (long / short).powf(part);
                let turn = TURN * draws.part() * (4.0 / memory).min(1.0);
                let mut weight = || Complex {
                    re: (2.0 * draws.part() - 1.0) * reach,
                    im: (2.0 * draws.part() - 1.0) * reach,
                };
                Cell {
                    pace: -memory.ln(),
                    turn,
                    weights: (0..=inputs).map(|_| weight()).collect(),
                    state: Complex::default(),
                    by_pace: Complex::default(),
                    by_turn: Complex::default(),
                    by_weight: vec![Complex::default(); 1 + inputs],
                }
            })
            .collect();
        let numbers = cells.iter().map(Cell::numbers).sum();
        Diagonal { inputs, units: vec![0.0; 2 * cells.len()], cells, steps: Steps::new(RATE, numbers), draws }
    }

    /// By unit and its pull: the pull on the state's parts.
    fn pulls(&self, pull: &[f64]) -> Vec<Complex> {
        let through = |(unit, pull): (&f64, &f64)| pull * (1.0 - unit * unit);
        let pulls: Vec<f64> = self.units.iter().zip(pull).map(through).collect();
        let (re, im) = pulls.split_at_checked(self.cells.len()).unwrap_or((&[], &[]));
        re.iter().zip(im).map(|(re, im)| Complex { re: *re, im: *im }).collect()
    }

    fn gradient(&self, pull: &[f64]) -> Vec<f64> {
        self.cells.iter().zip(self.pulls(pull)).flat_map(|(cell, pull)| cell.gradient(pull)).collect()
    }
}

impl Net for Diagonal {
    fn inputs(&self) -> usize {
        self.inputs
    }

    fn step(&mut self, row: &[f64]) {
        self.cells.iter_mut().for_each(|cell| cell.step(row));
        let parts =
            self.cells.iter().map(|cell| cell.state.re).chain(self.cells.iter().map(|cell| cell.state.im));
        self.units.iter_mut().zip(parts).for_each(|(unit, part)| *unit = part.tanh());
    }

    fn units(&self) -> &[f64] {
        &self.units
    }

    fn learn(&mut self, pull: &[f64]) {
        let gradient = self.gradient(pull);
        let numbers = self.cells.iter_mut().flat_map(Cell::numbers_mut);
        if !self.steps.take(numbers, gradient.into_iter()) {
            *self = Diagonal::begin(self.inputs, self.cells.len(), self.draws);
        }
        let [least, most] = PACES;
        self.cells.iter_mut().for_each(|cell| cell.pace = cell.pace.clamp(least, most));
    }
}

impl Kept for Diagonal {
    const VERSION: u8 = 1;
}

#[cfg(test)]
mod tests {
    use super::super::recurrent::Recurrent;
    use super::*;

    #[test]
    fn the_gradient_is_the_numeric_one_through_all_steps() {
        let pull = [0.7, -1.1, 0.4, 0.9, -0.3, 0.5];
        let mut draws = Draws::new(4, 9);
        let rows: Vec<[f64; 2]> = (0..60).map(|_| [draws.part() - 0.4, 2.0 * draws.part() - 1.0]).collect();
        let of = |net: &Diagonal| {
            let mut net = net.clone();
            rows.iter().for_each(|row| net.step(row));
            let loss: f64 = net.units.iter().zip(pull).map(|(unit, pull)| unit * pull).sum();
            (loss, net)
        };
        let net = Diagonal::new(2, 3, 8);
        let gradient = of(&net).1.gradient(&pull);
        assert_eq!(gradient.len(), 3 * 8);
        for (place, exact) in gradient.iter().enumerate() {
            let nudged = |by: f64| {
                let mut net = net.clone();
                *net.cells.iter_mut().flat_map(Cell::numbers_mut).nth(place).unwrap() += by;
                of(&net).0
            };
            let numeric = (nudged(1e-6) - nudged(-1e-6)) / 2e-6;
            assert!((exact - numeric).abs() < 1e-6, "{place}: {exact} {numeric}");
        }
    }

    #[test]
    fn remembers_over_many_steps() {
        let (mut model, mut draws) = (Recurrent::new(Diagonal::new(2, 8, 1)), Draws::new(5, 5));
        let (mut held, mut error, mut naive) = (0.0, 0.0, 0.0);
        for i in 0..20_000 {
            // Now and then a number comes, and what follows is that number until the next one.
            let comes = i % 40 == 0;
            if comes {
                held = 2.0 * draws.part() - 1.0;
            }
            model.step(&[if comes { held } else { 0.0 }, f64::from(u8::from(comes))]);
            if i >= 18_000 {
                error += f64::powi(model.says() - held, 2);
                naive += held * held;
            }
            model.learn(held);
        }
        assert!(error < 0.3 * naive, "{error} {naive}");
        assert_eq!(Recurrent::<Diagonal>::unpack(&model.pack()).unwrap().pack(), model.pack());
    }
}
