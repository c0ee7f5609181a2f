//! What was left over lately, by category: decayed means of the residuals of the plain line, with
//! several time constants, for each category, each pair of them, and all together.
//!
//! Where many rows share what holds them up (an airport, a machine, a road), most of what a line on
//! the row itself cannot know is what the same category did in the last hours.

use std::collections::BTreeSet;

use dunlin_protocol::time::Time;

use super::pack::{self, Unpack};
use super::store::{self, Unreadable};
use crate::operator::State;

/// Groups of a row at most.
pub const GROUPS_MAX: usize = 8;
/// Time constants, in milliseconds: 1, 3 and 12 hours, 4 days and 4 weeks.
const CONSTANTS: [f64; SPANS] = [3.6e6, 1.08e7, 4.32e7, 3.456e8, 2.4192e9];
pub const SPANS: usize = 5;
/// How many outcomes a mean needs until it is believed by half.
const SHRINK: f64 = 1.0;
/// A residual counts for so many units at most.
const STRAY: f64 = 3.0;
/// Places of a share; two groups in one place share what they know.
const PLACES: usize = super::cells::CELLS as usize;

#[derive(Debug, Clone, PartialEq)]
struct Left {
    at: Time,
    sums: [f64; SPANS],
    weights: [f64; SPANS],
}

const NOTHING: Left = Left { at: Time(0), sums: [0.0; SPANS], weights: [0.0; SPANS] };

impl Left {
    fn fade(&self, at: Time) -> [f64; SPANS] {
        let passed = at.since(self.at).0 as f64;
        CONSTANTS.map(|constant| (-passed / constant).exp())
    }

    fn learn(&mut self, at: Time, residual: f64) {
        let at = at.max(self.at);
        let fade = self.fade(at);
        for ((sum, weight), fade) in self.sums.iter_mut().zip(&mut self.weights).zip(fade) {
            *sum = *sum * fade + residual;
            *weight = *weight * fade + 1.0;
        }
        self.at = at;
    }

    fn means(&self, at: Time) -> [f64; SPANS] {
        let mut means = self.fade(at);
        for ((mean, sum), weight) in means.iter_mut().zip(&self.sums).zip(&self.weights) {
            *mean = sum * *mean / (weight * *mean + SHRINK);
        }
        means
    }

    fn pack(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.at.0.to_le_bytes());
        pack::floats(out, &self.sums);
        pack::floats(out, &self.weights);
    }

    fn unpack(bytes: &[u8]) -> Option<Left> {
        let mut from = Unpack(bytes);
        let left = Left { at: Time(from.word()?), sums: from.floats()?, weights: from.floats()? };
        from.0.is_empty().then_some(left)
    }
}

/// The groups of a share that are in memory.
#[derive(Debug, Default)]
pub struct Lately {
    /// By place; none until it was asked for.
    places: Vec<Option<Left>>,
    changed: BTreeSet<u16>,
}

impl Lately {
    /// These places are in memory afterwards.
    pub fn load(
        &mut self,
        places: impl Iterator<Item = u16>,
        state: &mut dyn State,
    ) -> Result<(), Unreadable> {
        self.places.resize(PLACES, None);
        for number in places {
            let Some(place @ None) = self.places.get_mut(usize::from(number)) else { continue };
            *place = Some(match state.get(&store::lately_key(number)) {
                Some(bytes) => Left::unpack(store::body(&bytes)?)
                    .ok_or_else(|| Unreadable::cut("what was left over lately"))?,
                None => NOTHING,
            });
        }
        Ok(())
    }

    /// Of a loaded place.
    pub fn means(&self, number: u16, at: Time) -> [f64; SPANS] {
        match self.places.get(usize::from(number)) {
            Some(Some(left)) => left.means(at),
            _ => [0.0; SPANS],
        }
    }

    /// A residual, in units, known since `at`; its place is loaded.
    pub fn learn(&mut self, number: u16, at: Time, residual: f64) {
        if let Some(Some(left)) = self.places.get_mut(usize::from(number))
            && residual.is_finite()
        {
            left.learn(at, residual.clamp(-STRAY, STRAY));
            self.changed.insert(number);
        }
    }

    pub fn flush(&mut self, state: &mut dyn State) {
        for number in core::mem::take(&mut self.changed) {
            if let Some(Some(left)) = self.places.get(usize::from(number)) {
                store::put(state, &store::lately_key(number), |out| left.pack(out));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    #[test]
    fn short_means_forget_what_long_ones_keep() {
        let mut left = NOTHING;
        (0..50).for_each(|_| left.learn(Time(100 * HOUR), 2.0));
        let [hour, .., weeks] = left.means(Time(100 * HOUR));
        assert!(hour > 1.9 && weeks > 1.9);
        let [hour, .., weeks] = left.means(Time(112 * HOUR));
        assert!(hour < 0.01 && weeks > 1.9, "{hour} {weeks}");
        left.learn(Time(0), 2.0);
        assert_eq!(left.at, Time(100 * HOUR), "what comes late does not turn time back");
    }

    #[test]
    fn comes_back_bit_for_bit() {
        let mut left = NOTHING;
        left.learn(Time(7), 1.0 / 3.0);
        let mut bytes = Vec::new();
        left.pack(&mut bytes);
        assert_eq!(Left::unpack(&bytes), Some(left));
        assert_eq!(Left::unpack(&bytes[1..]), None);
    }
}
