//! Recovery of one log: its files in, what is believed and what is to be mended first out.
//!
//! A crash leaves records behind that nobody has synced: they are found, but a loss of power a moment
//! later would take them. So nothing may count on them before they are synced: the mends end with
//! that and with a note of it, and only then is the core told of the log.
//!
//! A damaged log has no mends: not one byte of it is touched.

use alloc::string::String;
use alloc::vec::Vec;

use super::floor;
use super::note::{Note, Noted};
use super::scan::{LogScan, Scanned, Verdict};
use super::segment::{Framed, HEADER_BYTES};
use crate::id::{LogId, Position, Seq};
use crate::mutation::{Mutation, planted};

/// One step by which a log's files become what was believed of them; segments are named by their
/// first sequence number. In their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// The torn tail behind so many bytes goes.
    Cut {
        segment: Seq,
        bytes: u64,
    },
    /// Nothing in it is believed, or it holds no record: the file goes.
    Remove {
        segment: Seq,
    },
    Sync {
        segment: Seq,
    },
    /// Names of files that came or went are synced.
    SyncFolder,
    /// Everything found is synced: the note says so.
    Note(Note),
}

/// A segment with at least one believed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub first: Seq,
    /// The offset behind its last believed record.
    pub end: u64,
}

/// What recovery makes of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    pub head: Position,
    /// The first record that is kept; the one after `head` when there is none.
    pub first: Seq,
    pub segments: Vec<Found>,
    /// The note on the disk, before the mends.
    pub note: Note,
    /// Where the log was synced last, as far as its note can be read.
    pub noted: Option<Position>,
    /// A sentence when the log is damaged: it is neither written nor served.
    pub damage: Option<String>,
    pub mends: Vec<Mend>,
    /// How many bytes the mends cut away.
    pub torn_bytes: u64,
}

/// The recovery of one log: each segment in ascending order, then `finish`.
#[derive(Debug, Clone)]
pub struct LogRecovery {
    log: LogId,
    noted: Noted,
    scan: LogScan,
    segments: Vec<Found>,
    /// Segments to be cut or removed: believed bytes and length.
    torn: Vec<(Seq, u64, u64)>,
    empty: Vec<Seq>,
}

impl LogRecovery {
    /// `note` and `floor` are what those files hold, `covered` is what the newest whole snapshot covers.
    pub fn new(log: LogId, note: &[u8], floor: &[u8], covered: Position) -> LogRecovery {
        let noted = Note::read(log, note);
        let floor = floor::decode(log, floor).filter(|_| !planted(Mutation::ForgetFloor));
        LogRecovery {
            log,
            noted,
            scan: LogScan::new(log, noted, covered, floor),
            segments: Vec::new(),
            torn: Vec::new(),
            empty: Vec::new(),
        }
    }

    /// Whether the note file can be read; if not, everything on the disk counts as synced.
    pub fn has_note(&self) -> bool {
        self.noted != Noted::Unreadable
    }

    /// Judges the next segment and hands out its believed records.
    pub fn segment(&mut self, first: Seq, bytes: &[u8], on_record: &mut dyn FnMut(&Framed<'_>)) {
        let mut end = None;
        let verdict = self.scan.segment(first, bytes, &mut |framed| {
            end = Some(framed.end);
            on_record(framed);
        });
        if let Verdict::TornTail { valid_bytes } = verdict {
            self.torn.push((first, valid_bytes, bytes.len() as u64));
        }
        match (end, verdict) {
            (Some(end), _) => self.segments.push(Found { first, end }),
            // A crash right behind the header: the segment is made again under the same name.
            (None, Verdict::Whole) => self.empty.push(first),
            (None, Verdict::TornTail { .. } | Verdict::Damaged { .. }) => {}
        }
    }

    pub fn finish(self) -> Recovered {
        let LogRecovery { log, noted, scan, segments, torn, empty } = self;
        let Scanned { head, first, end: _, damage } = scan.finish();
        let damage = damage.filter(|_| !planted(Mutation::CutDamage));
        let (note, noted) = match noted {
            Noted::Known(note) => (note, Some(note.position)),
            Noted::Unreadable => (Note::new(log), None),
        };
        let mut mends = Vec::new();
        let mut torn_bytes = 0;
        if damage.is_none() {
            for (segment, bytes, length) in torn {
                torn_bytes += length - bytes;
                // A header alone holds nothing.
                mends.push(match bytes > HEADER_BYTES as u64 {
                    true => Mend::Cut { segment, bytes },
                    false => Mend::Remove { segment },
                });
            }
            mends.extend(empty.into_iter().map(|segment| Mend::Remove { segment }));
            let synced = |found: &Found| {
                (found.first, found.end) <= (note.segment, note.end) || planted(Mutation::TrustUnsynced)
            };
            let unsynced: Vec<&Found> = segments.iter().filter(|found| !synced(found)).collect();
            mends.extend(unsynced.iter().map(|found| Mend::Sync { segment: found.first }));
            if !mends.is_empty() {
                mends.push(Mend::SyncFolder);
            }
            if let Some(last) = segments.last().filter(|_| !unsynced.is_empty()) {
                mends.push(Mend::Note(note.next(last.first, last.end, head)));
            }
        }
        Recovered { head, first, segments, note, noted, damage, mends, torn_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;
    use crate::log::record::Record;
    use crate::log::segment::{Header, encode_group};
    use bytes::Bytes;

    const LOG: LogId = LogId([7; 16]);

    fn segment(records: u64) -> (Vec<u8>, Vec<(Position, u64)>) {
        let mut bytes = Header { log: LOG, after: Position::START }.encode().to_vec();
        let mut ends = Vec::new();
        let mut head = Position::START;
        for n in 0..records {
            let body = Bytes::from(alloc::vec![n as u8; 9]);
            let record = Record::new(Epoch(1), head.seq.next(), head.hash, body);
            head = encode_group(LOG, head, &[record], &mut bytes).unwrap();
            ends.push((head, bytes.len() as u64));
        }
        (bytes, ends)
    }

    /// Recovers one segment; the note stands behind so many records.
    fn recover(bytes: &[u8], noted: Option<(Position, u64)>) -> Recovered {
        let mut file = Note::new(LOG).encode().1;
        if let Some((position, end)) = noted {
            let (at, slot) = Note::new(LOG).next(Seq(1), end, position).encode();
            file.resize(at as usize, 0);
            file.extend_from_slice(&slot);
        }
        let mut recovery = LogRecovery::new(LOG, &file, &[], Position::START);
        recovery.segment(Seq(1), bytes, &mut |_| {});
        recovery.finish()
    }

    #[test]
    fn what_was_found_unsynced_is_synced_and_noted() {
        let (bytes, ends) = segment(3);
        let found = recover(&bytes, Some(ends[0]));
        let note = Note::new(LOG).next(Seq(1), ends[0].1, ends[0].0).next(Seq(1), ends[2].1, ends[2].0);
        assert_eq!(found.head, ends[2].0);
        assert_eq!(found.mends, [Mend::Sync { segment: Seq(1) }, Mend::SyncFolder, Mend::Note(note)]);
    }

    #[test]
    fn what_was_synced_needs_nothing() {
        let (bytes, ends) = segment(2);
        assert_eq!(recover(&bytes, Some(ends[1])).mends, []);
    }

    #[test]
    fn torn_tail_is_cut_before_the_rest_is_synced() {
        let (mut bytes, ends) = segment(2);
        bytes.truncate(bytes.len() - 1);
        let found = recover(&bytes, None);
        assert_eq!(found.mends.first(), Some(&Mend::Cut { segment: Seq(1), bytes: ends[0].1 }));
        assert_eq!(found.mends.get(1), Some(&Mend::Sync { segment: Seq(1) }));
        assert!(found.torn_bytes > 0);
    }

    #[test]
    fn damage_is_left_as_it_is() {
        let (mut bytes, ends) = segment(3);
        bytes[100] ^= 1;
        let found = recover(&bytes, Some(ends[2]));
        assert!(found.damage.is_some());
        assert_eq!(found.mends, []);
    }

    #[test]
    fn header_alone_goes() {
        let (bytes, _) = segment(0);
        assert_eq!(recover(&bytes, None).mends, [Mend::Remove { segment: Seq(1) }, Mend::SyncFolder]);
    }
}
