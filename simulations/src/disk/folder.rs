//! One log's files, and its writer's memory of them. The same steps as a node's `log_file.rs`: stage,
//! write, sync, note, publish; after a failed write the partial bytes are cut away, after a failed
//! sync nothing unsynced of that segment is trusted and the log goes on in a new one.

use std::collections::BTreeMap;

use dunlin_protocol::id::{LogId, Position, Seq};
use dunlin_protocol::limits::UNPERSISTED_BYTES_MAX;
use dunlin_protocol::log::note::Note;
use dunlin_protocol::log::record::Record;
use dunlin_protocol::log::segment::{self, HEADER_BYTES, Header, Refused, frame_bytes};
use dunlin_protocol::mesh::catalog::LogName;
use dunlin_protocol::pipeline::manifest::Durability;

use super::file::File;

#[derive(Debug, Clone)]
pub struct Folder {
    log: LogId,
    pub name: LogName,
    /// The note file: written and synced in one step.
    pub(super) note_file: Vec<u8>,
    pub(super) segments: BTreeMap<Seq, File>,
    /// The floor file: put in place whole, and synced.
    pub(super) floor: Seq,
    /// Removed, and the folder not synced since: a loss of power may bring the last of them back.
    pub(super) unlinked: Vec<(Seq, File)>,
    pub(super) snapshots: BTreeMap<Seq, Vec<u8>>,
    pub(super) writer: Writer,
    /// Persists of the group at hand and of the queue whose completion is due.
    pub(super) outstanding: u32,
}

/// What the process knows: gone with it.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    /// What stands: the last record, and the segment and offset behind it.
    pub head: Position,
    pub tail: Option<(Seq, u64)>,
    pub note: Note,
    /// The next record begins a new segment.
    pub roll: bool,
    /// A persist failed; what was queued behind it and does not follow goes without a word.
    pub dropping: bool,
    /// Damaged: neither written nor read.
    pub damage: Option<String>,
    pub staged: Staged,
    pub in_flight: Option<InFlight>,
}

/// Records on their way into the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Staged {
    pub bytes: Vec<u8>,
    pub head: Position,
    /// The part in front that `memory` acknowledged already: it survives a failed write.
    pub early_bytes: usize,
    pub early_head: Position,
    pub durability: Option<Durability>,
    pub pending: u32,
}

/// Where the group at hand was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct InFlight {
    pub first: Seq,
    pub from: u64,
}

pub(super) enum NotStaged {
    /// It stood behind one that failed, whose completion told the core.
    Behind,
    Refused(String),
}

/// How a log's part of a group ended.
pub(super) enum Stood {
    /// Nobody waits for it.
    Nothing,
    Upto(Seq),
    Failed {
        from: Seq,
        full: bool,
    },
}

impl Writer {
    pub fn at(head: Position, tail: Option<(Seq, u64)>, note: Note, damage: Option<String>) -> Writer {
        Writer {
            head,
            tail,
            note,
            roll: false,
            dropping: false,
            damage,
            staged: Staged { head, early_head: head, ..Staged::default() },
            in_flight: None,
        }
    }
}

impl Folder {
    pub(super) fn new(log: LogId, name: LogName) -> Folder {
        let note = Note::new(log);
        let (_, note_file) = note.encode();
        Folder {
            log,
            name,
            note_file,
            segments: BTreeMap::new(),
            floor: Seq(1),
            unlinked: Vec::new(),
            snapshots: BTreeMap::new(),
            writer: Writer::at(Position::START, None, note, None),
            outstanding: 0,
        }
    }

    pub(super) fn id(&self) -> LogId {
        self.log
    }

    pub fn head(&self) -> Position {
        self.writer.head
    }

    pub fn damage(&self) -> Option<&String> {
        self.writer.damage.as_ref()
    }

    pub fn bytes(&self) -> u64 {
        self.segments.values().map(File::len).sum()
    }

    pub fn first(&self) -> Seq {
        self.segments.keys().next().copied().unwrap_or(self.writer.head.seq.next())
    }

    pub(super) fn is_behind(&self) -> bool {
        !self.writer.staged.bytes.is_empty()
    }

    pub(super) fn may_answer_early(&self, records: &[Record]) -> bool {
        let staged = self.writer.staged.bytes.len();
        let bytes: usize = records.iter().map(frame_bytes).sum();
        self.outstanding == 0
            && !self.writer.dropping
            && self.writer.damage.is_none()
            && staged + bytes <= UNPERSISTED_BYTES_MAX
    }

    pub(super) fn stage(
        &mut self,
        records: &[Record],
        durability: Durability,
        early: bool,
    ) -> Result<(), NotStaged> {
        let Writer { staged, dropping, damage, .. } = &mut self.writer;
        if !early {
            self.outstanding = self.outstanding.saturating_sub(1);
        }
        if let Some(damage) = damage {
            return Err(NotStaged::Refused(damage.clone()));
        }
        match segment::encode_group(self.log, staged.head, records, &mut staged.bytes) {
            Ok(head) => staged.head = head,
            Err(Refused::NotNext { .. }) if *dropping => return Err(NotStaged::Behind),
            Err(refused) => panic!("the core's records of log {} do not follow: {refused}", self.log),
        }
        *dropping = false;
        if early {
            staged.early_bytes = staged.bytes.len();
            staged.early_head = staged.head;
        } else {
            staged.durability = staged.durability.max(Some(durability));
            staged.pending += 1;
            self.outstanding += 1;
        }
        Ok(())
    }

    /// What is staged goes into a file, unsynced.
    pub(super) fn write(&mut self, segment_bytes: u64) {
        let Writer { staged, tail, roll, head, in_flight, .. } = &mut self.writer;
        let length = staged.bytes.len() as u64;
        let fits = |end: u64| end + length <= segment_bytes || end <= HEADER_BYTES as u64;
        let (first, from) = match *tail {
            Some((first, end)) if !*roll && fits(end) => (first, end),
            Some(_) | None => {
                let first = head.seq.next();
                let header = Header { log: self.log, after: *head }.encode();
                self.segments.insert(first, File::with(&header));
                (first, 0)
            }
        };
        let file = self.segments.get_mut(&first).expect("the tail is a file");
        file.bytes.extend_from_slice(&staged.bytes);
        *in_flight = Some(InFlight { first, from });
    }

    /// Syncs what the group asked for, then makes it what stands.
    pub(super) fn stand(&mut self, failing: &mut impl FnMut() -> bool) -> Stood {
        let staged = &self.writer.staged;
        let (waiting, from) = (staged.pending, staged.early_head.seq.next());
        let Some(InFlight { first, .. }) = self.writer.in_flight else {
            return self.fail(waiting, from, true);
        };
        let end = self.segments.get(&first).map_or(0, File::len);
        if self.writer.staged.durability == Some(Durability::Disk) {
            if failing() {
                return self.fail(waiting, from, false);
            }
            self.sync(first, end, self.writer.staged.head);
        }
        let writer = &mut self.writer;
        writer.head = writer.staged.head;
        writer.tail = Some((first, end));
        writer.roll = false;
        writer.in_flight = None;
        writer.staged = Staged { head: writer.head, early_head: writer.head, ..Staged::default() };
        self.outstanding -= waiting;
        if waiting == 0 { Stood::Nothing } else { Stood::Upto(self.writer.head.seq) }
    }

    /// Everything that stands is synced and noted.
    pub(super) fn sync_standing(&mut self) {
        if let Some((first, end)) = self.writer.tail
            && self.writer.note.position != self.writer.head
        {
            self.sync(first, end, self.writer.head);
        }
    }

    fn sync(&mut self, first: Seq, end: u64, position: Position) {
        self.segments.values_mut().for_each(File::sync);
        self.unlinked.clear();
        let note = self.writer.note.next(first, end, position);
        self.write_note(&note);
        self.writer.note = note;
    }

    pub(super) fn write_note(&mut self, note: &Note) {
        let (at, bytes) = note.encode();
        let end = at as usize + bytes.len();
        if self.note_file.len() < end {
            self.note_file.resize(end, 0);
        }
        self.note_file[at as usize..end].copy_from_slice(&bytes);
    }

    /// Takes the group back; what `memory` acknowledged stays staged for another try.
    fn fail(&mut self, waiting: u32, from: Seq, full: bool) -> Stood {
        let writer = &mut self.writer;
        if let Some(InFlight { first, from }) = writer.in_flight.take() {
            match from {
                0 => {
                    self.segments.remove(&first);
                }
                _ => {
                    if let Some(file) = self.segments.get_mut(&first) {
                        file.cut(from);
                    }
                }
            }
        }
        if !full {
            // What stands and was not synced is written anew into fresh files.
            self.segments.values_mut().for_each(File::sync);
            writer.roll = true;
        }
        let staged = &mut writer.staged;
        staged.bytes.truncate(staged.early_bytes);
        staged.head = staged.early_head;
        staged.durability = None;
        staged.pending = 0;
        writer.dropping = true;
        self.outstanding -= waiting;
        if waiting == 0 { Stood::Nothing } else { Stood::Failed { from, full } }
    }

    /// Removes whole segments before `before`; a snapshot covers them.
    pub(super) fn truncate(&mut self, before: Seq) {
        self.sync_standing();
        let firsts: Vec<Seq> = self.segments.keys().copied().collect();
        self.floor = firsts.iter().copied().filter(|first| *first <= before).max().unwrap_or(self.floor);
        for pair in firsts.windows(2) {
            let [first, next] = *pair else { continue };
            if next <= before
                && let Some(file) = self.segments.remove(&first)
            {
                self.unlinked.push((first, file));
            }
        }
    }

    pub(super) fn read(&self, from: Seq, bytes_max: usize) -> Result<Vec<Record>, String> {
        if from < self.first() {
            return Err(format!("records before {} are no longer kept", self.first().0));
        }
        let begin = self.segments.range(..=from).next_back().map_or(from, |(first, _)| *first);
        let (mut records, mut bytes) = (Vec::new(), 0);
        for (first, file) in self.segments.range(begin..) {
            let wrong = |why| format!("log {} cannot be read in segment {}: {why}", self.log, first.0);
            let header = Header::decode(&file.bytes).map_err(wrong)?;
            let (mut at, mut head) = (HEADER_BYTES, header.after);
            while head.seq < self.writer.head.seq && at < file.bytes.len() {
                if bytes > bytes_max {
                    return Ok(records);
                }
                let framed =
                    segment::decode_frame(self.log, head, &file.bytes[at..], at as u64).map_err(wrong)?;
                (at, head) = (framed.end as usize, framed.position);
                if head.seq >= from {
                    bytes += framed.body.len();
                    records.push(framed.record());
                }
            }
        }
        Ok(records)
    }
}
