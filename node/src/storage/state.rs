//! Keyed state, in fjall: a copy of what the logs say, so it is never synced and never trusted
//! further than its applied position agrees with the log.
//!
//! One keyspace; a key is the log's id, then 0 (the applied position) or 1 and the entry's key. A
//! batch holds changes and applied position together, so a crash keeps both or neither.
//!
//! What is removed stays on the disk until a table is written anew. fjall does that by itself as more is
//! written; a node that has nothing more to write is asked to (`remove`). Its journal stays: some 64 MiB
//! at most, whatever the node holds.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dunlin_protocol::id::{LogId, Position, Seq};
use dunlin_protocol::log::record::{Body, Change, Inherit};
use dunlin_protocol::wire::codec;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, Readable};

use super::error::{Saying, StorageError};
use super::reader::LogReader;

const FOLDER: &str = "state";
const KEYSPACE: &str = "state";
const APPLIED: u8 = 0;
const ENTRY: u8 = 1;
/// Block cache of the whole node. Beyond: blocks are read from files again.
const CACHE_BYTES: u64 = 32 << 20;
/// The node's journals. Beyond: fjall flushes and drops the oldest.
const JOURNAL_BYTES: u64 = 64 << 20;
/// Memtable of the one keyspace. Beyond: it is flushed to a table.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// A rebuilding batch closes at about this size, and so does a read of the log.
const BATCH_BYTES: usize = 4 << 20;
const CLEAR_ENTRIES: usize = 4096;
/// Tables up to this much are written anew after any removal, in a second or so; beyond, when a
/// quarter of them is dead: each byte is rewritten a bounded number of times.
const REWRITTEN_FREELY_BYTES: u64 = 64 << 20;
const DEAD_PART: u64 = 4;
/// How long a removal waits for the memtable to become a table.
const FLUSHED_WITHIN: Duration = Duration::from_secs(30);

/// The keyed state of all actors on this node.
#[derive(Clone)]
pub struct StateStore {
    database: Database,
    keyspace: Keyspace,
    dead: Arc<Mutex<Dead>>,
}

/// What was removed and may still be on the disk.
#[derive(Default)]
struct Dead {
    bytes: u64,
    /// Somebody is at it.
    reclaiming: bool,
}

impl std::fmt::Debug for StateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StateStore")
    }
}

impl StateStore {
    /// Opens `state/` in the data folder. One that does not open is removed: it is only a copy, and
    /// `bring_up` makes it again from snapshots and logs.
    pub fn open(folder: &Path) -> Result<StateStore, StorageError> {
        let folder = folder.join(FOLDER);
        match try_open(&folder) {
            Ok(store) => Ok(store),
            Err(why) => {
                tracing::warn!(folder = %folder.display(), why, "the state store does not open; it is rebuilt from the logs");
                let removed = match folder.is_dir() {
                    true => fs::remove_dir_all(&folder),
                    false => fs::remove_file(&folder),
                };
                removed.saying("remove", &folder)?;
                try_open(&folder).map_err(StorageError::State)
            }
        }
    }

    /// The position up to which the log's changes are in here; none when it must be brought up.
    pub fn applied(&self, log: LogId) -> Result<Option<Position>, StorageError> {
        // What does not decode is nothing that can be built upon: the same as not applied at all.
        Ok(self.keyspace.get(key(log, APPLIED, &[]))?.and_then(|bytes| codec::decode(&bytes).ok()))
    }

    pub fn get(&self, log: LogId, entry: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.keyspace.get(key(log, ENTRY, entry))?.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// Entries whose key begins with `prefix`, ascending, at most `limit`.
    pub fn scan(&self, log: LogId, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        self.keyspace.prefix(key(log, ENTRY, prefix)).take(limit).map(pair).collect()
    }

    /// Entries from key `first` on, ascending, at most `limit`.
    pub fn range(&self, log: LogId, first: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        let bounds = key(log, ENTRY, first)..key(log, ENTRY + 1, &[]);
        self.keyspace.range(bounds).take(limit).map(pair).collect()
    }

    /// The changes and the position, together or not at all. Not synced: the log is.
    pub fn apply(&self, log: LogId, position: Position, changes: &[Change]) -> Result<(), StorageError> {
        let mut batch = self.database.batch();
        for change in changes {
            let key = key(log, ENTRY, &change.key);
            match &change.value {
                Some(value) => batch.insert(&self.keyspace, key, value.as_ref()),
                None => batch.remove(&self.keyspace, key),
            }
        }
        batch.insert(&self.keyspace, key(log, APPLIED, &[]), codec::encode(&position).as_ref());
        Ok(batch.commit()?)
    }

    /// Everything of this log goes. The applied position goes first, so that an interruption leaves
    /// nothing that looks whole.
    pub fn clear(&self, log: LogId) -> Result<(), StorageError> {
        self.keyspace.remove(key(log, APPLIED, &[]))?;
        let (mut batch, mut entries, mut bytes) = (self.database.batch(), 0, 0);
        // One pass over what is there now: what the batches remove is not walked over again.
        for guard in self.keyspace.prefix(log.0) {
            let (key, value) = guard.into_inner()?;
            bytes += (key.len() + value.len()) as u64;
            batch.remove(&self.keyspace, key);
            entries += 1;
            if entries == CLEAR_ENTRIES {
                std::mem::replace(&mut batch, self.database.batch()).commit()?;
                entries = 0;
            }
        }
        batch.commit()?;
        self.dead().bytes += bytes;
        Ok(())
    }

    /// `clear` for a log that is gone, and its disk is freed: blocks, for seconds if there is much.
    pub fn remove(&self, log: LogId) -> Result<(), StorageError> {
        self.clear(log)?;
        self.reclaim()
    }

    /// Logs that have state here and are none of these: removed, and interrupted at it.
    pub fn strays(&self, logs: &BTreeSet<LogId>) -> Result<Vec<LogId>, StorageError> {
        let (mut strays, mut from) = (Vec::new(), Vec::new());
        while let Some(guard) = self.keyspace.range(from..).next() {
            let first = guard.key()?;
            let Some(log) = first.first_chunk().copied().map(LogId) else { break };
            if !logs.contains(&log) {
                strays.push(log);
            }
            from = key(log, ENTRY + 1, &[]);
        }
        Ok(strays)
    }

    /// Writes the tables anew without what was removed, when that is worth it. One caller does it for
    /// all who come meanwhile.
    fn reclaim(&self) -> Result<(), StorageError> {
        loop {
            let dead = {
                let mut dead = self.dead();
                let tables = self.keyspace.disk_space();
                let due = tables <= REWRITTEN_FREELY_BYTES || dead.bytes.saturating_mul(DEAD_PART) >= tables;
                if dead.reclaiming || dead.bytes == 0 || !due {
                    return Ok(());
                }
                dead.reclaiming = true;
                std::mem::take(&mut dead.bytes)
            };
            let outcome = self.rewrite();
            let mut all = self.dead();
            all.reclaiming = false;
            if let Err(error) = outcome {
                // The next removal tries again.
                all.bytes += dead;
                return Err(error);
            }
        }
    }

    fn rewrite(&self) -> Result<(), StorageError> {
        self.flush()?;
        self.keyspace.major_compact()?;
        // Tables that were replaced go when nobody can look at them any more: fjall looks for such at
        // each flush.
        self.flush()
    }

    /// Has the memtable made a table.
    fn flush(&self) -> Result<(), StorageError> {
        // Nothing by this name is there. What is removed counts as unseen only once something was
        // written behind it, and an empty memtable is not flushed.
        self.keyspace.remove(key(LogId([0; 16]), APPLIED, &[]))?;
        self.keyspace.rotate_memtable()?;
        let until = Instant::now() + FLUSHED_WITHIN;
        while self.keyspace.sealed_memtable_count() > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn dead(&self) -> MutexGuard<'_, Dead> {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All entries as they are now, ascending, with the position that they stand at; later changes
    /// are not seen.
    pub fn dump(&self, log: LogId) -> Result<Dump, StorageError> {
        let view = self.database.snapshot();
        let at = view.get(&self.keyspace, key(log, APPLIED, &[]))?;
        let at = at.and_then(|bytes| codec::decode(&bytes).ok());
        let bounds = key(log, ENTRY, &[])..key(log, ENTRY + 1, &[]);
        Ok(Dump { at, entries: view.range(&self.keyspace, bounds) })
    }

    /// Brings the log's state to `head`: a store that is behind applies the commits after its
    /// position; one whose position the log does not have is cleared, and rebuilt from the newest
    /// snapshot and the log. A log that took over from another begins with a copy of that one's state,
    /// which is brought up first where it must be.
    pub fn bring_up(&self, log: LogId, head: Position, reader: &LogReader) -> Result<(), StorageError> {
        match self.applied(log)? {
            Some(at) if at == head => return Ok(()),
            Some(at) if at.seq < head.seq => match self.follow(log, at, head, reader) {
                Ok(()) => return Ok(()),
                Err(error @ (StorageError::NotInLog { .. } | StorageError::Gone { .. })) => {
                    tracing::warn!(%log, %error, "keyed state is rebuilt");
                }
                Err(error) => return Err(error),
            },
            Some(at) => {
                tracing::warn!(%log, applied = at.seq.0, head = head.seq.0, "keyed state is not of this log's history; it is rebuilt");
            }
            None => {}
        }
        self.clear(log)?;
        let at = self.load(log, reader)?;
        self.follow(log, at, head, reader)
    }

    /// Fills a cleared store from the newest snapshot; the applied position comes with the last batch.
    fn load(&self, log: LogId, reader: &LogReader) -> Result<Position, StorageError> {
        let Some(snapshot) = reader.snapshot(log)? else { return Ok(Position::START) };
        let at = snapshot.at;
        let (mut batch, mut bytes) = (self.database.batch(), 0);
        for entry in snapshot.entries() {
            let (entry, value) = entry?;
            bytes += entry.len() + value.len();
            batch.insert(&self.keyspace, key(log, ENTRY, &entry), value.as_ref());
            if bytes >= BATCH_BYTES {
                std::mem::replace(&mut batch, self.database.batch()).commit()?;
                bytes = 0;
            }
        }
        batch.insert(&self.keyspace, key(log, APPLIED, &[]), codec::encode(&at).as_ref());
        batch.commit()?;
        Ok(at)
    }

    /// Applies the commits after `at` up to `head`, each checked to follow the one before.
    fn follow(
        &self,
        log: LogId,
        mut at: Position,
        head: Position,
        reader: &LogReader,
    ) -> Result<(), StorageError> {
        while at.seq < head.seq {
            let records = reader.read(log, at.seq.next(), BATCH_BYTES)?;
            if records.is_empty() {
                return Err(StorageError::NotInLog { log, at: head });
            }
            let mut changes = Vec::new();
            let mut copied = None;
            let base = at;
            for record in records.iter().take_while(|record| record.seq <= head.seq) {
                if record.previous != at.hash {
                    return Err(StorageError::NotInLog { log, at });
                }
                match decode(log, record.seq, record.decode())? {
                    Body::Commit(commit) => changes.extend(commit.state),
                    Body::Inherit(Inherit { from, closed_at, .. }) => {
                        self.copy(from, closed_at, log, reader)?;
                        copied = Some(from);
                    }
                    Body::EpochStart(_) | Body::Append(_) | Body::Close { .. } | Body::Catalog { .. } => {}
                }
                at = record.position();
            }
            debug_assert!(base.seq < at.seq, "a read begins at the record that was asked for");
            // The applied position is what makes a copy whole: it comes last.
            self.apply(log, at, &changes)?;
            if let Some(from) = copied {
                // Nobody reads the old copy any more; should it be needed, its log makes it again.
                self.clear(from)?;
            }
        }
        if at == head { Ok(()) } else { Err(StorageError::NotInLog { log, at: head }) }
    }

    /// Puts the entries of a closed log's state under the name of the log that follows it. Interrupted,
    /// it is begun anew, because only an applied position makes them count.
    fn copy(
        &self,
        from: LogId,
        closed_at: Position,
        to: LogId,
        reader: &LogReader,
    ) -> Result<(), StorageError> {
        self.bring_up(from, closed_at, reader)?;
        let (mut batch, mut bytes) = (self.database.batch(), 0);
        for entry in self.dump(from)? {
            let (entry, value) = entry?;
            bytes += entry.len() + value.len();
            batch.insert(&self.keyspace, key(to, ENTRY, &entry), value.as_ref());
            if bytes >= BATCH_BYTES {
                std::mem::replace(&mut batch, self.database.batch()).commit()?;
                bytes = 0;
            }
        }
        Ok(batch.commit()?)
    }
}

/// A log's keyed state at one moment.
pub struct Dump {
    /// Where it stands; none when nothing was ever applied.
    pub at: Option<Position>,
    entries: fjall::Iter,
}

impl Iterator for Dump {
    type Item = Result<(Bytes, Bytes), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.entries.next().map(pair)
    }
}

impl std::fmt::Debug for Dump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dump").field("at", &self.at).finish_non_exhaustive()
    }
}

/// fjall may panic on bytes that no version of it wrote; that is a store that does not open, too.
fn try_open(folder: &Path) -> Result<StateStore, String> {
    let open = || {
        let database = Database::builder(folder)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(1)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let keyspace = database.keyspace(KEYSPACE, options)?;
        Ok::<_, fjall::Error>(StateStore { database, keyspace, dead: Arc::default() })
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(opened) => opened.map_err(|error| error.to_string()),
        Err(_) => Err("its files are damaged".to_owned()),
    }
}

fn decode(log: LogId, seq: Seq, decoded: Result<Body, codec::CodecError>) -> Result<Body, StorageError> {
    decoded.map_err(|error| {
        StorageError::Damaged(format!(
            "record {} of log {log} is whole but does not decode: {error}; it was written by another version",
            seq.0
        ))
    })
}

fn key(log: LogId, kind: u8, entry: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(17 + entry.len());
    key.extend_from_slice(&log.0);
    key.push(kind);
    key.extend_from_slice(entry);
    key
}

fn pair(guard: fjall::Guard) -> Result<(Bytes, Bytes), StorageError> {
    let (key, value) = guard.into_inner()?;
    let entry = key.get(17..).unwrap_or_default();
    Ok((Bytes::copy_from_slice(entry), Bytes::copy_from_slice(&value)))
}
