//! What an actor or a source log remembers, as the fold of its log's records. The same bytes go
//! into snapshots, so a restart is: the newest snapshot's fold, then the records behind it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{LetterId, LogId, Name, Position};
use crate::log::record::{Advance, Append, Body, Commit, DeadLetter, Parked};
use crate::log::writer::EpochMark;
use crate::time::Time;
use crate::wire::codec;

/// The fold of any log, as it stands in snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFold {
    pub version: u16,
    pub epochs: Vec<EpochMark>,
    pub memory: Memory,
}

impl LogFold {
    pub fn of(memory: Memory, epochs: Vec<EpochMark>) -> LogFold {
        LogFold { version: FOLD_VERSION, epochs, memory }
    }

    pub fn read(bytes: &[u8]) -> Result<LogFold, String> {
        let fold: LogFold =
            codec::decode(bytes).map_err(|error| format!("the snapshot does not decode: {error}"))?;
        match fold.version {
            FOLD_VERSION => Ok(fold),
            other => Err(format!(
                "the snapshot is of format {other}, this version reads {FOLD_VERSION}; use a newer dunlin"
            )),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Memory {
    Source(SourceMemory),
    Actor(ActorMemory),
}

pub const FOLD_VERSION: u16 = 1;

/// What a source log remembers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SourceMemory {
    pub producers: BTreeMap<Name, Producer>,
    pub watermark: Time,
    pub idle: bool,
    pub events: u64,
    pub last_append: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producer {
    pub last: u64,
    pub used: Time,
}

impl SourceMemory {
    pub fn apply(&mut self, append: &Append) {
        if let Some(produced) = &append.producer {
            let entry = Producer { last: produced.last, used: append.at };
            self.producers.insert(produced.producer.clone(), entry);
        }
        self.events += append.events.len() as u64;
        self.watermark = self.watermark.max(append.watermark);
        self.idle = append.idle;
        self.last_append = append.at;
    }
}

/// What an actor remembers beside its keyed state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ActorMemory {
    pub frontier: BTreeMap<LogId, Advance>,
    pub watermark: Time,
    pub idle: bool,
    /// In the order in which they were parked.
    pub parked: Vec<Parked>,
    pub dead: BTreeMap<LetterId, DeadLetter>,
    /// What `dead` weighs.
    pub dead_bytes: u64,
    /// Letters ever written in this log: the next one's number follows.
    pub letters: u64,
    pub timers: BTreeMap<(Bytes, String), Time>,
    pub events_in: u64,
    pub events_out: u64,
    pub last_commit: Time,
    /// Upstream logs that were read to their `Close`, each with the log that follows it.
    pub ended: BTreeMap<LogId, LogId>,
}

impl ActorMemory {
    pub fn apply(&mut self, commit: &Commit) {
        self.ended.extend(advance(&mut self.frontier, &commit.frontier));
        self.watermark = self.watermark.max(commit.watermark);
        self.idle = commit.idle;
        for id in &commit.unparked {
            self.parked.retain(|parked| parked.parked_id() != *id);
        }
        for parked in &commit.parked {
            self.park(parked);
        }
        for letter in &commit.dead {
            self.dead_bytes += letter.weight();
            self.letters = letter.id.number;
            self.dead.insert(letter.id, letter.clone());
        }
        for id in &commit.undead {
            let letter = self.dead.remove(id);
            self.dead_bytes -= letter.map_or(0, |letter| letter.weight());
        }
        for timer in &commit.timers {
            let name = (timer.key.clone(), timer.name.clone());
            match timer.due {
                Some(due) => self.timers.insert(name, due),
                None => self.timers.remove(&name),
            };
        }
        self.events_in += commit.events_in;
        self.events_out += commit.emitted.len() as u64;
        self.last_commit = commit.at;
    }

    /// A repetition keeps its place. A replayed letter is older than all that waits for its key, but
    /// for letters that were replayed before it.
    fn park(&mut self, parked: &Parked) {
        let id = parked.parked_id();
        if let Some(known) = self.parked.iter_mut().find(|known| known.parked_id() == id) {
            *known = parked.clone();
            return;
        }
        let behind = |known: &Parked| known.event.key == parked.event.key && known.replayed.is_none();
        let place = parked.replayed.as_ref().and_then(|_| self.parked.iter().position(behind));
        self.parked.insert(place.unwrap_or(self.parked.len()), parked.clone());
    }

    /// Where the actor stands in `log`: the last position whose effects are committed.
    pub fn position_in(&self, log: &LogId) -> Position {
        self.frontier.get(log).map_or(Position::START, |advance| advance.to)
    }
}

/// Moves a frontier on. An advance to a log's very start says that the log named just before it has
/// ended and is followed by this one: it takes that one's place. Returns those that ended so.
pub fn advance(frontier: &mut BTreeMap<LogId, Advance>, advances: &[Advance]) -> Vec<(LogId, LogId)> {
    let mut ended = Vec::new();
    let mut before = None;
    for advance in advances {
        match before.filter(|_| advance.to == Position::START) {
            Some(last) => {
                frontier.remove(&last);
                frontier.entry(advance.log).or_insert(*advance);
                ended.push((last, advance.log));
            }
            None => {
                frontier.insert(advance.log, *advance);
            }
        }
        before = Some(advance.log);
    }
    ended
}

impl Memory {
    /// Events of the log and of those that it follows.
    pub fn events_out(&self) -> u64 {
        match self {
            Memory::Source(memory) => memory.events,
            Memory::Actor(memory) => memory.events_out,
        }
    }

    pub fn apply(&mut self, body: &Body) {
        match (self, body) {
            (Memory::Source(memory), Body::Append(append)) => memory.apply(append),
            (Memory::Actor(memory), Body::Commit(commit)) => memory.apply(commit),
            // What was handed over was encoded by this very function's neighbour; bytes that do not decode
            // are seen as damage when the log is recovered.
            (memory, Body::Inherit(inherit)) => {
                if let Ok(fold) = LogFold::read(&inherit.fold) {
                    *memory = fold.memory;
                }
            }
            (_, Body::EpochStart(_) | Body::Close { .. } | Body::Catalog { .. }) => {}
            // A source log holds no commits and an actor's no appends; recovery reports such a log.
            (Memory::Source(_), Body::Commit(_)) | (Memory::Actor(_), Body::Append(_)) => {}
        }
    }
}
