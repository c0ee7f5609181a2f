//! The lines of a share: all that is linear in a row's numbers, and what an outcome teaches it.

use serde::{Deserialize, Serialize};

use super::lately::{SHORT, SPANS};
use super::median::MedianLine;
use super::notes::Lesson;
use super::rls::Line;

/// Numbers that the robust lines take at most of the row's own, the constant included.
pub const PLAIN_MAX: usize = 28;
/// Encoded tokens that the lines take at most.
pub const ENCODED_MAX: usize = 18;
/// Inputs of the logistic line that stand before those of the other lines.
pub const CHANCES: usize = ENCODED_MAX + 1;
/// Variances of coefficients before anything is known: of the lines, and of those on what was left over.
const RIDGE: f64 = 0.5;
const RIDGE_LATELY: f64 = 0.02;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Lines {
    pub rls: Line,
    /// Robust lines: on the row's own numbers; with the long means of what that left over; and with
    /// the short ones of what this left over.
    pub plain: Line,
    usual: Line,
    pub lately: Line,
    pub median: MedianLine,
    pub logistic: Line,
}

impl Lines {
    pub fn new() -> Lines {
        Lines {
            rls: Line::new(0.9998, RIDGE),
            plain: Line::new(0.9998, RIDGE_LATELY),
            usual: Line::new(0.9999, RIDGE_LATELY),
            lately: Line::new(0.9999, RIDGE_LATELY),
            median: MedianLine::default(),
            logistic: Line::new(0.9998, RIDGE),
        }
    }

    /// What was learned from another anchor is of no use.
    pub fn restart(&mut self) {
        let Lines { rls, plain, usual, lately, .. } = self;
        [rls, plain, usual, lately].into_iter().for_each(Line::restart);
        self.median = MedianLine::default();
    }

    /// What the usual line lacks now, where it learns: what it lacked at the prediction is not what is
    /// unlike it.
    pub fn learn(&mut self, lesson: &Lesson<'_>) -> Option<f64> {
        let Lesson { change, asked, chance, inputs, wide } = *lesson;
        let x = lines(inputs);
        if asked.rls {
            self.rls.fit(x, change);
        }
        let mut lacks = None;
        if asked.lately {
            let usual = usual(wide);
            self.plain.fit_robust(plain(wide), change);
            self.usual.fit_robust(&usual, change);
            self.lately.fit_robust(wide, change);
            lacks = Some(change - self.usual.predict(&usual));
        }
        if asked.median {
            self.median.fit(x, change);
        }
        if let Some((offset, happened)) = chance {
            self.logistic.fit_offset(inputs, offset, happened);
        }
        lacks
    }
}

/// What of a prediction's inputs all lines take.
pub fn lines(inputs: &[f32]) -> &[f32] {
    inputs.get(CHANCES..).unwrap_or(&[])
}

/// The row's own numbers.
pub fn plain(wide: &[f32]) -> &[f32] {
    wide.get(..PLAIN_MAX).unwrap_or(wide)
}

/// The row's own numbers, and the long means of what they left over.
fn usual(wide: &[f32]) -> Vec<f32> {
    let (plain, groups) = wide.split_at_checked(PLAIN_MAX).unwrap_or((wide, &[]));
    let long = groups.chunks(SPANS).flat_map(|spans| spans.iter().skip(SHORT));
    plain.iter().chain(long).copied().collect()
}
