//! How a learning stage does, in few numbers that anybody may read: what `dunlin show` prints.
//!
//! A share keeps it under [`KEY`] in its state, as JSON, written with whatever a batch settled: errors
//! of all keys by target and horizon over everything ever settled, beside the last value's, and their
//! course in stretches of as many outcomes each.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::operator::State;

/// Where it stands in a share's state. Keys that begin with a zero byte are the stage's own.
pub const KEY: &[u8] = b"\0u";
/// Stretches of the course. Beyond: two become one, and all are twice as long.
const STRETCHES_MAX: usize = 32;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Running {
    pub targets: Vec<OfTarget>,
    #[serde(skip)]
    read: bool,
    #[serde(skip)]
    changed: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfTarget {
    pub name: String,
    pub horizons: Vec<OfHorizon>,
    /// How often the errors of the first horizon had begun to grow.
    pub drifts: u64,
    pub course: Course,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfHorizon {
    pub ahead: Ahead,
    pub n: u64,
    pub absolute: f64,
    pub absolute_last_value: f64,
}

/// How far a horizon lies ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ahead {
    /// The label says when it is known.
    Known,
    Steps(u64),
    Millis(u64),
}

/// Errors of the first horizon, stretch by stretch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// Outcomes of a stretch.
    pub each: u64,
    /// Sums of errors; the last one may not be full.
    pub sums: Vec<f64>,
    /// Outcomes of the last stretch.
    pub last: u64,
}

impl Default for Course {
    fn default() -> Self {
        Course { each: 1, sums: Vec::new(), last: 0 }
    }
}

impl Course {
    fn add(&mut self, error: f64) {
        if self.sums.is_empty() || self.last >= self.each {
            if self.sums.len() >= STRETCHES_MAX {
                let joined = self.sums.chunks(2).map(|two| two.iter().fold(0.0, |sum, one| add(sum, *one)));
                self.sums = joined.collect();
                self.each = self.each.saturating_mul(2);
            }
            self.sums.push(0.0);
            self.last = 0;
        }
        self.last += 1;
        if let Some(sum) = self.sums.last_mut() {
            *sum = add(*sum, error);
        }
    }

    /// The mean error of each stretch.
    pub fn means(&self) -> Vec<f64> {
        let last = self.sums.len().saturating_sub(1);
        let of = |index: usize| if index == last { self.last } else { self.each };
        self.sums.iter().enumerate().map(|(index, sum)| sum / of(index).max(1) as f64).collect()
    }
}

/// An error, and the last value's.
pub type Pair = (f64, f64);

impl Running {
    /// As a share keeps it; none when it is not that.
    pub fn of(value: &[u8]) -> Option<Running> {
        serde_json::from_slice(value).ok()
    }

    /// Once before the first batch.
    pub fn read(&mut self, state: &mut dyn State) {
        if !self.read {
            *self = state.get(KEY).and_then(|value| Running::of(&value)).unwrap_or_default();
            self.read = true;
        }
    }

    /// Drifts were marked of `name`.
    pub fn drifted(&mut self, name: &str, drifts: u64) {
        if drifts > 0 {
            self.target(name).into_iter().for_each(|target| target.drifts += drifts);
        }
    }

    /// An outcome of `name`: by horizon how far ahead it lay, and the errors.
    pub fn settled(&mut self, name: &str, errors: impl Iterator<Item = (Ahead, Pair)>) {
        let Some(target) = self.target(name) else { return };
        for (index, (ahead, (error, last_value))) in errors.enumerate() {
            if index == 0 {
                target.course.add(error);
            }
            if target.horizons.len() <= index {
                target.horizons.push(OfHorizon { ahead, n: 0, absolute: 0.0, absolute_last_value: 0.0 });
            }
            if let Some(horizon) = target.horizons.get_mut(index) {
                horizon.n += 1;
                horizon.absolute = add(horizon.absolute, error);
                horizon.absolute_last_value = add(horizon.absolute_last_value, last_value);
            }
        }
    }

    fn target(&mut self, name: &str) -> Option<&mut OfTarget> {
        self.changed = true;
        let place = match self.targets.iter().position(|target| target.name == name) {
            Some(place) => place,
            None => {
                let (name, horizons) = (name.to_owned(), Vec::new());
                self.targets.push(OfTarget { name, horizons, drifts: 0, course: Course::default() });
                self.targets.len() - 1
            }
        };
        self.targets.get_mut(place)
    }

    /// After a batch.
    pub fn write(&mut self, state: &mut dyn State) {
        if std::mem::take(&mut self.changed) {
            // Plain numbers and texts always serialise.
            state.put(KEY, Bytes::from(serde_json::to_vec(self).unwrap_or_default()));
        }
    }
}

/// Sums stay finite, so that JSON holds them.
fn add(sum: f64, more: f64) -> f64 {
    (sum + if more.is_finite() { more } else { f64::MAX }).min(f64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_state::MemoryState;

    #[test]
    fn it_comes_back_from_state_bit_for_bit_and_its_course_is_bounded() {
        let (mut running, mut state) = (Running::default(), MemoryState::new());
        for i in 0..1000u32 {
            running.read(&mut state);
            let error = f64::from(i % 7) / 3.0;
            let horizons = [(Ahead::Steps(1), (error, 1.0)), (Ahead::Steps(2), (2.0 * error, f64::MAX))];
            running.drifted("v", u64::from(i % 100 == 0));
            running.settled("v", horizons.into_iter());
            running.write(&mut state);
            state.stage();
            state.commit();
            if i % 10 == 0 {
                let kept = running.clone();
                running = Running::default();
                running.read(&mut state);
                assert_eq!(running, kept);
            }
        }
        let [target] = &running.targets[..] else { panic!("{running:?}") };
        assert_eq!((target.horizons.len(), target.horizons[0].n, target.drifts), (2, 1000, 10));
        assert_eq!(target.horizons[1].absolute_last_value, f64::MAX);
        let means = target.course.means();
        assert!((16..=STRETCHES_MAX).contains(&means.len()), "{means:?}");
        assert!(means.iter().all(|mean| (mean - 1.0).abs() < 0.2), "{means:?}");
    }
}
