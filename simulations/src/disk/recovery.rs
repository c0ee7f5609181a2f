//! What a starting node finds on its disk, and mends before it is told.

use dunlin_protocol::effect::{Input, RecoveredLog};
use dunlin_protocol::id::{LogId, Position, Seq};
use dunlin_protocol::log::floor;
use dunlin_protocol::log::record::Record;
use dunlin_protocol::log::recovery::{Found, LogRecovery, Mend};

use super::Disk;
use super::folder::{Folder, Writer};

impl Disk {
    /// Recovers every log as a node does; gives what the core is told.
    pub fn recover(&mut self) -> Vec<Input> {
        self.queue.clear();
        self.group.clear();
        self.busy = false;
        let mut inputs = Vec::new();
        for (log, folder) in &mut self.folders {
            let snapshot = super::snapshots::newest(*log, folder);
            let (covered, fold) = match snapshot {
                Some((at, snapshot)) => (at, Some((at, snapshot.fold))),
                None => (Position::START, None),
            };
            let (found, records) = folder.recover(*log, covered);
            inputs.push(Input::Recovered(RecoveredLog { snapshot: fold, ..found }));
            if !records.is_empty() {
                inputs.push(Input::Replay { log: *log, records });
            }
        }
        inputs
    }
}

impl Folder {
    fn recover(&mut self, log: LogId, covered: Position) -> (RecoveredLog, Vec<Record>) {
        if covered.seq > Seq(0) {
            self.snapshots.retain(|seq, _| *seq == covered.seq);
        }
        let mut recovery = LogRecovery::new(log, &self.note_file, &floor::encode(log, self.floor), covered);
        let mut records = Vec::new();
        for (first, file) in &self.segments {
            recovery.segment(*first, &file.bytes, &mut |framed| {
                if framed.position.seq > covered.seq {
                    records.push(framed.record());
                }
            });
        }
        let found = recovery.finish();
        let mut note = found.note;
        for mend in &found.mends {
            match *mend {
                Mend::Cut { segment, bytes } => {
                    if let Some(file) = self.segments.get_mut(&segment) {
                        file.cut(bytes);
                    }
                }
                Mend::Remove { segment } => {
                    self.segments.remove(&segment);
                }
                Mend::Sync { segment } => {
                    if let Some(file) = self.segments.get_mut(&segment) {
                        file.sync();
                    }
                }
                Mend::SyncFolder => self.unlinked.clear(),
                Mend::Note(next) => {
                    self.write_note(&next);
                    note = next;
                }
            }
        }
        let tail = found.segments.last().map(|last| (last.first, last.end));
        self.writer = Writer::at(found.head, tail, note, found.damage.clone());
        self.outstanding = 0;
        let bytes = found.segments.iter().map(|Found { end, .. }| end).sum();
        let told = RecoveredLog {
            name: self.name.clone(),
            head: found.head,
            first: found.first,
            snapshot: None,
            bytes,
            damage: found.damage,
            noted: found.noted,
        };
        (told, records)
    }
}
