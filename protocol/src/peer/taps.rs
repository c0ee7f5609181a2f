//! Taps: clients that follow a stream. A tap reads all logs of the stream as any reader does, sends
//! no more than its client granted, and holds nothing back: its readers are in nobody's retention.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Peer;
use crate::edge::reader::{Owner, Reader};
use crate::effect::{Effect, Effects, RequestId, Timer};
use crate::id::{LogId, NodeId, Position};
use crate::limits::{ASK_DEADLINE, TAPS_MAX};
use crate::pipeline::plan::SlotRange;
use crate::rpc::tailed::{Run, Tailed};
use crate::rpc::{Cursor, CursorAt, Fault, FaultKind, Response, Tail, TailFrom};
use crate::time::Time;
use crate::wire::message::{EdgeId, Filter, From, Message, Slice};

/// Events of one answer.
const ANSWER_EVENTS_MAX: usize = 512;
const ANSWER_BYTES_MAX: u64 = 256 << 10;

#[derive(Debug)]
pub(super) struct Tap {
    tail: Tail,
    /// Edge of each log that it reads or has read.
    edges: BTreeMap<LogId, EdgeId>,
    /// Logs that it has read to their `Close`, each with the one that follows.
    ended: BTreeMap<LogId, LogId>,
    /// Of those the ones that were closed when a tap of what comes from now on first reached them.
    past: BTreeSet<LogId>,
    cursor: Cursor,
    queue: VecDeque<(EdgeId, LogId, Slice)>,
    credit: u64,
    sent: u64,
    since: Time,
}

impl Peer {
    pub(super) fn open_tap(&mut self, id: RequestId, tail: Tail, effects: &mut Effects) {
        let asker = crate::actor::source::Asker::Client(id);
        if self.taps.len() >= TAPS_MAX {
            let why = format!("this node serves {TAPS_MAX} taps already; close one or ask another node");
            return self.fail(asker, FaultKind::Busy { retry_after_ms: 1000 }, why, effects);
        }
        if self.wiring.manifest(&tail.pipeline).is_none() {
            let why =
                format!("there is no pipeline '{}' in this mesh; see `dunlin pipelines`", tail.pipeline);
            return self.fail(asker, FaultKind::Unknown, why, effects);
        }
        if !self.wiring.has_stream(&tail.pipeline, &tail.stream) {
            let names = self.wiring.stream_names(&tail.pipeline).join(", ");
            let why = format!("pipeline '{}' has no stream '{}'; it has {names}", tail.pipeline, tail.stream);
            return self.fail(asker, FaultKind::Unknown, why, effects);
        }
        if tail.limit == Some(0) {
            return effects.push(Effect::Answer {
                id,
                response: Response::Events { events: Tailed::default() },
                last: true,
            });
        }
        if let TailFrom::Cursor(cursor) = &tail.from {
            let known = cursor.0.keys().any(|log| self.wiring.carries(&tail.pipeline, &tail.stream, log));
            if !known && !cursor.0.is_empty() {
                let why = format!(
                    "the cursor names no log of '{}/{}': it comes from another stream, or from before the pipeline was \
                     removed; tail from start, or from the cursor of an event of this stream",
                    tail.pipeline, tail.stream
                );
                return self.fail(asker, FaultKind::Invalid, why, effects);
            }
        }
        let cursor = match &tail.from {
            TailFrom::Cursor(cursor) => cursor.clone(),
            TailFrom::Start | TailFrom::Now => Cursor::default(),
        };
        let credit = tail.credit;
        let tap = Tap {
            tail,
            edges: BTreeMap::new(),
            ended: BTreeMap::new(),
            past: BTreeSet::new(),
            cursor,
            queue: VecDeque::new(),
            credit,
            sent: 0,
            since: self.now,
        };
        self.taps.insert(id, tap);
        self.follow_stream(id, true, effects);
        effects.push(Effect::SetTimer { timer: Timer::Ask, at: self.now.after(ASK_DEADLINE) });
        self.on_tap_level(id, effects);
    }

    /// Subscribes to every log of the stream that the tap does not read yet. Logs that are born
    /// while it follows are read from their start.
    pub(super) fn follow_stream(&mut self, id: RequestId, first: bool, effects: &mut Effects) {
        let Some(tap) = self.taps.get(&id) else { return };
        let logs = self.wiring.logs_of_stream(&tap.tail.pipeline, &tap.tail.stream, &tap.ended);
        // A tap of what is there follows closed logs, but nothing that is born meanwhile.
        let may = |log: &LogId| first || tap.tail.follow || tap.ended.values().any(|next| next == log);
        let fresh: Vec<(LogId, NodeId, Vec<u16>)> = logs
            .into_iter()
            .filter(|(log, _, _)| !tap.edges.contains_key(log))
            .filter(|(log, _, _)| may(log))
            .collect();
        for (log, node, outputs) in fresh {
            let Some(tap) = self.taps.get(&id) else { return };
            let from = match (&tap.tail.from, tap.cursor.0.get(&log)) {
                (_, Some(at)) => From::After(at.position),
                (TailFrom::Now, None) if first || tap.past.contains(&log) => From::Now,
                (TailFrom::Now | TailFrom::Start | TailFrom::Cursor(_), None) => From::Start,
            };
            let edge = EdgeId(self.fresh());
            let filter = Filter { outputs, slots: SlotRange::ALL };
            self.readers.insert(edge, Reader::new(edge, log, node, Owner::Tap(id), filter, from));
            if let Some(tap) = self.taps.get_mut(&id) {
                tap.edges.insert(log, edge);
            }
            self.speak(edge, effects);
        }
    }

    pub(super) fn follow_streams(&mut self, effects: &mut Effects) {
        let taps: Vec<RequestId> = self.taps.keys().copied().collect();
        for id in taps {
            if let Some(pipeline) = self.taps.get(&id).map(|tap| &tap.tail.pipeline)
                && self.wiring.manifest(pipeline).is_none()
            {
                let why = format!("pipeline '{pipeline}' was removed: nothing more comes of its streams");
                self.fail_tap(id, why, effects);
                continue;
            }
            self.forsake_streams(id, effects);
            self.follow_stream(id, false, effects);
        }
    }

    /// What a node that was given up held is not waited for; what came of it comes out.
    fn forsake_streams(&mut self, id: RequestId, effects: &mut Effects) {
        let assignment = self.wiring.assignment();
        let gone = |log: &LogId| assignment.line_of(log).is_some_and(|line| line.gone);
        let Some(tap) = self.taps.get_mut(&id) else { return };
        let edges: Vec<(LogId, EdgeId)> =
            tap.edges.iter().filter(|(log, _)| gone(log)).map(|(log, edge)| (*log, *edge)).collect();
        if edges.is_empty() {
            return;
        }
        tap.ended.retain(|log, _| !gone(log));
        for (log, edge) in edges {
            tap.edges.remove(&log);
            self.readers.remove(&edge);
        }
        self.on_tap_level(id, effects);
    }

    pub(super) fn on_tap_credit(&mut self, id: RequestId, bytes: u64, effects: &mut Effects) {
        if let Some(tap) = self.taps.get_mut(&id) {
            tap.credit = tap.credit.saturating_add(bytes);
            self.drain_tap(id, effects);
        }
    }

    pub(super) fn on_cancelled(&mut self, id: RequestId, effects: &mut Effects) {
        self.close_tap(id, effects);
    }

    fn close_tap(&mut self, id: RequestId, effects: &mut Effects) {
        let Some(tap) = self.taps.remove(&id) else { return };
        for edge in tap.edges.into_values() {
            if let Some(reader) = self.readers.remove(&edge) {
                self.send(reader.writer, Message::Unsubscribe { edge }, effects);
            }
        }
    }

    pub(super) fn fail_tap(&mut self, id: RequestId, why: String, effects: &mut Effects) {
        self.close_tap(id, effects);
        let response = Response::Failed(Fault { kind: FaultKind::Unavailable, detail: why });
        effects.push(Effect::Answer { id, response, last: true });
    }

    pub(super) fn on_tap_slices(
        &mut self,
        id: RequestId,
        edge: EdgeId,
        log: LogId,
        slices: Vec<Slice>,
        effects: &mut Effects,
    ) {
        let at_end = |reader: &Reader| reader.head_at_first == Some(reader.received().seq.next());
        let was_closed = self.readers.get(&edge).is_some_and(at_end);
        let Some(tap) = self.taps.get_mut(&id) else { return };
        let closed = slices.iter().find_map(|slice| slice.closed);
        tap.queue.extend(slices.into_iter().map(|slice| (edge, log, slice)));
        if let Some(next) = closed {
            tap.ended.insert(log, next);
            if tap.tail.from == TailFrom::Now && was_closed {
                tap.past.insert(next);
            }
            self.follow_stream(id, false, effects);
        }
        self.drain_tap(id, effects);
    }

    /// Sends what the client has room for; gives credit back upstream as it goes.
    fn drain_tap(&mut self, id: RequestId, effects: &mut Effects) {
        loop {
            let Some(tap) = self.taps.get_mut(&id) else { return };
            let mut events = Tailed { before: tap.cursor.clone(), runs: Vec::new() };
            let (mut count, mut bytes) = (0, 0);
            let mut done: Vec<(EdgeId, u64, Position)> = Vec::new();
            // Client credit counts the events' weight alone: positions without events are free.
            while tap.credit > bytes && count < ANSWER_EVENTS_MAX && bytes < ANSWER_BYTES_MAX {
                let Some((edge, log, slice)) = tap.queue.pop_front() else { break };
                done.push((edge, slice.weight(), slice.position));
                let run = tap.run(log, slice);
                count += run.events.len();
                bytes += run.events.iter().map(|(_, event)| event.weight() as u64).sum::<u64>();
                events.runs.push(run);
            }
            let finished = tap.tail.limit.is_some_and(|limit| tap.sent >= limit);
            tap.credit = tap.credit.saturating_sub(bytes);
            let idle = done.is_empty();
            for (edge, weight, position) in done {
                let Some(reader) = self.readers.get_mut(&edge) else { continue };
                let writer = reader.writer;
                if let Some(message) = reader.consumed(weight, position, self.now) {
                    self.send(writer, message, effects);
                }
            }
            if finished {
                self.close_tap(id, effects);
            }
            if !events.is_empty() || finished {
                effects.push(Effect::Answer { id, response: Response::Events { events }, last: finished });
            }
            if finished {
                return;
            }
            if idle {
                break;
            }
        }
        self.on_tap_level(id, effects);
    }

    /// A tap without `follow` ends when every log has given what it held when it was first reached.
    pub(super) fn on_tap_level(&mut self, id: RequestId, effects: &mut Effects) {
        let Some(tap) = self.taps.get(&id) else { return };
        if tap.tail.follow || !tap.queue.is_empty() {
            return;
        }
        // A log that follows a closed one may be known only by its name yet.
        let level = tap.ended.values().all(|next| tap.edges.contains_key(next));
        let level = level
            && tap.edges.iter().all(|(log, edge)| {
                tap.ended.contains_key(log)
                    || self.readers.get(edge).is_some_and(|reader| {
                        reader
                            .head_at_first
                            .is_some_and(|head| reader.is_live() && reader.received().seq >= head)
                    })
            });
        if level {
            self.close_tap(id, effects);
            effects.push(Effect::Answer {
                id,
                response: Response::Events { events: Tailed::default() },
                last: true,
            });
        }
    }

    /// Logs that cannot be reached end a tap without `follow`: what is missing is said.
    pub(super) fn expire_taps(&mut self, effects: &mut Effects) {
        let late: Vec<(RequestId, String)> = self
            .taps
            .iter()
            .filter(|(_, tap)| !tap.tail.follow && self.now >= tap.since.after(ASK_DEADLINE))
            .filter_map(|(id, tap)| {
                let missing = tap.edges.values().find_map(|edge| {
                    self.readers.get(edge).filter(|reader| reader.head_at_first.is_none() && !self.reachable(reader.writer))
                })?;
                let why = format!(
                    "node {} holds a part of this stream and cannot be reached; what came is not all, try again when it is back",
                    missing.writer
                );
                Some((*id, why))
            })
            .collect();
        late.into_iter().for_each(|(id, why)| self.fail_tap(id, why, effects));
    }
}

impl Tap {
    /// The slice's events that the client has not seen, and the cursor behind it.
    fn run(&mut self, log: LogId, slice: Slice) -> Run {
        let before = self.cursor.0.get(&log).copied().unwrap_or_default();
        let position = slice.position;
        // Of the record that a cursor points into, only what lies behind it.
        let seen = before.index.filter(|_| position.seq == before.position.seq.next());
        let left = self.tail.limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit.saturating_sub(self.sent)).unwrap_or(usize::MAX)
        });
        let fresh = slice.events.into_iter().filter(|event| seen.is_none_or(|seen| event.index > seen));
        let events: Vec<_> = fresh.take(left).map(|event| (event.index, event.event)).collect();
        self.sent += events.len() as u64;
        self.cursor.0.insert(log, CursorAt { position, index: None });
        Run { log, position, events }
    }
}
