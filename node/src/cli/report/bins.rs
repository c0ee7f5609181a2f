//! Sums by time, in bins that grow together. Where they end up does not depend on the order in which
//! shares arrive.

use std::collections::BTreeMap;

use dunlin_protocol::time::Time;

/// Bins that hold something, at most. Beyond: all become twice as wide.
const BINS_MAX: usize = 360;

/// Things that can be put together.
pub trait Join {
    fn join(&mut self, other: Self);
}

/// One `T` for each stretch of time; all stretches are as wide, and begin at multiples of their width.
#[derive(Debug, Clone, PartialEq)]
pub struct Bins<T> {
    /// The width is so many doublings of a millisecond.
    doublings: u32,
    bins: BTreeMap<u64, T>,
}

impl<T> Default for Bins<T> {
    fn default() -> Self {
        Bins { doublings: 0, bins: BTreeMap::new() }
    }
}

impl<T: Join> Bins<T> {
    pub fn add(&mut self, at: Time, one: T) {
        match self.bins.get_mut(&(at.0 >> self.doublings)) {
            Some(bin) => bin.join(one),
            None => _ = self.bins.insert(at.0 >> self.doublings, one),
        }
        while self.bins.len() > BINS_MAX && self.doublings < 63 {
            self.doublings += 1;
            for (place, bin) in std::mem::take(&mut self.bins) {
                match self.bins.get_mut(&(place >> 1)) {
                    Some(wider) => wider.join(bin),
                    None => _ = self.bins.insert(place >> 1, bin),
                }
            }
        }
    }

    /// Each with the middle of its stretch, in milliseconds, in order.
    pub fn iter(&self) -> impl Iterator<Item = (f64, &T)> {
        let width = (1u64 << self.doublings) as f64;
        self.bins.iter().map(move |(place, bin)| ((*place as f64 + 0.5) * width, bin))
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.bins.values()
    }

    pub fn len(&self) -> usize {
        self.bins.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Join for u64 {
        fn join(&mut self, other: u64) {
            *self += other;
        }
    }

    #[test]
    fn bins_hold_everything_within_their_bound_in_whatever_order_it_comes() {
        let times: Vec<Time> = (0..20_000u64).map(|i| Time(1_700_000_000_000 + i * 60_000)).collect();
        let (mut forth, mut back) = (Bins::default(), Bins::default());
        times.iter().for_each(|at| forth.add(*at, 1u64));
        times.iter().rev().for_each(|at| back.add(*at, 1u64));
        assert_eq!(forth, back);
        assert_eq!(forth.values().sum::<u64>(), 20_000);
        assert!((BINS_MAX / 4..=BINS_MAX).contains(&forth.len()), "{}", forth.len());
        assert!(forth.iter().zip(forth.iter().skip(1)).all(|(one, next)| one.0 < next.0));
    }
}
