//! Running metrics over everything that was settled, in constant memory.
//!
//! The AUC counts, for each settled pair, into 1,000 bins of probability; two predictions in one
//! bin count as equal, so it differs from the exact one by at most half the share of such pairs.

use serde::{Deserialize, Serialize};

const BINS: usize = 1000;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Scores {
    n: u64,
    /// Predictions that went out and will not be scored, since a bound was reached.
    pub unscored: u64,
    absolute: f64,
    absolute_last_value: f64,
    squared: f64,
    asked: u64,
    rises: u64,
    log_loss: f64,
    happened: Vec<u64>,
    not: Vec<u64>,
    /// Pairs in the right order, twice; equal ones once.
    ordered: u64,
}

/// What `running` says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Running {
    pub n: u64,
    /// Predictions that found no place to wait in: they are in none of these figures.
    pub unscored: u64,
    pub mae: f64,
    pub mae_last_value: f64,
    pub rmse: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auc: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_loss: Option<f64>,
}

impl Scores {
    pub fn add(&mut self, error: f64, error_last_value: f64, outcome: Option<(f64, bool)>) {
        self.n += 1;
        self.absolute = add(self.absolute, error);
        self.absolute_last_value = add(self.absolute_last_value, error_last_value);
        self.squared = add(self.squared, error * error);
        let Some((p, happened)) = outcome else { return };
        self.asked += 1;
        self.rises += u64::from(happened);
        let sure = if happened { p } else { 1.0 - p };
        self.log_loss -= sure.clamp(1e-6, 1.0).ln();
        self.happened.resize(BINS, 0);
        self.not.resize(BINS, 0);
        let bin = ((p * BINS as f64) as usize).min(BINS - 1);
        let (mine, other) =
            if happened { (&mut self.happened, &self.not) } else { (&mut self.not, &self.happened) };
        let equal = other.get(bin).copied().unwrap_or(0);
        let beyond: u64 =
            if happened { other.iter().take(bin).sum() } else { other.iter().skip(bin + 1).sum() };
        self.ordered = self.ordered.saturating_add(2 * beyond + equal);
        if let Some(count) = mine.get_mut(bin) {
            *count += 1;
        }
    }

    pub fn running(&self) -> Running {
        let n = self.n.max(1) as f64;
        let asked = self.asked > 0;
        let pairs = self.rises as f64 * self.asked.saturating_sub(self.rises) as f64;
        Running {
            n: self.n,
            unscored: self.unscored,
            mae: self.absolute / n,
            mae_last_value: self.absolute_last_value / n,
            rmse: (self.squared / n).sqrt(),
            auc: asked.then(|| if pairs > 0.0 { self.ordered as f64 / 2.0 / pairs } else { 0.5 }),
            log_loss: asked.then(|| self.log_loss / self.asked as f64),
        }
    }
}

/// Sums stay finite.
fn add(sum: f64, more: f64) -> f64 {
    (sum + if more.is_finite() { more } else { f64::MAX }).min(f64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binned_auc_is_the_counted_one() {
        let rows: Vec<(f64, bool)> = (0..300u64)
            .map(|i| ((i * 71 % 997) as f64 / 997.0, i * 31 % 7 < 2 + i * 71 % 997 / 300))
            .collect();
        let mut scores = Scores::default();
        rows.iter().for_each(|(p, y)| scores.add(1.0, 2.0, Some((*p, *y))));
        let (mut good, mut pairs) = (0.0, 0.0);
        for (p, _) in rows.iter().filter(|row| row.1) {
            for (q, _) in rows.iter().filter(|row| !row.1) {
                pairs += 1.0;
                good += if p > q {
                    1.0
                } else if p == q {
                    0.5
                } else {
                    0.0
                };
            }
        }
        assert!((scores.running().auc.unwrap() - good / pairs).abs() < 2e-3);
        assert_eq!((scores.running().mae, scores.running().mae_last_value), (1.0, 2.0));
    }
}
