//! How often a series is observed, and which calendar period it may repeat with.
//!
//! The step is the median of recent gaps. Periods of the calendar that hold a whole number of steps
//! are candidates; each is judged by how well "as one period ago" would have said the next value, and
//! the best one so far is the season. A challenger must be clearly better than what is in use.

use dunlin_protocol::time::Time;
use serde::{Deserialize, Serialize};

use super::past::Past;

const MINUTE: f64 = 60_000.0;
const HOUR: f64 = 60.0 * MINUTE;
const DAY: f64 = 24.0 * HOUR;
/// In the order in which they are tried.
const PERIODS: [f64; 5] = [DAY, HOUR, 7.0 * DAY, MINUTE, 365.25 * DAY];
/// Steps of a season.
const STEPS_MIN: f64 = 4.0;
pub const STEPS_MAX: usize = 336;
/// Gaps that the step is the median of, and how often it is looked at.
const GAPS: usize = 31;
const LOOK: u64 = 4;
/// How far a period may be from a whole number of steps, in steps.
const UNEVEN: f64 = 0.25;
/// A challenger's error must be under this share of the incumbent's.
const BETTER: f64 = 0.9;
/// Steps that errors are remembered for.
const MEMORY: f64 = 400.0;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Season {
    gaps: Vec<f64>,
    next: usize,
    step: f64,
    candidates: Vec<Candidate>,
    chosen: Option<usize>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Candidate {
    period: f64,
    steps: usize,
    error: f64,
    seen: f64,
}

impl Candidate {
    fn judge(&mut self, error: f64) {
        self.seen = (self.seen + 1.0).min(MEMORY);
        self.error += (error - self.error) / self.seen;
    }
}

impl Season {
    /// Its length in steps, once one is in use.
    pub fn steps(&self) -> Option<usize> {
        self.candidates.get(self.chosen?).map(|chosen| chosen.steps)
    }

    /// Where in the season an instant lies, as a part of the whole.
    pub fn phase(&self, at: Time) -> Option<f64> {
        let chosen = self.candidates.get(self.chosen?)?;
        Some((at.0 as f64 % chosen.period) / chosen.period)
    }

    /// Looks at the next value before it joins its `past`. True: another season is in use, or none.
    pub fn observe(&mut self, at: Time, value: f64, error_max: f64, past: &Past) -> bool {
        let Some(before) = past.last_at() else { return false };
        for candidate in &mut self.candidates {
            if let Some(other) = past.back(candidate.steps - 1) {
                candidate.judge((value - other).abs().min(error_max));
            }
        }
        let gap = at.since(before).0 as f64;
        if self.gaps.len() < GAPS {
            self.gaps.push(gap);
        } else if let Some(place) = self.gaps.get_mut(self.next) {
            *place = gap;
        }
        self.next = (self.next + 1) % GAPS;
        if self.gaps.len() < 3 || !past.seen().is_multiple_of(LOOK) {
            return false;
        }
        self.look()
    }

    fn look(&mut self) -> bool {
        let mut sorted = self.gaps.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let step = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
        let before = self.steps();
        if (step - self.step).abs() > 0.02 * self.step {
            self.step = step;
            self.candidates.clear();
            self.chosen = None;
            for period in PERIODS.iter().filter(|_| step > 0.0) {
                let (steps, exact) = ((period / step).round(), period / step);
                if (STEPS_MIN..=STEPS_MAX as f64).contains(&steps) && (steps - exact).abs() < UNEVEN {
                    let steps = steps as usize;
                    self.candidates.push(Candidate { period: *period, steps, ..Candidate::default() });
                }
            }
        }
        let judged = |candidate: &Candidate| candidate.seen >= (candidate.steps as f64 / 8.0).max(4.0);
        let error = |index: usize| self.candidates.get(index).filter(|c| judged(c)).map(|c| c.error);
        for index in 0..self.candidates.len() {
            let Some(mine) = error(index) else { continue };
            if self.chosen.and_then(error).is_none_or(|other| mine < BETTER * other) {
                self.chosen = Some(index);
            }
        }
        self.steps() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn season(step: u64, value: impl Fn(u64) -> f64, n: u64) -> Season {
        let (mut season, mut past) = (Season::default(), Past::default());
        for i in 0..n {
            let at = Time(1_600_000_000_000 + i * step);
            season.observe(at, value(i), f64::MAX, &past);
            past.push(at, value(i));
        }
        season
    }

    #[test]
    fn finds_the_day_of_hours_and_the_week_where_it_says_more() {
        let hour = 3_600_000;
        assert_eq!(season(hour, |i| (i % 24) as f64, 200).steps(), Some(24));
        assert_eq!(season(hour, |i| (i % 168 / 24 * 7) as f64, 800).steps(), Some(168));
        assert_eq!(season(24 * hour, |i| (i % 7) as f64, 200).steps(), Some(7));
        assert_eq!(season(1000, |i| i as f64, 200).steps(), Some(60));
        assert_eq!(season(77_777, |i| i as f64, 20).steps(), None, "less than a season was seen");
    }

    #[test]
    fn gaps_of_zero_are_no_step() {
        assert_eq!(season(0, |i| i as f64, 100).steps(), None);
    }
}
