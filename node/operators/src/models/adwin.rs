//! Whether a mean has changed: a window that grows while it has not and is cut where it has (ADWIN:
//! Bifet and Gavaldà, "Learning from time-changing data with adaptive windowing", 2007).
//!
//! The window is kept as buckets of 1, 2, 4, … numbers, a few of each, so it costs the logarithm of
//! its length. Numbers are expected between 0 and 1.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::moments::Moments;

/// Buckets of one size at most; one more, and the two oldest become one of twice the size.
const OF_A_SIZE: usize = 5;
/// Sizes at most. Beyond, the oldest are forgotten: a window of some 2^32 numbers.
const SIZES_MAX: usize = 30;
/// Numbers between two looks, and numbers on each side of a cut at least.
const LOOK: u64 = 32;
const SIDE_MIN: f64 = 5.0;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adwin {
    /// How often it is wrong where nothing changes, at most, for each look.
    delta: f64,
    /// By size, the newest first in each.
    sizes: Vec<VecDeque<Moments>>,
    seen: u64,
}

/// The means on both sides of where the window was cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    pub before: f64,
    pub after: f64,
}

impl Adwin {
    pub fn new(delta: f64) -> Adwin {
        Adwin { delta, sizes: Vec::new(), seen: 0 }
    }

    /// Numbers in the window.
    pub fn len(&self) -> f64 {
        self.sizes.iter().flatten().map(|bucket| bucket.n).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// The mean of the window.
    pub fn mean(&self) -> f64 {
        self.all().mean
    }

    /// Takes a number in. A change: what came before it is forgotten.
    pub fn learn(&mut self, number: f64) -> Option<Change> {
        if !number.is_finite() {
            return None;
        }
        self.seen += 1;
        let mut bucket = Moments::default();
        bucket.add(number.clamp(0.0, 1.0), 1.0);
        self.push(bucket);
        if !self.seen.is_multiple_of(LOOK) {
            return None;
        }
        let mut change = None;
        while let Some(found) = self.look() {
            change = Some(found);
            self.forget_oldest();
        }
        change
    }

    fn push(&mut self, bucket: Moments) {
        let mut carried = Some(bucket);
        for size in 0..SIZES_MAX {
            let Some(bucket) = carried.take() else { return };
            if self.sizes.len() == size {
                self.sizes.push(VecDeque::new());
            }
            let Some(buckets) = self.sizes.get_mut(size) else { return };
            buckets.push_front(bucket);
            if buckets.len() > OF_A_SIZE
                && let (Some(mut older), Some(newer)) = (buckets.pop_back(), buckets.pop_back())
            {
                older.join(&newer);
                carried = Some(older);
            }
        }
    }

    fn all(&self) -> Moments {
        let mut all = Moments::default();
        self.sizes.iter().flatten().for_each(|bucket| all.join(bucket));
        all
    }

    /// Looks for a place where the means before and after differ by more than chance allows.
    fn look(&self) -> Option<Change> {
        let all = self.all();
        if all.n < 2.0 * SIDE_MIN {
            return None;
        }
        let surprise = (2.0 * all.n.ln() / self.delta).ln();
        let (mut before, mut after) = (Moments::default(), all);
        for bucket in self.sizes.iter().rev().flat_map(|buckets| buckets.iter().rev()) {
            before.join(bucket);
            after.leave(bucket);
            if before.n < SIDE_MIN || after.n < SIDE_MIN {
                continue;
            }
            let rare = 1.0 / (before.n - SIDE_MIN + 1.0) + 1.0 / (after.n - SIDE_MIN + 1.0);
            let bound = (2.0 * rare * all.variance() * surprise).sqrt() + 2.0 / 3.0 * surprise * rare;
            if (before.mean - after.mean).abs() > bound {
                return Some(Change { before: before.mean, after: after.mean });
            }
        }
        None
    }

    fn forget_oldest(&mut self) {
        if let Some(largest) = self.sizes.last_mut() {
            largest.pop_back();
        }
        while self.sizes.last().is_some_and(VecDeque::is_empty) {
            self.sizes.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::draw::Draws;
    use super::*;

    #[test]
    fn a_steady_mean_is_left_alone_and_its_window_grows() {
        let (mut adwin, mut draws) = (Adwin::new(0.002), Draws::new(1, 0));
        let changes = (0..50_000).filter(|_| adwin.learn(draws.part()).is_some()).count();
        assert!(changes <= 1, "{changes}");
        assert!(adwin.len() > 20_000.0 && (adwin.mean() - 0.5).abs() < 0.01);
        assert!(adwin.sizes.len() < 20);
    }

    #[test]
    fn a_change_is_found_soon_and_what_came_before_forgotten() {
        let (mut adwin, mut draws) = (Adwin::new(0.002), Draws::new(2, 0));
        let mut one = |share: f64, adwin: &mut Adwin| adwin.learn(f64::from(u8::from(draws.part() < share)));
        assert!((0..2000).all(|_| one(0.2, &mut adwin).is_none()));
        let after = (0..1000).position(|_| one(0.5, &mut adwin).is_some_and(|c| c.after > c.before));
        assert!(after.is_some_and(|after| after < 150), "{after:?}");
        (0..1000).for_each(|_| {
            one(0.5, &mut adwin);
        });
        assert!(
            (adwin.mean() - 0.5).abs() < 0.06 && adwin.len() < 1500.0,
            "{} {}",
            adwin.mean(),
            adwin.len()
        );
    }
}
