//! A segment: one file of a log, a header and then records, back to back, nothing between them.
//!
//! ```text
//! header, 72 bytes (integers little-endian)
//!  0        8    12               28         36         44               60           72
//! +--------+----+----------------+----------+----------+----------------+------------+
//! | magic  |ver.| log id         | first seq| prev.    | previous hash  | check      |
//! |        |u32 | 16             | u64      | epoch u64| 16             | 12, blake3 |
//! +--------+----+----------------+----------+----------+----------------+------------+
//!
//! frame, 40 bytes and the body
//!  0      4       8          16         24               40
//! +------+-------+----------+----------+----------------+------- - - -
//! |length|check  | epoch    | seq      | hash           | body
//! |u32   |4      | u64      | u64      | 16             | `length` bytes
//! +------+-------+----------+----------+----------------+------- - - -
//! ```
//!
//! The frame's check covers the log id and the frame's other fields, so a length is believed before
//! a byte of the body is looked at; the hash is the record's link of the chain and covers the body,
//! the fields and, through `previous`, everything before it. `previous` itself is not stored: it is
//! the hash of the frame before, and the header's for the first. The header's position says which
//! record the segment follows, so a missing segment cannot go unseen.

use alloc::vec::Vec;

use bytes::Bytes;
use thiserror::Error;

use super::bytes_in::{BytesIn, check};
use super::record::Record;
use crate::id::{Epoch, Hash, LogId, Position, Seq};
use crate::limits::FRAME_BYTES_MAX;

pub const MAGIC: [u8; 8] = *b"dunlnseg";
pub const VERSION: u32 = 1;
pub const HEADER_BYTES: usize = 72;
pub const FRAME_HEAD_BYTES: usize = 40;
/// A record's body: what fits into a wire frame beside the record's fields.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - 256;

/// A segment's header: whose it is and which record it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub log: LogId,
    /// The position before the segment's first record.
    pub after: Position,
}

/// Why bytes are no header or no record here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Wrong {
    #[error("the file ends in the middle")]
    Short,
    #[error("this is no segment of this program")]
    Magic,
    #[error("it is in format {0}, this program knows {VERSION}")]
    Version(u32),
    #[error("its checksum does not match")]
    Check,
    #[error("it belongs to another log")]
    OtherLog,
    #[error("a length of {0} bytes is beyond the limit of {BODY_BYTES_MAX}")]
    Length(u32),
    #[error("record {found} stands where {expected} should")]
    Sequence { expected: u64, found: u64 },
    #[error("its hash does not match what it holds or what stands before it")]
    Chain,
    #[error("it does not end where it was synced")]
    SyncedEnd,
    #[error("the snapshot was taken of another record than the one that stands there")]
    Snapshot,
    #[error("a segment is missing before it")]
    Gap,
}

/// Records that cannot stand here. Nothing was encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("record {found} does not follow record {head}")]
    NotNext { head: u64, found: u64 },
    #[error("record {seq} has {bytes} bytes, more than the limit of {BODY_BYTES_MAX}")]
    TooLong { seq: u64, bytes: usize },
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.log.0);
        bytes.extend_from_slice(&self.after.seq.next().0.to_le_bytes());
        bytes.extend_from_slice(&self.after.epoch.0.to_le_bytes());
        bytes.extend_from_slice(&self.after.hash.0);
        let check: [u8; 12] = check(&[&bytes]);
        bytes.extend_from_slice(&check);
        let mut header = [0; HEADER_BYTES];
        header.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        header
    }

    /// The header at the beginning of a segment's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Header, Wrong> {
        let head = bytes.get(..HEADER_BYTES).ok_or(Wrong::Short)?;
        let (covered, checked) = head.split_last_chunk::<12>().ok_or(Wrong::Short)?;
        let mut fields = BytesIn::new(covered);
        if fields.array() != Some(MAGIC) {
            return Err(Wrong::Magic);
        }
        let version = fields.u32().ok_or(Wrong::Short)?;
        // The check comes first: a flipped bit in the version is damage, not a newer format.
        if check::<12>(&[covered]) != *checked {
            return Err(Wrong::Check);
        }
        if version != VERSION {
            return Err(Wrong::Version(version));
        }
        let log = LogId(fields.array().ok_or(Wrong::Short)?);
        let first = fields.u64().ok_or(Wrong::Short)?;
        let epoch = Epoch(fields.u64().ok_or(Wrong::Short)?);
        let hash = Hash(fields.array().ok_or(Wrong::Short)?);
        let seq = Seq(first.checked_sub(1).ok_or(Wrong::Check)?);
        Ok(Header { log, after: Position { epoch, seq, hash } })
    }
}

/// One frame, found whole and right. `end` is the offset behind it in the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framed<'a> {
    pub position: Position,
    pub previous: Hash,
    pub body: &'a [u8],
    pub at: u64,
    pub end: u64,
}

impl Framed<'_> {
    /// The record, its body copied out of the segment.
    pub fn record(&self) -> Record {
        Record::checked(self.position, self.previous, Bytes::copy_from_slice(self.body))
    }
}

/// Appends the frames of `records`, which must follow `head`, to `out`; gives the new head.
pub fn encode_group(
    log: LogId,
    head: Position,
    records: &[Record],
    out: &mut Vec<u8>,
) -> Result<Position, Refused> {
    let start = out.len();
    out.reserve(records.iter().map(frame_bytes).sum());
    let mut last = head;
    for record in records {
        if let Err(refused) = follows(last, record) {
            out.truncate(start);
            return Err(refused);
        }
        last = record.position();
        let length = u32::try_from(record.body.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&frame_check(log, length, &last));
        out.extend_from_slice(&last.epoch.0.to_le_bytes());
        out.extend_from_slice(&last.seq.0.to_le_bytes());
        out.extend_from_slice(&last.hash.0);
        out.extend_from_slice(&record.body);
    }
    Ok(last)
}

/// Whether the record may stand behind `head`.
fn follows(head: Position, record: &Record) -> Result<(), Refused> {
    if record.seq != head.seq.next() || record.previous != head.hash {
        return Err(Refused::NotNext { head: head.seq.0, found: record.seq.0 });
    }
    if record.body.len() > BODY_BYTES_MAX {
        return Err(Refused::TooLong { seq: record.seq.0, bytes: record.body.len() });
    }
    Ok(())
}

/// What a record takes in a segment.
pub fn frame_bytes(record: &Record) -> usize {
    FRAME_HEAD_BYTES + record.body.len()
}

/// The length of the body of the frame that begins `bytes`, believed only if its check matches:
/// for readers that hold the head before the body.
pub fn body_length(log: LogId, bytes: &[u8]) -> Result<usize, Wrong> {
    head_of(log, bytes).map(|(length, _)| length as usize)
}

/// The frame at the beginning of `bytes`, which stands at offset `at` of its segment and follows
/// `previous`.
pub fn decode_frame<'a>(
    log: LogId,
    previous: Position,
    bytes: &'a [u8],
    at: u64,
) -> Result<Framed<'a>, Wrong> {
    let (length, position) = head_of(log, bytes)?;
    let end = FRAME_HEAD_BYTES + length as usize;
    let body = bytes.get(FRAME_HEAD_BYTES..end).ok_or(Wrong::Short)?;
    if position.seq != previous.seq.next() {
        return Err(Wrong::Sequence { expected: previous.seq.next().0, found: position.seq.0 });
    }
    let hash = Hash(check(&[
        &position.epoch.0.to_le_bytes(),
        &position.seq.0.to_le_bytes(),
        &previous.hash.0,
        body,
    ]));
    if hash != position.hash {
        return Err(Wrong::Chain);
    }
    Ok(Framed { position, previous: previous.hash, body, at, end: at + end as u64 })
}

/// Checks a whole segment by itself: every byte of it belongs to a record that is right.
pub fn verify(log: LogId, bytes: &[u8]) -> Result<Position, Wrong> {
    let header = Header::decode(bytes)?;
    if header.log != log {
        return Err(Wrong::OtherLog);
    }
    let (mut head, mut rest) = (header.after, bytes.get(HEADER_BYTES..).unwrap_or_default());
    while !rest.is_empty() {
        let framed = decode_frame(log, head, rest, 0)?;
        head = framed.position;
        rest = rest.get(FRAME_HEAD_BYTES + framed.body.len()..).unwrap_or_default();
    }
    Ok(head)
}

fn head_of(log: LogId, bytes: &[u8]) -> Result<(u32, Position), Wrong> {
    let mut fields = BytesIn::new(bytes);
    let length = fields.u32().ok_or(Wrong::Short)?;
    let checked: [u8; 4] = fields.array().ok_or(Wrong::Short)?;
    let epoch = Epoch(fields.u64().ok_or(Wrong::Short)?);
    let seq = Seq(fields.u64().ok_or(Wrong::Short)?);
    let hash = Hash(fields.array().ok_or(Wrong::Short)?);
    let position = Position { epoch, seq, hash };
    if length as usize > BODY_BYTES_MAX {
        return Err(Wrong::Length(length));
    }
    if frame_check(log, length, &position) != checked {
        return Err(Wrong::Check);
    }
    Ok((length, position))
}

fn frame_check(log: LogId, length: u32, position: &Position) -> [u8; 4] {
    check(&[
        &log.0,
        &length.to_le_bytes(),
        &position.epoch.0.to_le_bytes(),
        &position.seq.0.to_le_bytes(),
        &position.hash.0,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId([7; 16]);

    fn record(after: Position, body: &[u8]) -> Record {
        Record::new(Epoch(1), after.seq.next(), after.hash, Bytes::copy_from_slice(body))
    }

    #[test]
    fn header_survives() {
        let header =
            Header { log: LOG, after: Position { epoch: Epoch(3), seq: Seq(9), hash: Hash([4; 16]) } };
        assert_eq!(Header::decode(&header.encode()), Ok(header));
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = header.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn frame_hash_is_the_records_hash() {
        let first = record(Position::START, b"one");
        let mut bytes = Vec::new();
        let head = encode_group(LOG, Position::START, core::slice::from_ref(&first), &mut bytes).unwrap();
        assert_eq!(head, first.position());
        let framed = decode_frame(LOG, Position::START, &bytes, 0).unwrap();
        assert_eq!(framed.record(), first);
        assert_eq!(framed.end, bytes.len() as u64);
    }

    #[test]
    fn group_that_does_not_follow_is_refused_whole() {
        let first = record(Position::START, b"one");
        let wrong = Record::new(Epoch(1), Seq(3), first.hash(), Bytes::from_static(b"x"));
        let mut bytes = Vec::new();
        let refused = encode_group(LOG, Position::START, &[first, wrong], &mut bytes);
        assert_eq!(refused, Err(Refused::NotNext { head: 1, found: 3 }));
        assert!(bytes.is_empty());
    }

    #[test]
    fn oversized_length_is_refused_before_its_body() {
        let mut bytes = [0xff; FRAME_HEAD_BYTES];
        assert_eq!(body_length(LOG, &bytes), Err(Wrong::Length(u32::MAX)));
        bytes.fill(0);
        assert_eq!(body_length(LOG, &bytes), Err(Wrong::Check));
    }

    #[test]
    fn frame_of_another_log_is_refused() {
        let mut bytes = Vec::new();
        encode_group(LOG, Position::START, &[record(Position::START, b"one")], &mut bytes).unwrap();
        assert_eq!(decode_frame(LogId([8; 16]), Position::START, &bytes, 0), Err(Wrong::Check));
    }
}
