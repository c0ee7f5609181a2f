//! The writer's side of an edge: what it has sent of a log to one reader, and what it may send.

use alloc::vec::Vec;

use crate::effect::ReadId;
use crate::id::{Hash, LogId, Position, SLOTS, Seq, TopicId, slot_of};
use crate::log::record::Body;
use crate::log::writer::{Kept, Log, events_in};
use crate::mutation::{Mutation, planted};
use crate::wire::message::{Filter, Mark, Slice, SliceEvent};

/// A batch is closed at this weight.
const PUSH_BYTES: u64 = 256 << 10;
/// Records looked at for one batch, with or without events for the reader.
const PUSH_RECORDS: usize = 1024;

#[derive(Debug)]
pub struct Subscription {
    pub log: LogId,
    pub reader: Option<LogId>,
    pub filter: Filter,
    /// The last position sent.
    sent: Position,
    sent_bytes: u64,
    granted: u64,
    /// Events that the log had up to there, as its `events` counts; of those that were looked at for
    /// this reader, how many were for it.
    passed: u64,
    looked_at: u64,
    taken: u64,
    /// The topic by which all of this may come, if it is read whole by another node.
    pub topic: Option<TopicId>,
    /// It gets what is new by gossip: nothing more is sent to it before it subscribes again.
    pub by_gossip: bool,
    /// Nothing beyond this is sent to it now.
    pub until: Seq,
    /// A read of older records is under way for it.
    pub reading: Option<ReadId>,
    /// What the reader's last `Credit` said it had received: told twice means the rest was lost.
    last_received: Option<Position>,
}

/// What can be sent now.
#[derive(Debug, PartialEq)]
pub enum Push {
    Batch {
        after: Position,
        slices: Vec<Slice>,
    },
    /// The next record is no longer in memory: read from here, about so many bytes, for which the reader
    /// has room.
    Read {
        from: Seq,
        bytes: u64,
    },
    /// What follows here does not follow on what the reader has, and no epoch explains it.
    Diverged,
    Nothing,
}

impl Subscription {
    pub fn new(log: &Log, reader: Option<LogId>, filter: Filter, at: Position, credit: u64) -> Subscription {
        Subscription {
            log: log.id,
            reader,
            passed: log.events().saturating_sub(log.events_behind(at.seq)),
            looked_at: 0,
            taken: 0,
            filter,
            sent: at,
            sent_bytes: 0,
            granted: credit,
            topic: None,
            by_gossip: false,
            until: Seq(u64::MAX),
            reading: None,
            last_received: None,
        }
    }

    pub fn sent(&self) -> Position {
        self.sent
    }

    /// The reader repeats what it got and granted. True: what was sent got lost, begin at `received`.
    pub fn on_credit(&mut self, total: u64, received: Position) -> bool {
        let stalled = self.last_received == Some(received) && self.granted == total && self.sent != received;
        self.granted = self.granted.max(total);
        self.last_received = Some(received);
        stalled
    }

    /// It has no use for credit: it says how far it came, by `received`, while the broadcasts that it gets
    /// stand at `sent`. True: told twice, so what was broadcast got lost.
    pub fn on_word(&mut self, total: u64, received: Position, sent: Position) -> bool {
        let stalled = self.last_received == Some(received) && self.granted == total && sent != received;
        self.granted = total;
        self.last_received = Some(received);
        stalled
    }

    /// So many bytes may be sent in all.
    pub fn grant(&mut self, total: u64) {
        self.granted = self.granted.max(total);
    }

    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// More may be sent.
    pub fn has_credit(&self) -> bool {
        self.sent_bytes < self.granted || planted(Mutation::IgnoreCredit)
    }

    /// Events for this reader that it was not sent yet. Exact for one that reads all of its log since the
    /// writer's node began (`Log::events_behind`); for a share of it, as many as its share was so far.
    pub fn behind(&self, log: &Log) -> u64 {
        if self.sent.seq >= log.served().seq {
            return 0;
        }
        let all = log.events().saturating_sub(self.passed);
        let slots = self.filter.slots;
        let (of, in_all) = match self.looked_at {
            0 => (u64::from(slots.end.saturating_sub(slots.first)), u64::from(SLOTS)),
            looked_at => (self.taken, looked_at),
        };
        u64::try_from((u128::from(all) * u128::from(of)).div_ceil(u128::from(in_all))).unwrap_or(u64::MAX)
    }

    /// The next batch out of what is in memory.
    pub fn push(&mut self, log: &Log) -> Push {
        if self.reading.is_some() || self.sent.seq >= log.served().seq.min(self.until) || !self.has_credit() {
            return Push::Nothing;
        }
        let next = self.sent.seq.next();
        let records = core::iter::successors(log.cached(next), |kept| log.cached(kept.position.seq.next()));
        match self.batch_of(records) {
            Some(push) => push,
            None => Push::Read { from: next, bytes: self.granted.saturating_sub(self.sent_bytes) },
        }
    }

    /// The same out of records that were read. They follow on what was sent, or are passed over.
    pub fn push_read(&mut self, records: &[Kept]) -> Push {
        self.reading = None;
        let next = self.sent.seq.next();
        let fresh = records.iter().skip_while(|kept| kept.position.seq < next);
        match fresh.clone().next() {
            Some(first) if first.position.seq == next => self.batch_of(fresh).unwrap_or(Push::Nothing),
            Some(_) | None => Push::Nothing,
        }
    }

    fn batch_of<'a>(&mut self, records: impl Iterator<Item = &'a Kept>) -> Option<Push> {
        let (after, until) = (self.sent, self.until);
        let mut slices: Vec<Slice> = Vec::new();
        let mut weight = 0;
        let records = records.take_while(|kept| kept.position.seq <= until);
        for kept in records.take(PUSH_RECORDS) {
            let known = self.sent.hash != Hash::default();
            if known && kept.previous != self.sent.hash {
                return Some(Push::Diverged);
            }
            let slice = slice_of(kept, &self.filter);
            self.sent = slice.position;
            let events = events_in(&kept.body);
            self.passed += events;
            self.looked_at += events;
            self.taken += slice.events.len() as u64;
            weight += slice.weight();
            push_merged(&mut slices, slice);
            if weight >= PUSH_BYTES || self.sent_bytes + weight >= self.granted {
                break;
            }
        }
        if slices.is_empty() {
            return None;
        }
        self.sent_bytes += slices.iter().map(Slice::weight).sum::<u64>();
        Some(Push::Batch { after, slices })
    }
}

/// A run of records without events is one position.
fn push_merged(slices: &mut Vec<Slice>, slice: Slice) {
    match slices.last_mut() {
        Some(last) if last.events.is_empty() && last.closed.is_none() && slice.events.is_empty() => {
            let mark = slice.mark.or(last.mark);
            *last = Slice { mark, ..slice };
        }
        Some(_) | None => slices.push(slice),
    }
}

/// One record as a reader with this filter sees it.
pub fn slice_of(kept: &Kept, filter: &Filter) -> Slice {
    let mut slice = Slice { position: kept.position, events: Vec::new(), mark: None, closed: None };
    match &*kept.body {
        Body::Append(append) => {
            slice.mark = Some(Mark { watermark: append.watermark, idle: append.idle });
            if filter.outputs.contains(&0) {
                for (index, event) in append.events.iter().enumerate() {
                    if takes(filter, &event.key) {
                        slice.events.push(SliceEvent {
                            index: index as u32,
                            output: 0,
                            event: event.clone(),
                        });
                    }
                }
            }
        }
        Body::Commit(commit) => {
            slice.mark = Some(Mark { watermark: commit.watermark, idle: commit.idle });
            for (index, emitted) in commit.emitted.iter().enumerate() {
                if filter.outputs.contains(&emitted.output) && takes(filter, &emitted.event.key) {
                    let event = emitted.event.clone();
                    slice.events.push(SliceEvent { index: index as u32, output: emitted.output, event });
                }
            }
        }
        Body::Close { successor } => slice.closed = Some(*successor),
        Body::EpochStart(_) | Body::Inherit(_) | Body::Catalog { .. } => {}
    }
    slice
}

fn takes(filter: &Filter, key: &[u8]) -> bool {
    let all = filter.slots == crate::pipeline::plan::SlotRange::ALL;
    all || filter.slots.contains(slot_of(key))
}
