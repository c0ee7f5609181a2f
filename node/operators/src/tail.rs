//! How unusual a number is among those before it: the chance of one at least so far out.
//!
//! Within what was seen it is a rank among the recent ones (a conformal p-value: calibrated whatever the
//! numbers are, as long as they are alike). Beyond, where ranks say nothing more, the largest of them
//! tell how the tail goes on: a generalised Pareto tail over a threshold, by probability-weighted
//! moments (Hosking and Wallis, "Parameter and quantile estimation for the generalized Pareto
//! distribution", 1987; for streams: Siffer et al., "Anomaly detection in streams with extreme value
//! theory", 2017). What comes enters the recent ones, so a new usual is learned.

use serde::{Deserialize, Serialize};

/// Numbers that are remembered.
const RECENT: usize = 256;
/// A tail is fitted to this part of them, and to no fewer than so many.
const TAIL: f64 = 0.1;
const TAIL_MIN: usize = 10;
/// How heavy a tail may be, and how light: between an exponential one and one without a mean.
const SHAPE_MAX: f64 = 0.9;
/// No chance is smaller: what was never seen is not impossible.
const LEAST: f64 = 1e-12;

/// Which numbers are unusual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sides {
    /// Large ones.
    Upper,
    /// Large and small ones.
    Both,
}

/// The recent numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tail {
    /// A ring, once it is full: the next one takes the place of the oldest.
    recent: Vec<f64>,
    oldest: u32,
}

impl Tail {
    /// Above 0 and at most 1; 1 until something is known.
    pub fn probability(&self, number: f64, sides: Sides) -> f64 {
        if !number.is_finite() {
            return 1.0;
        }
        let upper = chance(&self.recent, number, |one| one);
        match sides {
            Sides::Upper => upper,
            Sides::Both => {
                let lower = chance(&self.recent, -number, |one| -one);
                (2.0 * upper.min(lower)).min(1.0)
            }
        }
    }

    pub fn learn(&mut self, number: f64) {
        if !number.is_finite() {
            return;
        }
        if self.recent.len() < RECENT {
            self.recent.push(number);
        } else if let Some(place) = self.recent.get_mut(self.oldest as usize) {
            *place = number;
            self.oldest = (self.oldest + 1) % RECENT as u32;
        }
    }
}

/// The chance of one at least as large as `number`, among `recent` as `of` sees them.
fn chance(recent: &[f64], number: f64, of: impl Fn(f64) -> f64) -> f64 {
    let (mut above, mut equal) = (0usize, 0usize);
    for one in recent {
        above += usize::from(of(*one) > number);
        equal += usize::from(of(*one) == number);
    }
    // The number itself is one of them, and stands in the middle of its equals.
    let rank = (above as f64 + 0.5 * equal as f64 + 0.5) / (recent.len() as f64 + 1.0);
    let tail = (recent.len() as f64 * TAIL) as usize;
    if tail < TAIL_MIN || above + equal > 0 {
        return rank;
    }
    let mut all: Vec<f64> = recent.iter().map(|one| of(*one)).collect();
    let (largest, threshold, _) = all.select_nth_unstable_by(tail, |one, other| other.total_cmp(one));
    largest.sort_unstable_by(f64::total_cmp);
    let (n, threshold) = (tail as f64, *threshold);
    let (mut first, mut second) = (0.0, 0.0);
    for (index, one) in largest.iter().enumerate() {
        let excess = (one - threshold) / n;
        first += excess;
        second += (1.0 - (index as f64 + 0.65) / n) * excess;
    }
    let over = number - threshold;
    let between = first - 2.0 * second;
    if !(first > 0.0 && first.is_finite() && over >= 0.0) {
        return rank;
    }
    let shape = if between > 0.0 { (2.0 - first / between).clamp(0.0, SHAPE_MAX) } else { SHAPE_MAX };
    // The scale that goes with the mean excess.
    let scale = first * (1.0 - shape);
    let beyond = match shape < 1e-6 {
        true => (-over / scale).exp(),
        false => (1.0 + shape * over / scale).powf(-1.0 / shape),
    };
    let chance = n / (recent.len() as f64 + 1.0) * beyond;
    // None was so large: that alone says as much as its rank.
    if chance.is_finite() { chance.clamp(LEAST, rank) } else { LEAST }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::draws;

    /// Among many numbers, the part whose probability is below each of these.
    fn below(levels: &[f64], mut next: impl FnMut(f64) -> f64) -> Vec<f64> {
        let (mut tail, mut draw) = (Tail::default(), draws(3));
        let mut counts = vec![0.0; levels.len()];
        const N: usize = 60_000;
        for _ in 0..N {
            let number = next(draw());
            let p = tail.probability(number, Sides::Both);
            assert!(p > 0.0 && p <= 1.0, "{p}");
            counts
                .iter_mut()
                .zip(levels)
                .for_each(|(count, level)| *count += f64::from(u8::from(p < *level)));
            tail.learn(number);
        }
        counts.iter().map(|count| count / N as f64).collect()
    }

    /// What is called so rare is about so rare, for light and heavy tails.
    #[test]
    fn probabilities_hold_what_they_say() {
        let uniform = |u: f64| u;
        let exponential = |u: f64| -(1.0 - u).ln();
        // Student's t with two degrees: no variance.
        let heavy = |u: f64| (2.0 * u - 1.0) / (2.0 * u * (1.0 - u) + 1e-12).sqrt();
        for next in [uniform as fn(f64) -> f64, exponential, heavy] {
            let found = below(&[0.5, 0.1, 0.01, 0.001], next);
            for (found, (least, most)) in
                found.iter().zip([(0.47, 0.53), (0.08, 0.12), (0.004, 0.018), (0.0, 0.004)])
            {
                assert!((least..=most).contains(found), "{found}");
            }
        }
    }

    #[test]
    fn what_is_far_out_is_rare_and_what_is_usual_is_not() {
        let (mut tail, mut draw) = (Tail::default(), draws(4));
        assert_eq!(tail.probability(5.0, Sides::Both), 1.0);
        for _ in 0..1000 {
            tail.learn((0..12).map(|_| draw()).sum::<f64>() - 6.0);
        }
        assert!(tail.probability(0.0, Sides::Both) > 0.8);
        for far in [8.0, -8.0] {
            assert!(tail.probability(far, Sides::Both) < 1e-3, "{far}");
        }
        assert!(tail.probability(-8.0, Sides::Upper) > 0.99);
        for number in [f64::NAN, f64::INFINITY, f64::MAX, f64::MIN] {
            tail.learn(number);
            let p = tail.probability(number, Sides::Both);
            assert!(p > 0.0 && p <= 1.0, "{number}: {p}");
        }
    }

    #[test]
    fn where_nothing_ever_differs_the_first_that_does_is_rare() {
        let mut tail = Tail::default();
        (0..300).for_each(|_| tail.learn(0.0));
        assert_eq!(tail.probability(0.0, Sides::Both), 1.0);
        assert!(tail.probability(1e-9, Sides::Both) < 0.005);
    }
}
