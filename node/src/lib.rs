//! The node: everything impure. It drives [`dunlin_protocol`]'s `Peer` and carries out its effects.

pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connectors;
pub mod crash;
pub mod daemon;
pub mod data_folder;
pub mod driver;
pub mod functions;
pub mod inbox;
pub mod network;
pub mod storage;
pub mod telemetry;
pub mod wiring;
