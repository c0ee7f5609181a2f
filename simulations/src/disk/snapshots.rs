//! Snapshots on a simulated disk: real bytes, put in place whole, read with every chunk checked.

use bytes::Bytes;
use dunlin_protocol::id::{LogId, Position, Seq};
use dunlin_protocol::log::snapshot::{BadSnapshot, CHUNK_HEAD_BYTES, Decoder, Encoder, HEADER_BYTES, Piece};

use super::Entries;
use super::folder::Folder;

/// What a log's records up to a position added up to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    pub fold: Bytes,
    pub entries: Entries,
}

impl Snapshot {
    fn encode(&self, log: LogId, at: Position) -> Result<Vec<u8>, BadSnapshot> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(log, at, &mut bytes);
        encoder.fold(&self.fold, &mut bytes);
        for (key, value) in &self.entries {
            encoder.entry(key, value, &mut bytes)?;
        }
        encoder.finish(&mut bytes);
        Ok(bytes)
    }

    fn decode(log: LogId, bytes: &[u8]) -> Result<(Position, Snapshot), BadSnapshot> {
        let mut decoder = Decoder::new(bytes)?;
        if decoder.log != log {
            return Err(BadSnapshot::Check);
        }
        let (mut fold, mut entries) = (Vec::new(), Entries::new());
        let mut at = HEADER_BYTES;
        loop {
            let head = decoder.head(bytes.get(at..).unwrap_or_default())?;
            let end = at + CHUNK_HEAD_BYTES + head.payload_bytes();
            let payload = bytes.get(at + CHUNK_HEAD_BYTES..end).ok_or(BadSnapshot::Short)?;
            match decoder.chunk(&head, payload)? {
                Piece::Fold(piece) => fold.extend_from_slice(&piece),
                Piece::Entries(piece) => entries.extend(piece),
                Piece::End => return Ok((decoder.at, Snapshot { fold: fold.into(), entries })),
            }
            at = end;
        }
    }
}

/// The newest snapshot that is whole from end to end.
pub(super) fn newest(log: LogId, folder: &Folder) -> Option<(Position, Snapshot)> {
    let whole =
        |(seq, bytes): (&Seq, &Vec<u8>)| Snapshot::decode(log, bytes).ok().filter(|(at, _)| at.seq == *seq);
    folder.snapshots.iter().rev().find_map(whole)
}

impl Folder {
    /// Everything before the rename is in a file of another name, so a crash leaves the old or the new.
    pub(super) fn snapshot(&mut self, log: LogId, at: Position, snapshot: &Snapshot) -> Result<(), String> {
        if let Some(damage) = self.damage() {
            return Err(damage.clone());
        }
        self.sync_standing();
        if self.head().seq < at.seq {
            return Err(format!("log {log} does not hold record {}", at.seq.0));
        }
        let bytes = snapshot.encode(log, at).map_err(|wrong| wrong.to_string())?;
        self.snapshots = [(at.seq, bytes)].into();
        self.unlinked.clear();
        Ok(())
    }
}
