//! Dunlin's pure core: types, wire and `Peer`, a whole node as one state machine.
//!
//! No clock, no randomness of its own, no async, no IO, no threads: what a node does follows from
//! the inputs it was given, so a simulation of it is the node itself. Start at [`effect`].
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

extern crate alloc;

pub mod actor;
pub mod edge;
pub mod effect;
pub mod event;
pub mod id;
pub mod limits;
pub mod log;
pub mod mesh;
pub mod mutation;
pub mod peer;
pub mod pipeline;
pub mod rpc;
pub mod time;
pub mod wire;
