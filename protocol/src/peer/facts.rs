//! Members and the catalog: what this node says, what it learns, and which logs live here by it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::Peer;
use crate::actor::upstream::Upstream;
use crate::edge::reader::{Owner, Reader};
use crate::effect::{Effect, Effects, Level, Timer};
use crate::id::{LogId, NodeId, Position, Seq};
use crate::log::record::Record;
use crate::mesh::assignment::{Fate, Standing};
use crate::mesh::catalog::{CatalogEntry, CatalogFault, LogName};
use crate::mesh::membership::MeshEffects;
use crate::mutation::{Mutation, planted};
use crate::pipeline::manifest::Durability;
use crate::wire::message::{EdgeId, Filter, From, Message};

impl Peer {
    // --- members ---

    pub(super) fn on_connected(&mut self, node: NodeId, effects: &mut Effects) {
        if self.is_refused(node) {
            return self.turn_away(node, effects);
        }
        self.connected.insert(node);
        // First of all, so that a node which is still settling learns before it opens if its disk lacks
        // what was read here.
        self.repeat_edges(effects);
        let heads = self.catalog.heads();
        self.send(node, Message::CatalogHeads(heads), effects);
        let mut mesh = MeshEffects::default();
        self.membership.on_connected(node, &mut mesh);
        self.carry_mesh(mesh, effects);
    }

    pub(super) fn on_disconnected(&mut self, node: NodeId, effects: &mut Effects) {
        self.connected.remove(&node);
        self.catalog.on_disconnected(node);
        self.settling.remove(&node);
        self.heads_answered.remove(&node);
        self.drop_subscriptions_of(node);
        self.fanout.forget(node);
        for reader in self.readers.values_mut().filter(|reader| reader.writer == node) {
            reader.lost();
        }
        self.expire_questions(effects);
        self.revisions_stand(effects);
        self.told(effects);
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

    /// Who is connected and does not count as alive is told again that this node is here.
    pub(super) fn repeat_membership(&mut self, effects: &mut Effects) {
        let mut mesh = MeshEffects::default();
        self.membership.repeat(self.connected.iter(), &mut mesh);
        self.carry_mesh(mesh, effects);
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
        let mending = self.catalog.is_mending(&node);
        if self.catalog.on_persisted(node, seq) {
            self.expel(effects);
        }
        if mending && !self.catalog.is_mending(&node) {
            let detail = format!(
                "the catalog log of node {node} was damaged on this disk; it was written anew, up to record {}, from what members hold of it",
                seq.0
            );
            self.report(Level::Warn, "catalog_mended", detail, effects);
        }
        if node == self.me {
            self.tell_heads(effects);
            self.revisions_stand(effects);
            self.told(effects);
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
        self.catalog.on_unmended(node);
        if node == self.me {
            self.revisions_unwritten(why, effects);
            self.untold(why, effects);
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

    /// Damaged logs of which members gave all that this disk had held are written anew.
    pub(super) fn mend_catalog(&mut self, effects: &mut Effects) {
        for (node, records) in self.catalog.mendable() {
            effects.push(Effect::WriteAnew { log: LogName::Catalog(node).id(), records });
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
        self.told(effects);
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
        let before = self.catalog.heads().get(&node).copied();
        match self.catalog.on_records(node, records) {
            Ok(fresh) if fresh.is_empty() => {
                let heads = self.catalog.heads();
                // Of a damaged log nothing is persisted before all of it is here: the sender is told at once where it stands.
                if heads.get(&node).copied() != before {
                    self.send(from, Message::CatalogHeads(heads), effects);
                    self.mend_catalog(effects);
                }
            }
            Ok(fresh) => {
                self.persist_catalog(node, fresh, effects);
                // More may follow than one message holds: tell the sender where we stand then.
                self.tell_back.insert(from);
            }
            Err(fault) => {
                if node == self.me && matches!(fault, CatalogFault::Equivocation { .. }) {
                    self.stop_the_old_copy(
                        format!("node {from} holds another catalog log of this node"),
                        effects,
                    );
                }
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
        self.end_removed(effects);
        self.tend_lines(effects);
        self.report_superseded(effects);
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

    /// Sources that connectors feed here are opened at once, and shares taken over from nodes that were
    /// given up begin.
    pub(super) fn open_due(&mut self, effects: &mut Effects) {
        let due = self.wiring.assignment().openings_due(&self.me, self.catalog.facts());
        for entry in due {
            match entry {
                CatalogEntry::SourceOpened { pipeline, source, .. } => {
                    self.open_source(pipeline, source, effects);
                }
                // A share of a node that was given up is this node's now.
                CatalogEntry::Reborn { log, .. } => {
                    if self.may_write_catalog() && self.rebearing.insert(log) {
                        self.append_fact(entry, effects);
                    }
                }
                CatalogEntry::Node(_)
                | CatalogEntry::Revision(_)
                | CatalogEntry::TokensRotated { .. }
                | CatalogEntry::Admitted { .. }
                | CatalogEntry::NodeRemoved { .. } => {}
            }
        }
    }

    /// Logs of pipelines that were removed go; others that no line has stay as they are.
    fn end_removed(&mut self, effects: &mut Effects) {
        let names: Vec<(LogId, LogName)> = self
            .logs
            .iter()
            .map(|(id, log)| (*id, log.name.clone()))
            .chain(self.recovering.iter().map(|(id, found)| (*id, found.log.name.clone())))
            .collect();
        for (id, name) in names {
            match self.wiring.assignment().fate(&name, self.catalog.facts()) {
                Fate::Removed => {
                    self.stop_log(id, effects);
                    self.recovering.remove(&id);
                    self.early.remove(&id);
                    effects.push(Effect::RemoveLog { log: id });
                }
                Fate::Held | Fate::Unknown => {}
            }
        }
    }

    /// A deploy of this node lost to another one: nobody else would tell its user.
    fn report_superseded(&mut self, effects: &mut Effects) {
        let mut lost = Vec::new();
        for (pipeline, current) in self.catalog.facts().pipelines() {
            for known in current.superseded.iter().filter(|known| known.reference.node == self.me) {
                let Some(content) = &known.revision.content else { continue };
                if self.superseded.insert(known.digest) {
                    let winner = current
                        .deployed()
                        .map_or_else(alloc::string::String::new, |deployed| deployed.digest.to_string());
                    lost.push(format!(
                        "revision {} of '{pipeline}', deployed on this node, lost to revision {winner} of node {}; deploy it again if it should run",
                        content.digest, current.reference.node
                    ));
                }
            }
        }
        for detail in lost {
            self.report(Level::Warn, "superseded", detail, effects);
        }
    }

    fn stop_log(&mut self, id: LogId, effects: &mut Effects) {
        if self.logs.remove(&id).is_none() {
            return;
        }
        self.resting.remove(&id);
        self.leaving.remove(&id);
        self.held_up.remove(&id);
        self.rebearing.remove(&id);
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
            self.forget_letters(id, effects);
            for upstream in actor.upstream.into_values() {
                self.drop_reader(upstream.edge, effects);
            }
        }
        self.early.remove(&id);
        self.willing.remove(&id);
        for (node, edge) in self.subscribers.remove(&id).unwrap_or_default() {
            self.forget_subscription(node, edge);
        }
    }

    fn expect_readers(&mut self) {
        let logs: Vec<LogId> = self.logs.keys().copied().collect();
        for log in logs {
            self.expect_readers_of(log);
        }
        self.restless_logs.extend(self.logs.keys());
        self.restless_actors.extend(self.logs.keys());
    }

    /// What the facts say of a log of this node: how it is kept, and who reads it.
    pub(super) fn expect_readers_of(&mut self, log: LogId) {
        let Some(assigned) = self.wiring.assignment().log(&log) else { return };
        let Some(layout) = self.wiring.assignment().layout_of(assigned) else { return };
        if let Some(writer) = self.logs.get_mut(&log) {
            writer.durability = assigned.manifest.durability;
            writer.retention = assigned.manifest.retention.clone();
            writer.expect_readers(layout.readers(assigned).map(|reader| reader.id));
        }
    }

    /// Subscribes an actor to every log that it should read now and does not read yet: of each line the
    /// one behind those that it has read to their end. An actor that is to be replaced follows nothing
    /// new: the log that takes over is wired to what is new.
    pub(super) fn follow_upstreams(&mut self, actor: LogId, effects: &mut Effects) {
        let Some(machine) = self.actors.get_mut(&actor).filter(|machine| machine.is_ready()) else { return };
        let assignment = self.wiring.assignment();
        let Some(assigned) = assignment.log(&actor).filter(|log| log.standing == Standing::Written) else {
            return;
        };
        let Some(layout) = assignment.layout_of(assigned) else { return };
        let (mut fresh, mut gone) = (Vec::new(), Vec::new());
        for line in layout.read_by(assigned) {
            if line.gone && !planted(Mutation::AwaitTheRemoved) {
                gone.extend(line.logs.iter().map(|log| log.id));
                continue;
            }
            let aside = line.wanted().is_none_or(|log| layout.inputs(assigned, log).is_none());
            let log = match planted(Mutation::PassEarly) {
                true => line.wanted(),
                false => line.behind(&machine.memory.ended),
            };
            let Some(log) = log else { continue };
            let Some(inputs) = layout.inputs(assigned, log) else { continue };
            match machine.upstream.get_mut(&log.id) {
                Some(upstream) => upstream.aside = aside,
                None => fresh.push((log.id, log.node, inputs, aside)),
            }
        }
        let slots = assigned.share.slots();
        for (log, node, inputs, aside) in fresh {
            let edge = EdgeId(self.fresh());
            let Some(machine) = self.actors.get_mut(&actor) else { return };
            let from = match machine.memory.position_in(&log) {
                Position::START => From::Start,
                position => From::After(position),
            };
            let filter = Filter { outputs: inputs.keys().copied().collect(), slots };
            self.readers.insert(edge, Reader::new(edge, log, node, Owner::Actor(actor), filter, from));
            let mut upstream = Upstream::new(edge, inputs).resumed(machine.memory.frontier.get(&log));
            upstream.aside = aside;
            machine.upstream.insert(log, upstream);
            self.speak(edge, effects);
        }
        for log in gone {
            self.forsake(actor, log, effects);
        }
    }

    /// The node of an upstream log was given up: it is not waited for any more.
    fn forsake(&mut self, actor: LogId, log: LogId, effects: &mut Effects) {
        let unused = EdgeId(self.fresh());
        let Some(machine) = self.actors.get_mut(&actor) else { return };
        let edge = machine.upstream.get(&log).map(|upstream| upstream.edge);
        if machine.forsake(&log, self.now, unused) {
            self.restless_actors.insert(actor);
        }
        if let Some(edge) = edge {
            self.drop_reader(edge, effects);
        }
    }

    /// Upstream logs that the actor has read to their `Close` are let go, and those that follow them
    /// are read.
    pub(super) fn pass_closed(&mut self, actor: LogId, effects: &mut Effects) {
        let Some(machine) = self.actors.get_mut(&actor) else { return };
        let ended: Vec<LogId> =
            machine.upstream.keys().filter(|log| machine.memory.ended.contains_key(log)).copied().collect();
        if ended.is_empty() {
            return;
        }
        let edges: Vec<EdgeId> =
            ended.iter().filter_map(|log| Some(machine.upstream.remove(log)?.edge)).collect();
        for edge in edges {
            self.drop_reader(edge, effects);
        }
        self.follow_upstreams(actor, effects);
    }

    pub(super) fn drop_reader(&mut self, edge: EdgeId, effects: &mut Effects) {
        if let Some(reader) = self.readers.remove(&edge) {
            self.send(reader.writer, Message::Unsubscribe { edge }, effects);
        }
    }
}
