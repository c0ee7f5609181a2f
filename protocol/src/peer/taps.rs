//! Taps: clients that follow a stream. A tap reads all logs of the stream out of hubs (`hubs`), sends no
//! more than its client granted, and holds nothing back: its readers are in nobody's retention.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Bound;

use super::Peer;
use super::hubs::Hubs;
use crate::edge::window::{Piece, Window};
use crate::effect::{Effect, Effects, RequestId, Timer};
use crate::id::{LogId, NodeId, Position, Seq};
use crate::limits::{ASK_DEADLINE, TAPS_MAX};
use crate::rpc::tailed::{Events, Run, Tailed};
use crate::rpc::{Cursor, CursorAt, Fault, FaultKind, Response, Tail, TailFrom};
use crate::time::Time;
use crate::wire::message::{EdgeId, From};

/// Events of one answer.
const ANSWER_EVENTS_MAX: usize = 512;
const ANSWER_BYTES_MAX: u64 = 256 << 10;
/// Bytes of one log's events before another log of the stream has its turn.
const TURN_BYTES: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Tap {
    tail: Tail,
    /// Each log that it reads or has read.
    places: BTreeMap<LogId, Place>,
    /// Logs that it has read to their `Close`, each with the one that follows.
    ended: BTreeMap<LogId, LogId>,
    /// Of those the ones that were closed when a tap of what comes from now on first reached them.
    past: BTreeSet<LogId>,
    cursor: Cursor,
    /// The log that had its turn last.
    turn: Option<LogId>,
    pub(super) credit: u64,
    sent: u64,
    since: Time,
}

/// How a tap stands to one log.
#[derive(Debug)]
pub(super) struct Place {
    pub writer: NodeId,
    pub outputs: Vec<u16>,
    /// The hub that it reads out of; none: it stands in none now, or has read the log to its close.
    pub hub: Option<EdgeId>,
    /// What it has taken; none: the writer has not told yet where it begins.
    pub at: Option<Position>,
    /// The log's end when it was first reached: where a tap without `follow` stops.
    pub head_at_first: Option<Seq>,
    /// It waits for a hub of its own.
    pub waits: bool,
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
            places: BTreeMap::new(),
            ended: BTreeMap::new(),
            past: BTreeSet::new(),
            cursor,
            turn: None,
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
            .filter(|(log, _, _)| !tap.places.contains_key(log))
            .filter(|(log, _, _)| may(log))
            .collect();
        for (log, node, outputs) in fresh {
            let Some(tap) = self.taps.get_mut(&id) else { return };
            let from = match (&tap.tail.from, tap.cursor.0.get(&log)) {
                (_, Some(at)) => From::After(at.position),
                (TailFrom::Now, None) if first || tap.past.contains(&log) => From::Now,
                (TailFrom::Now | TailFrom::Start | TailFrom::Cursor(_), None) => From::Start,
            };
            let at = match from {
                From::After(position) => Some(position),
                From::Start | From::Now => None,
            };
            let place = Place { writer: node, outputs, hub: None, at, head_at_first: None, waits: false };
            tap.places.insert(log, place);
            self.open_hub(id, log, from, effects);
        }
    }

    pub(super) fn place(&mut self, id: RequestId, log: &LogId) -> Option<&mut Place> {
        self.taps.get_mut(&id)?.place(log)
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
        let logs: Vec<LogId> = tap.places.keys().copied().filter(gone).collect();
        if logs.is_empty() {
            return;
        }
        tap.ended.retain(|log, _| !gone(log));
        for log in logs {
            self.leave_hub(id, &log, effects);
            if let Some(tap) = self.taps.get_mut(&id) {
                tap.places.remove(&log);
            }
        }
        self.on_tap_level(id, effects);
    }

    pub(super) fn on_tap_credit(&mut self, id: RequestId, bytes: u64, effects: &mut Effects) {
        let Some(tap) = self.taps.get_mut(&id) else { return };
        tap.credit = tap.credit.saturating_add(bytes);
        self.rouse_tap(id, effects);
    }

    pub(super) fn on_cancelled(&mut self, id: RequestId, effects: &mut Effects) {
        self.close_tap(id, effects);
    }

    fn close_tap(&mut self, id: RequestId, effects: &mut Effects) {
        // What it leaves makes room: not for itself.
        self.hubs.forget(id);
        let Some(tap) = self.taps.get(&id) else { return };
        for log in tap.places.keys().copied().collect::<Vec<LogId>>() {
            self.leave_hub(id, &log, effects);
        }
        self.taps.remove(&id);
    }

    pub(super) fn fail_tap(&mut self, id: RequestId, why: String, effects: &mut Effects) {
        self.close_tap(id, effects);
        let response = Response::Failed(Fault { kind: FaultKind::Unavailable, detail: why });
        effects.push(Effect::Answer { id, response, last: true });
    }

    /// Sends what there is and the client has room for; the hubs go on by that.
    pub(super) fn drain_tap(&mut self, id: RequestId, effects: &mut Effects) {
        for edge in self.serve_tap(id, effects) {
            self.advance_hub(edge, effects);
        }
    }

    /// The same, but for the hubs: those that the tap leads now are returned.
    pub(super) fn serve_tap(&mut self, id: RequestId, effects: &mut Effects) -> BTreeSet<EdgeId> {
        let mut led = BTreeSet::new();
        loop {
            let Some(tap) = self.taps.get_mut(&id) else { return led };
            let mut events = Tailed { before: tap.cursor.clone(), runs: Vec::new() };
            let (mut count, mut bytes) = (0, 0);
            let mut closes = Vec::new();
            // Client credit counts the events' weight alone: positions without events are free.
            while tap.has_room(count, bytes) {
                let Some((log, edge, at, window)) = tap.next_log(&self.hubs) else { break };
                let (mut taken, mut turn) = (at, 0);
                for piece in window.behind(at) {
                    let run = tap.run(log, piece);
                    count += run.events.len();
                    let weight = run.events.iter().map(|(_, event)| event.weight() as u64).sum::<u64>();
                    (bytes, turn) = (bytes + weight, turn + weight);
                    taken = piece.position;
                    closes.extend(piece.closed.map(|next| (log, next)));
                    events.runs.push(run);
                    if !tap.has_room(count, bytes) || turn >= TURN_BYTES {
                        break;
                    }
                }
                tap.turn = Some(log);
                if let Some(place) = tap.places.get_mut(&log) {
                    place.at = Some(taken);
                }
                if self.hubs.took(&edge, taken.seq) {
                    led.insert(edge);
                }
                if !closes.is_empty() {
                    break;
                }
            }
            let finished = tap.is_finished();
            tap.credit = tap.credit.saturating_sub(bytes);
            let idle = events.runs.is_empty();
            if finished {
                self.close_tap(id, effects);
            }
            if !events.is_empty() || finished {
                effects.push(Effect::Answer { id, response: Response::Events { events }, last: finished });
            }
            if finished {
                return led;
            }
            for (log, next) in closes {
                self.end_log(id, log, next, effects);
            }
            if idle {
                break;
            }
        }
        self.on_tap_level(id, effects);
        led
    }

    /// The tap has read the log to its close and reads the one that follows.
    fn end_log(&mut self, id: RequestId, log: LogId, next: LogId, effects: &mut Effects) {
        self.leave_hub(id, &log, effects);
        let Some(tap) = self.taps.get_mut(&id) else { return };
        let was_closed = tap
            .places
            .get(&log)
            .is_some_and(|place| place.at.is_some_and(|at| place.head_at_first == Some(at.seq.next())));
        tap.ended.insert(log, next);
        if tap.tail.from == TailFrom::Now && was_closed {
            tap.past.insert(next);
        }
        self.follow_stream(id, false, effects);
    }

    /// A tap without `follow` ends when every log has given what it held when it was first reached.
    pub(super) fn on_tap_level(&mut self, id: RequestId, effects: &mut Effects) {
        let Some(tap) = self.taps.get(&id) else { return };
        if tap.tail.follow {
            return;
        }
        // A log that follows a closed one may be known only by its name yet.
        let level = tap.ended.values().all(|next| tap.places.contains_key(next));
        let level = level
            && tap.places.iter().all(|(log, place)| {
                tap.ended.contains_key(log)
                    || matches!((place.at, place.head_at_first), (Some(at), Some(head)) if at.seq >= head)
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
                let unheard = |place: &&Place| place.head_at_first.is_none() && !self.reachable(place.writer);
                let missing = tap.places.values().find(unheard)?;
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
    fn is_finished(&self) -> bool {
        self.tail.limit.is_some_and(|limit| self.sent >= limit)
    }

    /// Whether more goes into an answer that has so many events and bytes.
    fn has_room(&self, count: usize, bytes: u64) -> bool {
        self.credit > bytes && count < ANSWER_EVENTS_MAX && bytes < ANSWER_BYTES_MAX && !self.is_finished()
    }

    pub(super) fn place(&mut self, log: &LogId) -> Option<&mut Place> {
        self.places.get_mut(log)
    }

    pub(super) fn stands_in(&self, log: &LogId) -> Option<&Place> {
        self.places.get(log)
    }

    /// What it has taken of the log.
    pub(super) fn at(&self, log: &LogId) -> Option<Position> {
        self.places.get(log)?.at
    }

    /// Logs that it wants to read and stands in no hub of.
    pub(super) fn adrift(&self) -> Vec<LogId> {
        let adrift = self
            .places
            .iter()
            .filter(|(log, place)| place.hub.is_none() && !place.waits && !self.ended.contains_key(*log));
        adrift.map(|(log, _)| *log).collect()
    }

    /// The log whose turn it is of those that have something for it: with the hub, and from where on.
    fn next_log<'a>(&self, hubs: &'a Hubs) -> Option<(LogId, EdgeId, Position, &'a Window)> {
        let something = |(log, place): (&LogId, &Place)| {
            let (edge, at) = (place.hub?, place.at?);
            let window = hubs.window(&edge)?;
            window.behind(at).next().map(|_| (*log, edge, at, window))
        };
        let others = match self.turn {
            Some(turn) => self.places.range((Bound::Excluded(turn), Bound::Unbounded)).find_map(something),
            None => None,
        };
        others.or_else(|| self.places.iter().find_map(something))
    }

    /// The record's events that the client has not seen, and the cursor behind it.
    fn run(&mut self, log: LogId, piece: &Piece) -> Run {
        let before = self.cursor.0.get(&log).copied().unwrap_or_default();
        let position = piece.position;
        // Of the record that a cursor points into, only what lies behind it.
        let seen = before.index.filter(|_| position.seq == before.position.seq.next());
        let left = self.tail.limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit.saturating_sub(self.sent)).unwrap_or(usize::MAX)
        });
        let events = match seen {
            None if piece.events.len() <= left => piece.events.clone(),
            _ => {
                let fresh = piece.events.iter().filter(|(index, _)| seen.is_none_or(|seen| *index > seen));
                fresh.take(left).cloned().collect::<Events>()
            }
        };
        self.sent += events.len() as u64;
        self.cursor.0.insert(log, CursorAt { position, index: None });
        Run { log, position, events }
    }
}
