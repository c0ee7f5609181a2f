//! A snapshot: what a log's records up to a position added up to, so that they may go. The fold
//! (what `Peer` knows of the log) comes first, the actor's keyed state behind it.
//!
//! ```text
//! header, 68 bytes (integers little-endian)
//!  0        8    12               28         36         44               60      68
//! +--------+----+----------------+----------+----------+----------------+-------+
//! | magic  |ver.| log id         | epoch    | seq      | hash           | check |
//! |        |u32 | 16             | u64      | u64      | 16             | 8     |
//! +--------+----+----------------+----------+----------+----------------+-------+
//!
//! chunk, 21 bytes and the payload                       kinds: 1 fold, 2 entries, 3 end
//!  0     1        5                21
//! +-----+--------+----------------+------- - - -        payload of 2: (key length u32, value length u32,
//! |kind | length | check          | payload             key, value) again and again, no entry in two chunks
//! |u8   | u32    | 16, blake3     | `length` bytes      payload of 3: entries u64, fold bytes u64
//! +-----+--------+----------------+------- - - -
//! ```
//!
//! Each chunk's check covers the check before it (the first one's: the whole header), so chunks
//! cannot be lost, swapped or taken from another snapshot. A file without an end mark is no snapshot.

use alloc::vec::Vec;

use bytes::Bytes;
use thiserror::Error;

use super::bytes_in::{BytesIn, check};
use super::segment::BODY_BYTES_MAX;
use crate::id::{Epoch, Hash, LogId, Position, Seq};

pub const MAGIC: [u8; 8] = *b"dunlnsnp";
pub const VERSION: u32 = 1;
pub const HEADER_BYTES: usize = 68;
pub const CHUNK_HEAD_BYTES: usize = 21;
/// Entries are gathered to about this much before a chunk is closed.
const CHUNK_BYTES: usize = 256 << 10;
/// A chunk's payload. Beyond: refused before allocation. One entry (a record's change at most) fits.
pub const CHUNK_BYTES_MAX: usize = BODY_BYTES_MAX + CHUNK_BYTES;

const FOLD: u8 = 1;
const ENTRIES: u8 = 2;
const END: u8 = 3;

/// Why a file is no whole snapshot. It is not used; an older one or the log itself is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadSnapshot {
    #[error("the file ends in the middle")]
    Short,
    #[error("this is no snapshot of this program")]
    Magic,
    #[error("it is in format {0}, this program knows {VERSION}")]
    Version(u32),
    #[error("a checksum does not match")]
    Check,
    #[error("a length of {0} bytes is beyond the limit of {CHUNK_BYTES_MAX}")]
    Length(u32),
    #[error("its parts are not in their order")]
    Order,
    #[error("it holds less or more than its end mark says")]
    Count,
    #[error("an entry of {0} bytes is more than a snapshot takes")]
    EntryTooLong(usize),
}

/// Writes a snapshot, piece by piece: `new`, `fold` once, `entry` for each, `finish`. What is ready
/// to be written stands in `out`; the caller empties it.
#[derive(Debug)]
pub struct Encoder {
    link: [u8; 16],
    pending: Vec<u8>,
    entries: u64,
    fold_bytes: u64,
}

impl Encoder {
    pub fn new(log: LogId, at: Position, out: &mut Vec<u8>) -> Encoder {
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&log.0);
        out.extend_from_slice(&at.epoch.0.to_le_bytes());
        out.extend_from_slice(&at.seq.0.to_le_bytes());
        out.extend_from_slice(&at.hash.0);
        let header = out.get(start..).unwrap_or_default();
        let checked: [u8; 8] = check(&[header]);
        let link = check(&[header, &checked]);
        out.extend_from_slice(&checked);
        Encoder { link, pending: Vec::new(), entries: 0, fold_bytes: 0 }
    }

    /// The fold, before any entry.
    pub fn fold(&mut self, fold: &[u8], out: &mut Vec<u8>) {
        self.fold_bytes += fold.len() as u64;
        fold.chunks(CHUNK_BYTES).for_each(|piece| self.chunk(FOLD, piece, out));
    }

    pub fn entry(&mut self, key: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), BadSnapshot> {
        let length = key.len() + value.len() + 8;
        let (Ok(key_length), Ok(value_length), true) =
            (u32::try_from(key.len()), u32::try_from(value.len()), length <= CHUNK_BYTES_MAX)
        else {
            return Err(BadSnapshot::EntryTooLong(length));
        };
        if self.pending.len() + length > CHUNK_BYTES {
            self.close(out);
        }
        self.pending.extend_from_slice(&key_length.to_le_bytes());
        self.pending.extend_from_slice(&value_length.to_le_bytes());
        self.pending.extend_from_slice(key);
        self.pending.extend_from_slice(value);
        self.entries += 1;
        Ok(())
    }

    /// The end mark: without it the file is no snapshot.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        self.close(out);
        let mut counts = Vec::from(self.entries.to_le_bytes());
        counts.extend_from_slice(&self.fold_bytes.to_le_bytes());
        self.chunk(END, &counts, out);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            let pending = core::mem::take(&mut self.pending);
            self.chunk(ENTRIES, &pending, out);
        }
    }

    fn chunk(&mut self, kind: u8, payload: &[u8], out: &mut Vec<u8>) {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.link = chunk_check(&self.link, kind, length, payload);
        out.push(kind);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&self.link);
        out.extend_from_slice(payload);
    }
}

/// What a chunk's head says: how many bytes follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHead {
    kind: u8,
    check: [u8; 16],
    length: u32,
}

impl ChunkHead {
    pub fn payload_bytes(&self) -> usize {
        self.length as usize
    }
}

/// A part of a snapshot that is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Fold(Bytes),
    Entries(Vec<(Bytes, Bytes)>),
    /// Everything was there.
    End,
}

/// Reads a snapshot: the header's bytes, then for each chunk its head's bytes and its payload.
/// Nothing counts before `End`; what comes before it is right but may be a part only.
#[derive(Debug, Clone)]
pub struct Decoder {
    pub log: LogId,
    pub at: Position,
    link: [u8; 16],
    last_kind: u8,
    entries: u64,
    fold_bytes: u64,
}

impl Decoder {
    pub fn new(header: &[u8]) -> Result<Decoder, BadSnapshot> {
        let header = header.get(..HEADER_BYTES).ok_or(BadSnapshot::Short)?;
        let (covered, checked) = header.split_last_chunk::<8>().ok_or(BadSnapshot::Short)?;
        let mut fields = BytesIn::new(covered);
        if fields.array() != Some(MAGIC) {
            return Err(BadSnapshot::Magic);
        }
        let version = fields.u32().ok_or(BadSnapshot::Short)?;
        if check::<8>(&[covered]) != *checked {
            return Err(BadSnapshot::Check);
        }
        if version != VERSION {
            return Err(BadSnapshot::Version(version));
        }
        let log = LogId(fields.array().ok_or(BadSnapshot::Short)?);
        let epoch = Epoch(fields.u64().ok_or(BadSnapshot::Short)?);
        let seq = Seq(fields.u64().ok_or(BadSnapshot::Short)?);
        let hash = Hash(fields.array().ok_or(BadSnapshot::Short)?);
        let link = check(&[header]);
        let at = Position { epoch, seq, hash };
        Ok(Decoder { log, at, link, last_kind: FOLD, entries: 0, fold_bytes: 0 })
    }

    /// A chunk's head; its length is within the limit, so the payload may be allocated.
    pub fn head(&self, bytes: &[u8]) -> Result<ChunkHead, BadSnapshot> {
        let mut fields = BytesIn::new(bytes);
        let [kind] = fields.array().ok_or(BadSnapshot::Short)?;
        let length = fields.u32().ok_or(BadSnapshot::Short)?;
        let check = fields.array().ok_or(BadSnapshot::Short)?;
        if length as usize > CHUNK_BYTES_MAX {
            return Err(BadSnapshot::Length(length));
        }
        Ok(ChunkHead { kind, check, length })
    }

    /// The chunk's payload, exactly as long as its head says.
    pub fn chunk(&mut self, head: &ChunkHead, payload: &[u8]) -> Result<Piece, BadSnapshot> {
        if payload.len() != head.payload_bytes() {
            return Err(BadSnapshot::Short);
        }
        let link = chunk_check(&self.link, head.kind, head.length, payload);
        if link != head.check {
            return Err(BadSnapshot::Check);
        }
        if head.kind < self.last_kind || self.last_kind == END {
            return Err(BadSnapshot::Order);
        }
        self.link = link;
        self.last_kind = head.kind;
        match head.kind {
            FOLD => {
                self.fold_bytes += payload.len() as u64;
                Ok(Piece::Fold(Bytes::copy_from_slice(payload)))
            }
            ENTRIES => {
                let entries = entries(payload)?;
                self.entries += entries.len() as u64;
                Ok(Piece::Entries(entries))
            }
            END => {
                let mut fields = BytesIn::new(payload);
                let counted = (Some(self.entries), Some(self.fold_bytes));
                ((fields.u64(), fields.u64()) == counted).then_some(Piece::End).ok_or(BadSnapshot::Count)
            }
            _ => Err(BadSnapshot::Order),
        }
    }
}

fn entries(payload: &[u8]) -> Result<Vec<(Bytes, Bytes)>, BadSnapshot> {
    let mut fields = BytesIn::new(payload);
    let mut entries = Vec::new();
    while !fields.is_empty() {
        let key = fields.u32().ok_or(BadSnapshot::Short)? as usize;
        let value = fields.u32().ok_or(BadSnapshot::Short)? as usize;
        let key = fields.slice(key).ok_or(BadSnapshot::Short)?;
        let value = fields.slice(value).ok_or(BadSnapshot::Short)?;
        entries.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
    }
    Ok(entries)
}

fn chunk_check(link: &[u8; 16], kind: u8, length: u32, payload: &[u8]) -> [u8; 16] {
    check(&[link, &[kind], &length.to_le_bytes(), payload])
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const LOG: LogId = LogId([7; 16]);
    const AT: Position = Position { epoch: Epoch(2), seq: Seq(40), hash: Hash([5; 16]) };

    type Entries = Vec<(Bytes, Bytes)>;

    fn write(fold: &[u8], entries: &Entries) -> Vec<u8> {
        let mut file = vec![];
        let mut encoder = Encoder::new(LOG, AT, &mut file);
        encoder.fold(fold, &mut file);
        for (key, value) in entries {
            encoder.entry(key, value, &mut file).unwrap();
        }
        encoder.finish(&mut file);
        file
    }

    fn read(file: &[u8]) -> Result<(Vec<u8>, Entries), BadSnapshot> {
        let mut decoder = Decoder::new(file)?;
        assert_eq!((decoder.log, decoder.at), (LOG, AT));
        let (mut fold, mut entries) = (vec![], vec![]);
        let mut rest = &file[HEADER_BYTES..];
        loop {
            let head = decoder.head(rest)?;
            let end = CHUNK_HEAD_BYTES + head.payload_bytes();
            let payload = rest.get(CHUNK_HEAD_BYTES..end).ok_or(BadSnapshot::Short)?;
            match decoder.chunk(&head, payload)? {
                Piece::Fold(piece) => fold.extend_from_slice(&piece),
                Piece::Entries(piece) => entries.extend(piece),
                Piece::End => break,
            }
            rest = &rest[end..];
        }
        Ok((fold, entries))
    }

    fn numbered(count: u32, size: usize) -> Entries {
        (0..count)
            .map(|n| (Bytes::from(n.to_be_bytes().to_vec()), Bytes::from(vec![n as u8; size])))
            .collect()
    }

    #[test]
    fn snapshot_survives_in_many_chunks() {
        let fold = vec![3; 700_000];
        let entries = numbered(20, 60_000);
        let file = write(&fold, &entries);
        assert_eq!(read(&file), Ok((fold, entries)));
        assert_eq!(read(&write(&[], &vec![])), Ok((vec![], vec![])));
    }

    #[test]
    fn oversized_length_is_refused_before_allocation() {
        let decoder = Decoder::new(&write(&[], &vec![])).unwrap();
        assert_eq!(decoder.head(&[0xff; CHUNK_HEAD_BYTES]), Err(BadSnapshot::Length(u32::MAX)));
    }

    #[test]
    fn lost_chunk_is_seen() {
        let file = write(&[1; 10], &numbered(3, 10));
        let fold_chunk = HEADER_BYTES..HEADER_BYTES + CHUNK_HEAD_BYTES + 10;
        let mut without = file.clone();
        without.drain(fold_chunk);
        assert_eq!(read(&without), Err(BadSnapshot::Check));
    }

    proptest! {
        #[test]
        fn every_flip_and_every_cut_is_seen(
            fold in prop::collection::vec(any::<u8>(), 0..100),
            count in 0u32..8,
            at in any::<usize>(),
            bit in 0u8..8,
        ) {
            let file = write(&fold, &numbered(count, 20));
            let at = at % file.len();
            prop_assert!(Decoder::new(&file[..at]).is_err() || read(&file[..at]).is_err());
            let mut flipped = file.clone();
            flipped[at] ^= 1 << bit;
            prop_assert!(Decoder::new(&flipped).is_err() || read(&flipped).is_err());
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Decoder::new(&bytes).is_err());
        }
    }
}
