//! Snapshots on the disk: written beside the log, put in place whole, read with every chunk checked.

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;
use dunlin_protocol::id::{LogId, Position};
use dunlin_protocol::log::snapshot::{BadSnapshot, CHUNK_HEAD_BYTES, Decoder, Encoder, HEADER_BYTES, Piece};

use super::error::{Saying, StorageError};
use super::files;
use super::log_view::Logs;
use super::queue::Commands;
use super::writer::Command;
use crate::crash::{self, Point};

/// Encoded bytes are handed to the file at this much.
const WRITE_BYTES: usize = 1 << 20;

/// Writes snapshots from any thread that may block.
#[derive(Debug, Clone)]
pub struct SnapshotWriter {
    logs: Arc<Logs>,
    commands: Commands,
}

impl SnapshotWriter {
    pub(super) fn new(logs: Arc<Logs>, commands: Commands) -> SnapshotWriter {
        SnapshotWriter { logs, commands }
    }

    /// Writes what the log's records up to `at` add up to, syncs it, and removes older snapshots. The
    /// log is synced up to `at` first, in every durability class: a snapshot ahead of its log would
    /// speak of records that a crash took. On an error the earlier snapshot still stands.
    pub fn write(
        &self,
        log: LogId,
        at: Position,
        fold: &[u8],
        entries: &mut dyn Iterator<Item = Result<(Bytes, Bytes), StorageError>>,
    ) -> Result<(), StorageError> {
        let (reply, synced) = sync_channel(1);
        self.commands.send(Command::Sync { log, reply }).map_err(|_| StorageError::Stopped)?;
        let head = synced.recv().map_err(|_| StorageError::Stopped)??;
        if head.seq < at.seq {
            return Err(StorageError::NotInLog { log, at });
        }
        let view = self.logs.get(log).ok_or(StorageError::NoLog(log))?;
        let path = files::numbered(&view.folder, at.seq, files::SNAPSHOT);
        let parked = files::temporary(&path);
        let written = write_file(&parked, log, at, fold, entries)
            .and_then(|()| fs::rename(&parked, &path).saying("rename", &parked));
        if written.is_err() {
            let _ = fs::remove_file(&parked);
        }
        written?;
        files::sync_folder(&view.folder)?;
        crash::at(Point::AfterSnapshot);
        view.extent().snapshot = Some(at);
        remove_others(&view.folder, at)
    }
}

fn write_file(
    path: &Path,
    log: LogId,
    at: Position,
    fold: &[u8],
    entries: &mut dyn Iterator<Item = Result<(Bytes, Bytes), StorageError>>,
) -> Result<(), StorageError> {
    let bad =
        |wrong: BadSnapshot| StorageError::BadSnapshot { path: path.to_owned(), why: wrong.to_string() };
    let mut file = File::create(path).saying("create", path)?;
    let mut out = Vec::with_capacity(2 * WRITE_BYTES);
    let mut encoder = Encoder::new(log, at, &mut out);
    encoder.fold(fold, &mut out);
    for entry in entries {
        let (key, value) = entry?;
        encoder.entry(&key, &value, &mut out).map_err(bad)?;
        if out.len() >= WRITE_BYTES {
            file.write_all(&out).saying("write", path)?;
            out.clear();
        }
    }
    encoder.finish(&mut out);
    let half = out.get(..out.len() / 2).unwrap_or_default();
    crash::halfway(Point::HalfSnapshot, || _ = file.write_all(half));
    file.write_all(&out).saying("write", path)?;
    files::sync(&file, path)
}

/// A snapshot that was found whole: position and fold, then its entries.
#[derive(Debug)]
pub struct SnapshotReader {
    pub at: Position,
    pub fold: Bytes,
    entries: Entries,
}

/// The entries, chunk by chunk.
#[derive(Debug)]
struct Entries {
    path: PathBuf,
    file: BufReader<File>,
    decoder: Decoder,
    ready: std::vec::IntoIter<(Bytes, Bytes)>,
    ended: bool,
}

impl SnapshotReader {
    pub(super) fn open(log: LogId, path: &Path) -> Result<SnapshotReader, StorageError> {
        let file = File::open(path).saying("open", path)?;
        let mut file = BufReader::with_capacity(WRITE_BYTES, file);
        let mut header = [0; HEADER_BYTES];
        let bad = |why: String| StorageError::BadSnapshot { path: path.to_owned(), why };
        file.read_exact(&mut header).map_err(|error| bad(error.to_string()))?;
        let decoder = Decoder::new(&header).map_err(|wrong| bad(wrong.to_string()))?;
        if decoder.log != log {
            return Err(bad("it belongs to another log".to_owned()));
        }
        let at = decoder.at;
        let ready = Vec::new().into_iter();
        let mut entries = Entries { path: path.to_owned(), file, decoder, ready, ended: false };
        let mut fold = Vec::new();
        loop {
            match entries.piece()? {
                Piece::Fold(piece) => fold.extend_from_slice(&piece),
                Piece::Entries(ready) => {
                    entries.ready = ready.into_iter();
                    break;
                }
                Piece::End => {
                    entries.ended = true;
                    break;
                }
            }
        }
        Ok(SnapshotReader { at, fold: Bytes::from(fold), entries })
    }

    /// The keyed state, ascending. An error says that the snapshot is damaged: nothing of it counts.
    pub fn entries(self) -> impl Iterator<Item = Result<(Bytes, Bytes), StorageError>> {
        self.entries
    }
}

impl Entries {
    fn piece(&mut self) -> Result<Piece, StorageError> {
        let bad = |why: String| StorageError::BadSnapshot { path: self.path.clone(), why };
        let mut head = [0; CHUNK_HEAD_BYTES];
        self.file.read_exact(&mut head).map_err(|error| bad(error.to_string()))?;
        let head = self.decoder.head(&head).map_err(|wrong| bad(wrong.to_string()))?;
        let mut payload = vec![0; head.payload_bytes()];
        self.file.read_exact(&mut payload).map_err(|error| bad(error.to_string()))?;
        self.decoder.chunk(&head, &payload).map_err(|wrong| bad(wrong.to_string()))
    }
}

impl Iterator for Entries {
    type Item = Result<(Bytes, Bytes), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.ready.next() {
                return Some(Ok(entry));
            }
            if self.ended {
                return None;
            }
            match self.piece() {
                Ok(Piece::Entries(ready)) => self.ready = ready.into_iter(),
                Ok(Piece::End) => self.ended = true,
                Ok(Piece::Fold(_)) => {}
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// The newest snapshot that is whole from end to end; all others are removed when there is one.
pub(super) fn newest(log: LogId, folder: &Path) -> Result<Option<Position>, StorageError> {
    for seq in files::list(folder, files::SNAPSHOT)?.into_iter().rev() {
        let path = files::numbered(folder, seq, files::SNAPSHOT);
        let whole = SnapshotReader::open(log, &path).and_then(|snapshot| {
            let at = snapshot.at;
            snapshot.entries().try_for_each(|entry| entry.map(|_| ())).map(|()| at)
        });
        match whole {
            Ok(at) if at.seq == seq => {
                remove_others(folder, at)?;
                return Ok(Some(at));
            }
            Ok(_) => {
                tracing::warn!(%log, path = %path.display(), "a snapshot has another one's name; it is not used")
            }
            Err(error) => tracing::warn!(%log, %error, "a snapshot is not used"),
        }
    }
    Ok(None)
}

/// All but this one: older ones are of no use, and a later one was found damaged.
fn remove_others(folder: &Path, at: Position) -> Result<(), StorageError> {
    let mut others = files::list(folder, files::SNAPSHOT)?.into_iter().filter(|seq| *seq != at.seq);
    others.try_for_each(|seq| files::remove(&files::numbered(folder, seq, files::SNAPSHOT)))
}
