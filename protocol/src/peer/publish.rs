//! Events entering: publish requests become appends to this node's source logs.

use alloc::format;
use alloc::vec::Vec;

use super::{Peer, shared};
use crate::actor::source::{Asker, Taken, Waiting};
use crate::effect::{Effect, Effects, SourceStream};
use crate::id::{LogId, Name, Seq};
use crate::limits::{PUBLISH_BYTES_MAX, PUBLISH_EVENTS_MAX, REQUESTS_MAX, UNPERSISTED_BYTES_MAX};
use crate::log::record::Body;
use crate::mesh::catalog::{CatalogEntry, LogName};
use crate::mutation::{Mutation, planted};
use crate::pipeline::manifest::Connector;
use crate::pipeline::plan::{Role, UnitId};
use crate::rpc::{FaultKind, Publish, Question, Response};

/// What a client is told to wait when a bound is reached.
const BUSY_MS: u64 = 50;
/// And when a whole log is full of unread records.
const FULL_MS: u64 = 1000;

impl Peer {
    pub(super) fn publish(&mut self, asker: Asker, publish: Publish, effects: &mut Effects) {
        let bytes: usize = publish.events.iter().map(|event| event.weight()).sum();
        if bytes > PUBLISH_BYTES_MAX || publish.events.len() > PUBLISH_EVENTS_MAX {
            let why = format!(
                "a request may carry {PUBLISH_EVENTS_MAX} events and {PUBLISH_BYTES_MAX} bytes, this one has {} and {bytes}; send smaller ones",
                publish.events.len()
            );
            return self.fail(asker, FaultKind::Invalid, why, effects);
        }
        if let Some(log) = publish.log {
            if let Some(other) = self.other_stream(&log, &publish) {
                let why = format!(
                    "log {log} is one of '{other}', the request is for '{}/{}'; name the log that your earlier answers named",
                    publish.pipeline, publish.source
                );
                return self.fail(asker, FaultKind::Invalid, why, effects);
            }
            if !self.is_own_source(&log) {
                return self.forward_publish(asker, log, publish, effects);
            }
        }
        let known = self
            .wiring
            .manifest(&publish.pipeline)
            .map(|manifest| manifest.sources.contains_key(&publish.source));
        match known {
            None => {
                let why = format!(
                    "there is no pipeline '{}' in this mesh; deploy it first, or see `dunlin pipelines`",
                    publish.pipeline
                );
                return self.fail(asker, FaultKind::Unknown, why, effects);
            }
            Some(false) => {
                let why = format!(
                    "pipeline '{}' has no source '{}'; see `dunlin show {}`",
                    publish.pipeline, publish.source, publish.pipeline
                );
                return self.fail(asker, FaultKind::Unknown, why, effects);
            }
            Some(true) => {}
        }
        let own = self.own_source_log(&publish.pipeline, &publish.source);
        // It does not open by waiting.
        let damage = own.and_then(|log| self.logs.get(&log)?.damage.clone());
        if let Some(damage) = damage.or_else(|| self.outdated.clone()) {
            // What that log acknowledged it would recognise again; another one would take it once more.
            let why = match publish.producer.is_some() || publish.log.is_some() {
                true => format!(
                    "{damage}; what this producer sent before stands in that log alone: send it again when the log is back, and to another node only what was never acknowledged"
                ),
                false => format!("{damage}; or publish at another node"),
            };
            return self.fail(asker, FaultKind::Storage, why, effects);
        }
        match own {
            Some(log)
                if self.sources.contains_key(&log)
                    && self.logs.get(&log).is_some_and(|writer| writer.open) =>
            {
                self.take(log, asker, publish, effects);
            }
            Some(_) | None => self.wait_for_opening(asker, publish, effects),
        }
    }

    /// Whether the log is one of this node's source logs, of whatever revision: what names an earlier one
    /// goes into the one that took over its producers.
    pub(super) fn is_own_source(&self, log: &LogId) -> bool {
        let line = self.wiring.assignment().line_of(log);
        line.is_some_and(|line| line.node == self.me && line.unit.role == Role::Source)
    }

    /// The stream whose log it is, when that is another one than the request is for.
    fn other_stream(&self, log: &LogId, publish: &Publish) -> Option<alloc::string::String> {
        let assigned = self.wiring.assignment().log(log)?;
        let unit = &assigned.unit.id;
        let same =
            unit.role == Role::Source && unit.name == publish.source && assigned.pipeline == publish.pipeline;
        (!same).then(|| format!("{}/{}", assigned.pipeline, unit.name))
    }

    /// Another node's client names a log of this one. Producers are known once this node has opened: what
    /// it would say before could make a publisher send the same events elsewhere.
    pub(super) fn on_forwarded(&mut self, asker: Asker, publish: Publish, effects: &mut Effects) {
        let own = publish.log.is_some_and(|log| self.is_own_source(&log));
        if own && self.phase.is_open() {
            return self.publish(asker, publish, effects);
        }
        let (kind, why) = match self.phase.is_open() {
            false => self.not_open_yet(),
            true => {
                let why =
                    format!("node {} does not know this log of its own yet; try again in a moment", self.me);
                (FaultKind::Busy { retry_after_ms: 200 }, why)
            }
        };
        self.fail(asker, kind, why, effects);
    }

    /// This node's source log for a stream, if it is born.
    fn own_source_log(&self, pipeline: &Name, source: &Name) -> Option<LogId> {
        self.wiring.assignment().source_log(&self.me, pipeline, source).map(|assigned| assigned.id)
    }

    fn take(&mut self, log: LogId, asker: Asker, publish: Publish, effects: &mut Effects) {
        let (Some(writer), Some(source)) = (self.logs.get(&log), self.sources.get(&log)) else { return };
        if writer.is_full() {
            let why = format!(
                "readers of '{}/{}' are behind by the {} bytes that its retention allows; publishing goes on when they catch up",
                publish.pipeline, publish.source, writer.retention.bytes
            );
            return self.fail(asker, FaultKind::Busy { retry_after_ms: FULL_MS }, why, effects);
        }
        if writer.pending_bytes() >= UNPERSISTED_BYTES_MAX {
            let why = "the disk is behind; try again in a moment";
            return self.fail(asker, FaultKind::Busy { retry_after_ms: BUSY_MS }, why, effects);
        }
        let head = writer.head().seq;
        let (persisted, position) = (writer.persisted().seq, writer.persisted());
        match source.take(publish, self.now) {
            Taken::Refused(fault) => self.answer(asker, Response::Failed(fault), effects),
            Taken::Known { acknowledged, last } if head == persisted => {
                self.answer(asker, Response::Published { log, acknowledged, last, position }, effects);
            }
            Taken::Known { acknowledged, last } => {
                self.wait(log, Waiting { asker, seq: head, acknowledged, last });
            }
            Taken::Append { append, acknowledged, last } => {
                self.append_to_source(log, append, effects);
                if planted(Mutation::AcknowledgeEarly) {
                    return self.answer(
                        asker,
                        Response::Published { log, acknowledged, last, position },
                        effects,
                    );
                }
                self.wait(log, Waiting { asker, seq: head.next(), acknowledged, last });
                self.restless_actors.insert(log);
            }
        }
    }

    fn wait(&mut self, log: LogId, waiting: Waiting) {
        if let Some(source) = self.sources.get_mut(&log) {
            source.await_seq(waiting);
        }
    }

    /// The source log's first use on this node: a fact of the catalog bears it.
    fn wait_for_opening(&mut self, asker: Asker, publish: Publish, effects: &mut Effects) {
        if self.unopened.len() >= REQUESTS_MAX {
            let why =
                "this node is opening its logs and holds as many requests as it can; try again in a moment";
            return self.fail(asker, FaultKind::Busy { retry_after_ms: 200 }, why, effects);
        }
        self.open_source(publish.pipeline.clone(), publish.source.clone(), effects);
        self.unopened.push_back((asker, publish));
    }

    /// Bears this node's source log for a stream, unless it is born or about to be.
    pub(super) fn open_source(&mut self, pipeline: Name, source: Name, effects: &mut Effects) {
        let key = (pipeline, source);
        if self.own_source_log(&key.0, &key.1).is_some()
            || self.opening.contains(&key)
            || !self.may_write_catalog()
        {
            return;
        }
        let unit = UnitId { role: Role::Source, name: key.1.clone() };
        let Some(born) = self.catalog.facts().pipelines().get(&key.0).map(|current| current.birth(&unit))
        else {
            return;
        };
        let entry = CatalogEntry::SourceOpened { pipeline: key.0.clone(), source: key.1.clone(), born };
        self.opening.insert(key);
        self.append_fact(entry, effects);
    }

    /// Source logs that opened take what waited for them; the rest asks again.
    pub(super) fn retry_unopened(&mut self, effects: &mut Effects) {
        for (asker, publish) in core::mem::take(&mut self.unopened) {
            let asked_at = asker;
            self.publish(asked_at, publish, effects);
        }
    }

    /// A source log may be written: what waited goes in, a connector starts.
    pub(super) fn source_opened(&mut self, log: LogId, effects: &mut Effects) {
        if let Some(source) = self.sources.get_mut(&log) {
            source.opened(self.now);
        }
        self.retry_unopened(effects);
        self.start_connector(log, effects);
        self.restless_actors.insert(log);
    }

    pub(super) fn start_connector(&mut self, log: LogId, effects: &mut Effects) {
        let Some(source) = self.sources.get_mut(&log) else { return };
        if source.connected || source.stream.connector == Connector::Publish {
            return;
        }
        source.connected = true;
        let next = source.next_of("connector");
        effects.push(Effect::StartConnector { log, stream: source.stream.clone(), next });
    }

    pub(super) fn answer_publishers(&mut self, log: LogId, seq: Seq, effects: &mut Effects) {
        let Some(source) = self.sources.get_mut(&log) else { return };
        let due: Vec<Waiting> = source.due(seq).collect();
        let Some(position) = self.logs.get(&log).map(|writer| writer.persisted()) else { return };
        for Waiting { asker, acknowledged, last, .. } in due {
            self.answer(asker, Response::Published { log, acknowledged, last, position }, effects);
        }
    }

    pub(super) fn fail_publishers(
        &mut self,
        log: LogId,
        seq: Seq,
        full: bool,
        why: &str,
        effects: &mut Effects,
    ) {
        let (Some(source), Some(writer)) = (self.sources.get_mut(&log), self.logs.get(&log)) else { return };
        let pending = writer.pending().filter_map(|body| match body {
            Body::Append(append) => Some(append),
            Body::EpochStart(_)
            | Body::Commit(_)
            | Body::Close { .. }
            | Body::Inherit(_)
            | Body::Catalog { .. } => None,
        });
        let failed = source.failed(seq, pending);
        for Waiting { asker, .. } in failed {
            self.not_kept(asker, full, why, effects);
        }
    }

    /// The disk did not take what opens a source log here: whoever waits for that is told. Those that wait for
    /// another log wait no longer either; they ask again.
    pub(super) fn fail_unopened(&mut self, full: bool, why: &str, effects: &mut Effects) {
        for (asker, _) in core::mem::take(&mut self.unopened) {
            self.not_kept(asker, full, why, effects);
        }
    }

    fn not_kept(&mut self, asker: Asker, full: bool, why: &str, effects: &mut Effects) {
        let what = match full {
            true => format!(
                "the disk of node {} is full and nothing of this request was kept; make space there and send it again",
                self.me
            ),
            false => format!(
                "the disk of node {} failed ({why}) and nothing of this request was kept; send it again once it is repaired",
                self.me
            ),
        };
        self.fail(asker, FaultKind::Storage, what, effects);
    }

    /// The request names a log of another node: it goes there, or is refused while that node is away.
    fn forward_publish(&mut self, asker: Asker, log: LogId, publish: Publish, effects: &mut Effects) {
        let Some(writer) = self.wiring.writer_of(&log) else {
            let why = format!(
                "log {log} is not known to this node; wait until the mesh is whole, or leave the log's name out if nothing of this was ever taken"
            );
            return self.fail(asker, FaultKind::Unknown, why, effects);
        };
        if self.catalog.facts().is_removed(&writer) {
            let why = format!(
                "log {log} was written by node {writer}, which was removed for good: what it holds that no other node had read is lost; publish without the log's name, as a new producer"
            );
            return self.fail(asker, FaultKind::Conflict, why, effects);
        }
        if writer == self.me {
            // Known to the catalog, not opened yet.
            return self.fail(
                asker,
                FaultKind::Busy { retry_after_ms: 200 },
                "this log is being opened; try again in a moment",
                effects,
            );
        }
        if !self.reachable(writer) {
            let why = format!(
                "log {log} is written by node {writer}, which cannot be reached now: nothing was taken; send the same again, with the log's name, when it is back"
            );
            return self.fail(asker, FaultKind::Unavailable, why, effects);
        }
        self.ask_one(asker, writer, Question::Publish(publish), effects);
    }

    /// The stream of a source log, for its connector.
    pub(super) fn source_stream(&self, name: &LogName) -> Option<alloc::sync::Arc<SourceStream>> {
        let LogName::Actor { pipeline, unit, .. } = name else { return None };
        let source = self.wiring.manifest(pipeline)?.sources.get(&unit.name)?;
        Some(shared(SourceStream {
            pipeline: pipeline.clone(),
            name: unit.name.clone(),
            source: source.clone(),
            connector: source.connector.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::effect::Input;
    use crate::mesh::catalog::NodeFacts;
    use crate::peer::PeerConfig;
    use crate::rpc::{Fault, Reply};
    use crate::time::Time;
    use crate::wire::message::{AskId, Message};

    #[test]
    fn a_writer_that_has_just_started_asks_for_patience() {
        let key = |n: u8| ed25519_dalek::SigningKey::from_bytes(&[n; 32]);
        let facts = NodeFacts::default();
        let mesh = "m".into();
        let mut peer = Peer::new(PeerConfig {
            key: key(7),
            generation: 1,
            seed: 1,
            facts,
            mesh,
            joined: true,
            taps: crate::peer::TapBounds::default(),
            gossip: crate::peer::GossipBounds::default(),
        });
        let other = crate::id::NodeId(key(8).verifying_key().to_bytes());
        let publish = Publish {
            pipeline: "p".parse().unwrap(),
            source: "in".parse().unwrap(),
            producer: None,
            log: Some(LogId([3; 16])),
            events: vec![],
        };
        let ask = Message::Ask { ask: AskId(5), question: Question::Publish(publish) };
        let mut effects = Effects::new();
        peer.handle(Time(1_000), Input::Start, &mut effects);
        peer.handle(Time(1_000), Input::Connected { node: other }, &mut effects);
        effects.clear();
        peer.handle(Time(1_000), Input::Message { from: other, message: ask }, &mut effects);
        let answers: Vec<&Reply> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Send { message: Message::Answer { ask: AskId(5), reply }, .. } => Some(reply),
                _ => None,
            })
            .collect();
        let busy = |reply: &&Reply| matches!(reply, Reply::Failed(Fault { kind: FaultKind::Busy { .. }, detail }) if detail.contains("just started"));
        assert!(answers.len() == 1 && answers.iter().all(busy), "{answers:?}");
    }
}
