//! Hashed cells: what was seen where a token (a category, a cross of two) was present.
//!
//! A token is hashed into one of [`CELLS`] cells; two tokens in one cell share what they learn.

use serde::{Deserialize, Serialize};

use super::classes::CLASSES;

/// Cells of a share; each is an entry of keyed state once it was touched.
pub const CELLS: u16 = 8192;
/// Outcomes after which a cell's means forget like a window of that length.
const MEMORY: f32 = 300.0;
/// How many outcomes a cell needs until it is believed by half.
const SHRINK: f64 = 8.0;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    pub weights: [f32; CLASSES],
    pub squares: [f32; CLASSES],
    n: f32,
    change: f32,
    rises: f32,
}

impl Default for Cell {
    fn default() -> Cell {
        Cell { weights: [0.0; CLASSES], squares: [0.0; CLASSES], n: 0.0, change: 0.0, rises: 0.0 }
    }
}

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

    /// Share of rises here, drawn towards `base`.
    pub fn rises(&self, base: f64) -> f64 {
        let n = f64::from(self.n);
        (f64::from(self.rises) * n + base * SHRINK) / (n + SHRINK)
    }
}

/// Where the token of this kind with these parts lives (FNV-1a, mixed).
pub fn cell_of(seed: u64, kind: &str, parts: &[u64]) -> u16 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64 ^ seed;
    let mut eat = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    kind.bytes().for_each(&mut eat);
    parts.iter().flat_map(|part| part.to_le_bytes()).for_each(&mut eat);
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> 48) as u16 % CELLS
}

/// A text as a token's part.
pub fn text(value: &str) -> u64 {
    value
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
