//! The mesh's wiring as this node reads it from the catalog: pipelines, their logs, streams, shares.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::id::{Digest, LogId, Name, NodeId};
use crate::mesh::assignment::{Anew, Assigned, Assignment, Layout, Line};
use crate::mesh::catalog::Share;
use crate::mesh::facts::Facts;
use crate::pipeline::manifest::{Manifest, StreamName};
use crate::pipeline::plan::{Head, Plan, Role, UnitId};

#[derive(Debug, Default)]
pub(super) struct Wiring(Assignment);

/// A line of `show`: a source, stage or sink, and the units whose actors run it.
pub(super) struct Row {
    pub name: String,
    pub from: Vec<String>,
    pub units: Vec<UnitId>,
}

impl Wiring {
    pub fn refresh(&mut self, facts: &Facts) -> bool {
        self.0.refresh(facts, |manifest| Some(Plan::of(manifest)))
    }

    pub fn assignment(&self) -> &Assignment {
        &self.0
    }

    fn layout(&self, pipeline: &Name) -> Option<&Layout> {
        self.0.pipelines().get(pipeline)
    }

    pub fn manifest(&self, pipeline: &Name) -> Option<&Arc<Manifest>> {
        self.layout(pipeline).map(|layout| &layout.manifest)
    }

    pub fn plan(&self, pipeline: &Name) -> Option<&Arc<Plan>> {
        self.layout(pipeline).map(|layout| &layout.plan)
    }

    pub fn revision(&self, pipeline: &Name) -> Option<Digest> {
        self.layout(pipeline)?.revision()
    }

    pub fn writer_of(&self, log: &LogId) -> Option<NodeId> {
        self.0.log(log).map(|assigned| assigned.node)
    }

    pub fn logs_of(&self, pipeline: &Name) -> impl Iterator<Item = (LogId, NodeId)> {
        self.0.all_logs(pipeline).iter().map(|assigned| (assigned.id, assigned.node))
    }

    pub fn units_of(&self, pipeline: &Name) -> impl Iterator<Item = (LogId, NodeId, UnitId)> {
        self.0
            .all_logs(pipeline)
            .iter()
            .map(|assigned| (assigned.id, assigned.node, assigned.unit.id.clone()))
    }

    /// Shares of nodes that were given up which have not begun on their new nodes.
    pub fn to_begin(&self, pipeline: &Name) -> impl Iterator<Item = &Anew> {
        self.layout(pipeline).into_iter().flat_map(|layout| &layout.anew).filter(|one| !one.begun)
    }

    pub fn has_stream(&self, pipeline: &Name, stream: &StreamName) -> bool {
        self.plan(pipeline).is_some_and(|plan| !plan.stream(stream).is_empty())
    }

    pub fn stream_names(&self, pipeline: &Name) -> Vec<String> {
        let Some(plan) = self.plan(pipeline) else { return Vec::new() };
        let outputs = plan.units.iter().flat_map(|unit| &unit.chain.outputs);
        let names: BTreeSet<String> = outputs
            .filter(|output| output.rekeyed.is_none())
            .map(|output| output.stream.to_string())
            .collect();
        names.into_iter().collect()
    }

    /// Whether the log is one that carries the stream, or did in an earlier revision.
    pub fn carries(&self, pipeline: &Name, stream: &StreamName, log: &LogId) -> bool {
        let Some(layout) = self.layout(pipeline) else { return false };
        layout.lines_of_stream(stream).any(|line| line.log(log).is_some())
    }

    /// Of every line that carries a part of the stream, or did in an earlier revision, the log behind those
    /// that `ended` names, with the outputs that are it.
    pub fn logs_of_stream(
        &self,
        pipeline: &Name,
        stream: &StreamName,
        ended: &BTreeMap<LogId, LogId>,
    ) -> Vec<(LogId, NodeId, Vec<u16>)> {
        let Some(layout) = self.layout(pipeline) else { return Vec::new() };
        let at = |line: &Line| {
            let log = line.behind(ended)?;
            let outputs = log.unit.chain.outputs.iter().zip(0u16..);
            let outputs = outputs.filter(|(output, _)| output.stream == *stream && output.rekeyed.is_none());
            Some((log.id, log.node, outputs.map(|(_, index)| index).collect()))
        };
        layout.lines_of_stream(stream).filter_map(at).collect()
    }

    /// The actors of a stage that heads a unit: those that may keep state.
    pub fn shares_of_stage(&self, pipeline: &Name, stage: &Name) -> Vec<(LogId, NodeId, Share)> {
        let heads = |log: &&Arc<Assigned>| {
            log.unit.id.name == *stage && matches!(log.unit.id.role, Role::Stage | Role::Sink)
        };
        self.0.all_logs(pipeline).iter().filter(heads).map(|log| (log.id, log.node, log.share)).collect()
    }

    /// What `show` lists, in the plan's order.
    pub fn rows_of(&self, pipeline: &Name) -> Vec<Row> {
        let (Some(plan), Some(manifest)) = (self.plan(pipeline), self.manifest(pipeline)) else {
            return Vec::new();
        };
        let mut rows: Vec<Row> = Vec::new();
        for unit in &plan.units {
            let mut names: Vec<String> = match &unit.chain.head {
                Head::None => alloc::vec![unit.id.name.to_string()],
                Head::Pass => Vec::new(),
                Head::Wasm { stage, .. }
                | Head::Learn { stage, .. }
                | Head::Forecast { stage, .. }
                | Head::Anomaly { stage, .. } => alloc::vec![stage.to_string()],
                Head::Sink { sink, .. } => alloc::vec![sink.to_string()],
            };
            names.extend(
                unit.chain
                    .outputs
                    .iter()
                    .filter(|output| output.rekeyed.is_none() && output.stream.side.is_none())
                    .map(|output| output.stream.base.to_string()),
            );
            for name in names {
                match rows.iter_mut().find(|row| row.name == name) {
                    Some(row) if !row.units.contains(&unit.id) => row.units.push(unit.id.clone()),
                    Some(_) => {}
                    None => {
                        let from = from_of(manifest, &name);
                        rows.push(Row { name, from, units: alloc::vec![unit.id.clone()] });
                    }
                }
            }
        }
        rows
    }
}

fn from_of(manifest: &Manifest, name: &str) -> Vec<String> {
    let stage = manifest.stages.iter().find(|(of, _)| of.as_str() == name).map(|(_, stage)| &stage.from);
    let sink = manifest.sinks.iter().find(|(of, _)| of.as_str() == name).map(|(_, sink)| &sink.from);
    stage.or(sink).into_iter().flatten().map(ToString::to_string).collect()
}
