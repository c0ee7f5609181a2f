//! The catalog's facts: what a node may say in its own catalog log, and how revisions chain.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{Digest, LogId, Name, NodeId, Seq};
use crate::pipeline::manifest::Manifest;
use crate::pipeline::plan::{SlotRange, UnitId};

/// One record of one node's catalog log: what bears logs. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CatalogRef {
    pub node: NodeId,
    pub seq: Seq,
}

/// A fact, signed by the node whose catalog log it stands in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CatalogEntry {
    /// What this node is: replaces the node's earlier one.
    Node(NodeFacts),
    /// A pipeline's next revision (or its end).
    Revision(Revision),
    /// Events of this source enter on this node from now on.
    SourceOpened { pipeline: Name, source: Name, born: CatalogRef },
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeFacts {
    pub labels: BTreeMap<String, String>,
    /// Multiaddrs, the peer id left out.
    pub addresses: Vec<String>,
    /// Cores; placement weighs nothing else in this version.
    pub cores: u32,
    pub version: String,
}

/// An immutable revision of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    pub pipeline: Name,
    /// The digest of the revision that this one follows; none for the first.
    pub previous: Option<Digest>,
    /// How many revisions stand before it.
    pub height: u64,
    pub content: Option<Deployed>,
}

/// What runs; `None` in its place is a removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    pub manifest: Manifest,
    /// The digest that users see: of the parsed manifest with its module digests.
    pub digest: Digest,
    /// For units with `Home::Shares` or `Single`: the node of each share, in share order.
    pub placement: BTreeMap<UnitId, Vec<NodeId>>,
    /// The catalog record that bore each unit's logs; `None`: this one.
    pub births: BTreeMap<UnitId, CatalogRef>,
    /// The node that took the deploy: home of unplaced file sources, file and stdout sinks.
    pub taken_by: NodeId,
}

/// A log's full name; `LogId` is its hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LogName {
    /// A node's catalog log.
    Catalog(NodeId),
    Actor {
        pipeline: Name,
        born: CatalogRef,
        unit: UnitId,
        share: Share,
    },
}

/// The part of a unit that one actor takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Share {
    /// Whatever is at this node (source logs, units that stay with their input).
    Node(NodeId),
    Slots {
        index: u16,
        of: u16,
    },
}

impl Share {
    pub fn slots(&self) -> SlotRange {
        match self {
            Share::Node(_) => SlotRange::ALL,
            Share::Slots { index, of } => SlotRange::of_share(*index, *of),
        }
    }
}

impl LogName {
    pub fn id(&self) -> LogId {
        let digest = blake3::hash(&crate::wire::codec::encode(self));
        let mut id = [0; 16];
        id.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
        LogId(id)
    }
}
