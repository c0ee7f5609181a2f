//! The writer: one thread, one group sync for all logs of the node.
//!
//! It takes everything that is queued, writes it, syncs what asked for it, and only then tells the
//! core, so that the cost of a sync is shared by whatever arrived during the last one. Where several logs
//! of a group wait for the disk (those that are born, those that are synced) they wait beside each other.
//! The queue needs no bound of its own: the core has at most `UNPERSISTED_BYTES_MAX` of each log under way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use dunlin_protocol::effect::Input;
use dunlin_protocol::id::{LogId, Position, Seq};
use dunlin_protocol::limits::UNPERSISTED_BYTES_MAX;
use dunlin_protocol::log::record::Record;
use dunlin_protocol::log::segment::frame_bytes;
use dunlin_protocol::mesh::catalog::LogName;
use dunlin_protocol::pipeline::manifest::Durability;

use super::births::Births;
use super::error::{Saying, StorageError};
use super::files;
use super::log_file::{LogFile, NotStaged};
use super::log_view::{LogView, Logs};
use super::queue::Queue;
use super::recovery;
use super::teller::Teller;

/// A group closes at this size, so that the first in it does not wait for all of a burst.
const GROUP_BYTES_MAX: usize = UNPERSISTED_BYTES_MAX;
/// Logs whose files stay open between groups. Beyond: those idle in the last group are closed.
const OPEN_LOGS_MAX: usize = 256;
/// Logs of a group that wait for the disk at once.
const WAITING_MAX: usize = 16;
/// How often bytes that `memory` acknowledged and the disk refused are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What the writer does for others.
#[derive(Debug)]
pub(super) enum Command {
    Create {
        log: LogId,
        name: LogName,
    },
    /// `early`: `memory` acknowledged it already.
    Persist {
        log: LogId,
        records: Vec<Record>,
        durability: Durability,
        early: bool,
    },
    /// The log is damaged: one of these records takes its place.
    WriteAnew {
        log: LogId,
        records: Vec<Record>,
    },
    Truncate {
        log: LogId,
        before: Seq,
    },
    Remove {
        log: LogId,
    },
    /// Sync all that the log holds; the answer is its head.
    Sync {
        log: LogId,
        reply: SyncSender<Result<Position, StorageError>>,
    },
    /// Answer when everything queued before is written.
    Written {
        reply: SyncSender<()>,
    },
    Stop,
}

#[derive(Debug)]
pub(super) struct Writer {
    logs: Arc<Logs>,
    files: BTreeMap<LogId, LogFile>,
    births: Births,
    done: Teller,
    touched: BTreeSet<LogId>,
    /// Logs that the disk refused what `memory` acknowledged of them.
    behind: BTreeSet<LogId>,
    group_bytes: usize,
}

impl Writer {
    pub fn new(logs: Arc<Logs>, files: BTreeMap<LogId, LogFile>, births: Births, done: Teller) -> Writer {
        Writer {
            logs,
            files,
            births,
            done,
            touched: BTreeSet::new(),
            behind: BTreeSet::new(),
            group_bytes: 0,
        }
    }

    /// Until `Stop`: then everything is written and synced.
    pub fn run(mut self, commands: &Queue) {
        loop {
            let mut next = self.wait(commands);
            let mut stopping = false;
            while let Some(command) = next {
                if matches!(command, Command::Stop) {
                    stopping = true;
                    break;
                }
                self.take(command);
                if self.group_bytes >= GROUP_BYTES_MAX {
                    break;
                }
                next = commands.take();
            }
            self.settle();
            if stopping {
                break;
            }
        }
        for (log, file) in &mut self.files {
            if file.view.extent().damage.is_some() {
                continue;
            }
            if let Err(error) = file.sync_standing() {
                tracing::warn!(%log, %error, "a log could not be synced while stopping");
            }
        }
    }

    /// The next command, or none when it is time to try again what the disk refused.
    fn wait(&mut self, commands: &Queue) -> Option<Command> {
        let next = commands.wait((!self.behind.is_empty()).then_some(RETRY));
        if next.is_none() {
            self.touched = self.behind.clone();
        }
        next
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Persist { log, records, durability, early } => {
                self.stage(log, &records, durability, early)
            }
            Command::Create { log, name } => {
                let view = self.logs.get_or_new(log);
                self.files.entry(log).or_insert_with(|| LogFile::new(log, name, view));
            }
            Command::WriteAnew { log, records } => {
                self.settle();
                self.write_anew(log, &records);
            }
            Command::Truncate { log, before } => {
                self.settle();
                let Ok(file) = self.standing(log) else { return };
                if let Err(error) = file.truncate(before) {
                    tracing::warn!(%log, %error, "old segments could not be removed; it is tried with the next");
                }
            }
            Command::Remove { log } => {
                self.settle();
                self.remove(log);
            }
            Command::Sync { log, reply } => {
                self.settle();
                let synced = self.standing(log).and_then(|file| file.sync_standing().map(|()| file.head()));
                let _ = reply.send(synced);
            }
            Command::Written { reply } => {
                self.settle();
                let _ = reply.send(());
            }
            Command::Stop => {}
        }
    }

    fn standing(&mut self, log: LogId) -> Result<&mut LogFile, StorageError> {
        let file = self.files.get_mut(&log).ok_or(StorageError::NoLog(log))?;
        let damage = file.view.extent().damage.clone();
        damage.map_or(Ok(file), |why| Err(StorageError::Damaged(why)))
    }

    fn stage(&mut self, log: LogId, records: &[Record], durability: Durability, early: bool) {
        let Some(first) = records.first().map(|record| record.seq) else { return };
        let staged = match self.files.get_mut(&log) {
            Some(file) => file.stage(records, durability, early),
            None => Err(NotStaged::Refused(StorageError::NoLog(log).to_string())),
        };
        let bytes: usize = records.iter().map(frame_bytes).sum();
        match staged {
            Ok(()) => {
                self.group_bytes += bytes;
                self.touched.insert(log);
                return;
            }
            Err(NotStaged::Behind) => {}
            Err(NotStaged::Refused(why)) => {
                tracing::error!(%log, why, "records were refused");
                self.tell(Input::PersistFailed { log, seq: first, full: false, why });
            }
        }
        let Some(view) = self.logs.get(log) else { return };
        if early {
            view.failing.store(true, Ordering::Release);
            view.behind_bytes.fetch_sub(bytes as u64, Ordering::AcqRel);
        }
    }

    /// Ends the group: all logs are written first, then synced, then told.
    fn settle(&mut self) {
        self.group_bytes = 0;
        let touched = std::mem::take(&mut self.touched);
        let mut group: Vec<(LogId, LogFile)> =
            touched.iter().filter_map(|log| self.files.remove_entry(log)).collect();
        let born = group.iter().filter(|(_, file)| file.is_unborn()).count();
        let written = each(&mut group, born, |(_, file)| file.write());
        let mut written: Vec<(LogId, LogFile, Result<(), StorageError>)> =
            group.into_iter().zip(written).map(|((log, file), outcome)| (log, file, outcome)).collect();
        let synced = written.iter().filter(|(_, file, outcome)| outcome.is_ok() && file.syncs()).count();
        let stood = each(&mut written, synced, |(_, file, outcome)| {
            std::mem::replace(outcome, Ok(())).and_then(|()| file.stand())
        });
        for ((log, mut file, _), outcome) in written.into_iter().zip(stood) {
            let due = file.pending;
            let at_risk = file.first_at_risk();
            match outcome {
                Ok(()) => {
                    if let Some(name) = file.born.take() {
                        self.births.note(log, &name);
                    }
                    let seq = file.head().seq;
                    file.pending = 0;
                    if due > 0 {
                        self.tell(Input::Persisted { log, seq });
                    }
                }
                Err(error) => {
                    file.fail();
                    let (full, why) = (error.is_full(), error.to_string());
                    if due > 0 {
                        self.tell(Input::PersistFailed { log, seq: at_risk, full, why });
                    } else {
                        tracing::warn!(%log, why, "what 'memory' acknowledged is not on the disk yet; it is tried again");
                    }
                }
            }
            if file.staged_bytes() > 0 {
                self.behind.insert(log);
            } else {
                self.behind.remove(&log);
            }
            self.files.insert(log, file);
        }
        self.close_idle(&touched);
    }

    fn close_idle(&mut self, touched: &BTreeSet<LogId>) {
        if touched.is_empty() || self.files.len() <= OPEN_LOGS_MAX {
            return;
        }
        let open = self.files.values().filter(|file| file.has_open_files()).count();
        if open > OPEN_LOGS_MAX {
            let idle = self.files.iter_mut().filter(|(log, _)| !touched.contains(log));
            idle.for_each(|(_, file)| file.close_files());
        }
    }

    fn write_anew(&mut self, log: LogId, records: &[Record]) {
        let folder = self.logs.log_folder(log);
        let told = match recovery::replace(log, &folder, records) {
            Ok((extent, standing)) => {
                let view = Arc::new(LogView::new(folder, extent));
                let seq = standing.head.seq;
                self.logs.insert(log, view.clone());
                self.files.insert(log, LogFile::recovered(log, view, standing));
                Input::Persisted { log, seq }
            }
            Err(error) => {
                let (full, why) = (error.is_full(), error.to_string());
                Input::PersistFailed { log, seq: Seq(1), full, why }
            }
        };
        self.tell(told);
    }

    /// The log goes. Renamed first: what a crash leaves half removed is no log any more.
    fn remove(&mut self, log: LogId) {
        self.files.remove(&log);
        self.behind.remove(&log);
        self.logs.remove(log);
        self.births.forget(log);
        let folder = self.logs.log_folder(log);
        let parked = files::temporary(&folder);
        let removed = match fs::rename(&folder, &parked) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            renamed => renamed.and_then(|()| fs::remove_dir_all(&parked)).saying("remove", &folder),
        };
        if let Err(error) = removed.and_then(|()| files::sync_folder(&self.logs.folder)) {
            tracing::warn!(%log, %error, "a removed log's files are still there");
        }
    }

    fn tell(&self, input: Input) {
        self.done.tell(input);
    }
}

/// Does the same for each, in their order. Where more than one waits for the disk, up to `WAITING_MAX` of
/// them wait at once: the disk then serves them together.
fn each<T: Send, R: Send>(all: &mut [T], waiting: usize, work: impl Fn(&mut T) -> R + Sync) -> Vec<R> {
    let some = |some: &mut [T]| some.iter_mut().map(&work).collect::<Vec<R>>();
    if waiting < 2 {
        return some(all);
    }
    let size = all.len().div_ceil(WAITING_MAX);
    thread::scope(|scope| {
        let mut chunks = all.chunks_mut(size);
        let first = chunks.next();
        let others: Vec<_> = chunks.map(|chunk| scope.spawn(|| some(chunk))).collect();
        let mut done = first.map(some).unwrap_or_default();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    })
}
