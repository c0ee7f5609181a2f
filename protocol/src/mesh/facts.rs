//! The fold of all catalog logs: what every node knows about the mesh, the same on each once the
//! same records are there, whatever the order in which they came.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::catalog::{CatalogEntry, CatalogRef, NodeFacts, Removal};
use super::lineage::{Current, Known, Lineage};
use super::placement::heaviest;
use super::roll::Roll;
use crate::id::{Digest, LogId, Name, NodeId, Seq};
use crate::pipeline::plan::UnitId;

/// A source log that stands open: events of `source` enter on `node`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceLog {
    pub pipeline: Name,
    pub source: Name,
    /// The birth of the source's unit for which it was opened.
    pub born: CatalogRef,
    pub node: NodeId,
    /// The record that says so: it bears the log.
    pub opened: CatalogRef,
}

#[derive(Debug, Clone, Default)]
pub struct Facts {
    nodes: BTreeMap<NodeId, NodeFacts>,
    lineages: BTreeMap<Name, Lineage>,
    /// The end of each pipeline's winning chain, removals included.
    tips: BTreeMap<Name, Current>,
    pipelines: BTreeMap<Name, Current>,
    /// (source, born, node) of a pipeline -> the first record that opened it.
    sources: BTreeMap<Name, BTreeMap<(Name, CatalogRef, NodeId), Seq>>,
    /// Closed logs that are wanted again -> the record that bore the one in their place, and the birth
    /// that it carries on.
    reborn: BTreeMap<(LogId, NodeId), (CatalogRef, CatalogRef)>,
    /// Who may come in.
    roll: Roll,
    /// What counts of each node that was given up, and the record that says it.
    removals: BTreeMap<NodeId, (CatalogRef, Removal)>,
    /// How far each node's log is folded.
    folded: BTreeMap<NodeId, Seq>,
    unsettled: BTreeSet<Name>,
    version: u64,
}

impl Facts {
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeFacts> {
        &self.nodes
    }

    /// The pipelines that stand: every one has content.
    pub fn pipelines(&self) -> &BTreeMap<Name, Current> {
        &self.pipelines
    }

    /// What the next revision of a pipeline follows: its current one or its removal.
    pub fn tip(&self, pipeline: &Name) -> Option<&Current> {
        self.tips.get(pipeline)
    }

    /// Any revision of a pipeline by its record's digest, winning or not.
    pub fn revision(&self, pipeline: &Name, digest: &Digest) -> Option<&Known> {
        self.lineages.get(pipeline)?.get(digest)
    }

    /// The source logs that were ever opened for a pipeline, ordered by source, birth and node.
    pub fn sources_opened<'a>(&'a self, pipeline: &'a Name) -> impl Iterator<Item = SourceLog> + 'a {
        self.sources.get(pipeline).into_iter().flatten().map(|((source, born, node), seq)| SourceLog {
            pipeline: pipeline.clone(),
            source: source.clone(),
            born: *born,
            node: *node,
            opened: CatalogRef { node: *node, seq: *seq },
        })
    }

    /// The record that bore the log in place of this one on this node: the node that closed it, or that has
    /// it since the other was given up.
    pub fn reborn(&self, log: &LogId, node: NodeId) -> Option<CatalogRef> {
        self.reborn.get(&(*log, node)).map(|(at, _)| *at)
    }

    /// The nodes that said so of a log that is not theirs: their records bear what starts anew there in
    /// place of this log of a node that was given up.
    pub fn begun_anew(&self, log: LogId) -> impl Iterator<Item = (NodeId, CatalogRef)> + '_ {
        let all = (log, NodeId([0; 32]))..=(log, NodeId([0xff; 32]));
        self.reborn.range(all).map(|((_, node), (at, _))| (*node, *at))
    }

    pub fn is_removed(&self, node: &NodeId) -> bool {
        self.removals.contains_key(node)
    }

    /// The node that takes over a share of a unit from this one, which was given up: the one that its removal
    /// names, or whoever takes over from that one in turn. Removals written on both sides of a cut may name each
    /// other's nodes; those of a ring count as one, so that all of them have the same heir. None: nobody is left.
    pub fn heir(&self, node: &NodeId, pipeline: &Name, unit: &UnitId, share: u16) -> Option<NodeId> {
        let named = |gone: &NodeId| {
            let (_, removal) = self.removals.get(gone)?;
            Some(removal.homes.get(pipeline).and_then(|units| units.get(unit)).unwrap_or(&removal.others))
        };
        let mut at = *node;
        let mut passed: Vec<BTreeSet<NodeId>> = Vec::new();
        while self.is_removed(&at) {
            let ring = passed.iter().position(|ring| ring.contains(&at)).unwrap_or(passed.len());
            let mut ring: BTreeSet<NodeId> = passed.drain(ring..).flatten().collect();
            ring.insert(at);
            let named = ring.iter().filter_map(named).flatten().filter(|node| !ring.contains(node));
            at = heaviest(pipeline, unit, share, named.copied())?;
            passed.push(ring);
        }
        Some(at)
    }

    /// The birth that a log named by this record carries on: a source log is borne by its opening, one
    /// that is wanted again by a record of its own.
    pub fn birth_behind(&self, pipeline: &Name, record: CatalogRef) -> CatalogRef {
        let opened = self.sources_opened(pipeline).find(|log| log.opened == record).map(|log| log.born);
        let reborn = || self.reborn.values().find(|(at, _)| *at == record).map(|(_, born)| *born);
        opened.or_else(reborn).unwrap_or(record)
    }

    /// Whether this record is a revision of the pipeline that hangs together with a first one.
    pub fn is_revision(&self, pipeline: &Name, record: CatalogRef) -> bool {
        self.lineages.get(pipeline).is_some_and(|lineage| lineage.holds(record))
    }

    /// Who may come in.
    pub fn roll(&self) -> &Roll {
        &self.roll
    }

    /// Whether this record of a catalog log is folded in.
    pub fn knows(&self, reference: CatalogRef) -> bool {
        self.folded.get(&reference.node).is_some_and(|seq| reference.seq <= *seq)
    }

    /// Increases with each change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Takes one fact. `settle` must follow before anything is asked.
    pub(super) fn learn(&mut self, reference: CatalogRef, entry: CatalogEntry) {
        self.folded.insert(reference.node, reference.seq);
        match entry {
            CatalogEntry::Node(facts) => {
                if self.nodes.get(&reference.node) == Some(&facts) {
                    return;
                }
                self.nodes.insert(reference.node, facts);
            }
            CatalogEntry::Revision(revision) => {
                let name = revision.pipeline.clone();
                self.lineages.entry(name.clone()).or_default().insert(reference, revision);
                self.unsettled.insert(name);
            }
            CatalogEntry::SourceOpened { pipeline, source, born } => {
                let opened = self.sources.entry(pipeline).or_default();
                opened.entry((source, born, reference.node)).or_insert(reference.seq);
            }
            CatalogEntry::Reborn { pipeline: _, log, born } => {
                // Said again it bears nothing: a log is never used twice.
                self.reborn.entry((log, reference.node)).or_insert((reference, born));
            }
            CatalogEntry::TokensRotated { rotation, members } => {
                self.roll.rotations.insert(rotation);
                self.roll.vouched.extend(members);
            }
            CatalogEntry::Admitted { node } => {
                self.roll.vouched.insert(node);
            }
            CatalogEntry::NodeRemoved { node, removal } => {
                self.roll.removed.insert(node);
                let known = self.removals.entry(node).or_insert_with(|| (reference, removal.clone()));
                if reference < known.0 {
                    *known = (reference, removal);
                }
            }
        }
        self.version += 1;
    }

    /// Chooses anew where revisions came.
    pub(super) fn settle(&mut self) {
        while let Some(name) = self.unsettled.pop_first() {
            let Some(current) = self.lineages.get(&name).and_then(Lineage::current) else { continue };
            match current.deployed() {
                Some(_) => self.pipelines.insert(name.clone(), current.clone()),
                None => self.pipelines.remove(&name),
            };
            self.tips.insert(name, current);
        }
    }
}
