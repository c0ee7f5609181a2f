//! A record: one atomic commit in a log, linked to the one before it by its hash.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::id::{Digest, Epoch, EventId, Hash, LetterId, LogId, Name, NodeId, Position, Seq};
use crate::mesh::catalog::CatalogEntry;
use crate::time::Time;
use crate::wire::{codec, parts};

/// One record. `body` is the encoded `Body`: kept as bytes so that a log is copied, checked and
/// served without decoding what nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub epoch: Epoch,
    pub seq: Seq,
    /// The hash of the record before this one; `Hash::default()` for the first.
    pub previous: Hash,
    pub body: Bytes,
    /// What `hash` gives, if this process has worked it out or checked it.
    #[serde(skip)]
    link: Link,
}

/// Says nothing of a record that its other fields do not: two that differ in it alone are equal.
#[derive(Debug, Clone, Copy, Default)]
struct Link(Option<Hash>);

impl PartialEq for Link {
    fn eq(&self, _: &Link) -> bool {
        true
    }
}

impl Eq for Link {}

impl Record {
    pub fn new(epoch: Epoch, seq: Seq, previous: Hash, body: Bytes) -> Record {
        Record { epoch, seq, previous, body, link: Link(None) }
    }

    /// One that was read back and whose hash was checked: it stands at `position`, and `previous` before it.
    pub fn checked(position: Position, previous: Hash, body: Bytes) -> Record {
        Record { epoch: position.epoch, seq: position.seq, previous, body, link: Link(Some(position.hash)) }
    }

    /// The record that follows `head` and holds `body`.
    pub fn after(head: Position, epoch: Epoch, body: &Body) -> Record {
        let record = Record::new(epoch, head.seq.next(), head.hash, codec::encode(body));
        Record { link: Link(Some(record.hash())), ..record }
    }

    /// This record's link: blake3 over (epoch, seq, previous, body), 16 bytes.
    pub fn hash(&self) -> Hash {
        if let Link(Some(hash)) = self.link {
            return hash;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.epoch.0.to_le_bytes());
        hasher.update(&self.seq.0.to_le_bytes());
        hasher.update(&self.previous.0);
        hasher.update(&self.body);
        let mut hash = [0; 16];
        hasher.finalize_xof().fill(&mut hash);
        Hash(hash)
    }

    /// Where the log stands after this record.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.seq, hash: self.hash() }
    }

    /// What it says; the events are parts of the record's own bytes.
    pub fn decode(&self) -> Result<Body, codec::CodecError> {
        parts::body(&self.body)
    }
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// A writer's reign begins; the record before it is where the log really ended.
    EpochStart(EpochStart),
    /// Events enter the mesh (a source log's only body besides `EpochStart`).
    Append(Append),
    /// An actor's commit.
    Commit(Commit),
    /// The last record: one successor goes on with everything that this log's actor remembers.
    Close { successor: LogId },
    /// The first record of a log that follows another: what it takes over.
    Inherit(Inherit),
    /// A fact of one node's catalog log, with the node's signature over (node, seq, previous, entry).
    Catalog { entry: CatalogEntry, signature: Bytes },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStart {
    pub writer: NodeId,
    /// The nodes that hold copies; with R = 1 the writer alone.
    pub keepers: Vec<NodeId>,
    pub at: Time,
}

/// One append to a source log: events, their producer's progress, watermark and idle mark.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Append {
    pub producer: Option<Produced>,
    pub events: Vec<Event>,
    /// Largest event time seen minus the source's lateness; never goes back.
    pub watermark: Time,
    /// True from this record on until the next record with events.
    pub idle: bool,
    pub at: Time,
}

/// An unbroken range of one producer's sequence numbers, rejected lines included; the first is 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Produced {
    pub producer: Name,
    pub first: u64,
    pub last: u64,
}

/// What was read, what changed and what was emitted, together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Commit {
    /// For each upstream log whose records this commit consumed, the new frontier. Several entries
    /// may name one log: their order is the order in which the function saw the records.
    pub frontier: Vec<Advance>,
    pub state: Vec<Change>,
    pub emitted: Vec<Emitted>,
    pub timers: Vec<TimerChange>,
    /// The smallest watermark over the active upstream logs; never goes back.
    pub watermark: Time,
    pub idle: bool,
    pub parked: Vec<Parked>,
    /// What leaves the parking place (it succeeded, or died).
    pub unparked: Vec<ParkedId>,
    pub dead: Vec<DeadLetter>,
    /// Dead letters that are dropped, or replayed: those stand in `parked` of the same commit.
    pub undead: Vec<LetterId>,
    pub observed: Vec<Observed>,
    /// How many events of the upstream logs this commit took in.
    pub events_in: u64,
    pub at: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advance {
    pub log: LogId,
    pub to: Position,
    /// The upstream log's watermark and idleness at that position.
    pub watermark: Time,
    pub idle: bool,
}

/// A physical change of keyed state: put, or delete when `value` is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// An event that leaves the actor on one of its outputs (an index into its unit's outputs).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emitted {
    pub output: u16,
    pub event: Event,
}

/// A timer that the function set (`due`), or that fired or was cleared (`None`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerChange {
    pub key: Bytes,
    pub name: String,
    pub due: Option<Time>,
}

/// An event that failed and waits for its next attempt. Later events of its key wait behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    pub id: EventId,
    /// Which input of the unit it came through.
    pub input: u16,
    pub event: Event,
    /// Calls that failed so far; 0 for an event that only waits behind another.
    pub attempts: u32,
    pub due: Time,
    pub reason: String,
    /// Set when it is a dead letter on its way through the actor again.
    pub replayed: Option<Replayed>,
}

impl Parked {
    pub fn parked_id(&self) -> ParkedId {
        ParkedId { event: self.id, replayed: self.replayed.as_ref().map(|replayed| replayed.letter) }
    }
}

/// Names one parked event: an event waits at most once for itself and once for each of its letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ParkedId {
    pub event: EventId,
    pub replayed: Option<LetterId>,
}

/// Which letter is replayed, and where it enters: at the stage that refused it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    pub letter: LetterId,
    pub stage: String,
    /// Of a fused stage, its step when it refused the event; none: at the head.
    pub step: Option<u16>,
}

/// An event that will not be tried again until somebody replays it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub id: LetterId,
    /// The upstream event that the actor was at work on.
    pub cause: EventId,
    pub input: u16,
    /// What the stage could not take: the upstream event, or what the stages before it made of it.
    pub event: Event,
    /// The stage that refused it.
    pub stage: String,
    /// Its step in the actor's chain when it is fused behind the head: the head's work stands.
    pub step: Option<u16>,
    pub attempts: u32,
    pub reason: String,
    pub at: Time,
}

impl DeadLetter {
    /// What it costs in memory and in a snapshot, in bytes, roughly.
    pub fn weight(&self) -> u64 {
        (self.event.weight() + self.stage.len() + self.reason.len() + 96) as u64
    }
}

/// A value that a function took from outside and that a replay must not take again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Observed {
    Now(Time),
    Random(u64),
}

/// What a successor log takes over from the one that it follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inherit {
    pub from: LogId,
    pub closed_at: Position,
    /// The encoded fold of the old log (frontier, timers, parked events, dead letters, producers).
    pub fold: Bytes,
    /// The revision that asked for it.
    pub revision: Digest,
}
