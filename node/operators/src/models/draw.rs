//! Numbers as if by chance, from a seed: each is a hash of the seed and its place in the row of all
//! (SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draws {
    place: u64,
}

impl Draws {
    /// `which`: tells draws of one seed apart.
    pub fn new(seed: u64, which: u64) -> Draws {
        Draws { place: mixed(seed ^ mixed(which.wrapping_add(1))) }
    }

    pub fn number(&mut self) -> u64 {
        self.place = self.place.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.place)
    }

    /// From 0 up to, but not, 1.
    pub fn part(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Every bit of the number moves about half of those of the outcome.
pub fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_spread_and_differ_by_seed() {
        let of = |seed, which| {
            let mut draws = Draws::new(seed, which);
            (0..10_000).map(|_| draws.part()).collect::<Vec<f64>>()
        };
        let (one, other) = (of(1, 0), of(1, 1));
        assert_eq!(one, of(1, 0));
        assert!(one != other && one != of(2, 0));
        assert!((one.iter().sum::<f64>() / 10_000.0 - 0.5).abs() < 0.01);
    }
}
