//! The mesh: who is a member and alive, what is deployed, and where.
//!
//! Facts spread by gossip and are folded; nobody decides. Liveness is SWIM's (Das et al., 2002,
//! <https://www.cs.cornell.edu/projects/Quicksilver/public_pdfs/SWIM.pdf>); the catalog is one
//! signed log per node, held by every node, healed by comparing heads.

pub mod assignment;
pub mod catalog;
mod chain;
pub mod facts;
pub mod layout;
pub mod lineage;
pub mod membership;
pub mod placement;
pub mod revision;
pub mod roll;
#[cfg(test)]
mod samples;
