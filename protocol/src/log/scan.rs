//! The scan: a log's segments in, a verdict for each out. It decides what recovery may cut.
//!
//! What was synced is never cut, and what cannot be believed is never served:
//!
//! | where the first wrong byte is | verdict | what happens |
//! | --- | --- | --- |
//! | nowhere | `Whole` | |
//! | beyond the noted synced end | `TornTail` | the file is cut to `valid_bytes`; 0: it goes |
//! | before it, or a record or a segment is missing there | `Damaged` | the file stays as it is, the log is not written, nothing from there on is served |
//!
//! A segment behind a torn one follows nothing: it is a torn tail as a whole when no byte of it was
//! synced. One behind damage stays as it is.

use alloc::format;
use alloc::string::String;

use super::note::{Note, Noted};
use super::segment::{Framed, HEADER_BYTES, Header, Wrong, decode_frame};
use crate::id::{LogId, Position, Seq};

/// What is to be done with one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Whole,
    /// From `valid_bytes` on nothing was ever acknowledged as synced. 0: the whole file may go.
    TornTail {
        valid_bytes: u64,
    },
    Damaged {
        at: u64,
        why: Wrong,
    },
}

/// What the scan of a whole log found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// Where the believed part ends.
    pub head: Position,
    /// The first record that is kept; the one after `head` when there is none.
    pub first: Seq,
    /// The last believed segment, by its first sequence number, and its believed bytes.
    pub end: Option<(Seq, u64)>,
    /// A sentence when something before the synced end is not as it was written.
    pub damage: Option<String>,
}

/// The scan of one log: each segment in ascending order of its first sequence number, then `finish`.
#[derive(Debug, Clone)]
pub struct LogScan {
    log: LogId,
    noted: Noted,
    /// What the newest snapshot covers: segments before it may be gone.
    covered: Position,
    /// ... and none from this record on.
    floor: Seq,
    first: Option<Seq>,
    head: Position,
    end: Option<(Seq, u64)>,
    noted_segment_seen: bool,
    torn: bool,
    damage: Option<String>,
}

impl LogScan {
    /// `floor`: as the log's floor file has it, if it has one.
    pub fn new(log: LogId, noted: Noted, covered: Position, floor: Option<Seq>) -> LogScan {
        LogScan {
            log,
            noted,
            covered,
            floor: floor.unwrap_or(Seq(u64::MAX)),
            first: None,
            head: Position::START,
            end: None,
            noted_segment_seen: false,
            torn: false,
            damage: None,
        }
    }

    /// Judges the next segment, the one whose file is named `first`, and hands out its believed records.
    pub fn segment(&mut self, first: Seq, bytes: &[u8], on_record: &mut dyn FnMut(&Framed<'_>)) -> Verdict {
        if self.damage.is_some() {
            return Verdict::Damaged { at: 0, why: Wrong::Gap };
        }
        let length = bytes.len() as u64;
        let synced = self.synced_bytes(first, length);
        let (valid, wrong) =
            if self.torn { (0, Some(Wrong::Gap)) } else { self.frames(first, bytes, synced, on_record) };
        let verdict = match wrong {
            None => Verdict::Whole,
            Some(why @ (Wrong::SyncedEnd | Wrong::Snapshot)) => Verdict::Damaged { at: valid, why },
            Some(why) if valid < synced => Verdict::Damaged { at: valid, why },
            Some(_) => Verdict::TornTail { valid_bytes: valid },
        };
        match verdict {
            Verdict::Whole => {}
            Verdict::TornTail { .. } => self.torn = true,
            Verdict::Damaged { at, why } => self.damage = Some(self.sentence(first, at, why)),
        }
        if valid > 0 {
            self.first = self.first.or(Some(first));
            self.end = Some((first, valid));
        }
        verdict
    }

    /// What the log adds up to. Segments that are missing at its end are seen here.
    pub fn finish(mut self) -> Scanned {
        if let Noted::Known(note) = self.noted
            && note.end > 0
            && !self.noted_segment_seen
            && self.damage.is_none()
        {
            self.damage = Some(self.sentence(note.segment, 0, Wrong::Gap));
        }
        if self.head.seq < self.covered.seq && self.damage.is_none() {
            self.damage = Some(format!(
                "log {} ends at record {} but a snapshot covers record {}: records are missing; restore the data folder",
                self.log, self.head.seq.0, self.covered.seq.0
            ));
        }
        let first = self.first.unwrap_or(self.head.seq.next());
        Scanned { head: self.head, first, end: self.end, damage: self.damage }
    }

    /// How many of a segment's bytes were synced.
    fn synced_bytes(&mut self, first: Seq, length: u64) -> u64 {
        match self.noted {
            Noted::Unreadable => length,
            Noted::Known(Note { segment, end, .. }) => match first.cmp(&segment) {
                core::cmp::Ordering::Less => length.max(HEADER_BYTES as u64),
                core::cmp::Ordering::Equal => {
                    self.noted_segment_seen = true;
                    end
                }
                core::cmp::Ordering::Greater => 0,
            },
        }
    }

    /// Reads until the end or the first thing that is wrong: (believed bytes, what is wrong behind them).
    fn frames(
        &mut self,
        first: Seq,
        bytes: &[u8],
        synced: u64,
        on_record: &mut dyn FnMut(&Framed<'_>),
    ) -> (u64, Option<Wrong>) {
        let header = match Header::decode(bytes) {
            Ok(header) => header,
            Err(wrong) => return (0, Some(wrong)),
        };
        if let Err(wrong) = self.joins(first, &header) {
            return (0, Some(wrong));
        }
        self.head = header.after;
        let mut at = HEADER_BYTES as u64;
        loop {
            if let Some(wrong) = self.contradicted(first, at) {
                return (at, Some(wrong));
            }
            let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
            if rest.is_empty() {
                // Records end cleanly; short of the synced end, some are missing.
                return (at, (at < synced).then_some(Wrong::Short));
            }
            match decode_frame(self.log, self.head, rest, at) {
                Ok(framed) => {
                    if at < synced && framed.end > synced {
                        return (at, Some(Wrong::SyncedEnd));
                    }
                    self.head = framed.position;
                    at = framed.end;
                    on_record(&framed);
                }
                Err(wrong) => return (at, Some(wrong)),
            }
        }
    }

    /// Whether the segment follows what stands before it.
    fn joins(&self, first: Seq, header: &Header) -> Result<(), Wrong> {
        if header.log != self.log {
            return Err(Wrong::OtherLog);
        }
        if header.after.seq.next() != first {
            return Err(Wrong::Sequence { expected: first.0, found: header.after.seq.next().0 });
        }
        match self.first {
            // Only what a snapshot covers may be gone from the front, and only what retention removed.
            None if header.after.seq > self.covered.seq || first > self.floor => Err(Wrong::Gap),
            None if header.after.seq == Seq(0) && header.after != Position::START => Err(Wrong::Chain),
            None => Ok(()),
            Some(_) if header.after.seq != self.head.seq => Err(Wrong::Gap),
            Some(_) if header.after != self.head => Err(Wrong::Chain),
            Some(_) => Ok(()),
        }
    }

    /// At the noted end the noted record must stand, and where the snapshot was taken its record:
    /// an older file put back in place is damage.
    fn contradicted(&self, first: Seq, at: u64) -> Option<Wrong> {
        if self.head.seq == self.covered.seq && self.head != self.covered {
            return Some(Wrong::Snapshot);
        }
        let Noted::Known(note) = self.noted else { return None };
        let there = note.segment == first && note.end == at;
        (there && note.position != self.head).then_some(Wrong::SyncedEnd)
    }

    fn sentence(&self, first: Seq, at: u64, why: Wrong) -> String {
        format!(
            "log {} is damaged in segment {} at byte {at}, which was synced: {why}; records up to {} are good; \
             restore the file from a copy, or give the node up with 'dunlin nodes remove'",
            self.log, first.0, self.head.seq.0
        )
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
