//! Hashed cells: what was seen where a token (a category, a cross of two) was present.
//!
//! A token is hashed into one of [`CELLS`] cells; two tokens in one cell share what they learn.

use super::classes::CLASSES;
use super::pack::{self, Unpack};
use super::store::{self, Unreadable};
use crate::operator::State;

/// Cells of a share; each is an entry of keyed state once it has learned.
pub const CELLS: u16 = 32_768;
/// Outcomes after which a cell's means forget like a window of that length.
const MEMORY: f32 = 300.0;
/// How many outcomes a cell needs until it is believed by half.
const SHRINK: f64 = 8.0;

/// The same, where what it is drawn to is known well.
const DRAWN: f64 = 2.0;

#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    pub weights: [f32; CLASSES],
    pub squares: [f32; CLASSES],
    n: f32,
    change: f32,
    rises: f32,
}

/// Bytes of a cell as it stands in state.
const PACKED: usize = 4 * (2 * CLASSES + 3);

static EMPTY: Cell =
    Cell { weights: [0.0; CLASSES], squares: [0.0; CLASSES], n: 0.0, change: 0.0, rises: 0.0 };

impl Cell {
    pub fn learn(&mut self, change: f64, happened: bool) {
        self.n = (self.n + 1.0).min(MEMORY);
        self.change += (change.clamp(-10.0, 10.0) as f32 - self.change) / self.n;
        self.rises += (f32::from(u8::from(happened)) - self.rises) / self.n;
    }

    /// Mean change here, drawn towards zero while little is known.
    pub fn mean(&self) -> f64 {
        let n = f64::from(self.n);
        f64::from(self.change) * n / (n + SHRINK)
    }

    /// Mean change here, drawn towards `towards` while little is known.
    pub fn mean_from(&self, towards: f64) -> f64 {
        let n = f64::from(self.n);
        (f64::from(self.change) * n + towards * DRAWN) / (n + DRAWN)
    }

    /// Share of rises here, drawn towards `base`.
    pub fn rises(&self, base: f64) -> f64 {
        let n = f64::from(self.n);
        (f64::from(self.rises) * n + base * SHRINK) / (n + SHRINK)
    }

    fn pack(&self, out: &mut Vec<u8>) {
        pack::singles(out, &self.weights);
        pack::singles(out, &self.squares);
        pack::singles(out, &[self.n, self.change, self.rises]);
    }

    fn unpack(bytes: &[u8]) -> Option<Cell> {
        let (mut from, mut cell) = (Unpack(bytes), EMPTY.clone());
        from.singles(&mut cell.weights)?;
        from.singles(&mut cell.squares)?;
        (cell.n, cell.change, cell.rises) = (from.single()?, from.single()?, from.single()?);
        from.0.is_empty().then_some(cell)
    }
}

/// The cells of a share that are in memory.
#[derive(Debug, Default)]
pub struct Cells {
    /// By number; all [`CELLS`] once one was asked for.
    cells: Vec<Cell>,
    known: Vec<Known>,
    changed: Vec<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Known {
    No,
    Read,
    Changed,
}

impl Cells {
    /// The cells with these numbers are in memory afterwards.
    pub fn load(
        &mut self,
        numbers: impl Iterator<Item = u16>,
        state: &mut dyn State,
    ) -> Result<(), Unreadable> {
        if self.cells.is_empty() {
            self.cells.resize(usize::from(CELLS), EMPTY.clone());
            self.known.resize(usize::from(CELLS), Known::No);
        }
        for number in numbers {
            let at = usize::from(number);
            if let (Some(known @ Known::No), Some(cell)) = (self.known.get_mut(at), self.cells.get_mut(at)) {
                if let Some(bytes) = state.get(&store::cell_key(number)) {
                    *cell = Cell::unpack(store::body(&bytes)?).ok_or_else(|| Unreadable::cut("a cell"))?;
                }
                *known = Known::Read;
            }
        }
        Ok(())
    }

    pub fn get(&self, number: u16) -> &Cell {
        self.cells.get(usize::from(number)).unwrap_or(&EMPTY)
    }

    /// A loaded cell, to be changed.
    pub fn change(&mut self, number: u16) -> Option<&mut Cell> {
        let at = usize::from(number);
        let known = self.known.get_mut(at)?;
        if *known != Known::Changed {
            *known = Known::Changed;
            self.changed.push(number);
        }
        self.cells.get_mut(at)
    }

    pub fn flush(&mut self, state: &mut dyn State) {
        let Cells { cells, known, changed } = self;
        // In the order of their keys: each finds its place near the one before it.
        changed.sort_unstable();
        for number in changed.iter() {
            if let Some(known) = known.get_mut(usize::from(*number)) {
                *known = Known::Read;
            }
        }
        let cell = |number: &u16| {
            let cell = cells.get(usize::from(*number)).unwrap_or(&EMPTY);
            (store::cell_key(*number), |out: &mut Vec<u8>| cell.pack(out))
        };
        store::put_all(state, PACKED, changed.iter().map(cell));
        changed.clear();
    }
}

/// Where the token of this kind with these parts lives.
pub fn cell_of(seed: u64, kind: u64, parts: &[u64]) -> u16 {
    place_of(seed, kind, parts) % CELLS
}

/// The cell so many behind this one.
pub fn behind(cell: u16, by: usize) -> u16 {
    ((usize::from(cell) + by) % usize::from(CELLS)) as u16
}

/// The same among 65,536 places.
pub fn place_of(seed: u64, kind: u64, parts: &[u64]) -> u16 {
    let hash = parts.iter().fold(mix(kind ^ mix(seed)), |hash, part| mix(hash ^ *part));
    (hash >> 48) as u16
}

/// A name made of two.
pub fn named(kind: u64, name: u64) -> u64 {
    mix(mix(kind) ^ name)
}

/// Every bit of the input moves about half of the output's (the end of splitmix64).
fn mix(value: u64) -> u64 {
    let value = (value ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A text as a token's part or a name (FNV-1a).
pub const fn text(value: &str) -> u64 {
    let mut bytes = value.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    while let Some((byte, rest)) = bytes.split_first() {
        hash = (hash ^ *byte as u64).wrapping_mul(0x0100_0000_01b3);
        bytes = rest;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_comes_back_bit_for_bit() {
        let mut cell = EMPTY.clone();
        (0..9u8).for_each(|i| cell.learn(f64::from(i) / 7.0, i % 2 == 0));
        cell.weights[3] = 0.1;
        let mut bytes = Vec::new();
        cell.pack(&mut bytes);
        assert_eq!(Cell::unpack(&bytes), Some(cell));
        assert_eq!(Cell::unpack(&bytes[1..]), None);
    }

    #[test]
    fn tokens_spread_over_the_cells() {
        let mut hit = vec![0u32; usize::from(CELLS)];
        (0..80_000u64).for_each(|i| hit[usize::from(cell_of(7, text("kind"), &[i % 300, i / 300]))] += 1);
        assert!(hit.iter().max().is_some_and(|most| *most < 35));
    }
}
