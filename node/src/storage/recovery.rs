//! Recovery: every log's files are read through the core's recovery, mended as it says (torn tails are
//! cut, what was found unsynced is synced, damage is left as it is), and what remains is told to the
//! core, a chunk at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dunlin_protocol::effect::{Input, RecoveredLog};
use dunlin_protocol::id::{LogId, Position, Seq};
use dunlin_protocol::log::floor::FLOOR_BYTES;
use dunlin_protocol::log::note::{FILE_BYTES_MAX, Note};
use dunlin_protocol::log::record::Record;
use dunlin_protocol::log::recovery::{Found as FoundSegment, LogRecovery, Mend, Recovered};
use dunlin_protocol::mesh::catalog::LogName;
use dunlin_protocol::pipeline::manifest::Durability;
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
pub(super) const FLOOR: &str = "floor";
/// A log of this ending is whole and takes the place of the damaged one of its name.
const WHOLE: &str = "whole";
/// So many records of a log that is written anew are staged at once.
const REPLACED_AT_ONCE: usize = 256;
/// A name file: two copies of a few names of at most 63 characters.
const NAME_BYTES_MAX: u64 = 64 << 10;
/// One `Input::Replay`.
const REPLAY_BYTES: usize = 4 << 20;

/// What the disk holds, to be told to the core before `Input::Start`. Only one chunk of one log is in
/// memory at a time.
#[derive(Debug)]
pub struct Recovery {
    found: Vec<Found>,
    /// Logs whose folders are gone, and a sentence for each.
    missing: Vec<(LogName, String)>,
    reader: LogReader,
}

#[derive(Debug)]
pub(super) struct Found {
    pub log: LogId,
    pub name: LogName,
}

impl Recovery {
    pub(super) fn new(found: Vec<Found>, missing: Vec<(LogName, String)>, reader: LogReader) -> Recovery {
        Recovery { found, missing, reader }
    }

    /// All logs on the disk.
    pub fn logs(&self) -> BTreeSet<LogId> {
        self.found.iter().map(|found| found.log).collect()
    }

    /// For each log `Input::Recovered`, then its records behind the snapshot in `Input::Replay`s of
    /// about 4 MiB. Blocks on the disk.
    pub fn for_each(self, on_input: &mut dyn FnMut(Input)) -> Result<(), StorageError> {
        for Found { log, name } in self.found {
            self.reader.recovered(log, name, on_input)?;
        }
        for (name, damage) in self.missing {
            on_input(Input::Recovered(RecoveredLog {
                name,
                head: Position::START,
                first: Seq(1),
                snapshot: None,
                bytes: 0,
                damage: Some(damage),
                noted: None,
            }));
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
            noted: extent.noted,
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

/// Puts a log of these records in the place of a damaged one. It is made beside it and takes its place by
/// its name, so that a crash leaves the one or the other (`finish_replacing`).
pub(super) fn replace(
    log: LogId,
    folder: &Path,
    records: &[Record],
) -> Result<(Extent, Standing), StorageError> {
    let name = name_of(log, folder)?.ok_or(StorageError::NoLog(log))?;
    let beside = files::temporary(folder);
    files::remove_folder(&beside)?;
    let view = LogView::new(beside.clone(), Extent::default());
    let mut file = LogFile::new(log, name, Arc::new(view));
    for some in records.chunks(REPLACED_AT_ONCE) {
        let staged = file.stage(some, Durability::Disk, false);
        staged.map_err(|refused| {
            StorageError::Damaged(format!("log {log} cannot be written anew: {refused:?}"))
        })?;
        file.write()?;
        file.stand()?;
    }
    let whole = folder.with_extension(WHOLE);
    fs::rename(&beside, &whole).saying("rename", &beside)?;
    put_in_place(folder, &whole)?;
    recover_log(log, folder)
}

/// What a crash interrupted is done: new logs that are whole take the places of damaged ones.
fn finish_replacing(logs: &Path) -> Result<(), StorageError> {
    for whole in folders(logs)?.iter().filter(|folder| folder.extension().is_some_and(|it| it == WHOLE)) {
        put_in_place(&whole.with_extension(""), whole)?;
    }
    Ok(())
}

fn put_in_place(folder: &Path, whole: &Path) -> Result<(), StorageError> {
    let sync_names = || folder.parent().map_or(Ok(()), files::sync_folder);
    sync_names()?;
    let old = files::temporary(folder);
    if folder.exists() {
        files::remove_folder(&old)?;
        fs::rename(folder, &old).saying("rename", folder)?;
    }
    fs::rename(whole, folder).saying("rename", whole)?;
    sync_names()?;
    files::remove_folder(&old)
}

fn folders(logs: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(logs).saying("list", logs)? {
        folders.push(entry.saying("list", logs)?.path());
    }
    folders.sort_unstable();
    Ok(folders)
}

/// Scans all logs below the folder; each is in `logs` afterwards, and open for writing unless damaged.
pub(super) fn recover(logs: &Logs) -> Result<(Vec<Found>, Writing), StorageError> {
    let (mut found, mut writing) = (Vec::new(), Writing::new());
    finish_replacing(&logs.folder)?;
    for folder in folders(&logs.folder)? {
        if folder.extension().is_some_and(|it| it == "tmp") {
            // A removal that was interrupted, or the making of a new log in a damaged one's place.
            files::remove_folder(&folder)?;
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
        "{} is damaged: nothing says whose log this is; restore it from a copy; without one, move the folder {} away: the node then runs without that log, and 'dunlin status' says whose it was",
        path.display(),
        folder.display()
    )))
}

fn recover_log(log: LogId, folder: &Path) -> Result<(Extent, Standing), StorageError> {
    let snapshot = snapshots::newest(log, folder)?;
    let path = folder.join(NOTE);
    let note = if path.exists() { files::read_bounded(&path, FILE_BYTES_MAX as u64)? } else { Vec::new() };
    let path = folder.join(FLOOR);
    let floor = if path.exists() { files::read_bounded(&path, FLOOR_BYTES as u64)? } else { Vec::new() };
    let mut recovery = LogRecovery::new(log, &note, &floor, snapshot.unwrap_or_default());
    if !recovery.has_note() {
        tracing::warn!(%log, "the note of the last synced end is damaged: everything on the disk counts as synced");
    }
    let mut marks: BTreeMap<Seq, Vec<Mark>> = BTreeMap::new();
    for first in files::list(folder, files::SEGMENT)? {
        let bytes =
            files::read_bounded(&files::numbered(folder, first, files::SEGMENT), SEGMENT_FILE_BYTES_MAX)?;
        let marks = marks.entry(first).or_default();
        let mut last: Option<Position> = None;
        recovery.segment(first, &bytes, &mut |framed| {
            let seq = Seq(framed.position.seq.0.saturating_sub(1));
            // Only the sequence and the hash of a mark are used; the epoch of the record before is
            // known for all but a segment's first.
            let epoch = last.map_or(framed.position.epoch, |last| last.epoch);
            let before = Position { epoch, seq, hash: framed.previous };
            Extent::mark(marks, Mark { at: framed.at, before });
            last = Some(framed.position);
        });
    }
    let found = recovery.finish();
    if let Some(damage) = &found.damage {
        tracing::error!(%log, "{damage}");
    }
    if found.torn_bytes > 0 {
        tracing::warn!(%log, bytes = found.torn_bytes, "a torn tail was cut; none of it was synced");
    }
    let note = mend(log, folder, &found)?;
    let segments: Vec<SegmentView> = found
        .segments
        .iter()
        .map(|FoundSegment { first, end }| {
            let marks = marks.remove(first).unwrap_or_default();
            SegmentView { first: *first, end: *end, marks }
        })
        .collect();
    let tail = segments.last().map(|segment| (segment.first, segment.end));
    let standing = Standing { head: found.head, tail, note };
    let Recovered { head, damage, noted, .. } = found;
    Ok((Extent { segments, head, snapshot, damage, noted }, standing))
}

/// Makes the files what was believed of them. Gives the note that stands then.
fn mend(log: LogId, folder: &Path, found: &Recovered) -> Result<Note, StorageError> {
    let path = |segment: Seq| files::numbered(folder, segment, files::SEGMENT);
    let mut noted = found.note;
    for mend in &found.mends {
        match *mend {
            Mend::Cut { segment, bytes } => files::cut(&path(segment), bytes)?,
            Mend::Remove { segment } => files::remove(&path(segment))?,
            Mend::Sync { segment } => {
                let path = path(segment);
                files::sync(&File::open(&path).saying("open", &path)?, &path)?;
            }
            Mend::SyncFolder => files::sync_folder(folder)?,
            // What was found is synced either way. Without the note, a tail that tears later is cut
            // further back, but nothing is acknowledged before the next sync has noted it.
            Mend::Note(note) => match write_note(folder, &note) {
                Ok(()) => noted = note,
                Err(error) => tracing::warn!(%log, %error, "the note of the synced end could not be written"),
            },
        }
    }
    Ok(noted)
}

fn write_note(folder: &Path, note: &Note) -> Result<(), StorageError> {
    let path = folder.join(NOTE);
    let options = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let mut file = options.saying("open", &path)?;
    let (at, bytes) = note.encode();
    files::write_at(&mut file, &path, at, &bytes)?;
    files::sync(&file, &path)
}
