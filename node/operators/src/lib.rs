//! Dunlin's built-in functions: pure and deterministic. Same batches and same state in, same
//! outcome out, on every machine.
//!
//! An actor runs a [`chain::ChainRunner`]: the head (a wasm function, `learn`, a sink, or nothing)
//! and the stateless steps fused behind it.

pub mod learn;
pub mod operator;
