//! The catalog: what a node may say in its own catalog log, and all nodes' logs with their fold.
//!
//! How two nodes heal: each sends `heads()`; whoever gets them answers with `behind(..)`, bounded; the
//! receiver gives the records to `on_records`, persists what comes back and sends its heads again.
//! A round without anything new ends it. Nothing is folded, told or given on before it is persisted.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

pub use super::chain::{CATALOG_EPOCH, CatalogFault};
use super::chain::{Chain, weight};
use super::facts::Facts;
use super::roll::Rotation;
use crate::id::{Digest, LogId, Name, NodeId, Position, Seq};
use crate::limits::{CATALOG_ADOPT_WAIT, CATALOG_SEND_BYTES_MAX, NODES_MAX};
use crate::log::record::Record;
use crate::pipeline::manifest::Manifest;
use crate::pipeline::plan::{SlotRange, UnitId};
use crate::time::Time;
use crate::wire::message::Head;

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
    /// A log of this node is closed, and a revision that wins again still calls it its own; or it was a log
    /// of a node that was given up, whose share is this node's now. This record bears the one that stands
    /// in for it. `born` is the birth that both carry on.
    Reborn { pipeline: Name, log: LogId, born: CatalogRef },
    /// Tokens given before are refused from now on. `members`: whose certificates count all the same.
    TokensRotated { rotation: Rotation, members: BTreeSet<NodeId> },
    /// This node let that one in by a token, and vouches for it.
    Admitted { node: NodeId },
    /// A node is given up for good: its identity is refused from now on, and what lived on it starts
    /// anew, on nodes that this fact names.
    NodeRemoved { node: NodeId, removal: Removal },
}

/// Who takes over from a node that was given up. For each unit that had shares on it the nodes that may
/// have them; of two facts about one node the one in the smaller record counts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Removal {
    pub homes: BTreeMap<Name, BTreeMap<UnitId, Vec<NodeId>>>,
    /// For units that the node that said it did not know of.
    pub others: Vec<NodeId>,
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

/// All nodes' catalog logs as this node holds them.
pub struct Catalog {
    me: NodeId,
    key: SigningKey,
    chains: BTreeMap<NodeId, Chain>,
    facts: Facts,
    begun: Time,
    /// How far each connected peer says that our own log goes.
    claims: BTreeMap<NodeId, Seq>,
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").field("me", &self.me).field("heads", &self.heads()).finish_non_exhaustive()
    }
}

impl Catalog {
    /// `key` is the node's own: its public half is `me`.
    pub fn new(me: NodeId, key: SigningKey) -> Catalog {
        Catalog {
            me,
            key,
            chains: BTreeMap::from([(me, Chain::new(me))]),
            facts: Facts::default(),
            begun: Time::default(),
            claims: BTreeMap::new(),
        }
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Before the start: the next records of a node's log, in order, from the disk. A fault bars the log
    /// from there on: it is neither written nor given to others until it is mended.
    pub fn restore(&mut self, node: NodeId, records: Vec<Record>) -> Result<(), CatalogFault> {
        let count = records.len();
        let chain = self.chains.entry(node).or_insert_with(|| Chain::new(node));
        let outcome = chain.load(records).and_then(|taken| {
            let why = || String::from("its records do not follow one another");
            if taken.len() == count { Ok(()) } else { Err(CatalogFault::Barred { node, why: why() }) }
        });
        let end = chain.end().seq;
        if let Err(fault) = &outcome {
            chain.bar(alloc::string::ToString::to_string(fault), None);
        }
        self.on_persisted(node, end);
        outcome
    }

    /// The node's log is damaged on the disk, which had held it up to `noted`, if that can be told: it is neither
    /// written nor given to others until it is mended.
    pub fn bar(&mut self, node: NodeId, why: String, noted: Option<Position>) {
        self.chains.entry(node).or_insert_with(|| Chain::new(node)).bar(why, noted);
    }

    /// Damaged logs of which others gave all that the disk had held: with their records, each to be written
    /// anew. `on_persisted` ends that, or `on_unmended`.
    pub fn mendable(&mut self) -> Vec<(NodeId, Vec<Record>)> {
        self.chains.iter_mut().filter_map(|(node, chain)| Some((*node, chain.mendable()?))).collect()
    }

    /// Whether the node's log is being written anew.
    pub fn is_mending(&self, node: &NodeId) -> bool {
        self.chains.get(node).is_some_and(Chain::is_mending)
    }

    /// The disk did not take a log that was to be written anew: `mendable` gives it again.
    pub fn on_unmended(&mut self, node: NodeId) {
        if let Some(chain) = self.chains.get_mut(&node) {
            chain.not_mended();
        }
    }

    /// A node whose log is damaged on this disk, if there is one, and how: the facts lack what it says.
    pub fn damaged(&self) -> Option<(&NodeId, &str)> {
        self.chains.iter().find_map(|(node, chain)| Some((node, chain.barred()?)))
    }

    /// The node begins: from here the wait of `ready_to_write` counts.
    pub fn begin(&mut self, now: Time) {
        self.begun = now;
    }

    /// Whether this node may append to its own log. A node that comes back may have lost the end of it
    /// while its peers still hold it; writing before adopting it would sign two different logs. So: never
    /// while a connected peer claims more of it than is here; at once when a peer has told its heads, or
    /// when no other node was ever heard of; otherwise after `CATALOG_ADOPT_WAIT`, because a lone node goes on.
    pub fn ready_to_write(&self, connected_any: bool, now: Time) -> bool {
        let own = self.chains.get(&self.me);
        let end = own.map_or(Seq(0), |chain| chain.end().seq);
        if own.is_some_and(|chain| chain.barred().is_some()) || self.claims.values().any(|claim| *claim > end)
        {
            return false;
        }
        let alone = !connected_any && self.chains.len() == 1;
        !self.claims.is_empty() || alone || now.since(self.begun) >= CATALOG_ADOPT_WAIT
    }

    /// The next record of this node's own log, to be persisted at once. The fold sees it after
    /// `on_persisted`. Ask `ready_to_write` first.
    pub fn append(&mut self, entry: CatalogEntry) -> Result<Record, CatalogFault> {
        let me = self.me;
        self.chains.entry(me).or_insert_with(|| Chain::new(me)).append(&self.key, entry)
    }

    /// The record that the next `append` will be: what a revision or source log is named by.
    pub fn next_reference(&self) -> CatalogRef {
        let end = self.chains.get(&self.me).map_or(Seq(0), |chain| chain.end().seq);
        CatalogRef { node: self.me, seq: end.next() }
    }

    /// How far each log stands on this node's disk. Logs without a record are left out, except one's own.
    pub fn heads(&self) -> BTreeMap<NodeId, Head> {
        self.chains
            .iter()
            .map(|(node, chain)| (*node, chain.head()))
            .filter(|(node, head)| head.seq > Seq(0) || *node == self.me)
            .collect()
    }

    /// A peer told its heads: what to send it, as `behind` says.
    pub fn on_heads(&mut self, from: NodeId, their: &BTreeMap<NodeId, Head>) -> Vec<(NodeId, Vec<Record>)> {
        if self.claims.len() < NODES_MAX || self.claims.contains_key(&from) {
            self.claims.insert(from, their.get(&self.me).map_or(Seq(0), |head| head.seq));
        }
        if let (Some(chain), Some(head)) = (self.chains.get_mut(&from), their.get(&from)) {
            chain.ends(*head);
        }
        self.behind(their)
    }

    /// How far this peer says that our own log goes; none while it has not told.
    pub fn claim(&self, peer: &NodeId) -> Option<Seq> {
        self.claims.get(peer).copied()
    }

    /// The peer is gone: what it claimed holds nothing back.
    pub fn on_disconnected(&mut self, node: NodeId) {
        self.claims.remove(&node);
    }

    /// What a node with these heads lacks, about `CATALOG_SEND_BYTES_MAX` in all, at least one record
    /// if it lacks any. The rest follows when it tells its new heads.
    pub fn behind(&self, their: &BTreeMap<NodeId, Head>) -> Vec<(NodeId, Vec<Record>)> {
        let mut left = CATALOG_SEND_BYTES_MAX;
        let mut parcels = Vec::new();
        for (node, chain) in &self.chains {
            let records = chain.behind(their.get(node).copied().unwrap_or_default(), left);
            if records.is_empty() {
                continue;
            }
            let bytes: usize = records.iter().map(weight).sum();
            if bytes > left && !parcels.is_empty() {
                break;
            }
            parcels.push((*node, records));
            left = left.saturating_sub(bytes);
            if left == 0 {
                break;
            }
        }
        parcels
    }

    /// Records of a node's log from a peer (one's own log too: that is how it is adopted). Gives back
    /// what is new, in order, to be persisted; a gap, or what is known, gives nothing.
    pub fn on_records(&mut self, node: NodeId, records: Vec<Record>) -> Result<Vec<Record>, CatalogFault> {
        if let Some(chain) = self.chains.get_mut(&node) {
            return chain.take(records);
        }
        if self.chains.len() >= NODES_MAX {
            return Err(CatalogFault::TooManyNodes { node });
        }
        let mut chain = Chain::new(node);
        let taken = chain.take(records)?;
        if !taken.is_empty() {
            self.chains.insert(node, chain);
        }
        Ok(taken)
    }

    /// Records of this log stand up to `seq`: they are folded. True when the facts changed.
    pub fn on_persisted(&mut self, node: NodeId, seq: Seq) -> bool {
        let Some(chain) = self.chains.get_mut(&node) else { return false };
        let before = self.facts.version();
        for (seq, entry) in chain.persisted(seq) {
            self.facts.learn(CatalogRef { node, seq }, entry);
        }
        self.facts.settle();
        self.facts.version() != before
    }

    /// Nothing from `seq` on stands: peers give it again, and an own record is the caller's to repeat.
    pub fn on_persist_failed(&mut self, node: NodeId, seq: Seq) {
        if let Some(chain) = self.chains.get_mut(&node) {
            chain.persist_failed(seq);
        }
    }
}

#[cfg(test)]
mod tests;
