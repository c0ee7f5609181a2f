//! What this node says of itself, its actors and the mesh: the answers to `status`, `nodes`,
//! `pipelines` and `show`.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::Peer;
use crate::id::{Digest, LogId, Name, NodeId, SLOTS};
use crate::log::writer::Log;
use crate::mesh::assignment::Standing;
use crate::mesh::catalog::LogName;
use crate::pipeline::manifest::StreamName;
use crate::pipeline::plan::UnitId;
use crate::rpc::{
    ActorReport, ActorStatus, FanOut, Liveness, NodeStatus, PipelineState, PipelineStatus, Shown,
    StageStatus, Status, Superseded,
};
use crate::time::Time;

impl Peer {
    pub(super) fn status(&self) -> Status {
        let paused = self
            .actors
            .iter()
            .filter_map(|(log, actor)| actor.trouble().map(|trouble| format!("actor {log}: {trouble}")));
        let damaged = self
            .logs
            .iter()
            .filter_map(|(log, writer)| Some((log, writer.damage.as_ref()?)))
            .filter(|(_, damage)| self.outdated.as_ref() != Some(damage))
            .map(|(log, damage)| format!("log {log}: {damage}"));
        let outdated = self.outdated.iter().cloned();
        Status {
            node: self.me,
            mesh: self.mesh.clone(),
            version: self.own_facts.version.clone(),
            peers: self.connected.len() as u32,
            pipelines: self.catalog.facts().pipelines().len() as u32,
            rss_bytes: self.measured.0,
            disk_bytes: self.measured.1,
            uptime_ms: self.now.since(self.started_at).0,
            troubles: outdated
                .chain(self.troubles.values().cloned())
                .chain(paused)
                .chain(damaged)
                .take(100)
                .collect(),
        }
    }

    /// This node's actors and source logs as it sees them.
    pub(super) fn reports(&self, pipeline: Option<&Name>) -> Vec<ActorReport> {
        let mut reports = self.reports_of_logs(pipeline);
        for log in self.held_up.keys().filter(|log| !self.logs.contains_key(log)) {
            let Some(assigned) = self.wiring.assignment().log(log) else { continue };
            if pipeline.is_none_or(|wanted| *wanted == assigned.pipeline) {
                reports.push(ActorReport {
                    pipeline: assigned.pipeline.clone(),
                    unit: assigned.unit.id.clone(),
                    status: self.absent(*log, self.me),
                    waiting: Vec::new(),
                    by_gossip: Vec::new(),
                });
            }
        }
        reports
    }

    fn reports_of_logs(&self, pipeline: Option<&Name>) -> Vec<ActorReport> {
        let wanted = |name: &LogName| match name {
            LogName::Actor { pipeline: of, unit, .. } if pipeline.is_none_or(|wanted| wanted == of) => {
                Some((of.clone(), unit.clone()))
            }
            LogName::Actor { .. } | LogName::Catalog(_) => None,
        };
        self.logs
            .iter()
            // Logs that only stay for their readers are no actors.
            .filter(|(log, _)| {
                let assigned = self.wiring.assignment().log(log);
                assigned.is_none_or(|assigned| assigned.standing == Standing::Written)
            })
            .filter_map(|(log, writer)| {
                let (pipeline, unit) = wanted(&writer.name)?;
                let (status, waiting) = (self.actor_status(*log)?, self.waiting_for(writer));
                let by_gossip = self.streams_by_gossip(log);
                Some(ActorReport { pipeline, unit, status, waiting, by_gossip })
            })
            .collect()
    }

    fn streams_by_gossip(&self, log: &LogId) -> Vec<(StreamName, Vec<NodeId>)> {
        let outputs = self.wiring.assignment().log(log).map(|assigned| &assigned.unit.chain.outputs);
        let stream = |index: &u16| Some(outputs?.get(usize::from(*index))?.stream.clone());
        let by_gossip = self.fanout.by_gossip(log).into_iter();
        by_gossip.filter_map(|(outputs, nodes)| Some((outputs.first().and_then(stream)?, nodes))).collect()
    }

    /// What readers of this log that are away have not committed, as many events as their share of it.
    fn waiting_for(&self, writer: &Log) -> Vec<(LogId, u64)> {
        let away = writer.readers().filter_map(|(reader, at)| {
            let assigned = self.wiring.assignment().log(&reader)?;
            let slots = assigned.share.slots();
            let behind = match self.liveness(assigned.node) {
                Liveness::Alive => return None,
                Liveness::Suspect | Liveness::Gone => writer.events_behind(at.seq),
            };
            let of = u128::from(behind) * u128::from(slots.end - slots.first);
            Some((reader, u64::try_from(of.div_ceil(u128::from(SLOTS))).unwrap_or(u64::MAX)))
        });
        away.filter(|(_, events)| *events > 0).collect()
    }

    fn actor_status(&self, log: LogId) -> Option<ActorStatus> {
        let writer = self.logs.get(&log)?;
        let mut status = ActorStatus {
            actor: log,
            node: self.me,
            keepers: alloc::vec![self.me],
            epoch: writer.epoch().0,
            committed: writer.persisted().seq.0,
            events_in: 0,
            events_out: 0,
            lag: 0,
            watermark: None,
            parked: 0,
            dead: 0,
            rejected: 0,
            trouble: writer.damage.clone(),
        };
        if let Some(source) = self.sources.get(&log) {
            if let Some(connector) = self.connectors.get(&log) {
                status.rejected = connector.rejected;
                status.trouble = status.trouble.or_else(|| connector.trouble.clone());
            }
            status.events_in = source.memory.events;
            status.events_out = source.memory.events;
            status.watermark = Some(source.memory.watermark).filter(|at| *at > Time(0));
        }
        if let Some(actor) = self.actors.get(&log) {
            status.events_in = actor.memory.events_in;
            status.events_out = actor.memory.events_out;
            status.lag = actor.lag() + self.unheard(log);
            status.watermark = Some(actor.memory.watermark).filter(|at| *at > Time(0));
            status.parked = actor.memory.parked.len() as u64;
            status.dead = actor.memory.dead.len() as u64;
            status.trouble = status.trouble.or_else(|| actor.trouble().cloned());
            if !actor.is_ready() && status.trouble.is_none() {
                status.trouble = Some("it is starting".to_string());
            }
        }
        if !self.sources.contains_key(&log) && !self.actors.contains_key(&log) {
            status.epoch = 0;
            status.trouble.get_or_insert_with(|| "it is taking over from the log before it".to_string());
        }
        if writer.is_full() {
            status.trouble.get_or_insert_with(|| {
                "its log is full of records that readers have not passed; it waits for them".to_string()
            });
        }
        Some(status)
    }

    /// Upstream logs of which nothing was heard yet count as one event each, so that a lag of zero
    /// means that all is done. Those of nodes that are away do not: what they hold waits there.
    fn unheard(&self, log: LogId) -> u64 {
        self.readers
            .values()
            .filter(|reader| reader.owner == crate::edge::reader::Owner::Actor(log) && !reader.is_live())
            .filter(|reader| {
                // Nobody waits for a node that was given up: should somebody do so, it shows.
                self.liveness(reader.writer) == Liveness::Alive
                    || self.catalog.facts().is_removed(&reader.writer)
            })
            .count() as u64
    }

    pub(super) fn node_statuses(&self, reports: &[ActorReport]) -> Vec<NodeStatus> {
        self.catalog
            .facts()
            .nodes()
            .iter()
            .filter(|(node, _)| !self.catalog.facts().is_removed(node))
            .map(|(node, facts)| NodeStatus {
                node: *node,
                state: self.liveness(*node),
                labels: facts.labels.clone(),
                actors: reports.iter().filter(|report| report.status.node == *node).count() as u32,
                addresses: facts.addresses.clone(),
            })
            .collect()
    }

    pub(super) fn liveness(&self, node: NodeId) -> Liveness {
        if node == self.me { Liveness::Alive } else { self.membership.liveness(&node) }
    }

    pub(super) fn pipeline_statuses(&self, reports: &[ActorReport]) -> Vec<PipelineStatus> {
        let names: Vec<Name> = self.catalog.facts().pipelines().keys().cloned().collect();
        names
            .into_iter()
            .filter_map(|pipeline| {
                let revision = self.wiring.revision(&pipeline)?;
                let actors = self.wiring.logs_of(&pipeline).count() as u32;
                let state = self.pipeline_state(&pipeline, reports);
                Some(PipelineStatus { pipeline, revision, state, actors })
            })
            .collect()
    }

    /// Running: every log that should be is reported, without trouble.
    fn pipeline_state(&self, pipeline: &Name, reports: &[ActorReport]) -> PipelineState {
        let sound: BTreeMap<LogId, bool> = reports
            .iter()
            .filter(|report| &report.pipeline == pipeline)
            .map(|report| (report.status.actor, report.status.trouble.is_none() && report.status.epoch > 0))
            .collect();
        let all = self.wiring.logs_of(pipeline).all(|(log, _)| sound.get(&log) == Some(&true))
            && self.wiring.to_begin(pipeline).next().is_none();
        if all { PipelineState::Running } else { PipelineState::Degraded }
    }

    pub(super) fn shown(&self, pipeline: &Name, reports: &[ActorReport]) -> Option<Shown> {
        let manifest = self.wiring.manifest(pipeline)?;
        let mut stages: Vec<StageStatus> = Vec::new();
        let mut by_unit: BTreeMap<UnitId, Vec<ActorStatus>> = BTreeMap::new();
        let reported: BTreeMap<LogId, &ActorStatus> =
            reports.iter().map(|report| (report.status.actor, &report.status)).collect();
        let mut waiting: BTreeMap<LogId, u64> = BTreeMap::new();
        for (reader, events) in reports.iter().flat_map(|report| &report.waiting) {
            *waiting.entry(*reader).or_default() += events;
        }
        for (log, node, unit) in self.wiring.units_of(pipeline) {
            let absent = || {
                let lag = waiting.get(&log).copied().unwrap_or(0);
                ActorStatus { lag, ..self.absent(log, node) }
            };
            let status = reported.get(&log).map_or_else(absent, |status| (*status).clone());
            by_unit.entry(unit).or_default().push(status);
        }
        for anew in self.wiring.to_begin(pipeline) {
            let node = anew.heir.unwrap_or(anew.from);
            let trouble = match anew.heir {
                Some(heir) => format!("node {} was removed; it is to start anew on node {heir}", anew.from),
                None => format!("node {} was removed, and no node was there to take it", anew.from),
            };
            let status = ActorStatus { trouble: Some(trouble), ..self.absent(anew.log, node) };
            by_unit.entry(anew.unit.id.clone()).or_default().push(status);
        }
        for row in self.wiring.rows_of(pipeline) {
            let actors = row.units.iter().filter_map(|unit| by_unit.get(unit)).flatten().cloned().collect();
            let fan_out = self.fan_out(pipeline, &row.name, reports);
            stages.push(StageStatus { stage: row.name, from: row.from, fan_out, actors });
        }
        Some(Shown {
            pipeline: pipeline.clone(),
            revision: self.wiring.revision(pipeline)?,
            state: self.pipeline_state(pipeline, reports),
            durability: manifest.durability,
            copies: manifest.copies,
            stages,
            superseded: self.superseded_deploys(pipeline),
        })
    }

    fn fan_out(&self, pipeline: &Name, stage: &str, reports: &[ActorReport]) -> Option<FanOut> {
        let stream = StreamName { base: stage.parse().ok()?, side: None };
        if !self.wiring.has_stream(pipeline, &stream) {
            return None;
        }
        let by_gossip = reports.iter().flat_map(|report| &report.by_gossip);
        let of_it = by_gossip.filter(|(of, _)| of.base == stream.base).flat_map(|(_, nodes)| nodes);
        Some(match of_it.collect::<BTreeSet<&NodeId>>().len() {
            0 => FanOut::Direct,
            nodes => FanOut::Gossip { nodes: u32::try_from(nodes).unwrap_or(u32::MAX) },
        })
    }

    /// Deploys that lost to a rival and were not made again since.
    fn superseded_deploys(&self, pipeline: &Name) -> Vec<Superseded> {
        let Some(current) = self.catalog.facts().pipelines().get(pipeline) else { return Vec::new() };
        let earlier = current.earlier.iter().filter_map(|known| known.revision.content.as_ref());
        let stood: BTreeSet<Digest> =
            earlier.chain(current.deployed()).map(|content| content.digest).collect();
        let lost = current.superseded.iter().filter_map(|known| {
            let content = known.revision.content.as_ref()?;
            Some(Superseded { revision: content.digest, node: known.reference.node })
        });
        lost.filter(|lost| !stood.contains(&lost.revision)).collect()
    }

    fn absent(&self, log: LogId, node: NodeId) -> ActorStatus {
        let trouble = match self.liveness(node) {
            Liveness::Alive if node == self.me && self.held_up.contains_key(&log) => {
                self.held_up.get(&log).cloned().unwrap_or_default()
            }
            Liveness::Alive => format!("node {node} has not started it yet"),
            Liveness::Suspect => format!("node {node} does not answer; its logs wait for it"),
            Liveness::Gone => format!("node {node} is gone; its logs wait for it"),
        };
        ActorStatus {
            actor: log,
            node,
            keepers: alloc::vec![node],
            epoch: 0,
            committed: 0,
            events_in: 0,
            events_out: 0,
            lag: 0,
            watermark: None,
            parked: 0,
            dead: 0,
            rejected: 0,
            trouble: Some(trouble),
        }
    }
}
