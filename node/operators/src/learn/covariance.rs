//! A symmetric matrix in blocks of four by four, on and below the diagonal: so that a processor takes
//! several numbers at once, in any order of which the sums are the same.
//!
//! Sizes that are no multiple of four are filled up with zeros, which stay zeros.

use serde::{Deserialize, Serialize};

pub const SIDE: usize = 4;
/// Four numbers of a vector.
pub type Four = [f64; SIDE];
type Block = [Four; SIDE];

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Covariance {
    size: usize,
    /// Row by row up to the diagonal, whose blocks are whole.
    blocks: Vec<Block>,
}

impl Covariance {
    /// One row and column more: zero, with this on the diagonal.
    pub fn grow(&mut self, diagonal: f64) {
        let (row, at) = (self.size / SIDE, self.size % SIDE);
        if at == 0 {
            self.blocks.resize(self.blocks.len() + row + 1, [[0.0; SIDE]; SIDE]);
        }
        if let Some(place) = self.blocks.last_mut().and_then(|block| block.get_mut(at)?.get_mut(at)) {
            *place = diagonal;
        }
        self.size += 1;
    }

    /// `px` becomes this times `x`. Both are filled up with zeros.
    pub fn times(&self, x: &[Four], px: &mut [Four]) {
        px.fill([0.0; SIDE]);
        let mut rest = self.blocks.as_slice();
        for (i, xi) in x.iter().enumerate() {
            let Some((row, below)) = rest.split_at_checked(i + 1) else { return };
            rest = below;
            let Some((diagonal, row)) = row.split_last() else { return };
            let mut sums = [[0.0; SIDE]; SIDE];
            // Each block stands for its mirror image too.
            for ((block, xj), pj) in row.iter().zip(x).zip(px.iter_mut()) {
                let mut mirrored = *pj;
                for ((line, sum), x) in block.iter().zip(&mut sums).zip(xi) {
                    add(sum, line, xj);
                    add(&mut mirrored, line, &[*x; SIDE]);
                }
                *pj = mirrored;
            }
            diagonal.iter().zip(&mut sums).for_each(|(line, sum)| add(sum, line, xi));
            if let Some(pi) = px.get_mut(i) {
                for (p, [a, b, c, d]) in pi.iter_mut().zip(sums) {
                    *p += (a + b) + (c + d);
                }
            }
        }
    }

    /// (this - v v') times `keep`.
    pub fn take(&mut self, v: &[Four], keep: f64) {
        let mut rest = self.blocks.as_mut_slice();
        for (i, vi) in v.iter().enumerate() {
            let Some((row, below)) = rest.split_at_mut_checked(i + 1) else { return };
            rest = below;
            for (block, vj) in row.iter_mut().zip(v) {
                for (line, v) in block.iter_mut().zip(vi) {
                    for (p, other) in line.iter_mut().zip(vj) {
                        *p = (*p - v * other) * keep;
                    }
                }
            }
        }
    }

    pub fn scale(&mut self, by: f64) {
        self.blocks.as_flattened_mut().as_flattened_mut().iter_mut().for_each(|p| *p *= by);
    }

    /// The sum of the diagonal; not a number when one of it is not above zero.
    pub fn trace(&self) -> f64 {
        let diagonal = (0..self.size).map(|i| self.get(i, i));
        diagonal.map(|p| if p > 0.0 { p } else { f64::NAN }).sum()
    }

    pub fn get(&self, row: usize, column: usize) -> f64 {
        let (row, column) = (row.max(column), row.min(column));
        let (i, j) = (row / SIDE, column / SIDE);
        let block = self.blocks.get(i * (i + 1) / 2 + j);
        block.and_then(|block| block.get(row % SIDE)?.get(column % SIDE)).copied().unwrap_or(0.0)
    }

    /// Fills `into` with a column.
    pub fn column(&self, column: usize, into: &mut [Four]) {
        for (row, place) in into.as_flattened_mut().iter_mut().enumerate() {
            *place = self.get(row, column);
        }
    }
}

fn add(to: &mut Four, one: &Four, other: &Four) {
    for ((to, one), other) in to.iter_mut().zip(one).zip(other) {
        *to += one * other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_what_a_whole_matrix_does() {
        for size in 1..14usize {
            let (mut covariance, mut whole) = (Covariance::default(), vec![vec![0.0; size]; size]);
            for (i, row) in whole.iter_mut().enumerate() {
                covariance.grow(1.0 + i as f64);
                row[i] = 1.0 + i as f64;
            }
            for turn in 0..5usize {
                let entry = |i: usize| ((i * 7 + turn * 3) as f64).sin();
                let mut x = vec![[0.0; SIDE]; size.div_ceil(SIDE)];
                x.as_flattened_mut().iter_mut().take(size).enumerate().for_each(|(i, x)| *x = entry(i));
                let mut px = x.clone();
                covariance.times(&x, &mut px);
                for (i, row) in whole.iter().enumerate() {
                    let sum: f64 = row.iter().enumerate().map(|(j, p)| p * entry(j)).sum();
                    assert!((sum - px.as_flattened()[i]).abs() < 1e-12);
                }
                covariance.take(&x, 0.9);
                for (i, row) in whole.iter_mut().enumerate() {
                    row.iter_mut().enumerate().for_each(|(j, p)| *p = (*p - entry(i) * entry(j)) * 0.9);
                }
                let mut column = x.clone();
                covariance.column(size / 2, &mut column);
                for (i, row) in whole.iter().enumerate() {
                    assert!(row.iter().enumerate().all(|(j, p)| (p - covariance.get(i, j)).abs() < 1e-12));
                    assert_eq!(column.as_flattened()[i], covariance.get(i, size / 2));
                }
                assert!(column.as_flattened().iter().skip(size).all(|p| *p == 0.0));
            }
        }
    }
}
