//! Damage to what was synced: it must be seen and said, and nothing from it on may be served.

use dunlin_protocol::id::{LogId, Position, Seq};
use dunlin_protocol::log::note::{Note, Noted};

use super::Disk;
use super::folder::Folder;
use crate::chance::Chance;

/// One kind of damage to one log's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    FlippedBit,
    ZeroedBlock,
    CutShort,
    LostSegment,
    /// The note of the synced end: the other slot, or caution, takes its place.
    FlippedNote,
    /// A snapshot: an older one or the log itself takes its place, if it still can.
    FlippedSnapshot,
}

pub const DAMAGES: [Damage; 6] = [
    Damage::FlippedBit,
    Damage::ZeroedBlock,
    Damage::CutShort,
    Damage::LostSegment,
    Damage::FlippedNote,
    Damage::FlippedSnapshot,
];

/// A log's files as they were before, to be put back.
#[derive(Debug)]
pub struct Wound {
    pub log: LogId,
    pub damage: Damage,
    /// Recovery has to say that the log is damaged.
    pub must_be_told: bool,
    before: Folder,
}

impl Wound {
    /// Where the log ended before: what was synced counts, whether or not the process had heard of it.
    pub fn held(&self) -> Position {
        let head = self.before.head();
        match Note::read(self.log, &self.before.note_file) {
            Noted::Known(note) if note.position.seq > head.seq => note.position,
            Noted::Known(_) | Noted::Unreadable => head,
        }
    }
}

impl Disk {
    /// Damages the log while no process has it open. None: there is nothing to be damaged so.
    pub fn damage(&mut self, log: LogId, damage: Damage, chance: &mut Chance) -> Option<Wound> {
        let folder = self.folders.get_mut(&log)?;
        let before = folder.clone();
        let must_be_told = folder.take_damage(log, damage, chance)?;
        Some(Wound { log, damage, must_be_told, before })
    }

    /// The files are restored from a copy.
    pub fn restore(&mut self, wound: Wound) {
        self.folders.insert(wound.log, wound.before);
    }
}

impl Folder {
    fn take_damage(&mut self, log: LogId, damage: Damage, chance: &mut Chance) -> Option<bool> {
        let Noted::Known(note) = Note::read(log, &self.note_file) else { return None };
        // Segments with synced bytes, and how many.
        let synced: Vec<(Seq, usize)> = self
            .segments
            .iter()
            .filter(|(first, _)| **first <= note.segment)
            .map(|(first, file)| match *first == note.segment {
                true => (*first, note.end as usize),
                false => (*first, file.bytes.len()),
            })
            .filter(|(_, bytes)| *bytes > 0)
            .collect();
        let pick = |chance: &mut Chance| (!synced.is_empty()).then(|| *chance.pick(&synced));
        match damage {
            Damage::FlippedBit => {
                let (first, bytes) = pick(chance)?;
                let at = chance.between(0, bytes as u64 - 1) as usize;
                self.segments.get_mut(&first)?.bytes[at] ^= 1 << chance.between(0, 7);
                Some(true)
            }
            Damage::ZeroedBlock => {
                let (first, bytes) = pick(chance)?;
                let at = chance.between(0, bytes as u64 - 1) as usize;
                let end = (at + chance.between(1, 512) as usize).min(bytes);
                let block = &mut self.segments.get_mut(&first)?.bytes[at..end];
                let changed = block.iter().any(|byte| *byte != 0);
                block.fill(0);
                changed.then_some(true)
            }
            Damage::CutShort => {
                let (first, bytes) = pick(chance)?;
                self.segments.get_mut(&first)?.cut(chance.between(0, bytes as u64 - 1));
                Some(true)
            }
            Damage::LostSegment => {
                let (first, _) = pick(chance)?;
                self.segments.remove(&first);
                // What retention had let go of, and a loss of power brought back, is not missed.
                let next = self.segments.keys().next().copied();
                let let_go = next.is_some_and(|next| first < next && next <= self.floor);
                Some(!let_go)
            }
            Damage::FlippedNote => {
                let at = chance.between(0, self.note_file.len() as u64 - 1) as usize;
                self.note_file[at] ^= 1 << chance.between(0, 7);
                Some(false)
            }
            Damage::FlippedSnapshot => {
                let bytes = self.snapshots.values_mut().next_back()?;
                let at = chance.between(0, bytes.len() as u64 - 1) as usize;
                bytes[at] ^= 1 << chance.between(0, 7);
                // Without the snapshot, what it covered is missing from the front.
                Some(self.segments.keys().next().is_none_or(|first| *first > Seq(1)))
            }
        }
    }
}
