//! Dunlin's built-in functions: pure and deterministic. Same batches and same state in, same
//! outcome out, on every machine.
//!
//! An actor runs a [`chain::ChainRunner`]: the head (a wasm function, `learn`, a sink, or nothing)
//! and the stateless steps fused behind it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod chain;
pub mod check;
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
mod spelling;
