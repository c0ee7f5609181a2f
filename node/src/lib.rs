//! The node: everything impure. It drives [`dunlin_protocol`]'s `Peer` and carries out its effects.

pub mod api;
pub mod cli;
pub mod connectors;
pub mod data_folder;
pub mod functions;
pub mod inbox;
pub mod storage;
pub mod telemetry;
