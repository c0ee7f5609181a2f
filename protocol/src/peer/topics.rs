//! Fan-out, the reader's side: batches that come by gossip, for the hubs of this node's taps.
//!
//! What comes is taken only if the log's own node signed it and it follows on what the hub has; what comes
//! early waits a little; what is missing is pulled from the log (`Subscribe` again, from where the hub
//! stands). A hub whose taps do not keep up takes nothing either, and pulls at its own pace.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;

use super::Peer;
use crate::edge::reader::{Heard, Reader};
use crate::effect::{Effect, Effects, Level};
use crate::id::{LogId, NodeId, Position, TopicId};
use crate::limits::{BROADCAST_EARLY_BYTES, TOPICS_MAX};
use crate::mutation::{Mutation, planted};
use crate::time::{Span, Time};
use crate::wire::message::{Broadcast, EdgeId, Message};

/// A topic that its writer has not offered for so long is left: its writer's node has another life, or the
/// stream goes directly again.
const UNOFFERED: Span = Span(60_000);
/// A topic is left this long after the last of this node's taps of it has gone.
const UNREAD: Span = Span(5_000);

/// A topic that this node is in.
#[derive(Debug)]
pub(super) struct Topic {
    log: LogId,
    outputs: Vec<u16>,
    /// Who may broadcast in it: the log's own node.
    writer: NodeId,
    offered_at: Time,
    read_at: Time,
    /// What some hub may still want, as it came.
    early: VecDeque<Broadcast>,
    early_bytes: u64,
}

impl Topic {
    fn keep(&mut self, broadcast: Broadcast) {
        self.early_bytes += broadcast.weight();
        self.early.push_back(broadcast);
    }

    fn keep_if(&mut self, wanted: impl Fn(&Broadcast) -> bool) {
        self.early.retain(wanted);
        self.early_bytes = self.early.iter().map(Broadcast::weight).sum();
        while self.early_bytes > BROADCAST_EARLY_BYTES
            && let Some(oldest) = self.early.pop_front()
        {
            self.early_bytes -= oldest.weight();
        }
    }
}

impl Peer {
    pub(super) fn on_offer(&mut self, node: NodeId, log: LogId, outputs: Vec<u16>, effects: &mut Effects) {
        let topic = TopicId::of(&log, &outputs);
        let now = self.now;
        // Only of a stream that is read here, and only by its writer.
        let reads = self
            .hub_edges(&log, &outputs)
            .iter()
            .any(|edge| self.readers.get(edge).is_some_and(|reader| reader.writer == node));
        let room = self.topics.len() < TOPICS_MAX || self.topics.contains_key(&topic);
        if !reads || !room {
            return self.send(node, Message::OutOfTopic { topic }, effects);
        }
        let known = self.topics.entry(topic).or_insert_with(|| {
            effects.push(Effect::JoinTopic { topic, writer: node });
            let early = VecDeque::new();
            Topic { log, outputs, writer: node, offered_at: now, read_at: now, early, early_bytes: 0 }
        });
        known.offered_at = now;
        self.send(node, Message::InTopic { topic }, effects);
    }

    /// What follows on `at` comes by gossip, or has come.
    pub(super) fn on_by_gossip(&mut self, node: NodeId, edge: EdgeId, at: Position, effects: &mut Effects) {
        let Some(reader) = self.readers.get_mut(&edge).filter(|reader| reader.writer == node) else {
            return self.send(node, Message::Unsubscribe { edge }, effects);
        };
        if !reader.on_by_gossip(at) {
            reader.lost();
            return self.speak(edge, effects);
        }
        let topic = TopicId::of(&reader.log, reader.outputs());
        self.read_topic(topic, effects);
    }

    pub(super) fn on_broadcast(
        &mut self,
        author: NodeId,
        topic: TopicId,
        broadcast: Broadcast,
        effects: &mut Effects,
    ) {
        let now = self.now;
        let Some(of) = self.topics.get_mut(&topic) else { return };
        if author != of.writer && !planted(Mutation::TakeFromAnyone) {
            let detail = format!("node {author} broadcasts in a topic of node {}", of.writer);
            return self.report(Level::Debug, "broadcast_refused", detail, effects);
        }
        let (log, outputs) = (of.log, of.outputs.clone());
        let (head, last) = (broadcast.head, broadcast.last());
        of.keep(broadcast);
        for edge in self.hub_edges(&log, &outputs) {
            if let Some(reader) = self.readers.get_mut(&edge).filter(|reader| reader.is_live()) {
                reader.on_head(head, last, now);
            }
        }
        self.read_topic(topic, effects);
    }

    fn hub_edges(&self, log: &LogId, outputs: &[u16]) -> Vec<EdgeId> {
        self.hubs.edges_of(log, outputs)
    }

    /// Each hub of the topic takes what it can.
    fn read_topic(&mut self, topic: TopicId, effects: &mut Effects) {
        let Some(of) = self.topics.get(&topic) else { return };
        let (log, outputs) = (of.log, of.outputs.clone());
        for edge in self.hub_edges(&log, &outputs) {
            while self.take_next(topic, edge, effects) {}
        }
        let edges = self.hub_edges(&log, &outputs);
        let readers: Vec<&Reader> = edges.iter().filter_map(|edge| self.readers.get(edge)).collect();
        if let Some(of) = self.topics.get_mut(&topic) {
            of.keep_if(|broadcast| readers.iter().any(|reader| reader.hears(broadcast) != Heard::Known));
        }
    }

    /// The hub takes one batch that follows on what it has. False: there is none, or it has no room.
    fn take_next(&mut self, topic: TopicId, edge: EdgeId, effects: &mut Effects) -> bool {
        let now = self.now;
        let (Some(of), Some(reader)) = (self.topics.get(&topic), self.readers.get_mut(&edge)) else {
            return false;
        };
        if !reader.is_by_gossip() {
            return false;
        }
        let heard = of.early.iter().map(|broadcast| (reader.hears(broadcast), broadcast));
        let next = heard.clone().find(|(heard, _)| matches!(heard, Heard::Next | Heard::NoRoom));
        match next {
            Some((Heard::Next, broadcast)) => {
                let slices = reader.take(broadcast, now);
                self.on_hub_slices(edge, slices, effects);
                true
            }
            // It reads at its own pace until it stands at the end again.
            Some(_) => {
                reader.lost();
                self.speak(edge, effects);
                false
            }
            None => {
                let waits = heard.filter(|(heard, _)| *heard == Heard::Early).map(|(_, it)| it.weight());
                // What is missing is taken for lost once it is late, or once so much came behind it.
                if reader.is_late(now) || waits.sum::<u64>() > BROADCAST_EARLY_BYTES {
                    reader.lost();
                    self.speak(edge, effects);
                }
                false
            }
        }
    }

    /// Once a second: topics that nobody here reads, or that are not offered any more, are left.
    pub(super) fn tend_topics(&mut self, effects: &mut Effects) {
        let now = self.now;
        let hubs = &self.hubs;
        for topic in self.topics.values_mut().filter(|of| !hubs.edges_of(&of.log, &of.outputs).is_empty()) {
            topic.read_at = now;
        }
        let over = |of: &Topic| now >= of.offered_at.after(UNOFFERED) || now >= of.read_at.after(UNREAD);
        let over: Vec<(TopicId, NodeId)> =
            self.topics.iter().filter(|(_, of)| over(of)).map(|(topic, of)| (*topic, of.writer)).collect();
        for (topic, writer) in over {
            self.topics.remove(&topic);
            effects.push(Effect::LeaveTopic { topic });
            self.send(writer, Message::OutOfTopic { topic }, effects);
        }
    }
}
