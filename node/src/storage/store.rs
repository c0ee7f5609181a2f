//! The handle that the driver holds: every method queues and returns.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dunlin_protocol::effect::{Input, ReadId};
use dunlin_protocol::id::{LogId, Position, Seq};
use dunlin_protocol::limits::UNPERSISTED_BYTES_MAX;
use dunlin_protocol::log::record::Record;
use dunlin_protocol::log::segment::frame_bytes;
use dunlin_protocol::mesh::catalog::LogName;
use dunlin_protocol::pipeline::manifest::Durability;

use super::births::{Births, Missing};
use super::error::{Saying, StorageError};
use super::log_view::Logs;
use super::queue::{self, Commands};
use super::reader::LogReader;
use super::recovery::{self, Recovery};
use super::snapshots::SnapshotWriter;
use super::teller::Teller;
use super::writer::{Command, Writer};
use super::{files, format};
use crate::inbox::Inbox;

/// How old the figure of `disk_bytes` may be before it is measured again.
const MEASURED_FOR: Duration = Duration::from_secs(5);
/// Of so many parts of the time one is spent on measuring at most: a folder of many logs takes long.
const MEASURED_PART: u32 = 400;
/// A figure from this early in the process's life, and the age at which such a one is taken anew.
const OPENING: Duration = Duration::from_secs(1);

/// The logs on this node's disk.
#[derive(Debug)]
pub struct Storage {
    logs: Arc<Logs>,
    commands: Commands,
    chores: Sender<Chore>,
    reads: Sender<ReadJob>,
    /// By log the last record whose completion the core has not heard yet. While there is one, none is
    /// acknowledged early: it would overtake.
    awaited: BTreeMap<LogId, Seq>,
    threads: Vec<JoinHandle<()>>,
    in_use: Arc<InUse>,
    _lock: File,
}

struct ReadJob {
    log: LogId,
    read: ReadId,
    from: Seq,
    bytes_max: usize,
}

enum Chore {
    Snapshot { log: LogId, at: Position, fold: Bytes },
    Measure,
}

/// The data folder's size, measured by whoever has time.
struct InUse {
    folder: PathBuf,
    bytes: AtomicU64,
    started: Instant,
    /// When it is to be measured again, in milliseconds since `started`.
    due_ms: AtomicU64,
    asked: AtomicBool,
}

impl Storage {
    /// Takes the data folder for this process and recovers every log: torn tails are cut, damage is
    /// reported in `Recovery`. Blocks; called before the node starts.
    pub fn open(folder: &Path, inbox: Inbox) -> Result<(Storage, Recovery), StorageError> {
        let lock = format::take(folder)?;
        let logs_folder = folder.join("logs");
        std::fs::create_dir_all(&logs_folder).saying("create", &logs_folder)?;
        files::sync_folder(folder)?;
        let logs = Arc::new(Logs::new(&logs_folder));
        let (found, writing) = recovery::recover(&logs)?;
        let births = Births::in_folder(folder);
        let mut missing = Vec::new();
        for Missing { log, whose, name } in births.compare(found.iter().map(|it| (it.log, &it.name))) {
            match name {
                Some(name) => missing.push((name, format!("{whose} was on this disk and its folder is gone: stop the node and put the folder {} back, or give the node up with 'dunlin nodes remove'", logs.log_folder(log).display()))),
                None => tracing::error!(%log, "{whose} was on this disk and its folder is gone: it begins anew with what the other members hold of it; stop the node and put the folder back if there is a copy"),
            }
        }

        let done = Teller::start(inbox)?;
        let (commands, queued) = queue::queue();
        let (reads, read_jobs) = mpsc::channel();
        let (chores, chore_jobs) = mpsc::channel();
        let reader = LogReader::new(logs.clone(), commands.clone());
        let snapshots = SnapshotWriter::new(logs.clone(), commands.clone());
        let in_use = Arc::new(InUse::new(folder));
        in_use.measure();

        let writer = Writer::new(logs.clone(), writing, births, done.clone());
        let threads = vec![
            start("log-writer", move || writer.run(&queued))?,
            start("log-reader", {
                let (reader, done) = (reader.clone(), done.clone());
                move || read(&read_jobs, &reader, &done)
            })?,
            start("log-chores", {
                let (done, in_use) = (done.clone(), in_use.clone());
                move || chore(&chore_jobs, &snapshots, &in_use, &done)
            })?,
        ];
        let recovery = Recovery::new(found, missing, reader);
        let awaited = BTreeMap::new();
        let storage = Storage { logs, commands, chores, reads, awaited, threads, in_use, _lock: lock };
        Ok((storage, recovery))
    }

    /// A new log; its folder is made with the first persist.
    pub fn create_log(&mut self, log: LogId, name: &LogName) {
        self.logs.get_or_new(log);
        self.command(Command::Create { log, name: name.clone() });
    }

    /// Appends records. `Persisted` follows when they stand in `durability`, or `PersistFailed`: then
    /// nothing from its `seq` on stands, and what was queued behind goes without a word of its own.
    /// `memory` is answered at once, with what is returned, unless it would overtake another persist or the
    /// disk is behind.
    #[must_use]
    pub fn persist(&mut self, log: LogId, records: Vec<Record>, durability: Durability) -> Option<Input> {
        let last = records.last().map(|record| record.seq)?;
        let early = durability == Durability::Memory && self.may_answer_early(log, &records);
        if !early {
            self.awaited.insert(log, last);
        }
        self.command(Command::Persist { log, records, durability, early });
        early.then_some(Input::Persisted { log, seq: last })
    }

    /// The core takes this input: what was awaited may be over with it.
    pub fn heard(&mut self, input: &Input) {
        if let Input::Persisted { log, seq } = input
            && self.awaited.get(log).is_some_and(|last| last <= seq)
        {
            self.awaited.remove(log);
        }
        // Nothing that was queued behind what failed stands, and the core begins anew there.
        if let Input::PersistFailed { log, .. } = input {
            self.awaited.remove(log);
        }
    }

    /// Reads on the reader's thread; `Input::Read` follows.
    pub fn read(&mut self, log: LogId, read: ReadId, from: Seq, bytes_max: usize) {
        let _ = self.reads.send(ReadJob { log, read, from, bytes_max });
    }

    /// A snapshot of a log without keyed state; `Snapshotted` follows.
    pub fn snapshot(&mut self, log: LogId, at: Position, fold: Bytes) {
        let _ = self.chores.send(Chore::Snapshot { log, at, fold });
    }

    /// A log of these records takes the place of a damaged one; `Persisted` or `PersistFailed` follows.
    pub fn write_anew(&mut self, log: LogId, records: Vec<Record>) {
        self.command(Command::WriteAnew { log, records });
    }

    /// Whole segments before `before` go, as far as a snapshot covers them.
    pub fn truncate(&mut self, log: LogId, before: Seq) {
        self.command(Command::Truncate { log, before });
    }

    pub fn remove_log(&mut self, log: LogId) {
        self.awaited.remove(&log);
        self.command(Command::Remove { log });
    }

    /// For rebuilding state, on threads that may block.
    pub fn reader(&self) -> LogReader {
        LogReader::new(self.logs.clone(), self.commands.clone())
    }

    /// For snapshots with keyed state, on threads that may block.
    pub fn snapshot_writer(&self) -> SnapshotWriter {
        SnapshotWriter::new(self.logs.clone(), self.commands.clone())
    }

    /// The data folder's size, a few seconds old.
    pub fn disk_bytes(&self) -> u64 {
        if self.in_use.is_due() {
            let _ = self.chores.send(Chore::Measure);
        }
        self.in_use.bytes.load(Ordering::Acquire)
    }

    /// Writes and syncs everything, in every durability class, and ends the threads.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        // `stop` was here before `drop`.
        if self.threads.is_empty() {
            return;
        }
        self.command(Command::Stop);
        // The other threads end with the last sender of their queue.
        (self.reads, self.chores) = (mpsc::channel().0, mpsc::channel().0);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a storage thread panicked; the logs are recovered at the next start");
            }
        }
    }

    fn may_answer_early(&self, log: LogId, records: &[Record]) -> bool {
        let Some(view) = self.logs.get(log) else { return false };
        let bytes: u64 = records.iter().map(|record| frame_bytes(record) as u64).sum();
        // Only this thread adds to the counter, so what is read here can only have shrunk since.
        let free = !self.awaited.contains_key(&log)
            && !view.failing.load(Ordering::Acquire)
            && view.behind_bytes.load(Ordering::Acquire) + bytes <= UNPERSISTED_BYTES_MAX as u64;
        if free {
            view.behind_bytes.fetch_add(bytes, Ordering::AcqRel);
        }
        free
    }

    fn command(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::error!("the log writer is gone; nothing more is persisted, restart the node");
        }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl InUse {
    fn new(folder: &Path) -> InUse {
        InUse {
            folder: folder.to_owned(),
            bytes: AtomicU64::new(0),
            started: Instant::now(),
            due_ms: AtomicU64::new(0),
            asked: AtomicBool::new(false),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_due(&self) -> bool {
        self.now_ms() > self.due_ms.load(Ordering::Acquire) && !self.asked.swap(true, Ordering::AcqRel)
    }

    fn measure(&self) {
        let began = self.started.elapsed();
        self.bytes.store(files::bytes_below(&self.folder), Ordering::Release);
        let ended = self.started.elapsed();
        // What was measured while the folder was being opened says little.
        let kept = match ended < OPENING {
            true => OPENING,
            false => MEASURED_FOR.max((ended - began) * MEASURED_PART),
        };
        let due_ms = u64::try_from((ended + kept).as_millis()).unwrap_or(u64::MAX);
        self.due_ms.store(due_ms, Ordering::Release);
        self.asked.store(false, Ordering::Release);
    }
}

impl fmt::Debug for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InUse").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

pub(super) fn start(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StorageError> {
    let started = thread::Builder::new().name(name.to_owned()).spawn(work);
    started.saying("start the thread", Path::new(name))
}

fn read(jobs: &Receiver<ReadJob>, reader: &LogReader, done: &Teller) {
    for ReadJob { log, read, from, bytes_max } in jobs {
        let outcome = reader.read(log, from, bytes_max).map_err(|error| error.to_string());
        done.tell(Input::Read { log, read, outcome });
    }
}

fn chore(jobs: &Receiver<Chore>, snapshots: &SnapshotWriter, in_use: &InUse, done: &Teller) {
    for job in jobs {
        match job {
            Chore::Snapshot { log, at, fold } => {
                let written = snapshots.write(log, at, &fold, &mut std::iter::empty());
                let outcome = written.map_err(|error| error.to_string());
                done.tell(Input::Snapshotted { log, at, outcome });
            }
            Chore::Measure => in_use.measure(),
        }
    }
}

/// Files of the writer by log, as recovery hands them over.
pub(super) type Writing = BTreeMap<LogId, super::log_file::LogFile>;
