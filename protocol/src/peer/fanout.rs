//! Fan-out, the writer's side: a stream of this node's logs that many nodes tap goes to them by gossip,
//! so it costs this node the same however many they are.
//!
//! Each tapping node is offered the stream's topic. Who has joined it, and has been sent all that the
//! fan-out's cursor has passed, goes by gossip from there on: it is told so (`ByGossip`), and nothing more
//! is sent to it. The cursor is a subscription of this node's own; its batches are broadcast. Credit holds
//! the cursor as it holds any reader: it goes as fast as the quickest of those that go by gossip takes what
//! comes. Whoever cannot keep up with that, or lost something, subscribes again from where it stands; it is
//! served directly up to the cursor, and goes by gossip again. Gossip therefore owes nobody anything.

#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use super::Peer;
use crate::edge::writer::Subscription;
use crate::effect::{Effect, Effects, Timer};
use crate::id::{LogId, NodeId, Position, Seq, TopicId};
use crate::limits::{BROADCAST_BYTES_MAX, BROADCAST_EVERY, EDGE_CREDIT_BYTES, GOSSIP_FROM_NODES, TOPICS_MAX};
use crate::pipeline::plan::SlotRange;
use crate::time::{Span, Time};
use crate::wire::message::{Broadcast, EdgeId, Filter, Message, Refusal, Slice};

/// The network needs a moment until what is broadcast reaches a node that has just joined.
const JOINING: Span = Span(2_000);
/// A node that has joined is offered the topic again this often, one that has not may by then.
const OFFER_EVERY: Span = Span(15_000);
/// A stream goes by gossip at least this long after its readers became few.
const FEW_FOR: Span = Span(10_000);
/// Readers that are behind the foremost one are waited for this long before the cursor begins there.
const GATHER: Span = Span(1_000);
/// None of those that go by gossip has taken anything for so long, and there is more: they go directly.
const STUCK: Span = Span(2_000);
/// A stream goes directly for so long after a broadcast reached nobody; after a batch that was too large.
const REST_UNHEARD: Span = Span(5_000);
const REST_LARGE: Span = Span(10_000);
/// How often those that go by gossip are told where the broadcasts stand, once they stand there.
const TOLD_TIMES: u8 = 3;

/// From how many nodes on gossip is worth it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GossipBounds {
    /// Nodes that tap one log's stream from which on it goes by gossip.
    pub from_nodes: usize,
    /// Below this it goes directly again; no more than `from_nodes`, so that it does not go to and fro.
    pub below_nodes: usize,
}

impl GossipBounds {
    /// From so many nodes on, and directly again when two are gone.
    pub fn from(nodes: usize) -> GossipBounds {
        GossipBounds { from_nodes: nodes, below_nodes: nodes.saturating_sub(1).max(1) }
    }
}

impl Default for GossipBounds {
    fn default() -> GossipBounds {
        GossipBounds::from(GOSSIP_FROM_NODES)
    }
}

type Of = (NodeId, EdgeId);

#[derive(Debug, Default)]
pub(super) struct Fanout {
    bounds: GossipBounds,
    streams: BTreeMap<TopicId, Stream>,
    /// This node's own subscriptions by which it reads its logs for gossip.
    cursors: BTreeMap<Of, TopicId>,
    timer_at: Option<Time>,
}

/// What other nodes read whole of one log.
#[derive(Debug)]
struct Stream {
    log: LogId,
    outputs: Vec<u16>,
    readers: BTreeSet<Of>,
    /// The nodes that were offered the topic; none while the stream goes to each of them directly.
    members: Option<BTreeMap<NodeId, Member>>,
    /// Since when the readers are few.
    few_since: Option<Time>,
    rests_until: Time,
    /// Where the cursor is to begin, and since when those behind are waited for.
    gathers: Option<(Position, Time)>,
    cursor: Option<Cursor>,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    joined_at: Option<Time>,
    offered_at: Time,
}

#[derive(Debug)]
struct Cursor {
    of: Of,
    /// Who goes by gossip.
    riders: BTreeSet<Of>,
    /// Broadcasts that none of them is done with: the last record of each, and bytes up to there.
    out: VecDeque<(Seq, u64)>,
    /// When one was done with last.
    moved_at: Time,
    sent_at: Option<Time>,
    /// Where riders were told that the broadcasts stand, and how often.
    told: (Seq, u8),
}

impl Stream {
    fn new(log: LogId, outputs: Vec<u16>) -> Stream {
        Stream {
            log,
            outputs,
            readers: BTreeSet::new(),
            members: None,
            few_since: None,
            rests_until: Time(0),
            gathers: None,
            cursor: None,
        }
    }

    fn nodes(&self) -> BTreeSet<NodeId> {
        self.readers.iter().map(|(node, _)| *node).collect()
    }

    /// Gossip reaches this node by now.
    fn has_joined(&self, node: &NodeId, now: Time) -> bool {
        let member = self.members.as_ref().and_then(|members| members.get(node));
        let joined_at = member.and_then(|member| member.joined_at);
        joined_at.is_some_and(|at| now >= at.after(JOINING)) && now >= self.rests_until
    }
}

impl Fanout {
    pub(super) fn new(bounds: GossipBounds) -> Fanout {
        Fanout { bounds, ..Fanout::default() }
    }

    /// The topic by which a tap's subscription may be served: it reads whole records, and is no actor, which
    /// would hold them back.
    pub(super) fn topic_for(subscription: &Subscription, own: bool) -> Option<TopicId> {
        let Filter { outputs, slots } = &subscription.filter;
        let whole = !own && subscription.reader.is_none() && *slots == SlotRange::ALL;
        whole.then(|| TopicId::of(&subscription.log, outputs))
    }

    pub(super) fn is_cursor(&self, of: Of) -> bool {
        self.cursors.contains_key(&of)
    }

    /// A subscription is gone.
    pub(super) fn lost_reader(&mut self, of: Of, topic: Option<TopicId>) {
        let moved = self.cursors.remove(&of);
        let Some(topic) = moved.or(topic) else { return };
        let Some(stream) = self.streams.get_mut(&topic) else { return };
        if moved.is_some() {
            // Its riders are turned out at the next beat at the latest.
            stream.cursor = None;
        }
        stream.readers.remove(&of);
        if let Some(cursor) = &mut stream.cursor {
            cursor.riders.remove(&of);
        }
        if stream.readers.is_empty() && stream.members.is_none() && stream.cursor.is_none() {
            self.streams.remove(&topic);
        }
    }

    /// The node is no longer connected: nobody knows whether it stays in its topics.
    pub(super) fn forget(&mut self, node: NodeId) {
        for members in self.streams.values_mut().filter_map(|stream| stream.members.as_mut()) {
            members.remove(&node);
        }
    }

    /// The nodes that get these streams of a log by gossip now, by the stream's outputs.
    pub(super) fn by_gossip(&self, log: &LogId) -> Vec<(Vec<u16>, Vec<NodeId>)> {
        let streams = self.streams.values().filter(|stream| stream.log == *log);
        let by_gossip = streams.filter_map(|stream| {
            let riders = &stream.cursor.as_ref()?.riders;
            let nodes: BTreeSet<NodeId> = riders.iter().map(|(node, _)| *node).collect();
            (!nodes.is_empty()).then(|| (stream.outputs.clone(), nodes.into_iter().collect()))
        });
        by_gossip.collect()
    }
}

impl Peer {
    // --- who reads ---

    /// A subscription stands. Many of one stream: it goes by gossip from now on.
    pub(super) fn on_whole_reader(&mut self, of: Of, effects: &mut Effects) {
        let Some(subscription) = self.subscriptions.get(&of) else { return };
        let Some(topic) = subscription.topic else { return };
        let (log, outputs) = (subscription.log, subscription.filter.outputs.clone());
        let busy = self.fanout.streams.values().filter(|stream| stream.members.is_some()).count();
        let stream = self.fanout.streams.entry(topic).or_insert_with(|| Stream::new(log, outputs));
        stream.readers.insert(of);
        let many = stream.nodes().len() >= self.fanout.bounds.from_nodes;
        if stream.members.is_none() && many && busy < TOPICS_MAX {
            stream.members = Some(BTreeMap::new());
        }
        self.make_offers(topic, effects);
    }

    /// Every node that taps the stream is offered its topic, now and then again.
    fn make_offers(&mut self, topic: TopicId, effects: &mut Effects) {
        let now = self.now;
        let Some(stream) = self.fanout.streams.get_mut(&topic) else { return };
        let nodes = stream.nodes();
        let Some(members) = &mut stream.members else { return };
        members.retain(|node, _| nodes.contains(node));
        let due = |node: &NodeId| {
            members.get(node).is_none_or(|member| now >= member.offered_at.after(OFFER_EVERY))
        };
        let due: Vec<NodeId> = nodes.into_iter().filter(due).collect();
        for node in &due {
            let member = members.entry(*node).or_insert(Member { joined_at: None, offered_at: now });
            member.offered_at = now;
        }
        let (log, outputs) = (stream.log, stream.outputs.clone());
        for node in due {
            self.send(node, Message::Offer { log, outputs: outputs.clone() }, effects);
        }
    }

    pub(super) fn on_in_topic(&mut self, node: NodeId, topic: TopicId) {
        let members = self.fanout.streams.get_mut(&topic).and_then(|stream| stream.members.as_mut());
        if let Some(member) = members.and_then(|members| members.get_mut(&node)) {
            member.joined_at.get_or_insert(self.now);
        }
    }

    pub(super) fn on_out_of_topic(&mut self, node: NodeId, topic: TopicId, effects: &mut Effects) {
        let members = self.fanout.streams.get_mut(&topic).and_then(|stream| stream.members.as_mut());
        if let Some(member) = members.and_then(|members| members.get_mut(&node)) {
            member.joined_at = None;
        }
        self.turn_out(topic, |(of, _)| *of == node, effects);
    }

    /// What a reader that goes by gossip says of itself: how far it has come, and what it is done with.
    pub(super) fn on_word_of(
        &mut self,
        of: Of,
        total: u64,
        received: Position,
        committed: Position,
        effects: &mut Effects,
    ) {
        let topic = self.subscriptions.get(&of).and_then(|subscription| subscription.topic);
        let Some(topic) = topic else { return };
        let cursor = self.fanout.streams.get_mut(&topic).and_then(|stream| stream.cursor.as_mut());
        let sent =
            cursor.as_ref().and_then(|cursor| self.subscriptions.get(&cursor.of)).map(Subscription::sent);
        let (Some(cursor), Some(sent)) = (cursor, sent) else {
            return self.turn_out(topic, |rider| *rider == of, effects);
        };
        let mut done = None;
        while let Some((_, bytes)) = cursor.out.pop_front_if(|(last, _)| *last <= committed.seq) {
            done = Some(bytes);
        }
        let mover = cursor.of;
        if done.is_some() {
            cursor.moved_at = self.now;
        }
        if let (Some(done), Some(moves)) = (done, self.subscriptions.get_mut(&mover)) {
            moves.grant(done + EDGE_CREDIT_BYTES);
            let log = moves.log;
            self.wake_reader(log, mover);
        }
        let says = self.subscriptions.get_mut(&of);
        if says.is_some_and(|subscription| subscription.on_word(total, received, sent)) {
            self.turn_out(topic, |rider| *rider == of, effects);
        }
    }

    /// Some of those that go by gossip do so no more: they subscribe again from where they stand.
    fn turn_out(&mut self, topic: TopicId, which: impl Fn(&Of) -> bool, effects: &mut Effects) {
        let Some(stream) = self.fanout.streams.get(&topic) else { return };
        let rides = |of: &&Of| self.subscriptions.get(*of).is_some_and(|subscription| subscription.by_gossip);
        let out: Vec<Of> = stream.readers.iter().filter(rides).filter(|of| which(of)).copied().collect();
        for (node, edge) in out {
            self.unsubscribe(node, edge);
            self.send(node, Message::Refused { edge, why: Refusal::Unknown }, effects);
        }
        self.end_without_riders(topic);
    }

    fn end_without_riders(&mut self, topic: TopicId) {
        let cursor = self.fanout.streams.get(&topic).and_then(|stream| stream.cursor.as_ref());
        if let Some(Cursor { of: (node, edge), .. }) = cursor.filter(|cursor| cursor.riders.is_empty()) {
            self.unsubscribe(*node, *edge);
        }
    }

    /// The stream goes to each reader directly for a while.
    fn go_directly(&mut self, topic: TopicId, span: Span, effects: &mut Effects) {
        if let Some(stream) = self.fanout.streams.get_mut(&topic) {
            stream.rests_until = self.now.after(span);
            stream.gathers = None;
        }
        self.turn_out(topic, |_| true, effects);
    }

    pub(super) fn on_not_broadcast(&mut self, topic: TopicId, effects: &mut Effects) {
        self.go_directly(topic, REST_UNHEARD, effects);
    }

    // --- how they are served ---

    /// Whether the reader may be sent something now, and how far: who goes by gossip may not; who is to go by
    /// it, up to where the broadcasts stand; broadcasts, when the ones before them are a little while ago.
    pub(super) fn may_be_served(&mut self, of: Of, effects: &mut Effects) -> bool {
        if let Some(topic) = self.fanout.cursors.get(&of) {
            let cursor = self.fanout.streams.get(topic).and_then(|stream| stream.cursor.as_ref());
            let due = cursor.and_then(|cursor| cursor.sent_at).map(|at| at.after(BROADCAST_EVERY));
            return match due.filter(|due| self.now < *due) {
                None => true,
                Some(due) => {
                    if self.fanout.timer_at.is_none_or(|at| at > due) {
                        self.fanout.timer_at = Some(due);
                        effects.push(Effect::SetTimer { timer: Timer::Broadcast, at: due });
                    }
                    false
                }
            };
        }
        let Some(subscription) = self.subscriptions.get(&of) else { return false };
        let Some(topic) = subscription.topic else { return true };
        if subscription.by_gossip {
            let log = subscription.log;
            self.not_willing(log, of);
            return false;
        }
        let until = self.bound_of(of, topic).unwrap_or(Seq(u64::MAX));
        if let Some(subscription) = self.subscriptions.get_mut(&of) {
            subscription.until = until;
        }
        true
    }

    /// How far a reader that is to go by gossip is served directly.
    fn bound_of(&self, (node, _): Of, topic: TopicId) -> Option<Seq> {
        let stream = self.fanout.streams.get(&topic).filter(|stream| stream.has_joined(&node, self.now))?;
        match (&stream.cursor, stream.gathers) {
            (Some(cursor), _) => self.subscriptions.get(&cursor.of).map(|cursor| cursor.sent().seq),
            (None, Some((at, _))) => Some(at.seq),
            (None, None) => None,
        }
    }

    /// The reader was sent what it may have.
    pub(super) fn was_served(&mut self, of: Of, effects: &mut Effects) {
        let Some(subscription) = self.subscriptions.get(&of) else { return };
        let (Some(topic), at) = (subscription.topic, subscription.sent()) else { return };
        let may = subscription.has_credit() && !subscription.by_gossip;
        let Some(stream) = self.fanout.streams.get(&topic) else { return };
        if !may || !stream.has_joined(&of.0, self.now) {
            return;
        }
        match &stream.cursor {
            Some(cursor) if self.subscriptions.get(&cursor.of).map(Subscription::sent) == Some(at) => {
                self.board(topic, of, at, effects);
            }
            Some(_) => {}
            None => self.assemble(topic, effects),
        }
    }

    fn board(&mut self, topic: TopicId, of: Of, at: Position, effects: &mut Effects) {
        let cursor = self.fanout.streams.get_mut(&topic).and_then(|stream| stream.cursor.as_mut());
        let (Some(cursor), Some(subscription)) = (cursor, self.subscriptions.get_mut(&of)) else { return };
        cursor.riders.insert(of);
        subscription.by_gossip = true;
        let log = subscription.log;
        self.not_willing(log, of);
        self.send(of.0, Message::ByGossip { edge: of.1, at }, effects);
    }

    /// Broadcasts begin where the foremost reader stands, as soon as the others stand there too, or after a
    /// while without those that do not.
    fn assemble(&mut self, topic: TopicId, effects: &mut Effects) {
        let now = self.now;
        let Some(stream) = self.fanout.streams.get(&topic).filter(|stream| stream.cursor.is_none()) else {
            return;
        };
        let stands = |of: &Of| {
            let subscription = self.subscriptions.get(of).filter(|_| stream.has_joined(&of.0, now))?;
            subscription.has_credit().then(|| (subscription.sent(), *of))
        };
        let stand: Vec<(Position, Of)> = stream.readers.iter().filter_map(stands).collect();
        let foremost = stand.iter().map(|(at, _)| *at).max_by_key(|at| at.seq);
        let Some((at, since)) = stream.gathers.or(foremost.map(|at| (at, now))) else { return };
        let (log, outputs) = (stream.log, stream.outputs.clone());
        let behind = stand.iter().any(|(stands, _)| stands.seq < at.seq);
        let there: Vec<Of> =
            stand.into_iter().filter(|(stands, _)| *stands == at).map(|(_, of)| of).collect();
        if behind && now < since.after(GATHER) {
            if let Some(stream) = self.fanout.streams.get_mut(&topic) {
                stream.gathers = Some((at, since));
            }
            return;
        }
        let of = (self.me, EdgeId(self.fresh()));
        let Some(stream) = self.fanout.streams.get_mut(&topic) else { return };
        stream.gathers = None;
        let Some(writer) = self.logs.get(&log).filter(|_| !there.is_empty()) else { return };
        let filter = Filter { outputs, slots: SlotRange::ALL };
        let subscription = Subscription::new(writer, None, filter, at, EDGE_CREDIT_BYTES);
        let (riders, out) = Default::default();
        stream.cursor =
            Some(Cursor { of, riders, out, moved_at: now, sent_at: None, told: (at.seq, TOLD_TIMES) });
        self.fanout.cursors.insert(of, topic);
        self.hold(of, subscription);
        for of in there {
            self.board(topic, of, at, effects);
        }
    }

    // --- broadcasts ---

    /// What the cursor has read goes out. True: there may be more.
    pub(super) fn broadcast(
        &mut self,
        of: Of,
        after: Position,
        slices: Vec<Slice>,
        effects: &mut Effects,
    ) -> bool {
        let Some(topic) = self.fanout.cursors.get(&of).copied() else { return false };
        let Some(subscription) = self.subscriptions.get(&of) else { return false };
        let (sent, bytes, log) = (subscription.sent(), subscription.sent_bytes(), subscription.log);
        let head = self.logs.get(&log).map_or(sent.seq, |writer| writer.persisted().seq);
        let broadcast = Broadcast { after, slices, head };
        if broadcast.weight() > BROADCAST_BYTES_MAX {
            self.go_directly(topic, REST_LARGE, effects);
            return false;
        }
        let Some(stream) = self.fanout.streams.get_mut(&topic) else { return false };
        let Some(cursor) = &mut stream.cursor else { return false };
        if cursor.out.is_empty() {
            cursor.moved_at = self.now;
        }
        cursor.out.push_back((sent.seq, bytes));
        cursor.sent_at = Some(self.now);
        let waits = stream.readers.difference(&cursor.riders).copied();
        self.restless_edges.extend(waits);
        effects.push(Effect::Broadcast { topic, broadcast });
        true
    }

    pub(super) fn broadcasts_due(&mut self) {
        self.fanout.timer_at = None;
        self.restless_edges.extend(self.fanout.cursors.keys().copied());
    }

    /// Once a second: streams with few readers go directly again, topics are offered again, those that go by
    /// gossip are told where the broadcasts stand, and none waits for those that stand still.
    pub(super) fn tend_fanout(&mut self, effects: &mut Effects) {
        let topics: Vec<TopicId> = self.fanout.streams.keys().copied().collect();
        for topic in topics {
            self.tend_stream(topic, effects);
        }
    }

    fn tend_stream(&mut self, topic: TopicId, effects: &mut Effects) {
        let (now, GossipBounds { from_nodes, below_nodes }) = (self.now, self.fanout.bounds);
        let Some(stream) = self.fanout.streams.get_mut(&topic) else { return };
        let nodes = stream.nodes().len();
        if stream.members.is_none() {
            // Places for topics may be free again.
            if let Some(of) = stream.readers.first().copied().filter(|_| nodes >= from_nodes) {
                self.on_whole_reader(of, effects);
            }
            return;
        }
        let few = nodes < below_nodes;
        stream.few_since = if few { stream.few_since.or(Some(now)) } else { None };
        if stream.few_since.is_some_and(|since| now >= since.after(FEW_FOR)) {
            stream.members = None;
            stream.gathers = None;
            self.turn_out(topic, |_| true, effects);
            if self.fanout.streams.get(&topic).is_some_and(|stream| stream.readers.is_empty()) {
                self.fanout.streams.remove(&topic);
            }
            return;
        }
        self.make_offers(topic, effects);
        self.end_without_riders(topic);
        let Some(stream) = self.fanout.streams.get(&topic) else { return };
        let Some(cursor) = &stream.cursor else {
            self.turn_out(topic, |_| true, effects);
            return self.assemble(topic, effects);
        };
        let Some(moves) = self.subscriptions.get(&cursor.of) else { return };
        let stuck = !cursor.out.is_empty() && now >= cursor.moved_at.after(STUCK);
        if stuck && !moves.has_credit() {
            return self.turn_out(topic, |_| true, effects);
        }
        self.tell_riders(topic, effects);
    }

    /// The last broadcast may be lost, and nothing follows that would show it.
    fn tell_riders(&mut self, topic: TopicId, effects: &mut Effects) {
        let cursor = self.fanout.streams.get_mut(&topic).and_then(|stream| stream.cursor.as_mut());
        let Some(cursor) = cursor else { return };
        let Some(moves) = self.subscriptions.get(&cursor.of) else { return };
        let (after, log) = (moves.sent(), moves.log);
        let times = if cursor.told.0 == after.seq { cursor.told.1 } else { 0 };
        if times >= TOLD_TIMES {
            return;
        }
        cursor.told = (after.seq, times + 1);
        let riders = cursor.riders.clone();
        let head = self.logs.get(&log).map_or(after.seq, |writer| writer.persisted().seq);
        for (node, edge) in riders {
            let message = Message::Batch { edge, after, slices: Vec::new(), head, behind: 0 };
            self.send(node, message, effects);
        }
    }
}
