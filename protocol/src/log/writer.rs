//! A log as its writer's node holds it: where it ends, what is persisted, what readers still need.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::cache::Cache;
use super::record::{Body, Record};
use crate::id::{Epoch, Hash, LogId, Position, Seq};
use crate::limits::SNAPSHOT_EVERY_BYTES;
use crate::mesh::catalog::LogName;
use crate::mutation::{Mutation, planted};
use crate::pipeline::manifest::{Durability, Retention};
use crate::time::Time;

/// A record with its body decoded once and its hash computed once.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    pub position: Position,
    /// The hash of the record before it.
    pub previous: Hash,
    pub body: Arc<Body>,
    pub bytes: usize,
}

impl Kept {
    /// None: the body does not decode; whoever read it treats the log as damaged.
    pub fn of(record: &Record) -> Option<Kept> {
        let body = record.decode().ok()?;
        Some(Kept {
            position: record.position(),
            previous: record.previous,
            body: Arc::new(body),
            bytes: record.body.len(),
        })
    }
}

/// Where an epoch began, and where the one before it really ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochMark {
    pub epoch: Epoch,
    /// The sequence number of its `EpochStart`.
    pub first: Seq,
    pub before: Position,
}

/// About this many bytes of log per retention mark.
const MARK_BYTES: u64 = 64 << 10;

/// A stretch of records for the arithmetic of retention and of lag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    last: Seq,
    bytes: u64,
    events: u64,
    at: Time,
}

/// How a subscription's position relates to this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is this log's position, or can only be told by reading that record (hash unknown here).
    Within,
    /// The reader was further than the log in its epoch: it falls back to here.
    Beyond(Position),
    /// Older than what is kept.
    Gone,
}

/// What recovery found of a log.
#[derive(Debug, Clone, Copy)]
pub struct Recovered {
    pub head: Position,
    /// The first record that is still kept.
    pub first: Seq,
    /// What the newest snapshot covers.
    pub covered: Position,
    /// Bytes on the disk.
    pub bytes: u64,
}

#[derive(Debug)]
pub struct Log {
    pub id: LogId,
    pub name: LogName,
    pub durability: Durability,
    pub retention: Retention,
    pub epochs: Vec<EpochMark>,
    /// The last record appended; not all of it is persisted yet.
    head: Position,
    persisted: Position,
    /// Appended, not persisted: position and bytes, in order.
    pending: VecDeque<Kept>,
    pending_bytes: usize,
    /// Persisted records for readers that keep up, in order, ending at `persisted`.
    cache: Cache,
    first: Seq,
    marks: VecDeque<Mark>,
    bytes: u64,
    /// Events of all persisted records; of those that a snapshot covered when this process began,
    /// what `counted` says. It never goes back.
    events: u64,
    /// What the newest synced snapshot covers, and how much log came since.
    snapshot: Position,
    snapshot_asked: bool,
    since_snapshot: u64,
    /// Committed positions of the actors that read this log, by reader log.
    readers: BTreeMap<LogId, Position>,
    /// Its `EpochStart` of this process's reign is persisted: the log may be written and served. A closed
    /// log needs none: it is only served.
    pub open: bool,
    /// Its `Close` stands: the log that follows it. Nothing is appended any more.
    pub closed: Option<LogId>,
    /// It has taken over what the log before it remembered, if there is one.
    pub inherited: bool,
    pub damage: Option<String>,
}

impl Log {
    pub fn new(name: LogName, durability: Durability, retention: Retention) -> Log {
        Log {
            id: name.id(),
            name,
            durability,
            retention,
            epochs: Vec::new(),
            head: Position::START,
            persisted: Position::START,
            pending: VecDeque::new(),
            pending_bytes: 0,
            cache: Cache::default(),
            first: Seq(1),
            marks: VecDeque::new(),
            bytes: 0,
            events: 0,
            snapshot: Position::START,
            snapshot_asked: false,
            since_snapshot: 0,
            readers: BTreeMap::new(),
            open: false,
            closed: None,
            inherited: false,
            damage: None,
        }
    }

    /// What recovery found, before the records behind the snapshot are replayed. How old the records
    /// are is not known any more: retention counts their age from `now`.
    pub fn recover(&mut self, found: Recovered, damage: Option<String>, now: Time) {
        self.head = found.head;
        self.persisted = found.head;
        self.first = found.first;
        self.snapshot = found.covered;
        self.bytes = found.bytes;
        self.damage = damage;
        // A log is snapshotted only once its actor is at work.
        self.inherited = found.covered != Position::START;
        if found.bytes > 0 {
            self.marks.push_back(Mark { last: found.covered.seq, bytes: found.bytes, events: 0, at: now });
        }
    }

    /// One replayed record (behind the snapshot, at or before the head).
    pub fn replayed(&mut self, kept: Kept, now: Time) {
        let bytes = kept.bytes as u64;
        self.since_snapshot += bytes;
        if let Some(covered) = self.marks.front_mut() {
            covered.bytes = covered.bytes.saturating_sub(bytes);
        }
        self.mark(&kept, now);
        self.note_body(&kept);
        self.cache.push(kept);
    }

    /// Recovery is over. The events of the records that the snapshot covers were not counted: of
    /// `ever` (all that the log's own records ever held, none if that is not known) they are what was
    /// not replayed, and if the oldest records are gone, as many as stand in that part of them.
    pub fn counted(&mut self, ever: Option<u64>) {
        let Some(covered) = self.marks.front_mut().filter(|mark| mark.last == self.snapshot.seq) else {
            return;
        };
        let (kept, all) = ((covered.last.0 + 1).saturating_sub(self.first.0), covered.last.0.max(1));
        let before = ever.map_or(all, |ever| ever.saturating_sub(self.events));
        covered.events =
            u64::try_from(u128::from(before) * u128::from(kept) / u128::from(all)).unwrap_or(u64::MAX);
        self.events += covered.events;
    }

    /// Events of all records up to what is persisted, as far as this process knows of them.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// How many of them stand behind record `at`. Exact where records are in memory; otherwise up to
    /// the events of one mark.
    pub fn events_behind(&self, at: Seq) -> u64 {
        if at >= self.persisted.seq {
            return 0;
        }
        if self.cache.first().is_some_and(|first| first <= at.next()) {
            let behind = self.cache.newest().take_while(|kept| kept.position.seq > at);
            return behind.map(|kept| events_in(&kept.body)).sum();
        }
        let mut behind = 0;
        let mut marks = self.marks.iter().rev().peekable();
        while let Some(mark) = marks.next() {
            let before = marks.peek().map_or(Seq(self.first.0.saturating_sub(1)), |earlier| earlier.last);
            if before <= at {
                let (of, all) =
                    (mark.last.0.saturating_sub(at.0), mark.last.0.saturating_sub(before.0).max(1));
                return behind
                    + u64::try_from(u128::from(mark.events) * u128::from(of) / u128::from(all))
                        .unwrap_or(u64::MAX);
            }
            behind += mark.events;
        }
        behind
    }

    pub fn head(&self) -> Position {
        self.head
    }

    pub fn persisted(&self) -> Position {
        self.persisted
    }

    pub fn first(&self) -> Seq {
        self.first
    }

    pub fn epoch(&self) -> Epoch {
        self.epochs.last().map_or(Epoch(0), |mark| mark.epoch)
    }

    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Appends a body in `epoch`; the caller persists the record.
    pub fn append(&mut self, epoch: Epoch, body: Body) -> Record {
        let record = Record::after(self.head, epoch, &body);
        self.head = record.position();
        // What a commit passed on are parts of what it read. From here on they are parts of the record, or a
        // few events would keep all in memory that came with them.
        let body = match &body {
            Body::Commit(commit) if !commit.emitted.is_empty() => record.decode().unwrap_or(body),
            _ => body,
        };
        let kept = Kept {
            position: self.head,
            previous: record.previous,
            body: Arc::new(body),
            bytes: record.body.len(),
        };
        self.pending_bytes += kept.bytes;
        self.pending.push_back(kept);
        record
    }

    /// Takes over what is persisted up to `seq`, in order.
    pub fn on_persisted(&mut self, seq: Seq, now: Time) -> Vec<Kept> {
        let mut done = Vec::new();
        while self.pending.front().is_some_and(|kept| kept.position.seq <= seq) {
            let Some(kept) = self.pending.pop_front() else { break };
            self.pending_bytes -= kept.bytes;
            self.persisted = kept.position;
            self.note_body(&kept);
            self.note_bytes(&kept, now);
            self.cache.push(kept.clone());
            done.push(kept);
        }
        done
    }

    /// The storage dropped everything from `seq` on: so does the log. Returns what was dropped.
    pub fn on_persist_failed(&mut self, seq: Seq) -> Vec<Kept> {
        let keep = self.pending.iter().take_while(|kept| kept.position.seq < seq).count();
        let dropped: Vec<Kept> = self.pending.split_off(keep).into();
        self.pending_bytes -= dropped.iter().map(|kept| kept.bytes).sum::<usize>();
        self.head = self.pending.back().map_or(self.persisted, |kept| kept.position);
        dropped
    }

    /// Bodies appended and not persisted, in order.
    pub fn pending(&self) -> impl Iterator<Item = &Body> {
        self.pending.iter().map(|kept| &*kept.body)
    }

    /// Whether events or a commit are on their way to disk.
    pub fn is_at_work(&self) -> bool {
        self.pending().any(|body| matches!(body, Body::Append(_) | Body::Commit(_)))
    }

    /// Whether its last record or what takes over from another log is on its way to disk.
    pub fn handing_over(&self) -> bool {
        self.pending().any(|body| matches!(body, Body::Close { .. } | Body::Inherit(_)))
    }

    fn note_body(&mut self, kept: &Kept) {
        let Position { epoch, seq, .. } = kept.position;
        match &*kept.body {
            Body::EpochStart(_) if self.epoch() < epoch => {
                let before = Position { epoch: self.epoch(), seq: Seq(seq.0 - 1), hash: kept.previous };
                self.epochs.push(EpochMark { epoch, first: seq, before });
            }
            Body::Close { successor } => self.closed = Some(*successor),
            Body::Inherit(_) => self.inherited = true,
            Body::EpochStart(_) | Body::Append(_) | Body::Commit(_) | Body::Catalog { .. } => {}
        }
    }

    fn note_bytes(&mut self, kept: &Kept, now: Time) {
        self.bytes += kept.bytes as u64;
        self.since_snapshot += kept.bytes as u64;
        self.mark(kept, now);
    }

    fn mark(&mut self, kept: &Kept, now: Time) {
        let (last, bytes, events) = (kept.position.seq, kept.bytes as u64, events_in(&kept.body));
        self.events += events;
        // What was there at the start stays a stretch of its own until it is counted.
        let covered = self.snapshot.seq;
        match self.marks.back_mut() {
            Some(mark) if mark.bytes < MARK_BYTES && (mark.last != covered || covered == Seq(0)) => {
                mark.last = last;
                mark.bytes += bytes;
                mark.events += events;
                mark.at = now;
            }
            Some(_) | None => self.marks.push_back(Mark { last, bytes, events, at: now }),
        }
    }

    /// The last record that readers may be served.
    pub fn served(&self) -> Position {
        if planted(Mutation::ServeEarly) { self.head } else { self.persisted }
    }

    /// The record `seq`, when readers may be served it and it is still in memory.
    pub fn cached(&self, seq: Seq) -> Option<&Kept> {
        if planted(Mutation::ServeEarly)
            && let Some(kept) = self.pending.iter().find(|kept| kept.position.seq == seq)
        {
            return Some(kept);
        }
        self.cache.get(seq)
    }

    /// Soon the oldest records in memory go.
    pub fn is_crowded(&self) -> bool {
        self.cache.is_crowded()
    }

    /// Bytes of records in memory beyond what every log may keep there.
    pub fn extra(&self) -> usize {
        self.cache.extra()
    }

    /// A reader wants the records from `wanted` on: they stay in memory if they are there, `room` bytes of
    /// them beyond what every log may keep.
    pub fn keep_for(&mut self, wanted: Seq, room: usize) {
        self.cache.keep_for(wanted, room);
    }

    /// How a reader's position relates to what this log persisted.
    pub fn standing(&self, at: Position) -> Standing {
        if at.seq.next() < self.first {
            return Standing::Gone;
        }
        match self.next_epoch(at) {
            Some(mark) if at.seq >= mark.first => Standing::Beyond(mark.before),
            None if at.seq > self.persisted.seq => Standing::Beyond(self.persisted),
            Some(_) | None => Standing::Within,
        }
    }

    /// The first epoch after the reader's: it says where the reader's epoch really ended. Who began with
    /// what is kept, and has read nothing of it yet, is of no epoch.
    fn next_epoch(&self, at: Position) -> Option<&EpochMark> {
        self.epochs.iter().find(|mark| mark.epoch > at.epoch).filter(|_| at.epoch > Epoch(0))
    }

    /// Whether a reader that stands there has read what this log should still hold and does not: the disk
    /// gave back an older state than it had promised to keep. `lossless`: nothing of the log was ever
    /// written in a class that may lose its tail. In the others a lost tail looks the same, as long as
    /// no epoch is missing: an epoch's number is synced in every class.
    pub fn lacks(&self, at: Position, lossless: bool) -> bool {
        if at.seq == Seq(0) || planted(Mutation::TrustOldCopy) {
            return false;
        }
        if at.epoch > self.epoch() {
            return true;
        }
        match self.next_epoch(at) {
            Some(mark) => lossless && at.seq >= mark.first,
            None => (lossless || self.open) && at.seq > self.persisted.seq,
        }
    }

    /// Whether another record stands here where this reader stands. False where only reading can tell.
    pub fn differs(&self, at: Position) -> bool {
        let here = if at.seq == self.persisted.seq {
            Some(self.persisted)
        } else {
            self.cached(at.seq).map(|kept| kept.position)
        };
        at.hash != Hash::default() && here.is_some_and(|here| here != at)
    }

    // --- readers and retention ---

    /// The actors that must have passed a record before it may go; those unheard of stand at the start.
    pub fn expect_readers(&mut self, readers: impl Iterator<Item = LogId>) {
        let known = core::mem::take(&mut self.readers);
        self.readers =
            readers.map(|reader| (reader, known.get(&reader).copied().unwrap_or(Position::START))).collect();
    }

    pub fn reader_committed(&mut self, reader: LogId, at: Position) {
        if let Some(position) = self.readers.get_mut(&reader) {
            *position = at;
        }
    }

    /// The actors that read it, each with the position that it has committed, as last heard.
    pub fn readers(&self) -> impl Iterator<Item = (LogId, Position)> {
        self.readers.iter().map(|(reader, at)| (*reader, *at))
    }

    fn passed_by_all(&self) -> Seq {
        self.readers.values().map(|position| position.seq).min().unwrap_or(self.persisted.seq)
    }

    /// Bytes that some reader has not passed yet.
    pub fn unread_bytes(&self) -> u64 {
        let passed = self.passed_by_all();
        self.marks.iter().rev().take_while(|mark| mark.last > passed).map(|mark| mark.bytes).sum()
    }

    /// Unread records alone, those on their way to the disk included, fill the declared size: the
    /// writer blocks.
    pub fn is_full(&self) -> bool {
        let unread = self.unread_bytes() + self.pending_bytes as u64;
        !self.readers.is_empty() && unread >= self.retention.bytes && !planted(Mutation::NeverFull)
    }

    pub fn wants_snapshot(&self) -> bool {
        let due = self.since_snapshot >= SNAPSHOT_EVERY_BYTES.min(self.retention.bytes / 4).max(MARK_BYTES);
        due && !self.snapshot_asked && self.open && self.closed.is_none()
    }

    pub fn snapshot_asked(&mut self) {
        self.snapshot_asked = true;
        self.since_snapshot = 0;
    }

    pub fn snapshotted(&mut self, at: Option<Position>) {
        self.snapshot_asked = false;
        if let Some(at) = at {
            self.snapshot = at;
        }
    }

    /// The first record that must stay, if older ones may go now.
    pub fn truncatable(&mut self, now: Time) -> Option<Seq> {
        let passed = match planted(Mutation::TruncateUnread) {
            true => self.snapshot.seq,
            false => self.passed_by_all().min(self.snapshot.seq),
        };
        let mut before = None;
        while let Some(mark) = self.marks.front().copied() {
            let old = now.since(mark.at) > self.retention.age;
            if mark.last > passed || !(old || self.bytes > self.retention.bytes) || self.marks.len() == 1 {
                break;
            }
            self.marks.pop_front();
            self.bytes -= mark.bytes;
            before = Some(mark.last.next());
        }
        if let Some(before) = before {
            self.first = self.first.max(before);
            self.cache.cut_before(before);
        }
        before
    }
}

/// Events that a record brings into its log.
pub fn events_in(body: &Body) -> u64 {
    match body {
        Body::Append(append) => append.events.len() as u64,
        Body::Commit(commit) => commit.emitted.len() as u64,
        Body::EpochStart(_) | Body::Close { .. } | Body::Inherit(_) | Body::Catalog { .. } => 0,
    }
}
