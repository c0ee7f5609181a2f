//! Members and the catalog: what this node says, what it learns, and which logs live here by it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::start::Recovering;
use super::{Peer, shared};
use crate::actor::fold::{Memory, SourceMemory};
use crate::actor::machine::{Actor, Upstream};
use crate::actor::source::SourceLog;
use crate::edge::reader::{Owner, Reader};
use crate::effect::{ActorSpec, Effect, Effects, Level, Timer};
use crate::id::{LogId, NodeId, Position, Seq};
use crate::log::record::Record;
use crate::log::writer::Log;
use crate::mesh::assignment::{Assigned, Fate};
use crate::mesh::catalog::{CatalogEntry, LogName};
use crate::mesh::membership::MeshEffects;
use crate::mutation::{Mutation, planted};
use crate::pipeline::manifest::Durability;
use crate::pipeline::plan::{Head, Role};
use crate::rpc::Liveness;
use crate::wire::message::{EdgeId, Filter, From, Message};

impl Peer {
    // --- members ---

    pub(super) fn on_connected(&mut self, node: NodeId, effects: &mut Effects) {
        self.connected.insert(node);
        let heads = self.catalog.heads();
        self.send(node, Message::CatalogHeads(heads), effects);
        let mut mesh = MeshEffects::default();
        self.membership.on_connected(node, &mut mesh);
        self.carry_mesh(mesh, effects);
        self.repeat_edges(effects);
    }

    pub(super) fn on_disconnected(&mut self, node: NodeId, effects: &mut Effects) {
        self.connected.remove(&node);
        self.catalog.on_disconnected(node);
        self.settling.remove(&node);
        self.heads_answered.remove(&node);
        self.drop_subscriptions_of(node);
        for reader in self.readers.values_mut().filter(|reader| reader.writer == node) {
            reader.lost();
        }
        self.expire_questions(effects);
        self.revisions_stand(effects);
    }

    pub(super) fn on_swim(&mut self, from: NodeId, datagram: &[u8], effects: &mut Effects) {
        let mut mesh = MeshEffects::default();
        if let Err(fault) = self.membership.on_swim(from, datagram, &mut mesh) {
            self.report(Level::Warn, "swim_refused", fault.to_string(), effects);
        }
        self.carry_mesh(mesh, effects);
    }

    pub(super) fn on_swim_timer(&mut self, number: u64, effects: &mut Effects) {
        let mut mesh = MeshEffects::default();
        self.membership.on_timer(number, &mut mesh);
        self.carry_mesh(mesh, effects);
    }

    /// Connected members that do not count as alive are greeted again: a greeting may be lost.
    pub(super) fn greet_again(&mut self, effects: &mut Effects) {
        let asleep: Vec<NodeId> =
            self.connected.iter().copied().filter(|node| self.liveness(*node) != Liveness::Alive).collect();
        for node in asleep {
            let mut mesh = MeshEffects::default();
            self.membership.on_connected(node, &mut mesh);
            self.carry_mesh(mesh, effects);
        }
    }

    fn carry_mesh(&mut self, mesh: MeshEffects, effects: &mut Effects) {
        for (to, datagram) in mesh.sends {
            self.send(to, Message::Swim(datagram), effects);
        }
        for (number, after) in mesh.timers {
            effects.push(Effect::SetTimer { timer: Timer::Swim(number), at: self.now.after(after) });
        }
        for (node, liveness) in mesh.changed {
            self.report(Level::Info, "member", format!("{node} is {liveness:?}"), effects);
        }
        self.settle_down(effects);
    }

    // --- the catalog ---

    pub(super) fn append_fact(&mut self, entry: CatalogEntry, effects: &mut Effects) {
        match self.catalog.append(entry) {
            Ok(record) => self.persist_catalog(self.me, alloc::vec![record], effects),
            Err(fault) => self.report(Level::Error, "catalog_refused", fault.to_string(), effects),
        }
    }

    fn persist_catalog(&mut self, node: NodeId, records: Vec<Record>, effects: &mut Effects) {
        let name = LogName::Catalog(node);
        let log = name.id();
        if self.catalog_logs.insert(log, node).is_none() {
            effects.push(Effect::CreateLog { log, name });
        }
        self.catalog_unwritten.entry(node).or_default().extend(records.iter().cloned());
        effects.push(Effect::Persist { log, records, durability: Durability::Disk });
    }

    pub(super) fn on_catalog_persisted(&mut self, node: NodeId, seq: Seq, effects: &mut Effects) {
        if let Some(waiting) = self.catalog_unwritten.get_mut(&node) {
            while waiting.front().is_some_and(|record| record.seq <= seq) {
                waiting.pop_front();
            }
        }
        self.troubles.remove(&format!("log {}", LogName::Catalog(node).id()));
        self.catalog.on_persisted(node, seq);
        if node == self.me {
            self.tell_heads(effects);
            self.revisions_stand(effects);
        }
        let heads = self.catalog.heads();
        for peer in core::mem::take(&mut self.tell_back) {
            self.send(peer, Message::CatalogHeads(heads.clone()), effects);
        }
        self.settle_down(effects);
    }

    /// The records wait in `catalog_unwritten`; the next beat tries again.
    pub(super) fn on_catalog_unwritten(&mut self, node: NodeId, why: &str, effects: &mut Effects) {
        self.catalog_failed.insert(node);
        if node == self.me {
            self.revisions_unwritten(why, effects);
        }
    }

    pub(super) fn repeat_unwritten(&mut self, effects: &mut Effects) {
        for node in core::mem::take(&mut self.catalog_failed) {
            let records: Vec<Record> =
                self.catalog_unwritten.get(&node).into_iter().flatten().cloned().collect();
            if !records.is_empty() {
                let log = LogName::Catalog(node).id();
                effects.push(Effect::Persist { log, records, durability: Durability::Disk });
            }
        }
    }

    pub(super) fn on_catalog_heads(
        &mut self,
        from: NodeId,
        heads: &BTreeMap<NodeId, crate::wire::message::Head>,
        effects: &mut Effects,
    ) {
        for (node, records) in self.catalog.on_heads(from, heads) {
            self.send(from, Message::CatalogRecords { node, records }, effects);
        }
        let ours = self.catalog.heads();
        let behind = heads.iter().any(|(node, head)| ours.get(node).is_none_or(|our| our.seq < head.seq));
        if behind && self.heard_of(from, heads) {
            // It answers with what is missing here.
            self.send(from, Message::CatalogHeads(ours), effects);
        }
        if !self.phase.is_open() {
            let held = heads.iter().map(|(node, head)| (*node, head.seq)).collect();
            self.settling.insert(from, held);
        }
        self.settle_down(effects);
        self.revisions_stand(effects);
    }

    /// Whether these heads hold more than the last ones that this peer was answered for. What is on
    /// its way already is not asked for once more; what got lost is, by the beat's own heads.
    fn heard_of(&mut self, from: NodeId, heads: &BTreeMap<NodeId, crate::wire::message::Head>) -> bool {
        let records = heads.values().fold(0u64, |sum, head| sum.saturating_add(head.seq.0));
        self.heads_answered.insert(from, records) != Some(records)
    }

    pub(super) fn on_catalog_records(
        &mut self,
        from: NodeId,
        node: NodeId,
        records: Vec<Record>,
        effects: &mut Effects,
    ) {
        match self.catalog.on_records(node, records) {
            Ok(fresh) if fresh.is_empty() => {}
            Ok(fresh) => {
                self.persist_catalog(node, fresh, effects);
                // More may follow than one message holds: tell the sender where we stand then.
                self.tell_back.insert(from);
            }
            Err(fault) => {
                self.report(Level::Warn, "catalog_refused", format!("from {from}: {fault}"), effects)
            }
        }
    }

    // --- which logs live here ---

    /// The facts changed: logs are born, actors start, follow new logs, or end.
    pub(super) fn rewire(&mut self, effects: &mut Effects) {
        if !self.phase.is_open() || self.wired == Some(self.catalog.facts().version()) {
            return;
        }
        self.wired = Some(self.catalog.facts().version());
        self.wiring.refresh(self.catalog.facts());
        self.opening.clear();
        let here: Vec<alloc::sync::Arc<Assigned>> = self.wiring.assignment().logs_on(&self.me).to_vec();
        let keep: BTreeSet<LogId> = here.iter().map(|assigned| assigned.id).collect();
        self.end_unassigned(&keep, effects);
        for assigned in &here {
            if !self.logs.contains_key(&assigned.id) {
                self.bear(assigned, effects);
            }
        }
        self.expect_readers();
        let actors: Vec<LogId> = self.actors.keys().copied().collect();
        for actor in actors {
            self.follow_upstreams(actor, effects);
        }
        self.follow_streams(effects);
        self.open_due(effects);
        self.revisions_stand(effects);
        self.tell_heads(effects);
    }

    /// Sources that connectors feed here are opened at once.
    pub(super) fn open_due(&mut self, effects: &mut Effects) {
        let due = self.wiring.assignment().openings_due(&self.me, self.catalog.facts());
        for entry in due {
            if let CatalogEntry::SourceOpened { pipeline, source, .. } = entry {
                self.open_source(pipeline, source, effects);
            }
        }
    }

    fn bear(&mut self, assigned: &Assigned, effects: &mut Effects) {
        let id = assigned.id;
        let manifest = &assigned.manifest;
        let (log, memory) = match self.recovering.remove(&id) {
            Some(Recovering { mut log, memory }) => {
                log.durability = manifest.durability;
                log.retention = manifest.retention.clone();
                (log, Some(memory))
            }
            None => {
                effects.push(Effect::CreateLog { log: id, name: assigned.name.clone() });
                (Log::new(assigned.name.clone(), manifest.durability, manifest.retention.clone()), None)
            }
        };
        if let Some(damage) = &log.damage {
            self.report(Level::Error, "log_damaged", format!("log {id}: {damage}"), effects);
        }
        self.logs.insert(id, log);
        let memory = memory.filter(|_| !planted(Mutation::ForgetReplay));
        match assigned.unit.id.role {
            Role::Source => {
                let memory = match memory {
                    Some(Memory::Source(memory)) => memory,
                    Some(Memory::Actor(_)) | None => SourceMemory::default(),
                };
                if let Some(stream) = self.source_stream(&assigned.name) {
                    self.sources.insert(id, SourceLog::new(id, stream, memory));
                }
            }
            Role::Behind | Role::Stage | Role::Sink => {
                let spec =
                    shared(ActorSpec { name: assigned.name.clone(), chain: assigned.unit.chain.clone() });
                let sink = matches!(assigned.unit.chain.head, Head::Sink { .. });
                let mut actor = Actor::new(id, spec, sink);
                if let Some(Memory::Actor(memory)) = memory {
                    actor.memory = memory;
                }
                self.actors.insert(id, actor);
            }
        }
        self.start_epoch(id, effects);
    }

    /// Logs that the facts no longer give to this node: removed ones go, others stay as they are.
    fn end_unassigned(&mut self, keep: &BTreeSet<LogId>, effects: &mut Effects) {
        let names: Vec<(LogId, LogName)> = self
            .logs
            .iter()
            .map(|(id, log)| (*id, log.name.clone()))
            .chain(self.recovering.iter().map(|(id, found)| (*id, found.log.name.clone())))
            .filter(|(id, _)| !keep.contains(id))
            .collect();
        for (id, name) in names {
            let fate = self.wiring.assignment().fate(&name, self.catalog.facts());
            self.stop_log(id, effects);
            match fate {
                Fate::Removed => {
                    self.recovering.remove(&id);
                    effects.push(Effect::RemoveLog { log: id });
                }
                Fate::Assigned | Fate::Replaced { .. } | Fate::Superseded { .. } | Fate::Unknown => {}
            }
        }
    }

    fn stop_log(&mut self, id: LogId, effects: &mut Effects) {
        if self.logs.remove(&id).is_none() {
            return;
        }
        if let Some(mut source) = self.sources.remove(&id) {
            if source.connected {
                effects.push(Effect::StopConnector { log: id });
            }
            let waiting: Vec<_> = source.due(Seq(u64::MAX)).collect();
            for one in waiting {
                let why =
                    "the pipeline was removed while the events were on their way; deploy it again first";
                self.fail(one.asker, crate::rpc::FaultKind::Unknown, why, effects);
            }
        }
        if let Some(actor) = self.actors.remove(&id) {
            effects.push(Effect::Unhost { actor: id });
            for upstream in actor.upstream.into_values() {
                if let Some(reader) = self.readers.remove(&upstream.edge) {
                    self.send(reader.writer, Message::Unsubscribe { edge: upstream.edge }, effects);
                }
            }
        }
        for (node, edge) in self.subscribers.remove(&id).unwrap_or_default() {
            self.subscriptions.remove(&(node, edge));
        }
    }

    fn expect_readers(&mut self) {
        for (id, log) in &mut self.logs {
            let Some(assigned) = self.wiring.assignment().log(id) else { continue };
            log.expect_readers(self.wiring.assignment().readers(assigned).map(|reader| reader.id));
        }
        self.restless_logs.extend(self.logs.keys());
        self.restless_actors.extend(self.logs.keys());
    }

    /// Subscribes an actor to every upstream log that the facts name and it does not read yet.
    pub(super) fn follow_upstreams(&mut self, actor: LogId, effects: &mut Effects) {
        let ready = self.actors.get(&actor).is_some_and(Actor::is_ready);
        let Some(assigned) = self.wiring.assignment().log(&actor).cloned().filter(|_| ready) else { return };
        let mut wanted: BTreeMap<LogId, (NodeId, BTreeMap<u16, u16>)> = BTreeMap::new();
        for upstream in self.wiring.assignment().upstreams(&assigned) {
            let entry = wanted.entry(upstream.log).or_insert_with(|| (upstream.node, BTreeMap::new()));
            entry.1.insert(upstream.output, upstream.input);
        }
        for (log, (node, inputs)) in wanted {
            let Some(machine) = self.actors.get(&actor) else { return };
            if machine.upstream.contains_key(&log) {
                continue;
            }
            let from = match machine.memory.position_in(&log) {
                Position::START => From::Start,
                position => From::After(position),
            };
            let edge = EdgeId(self.fresh());
            let filter = Filter { outputs: inputs.keys().copied().collect(), slots: assigned.share.slots() };
            self.readers.insert(edge, Reader::new(edge, log, node, Owner::Actor(actor), filter, from));
            if let Some(machine) = self.actors.get_mut(&actor) {
                machine.upstream.insert(log, Upstream::new(edge, inputs));
            }
            self.speak(edge, effects);
        }
    }
}
