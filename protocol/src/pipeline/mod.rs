//! Pipelines: the file that declares one, the plan that it becomes, and its revisions.
//!
//! `manifest` is what a user wrote, checked; `plan` is what the mesh runs: stages without key and
//! state are fused into the actor in front of them. A revision (see `mesh::catalog`) is a manifest
//! with its module digests, its placement and the catalog records that bore its logs.

pub mod manifest;
pub mod plan;
