//! Decoding without copies: what events hold are parts of the bytes that they came in.
//!
//! Most of what crosses a wire or comes back from a disk are events. Decoded like anything else, each
//! takes two allocations, and two more when it is first shared. Here a frame's bytes stay where they
//! are, and its events refer to them. So an event keeps its whole frame in memory: who keeps one for
//! longer than its neighbours keeps a copy ([`Event::detached`]).
//!
//! The types are those of [`Message`], [`Body`] and [`RpcOut`] as they are encoded, with borrowed bytes;
//! `golden.rs` checks that both ways of decoding say the same of any bytes.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::Deserialize;

use super::codec::{CodecError, decode, decode_borrowed, decode_first};
use super::message::{EdgeId, Mark, Message, Slice, SliceEvent};
use crate::event::Event;
use crate::id::{LetterId, LogId, Position, Seq};
use crate::log::record::{
    Advance, Append, Body, Change, Commit, DeadLetter, Emitted, Observed, Parked, ParkedId, Produced,
    TimerChange,
};
use crate::rpc::frames::RpcOut;
use crate::rpc::tailed::{Events, Run, Tailed};
use crate::rpc::{Cursor, Response};
use crate::time::Time;

/// The places of the variants that are decoded here, as they stand in front of their fields.
const BATCH: u8 = 7;
const APPEND: u8 = 1;
const COMMIT: u8 = 2;
const ANSWER: u32 = 0;
const EVENTS: u32 = 7;

/// What a member says.
pub fn message(frame: &Bytes) -> Result<Message, CodecError> {
    match frame.split_first() {
        Some((&BATCH, rest)) => {
            let BatchIn { edge, after, slices, head, behind } = decode_borrowed(rest)?;
            let slices = slices.into_iter().map(|slice| slice.within(frame)).collect();
            Ok(Message::Batch { edge, after, slices, head, behind })
        }
        Some(_) | None => decode(frame),
    }
}

/// What a record says.
pub fn body(record: &Bytes) -> Result<Body, CodecError> {
    match record.split_first() {
        Some((&APPEND, rest)) => {
            let AppendIn { producer, events, watermark, idle, at } = decode_borrowed(rest)?;
            let events = events.into_iter().map(|event| event.within(record)).collect();
            Ok(Body::Append(Append { producer, events, watermark, idle, at }))
        }
        Some((&COMMIT, rest)) => {
            decode_borrowed::<CommitIn<'_>>(rest).map(|commit| Body::Commit(commit.within(record)))
        }
        Some(_) | None => decode(record),
    }
}

/// What a called node answers.
pub fn answer(frame: &Bytes) -> Result<RpcOut, CodecError> {
    let (kind, rest): (u32, &[u8]) = decode_first(frame)?;
    if kind == ANSWER
        && let Ok(((id, EVENTS), rest)) = decode_first::<(u64, u32)>(rest)
    {
        let (TailedIn { before, runs }, last) = decode_borrowed(rest)?;
        let runs = runs.into_iter().map(|run| run.within(frame)).collect();
        return Ok(RpcOut::Answer {
            id,
            response: Response::Events { events: Tailed { before, runs } },
            last,
        });
    }
    decode(frame)
}

/// `part` as a part of `whole`, which it was borrowed from.
fn within(whole: &Bytes, part: &[u8]) -> Bytes {
    if part.is_empty() { Bytes::new() } else { whole.slice_ref(part) }
}

#[derive(Deserialize)]
struct EventIn<'a> {
    key: &'a [u8],
    time: Time,
    #[serde(borrow)]
    headers: Vec<(&'a str, &'a [u8])>,
    payload: &'a [u8],
}

impl EventIn<'_> {
    fn within(self, whole: &Bytes) -> Event {
        let EventIn { key, time, headers, payload } = self;
        let headers = headers.into_iter().map(|(name, value)| (String::from(name), within(whole, value)));
        Event { key: within(whole, key), time, headers: headers.collect(), payload: within(whole, payload) }
    }
}

#[derive(Deserialize)]
struct BatchIn<'a> {
    edge: EdgeId,
    after: Position,
    #[serde(borrow)]
    slices: Vec<SliceIn<'a>>,
    head: Seq,
    behind: u64,
}

#[derive(Deserialize)]
struct SliceIn<'a> {
    position: Position,
    #[serde(borrow)]
    events: Vec<SliceEventIn<'a>>,
    mark: Option<Mark>,
    closed: Option<LogId>,
}

#[derive(Deserialize)]
struct SliceEventIn<'a> {
    index: u32,
    output: u16,
    #[serde(borrow)]
    event: EventIn<'a>,
}

impl SliceIn<'_> {
    fn within(self, frame: &Bytes) -> Slice {
        let SliceIn { position, events, mark, closed } = self;
        let events = events.into_iter().map(|SliceEventIn { index, output, event }| SliceEvent {
            index,
            output,
            event: event.within(frame),
        });
        Slice { position, events: events.collect(), mark, closed }
    }
}

#[derive(Deserialize)]
struct AppendIn<'a> {
    producer: Option<Produced>,
    #[serde(borrow)]
    events: Vec<EventIn<'a>>,
    watermark: Time,
    idle: bool,
    at: Time,
}

/// Letters and parked events stay longer than their record: they are decoded like anything else.
#[derive(Deserialize)]
struct CommitIn<'a> {
    frontier: Vec<Advance>,
    #[serde(borrow)]
    state: Vec<(&'a [u8], Option<&'a [u8]>)>,
    emitted: Vec<(u16, EventIn<'a>)>,
    timers: Vec<TimerChange>,
    watermark: Time,
    idle: bool,
    parked: Vec<Parked>,
    unparked: Vec<ParkedId>,
    dead: Vec<DeadLetter>,
    undead: Vec<LetterId>,
    observed: Vec<Observed>,
    events_in: u64,
    at: Time,
}

impl CommitIn<'_> {
    fn within(self, record: &Bytes) -> Commit {
        let CommitIn { state, emitted, .. } = self;
        let change = |(key, value): (&[u8], Option<&[u8]>)| Change {
            key: within(record, key),
            value: value.map(|value| within(record, value)),
        };
        let emitted =
            emitted.into_iter().map(|(output, event)| Emitted { output, event: event.within(record) });
        Commit {
            frontier: self.frontier,
            state: state.into_iter().map(change).collect(),
            emitted: emitted.collect(),
            timers: self.timers,
            watermark: self.watermark,
            idle: self.idle,
            parked: self.parked,
            unparked: self.unparked,
            dead: self.dead,
            undead: self.undead,
            observed: self.observed,
            events_in: self.events_in,
            at: self.at,
        }
    }
}

#[derive(Deserialize)]
struct TailedIn<'a> {
    before: Cursor,
    #[serde(borrow)]
    runs: Vec<RunIn<'a>>,
}

#[derive(Deserialize)]
struct RunIn<'a> {
    log: LogId,
    position: Position,
    #[serde(borrow)]
    events: Vec<(u32, EventIn<'a>)>,
}

impl RunIn<'_> {
    fn within(self, frame: &Bytes) -> Run {
        let RunIn { log, position, events } = self;
        let events = events.into_iter().map(|(index, event)| (index, event.within(frame))).collect();
        Run { log, position, events: Events(Arc::new(events)) }
    }
}
