//! One log as its writer has it: records are staged, written, synced and published, and what failed
//! is mended before anything else is written.
//!
//! After a failed write the partial bytes are cut away. After a failed sync the kernel may have
//! thrown the bytes away and call the file clean: nothing unsynced of that segment is trusted again.
//! It ends at its last synced byte, older records that were not synced are written anew into a fresh
//! file, and the log goes on in a new segment.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dunlin_protocol::id::{LogId, Position, Seq};
use dunlin_protocol::limits::{FRAME_BYTES_MAX, SEGMENT_BYTES};
use dunlin_protocol::log::floor;
use dunlin_protocol::log::note::Note;
use dunlin_protocol::log::record::Record;
use dunlin_protocol::log::segment::{self, HEADER_BYTES, Header, Refused};
use dunlin_protocol::mesh::catalog::LogName;
use dunlin_protocol::pipeline::manifest::Durability;

use super::error::{Saying, StorageError};
use super::files;
use super::log_view::{Extent, LogView, Mark, SegmentView};
use super::recovery::{FLOOR, NAME, NOTE, encode_name};
use crate::crash::{self, Point};

/// A segment and a record more may be read of one file.
pub(super) const SEGMENT_FILE_BYTES_MAX: u64 = SEGMENT_BYTES + 4 * FRAME_BYTES_MAX as u64;

#[derive(Debug)]
pub(super) struct LogFile {
    log: LogId,
    pub view: Arc<LogView>,
    folder: PathBuf,
    /// The name of a log whose folder is still to be made.
    unborn: Option<LogName>,
    /// The name of one that was born since the writer looked last.
    pub born: Option<LogName>,
    /// What stands: the last record and the segment and offset behind it.
    head: Position,
    tail: Option<(Seq, u64)>,
    note: Note,
    /// Segments with bytes that are not synced, and whether a name in the folder is not.
    unsynced: BTreeSet<Seq>,
    folder_unsynced: bool,
    /// The next record begins a new segment.
    roll: bool,
    repair: Option<Repair>,
    open: Option<File>,
    note_open: Option<File>,
    staged: Staged,
    in_flight: Option<InFlight>,
    /// Persists of the group at hand whose completion is due.
    pub pending: u32,
    /// A persist failed; what was queued behind it and does not follow goes without a word.
    dropping: bool,
}

/// Records on their way into the file.
#[derive(Debug, Default)]
struct Staged {
    bytes: Vec<u8>,
    head: Position,
    marks: Vec<Mark>,
    /// The part in front that `memory` acknowledged already: it survives a failed write.
    early_bytes: usize,
    early_head: Position,
    durability: Option<Durability>,
}

/// Where the group at hand was written.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    first: Seq,
    end: u64,
    created: bool,
}

/// What a failure left to be put right before the next write.
#[derive(Debug, Default, Clone, Copy)]
struct Repair {
    /// A segment that holds nothing that stands.
    created: Option<Seq>,
    /// A note may be on the disk that says too much.
    note: bool,
    /// A sync failed.
    distrust: bool,
}

/// Why a persist was not staged.
#[derive(Debug)]
pub(super) enum NotStaged {
    /// It stood behind one that failed, whose completion told the core.
    Behind,
    Refused(String),
}

/// What recovery hands to the writer, all of it synced.
#[derive(Debug)]
pub(super) struct Standing {
    pub head: Position,
    pub tail: Option<(Seq, u64)>,
    pub note: Note,
}

impl LogFile {
    pub fn new(log: LogId, name: LogName, view: Arc<LogView>) -> LogFile {
        let standing = Standing { head: Position::START, tail: None, note: Note::new(log) };
        LogFile { unborn: Some(name), ..LogFile::recovered(log, view, standing) }
    }

    pub fn recovered(log: LogId, view: Arc<LogView>, standing: Standing) -> LogFile {
        let Standing { head, tail, note } = standing;
        LogFile {
            log,
            folder: view.folder.clone(),
            view,
            unborn: None,
            born: None,
            head,
            tail,
            note,
            unsynced: BTreeSet::new(),
            folder_unsynced: false,
            roll: false,
            repair: None,
            open: None,
            note_open: None,
            staged: Staged { head, early_head: head, ..Staged::default() },
            in_flight: None,
            pending: 0,
            dropping: false,
        }
    }

    /// Takes records into the group at hand. `early`: `memory` acknowledged them already.
    pub fn stage(
        &mut self,
        records: &[Record],
        durability: Durability,
        early: bool,
    ) -> Result<(), NotStaged> {
        if let Some(damage) = &self.view.extent().damage {
            return Err(NotStaged::Refused(damage.clone()));
        }
        let (bytes, marks, head) = (self.staged.bytes.len(), self.staged.marks.len(), self.staged.head);
        for record in records {
            let mark = Mark { at: self.staged.bytes.len() as u64, before: self.staged.head };
            match segment::encode_group(
                self.log,
                self.staged.head,
                std::slice::from_ref(record),
                &mut self.staged.bytes,
            ) {
                Ok(head) => {
                    Extent::mark(&mut self.staged.marks, mark);
                    self.staged.head = head;
                }
                Err(refused) => {
                    self.staged.bytes.truncate(bytes);
                    self.staged.marks.truncate(marks);
                    self.staged.head = head;
                    return Err(match refused {
                        Refused::NotNext { .. } if self.dropping => NotStaged::Behind,
                        Refused::NotNext { .. } | Refused::TooLong { .. } => NotStaged::Refused(format!(
                            "log {}: {refused}; this is a fault of the program",
                            self.log
                        )),
                    });
                }
            }
        }
        self.dropping = false;
        if early {
            self.staged.early_bytes = self.staged.bytes.len();
            self.staged.early_head = self.staged.head;
        } else {
            self.staged.durability = self.staged.durability.max(Some(durability));
            self.pending += 1;
        }
        Ok(())
    }

    pub fn staged_bytes(&self) -> usize {
        self.staged.bytes.len()
    }

    /// The first record that a failure of the group at hand would take back.
    pub fn first_at_risk(&self) -> Seq {
        self.staged.early_head.seq.next()
    }

    pub fn head(&self) -> Position {
        self.head
    }

    /// Its folder is still to be made.
    pub fn is_unborn(&self) -> bool {
        self.unborn.is_some()
    }

    /// The group at hand asked for a sync.
    pub fn syncs(&self) -> bool {
        self.staged.durability == Some(Durability::Disk)
    }

    pub fn has_open_files(&self) -> bool {
        self.open.is_some() || self.note_open.is_some()
    }

    pub fn close_files(&mut self) {
        self.open = None;
        self.note_open = None;
    }

    /// Writes what is staged, syncing nothing yet.
    pub fn write(&mut self) -> Result<(), StorageError> {
        self.be_born()?;
        self.mend()?;
        if self.staged.bytes.is_empty() {
            return Ok(());
        }
        crash::at(Point::BeforeWrite);
        let length = self.staged.bytes.len() as u64;
        let half = self.staged.bytes.get(..self.staged.bytes.len() / 2).unwrap_or_default();
        match self.tail {
            Some((first, end))
                if !self.roll && (end + length <= SEGMENT_BYTES || end <= HEADER_BYTES as u64) =>
            {
                self.in_flight = Some(InFlight { first, end: end + length, created: false });
                self.unsynced.insert(first);
                let path = files::numbered(&self.folder, first, files::SEGMENT);
                let mut file = match self.open.take() {
                    Some(file) => file,
                    None => OpenOptions::new().write(true).open(&path).saying("open", &path)?,
                };
                crash::halfway(Point::HalfWrite, || _ = files::write_at(&mut file, &path, end, half));
                files::write_at(&mut file, &path, end, &self.staged.bytes)?;
                self.open = Some(file);
            }
            _ => {
                let first = self.head.seq.next();
                let end = HEADER_BYTES as u64 + length;
                self.in_flight = Some(InFlight { first, end, created: true });
                self.unsynced.insert(first);
                self.folder_unsynced = true;
                let path = files::numbered(&self.folder, first, files::SEGMENT);
                let mut file = File::create(&path).saying("create", &path)?;
                let header = Header { log: self.log, after: self.head }.encode();
                files::write_at(&mut file, &path, 0, &header)?;
                crash::at(Point::HalfSegment);
                files::write_at(&mut file, &path, HEADER_BYTES as u64, &self.staged.bytes)?;
                self.open = Some(file);
            }
        }
        crash::at(Point::AfterWrite);
        Ok(())
    }

    /// Syncs what the group asked for, then makes it what stands.
    pub fn stand(&mut self) -> Result<(), StorageError> {
        if self.syncs() {
            self.sync()?;
        }
        self.publish();
        Ok(())
    }

    /// Syncs everything that stands, whatever its class. Nothing may be staged.
    pub fn sync_standing(&mut self) -> Result<(), StorageError> {
        self.mend()?;
        if self.unborn.is_some() || (self.note.position == self.head && self.unsynced.is_empty()) {
            return Ok(());
        }
        self.sync().inspect_err(|_| self.fail())
    }

    /// Takes the failed group back; what `memory` acknowledged stays staged for another try.
    pub fn fail(&mut self) {
        let created = self.in_flight.take().filter(|it| it.created).map(|it| it.first);
        let repair = self.repair.get_or_insert_default();
        repair.created = repair.created.or(created);
        self.staged.bytes.truncate(self.staged.early_bytes);
        self.staged.marks.retain(|mark| mark.before.seq < self.staged.early_head.seq);
        self.staged.head = self.staged.early_head;
        self.staged.durability = None;
        self.dropping = true;
        self.pending = 0;
        self.view.failing.store(true, Ordering::Release);
        if let Err(error) = self.mend() {
            tracing::warn!(log = %self.log, %error, "a failed write could not be taken back yet; nothing is written until it is");
        }
    }

    /// Removes whole segments before `before`. The note comes first, so that it never names a
    /// segment that is gone; then the floor, so that none is missed that was removed.
    pub fn truncate(&mut self, before: Seq) -> Result<(), StorageError> {
        self.sync_standing()?;
        let (count, floor) = {
            let extent = self.view.extent();
            let covered = extent.snapshot.map_or(Seq(0), |at| at.seq);
            let before = before.min(covered.next());
            let gone = |pair: &&[SegmentView]| matches!(pair, [_, next] if next.first <= before);
            let count = extent.segments.windows(2).filter(gone).count();
            (count, extent.segments.get(count).map(|segment| segment.first))
        };
        let Some(floor) = floor.filter(|_| count > 0) else { return Ok(()) };
        self.write_floor(floor)?;
        crash::at(Point::BeforeTruncate);
        let gone: Vec<Seq> =
            self.view.extent().segments.drain(..count).map(|segment| segment.first).collect();
        for first in gone {
            self.unsynced.remove(&first);
            files::remove(&files::numbered(&self.folder, first, files::SEGMENT))?;
            crash::at(Point::AfterTruncate);
        }
        Ok(())
    }

    /// Makes the folder, the name and the first note; they are synced whatever the log's class is.
    fn be_born(&mut self) -> Result<(), StorageError> {
        let Some(name) = &self.unborn else { return Ok(()) };
        fs::create_dir_all(&self.folder).saying("create", &self.folder)?;
        let (_, note) = self.note.encode();
        files::put(&self.folder.join(NOTE), &note)?;
        self.write_floor(Seq(1))?;
        crash::at(Point::HalfBorn);
        files::put(&self.folder.join(NAME), &encode_name(name))?;
        self.folder.parent().map_or(Ok(()), files::sync_folder)?;
        self.born = self.unborn.take();
        Ok(())
    }

    fn write_floor(&self, first: Seq) -> Result<(), StorageError> {
        files::put(&self.folder.join(FLOOR), &floor::encode(self.log, first))
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        let written = self.in_flight.map(|it| (it.first, it.end)).or(self.tail);
        let Some((last, end)) = written else { return Ok(()) };
        let position = if self.in_flight.is_some() { self.staged.head } else { self.head };
        // Until all of it is done, a failure means that nothing unsynced is trusted.
        self.repair = Some(Repair { distrust: true, ..Repair::default() });
        for first in &self.unsynced {
            let path = files::numbered(&self.folder, *first, files::SEGMENT);
            match &self.open {
                Some(file) if *first == last => files::sync(file, &path)?,
                _ => files::sync(&File::open(&path).saying("open", &path)?, &path)?,
            }
        }
        if self.folder_unsynced {
            files::sync_folder(&self.folder)?;
        }
        crash::at(Point::AfterSync);
        self.repair = Some(Repair { distrust: true, note: true, ..Repair::default() });
        let note = self.note.next(last, end, position);
        self.write_note(note)?;
        crash::at(Point::AfterNote);
        self.repair = None;
        self.unsynced.clear();
        self.folder_unsynced = false;
        Ok(())
    }

    fn write_note(&mut self, note: Note) -> Result<(), StorageError> {
        let path = self.folder.join(NOTE);
        let mut file = match self.note_open.take() {
            Some(file) => file,
            None => OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .saying("open", &path)?,
        };
        let (at, bytes) = note.encode();
        let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
        crash::halfway(Point::HalfNote, || _ = files::write_at(&mut file, &path, at, half));
        files::write_at(&mut file, &path, at, &bytes)?;
        files::sync(&file, &path)?;
        self.note_open = Some(file);
        self.note = note;
        Ok(())
    }

    /// The group stands: readers may see it.
    fn publish(&mut self) {
        let Some(InFlight { first, end, created }) = self.in_flight.take() else { return };
        {
            let mut extent = self.view.extent();
            if created {
                let mark = Mark { at: HEADER_BYTES as u64, before: self.head };
                extent.segments.push(SegmentView { first, end, marks: vec![mark] });
            }
            let base = end - self.staged.bytes.len() as u64;
            if let Some(segment) = extent.segments.last_mut() {
                segment.end = end;
                for mark in self.staged.marks.drain(..) {
                    Extent::mark(&mut segment.marks, Mark { at: base + mark.at, before: mark.before });
                }
            }
            extent.head = self.staged.head;
        }
        self.head = self.staged.head;
        self.tail = Some((first, end));
        self.roll = false;
        self.view.behind_bytes.fetch_sub(self.staged.early_bytes as u64, Ordering::AcqRel);
        self.view.failing.store(false, Ordering::Release);
        self.staged.bytes.clear();
        self.staged.bytes.shrink_to(1 << 20);
        self.staged.marks.clear();
        self.staged.early_bytes = 0;
        self.staged.early_head = self.head;
        self.staged.durability = None;
    }

    /// Puts right what a failure left. Until it succeeds nothing is written.
    fn mend(&mut self) -> Result<(), StorageError> {
        let Some(repair) = self.repair else { return Ok(()) };
        self.close_files();
        if repair.note {
            // Over the same slot, so that the other one, which is right, stays untouched.
            let note = Note { generation: self.note.generation + 1, ..self.note };
            self.write_note(note)?;
        }
        if let Some(first) = repair.created {
            files::remove(&files::numbered(&self.folder, first, files::SEGMENT))?;
            self.unsynced.remove(&first);
        }
        if let Some((first, end)) = self.tail {
            let path = files::numbered(&self.folder, first, files::SEGMENT);
            if fs::metadata(&path).saying("look at", &path)?.len() > end {
                files::cut(&path, end)?;
            }
            if self.note.segment == first && self.note.end == end {
                self.unsynced.remove(&first);
            }
        }
        if repair.distrust {
            for first in self.unsynced.clone() {
                self.write_anew(first)?;
                self.unsynced.remove(&first);
            }
            self.roll = true;
        }
        self.repair = None;
        Ok(())
    }

    /// Records of a distrusted segment that stand but were never synced, copied into a fresh file
    /// after a look at each. If they are not there any more, the log is damaged, and that is said.
    fn write_anew(&mut self, first: Seq) -> Result<(), StorageError> {
        let path = files::numbered(&self.folder, first, files::SEGMENT);
        let bytes = files::read_bounded(&path, SEGMENT_FILE_BYTES_MAX)?;
        if let Err(wrong) = segment::verify(self.log, &bytes) {
            let why = format!(
                "log {} lost records of segment {} to a failed sync: {wrong}; restart the node to see what is left",
                self.log, first.0
            );
            self.view.extent().damage = Some(why.clone());
            return Err(StorageError::Damaged(why));
        }
        files::put(&path, &bytes)
    }
}
