//! Dunlin's built-in functions: pure and deterministic. Same batches and same state in, same
//! outcome out, on every machine.
//!
//! An actor runs a [`chain::ChainRunner`]: the head (a wasm function, `learn`, `forecast`, `anomaly`, a sink, or nothing)
//! and the stateless steps fused behind it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod anomaly;
pub mod chain;
pub mod check;
mod drift;
pub mod expression;
mod field;
pub mod forecast;
pub mod ingest;
pub mod learn;
pub mod memory_state;
pub mod models;
pub mod operator;
mod payload;
mod prescan;
pub mod running;
mod spelling;
mod tail;
