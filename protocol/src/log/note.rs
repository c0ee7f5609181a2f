//! The note of a log's last synced end: what lies before it was synced, so it may never be cut.
//!
//! Two slots in one small file, written in turn; a power loss in the middle of one leaves the
//! other. They stand 512 bytes apart, so that one torn sector takes one of them.
//!
//! ```text
//! slot, 104 bytes, at 0 (even generations) and at 512 (odd ones); integers little-endian
//!  0        8          16               32         40         48         56         64               80               104
//! +--------+----------+----------------+----------+----------+----------+----------+----------------+----------------+
//! | magic  |generation| log id         | segment  | end      | epoch    | seq      | hash           | check          |
//! |        |u64       | 16             | u64      | u64      | u64      | u64      | 16             | 24, blake3     |
//! +--------+----------+----------------+----------+----------+----------+----------+----------------+----------------+
//! ```

use alloc::vec::Vec;

use super::bytes_in::{BytesIn, check};
use crate::id::{Epoch, Hash, LogId, Position, Seq};

pub const MAGIC: [u8; 8] = *b"dunlnot1";
pub const SLOT_BYTES: usize = 104;
/// Where the odd generations stand.
pub const SLOT_TWO: u64 = 512;
/// A note file is never longer than this; what is read of it is bounded by it.
pub const FILE_BYTES_MAX: usize = SLOT_TWO as usize + SLOT_BYTES;

/// Where a log was synced last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    pub log: LogId,
    /// Counts up by one with each note.
    pub generation: u64,
    /// The segment that holds the end, by its first sequence number.
    pub segment: Seq,
    /// Bytes of that segment that are synced; those before it are synced whole.
    pub end: u64,
    /// The position there.
    pub position: Position,
}

/// What the note file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    Known(Note),
    /// Neither slot is right: damage, since one write tears one slot at most. Everything on the disk
    /// counts as synced then, so that nothing is cut.
    Unreadable,
}

impl Note {
    /// A new log's note: nothing is synced.
    pub fn new(log: LogId) -> Note {
        Note { log, generation: 0, segment: Seq(1), end: 0, position: Position::START }
    }

    /// The note that comes after this one.
    pub fn next(&self, segment: Seq, end: u64, position: Position) -> Note {
        Note { log: self.log, generation: self.generation + 1, segment, end, position }
    }

    /// Where in the file this note goes, and its bytes.
    pub fn encode(&self) -> (u64, Vec<u8>) {
        let mut bytes = Vec::with_capacity(SLOT_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&self.log.0);
        bytes.extend_from_slice(&self.segment.0.to_le_bytes());
        bytes.extend_from_slice(&self.end.to_le_bytes());
        bytes.extend_from_slice(&self.position.epoch.0.to_le_bytes());
        bytes.extend_from_slice(&self.position.seq.0.to_le_bytes());
        bytes.extend_from_slice(&self.position.hash.0);
        let check: [u8; 24] = check(&[&bytes]);
        bytes.extend_from_slice(&check);
        (self.place(), bytes)
    }

    /// Where its slot begins: each goes over the one before the last.
    fn place(&self) -> u64 {
        if self.generation.is_multiple_of(2) { 0 } else { SLOT_TWO }
    }

    /// Reads a note file: the newer of the slots that are right, and in their place.
    pub fn read(log: LogId, file: &[u8]) -> Noted {
        let slots = [(0, file), (SLOT_TWO, file.get(SLOT_TWO as usize..).unwrap_or_default())];
        let right = slots
            .into_iter()
            .filter_map(|(at, slot)| Note::slot(log, slot).filter(|note| note.place() == at));
        right.max_by_key(|note| note.generation).map_or(Noted::Unreadable, Noted::Known)
    }

    fn slot(log: LogId, bytes: &[u8]) -> Option<Note> {
        let (covered, checked) = bytes.get(..SLOT_BYTES)?.split_last_chunk::<24>()?;
        if check::<24>(&[covered]) != *checked {
            return None;
        }
        let mut fields = BytesIn::new(covered);
        if fields.array() != Some(MAGIC) {
            return None;
        }
        let generation = fields.u64()?;
        let owner = LogId(fields.array()?);
        let segment = Seq(fields.u64()?);
        let end = fields.u64()?;
        let epoch = Epoch(fields.u64()?);
        let seq = Seq(fields.u64()?);
        let position = Position { epoch, seq, hash: Hash(fields.array()?) };
        (owner == log).then_some(Note { log, generation, segment, end, position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const LOG: LogId = LogId([7; 16]);

    fn write(file: &mut Vec<u8>, note: &Note) {
        let (at, bytes) = note.encode();
        let end = at as usize + bytes.len();
        file.resize(file.len().max(end), 0);
        file[at as usize..end].copy_from_slice(&bytes);
    }

    fn two() -> (Note, Note, Vec<u8>) {
        let older = Note::new(LOG).next(Seq(1), 500, Position { seq: Seq(5), ..Position::START });
        let newer = older.next(Seq(1), 900, Position { seq: Seq(9), ..Position::START });
        let mut file = vec![];
        write(&mut file, &older);
        write(&mut file, &newer);
        (older, newer, file)
    }

    #[test]
    fn newer_slot_counts() {
        let (_, newer, file) = two();
        assert_eq!(Note::read(LOG, &file), Noted::Known(newer));
        assert_eq!(Note::read(LogId([8; 16]), &file), Noted::Unreadable);
        assert_eq!(Note::read(LOG, &[]), Noted::Unreadable);
    }

    #[test]
    fn a_slot_in_the_place_of_the_other_is_not_right() {
        let (_, _, file) = two();
        assert_eq!(Note::read(LOG, &file[SLOT_TWO as usize..]), Noted::Unreadable);
    }

    #[test]
    fn first_note_stands_alone() {
        let mut file = vec![];
        write(&mut file, &Note::new(LOG));
        assert_eq!(Note::read(LOG, &file), Noted::Known(Note::new(LOG)));
    }

    proptest! {
        #[test]
        fn torn_note_falls_back_to_the_older(cut in 0..SLOT_BYTES, next in any::<u64>()) {
            let (_, newer, mut file) = two();
            let torn = newer.next(Seq(1), next, Position { seq: Seq(next), ..Position::START });
            let (at, bytes) = torn.encode();
            let at = at as usize;
            let whole = file[at..at + SLOT_BYTES] == bytes[..];
            file[at..at + cut].copy_from_slice(&bytes[..cut]);
            prop_assert!(!whole);
            prop_assert_eq!(Note::read(LOG, &file), Noted::Known(newer));
        }

        #[test]
        fn flipped_bit_never_invents_a_note(bit in 0..FILE_BYTES_MAX * 8) {
            let (older, newer, mut file) = two();
            let byte = bit / 8;
            prop_assume!(byte < file.len());
            file[byte] ^= 1 << (bit % 8);
            let read = Note::read(LOG, &file);
            prop_assert!(read == Noted::Known(newer) || read == Noted::Known(older));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            prop_assert_eq!(Note::read(LOG, &bytes), Noted::Unreadable);
        }
    }
}
