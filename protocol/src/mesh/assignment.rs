//! Which logs exist, where each is written, and who reads whom: worked out from the facts, on every
//! node alike, and kept until the facts change.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::catalog::{CatalogEntry, CatalogRef, LogName, Share};
use super::facts::{Facts, SourceLog};
use super::lineage::{Current, Known};
use super::placement::satisfies;
use crate::id::{Digest, LogId, Name, NodeId};
use crate::pipeline::manifest::{Connector, Manifest, Source};
use crate::pipeline::plan::{Home, Plan, Role, Unit, UnitId};

/// One log of a pipeline that stands, and the unit whose actor writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    pub id: LogId,
    pub name: LogName,
    pub pipeline: Name,
    pub unit: Arc<Unit>,
    pub share: Share,
    pub node: NodeId,
    pub standing: Standing,
    pub manifest: Arc<Manifest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its actor is at work.
    Written,
    /// A source log of an earlier or superseded revision: read to its end, nothing enters it.
    ReadOnly,
}

/// One log that an actor reads, through one of its unit's inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Upstream {
    pub log: LogId,
    pub node: NodeId,
    /// Index into the reading unit's inputs.
    pub input: u16,
    /// Index into the read unit's outputs.
    pub output: u16,
}

/// What a log on a disk is to the pipelines that stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is one of `logs_on` its node.
    Assigned,
    /// A later revision changed the unit; this log takes its place, if it has the same share.
    Replaced { by: Option<LogId> },
    /// Its revision lost to one that followed the same: the winner's log of that unit and share.
    Superseded { by: Option<LogId> },
    /// Its pipeline, or its stage, was removed: the log may go.
    Removed,
    /// The catalog does not know it (yet): it stays as it is.
    Unknown,
}

/// One pipeline that stands, worked out.
#[derive(Debug)]
pub struct Layout {
    pub current: Current,
    pub plan: Arc<Plan>,
    pub manifest: Arc<Manifest>,
    /// All its logs: units in plan order, then by share.
    pub logs: Vec<Arc<Assigned>>,
}

/// All pipelines' layouts, for one version of the facts.
#[derive(Debug, Default)]
pub struct Assignment {
    version: Option<u64>,
    layouts: BTreeMap<Name, Layout>,
    by_log: BTreeMap<LogId, Arc<Assigned>>,
    by_node: BTreeMap<NodeId, Vec<Arc<Assigned>>>,
}

impl Assignment {
    /// Works everything out anew if the facts changed; true when it did. `plan_of` makes a manifest's
    /// plan; a pipeline without one (of a newer version, say) is left out.
    pub fn refresh(&mut self, facts: &Facts, plan_of: impl Fn(&Manifest) -> Option<Plan>) -> bool {
        if self.version == Some(facts.version()) {
            return false;
        }
        self.version = Some(facts.version());
        let mut old = core::mem::take(&mut self.layouts);
        for (name, current) in facts.pipelines() {
            let kept = old.remove(name).filter(|layout| layout.current.digest == current.digest);
            let made = match kept {
                Some(layout) => Some((layout.plan, layout.manifest)),
                None => current.deployed().and_then(|deployed| {
                    Some((Arc::new(plan_of(&deployed.manifest)?), Arc::new(deployed.manifest.clone())))
                }),
            };
            let Some((plan, manifest)) = made else { continue };
            let mut layout = Layout { current: current.clone(), plan, manifest, logs: Vec::new() };
            layout.lay_out(facts);
            self.layouts.insert(name.clone(), layout);
        }
        self.by_log.clear();
        self.by_node.clear();
        for log in self.layouts.values().flat_map(|layout| &layout.logs) {
            self.by_log.insert(log.id, log.clone());
            self.by_node.entry(log.node).or_default().push(log.clone());
        }
        true
    }

    pub fn pipelines(&self) -> &BTreeMap<Name, Layout> {
        &self.layouts
    }

    /// All logs that live on this node, each behind those that it reads there.
    pub fn logs_on(&self, node: &NodeId) -> &[Arc<Assigned>] {
        self.by_node.get(node).map_or(&[], Vec::as_slice)
    }

    pub fn all_logs(&self, pipeline: &Name) -> &[Arc<Assigned>] {
        self.layouts.get(pipeline).map_or(&[], |layout| layout.logs.as_slice())
    }

    pub fn log(&self, id: &LogId) -> Option<&Arc<Assigned>> {
        self.by_log.get(id)
    }

    /// Every log that this one's actor reads, by input: a unit that stays with its input reads the logs
    /// on its own node, any other one those on all nodes.
    pub fn upstreams(&self, reader: &Assigned) -> Vec<Upstream> {
        let mut upstreams = Vec::new();
        for (index, input) in (0u16..).zip(&reader.unit.inputs) {
            for log in self.all_logs(&reader.pipeline).iter().filter(|log| log.unit.id == input.unit) {
                if reads(reader, log) {
                    upstreams.push(Upstream {
                        log: log.id,
                        node: log.node,
                        input: index,
                        output: input.output,
                    });
                }
            }
        }
        upstreams
    }

    /// Every log whose actor reads this one: what retention waits for.
    pub fn readers<'a>(&'a self, log: &'a Assigned) -> impl Iterator<Item = &'a Arc<Assigned>> + 'a {
        self.all_logs(&log.pipeline).iter().filter(|reader| {
            reader.unit.inputs.iter().any(|input| input.unit == log.unit.id) && reads(reader, log)
        })
    }

    /// The log into which events of a source enter on this node now, once it is opened.
    pub fn source_log(&self, node: &NodeId, pipeline: &Name, source: &Name) -> Option<&Arc<Assigned>> {
        self.logs_on(node).iter().find(|log| {
            log.pipeline == *pipeline
                && log.standing == Standing::Written
                && log.unit.id.role == Role::Source
                && log.unit.id.name == *source
        })
    }

    /// What opens a source's log on a node: an entry for that node's catalog log. None: no such source.
    pub fn opening(&self, pipeline: &Name, source: &Name) -> Option<CatalogEntry> {
        let layout = self.layouts.get(pipeline)?;
        let unit = UnitId { role: Role::Source, name: source.clone() };
        layout.plan.unit(&unit)?;
        let born = layout.current.birth(&unit);
        Some(CatalogEntry::SourceOpened { pipeline: pipeline.clone(), source: source.clone(), born })
    }

    /// The openings that a node owes at once: its connectors' sources whose logs are not open yet.
    pub fn openings_due(&self, node: &NodeId, facts: &Facts) -> Vec<CatalogEntry> {
        let mut due = Vec::new();
        for (pipeline, layout) in &self.layouts {
            for unit in &layout.plan.units {
                let Home::Entry(source) = &unit.home else { continue };
                let name = &unit.id.name;
                if layout.feeds(node, unit, source, facts) && self.source_log(node, pipeline, name).is_none()
                {
                    due.extend(self.opening(pipeline, name));
                }
            }
        }
        due
    }

    /// What becomes of a log that is on a disk.
    pub fn fate(&self, name: &LogName, facts: &Facts) -> Fate {
        let LogName::Actor { pipeline, born, unit, share } = name else { return Fate::Unknown };
        if self.by_log.contains_key(&name.id()) {
            return Fate::Assigned;
        }
        let (Some(tip), true) = (facts.tip(pipeline), facts.knows(*born)) else { return Fate::Unknown };
        // A source log is borne by the record that opened it, for a birth of its unit.
        let opened = facts.sources_opened(pipeline).find(|log| log.opened == *born);
        let born = opened.map_or(*born, |log| log.born);
        if tip.deployed().is_none() {
            return Fate::Removed;
        }
        let Some(layout) = self.layouts.get(pipeline) else { return Fate::Unknown };
        let bore = |known: &Known| known.revision.content.is_some() && known.birth(unit) == born;
        let by = || {
            let mut logs = layout.logs.iter().filter(|log| log.unit.id == *unit && log.share == *share);
            logs.find(|log| log.standing == Standing::Written).map(|log| log.id)
        };
        if tip.superseded.iter().any(bore) {
            return Fate::Superseded { by: by() };
        }
        if layout.plan.unit(unit).is_some() && tip.earlier.iter().any(bore) {
            return Fate::Replaced { by: by() };
        }
        Fate::Removed
    }
}

/// Whether the reader's actor, whose unit reads this log's unit, reads this very log.
fn reads(reader: &Assigned, log: &Assigned) -> bool {
    match reader.unit.home {
        Home::WithInput => reader.node == log.node,
        Home::Entry(_) | Home::Shares(_) | Home::Single => true,
    }
}

impl Layout {
    /// The digest that users see.
    pub fn revision(&self) -> Option<Digest> {
        self.current.deployed().map(|deployed| deployed.digest)
    }

    /// The unit's node for each of its shares, as the revision says.
    fn placed(&self, unit: &UnitId) -> &[NodeId] {
        let placement = self.current.deployed().map(|deployed| &deployed.placement);
        placement.and_then(|placement| placement.get(unit)).map_or(&[], Vec::as_slice)
    }

    /// Whether a connector on this node feeds the source.
    fn feeds(&self, node: &NodeId, unit: &Unit, source: &Source, facts: &Facts) -> bool {
        match source.connector {
            Connector::Publish => false,
            Connector::File { .. } => match self.placed(&unit.id).first() {
                Some(home) => home == node,
                None => self.current.deployed().is_some_and(|deployed| deployed.taken_by == *node),
            },
            Connector::Host { .. } => {
                let rule = self.manifest.placement.get(&unit.id.name);
                facts.nodes().get(node).is_some_and(|facts| satisfies(facts, rule))
            }
        }
    }

    fn lay_out(&mut self, facts: &Facts) {
        let pipeline = self.current.revision.pipeline.clone();
        let opened: Vec<SourceLog> = facts.sources_opened(&pipeline).collect();
        let plan = self.plan.clone();
        // The nodes that hold a log of each unit so far: plans list inputs first.
        let mut holders: BTreeMap<&UnitId, BTreeSet<NodeId>> = BTreeMap::new();
        for unit in &plan.units {
            let born = self.current.birth(&unit.id);
            let logs: Vec<(CatalogRef, Share, NodeId, Standing)> = match &unit.home {
                Home::Entry(_) => self.source_logs(unit, born, &opened),
                Home::WithInput => {
                    let nodes: BTreeSet<NodeId> = unit
                        .inputs
                        .iter()
                        .filter_map(|input| holders.get(&input.unit))
                        .flatten()
                        .copied()
                        .collect();
                    nodes.iter().map(|node| (born, Share::Node(*node), *node, Standing::Written)).collect()
                }
                Home::Shares(_) | Home::Single => {
                    let nodes = self.placed(&unit.id);
                    let of = nodes.len() as u16;
                    (0u16..)
                        .zip(nodes)
                        .map(|(index, node)| (born, Share::Slots { index, of }, *node, Standing::Written))
                        .collect()
                }
            };
            holders.insert(&unit.id, logs.iter().map(|(_, _, node, _)| *node).collect());
            let unit = Arc::new(unit.clone());
            for (born, share, node, standing) in logs {
                let name = LogName::Actor { pipeline: pipeline.clone(), born, unit: unit.id.clone(), share };
                self.logs.push(Arc::new(Assigned {
                    id: name.id(),
                    name,
                    pipeline: pipeline.clone(),
                    unit: unit.clone(),
                    share,
                    node,
                    standing,
                    manifest: self.manifest.clone(),
                }));
            }
        }
    }

    /// The source's logs on all nodes: the present ones, and those that earlier and superseded
    /// revisions opened, since what they took was acknowledged.
    fn source_logs(
        &self,
        unit: &Unit,
        born: CatalogRef,
        opened: &[SourceLog],
    ) -> Vec<(CatalogRef, Share, NodeId, Standing)> {
        let others = self.current.earlier.iter().chain(&self.current.superseded);
        let read_only: BTreeSet<CatalogRef> = others
            .filter(|known| known.revision.content.is_some())
            .map(|known| known.birth(&unit.id))
            .collect();
        opened
            .iter()
            .filter(|log| log.source == unit.id.name)
            .filter_map(|log| {
                let standing = match log.born {
                    at if at == born => Standing::Written,
                    at if read_only.contains(&at) => Standing::ReadOnly,
                    _ => return None,
                };
                Some((log.opened, Share::Node(log.node), log.node, standing))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
