//! Whole Dunlin nodes under virtual time: the same `Peer`, the same operators, the same disk format,
//! another driver.
//!
//! A simulation is a seed: it draws the mesh, the work and the faults, and the same seed gives the
//! same trace. Read [`world`] first: it is to the simulator what `driver.rs` is to the daemon. Then:
//!
//! | file | what is there |
//! | --- | --- |
//! | [`run`] | the phases: while faults happen nothing may break (safety); once they have healed everything comes through within a deadline of virtual time (liveness) |
//! | [`scenario`], [`swarm`] | what a run does: named mixes of faults, and the one that each seed draws for itself |
//! | [`faults`], [`climate`], [`partition`] | what strikes now and then, what is bad all the time, the shapes of a cut |
//! | [`network`] | links: lost, slow, silent in one direction, clogged |
//! | [`disk`] | files of real bytes, written and recovered through the core's own code, torn, flipped, full |
//! | [`functions`] | the real operators; stand-ins for guests that trap, refuse and draw random numbers |
//! | [`workload`], [`taps`] | publishers that retry, here and through other nodes; clients that follow streams |
//! | [`history`] | every record that was ever written: what a disk gives back is compared with it |
//! | [`checkers`] | one property a file |
//! | [`verdict`], [`trace`], [`listing`] | how a run ended, and how it came to that: a line per transition, a line per record |
//!
//! Not simulated: connectors, the sandbox, the bearer token, joining. They have tests of their own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a simulator stops at what it did not expect"
)]

pub mod chance;
pub mod checkers;
pub mod climate;
pub mod disk;
pub mod faults;
pub mod functions;
pub mod history;
pub mod listing;
pub mod network;
pub mod partition;
pub mod run;
pub mod scenario;
pub mod swarm;
pub mod taps;
pub mod trace;
pub mod verdict;
pub mod workload;
pub mod world;
