//! Recovery: every log's files are read through the scan, torn tails are cut, damage is left as it
//! is, and what remains is told to the core, a chunk at a time.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use dunlin_protocol::effect::{Input, RecoveredLog};
use dunlin_protocol::id::{LogId, Position, Seq};
use dunlin_protocol::log::note::{FILE_BYTES_MAX, Note, Noted};
use dunlin_protocol::log::scan::{LogScan, Scanned, Verdict};
use dunlin_protocol::log::segment::HEADER_BYTES;
use dunlin_protocol::mesh::catalog::LogName;
use dunlin_protocol::wire::codec;

use super::error::{Saying, StorageError};
use super::files;
use super::log_file::{LogFile, SEGMENT_FILE_BYTES_MAX, Standing};
use super::log_view::{Extent, LogView, Logs, Mark, SegmentView};
use super::reader::LogReader;
use super::snapshots;
use super::store::Writing;

pub(super) const NAME: &str = "name";
pub(super) const NOTE: &str = "note";
/// A name file: two copies of a few names of at most 63 characters.
const NAME_BYTES_MAX: u64 = 64 << 10;
/// One `Input::Replay`.
const REPLAY_BYTES: usize = 4 << 20;

/// What the disk holds, to be told to the core before `Input::Start`. Only one chunk of one log is in
/// memory at a time.
#[derive(Debug)]
pub struct Recovery {
    found: Vec<Found>,
    reader: LogReader,
}

#[derive(Debug)]
pub(super) struct Found {
    log: LogId,
    name: LogName,
}

impl Recovery {
    pub(super) fn new(found: Vec<Found>, reader: LogReader) -> Recovery {
        Recovery { found, reader }
    }

    /// For each log `Input::Recovered`, then its records behind the snapshot in `Input::Replay`s of
    /// about 4 MiB. Blocks on the disk.
    pub fn for_each(self, on_input: &mut dyn FnMut(Input)) -> Result<(), StorageError> {
        for Found { log, name } in self.found {
            self.reader.recovered(log, name, on_input)?;
        }
        Ok(())
    }
}

impl LogReader {
    fn recovered(
        &self,
        log: LogId,
        name: LogName,
        on_input: &mut dyn FnMut(Input),
    ) -> Result<(), StorageError> {
        let snapshot = self.snapshot(log)?.map(|snapshot| (snapshot.at, snapshot.fold));
        let extent = self.extent(log)?;
        let covered = snapshot.as_ref().map_or(Seq(0), |(at, _)| at.seq);
        let (head, first) = (extent.head, self.first(log)?);
        on_input(Input::Recovered(RecoveredLog {
            name,
            head,
            first,
            snapshot,
            bytes: extent.bytes(),
            damage: extent.damage,
        }));
        let mut next = covered.next();
        while next <= head.seq {
            let records = self.read(log, next, REPLAY_BYTES)?;
            let Some(last) = records.last() else { break };
            next = last.seq.next();
            on_input(Input::Replay { log, records });
        }
        Ok(())
    }
}

/// The name file: two copies, each behind its digest, since a log without a name is lost to the core.
pub(super) fn encode_name(name: &LogName) -> Vec<u8> {
    let encoded = codec::encode(name);
    let mut copy = blake3::hash(&encoded).as_bytes().to_vec();
    copy.extend_from_slice(&encoded);
    let length = u32::try_from(copy.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&copy);
    bytes.extend_from_slice(&copy);
    bytes
}

fn decode_name(log: LogId, bytes: &[u8]) -> Option<LogName> {
    // The length is the only field that stands once; half of the rest is as good.
    let copies = bytes.get(4..)?;
    let (one, two) = copies.split_at_checked(copies.len() / 2)?;
    [one, two].into_iter().find_map(|copy| {
        let (digest, encoded) = copy.split_first_chunk::<32>()?;
        let name: LogName = codec::decode(encoded).ok()?;
        (blake3::hash(encoded).as_bytes() == digest && name.id() == log).then_some(name)
    })
}

/// Scans all logs below the folder; each is in `logs` afterwards, and open for writing unless damaged.
pub(super) fn recover(logs: &Logs) -> Result<(Vec<Found>, Writing), StorageError> {
    let (mut found, mut writing) = (Vec::new(), Writing::new());
    let mut folders = Vec::new();
    for entry in fs::read_dir(&logs.folder).saying("list", &logs.folder)? {
        folders.push(entry.saying("list", &logs.folder)?.path());
    }
    folders.sort_unstable();
    for folder in folders {
        if folder.extension().is_some_and(|it| it == "tmp") {
            // A removal that was interrupted.
            fs::remove_dir_all(&folder).saying("remove", &folder)?;
            continue;
        }
        let log = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let Some(log) = log else {
            tracing::warn!(folder = %folder.display(), "this is no log; it is left as it is");
            continue;
        };
        let Some(name) = name_of(log, &folder)? else { continue };
        let (extent, standing) = recover_log(log, &folder)?;
        let view = Arc::new(LogView::new(folder, extent));
        logs.insert(log, view.clone());
        writing.insert(log, LogFile::recovered(log, view, standing));
        found.push(Found { log, name });
    }
    Ok((found, writing))
}

/// The log's name. A folder without one whose making was interrupted is removed; any other is left.
fn name_of(log: LogId, folder: &Path) -> Result<Option<LogName>, StorageError> {
    files::remove_temporary(folder)?;
    let path = folder.join(NAME);
    let exists = path.exists();
    if exists && let Some(name) = decode_name(log, &files::read_bounded(&path, NAME_BYTES_MAX)?) {
        return Ok(Some(name));
    }
    if !exists && files::list(folder, files::SEGMENT)?.is_empty() {
        fs::remove_dir_all(folder).saying("remove", folder)?;
        return Ok(None);
    }
    Err(StorageError::Damaged(format!(
        "{} is damaged: nothing says whose log this is; restore it from a copy, or move the folder {} away to go on without it",
        path.display(),
        folder.display()
    )))
}

fn recover_log(log: LogId, folder: &Path) -> Result<(Extent, Standing), StorageError> {
    let snapshot = snapshots::newest(log, folder)?;
    let path = folder.join(NOTE);
    let note = if path.exists() { files::read_bounded(&path, FILE_BYTES_MAX as u64)? } else { Vec::new() };
    let noted = Note::read(log, &note);
    if noted == Noted::Unreadable {
        tracing::warn!(%log, "the note of the last synced end is damaged: everything on the disk counts as synced");
    }
    let mut scan = LogScan::new(log, noted, snapshot.unwrap_or_default());
    let (mut segments, mut torn) = (Vec::new(), Vec::new());
    for first in files::list(folder, files::SEGMENT)? {
        let path = files::numbered(folder, first, files::SEGMENT);
        let bytes = files::read_bounded(&path, SEGMENT_FILE_BYTES_MAX)?;
        let mut marks = Vec::new();
        let mut last: Option<Position> = None;
        let mut end = HEADER_BYTES as u64;
        let verdict = scan.segment(first, &bytes, &mut |framed| {
            let seq = Seq(framed.position.seq.0.saturating_sub(1));
            // Only the sequence and the hash of a mark are used; the epoch of the record before is
            // known for all but a segment's first.
            let epoch = last.map_or(framed.position.epoch, |last| last.epoch);
            let before = Position { epoch, seq, hash: framed.previous };
            Extent::mark(&mut marks, Mark { at: framed.at, before });
            (last, end) = (Some(framed.position), framed.end);
        });
        if let Verdict::TornTail { valid_bytes } = verdict {
            torn.push((first, valid_bytes, bytes.len() as u64));
        }
        if last.is_some() {
            segments.push(SegmentView { first, end, marks });
        }
    }
    let scanned = scan.finish();
    if let Some(damage) = &scanned.damage {
        tracing::error!(%log, "{damage}");
    } else {
        cut_torn(log, folder, &torn)?;
    }
    let standing = standing(log, noted, &scanned, &segments, folder)?;
    let extent = Extent { segments, head: scanned.head, snapshot, damage: scanned.damage };
    Ok((extent, standing))
}

fn cut_torn(log: LogId, folder: &Path, torn: &[(Seq, u64, u64)]) -> Result<(), StorageError> {
    for (first, valid_bytes, length) in torn {
        let path = files::numbered(folder, *first, files::SEGMENT);
        let lost = length - valid_bytes;
        tracing::warn!(%log, segment = first.0, bytes = lost, "a torn tail was cut; none of it was synced");
        // A header alone holds nothing, and its segment would be made again under the same name.
        if *valid_bytes <= HEADER_BYTES as u64 {
            files::remove(&path)?;
        } else {
            files::cut(&path, *valid_bytes)?;
        }
    }
    if torn.is_empty() { Ok(()) } else { files::sync_folder(folder) }
}

/// Where writing goes on, and what of it is still to be synced.
fn standing(
    log: LogId,
    noted: Noted,
    scanned: &Scanned,
    segments: &[SegmentView],
    folder: &Path,
) -> Result<Standing, StorageError> {
    let tail = segments.last().map(|segment| (segment.first, segment.end));
    if scanned.damage.is_none() {
        // A whole segment with no record in it (a crash right behind its header) is made again.
        for first in files::list(folder, files::SEGMENT)? {
            if segments.iter().all(|segment| segment.first != first) {
                files::remove(&files::numbered(folder, first, files::SEGMENT))?;
            }
        }
    }
    let note = match noted {
        Noted::Known(note) => note,
        Noted::Unreadable => Note::new(log),
    };
    let is_synced = |segment: &SegmentView| (segment.first, segment.end) <= (note.segment, note.end);
    let unsynced = segments.iter().filter(|segment| !is_synced(segment)).map(|segment| segment.first);
    let unsynced = unsynced.collect();
    Ok(Standing { head: scanned.head, tail, note, unsynced })
}
