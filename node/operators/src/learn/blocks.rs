//! Numbered entries, most of which are never used: in memory one behind the other, in state in blocks.

use bytes::Bytes;

use super::pack::Unpack;
use super::store::{self, Unreadable};
use crate::operator::State;

/// Blocks that the numbers are split into.
pub const BLOCKS: usize = 64;

/// What stands at a number. As it is before it has learned anything: its default.
pub trait Entry: Default {
    /// For people: what cannot be read.
    const NAME: &'static str;

    fn pack(&self, out: &mut Vec<u8>);

    fn unpack(from: &mut Unpack<'_>) -> Option<Self>;
}

#[derive(Debug)]
pub struct Blocks<T> {
    kind: u8,
    /// How many numbers there are.
    numbers: usize,
    /// By number: where its entry is, plus one; zero: it has none. Empty before the first one.
    table: Vec<u32>,
    entries: Vec<T>,
    changed: [bool; BLOCKS],
}

impl<T: Entry> Blocks<T> {
    /// `numbers`: how many there are, a multiple of [`BLOCKS`] and at most 65,536.
    pub fn new(kind: u8, numbers: usize) -> Blocks<T> {
        Blocks { kind, numbers, table: Vec::new(), entries: Vec::new(), changed: [false; BLOCKS] }
    }

    /// Takes in what stands in state.
    pub fn read(&mut self, state: &mut dyn State) -> Result<(), Unreadable> {
        for (_, value) in state.scan(&[0, self.kind], BLOCKS) {
            let mut from = Unpack(store::body(&value)?);
            while !from.0.is_empty() {
                let number = from.short().ok_or_else(|| Unreadable::cut(T::NAME))?;
                let entry = T::unpack(&mut from).ok_or_else(|| Unreadable::cut(T::NAME))?;
                if let Some(place) = self.change(number, |_| true) {
                    *place = entry;
                }
            }
        }
        self.changed = [false; BLOCKS];
        Ok(())
    }

    pub fn get(&self, number: u16) -> Option<&T> {
        let place = *self.table.get(usize::from(number))?;
        self.entries.get((place as usize).checked_sub(1)?)
    }

    /// The entry, to be changed, if its block wants that; none for a number that is too large.
    pub fn change(&mut self, number: u16, wants: impl Fn(usize) -> bool) -> Option<&mut T> {
        let block = usize::from(number) / (self.numbers / BLOCKS);
        if !wants(block) {
            return None;
        }
        if self.table.is_empty() {
            self.table.resize(self.numbers, 0);
        }
        *self.changed.get_mut(block)? = true;
        let place = self.table.get_mut(usize::from(number))?;
        if *place == 0 {
            self.entries.push(T::default());
            *place = self.entries.len() as u32;
        }
        self.entries.get_mut((*place as usize).checked_sub(1)?)
    }

    /// Writes a block, if it has changed since it was written last.
    pub fn write(&mut self, block: usize, state: &mut dyn State) {
        let Some(changed) = self.changed.get_mut(block) else { return };
        if !core::mem::take(changed) {
            return;
        }
        let length = self.numbers / BLOCKS;
        store::put(state, &block_key(self.kind, block), |out| {
            for number in block * length..(block + 1) * length {
                if let Some(entry) = self.get(number as u16) {
                    out.extend_from_slice(&(number as u16).to_le_bytes());
                    entry.pack(out);
                }
            }
        });
    }
}

fn block_key(kind: u8, block: usize) -> Bytes {
    Bytes::copy_from_slice(&[0, kind, block as u8])
}
