//! Clients that follow a stream while everything around them breaks. What a tap shows is committed
//! output, in its log's order, nothing twice and nothing left out; once everything has healed it shows all
//! that there is. Some clients take everything at once, some little at a time, some nothing for long.

use std::collections::BTreeMap;

use dunlin_protocol::edge::writer::slice_of;
use dunlin_protocol::effect::{Input, RequestId};
use dunlin_protocol::event::Event;
use dunlin_protocol::id::{EventId, LogId};
use dunlin_protocol::log::writer::Kept;
use dunlin_protocol::mesh::assignment::Assigned;
use dunlin_protocol::pipeline::manifest::StreamName;
use dunlin_protocol::pipeline::plan::SlotRange;
use dunlin_protocol::rpc::{Request, Response, Tail, TailFrom};
use dunlin_protocol::time::{Span, Time};
use dunlin_protocol::wire::message::Filter;

use crate::chance::Chance;
use crate::checkers::streams;
use crate::world::World;

/// Taps that are looked at, at once. Beyond: no new one is.
const TAPS_MAX: usize = 16;
/// What a client takes besides what it was sent, once nothing breaks any more.
const PEACE_CREDIT: u64 = 20_000;

#[derive(Debug, Default)]
pub struct Taps {
    open: BTreeMap<RequestId, Tap>,
    peace: bool,
}

#[derive(Debug)]
struct Tap {
    node: usize,
    /// The node's life in which it was opened: it ends with that.
    life: u64,
    stream: StreamName,
    from_start: bool,
    last: BTreeMap<LogId, EventId>,
    /// The outputs of each log that belong to the stream.
    outputs: BTreeMap<LogId, Vec<u16>>,
    /// How long its client takes for an answer, and what it has not taken yet.
    pace: Span,
    owes: u64,
    pays_at: Time,
}

impl Taps {
    /// Some clients of one node begin to follow a stream.
    pub fn begin(&mut self, tail: &Tail, node: usize, world: &mut World) {
        if self.open.len() >= TAPS_MAX || !world.is_up(node) {
            return;
        }
        let first = world.request(node, Request::Tail(tail.clone()));
        // A generator of its own, so that the run's other draws are the same with more taps.
        let mut chance = Chance::new(first.0);
        self.opened(first, tail, node, Span(0), world);
        for _ in 0..chance.between(0, 4) {
            if self.open.len() >= TAPS_MAX {
                return;
            }
            let from = match chance.between(0, 2) {
                0 => TailFrom::Now,
                _ => TailFrom::Start,
            };
            let credit = *chance.pick(&[tail.credit, 20_000, 1]);
            let pace = Span(*chance.pick(&[0, 50, 500, 4_000, 1_000_000]));
            let tail = Tail { from, credit, ..tail.clone() };
            let id = world.request(node, Request::Tail(tail.clone()));
            self.opened(id, &tail, node, pace, world);
        }
    }

    /// Every node gets a client that follows the stream, unless it has one: most take what comes.
    pub fn everywhere(&mut self, tail: &Tail, world: &mut World) {
        for node in 0..world.nodes.len() {
            let follows = |tap: &Tap| {
                tap.node == node
                    && tap.life == world.life(node)
                    && tap.stream == tail.stream
                    && tap.from_start
            };
            if !world.is_up(node) || self.open.values().any(follows) || self.open.len() >= 2 * TAPS_MAX {
                continue;
            }
            let id = world.request(node, Request::Tail(tail.clone()));
            let pace = Span(*Chance::new(id.0).pick(&[0, 0, 0, 50, 1_000]));
            self.opened(id, tail, node, pace, world);
        }
    }

    fn opened(&mut self, id: RequestId, tail: &Tail, node: usize, pace: Span, world: &World) {
        let tap = Tap {
            node,
            life: world.life(node),
            stream: tail.stream.clone(),
            from_start: tail.from == TailFrom::Start,
            last: BTreeMap::new(),
            outputs: BTreeMap::new(),
            pace,
            owes: 0,
            pays_at: Time::MAX,
        };
        self.open.insert(id, tap);
    }

    /// Nothing breaks any more: whoever is still there takes what comes.
    pub fn calm_down(&mut self, now: Time) {
        self.peace = true;
        for tap in self.open.values_mut() {
            tap.pays_at = now;
        }
    }

    /// Clients take what they were sent, each when its time has come.
    pub fn pay(&mut self, world: &mut World) {
        self.open.retain(|_, tap| world.life(tap.node) == tap.life);
        for (id, tap) in &mut self.open {
            if world.now >= tap.pays_at {
                let bytes = tap.owes + if self.peace { PEACE_CREDIT } else { 0 };
                world.input_soon(tap.node, Input::TapCredit { id: *id, bytes });
                tap.owes = 0;
                tap.pays_at = Time::MAX;
            }
        }
    }

    /// All of them, with the nodes that they ask.
    pub fn close(&mut self) -> Vec<(RequestId, usize)> {
        std::mem::take(&mut self.open).into_iter().map(|(id, tap)| (id, tap.node)).collect()
    }

    /// `lossy`: a log may lose its tail, and what came of that may be shown again.
    pub fn on_answer(
        &mut self,
        id: RequestId,
        response: &Response,
        last: bool,
        world: &World,
        lossy: bool,
    ) -> Result<(), String> {
        let Some(tap) = self.open.get_mut(&id) else { return Ok(()) };
        if let Response::Events { events } = response {
            tap.owes += events.weight();
            tap.pays_at = tap.pays_at.min(world.now.after(if self.peace { Span(0) } else { tap.pace }));
            for event in events.clone() {
                tap.take(event.placed.id, &event.placed.event, world, lossy)?;
            }
        }
        if last {
            self.open.remove(&id);
        }
        Ok(())
    }

    /// Every tap has shown its stream to the end, and from its start if it began there and all is kept.
    pub fn level(&self, world: &World, all_kept: bool) -> Result<(), String> {
        for tap in self.open.values().filter(|tap| world.life(tap.node) == tap.life) {
            let Some(assignment) = streams::known_by(world, tap.node) else { continue };
            let layouts = assignment.pipelines().values();
            for line in
                layouts.flat_map(|layout| layout.lines_of_stream(&tap.stream)).filter(|line| !line.gone)
            {
                for log in streams::path(world, line)? {
                    let Some(writer) = world.index_of(log.node) else { continue };
                    let outputs = outputs_of(log, &tap.stream);
                    let kept = world.history.kept((writer, log.id)).iter().rev();
                    let end = kept.flat_map(|kept| ids_in(kept, log.id, &outputs).into_iter().rev()).next();
                    let shown = tap.last.get(&log.id).copied();
                    let due = shown.is_some() || (tap.from_start && all_kept);
                    if due && shown != end {
                        return Err(format!(
                            "a tap on n{} of '{}' has shown {shown:?} of log {}, which ends with {end:?}",
                            tap.node, tap.stream.base, log.id
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

fn outputs_of(log: &Assigned, stream: &StreamName) -> Vec<u16> {
    let outputs = log.unit.chain.outputs.iter().zip(0u16..);
    let outputs = outputs.filter(|(output, _)| output.rekeyed.is_none() && output.stream == *stream);
    outputs.map(|(_, index)| index).collect()
}

/// The record's events of these outputs.
fn ids_in(kept: &Kept, log: LogId, outputs: &[u16]) -> Vec<EventId> {
    let filter = Filter { outputs: outputs.to_vec(), slots: SlotRange::ALL };
    let at = kept.position;
    let events = slice_of(kept, &filter).events.into_iter();
    events.map(|event| EventId { log, epoch: at.epoch, seq: at.seq, index: event.index }).collect()
}

impl Tap {
    fn take(&mut self, id: EventId, event: &Event, world: &World, lossy: bool) -> Result<(), String> {
        let before = self.last.insert(id.log, id);
        if lossy {
            return Ok(());
        }
        let after = before.map_or((0, None), |before| (before.seq.0, Some(before.index)));
        if (id.seq.0, Some(id.index)) <= after {
            return Err(format!("a tap on n{} shows event {id} behind {after:?}", self.node));
        }
        let past = world.history.logs().find(|((_, log), _)| *log == id.log).map(|(_, past)| past);
        let committed = past.and_then(|past| {
            let kept = past.kept.get(id.seq.0 as usize - 1)?;
            let filter = Filter { outputs: (0..64).collect(), slots: SlotRange::ALL };
            let slice = slice_of(kept, &filter);
            let found = slice.events.into_iter().find(|event| event.index == id.index)?;
            (kept.position.epoch == id.epoch).then_some(found.event)
        });
        match committed {
            Some(committed) if committed == *event => {}
            Some(_) => return Err(format!("a tap on n{} shows event {id} with other bytes", self.node)),
            None => return Err(format!("a tap on n{} shows event {id}, which no log holds", self.node)),
        }
        let outputs = self.outputs.entry(id.log).or_insert_with(|| {
            let assignment = streams::known_by(world, self.node);
            let found = assignment.as_ref().and_then(|known| known.log(&id.log));
            found.map(|log| outputs_of(log, &self.stream)).unwrap_or_default()
        });
        let (Some(before), Some(past)) = (before, past) else { return Ok(()) };
        let between = past.kept.get(before.seq.0 as usize - 1..id.seq.0 as usize).unwrap_or_default();
        let between = between.iter().flat_map(|kept| ids_in(kept, id.log, outputs));
        let left_out = between
            .filter(|between| (between.seq, between.index) > (before.seq, before.index))
            .find(|between| (between.seq, between.index) < (id.seq, id.index));
        match left_out {
            None => Ok(()),
            Some(left_out) => Err(format!(
                "a tap on n{} of '{}' shows event {id} behind {before}, and not {left_out}",
                self.node, self.stream.base
            )),
        }
    }
}
