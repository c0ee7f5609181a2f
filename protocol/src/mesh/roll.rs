//! Who may come in, as the catalog tells it: how often the tokens were rotated, who is vouched for,
//! who was removed.
//!
//! Everything in it only grows, so two nodes that know the same facts judge alike, whatever the order in
//! which they came. What the mesh key gives without it: tokens and certificates. After the first rotation
//! neither is enough by itself: a token's secret is bound to every rotation known, and a certificate counts
//! only for a node that a rotation names or that a member has let in (`CatalogEntry::Admitted`).

use alloc::collections::BTreeSet;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::wire::handshake::Refusal;

/// One `dunlin token --rotate`. Ordered by how many stood before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rotation {
    /// How many rotations the node that said it knew.
    pub before: u32,
    /// At random; without it, and without the mesh key, no token of after can be made.
    pub salt: [u8; 32],
}

impl fmt::Debug for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rotation({})", self.before)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roll {
    pub rotations: BTreeSet<Rotation>,
    /// Members when the tokens were rotated, and whoever was let in by one.
    pub vouched: BTreeSet<NodeId>,
    /// Given up for good.
    pub removed: BTreeSet<NodeId>,
}

impl Roll {
    /// Why this node, whose certificate is genuine, is no member.
    pub fn check_member(&self, node: NodeId) -> Result<(), Refusal> {
        self.check_identity(node)?;
        match self.rotations.is_empty() || self.vouched.contains(&node) {
            true => Ok(()),
            false => Err(Refusal::NotVouched),
        }
    }

    /// Why nobody listens to this identity, whatever it shows.
    pub fn check_identity(&self, node: NodeId) -> Result<(), Refusal> {
        if self.removed.contains(&node) { Err(Refusal::Removed) } else { Ok(()) }
    }
}
