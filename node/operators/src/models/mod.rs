//! Models that learn row by row: each a file of its own, and none knows of events, keys or horizons.
//!
//! A row is a slice of numbers, always of the same things in the same order; what is no number, or
//! beyond [`model::NUMBER_MAX`], is missing. A model says what it expects, then is told the outcome;
//! both cost a bounded time, and its state has a bound too, named beside what happens there. Same rows
//! in, same answers out, on every machine: no clock, and what is drawn is drawn from a seed by a hash.
//! A model is kept as bytes that begin with a version (`state`).
//!
//! | file | what |
//! | --- | --- |
//! | `model`, `state` | what a model can do; how it is kept |
//! | `moments`, `standard` | mean and variance; rows in deviations from their running mean |
//! | `linear` | a line by stochastic gradient: least squares or logistic |
//! | `cuts`, `tree_regressor` | where a leaf may be cut; a Hoeffding tree for numbers |
//! | `bells`, `tree_classifier` | the same for yes or no |
//! | `mondrian`, `forest` | a tree grown by chance, all its prunings weighed; forests of them |
//! | `patches`, `adwin` | a forest of Hoeffding trees that replaces those that err; whether a mean has changed |
//! | `crosses` | a logistic line over values and pairs of them, hashed |
//! | `recurrent`, `steps` | networks that remember, a line on them; steps down a gradient |
//! | `elman`, `diagonal` | units that see each other; units that each remember by themselves |
//! | `half_space` | how strange a row is |
//! | `draw` | numbers as if by chance, from a seed |
//!
//! Where River ships the same algorithm it is followed to the digit (`examples/river_rows.rs`).

pub mod adwin;
pub mod crosses;
pub mod diagonal;
pub mod elman;
pub mod forest;
pub mod half_space;
pub mod linear;
pub mod model;
pub mod patches;
pub mod recurrent;
pub mod standard;
pub mod state;
pub mod tree_classifier;
pub mod tree_regressor;

mod bells;
mod cuts;
mod draw;
mod moments;
mod mondrian;
mod steps;

#[cfg(test)]
pub(crate) fn draws(seed: u64) -> impl FnMut() -> f64 {
    let mut draws = draw::Draws::new(seed, 0);
    move || draws.part()
}
