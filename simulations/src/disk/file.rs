//! One file: bytes as the processes see them, and how far the platter has them.

use crate::chance::Chance;

/// What one write of the device takes whole or not at all.
const SECTOR: usize = 512;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct File {
    pub bytes: Vec<u8>,
    /// So many of them survive a loss of power.
    synced: usize,
    /// And so does its name in the folder.
    named: bool,
}

impl File {
    /// A new file with these bytes, nothing of it synced.
    pub fn with(bytes: &[u8]) -> File {
        File { bytes: bytes.to_vec(), ..File::default() }
    }

    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub fn is_named(&self) -> bool {
        self.named
    }

    pub fn is_synced(&self) -> bool {
        self.named && self.synced == self.bytes.len()
    }

    pub fn sync(&mut self) {
        self.synced = self.bytes.len();
        self.named = true;
    }

    pub fn cut(&mut self, length: u64) {
        self.bytes.truncate(length as usize);
        self.synced = self.synced.min(self.bytes.len());
    }

    /// The power goes: of what was not synced any part may be on the platter, sector by sector, in any
    /// order.
    pub fn lose_power(&mut self, chance: &mut Chance) {
        let kept = chance.between(self.synced as u64, self.len()) as usize;
        self.bytes.truncate(kept);
        if chance.one_in(2) {
            let mut at = self.synced;
            while at < kept {
                let end = (at / SECTOR + 1) * SECTOR;
                if chance.one_in(3) {
                    self.bytes[at..end.min(kept)].fill(0);
                }
                at = end;
            }
        }
        self.sync();
    }
}
