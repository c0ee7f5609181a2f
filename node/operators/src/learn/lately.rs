//! What was left over lately, by category: decayed means of residuals, with several time constants,
//! for each category, each pair of them, each with the hour of the day, and all together.
//!
//! Where many rows share what holds them up (an airport, a machine, a road), most of what a line on
//! the row itself cannot know is what the same category did in the last hours. The long means hold what
//! the plain line left over: what a category is always like. The short ones hold what is left over
//! when that is known too: what is unlike it now.

use core::ops::Range;

use dunlin_protocol::time::Time;

use super::pack::{self, Unpack};
use super::store::{self, Unreadable};
use crate::operator::State;

/// Groups of a row at most.
pub const GROUPS_MAX: usize = 24;
/// Time constants, in milliseconds: 1, 3 and 12 hours, 4 days and 4 weeks.
const CONSTANTS: [f64; SPANS] = [3.6e6, 1.08e7, 4.32e7, 3.456e8, 2.4192e9];
pub const SPANS: usize = 5;
/// The first so many are the short ones.
pub const SHORT: usize = 3;
/// Those by which moves of series are told.
pub const MOVES: Range<usize> = 2..4;
/// How many outcomes a mean needs until it is believed by half.
const SHRINK: f64 = 1.0;
/// A residual counts for so many units at most.
const STRAY: f64 = 2.0;

/// An outcome against what two lines say, in units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Residual {
    /// Between the prediction and its outcome: what held it up did so then.
    pub of: Time,
    /// When the outcome was known.
    pub at: Time,
    /// Against the line that knows the row and the long means.
    pub short: f64,
    /// Against the line that knows the row alone.
    pub long: f64,
}

#[derive(Debug, Clone, PartialEq)]
struct Left {
    at: Time,
    sums: [f64; SPANS],
    weights: [f64; SPANS],
}

/// Bytes of it as it stands in state.
const PACKED: usize = 8 + 16 * SPANS;

const NOTHING: Left = Left { at: Time(0), sums: [0.0; SPANS], weights: [0.0; SPANS] };

impl Left {
    fn fade(&self, at: Time) -> [f64; SPANS] {
        let passed = at.since(self.at).0 as f64;
        CONSTANTS.map(|constant| (-passed / constant).exp())
    }

    fn learn(&mut self, residual: Residual) {
        let at = residual.at.max(self.at);
        let (fade, old) = (self.fade(at), at.since(residual.of).0 as f64);
        let counts = fade.iter().zip(CONSTANTS).enumerate();
        for ((sum, weight), (span, (fade, constant))) in
            self.sums.iter_mut().zip(&mut self.weights).zip(counts)
        {
            let counts = (-old / constant).exp();
            let left = if span < SHORT { residual.short } else { residual.long };
            *sum = *sum * fade + counts * left;
            *weight = *weight * fade + counts;
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
    /// By place, of which a share has 65,536; two groups in one place share what they know. All slots
    /// once one place was asked for; zero where nothing was.
    slots: Vec<u32>,
    /// One less than their slots.
    known: Vec<Known>,
    changed: Vec<u16>,
}

#[derive(Debug)]
struct Known {
    left: Left,
    changed: bool,
}

impl Lately {
    /// These places are in memory afterwards.
    pub fn load(
        &mut self,
        places: impl Iterator<Item = u16>,
        state: &mut dyn State,
    ) -> Result<(), Unreadable> {
        if self.slots.is_empty() {
            self.slots.resize(1 << 16, 0);
        }
        for number in places {
            let Some(slot @ 0) = self.slots.get_mut(usize::from(number)) else { continue };
            let left = match state.get(&store::lately_key(number)) {
                Some(bytes) => Left::unpack(store::body(&bytes)?)
                    .ok_or_else(|| Unreadable::cut("what was left over lately"))?,
                None => NOTHING,
            };
            self.known.push(Known { left, changed: false });
            *slot = self.known.len() as u32;
        }
        Ok(())
    }

    fn slot(&self, number: u16) -> Option<usize> {
        (*self.slots.get(usize::from(number))? as usize).checked_sub(1)
    }

    /// Of a loaded place.
    pub fn means(&self, number: u16, at: Time) -> [f64; SPANS] {
        let known = self.slot(number).and_then(|slot| self.known.get(slot));
        known.map_or([0.0; SPANS], |known| known.left.means(at))
    }

    /// The place is loaded.
    pub fn learn(&mut self, number: u16, residual: Residual) {
        let Residual { short, long, .. } = residual;
        if let Some(known) = self.slot(number).and_then(|slot| self.known.get_mut(slot))
            && short.is_finite()
            && long.is_finite()
        {
            let held = |value: f64| value.clamp(-STRAY, STRAY);
            known.left.learn(Residual { short: held(short), long: held(long), ..residual });
            if !known.changed {
                known.changed = true;
                self.changed.push(number);
            }
        }
    }

    pub fn flush(&mut self, state: &mut dyn State) {
        self.changed.sort_unstable();
        for number in core::mem::take(&mut self.changed) {
            if let Some(known) = self.slot(number).and_then(|slot| self.known.get_mut(slot)) {
                known.changed = false;
                store::put(state, &store::lately_key(number), PACKED, |out| known.left.pack(out));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn at(hours: u64, left: f64) -> Residual {
        let at = Time(hours * HOUR);
        Residual { of: at, at, short: left, long: left }
    }

    #[test]
    fn short_means_forget_what_long_ones_keep() {
        let mut left = NOTHING;
        (0..50).for_each(|_| left.learn(at(100, 2.0)));
        let [hour, .., weeks] = left.means(Time(100 * HOUR));
        assert!(hour > 1.9 && weeks > 1.9);
        let [hour, .., weeks] = left.means(Time(112 * HOUR));
        assert!(hour < 0.01 && weeks > 1.9, "{hour} {weeks}");
        left.learn(at(0, 2.0));
        assert_eq!(left.at, Time(100 * HOUR), "what comes late does not turn time back");
    }

    #[test]
    fn an_outcome_that_comes_late_says_little_of_the_last_hour() {
        let mut left = NOTHING;
        left.learn(Residual { of: Time(90 * HOUR), ..at(100, 2.0) });
        let [hour, .., weeks] = left.means(Time(100 * HOUR));
        assert!(hour < 0.001 && weeks > 0.9, "{hour} {weeks}");
    }

    #[test]
    fn comes_back_bit_for_bit() {
        let mut left = NOTHING;
        left.learn(at(7, 1.0 / 3.0));
        let mut bytes = Vec::new();
        left.pack(&mut bytes);
        assert_eq!(Left::unpack(&bytes), Some(left));
        assert_eq!(Left::unpack(&bytes[1..]), None);
    }
}
