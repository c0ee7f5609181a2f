//! Samples drawn by hash: the same whatever the order in which shares arrive.

use std::collections::BTreeMap;

/// The things with the smallest hashes: as if drawn by chance, and always the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<T> {
    most: usize,
    kept: BTreeMap<u64, T>,
    lost: bool,
}

impl<T> Sample<T> {
    pub fn new(most: usize) -> Sample<T> {
        Sample { most, kept: BTreeMap::new(), lost: false }
    }

    /// The place of what has this hash, if it is in the sample: it is from the first time on, or never.
    pub fn place(&mut self, hash: u64, new: impl FnOnce() -> T) -> Option<&mut T> {
        let fresh = !self.kept.contains_key(&hash);
        if fresh {
            self.kept.insert(hash, new());
            if self.kept.len() > self.most {
                self.lost = true;
                self.kept.pop_last();
            }
        }
        self.kept.get_mut(&hash)
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.kept.values()
    }

    /// Whether all that ever came is in it.
    pub fn is_whole(&self) -> bool {
        !self.lost
    }

    /// How many different ones came: exact while all are in it, else as the largest hash tells
    /// (Bar-Yossef et al., "Counting distinct elements in a data stream", 2002).
    pub fn estimate(&self) -> f64 {
        match self.kept.last_key_value() {
            Some((largest, _)) if self.lost => {
                (self.most as f64 - 1.0) / ((*largest as f64 + 1.0) / 2f64.powi(64))
            }
            Some(_) | None => self.kept.len() as f64,
        }
    }
}

pub fn hash(bytes: &[u8]) -> u64 {
    let digest = blake3::hash(bytes);
    digest.as_bytes().iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_the_same_in_whatever_order_it_comes() {
        let names: Vec<String> = (0..5000).map(|i| format!("key {i}")).collect();
        let (mut forth, mut back) = (Sample::new(100), Sample::new(100));
        let add = |sample: &mut Sample<u64>, name: &String| {
            if let Some(count) = sample.place(hash(name.as_bytes()), || 0) {
                *count += 1;
            }
        };
        names.iter().chain(&names).for_each(|name| add(&mut forth, name));
        names.iter().rev().chain(&names).for_each(|name| add(&mut back, name));
        assert_eq!(forth, back);
        assert_eq!((forth.iter().count(), forth.iter().all(|count| *count == 2)), (100, true));
        assert!(!forth.is_whole() && (3500.0..7000.0).contains(&forth.estimate()), "{}", forth.estimate());
    }
}
