//! A simulated disk: files of real bytes. It writes through the core's segment format and recovers
//! through the core's recovery, as a node's storage does, so what is torn or flipped here is real.
//!
//! | file | what is simulated there |
//! | --- | --- |
//! | `file` | bytes in the page cache, and how many of them are on the platter |
//! | `folder` | one log's files and its writer: staged, written, synced, mended after a failure |
//! | `recovery` | what a starting node finds |
//! | `snapshots` | what records added up to, written whole or not at all |
//! | `crash` | what a dying process and a loss of power leave behind |
//! | `damage` | flipped bits, zeroed blocks, files cut short or gone |
//!
//! One writer per node, as in the daemon: whatever was queued while the last group was synced becomes
//! the next group. Names in a folder become durable in the order in which they changed, as on a file
//! system with a journal.

mod crash;
mod damage;
mod file;
mod folder;
mod recovery;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dunlin_protocol::effect::Input;
use dunlin_protocol::id::{LogId, Position, Seq};
use dunlin_protocol::limits::READ_BYTES_MAX;
use dunlin_protocol::log::record::Record;
use dunlin_protocol::mesh::catalog::LogName;
use dunlin_protocol::pipeline::manifest::Durability;

use crate::functions::{Shelf, Source};
pub use damage::{DAMAGES, Damage, Wound};
pub use folder::Folder;
use folder::{NotStaged, Stood};
pub use snapshots::Snapshot;

#[derive(Debug, Clone)]
pub struct Disk {
    folders: BTreeMap<LogId, Folder>,
    /// No space left: every write is refused.
    pub full: bool,
    /// A segment is closed at this size; a real node's are larger.
    pub segment_bytes: u64,
    queue: Vec<Persist>,
    /// Logs of the group that is being written.
    group: BTreeSet<LogId>,
    /// The writer is at work.
    pub busy: bool,
}

#[derive(Debug, Clone)]
struct Persist {
    log: LogId,
    records: Vec<Record>,
    durability: Durability,
    early: bool,
}

/// When a persist counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// At once: `memory`, written behind.
    Early,
    /// When the writer says so.
    Queued,
}

impl Disk {
    pub fn new(segment_bytes: u64) -> Disk {
        Disk {
            folders: BTreeMap::new(),
            full: false,
            segment_bytes,
            queue: Vec::new(),
            group: BTreeSet::new(),
            busy: false,
        }
    }

    pub fn folders(&self) -> impl Iterator<Item = (&LogId, &Folder)> {
        self.folders.iter()
    }

    pub fn folder(&self, log: LogId) -> Option<&Folder> {
        self.folders.get(&log)
    }

    pub fn create(&mut self, log: LogId, name: LogName) {
        self.folders.entry(log).or_insert_with(|| Folder::new(log, name));
    }

    /// New files, synced, take the place of a damaged log's.
    pub fn write_anew(&mut self, log: LogId, records: &[Record]) {
        if let Some(folder) = self.folders.get_mut(&log) {
            let mut anew = Folder::new(log, folder.name.clone());
            if anew.stage(records, Durability::Disk, false).is_ok() {
                anew.write(self.segment_bytes);
                anew.stand(&mut || false);
                *folder = anew;
            }
        }
    }

    /// The log's files go; a crash leaves none of them behind.
    pub fn remove(&mut self, log: LogId) {
        self.folders.remove(&log);
        self.group.remove(&log);
    }

    // --- the writer ---

    pub fn persist(&mut self, log: LogId, records: Vec<Record>, durability: Durability) -> Taken {
        let early = durability == Durability::Memory
            && self.folders.get_mut(&log).is_some_and(|folder| folder.may_answer_early(&records));
        if let Some(folder) = self.folders.get_mut(&log).filter(|_| !early) {
            folder.outstanding += 1;
        }
        self.queue.push(Persist { log, records, durability, early });
        if early { Taken::Early } else { Taken::Queued }
    }

    /// Whether the writer has something to do.
    pub fn has_work(&self) -> bool {
        !self.queue.is_empty() || self.folders.values().any(Folder::is_behind)
    }

    /// Somebody waits for it.
    pub fn is_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The writer wakes: what is queued becomes a group and goes into the files, unsynced. Returns
    /// what was refused before it was written.
    pub fn write(&mut self) -> Vec<Input> {
        let mut refused = Vec::new();
        self.group = self.folders.iter().filter(|(_, it)| it.is_behind()).map(|(log, _)| *log).collect();
        for Persist { log, records, durability, early } in std::mem::take(&mut self.queue) {
            let Some(folder) = self.folders.get_mut(&log) else { continue };
            match folder.stage(&records, durability, early) {
                Ok(()) => {
                    self.group.insert(log);
                }
                Err(NotStaged::Behind) => {}
                Err(NotStaged::Refused(why)) => {
                    let seq = records.first().map_or(Seq(1), |record| record.seq);
                    refused.push(Input::PersistFailed { log, seq, full: false, why });
                }
            }
        }
        for log in &self.group {
            if let Some(folder) = self.folders.get_mut(log).filter(|_| !self.full) {
                folder.write(self.segment_bytes);
            }
        }
        refused
    }

    /// The group ends: its logs are synced and told. `failing`: so is each log's sync.
    pub fn settle(&mut self, mut failing: impl FnMut() -> bool) -> Vec<Input> {
        let mut told = Vec::new();
        for log in std::mem::take(&mut self.group) {
            let Some(folder) = self.folders.get_mut(&log) else { continue };
            match folder.stand(&mut failing) {
                Stood::Nothing => {}
                Stood::Upto(seq) => told.push(Input::Persisted { log, seq }),
                Stood::Failed { from, full } => {
                    let why = if full { "no space left" } else { "the sync failed" };
                    told.push(Input::PersistFailed { log, seq: from, full, why: why.into() });
                }
            }
        }
        told
    }

    // --- the others ---

    /// Records from `from` on, checked as they are read; about `bytes_max`.
    pub fn read(&self, log: LogId, from: Seq, bytes_max: usize) -> Result<Vec<Record>, String> {
        let folder = self.folders.get(&log).ok_or_else(|| format!("there is no log {log}"))?;
        folder.read(from, bytes_max)
    }

    /// The log is synced up to its end first: a snapshot never speaks of records that a crash takes.
    pub fn snapshot(&mut self, log: LogId, at: Position, snapshot: &Snapshot) -> Result<(), String> {
        if self.full {
            return Err("no space left".into());
        }
        let folder = self.folders.get_mut(&log).ok_or_else(|| format!("there is no log {log}"))?;
        folder.snapshot(log, at, snapshot)
    }

    /// The newest whole snapshot.
    pub fn newest_snapshot(&self, log: LogId) -> Option<(Position, Snapshot)> {
        snapshots::newest(log, self.folders.get(&log)?)
    }

    /// The keyed state that a log's snapshot and records make up to a position, with what it took over
    /// from the log before it.
    pub fn state_at(&self, log: LogId, at: Position) -> Result<Entries, String> {
        let snapshot = self.newest_snapshot(log).filter(|(covers, _)| covers.seq <= at.seq);
        let (mut from, entries) = snapshot.map(|(covers, it)| (covers, it.entries)).unwrap_or_default();
        let mut shelf = Shelf::default();
        shelf.committed = entries;
        let source = Source {
            snapshot: None,
            read: &|from| self.read(log, from, READ_BYTES_MAX),
            before: &|log, at| self.state_at(log, at),
        };
        shelf.follow(&mut from, at, &source)?;
        Ok(shelf.committed)
    }

    pub fn truncate(&mut self, log: LogId, before: Seq) {
        let covered = self.newest_snapshot(log).map_or(Seq(0), |(at, _)| at.seq);
        if let Some(folder) = self.folders.get_mut(&log) {
            folder.truncate(before.min(covered.next()));
        }
    }

    /// Bytes of a log's segments, and all of the disk's.
    pub fn bytes(&self) -> u64 {
        self.folders.values().map(Folder::bytes).sum()
    }
}

/// A fold and keyed state, as they stand in a snapshot.
pub type Entries = BTreeMap<Bytes, Bytes>;
