//! The logs of one pipeline through all its revisions, worked out from the catalog on every node alike.
//!
//! A **line** is one unit's share on its node. Its logs follow one another: each closes into the next,
//! which takes over what it remembers. A revision that leaves a unit as it is leaves its log; one that
//! changes the unit is a new log of the same line. Revisions that lost to others have logs in it too.
//!
//! The facts say which log of a line should be written now (`wanted`), and which others it may have had.
//! In which order it really had them, and which of them were never born, stands in the logs themselves:
//! it begins with the first, and each `Close` names the next one. So a node that comes back late, or
//! revisions that win in turn, need no agreement: the node that holds a line writes its one way through
//! it, and its readers walk behind.
//!
//! The lines of a node that was **given up** stay where they are: nobody writes them any more, and what
//! their readers have of them is all there will be. Each share that stood on it goes to another node, as
//! the fact of the removal says, and begins a line of its own there: that node's `Reborn` of the dead log
//! bears the first log of it. (No other record could: births by revisions name the share, not the node.)

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::catalog::{CatalogRef, LogName, Share};
use super::facts::Facts;
use super::lineage::{Current, Known};
use super::placement::satisfies;
use crate::id::{Digest, LogId, Name, NodeId};
use crate::pipeline::manifest::{Connector, Manifest, Source, StreamName};
use crate::pipeline::plan::{Home, Plan, Role, Unit, UnitId, UnitInput};

/// One log of a pipeline that stands, and the unit whose actor writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    pub id: LogId,
    pub name: LogName,
    pub pipeline: Name,
    /// As the revision that bore the log has it.
    pub unit: Arc<Unit>,
    pub share: Share,
    pub node: NodeId,
    pub standing: Standing,
    /// Of the revision that stands.
    pub manifest: Arc<Manifest>,
    /// The birth of the unit that this log carries on.
    pub born: CatalogRef,
    /// Index into the layout's lines.
    pub line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its actor is at work, or will be once the log before it has closed.
    Written,
    /// A log of an earlier or superseded revision: read to its end, nothing enters it.
    ReadOnly,
}

/// One unit's share on its node, through all revisions that have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub unit: UnitId,
    /// The birth with which its unit began; none for a source, whose logs on a node are always one line.
    pub root: Option<CatalogRef>,
    pub share: Share,
    pub node: NodeId,
    /// Every log that it may have had or may get. Readers begin with the first.
    pub logs: Vec<Arc<Assigned>>,
    /// The log that should be written now; none: the unit is gone, or its revision lost.
    pub wanted: Option<LogId>,
    /// An actor that should be at work reads it, or has to read what is left of it; or a tap may.
    pub read: bool,
    /// Its node was given up: nothing more comes of it.
    pub gone: bool,
}

/// A share of the revision that stands whose node was given up, and who has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anew {
    pub unit: Arc<Unit>,
    root: CatalogRef,
    pub share: Share,
    /// The birth that it carries on.
    pub born: CatalogRef,
    pub from: NodeId,
    /// None: nobody was there to take it.
    pub heir: Option<NodeId>,
    /// The log that it stands in for.
    pub log: LogId,
    /// The new node has said so, and its log is born.
    pub begun: bool,
}

impl Line {
    pub fn first(&self) -> Option<&Arc<Assigned>> {
        self.logs.first()
    }

    pub fn log(&self, id: &LogId) -> Option<&Arc<Assigned>> {
        self.logs.iter().find(|log| log.id == *id)
    }

    /// The log behind all those that were read to their end, each named with the one that follows it.
    pub fn behind(&self, ended: &BTreeMap<LogId, LogId>) -> Option<&Arc<Assigned>> {
        let mut at = self.first()?.id;
        for _ in 0..=self.logs.len() {
            match ended.get(&at) {
                Some(next) => at = *next,
                None => break,
            }
        }
        self.log(&at)
    }

    pub fn wanted(&self) -> Option<&Arc<Assigned>> {
        self.wanted.as_ref().and_then(|id| self.log(id))
    }
}

/// A revision with its plan.
#[derive(Debug)]
pub(super) struct Era {
    known: Known,
    plan: Arc<Plan>,
    /// The birth with which each unit began, through every revision that kept it.
    roots: BTreeMap<UnitId, CatalogRef>,
}

impl Era {
    fn placed(&self, unit: &UnitId) -> &[NodeId] {
        let content = self.known.revision.content.as_ref();
        content.and_then(|content| content.placement.get(unit)).map_or(&[], Vec::as_slice)
    }
}

/// One pipeline that stands, worked out.
#[derive(Debug)]
pub struct Layout {
    pub current: Current,
    pub plan: Arc<Plan>,
    pub manifest: Arc<Manifest>,
    /// Every revision since the last removal, each behind the one that it follows; the one that stands last.
    eras: Vec<Era>,
    pub lines: Vec<Line>,
    /// The logs that should be written: units in plan order, then by share.
    pub logs: Vec<Arc<Assigned>>,
    /// Shares of nodes that were given up.
    pub anew: Vec<Anew>,
    /// For each line the lines that its actors read or have read.
    routes: Vec<Vec<usize>>,
}

/// How a line is found again: unit, root, share, node.
type Key = (UnitId, Option<CatalogRef>, Share, NodeId);

impl Layout {
    /// `plan_of` makes the plan of a revision; a revision without one (of a newer version, say) is left
    /// out, and without the one that stands there is no layout.
    pub(super) fn of(
        current: &Current,
        facts: &Facts,
        mut plan_of: impl FnMut(&Known) -> Option<Arc<Plan>>,
    ) -> Option<Layout> {
        let tip = Known {
            revision: current.revision.clone(),
            reference: current.reference,
            digest: current.digest,
        };
        let plan = plan_of(&tip)?;
        let manifest = Arc::new(current.deployed()?.manifest.clone());
        let mut known: Vec<Known> = current.superseded.iter().chain(&current.earlier).cloned().collect();
        known.retain(|known| known.revision.content.is_some());
        known.sort_by_key(|known| known.revision.height);
        known.push(tip);
        let mut eras: Vec<Era> = Vec::with_capacity(known.len());
        for known in known {
            let Some(plan) = plan_of(&known) else { continue };
            let before = eras.iter().find(|era| Some(era.known.digest) == known.revision.previous);
            let root = |id: &UnitId| before.and_then(|era| era.roots.get(id)).copied();
            let roots = plan
                .units
                .iter()
                .map(|unit| (unit.id.clone(), root(&unit.id).unwrap_or_else(|| known.birth(&unit.id))))
                .collect();
            eras.push(Era { known, plan, roots });
        }
        let mut drawing =
            Drawing { facts, eras: &eras, manifest: &manifest, lines: Vec::new(), index: BTreeMap::new() };
        drawing.sources(&current.revision.pipeline);
        drawing.begun_anew();
        for era in &eras {
            drawing.era(era);
        }
        let anew = drawing.eras.last().map(|tip| drawing.inherited(tip)).unwrap_or_default();
        let lines = drawing.finish(current);
        let mut layout = Layout {
            current: current.clone(),
            plan,
            manifest,
            eras,
            lines,
            logs: Vec::new(),
            anew,
            routes: Vec::new(),
        };
        layout.routes = layout.lines.iter().map(|line| layout.lines_read_by(line)).collect();
        let tapped: BTreeSet<usize> = layout.lines_with_a_stream().collect();
        for index in layout.routes.iter().flatten().chain(&tapped) {
            if let Some(line) = layout.lines.get_mut(*index) {
                line.read = true;
            }
        }
        for unit in &layout.plan.units {
            let mut of_unit: Vec<Arc<Assigned>> = layout
                .lines
                .iter()
                .filter(|line| line.unit == unit.id)
                .filter_map(|line| line.wanted().cloned())
                .collect();
            of_unit.sort_by_key(|log| log.share);
            layout.logs.extend(of_unit);
        }
        Some(layout)
    }

    /// The digest that users see.
    pub fn revision(&self) -> Option<Digest> {
        self.current.deployed().map(|deployed| deployed.digest)
    }

    pub fn line_of(&self, log: &Assigned) -> Option<&Line> {
        self.lines.get(log.line)
    }

    /// The lines that the reader's actor reads, in no order that matters.
    pub fn read_by(&self, reader: &Assigned) -> impl Iterator<Item = &Line> {
        let indices = self.routes.get(reader.line).into_iter().flatten();
        indices.filter_map(|index| self.lines.get(*index))
    }

    /// The lines whose logs carry the stream, in the revision that stands or in one before it.
    pub fn lines_of_stream(&self, stream: &StreamName) -> impl Iterator<Item = &Line> {
        let won: BTreeSet<Digest> = self.current.earlier.iter().map(|known| known.digest).collect();
        let stands = self.current.digest;
        let eras =
            self.eras.iter().filter(move |era| era.known.digest == stands || won.contains(&era.known.digest));
        let carry: Vec<(&Era, &UnitId)> = eras
            .flat_map(|era| era.plan.stream(stream).into_iter().map(move |(unit, _)| (era, &unit.id)))
            .collect();
        let carries =
            move |line: &&Line| carry.iter().any(|(era, unit)| **unit == line.unit && meets(era, line));
        self.lines.iter().filter(|line| !line.gone).filter(carries)
    }

    /// The lines that a tap of some stream would read.
    fn lines_with_a_stream(&self) -> impl Iterator<Item = usize> {
        let won: BTreeSet<Digest> = self.current.earlier.iter().map(|known| known.digest).collect();
        let counts =
            move |era: &&Era| era.known.digest == self.current.digest || won.contains(&era.known.digest);
        let eras: Vec<&Era> = self.eras.iter().filter(counts).collect();
        let gives = move |line: &Line| {
            eras.iter().any(|era| {
                let unit = era.plan.unit(&line.unit).filter(|_| meets(era, line));
                unit.is_some_and(|unit| !unit.chain.outputs.is_empty())
            })
        };
        let lines = self.lines.iter().enumerate();
        lines.filter(move |(_, line)| !line.gone && gives(line)).map(|(index, _)| index)
    }

    /// Every log whose actor must pass this one before it may go.
    pub fn readers<'a>(&'a self, log: &'a Assigned) -> impl Iterator<Item = &'a Arc<Assigned>> + 'a {
        let reading = self.lines.iter().zip(&self.routes).filter(|(_, route)| route.contains(&log.line));
        reading.filter_map(|(line, _)| line.wanted()).filter(|reader| self.inputs(reader, log).is_some())
    }

    /// How the reader's actor reads this log: for each of the log's outputs that it takes, the input of
    /// the reader's unit. Empty: it only passes through. None: it does not read it.
    pub fn inputs(&self, reader: &Assigned, log: &Assigned) -> Option<BTreeMap<u16, u16>> {
        let (line, upper) = (self.line_of(reader)?, self.line_of(log)?);
        if reader.unit.home == Home::WithInput && reader.node != log.node {
            return None;
        }
        let wired = |eras: &mut dyn Iterator<Item = &Era>| {
            let mut paired = eras.map(|era| self.paired(era, line, upper, log.born));
            let paired = paired.find(|paired| !paired.is_empty())?;
            let to = |input: &UnitInput| reader.unit.input_for(input);
            Some(paired.iter().map(|input| (input.output, to(input))).collect())
        };
        // First the revisions that have the reader as it is, then those before it, which had another one.
        // Only what nothing else says is taken from rivals: which of them a node knows is chance.
        let own = |era: &&Era| era.known.birth(&line.unit) == reader.born;
        if let Some(inputs) = wired(&mut self.eras.iter().filter(own)) {
            return Some(inputs);
        }
        if reader.standing == Standing::Written && upper.wanted == Some(log.id) {
            return None;
        }
        let bore = self.eras.iter().find(|era| era.known.reference == reader.born);
        let mut before = core::iter::successors(bore, |era| {
            self.eras.iter().find(|other| Some(other.known.digest) == era.known.revision.previous)
        });
        wired(&mut before).or_else(|| wired(&mut self.eras.iter())).or_else(|| self.history(reader, log))
    }

    /// The inputs by which, in this revision, the unit of `line` reads that birth of the unit of `upper`.
    fn paired<'a>(&self, era: &'a Era, line: &Line, upper: &Line, born: CatalogRef) -> Vec<&'a UnitInput> {
        let same = line.root.is_none() || era.roots.get(&line.unit) == line.root.as_ref();
        let Some(unit) = era.plan.unit(&line.unit).filter(|_| same) else { return Vec::new() };
        let reads = |input: &&UnitInput| {
            input.unit == upper.unit && meets(era, upper) && era.known.birth(&input.unit) == born
        };
        unit.inputs.iter().filter(reads).collect()
    }

    /// What a log of an earlier revision holds of the streams that the reader reads now.
    fn history(&self, reader: &Assigned, log: &Assigned) -> Option<BTreeMap<u16, u16>> {
        let line = self.line_of(reader)?;
        let era =
            self.eras.iter().rev().find(|era| {
                era.known.birth(&line.unit) == reader.born && era.plan.unit(&line.unit).is_some()
            })?;
        if !meets(era, self.line_of(log)?) {
            return None;
        }
        let mut reads = false;
        let mut inputs = BTreeMap::new();
        for input in reader.unit.inputs.iter().filter(|input| input.unit == log.unit.id) {
            reads = true;
            let now = era.plan.unit(&input.unit)?.chain.outputs.get(usize::from(input.output))?;
            let alike = |output: &crate::pipeline::plan::Output| {
                output.stream == now.stream && output.rekeyed == now.rekeyed
            };
            if let Some((_, output)) =
                log.unit.chain.outputs.iter().zip(0u16..).find(|(output, _)| alike(output))
            {
                inputs.insert(output, reader.unit.input_for(input));
            }
        }
        reads.then_some(inputs)
    }

    fn lines_read_by(&self, line: &Line) -> Vec<usize> {
        if line.wanted.is_none() {
            return Vec::new();
        }
        let mut read = BTreeSet::new();
        for era in &self.eras {
            if era.roots.get(&line.unit) != line.root.as_ref() && line.root.is_some() {
                continue;
            }
            let Some(unit) = era.plan.unit(&line.unit) else { continue };
            for input in &unit.inputs {
                for (index, upper) in self.lines.iter().enumerate() {
                    let near = unit.home != Home::WithInput || upper.node == line.node;
                    if upper.unit == input.unit && near && meets(era, upper) {
                        read.insert(index);
                    }
                }
            }
        }
        read.into_iter().collect()
    }

    /// Whether a connector on this node feeds the source.
    pub(super) fn feeds(&self, node: &NodeId, unit: &Unit, source: &Source, facts: &Facts) -> bool {
        let Some(deployed) = self.current.deployed() else { return false };
        match source.connector {
            Connector::Publish => false,
            Connector::File { .. } => {
                match deployed.placement.get(&unit.id).and_then(|nodes| nodes.first()) {
                    Some(home) => home == node,
                    None => deployed.taken_by == *node,
                }
            }
            Connector::Host { .. } => {
                let rule = self.manifest.placement.get(&unit.id.name);
                facts.nodes().get(node).is_some_and(|facts| satisfies(facts, rule))
            }
        }
    }

    /// The sources whose files this node reads, or would.
    pub fn files_read_by(&self, node: &NodeId) -> Vec<Name> {
        let Some(deployed) = self.current.deployed() else { return Vec::new() };
        let homes = |unit: &Unit| deployed.placement.get(&unit.id).and_then(|nodes| nodes.first()).copied();
        let reads = |unit: &&Unit| match &unit.home {
            Home::Entry(Source { connector: Connector::File { .. }, .. }) => {
                homes(unit).unwrap_or(deployed.taken_by) == *node
            }
            Home::Entry(_) | Home::WithInput | Home::Shares(_) | Home::Single => false,
        };
        self.plan.units.iter().filter(reads).map(|unit| unit.id.name.clone()).collect()
    }

    /// The revisions that the layout was made of.
    pub(super) fn is_era(&self, record: CatalogRef) -> bool {
        self.eras.iter().any(|era| era.known.reference == record)
    }
}

/// Whether the line is one of its unit in this revision: begun with the same birth, or a source's.
fn meets(era: &Era, line: &Line) -> bool {
    line.root.is_none() || era.roots.get(&line.unit) == line.root.as_ref()
}

/// Lines in the making.
struct Drawing<'a> {
    facts: &'a Facts,
    eras: &'a [Era],
    manifest: &'a Arc<Manifest>,
    lines: Vec<Line>,
    index: BTreeMap<Key, usize>,
}

impl Drawing<'_> {
    /// A source's logs on one node are one line, in the order in which the node opened them: what earlier
    /// and superseded revisions took was acknowledged.
    fn sources(&mut self, pipeline: &Name) {
        let mut units: BTreeMap<&Name, BTreeMap<CatalogRef, &Unit>> = BTreeMap::new();
        for era in self.eras {
            for unit in era.plan.units.iter().filter(|unit| unit.id.role == Role::Source) {
                units.entry(&unit.id.name).or_default().insert(era.known.birth(&unit.id), unit);
            }
        }
        let mut opened: Vec<_> = self.facts.sources_opened(pipeline).collect();
        opened.sort_by_key(|log| (log.node, log.opened.seq));
        for log in opened {
            let Some(unit) = units.get(&log.source).and_then(|births| births.get(&log.born)) else {
                continue;
            };
            let share = Share::Node(log.node);
            let line = self.line((unit.id.clone(), None, share, log.node));
            self.add(line, log.opened, log.born, &Arc::new(Unit::clone(unit)));
        }
    }

    /// What other nodes began in place of logs of nodes that were given up: in the order in which each of
    /// them said so, since that is the order in which it wrote them.
    fn begun_anew(&mut self) {
        let mut begun: Vec<(CatalogRef, NodeId, Anew)> = Vec::new();
        for era in self.eras {
            for inherited in self.inherited(era) {
                let others = self.facts.begun_anew(inherited.log).filter(|(node, _)| *node != inherited.from);
                begun.extend(others.map(|(node, at)| (at, node, inherited.clone())));
            }
        }
        begun.sort_by_key(|(at, ..)| *at);
        for (at, node, Anew { unit, root, share, born, .. }) in begun {
            let line = self.line((unit.id.clone(), Some(root), share, node));
            self.add(line, at, born, &unit);
        }
    }

    /// The shares of this revision whose nodes were given up.
    fn inherited(&self, era: &Era) -> Vec<Anew> {
        let mut inherited = Vec::new();
        for unit in &era.plan.units {
            let (Home::Shares(_) | Home::Single, Some(root)) = (&unit.home, era.roots.get(&unit.id)) else {
                continue;
            };
            let nodes = era.placed(&unit.id);
            let of = nodes.len() as u16;
            let born = era.known.birth(&unit.id);
            for (index, from) in (0u16..).zip(nodes).filter(|(_, node)| self.facts.is_removed(node)) {
                let share = Share::Slots { index, of };
                let pipeline = self.manifest.name.clone();
                let heir = self.facts.heir(from, &pipeline, &unit.id, index);
                let log = LogName::Actor { pipeline, born, unit: unit.id.clone(), share }.id();
                let begun = heir.is_some_and(|heir| self.facts.reborn(&log, heir).is_some());
                let unit = Arc::new(unit.clone());
                inherited.push(Anew { unit, root: *root, share, born, from: *from, heir, log, begun });
            }
        }
        inherited
    }

    fn era(&mut self, era: &Era) {
        let mut holders: BTreeMap<&UnitId, BTreeSet<NodeId>> = BTreeMap::new();
        for unit in &era.plan.units {
            let born = era.known.birth(&unit.id);
            let homes: Vec<(Share, NodeId)> = match &unit.home {
                Home::Entry(_) => {
                    let opened = self.lines.iter().filter(|line| line.unit == unit.id);
                    holders.insert(&unit.id, opened.map(|line| line.node).collect());
                    continue;
                }
                Home::WithInput => {
                    let inputs = unit.inputs.iter().filter_map(|input| holders.get(&input.unit)).flatten();
                    let nodes: BTreeSet<NodeId> = inputs.copied().collect();
                    nodes.into_iter().map(|node| (Share::Node(node), node)).collect()
                }
                Home::Shares(_) | Home::Single => {
                    let nodes = era.placed(&unit.id);
                    let of = nodes.len() as u16;
                    (0u16..).zip(nodes).map(|(index, node)| (Share::Slots { index, of }, *node)).collect()
                }
            };
            let at = homes.iter().map(|(_, node)| *node);
            let anew = self.lines.iter().filter(|line| line.unit == unit.id && meets(era, line));
            holders.insert(&unit.id, at.chain(anew.map(|line| line.node)).collect());
            let Some(root) = era.roots.get(&unit.id).copied() else { continue };
            let shared = Arc::new(unit.clone());
            for (share, node) in homes {
                let line = self.line((unit.id.clone(), Some(root), share, node));
                self.begin(line, root);
                self.add(line, born, born, &shared);
            }
        }
    }

    fn line(&mut self, key: Key) -> usize {
        if let Some(index) = self.index.get(&key) {
            return *index;
        }
        let (unit, root, share, node) = key.clone();
        let gone = self.facts.is_removed(&node);
        self.lines.push(Line { unit, root, share, node, logs: Vec::new(), wanted: None, read: false, gone });
        self.index.insert(key, self.lines.len() - 1);
        self.lines.len() - 1
    }

    /// Every line of a unit begins with the birth with which the unit began, also where it came later: so
    /// all nodes agree on the first log, whatever they know of revisions beside.
    fn begin(&mut self, line: usize, root: CatalogRef) {
        let Some(Line { unit, logs, .. }) = self.lines.get(line) else { return };
        if !logs.is_empty() {
            return;
        }
        let first =
            self.eras.iter().find(|era| era.known.birth(unit) == root && era.plan.unit(unit).is_some());
        if let Some(unit) = first.and_then(|era| era.plan.unit(unit)) {
            self.add(line, root, root, &Arc::new(unit.clone()));
        }
    }

    /// One more log of the line, and those that were borne in its place.
    fn add(&mut self, line: usize, named: CatalogRef, born: CatalogRef, unit: &Arc<Unit>) {
        let Some(drawn) = self.lines.get_mut(line) else { return };
        let mut named = Some(named);
        while let Some(at) = named {
            let name = LogName::Actor {
                pipeline: self.manifest.name.clone(),
                born: at,
                unit: unit.id.clone(),
                share: drawn.share,
            };
            let id = name.id();
            if drawn.log(&id).is_none() {
                drawn.logs.push(Arc::new(Assigned {
                    id,
                    name,
                    pipeline: self.manifest.name.clone(),
                    unit: unit.clone(),
                    share: drawn.share,
                    node: drawn.node,
                    standing: Standing::ReadOnly,
                    manifest: self.manifest.clone(),
                    born,
                    line,
                }));
            }
            named = self.facts.reborn(&id, drawn.node);
        }
    }

    /// Which log of each line should be written: the newest of the birth that stands.
    fn finish(mut self, current: &Current) -> Vec<Line> {
        let Some(tip) = self.eras.last() else { return Vec::new() };
        let inherited = self.inherited(tip);
        for line in &mut self.lines {
            // A share has one node: of those that began it anew the one that the facts name.
            let of_another = || {
                let share = inherited.iter().find(|one| one.unit.id == line.unit && one.share == line.share);
                share.is_some_and(|one| one.heir != Some(line.node))
            };
            let stands = tip.plan.unit(&line.unit).is_some() && meets(tip, line);
            let stands = stands && !line.gone && !of_another();
            let born = current.birth(&line.unit);
            let wanted = line.logs.iter().rposition(|log| stands && log.born == born);
            if let Some(log) = wanted.and_then(|at| line.logs.get_mut(at)) {
                let log = Arc::make_mut(log);
                log.standing = Standing::Written;
                line.wanted = Some(log.id);
            }
        }
        self.lines
    }
}

#[cfg(test)]
mod tests;
