//! What a dying process leaves of its files, and what a loss of power takes besides.

use dunlin_protocol::log::note::{Note, SLOT_BYTES};
use dunlin_protocol::pipeline::manifest::Durability;

use super::Disk;
use super::folder::{Folder, InFlight, Writer};
use crate::chance::Chance;

impl Disk {
    /// The process dies, in the middle of whatever its writer does; with `power` the machine too.
    pub fn crash(&mut self, power: bool, chance: &mut Chance) {
        self.queue.clear();
        self.group.clear();
        self.busy = false;
        for folder in self.folders.values_mut() {
            if let Some(in_flight) = folder.writer.in_flight {
                folder.die_writing(in_flight, chance);
            }
            if power {
                folder.lose_power(chance);
            }
            folder.writer = Writer::at(Default::default(), None, Note::new(folder.id()), None);
            folder.outstanding = 0;
        }
    }
}

impl Folder {
    /// Somewhere between the first byte of the group and the note behind its sync.
    fn die_writing(&mut self, in_flight: InFlight, chance: &mut Chance) {
        let synced = self.writer.staged.durability == Some(Durability::Disk);
        let InFlight { first, from } = in_flight;
        let Some(file) = self.segments.get_mut(&first) else { return };
        if chance.one_in(3) {
            // In the middle of the write: a new segment may lack even its header's end.
            let kept = chance.between(from, file.len());
            file.cut(kept);
        } else if synced && chance.one_in(2) {
            // Behind the sync: the note is not there yet, torn, or whole and nobody was told.
            let end = file.len();
            self.segments.values_mut().for_each(super::file::File::sync);
            self.unlinked.clear();
            let note = self.writer.note.next(first, end, self.writer.staged.head);
            if chance.one_in(2) {
                self.write_note(&note);
            } else if chance.one_in(2) {
                self.tear_note(&note, chance);
            }
        }
    }

    /// A part of the note's slot is new, the rest is old.
    fn tear_note(&mut self, note: &Note, chance: &mut Chance) {
        let before = self.note_file.clone();
        self.write_note(note);
        let (at, _) = note.encode();
        let cut = at as usize + chance.between(0, SLOT_BYTES as u64 - 1) as usize;
        let end = (at as usize + SLOT_BYTES).min(before.len());
        if cut < end {
            self.note_file[cut..end].copy_from_slice(&before[cut..end]);
        } else if before.len() < self.note_file.len() {
            self.note_file.truncate(cut.max(before.len()));
        }
    }

    /// Un-synced bytes are torn, un-synced names vanish from the last on, removals may be undone.
    fn lose_power(&mut self, chance: &mut Chance) {
        let unnamed: Vec<_> =
            self.segments.iter().filter(|(_, file)| !file.is_named()).map(|(first, _)| *first).collect();
        let kept = chance.between(0, unnamed.len() as u64) as usize;
        unnamed.iter().skip(kept).for_each(|first| {
            self.segments.remove(first);
        });
        self.segments.values_mut().filter(|file| !file.is_synced()).for_each(|file| file.lose_power(chance));
        let back = chance.between(0, self.unlinked.len() as u64) as usize;
        let gone = self.unlinked.len() - back;
        self.segments.extend(self.unlinked.drain(..).skip(gone));
    }
}
