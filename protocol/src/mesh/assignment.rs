//! All pipelines' layouts, kept until the facts change: which logs exist, where each is written, and who
//! reads whom.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::catalog::{CatalogEntry, LogName};
use super::facts::Facts;
pub use super::layout::{Anew, Assigned, Layout, Line, Standing};
use super::lineage::Known;
use crate::id::{Digest, LogId, Name, NodeId};
use crate::pipeline::manifest::Manifest;
use crate::pipeline::plan::{Home, Plan, Role, UnitId};

/// What a log on a disk is to the pipelines that stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// One of its pipeline's lines has it: it is written, or it stays for its readers.
    Held,
    /// Its pipeline was removed since: the log may go.
    Removed,
    /// The catalog does not know it (yet): it stays as it is.
    Unknown,
}

/// All pipelines' layouts, for one version of the facts.
#[derive(Debug, Default)]
pub struct Assignment {
    version: Option<u64>,
    /// Plans of revisions, by their records' digests.
    plans: BTreeMap<Digest, Option<Arc<Plan>>>,
    layouts: BTreeMap<Name, Layout>,
    by_log: BTreeMap<LogId, Arc<Assigned>>,
}

impl Assignment {
    /// Works everything out anew if the facts changed; true when it did. `plan_of` makes a manifest's
    /// plan; a pipeline without one (of a newer version, say) is left out.
    pub fn refresh(&mut self, facts: &Facts, plan_of: impl Fn(&Manifest) -> Option<Plan>) -> bool {
        if self.version == Some(facts.version()) {
            return false;
        }
        self.version = Some(facts.version());
        let mut old = core::mem::take(&mut self.plans);
        let plans = &mut self.plans;
        let mut plan = |known: &Known| {
            let content = known.revision.content.as_ref()?;
            let made =
                || old.remove(&known.digest).unwrap_or_else(|| plan_of(&content.manifest).map(Arc::new));
            plans.entry(known.digest).or_insert_with(made).clone()
        };
        self.layouts = facts
            .pipelines()
            .iter()
            .filter_map(|(name, current)| Some((name.clone(), Layout::of(current, facts, &mut plan)?)))
            .collect();
        let lines = self.layouts.values().flat_map(|layout| &layout.lines);
        self.by_log = lines.flat_map(|line| &line.logs).map(|log| (log.id, log.clone())).collect();
        true
    }

    pub fn pipelines(&self) -> &BTreeMap<Name, Layout> {
        &self.layouts
    }

    /// The lines of this node, each behind those that it reads there.
    pub fn lines_on(&self, node: NodeId) -> impl Iterator<Item = &Line> {
        self.layouts.values().flat_map(|layout| &layout.lines).filter(move |line| line.node == node)
    }

    /// The pipeline's logs that should be written.
    pub fn all_logs(&self, pipeline: &Name) -> &[Arc<Assigned>] {
        self.layouts.get(pipeline).map_or(&[], |layout| layout.logs.as_slice())
    }

    /// Any log of any line.
    pub fn log(&self, id: &LogId) -> Option<&Arc<Assigned>> {
        self.by_log.get(id)
    }

    pub fn layout_of(&self, log: &Assigned) -> Option<&Layout> {
        self.layouts.get(&log.pipeline)
    }

    pub fn line_of(&self, id: &LogId) -> Option<&Line> {
        let log = self.log(id)?;
        self.layout_of(log)?.line_of(log)
    }

    /// The log into which events of a source enter on this node now, once it is opened.
    pub fn source_log(&self, node: &NodeId, pipeline: &Name, source: &Name) -> Option<&Arc<Assigned>> {
        self.all_logs(pipeline)
            .iter()
            .find(|log| log.node == *node && log.unit.id.role == Role::Source && log.unit.id.name == *source)
    }

    /// What opens a source's log on a node: an entry for that node's catalog log. None: no such source.
    pub fn opening(&self, pipeline: &Name, source: &Name) -> Option<CatalogEntry> {
        let layout = self.layouts.get(pipeline)?;
        let unit = UnitId { role: Role::Source, name: source.clone() };
        layout.plan.unit(&unit)?;
        let born = layout.current.birth(&unit);
        Some(CatalogEntry::SourceOpened { pipeline: pipeline.clone(), source: source.clone(), born })
    }

    /// The openings that a node owes at once: its connectors' sources whose logs are not open yet, those
    /// that take over from a log of an earlier revision, and shares of nodes that were given up.
    pub fn openings_due(&self, node: &NodeId, facts: &Facts) -> Vec<CatalogEntry> {
        let mut due = Vec::new();
        for (pipeline, layout) in &self.layouts {
            for unit in &layout.plan.units {
                let Home::Entry(source) = &unit.home else { continue };
                let name = &unit.id.name;
                let before = || layout.lines.iter().any(|line| line.node == *node && line.unit == unit.id);
                let owed = layout.feeds(node, unit, source, facts) || before();
                if owed && self.source_log(node, pipeline, name).is_none() {
                    due.extend(self.opening(pipeline, name));
                }
            }
            let owed = layout.anew.iter().filter(|one| one.heir == Some(*node) && !one.begun);
            due.extend(owed.map(|one| CatalogEntry::Reborn {
                pipeline: pipeline.clone(),
                log: one.log,
                born: one.born,
            }));
        }
        due
    }

    /// What becomes of a log that is on a disk.
    pub fn fate(&self, name: &LogName, facts: &Facts) -> Fate {
        let LogName::Actor { pipeline, born, .. } = name else { return Fate::Unknown };
        if self.by_log.contains_key(&name.id()) {
            return Fate::Held;
        }
        let (Some(tip), true) = (facts.tip(pipeline), facts.knows(*born)) else { return Fate::Unknown };
        if tip.deployed().is_none() {
            return Fate::Removed;
        }
        // Of a revision before the last removal. One that hangs in the air may come to stand again.
        let born = facts.birth_behind(pipeline, *born);
        let Some(layout) = self.layouts.get(pipeline) else { return Fate::Unknown };
        match facts.is_revision(pipeline, born) && !layout.is_era(born) {
            true => Fate::Removed,
            false => Fate::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
