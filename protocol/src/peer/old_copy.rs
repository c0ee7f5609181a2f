//! A data folder that is an older copy (a backup, a machine's snapshot) holds less than others have read
//! of its logs. Went it on writing, there would be two histories under one name: what was acknowledged
//! behind the copy would be contradicted, and readers would take the one for the other. So a reader that
//! comes with a position which cannot be explained by a crash stops the whole folder: nothing in it is
//! written or served any more, the node says why, and the reader's edge stops with a sentence. The newest
//! folder put back goes on as if nothing had been; or the node is given up.
//!
//! Readers say where they stand before anything else, so a folder is stopped before it opens when one of
//! them is connected. What a node without a reader in reach acknowledges meanwhile stays in the copy.
//! Only the node that has a reader speaks for it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Peer;
use super::edges::Subscribing;
use crate::actor::fold::Memory;
use crate::effect::{Effect, Effects, Level};
use crate::id::{LogId, NodeId, Position, Seq};
use crate::log::writer::Log;
use crate::mesh::catalog::LogName;
use crate::pipeline::manifest::Durability;
use crate::pipeline::plan::Role;
use crate::rpc::FaultKind;
use crate::wire::message::{From, Message, Refusal};

impl Peer {
    /// Whether the reader has read what this node's log should hold and does not.
    pub(super) fn lacks(&self, request: &Subscribing) -> bool {
        let From::After(at) = request.from else { return false };
        self.held(&request.log).is_some_and(|log| log.lacks(at, self.is_lossless(&log.name)))
    }

    /// What a reader has read proves that this disk holds an older copy: everything stops. True: it does by
    /// this reader, or did before.
    pub(super) fn stops_by(&mut self, node: NodeId, request: &Subscribing, effects: &mut Effects) -> bool {
        let (Some(reader), From::After(at)) = (request.reader, request.from) else { return false };
        let home = self.wiring.writer_of(&reader);
        if !self.lacks(request) || home.is_some_and(|home| home != node) {
            return false;
        }
        let Some(log) = self.held(&request.log) else { return false };
        let (end, whose) = (log.persisted(), whose(&log.name));
        let Position { epoch, seq, .. } = at;
        self.stop_the_old_copy(
            format!(
                "node {node} has read the log of {whose} up to record {} of epoch {}, and here it ends with record {} of epoch {} (log {})",
                seq.0, epoch.0, end.seq.0, end.epoch.0, request.log
            ),
            effects,
        );
        true
    }

    /// A log of this disk, in use or not, unless it is out of use already.
    fn held(&self, log: &LogId) -> Option<&Log> {
        let held = self.logs.get(log).or_else(|| self.recovering.get(log).map(|found| &found.log));
        held.filter(|log| log.damage.is_none())
    }

    /// Every revision of its pipeline synced what it acknowledged.
    fn is_lossless(&self, name: &LogName) -> bool {
        let LogName::Actor { pipeline, .. } = name else { return false };
        let Some(current) = self.catalog.facts().pipelines().get(pipeline) else { return false };
        let known = current.earlier.iter().chain(&current.superseded).map(|known| &known.revision);
        let mut contents = known.chain([&current.revision]).filter_map(|revision| revision.content.as_ref());
        contents.all(|content| content.manifest.durability == Durability::Disk)
    }

    pub(super) fn stop_the_old_copy(&mut self, proof: String, effects: &mut Effects) {
        if self.outdated.is_some() {
            return;
        }
        let why = format!(
            "this data folder is an older copy: {proof}; nothing in it is written or served: stop the node and put the newest folder back, or stop it for good and give it up with 'dunlin nodes remove {}' on another one",
            self.me
        );
        self.report(Level::Error, "folder_outdated", why.clone(), effects);
        self.outdated = Some(why.clone());
        for found in self.recovering.values_mut() {
            found.log.damage.get_or_insert_with(|| why.clone());
        }
        let logs: Vec<LogId> = self.logs.keys().copied().collect();
        for log in logs {
            self.bar(log, &why, effects);
        }
        self.early.clear();
        // Whatever was at work is taken up again as it would be of a damaged disk: it stands still.
        self.wired = None;
    }

    /// From now on the log is as one that was found damaged.
    fn bar(&mut self, log: LogId, why: &str, effects: &mut Effects) {
        let Some(writer) = self.logs.get_mut(&log) else { return };
        writer.damage.get_or_insert_with(|| why.into());
        writer.open = false;
        self.leaving.remove(&log);
        if let Some(mut source) = self.sources.remove(&log) {
            if source.connected {
                effects.push(Effect::StopConnector { log });
            }
            for waiting in source.due(Seq(u64::MAX)).collect::<Vec<_>>() {
                self.fail(waiting.asker, FaultKind::Storage, why, effects);
            }
            self.resting.insert(log, Memory::Source(source.memory));
        }
        if let Some(machine) = self.actors.remove(&log) {
            effects.push(Effect::Unhost { actor: log });
            self.forget_letters(log, effects);
            self.resting.insert(log, Memory::Actor(machine.memory));
            for upstream in machine.upstream.into_values() {
                self.drop_reader(upstream.edge, effects);
            }
        }
        self.willing.remove(&log);
        for (node, edge) in self.subscribers.remove(&log).unwrap_or_default() {
            self.forget_subscription(node, edge);
            self.send(node, Message::Refused { edge, why: Refusal::Damaged }, effects);
        }
    }
}

fn whose(name: &LogName) -> String {
    match name {
        LogName::Catalog(node) => format!("node {node}'s facts"),
        LogName::Actor { pipeline, unit, .. } if unit.role == Role::Behind => {
            format!("the stages behind '{}' of '{pipeline}'", unit.name)
        }
        LogName::Actor { pipeline, unit, .. } => format!("'{}' of '{pipeline}'", unit.name),
    }
}
