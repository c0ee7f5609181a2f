//! Pipelines: the file that declares one, the plan that it becomes, and its revisions.
//!
//! `manifest` is what a user wrote, checked; `plan` is what the mesh runs: stages without key and
//! state are fused into the actor in front of them. A revision (see `mesh::catalog`) is a manifest
//! with its module digests, its placement and the catalog records that bore its logs.
//!
//! Text becomes a `tree` that knows its places, `parse` and `wiring` make a checked manifest of it,
//! `fuse` makes the plan, `change` compares two, `write` gives the one canonical text.

pub mod change;
pub mod error;
mod fields;
mod fuse;
pub mod manifest;
mod parse;
pub mod plan;
mod quantity;
mod tree;
mod wiring;
mod write;
