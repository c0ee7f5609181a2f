//! What is known of each log outside the writer's thread: which segments there are and how far they
//! may be read. The writer publishes here after a group stands; readers look, then read the files
//! without holding anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use dunlin_protocol::id::{LogId, Position, Seq};

/// A place in a segment where reading may begin: one about every `MARK_BYTES`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub at: u64,
    /// The position before the record that stands there.
    pub before: Position,
}

/// Distance of two marks. A read skips at most this much.
pub(super) const MARK_BYTES: u64 = 256 << 10;

#[derive(Debug, Clone)]
pub(super) struct SegmentView {
    pub first: Seq,
    /// Bytes that may be read.
    pub end: u64,
    pub marks: Vec<Mark>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Extent {
    pub segments: Vec<SegmentView>,
    pub head: Position,
    /// The newest whole snapshot.
    pub snapshot: Option<Position>,
    pub damage: Option<String>,
    /// Where it was synced last, as the note on the disk had it at the start.
    pub noted: Option<Position>,
}

impl Extent {
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end).sum()
    }

    /// Where reading for record `seq` begins: the segment's first number, its readable end, the mark.
    pub fn find(&self, seq: Seq) -> Option<(Seq, u64, Mark)> {
        let after = self.segments.partition_point(|segment| segment.first <= seq);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        let after = segment.marks.partition_point(|mark| mark.before.seq < seq);
        let mark = segment.marks.get(after.checked_sub(1)?)?;
        Some((segment.first, segment.end, *mark))
    }

    /// Adds a mark when the last one is far enough behind.
    pub fn mark(marks: &mut Vec<Mark>, mark: Mark) {
        if marks.last().is_none_or(|last| last.at + MARK_BYTES <= mark.at) {
            marks.push(mark);
        }
    }
}

/// One log as seen from outside the writer's thread.
#[derive(Debug)]
pub(super) struct LogView {
    pub folder: PathBuf,
    extent: Mutex<Extent>,
    /// Bytes acknowledged in `memory` and not yet written.
    pub behind_bytes: AtomicU64,
    /// The last write failed, or the log is damaged: nothing is acknowledged early.
    pub failing: AtomicBool,
}

impl LogView {
    pub fn new(folder: PathBuf, extent: Extent) -> LogView {
        let failing = AtomicBool::new(extent.damage.is_some());
        LogView { folder, extent: Mutex::new(extent), behind_bytes: AtomicU64::new(0), failing }
    }

    /// Held for look-ups only, never across a call to the disk. A panic elsewhere leaves it usable:
    /// every change of it is whole.
    pub fn extent(&self) -> MutexGuard<'_, Extent> {
        self.extent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All logs of the data folder.
#[derive(Debug)]
pub(super) struct Logs {
    pub folder: PathBuf,
    views: RwLock<BTreeMap<LogId, Arc<LogView>>>,
}

impl Logs {
    pub fn new(folder: &Path) -> Logs {
        Logs { folder: folder.to_owned(), views: RwLock::default() }
    }

    pub fn get(&self, log: LogId) -> Option<Arc<LogView>> {
        self.views.read().unwrap_or_else(PoisonError::into_inner).get(&log).cloned()
    }

    /// The log's view; a new empty one when it is not known.
    pub fn get_or_new(&self, log: LogId) -> Arc<LogView> {
        let mut views = self.views.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(LogView::new(self.log_folder(log), Extent::default()));
        views.entry(log).or_insert_with(new).clone()
    }

    pub fn insert(&self, log: LogId, view: Arc<LogView>) {
        self.views.write().unwrap_or_else(PoisonError::into_inner).insert(log, view);
    }

    pub fn remove(&self, log: LogId) {
        self.views.write().unwrap_or_else(PoisonError::into_inner).remove(&log);
    }

    pub fn log_folder(&self, log: LogId) -> PathBuf {
        self.folder.join(log.to_string())
    }
}
