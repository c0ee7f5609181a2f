//! Reading records back: from a mark near the first one, each checked by its hash on the way.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;
use dunlin_protocol::id::{LogId, Position, Seq};
use dunlin_protocol::log::record::Record;
use dunlin_protocol::log::segment::{FRAME_HEAD_BYTES, body_length, decode_frame};

use super::error::{Saying, StorageError};
use super::files;
use super::log_view::{Extent, LogView, Logs};
use super::queue::Commands;
use super::snapshots::SnapshotReader;
use super::writer::Command;

const READ_AHEAD_BYTES: usize = 256 << 10;

/// Reads logs from any thread that may block.
#[derive(Debug, Clone)]
pub struct LogReader {
    logs: Arc<Logs>,
    commands: Commands,
}

impl LogReader {
    pub(super) fn new(logs: Arc<Logs>, commands: Commands) -> LogReader {
        LogReader { logs, commands }
    }

    /// Records from `from` on, of one segment: at least one if there is one, about `bytes_max` in
    /// all. Only what stands in its durability class is seen; of a damaged log, what is before the
    /// damage.
    pub fn read(&self, log: LogId, from: Seq, bytes_max: usize) -> Result<Vec<Record>, StorageError> {
        let view = self.view(log)?;
        if view.extent().head.seq < from && view.behind_bytes.load(Ordering::Acquire) > 0 {
            self.wait_until_written();
        }
        let found = {
            let extent = view.extent();
            if extent.head.seq < from {
                return Ok(Vec::new());
            }
            extent.find(from).ok_or_else(|| StorageError::Gone {
                log,
                first: extent.segments.first().map_or(extent.head.seq.next(), |segment| segment.first),
            })?
        };
        let (segment, end, mark) = found;
        let path = files::numbered(&view.folder, segment, files::SEGMENT);
        match scan(log, &path, mark.at..end, mark.before, from, bytes_max) {
            // Retention was faster.
            Err(StorageError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Err(StorageError::Gone { log, first: self.first(log)? })
            }
            scanned => scanned,
        }
    }

    /// The newest whole snapshot.
    pub fn snapshot(&self, log: LogId) -> Result<Option<SnapshotReader>, StorageError> {
        let view = self.view(log)?;
        let at = view.extent().snapshot;
        at.map(|at| SnapshotReader::open(log, &files::numbered(&view.folder, at.seq, files::SNAPSHOT)))
            .transpose()
    }

    /// The first record that is kept; the one after the head when there is none.
    pub fn first(&self, log: LogId) -> Result<Seq, StorageError> {
        let view = self.view(log)?;
        let extent = view.extent();
        Ok(extent.segments.first().map_or(extent.head.seq.next(), |segment| segment.first))
    }

    /// Where the log stands.
    pub fn head(&self, log: LogId) -> Result<Position, StorageError> {
        Ok(self.view(log)?.extent().head)
    }

    pub(super) fn extent(&self, log: LogId) -> Result<Extent, StorageError> {
        Ok(self.view(log)?.extent().clone())
    }

    fn view(&self, log: LogId) -> Result<Arc<LogView>, StorageError> {
        self.logs.get(log).ok_or(StorageError::NoLog(log))
    }

    /// What `memory` acknowledged may still be on its way to the file.
    pub(super) fn wait_until_written(&self) {
        let (reply, written) = sync_channel(1);
        if self.commands.send(Command::Written { reply }).is_ok() {
            let _ = written.recv();
        }
    }
}

fn scan(
    log: LogId,
    path: &Path,
    bytes: std::ops::Range<u64>,
    before: Position,
    from: Seq,
    bytes_max: usize,
) -> Result<Vec<Record>, StorageError> {
    let mut file = File::open(path).saying("open", path)?;
    file.seek(SeekFrom::Start(bytes.start)).saying("read", path)?;
    let mut file = BufReader::with_capacity(READ_AHEAD_BYTES, file);
    let (mut records, mut taken, mut at, mut previous) = (Vec::new(), 0, bytes.start, before);
    while at < bytes.end && (records.is_empty() || taken < bytes_max) {
        let damaged = |wrong| damaged(log, path, at, wrong);
        let mut head = [0; FRAME_HEAD_BYTES];
        file.read_exact(&mut head).saying("read", path)?;
        let length = body_length(log, &head).map_err(damaged)?;
        let mut frame = vec![0; FRAME_HEAD_BYTES + length];
        let (front, body) = frame.split_at_mut(FRAME_HEAD_BYTES);
        front.copy_from_slice(&head);
        file.read_exact(body).saying("read", path)?;
        let framed = decode_frame(log, previous, &frame, at).map_err(damaged)?;
        let (position, end) = (framed.position, framed.end);
        if position.seq >= from {
            taken += frame.len();
            // The body keeps the frame's allocation: no second copy.
            let body = Bytes::from(frame).slice(FRAME_HEAD_BYTES..);
            records.push(Record::checked(position, previous.hash, body));
        }
        (at, previous) = (end, position);
    }
    Ok(records)
}

fn damaged(log: LogId, path: &Path, at: u64, wrong: dunlin_protocol::log::segment::Wrong) -> StorageError {
    StorageError::Damaged(format!(
        "log {log} is damaged in {} at byte {at}: {wrong}; restore the file from a copy and restart the node",
        path.display()
    ))
}
