//! Whole Dunlin nodes under virtual time: the same `Peer`, the same operators, another driver.
//!
//! A simulation is a seed: it draws the mesh, the work and the faults, and the same seed gives the
//! same trace. Read [`world`] first: it is to the simulator what `driver.rs` is to the daemon.
//! A run has two phases: while faults happen nothing may break (safety), and once they have healed
//! everything published must come through within a deadline of virtual time (liveness).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a simulator stops at what it did not expect"
)]

pub mod chance;
pub mod checkers;
pub mod disk;
pub mod functions;
pub mod network;
pub mod run;
pub mod scenario;
pub mod trace;
pub mod verdict;
pub mod workload;
pub mod world;
