//! The node: everything impure. It drives [`dunlin_protocol`]'s `Peer` and carries out its effects.

pub mod inbox;
pub mod network;
