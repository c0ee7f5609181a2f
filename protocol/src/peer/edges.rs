//! The writer's side of edges: serving the readers of this node's logs.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Peer;
use super::fanout::Fanout;
use crate::edge::reader::Ahead;
use crate::edge::writer::{Push, Subscription};
use crate::effect::{Effect, Effects, Level, ReadId};
use crate::id::{LogId, NodeId, Position, Seq};
use crate::limits::{CACHES_LATE_BYTES, LOG_CACHE_LATE_BYTES, READ_BYTES_MAX, SUBSCRIPTIONS_PER_PEER_MAX};
use crate::log::record::Record;
use crate::log::writer::{Kept, Log, Standing};
use crate::mutation::{Mutation, planted};
use crate::wire::message::{EdgeId, Filter, From, Message, Refusal, Slice};

/// Readers of one log that may wait for it to open. Beyond: they are refused and ask again.
const EARLY_MAX: usize = 4096;

/// A `Message::Subscribe`, taken apart.
#[derive(Debug)]
pub(super) struct Subscribing {
    pub edge: EdgeId,
    pub log: LogId,
    pub reader: Option<LogId>,
    pub filter: Filter,
    pub from: From,
    pub committed: Position,
    pub credit: u64,
}

impl Peer {
    pub(super) fn on_subscribe(&mut self, node: NodeId, request: Subscribing, effects: &mut Effects) {
        if self.stops_by(node, &request, effects) {
            return self.send(node, Message::Refused { edge: request.edge, why: Refusal::Diverged }, effects);
        }
        if self.is_opening(&request.log) {
            let early = self.early.entry(request.log).or_default();
            if early.len() < EARLY_MAX {
                early.insert((node, request.edge), request);
                return;
            }
        }
        let lacks = self.lacks(&request);
        let Subscribing { edge, log, reader, filter, from, committed, credit } = request;
        self.unsubscribe(node, edge);
        let held = self.subscriptions_of.get(&node).copied().unwrap_or(0);
        let writer = self.logs.get_mut(&log).filter(|_| self.phase.is_open());
        let refusal = match &writer {
            _ if held >= SUBSCRIPTIONS_PER_PEER_MAX => Some(Refusal::TooMany),
            None => Some(Refusal::Unknown),
            Some(writer) if writer.damage.is_some() => Some(Refusal::Damaged),
            Some(writer) if !writer.open => Some(Refusal::Unknown),
            Some(_) => None,
        };
        let (Some(writer), None) = (writer, refusal) else {
            let why = refusal.unwrap_or(Refusal::Unknown);
            if why == Refusal::TooMany {
                let detail = format!("node {node} holds {held} subscriptions here and gets no more");
                self.report(Level::Debug, "subscriptions_refused", detail, effects);
            }
            return self.send(node, Message::Refused { edge, why }, effects);
        };
        let start = Position { seq: Seq(writer.first().0 - 1), ..Position::START };
        let at = match from {
            From::Start => start,
            From::Now => writer.persisted(),
            From::After(Position::START) if writer.first() == Seq(1) => Position::START,
            From::After(position) => match writer.standing(position) {
                // Nobody goes on in another history, nor falls back to it.
                Standing::Within if writer.differs(position) => {
                    return self.send(node, Message::Refused { edge, why: Refusal::Diverged }, effects);
                }
                Standing::Beyond(_) if lacks => {
                    return self.send(node, Message::Refused { edge, why: Refusal::Diverged }, effects);
                }
                Standing::Within => position,
                Standing::Beyond(to) => return self.send(node, Message::FallBack { edge, to }, effects),
                Standing::Gone => {
                    let why = Refusal::Gone { first: writer.first() };
                    return self.send(node, Message::Refused { edge, why }, effects);
                }
            },
        };
        let head = writer.persisted().seq;
        // Who stands at a closed log's end is told again which log follows: something is still to come.
        let closed = writer.closed.filter(|_| at.seq == head);
        let end = if closed.is_some() { head.next() } else { head };
        let mut subscription = Subscription::new(writer, reader, filter, at, credit);
        let behind = subscription.behind(writer);
        subscription.topic = Fanout::topic_for(&subscription, node == self.me);
        if let Some(reader) = reader {
            self.reader_committed(node, log, reader, committed);
        }
        self.hold((node, edge), subscription);
        self.send(node, Message::Subscribed { edge, at, head: end, behind }, effects);
        if closed.is_some() {
            let slices = alloc::vec![Slice { position: at, events: Vec::new(), mark: None, closed }];
            self.send(node, Message::Batch { edge, after: at, slices, head, behind: 0 }, effects);
        }
        if let Some(reader) = reader {
            self.passed_before(log, reader);
        }
        self.on_whole_reader((node, edge), effects);
    }

    pub(super) fn hold(&mut self, of: (NodeId, EdgeId), subscription: Subscription) {
        let log = subscription.log;
        self.subscriptions.insert(of, subscription);
        *self.subscriptions_of.entry(of.0).or_insert(0) += 1;
        self.subscribers.entry(log).or_default().insert(of);
        self.wake_reader(log, of);
    }

    /// This reader may be sent something, whatever the others of its log may.
    pub(super) fn wake_reader(&mut self, log: LogId, of: (NodeId, EdgeId)) {
        self.willing.entry(log).or_default().insert(of);
        self.restless_edges.insert(of);
    }

    /// The log is this node's: it opens with the node, or its epoch is on its way to the disk.
    fn is_opening(&self, log: &LogId) -> bool {
        let recovered = self.recovering.get(log).map(|found| &found.log).filter(|_| !self.phase.is_open());
        let writer = self.logs.get(log).or(recovered);
        writer.is_some_and(|writer| !writer.open && writer.damage.is_none())
    }

    /// The log is open: who asked for it too early is served now, not at its next beat.
    pub(super) fn serve_early(&mut self, log: LogId, effects: &mut Effects) {
        for ((node, _), request) in self.early.remove(&log).unwrap_or_default() {
            self.on_subscribe(node, request, effects);
        }
    }

    pub(super) fn on_credit(
        &mut self,
        node: NodeId,
        edge: EdgeId,
        total: u64,
        received: Position,
        committed: Position,
        effects: &mut Effects,
    ) {
        let Some(subscription) = self.subscriptions.get_mut(&(node, edge)) else {
            return self.send(node, Message::Refused { edge, why: Refusal::Unknown }, effects);
        };
        if subscription.by_gossip {
            return self.on_word_of((node, edge), total, received, committed, effects);
        }
        let log = subscription.log;
        let stalled = subscription.on_credit(total, received);
        let (reader, sent) = (subscription.reader, subscription.sent());
        let spent = !subscription.has_credit();
        let ahead = self
            .logs
            .get(&log)
            .map(|writer| Ahead { head: writer.persisted().seq, behind: subscription.behind(writer) });
        if stalled {
            // What was sent got lost on the way: the reader subscribes again from what it has.
            self.unsubscribe(node, edge);
            return self.send(node, Message::Refused { edge, why: Refusal::Unknown }, effects);
        }
        if let Some(reader) = reader {
            self.reader_committed(node, log, reader, committed);
        }
        match ahead {
            // Who may be sent nothing hears all the same how far behind it is.
            Some(Ahead { head, behind }) if spent && head > sent.seq => {
                let slices = Vec::new();
                self.send(node, Message::Batch { edge, after: sent, slices, head, behind }, effects);
            }
            Some(_) | None => {}
        }
        self.wake_reader(log, (node, edge));
    }

    /// Retention goes by this, so it counts only from the node that has the reader, and only for what
    /// the log holds: nobody else's word lets a record go.
    fn reader_committed(&mut self, node: NodeId, log: LogId, reader: LogId, committed: Position) {
        let home = self.wiring.writer_of(&reader);
        if home.is_none_or(|home| home == node)
            && let Some(writer) = self.logs.get_mut(&log)
            && committed.seq <= writer.persisted().seq
        {
            // After a restart every reader stands at the start until it is heard of.
            let was_full = writer.is_full();
            writer.reader_committed(reader, committed);
            if was_full && !writer.is_full() && !planted(Mutation::SleepWhenFull) {
                self.restless_actors.insert(log);
            }
        }
    }

    pub(super) fn unsubscribe(&mut self, node: NodeId, edge: EdgeId) {
        for early in self.early.values_mut() {
            early.remove(&(node, edge));
        }
        if let Some(subscription) = self.forget_subscription(node, edge)
            && let Some(subscribers) = self.subscribers.get_mut(&subscription.log)
        {
            subscribers.remove(&(node, edge));
            if subscribers.is_empty() {
                self.subscribers.remove(&subscription.log);
            }
            self.not_willing(subscription.log, (node, edge));
        }
    }

    pub(super) fn not_willing(&mut self, log: LogId, of: (NodeId, EdgeId)) {
        if let Some(willing) = self.willing.get_mut(&log) {
            willing.remove(&of);
            if willing.is_empty() {
                self.willing.remove(&log);
            }
        }
    }

    /// All but its place among the log's subscribers.
    pub(super) fn forget_subscription(&mut self, node: NodeId, edge: EdgeId) -> Option<Subscription> {
        let subscription = self.subscriptions.remove(&(node, edge))?;
        if let Some(held) = self.subscriptions_of.get_mut(&node) {
            *held -= 1;
            if *held == 0 {
                self.subscriptions_of.remove(&node);
            }
        }
        self.fanout.lost_reader((node, edge), subscription.topic);
        Some(subscription)
    }

    pub(super) fn drop_subscriptions_of(&mut self, node: NodeId) {
        for early in self.early.values_mut() {
            early.retain(|(reader, _), _| *reader != node);
        }
        let edges: Vec<EdgeId> = self
            .subscriptions
            .range((node, EdgeId(0))..=(node, EdgeId(u64::MAX)))
            .map(|((_, edge), _)| *edge)
            .collect();
        edges.into_iter().for_each(|edge| self.unsubscribe(node, edge));
    }

    /// Sends every reader of this log that has credit what it may have.
    pub(super) fn serve_readers(&mut self, log: LogId, effects: &mut Effects) {
        let Some(willing) = self.willing.get(&log) else { return };
        let willing: Vec<(NodeId, EdgeId)> = willing.iter().copied().collect();
        for of in willing {
            self.serve_reader(of, effects);
        }
        self.keep_for_the_late(log);
    }

    /// What a late reader still wants of the log stays in memory, so far as there is room.
    fn keep_for_the_late(&mut self, log: LogId) {
        let Some(writer) = self.logs.get(&log).filter(|writer| writer.is_crowded()) else { return };
        let next = |of: &(NodeId, EdgeId)| {
            let reader = self.subscriptions.get(of).filter(|reader| reader.reading.is_none())?;
            let next = reader.sent().seq.next();
            writer.cached(next).map(|_| next)
        };
        let wanted = self.subscribers.get(&log).into_iter().flatten().filter_map(next).min();
        let others = self.late_logs.iter().filter(|other| **other != log);
        let extra = |log: &LogId| self.logs.get(log).map(Log::extra);
        let room = CACHES_LATE_BYTES.saturating_sub(others.filter_map(extra).sum());
        let Some(writer) = self.logs.get_mut(&log) else { return };
        writer.keep_for(wanted.unwrap_or(Seq(u64::MAX)), room.min(LOG_CACHE_LATE_BYTES));
        match writer.extra() {
            0 => self.late_logs.remove(&log),
            _ => self.late_logs.insert(log),
        };
    }

    /// One reader has credit again.
    pub(super) fn serve_edge(&mut self, of: (NodeId, EdgeId), effects: &mut Effects) {
        self.serve_reader(of, effects);
        if let Some(log) = self.subscriptions.get(&of).map(|reader| reader.log)
            && self.late_logs.contains(&log)
        {
            self.keep_for_the_late(log);
        }
    }

    /// Sends one reader what it may have. Who has no credit left is not looked at again before it grants more:
    /// a node may hold many such readers here, and they cost the others nothing.
    pub(super) fn serve_reader(&mut self, of: (NodeId, EdgeId), effects: &mut Effects) {
        if !self.may_be_served(of, effects) {
            return;
        }
        loop {
            let Some(subscription) = self.subscriptions.get_mut(&of) else { return };
            let log = subscription.log;
            let Some(writer) = self.logs.get(&log) else { return };
            let push = subscription.push(writer);
            let has_credit = subscription.has_credit();
            let more = self.carry_out(log, of, push, effects);
            if !has_credit {
                self.not_willing(log, of);
            }
            if !more {
                return self.was_served(of, effects);
            }
        }
    }

    /// True: there may be more to push.
    fn carry_out(&mut self, log: LogId, to: (NodeId, EdgeId), push: Push, effects: &mut Effects) -> bool {
        let (node, edge) = to;
        match push {
            Push::Batch { after, slices } if self.fanout.is_cursor(to) => {
                self.broadcast(to, after, slices, effects)
            }
            Push::Batch { after, slices } => {
                let (head, behind) = match (self.logs.get(&log), self.subscriptions.get(&to)) {
                    (Some(writer), Some(reader)) => (writer.persisted().seq, reader.behind(writer)),
                    (Some(_), None) | (None, _) => (Seq(0), 0),
                };
                self.send(node, Message::Batch { edge, after, slices, head, behind }, effects);
                true
            }
            Push::Read { from, bytes } => {
                let read = ReadId(self.fresh());
                self.reads.insert(read, to);
                if let Some(subscription) = self.subscriptions.get_mut(&to) {
                    subscription.reading = Some(read);
                }
                let bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX).min(READ_BYTES_MAX);
                effects.push(Effect::Read { log, read, from, bytes_max });
                false
            }
            Push::Diverged => {
                self.unsubscribe(node, edge);
                self.send(node, Message::Refused { edge, why: Refusal::Diverged }, effects);
                false
            }
            Push::Nothing => false,
        }
    }

    pub(super) fn on_read(
        &mut self,
        log: LogId,
        read: ReadId,
        outcome: Result<Vec<Record>, String>,
        effects: &mut Effects,
    ) {
        let Some(to) = self.reads.remove(&read) else { return };
        let Some(subscription) = self.subscriptions.get_mut(&to) else { return };
        if subscription.reading != Some(read) {
            return;
        }
        subscription.reading = None;
        let records: Result<Vec<Kept>, String> = outcome.and_then(|records| {
            let kept = |record: &Record| {
                Kept::of(record).ok_or_else(|| format!("record {} does not decode", record.seq.0))
            };
            records.iter().map(kept).collect()
        });
        let (node, edge) = to;
        match records {
            Ok(records) => {
                let last = records.last().map(|kept| kept.position.seq);
                // What was read beyond the credit is read again once there is more of it.
                while let Some(subscription) = self.subscriptions.get_mut(&to) {
                    let push = subscription.push_read(&records);
                    let over = Some(subscription.sent().seq) >= last || !subscription.has_credit();
                    if !self.carry_out(log, to, push, effects) {
                        return;
                    }
                    if over {
                        break;
                    }
                }
                self.wake_reader(log, to);
            }
            Err(why) => {
                let next = subscription.sent().seq.next();
                let first = self.logs.get(&log).map_or(Seq(0), |writer| writer.first());
                self.unsubscribe(node, edge);
                // Retention overtook a reader that it does not wait for: nothing is broken.
                if next < first {
                    return self.send(node, Message::Refused { edge, why: Refusal::Gone { first } }, effects);
                }
                self.report(Level::Error, "log_unreadable", format!("log {log}: {why}"), effects);
                self.send(node, Message::Refused { edge, why: Refusal::Damaged }, effects);
            }
        }
    }
}
