//! How well the demo predicted: from the settled predictions of all shares together.

use serde::{Deserialize, Serialize};

/// Sums over settled predictions, and what the AUC is computed from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    pub settled: u64,
    error: f64,
    error_last_value: f64,
    /// (probability, whether it happened).
    chances: Vec<(f64, bool)>,
}

/// The fields of `STAGE.scores` that count here.
#[derive(Debug, Deserialize)]
struct Score {
    probability: Option<f64>,
    happened: Option<bool>,
    absolute_error: Option<f64>,
    absolute_error_last_value: Option<f64>,
}

impl Scores {
    /// Takes one event of `STAGE.scores`; others are left aside.
    pub fn add(&mut self, payload: &[u8]) {
        let Ok(score) = serde_json::from_slice::<Score>(payload) else { return };
        let (Some(error), Some(last)) = (score.absolute_error, score.absolute_error_last_value) else {
            return;
        };
        if !error.is_finite() || !last.is_finite() {
            return;
        }
        self.settled += 1;
        self.error += error;
        self.error_last_value += last;
        if let (Some(probability), Some(happened)) = (score.probability, score.happened)
            && !probability.is_nan()
        {
            self.chances.push((probability, happened));
        }
    }

    pub fn mae(&self) -> Option<f64> {
        (self.settled > 0).then(|| self.error / self.settled as f64)
    }

    pub fn mae_last_value(&self) -> Option<f64> {
        (self.settled > 0).then(|| self.error_last_value / self.settled as f64)
    }

    /// The chance that of one that happened and one that did not, the first had the higher
    /// probability; equal ones count half (Mann and Whitney). None when all or none happened.
    pub fn auc(&self) -> Option<f64> {
        let mut chances = self.chances.clone();
        chances.sort_by(|a, b| a.0.total_cmp(&b.0));
        let happened = chances.iter().filter(|(_, happened)| *happened).count() as f64;
        let others = chances.len() as f64 - happened;
        if happened == 0.0 || others == 0.0 {
            return None;
        }
        let (mut ranks, mut below) = (0.0, 0.0);
        for equal in chances.chunk_by(|a, b| a.0 == b.0) {
            let rank = below + (equal.len() as f64 + 1.0) / 2.0;
            ranks += rank * equal.iter().filter(|(_, happened)| *happened).count() as f64;
            below += equal.len() as f64;
        }
        Some((ranks - happened * (happened + 1.0) / 2.0) / (happened * others))
    }
}

/// What the demo ends with; `--json` prints it as it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// `real` or `simulated`.
    pub input: &'static str,
    pub events: u64,
    pub predictions: u64,
    pub settled: u64,
    pub mae: Option<f64>,
    pub mae_last_value: Option<f64>,
    pub auc: Option<f64>,
    pub seconds: f64,
    pub nodes: Vec<NodeWork>,
}

/// What one node did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NodeWork {
    pub node: String,
    pub commits: u64,
    pub events_in: u64,
    pub events_out: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(rows: &[(f64, bool)]) -> Scores {
        let mut scores = Scores::default();
        for (probability, happened) in rows {
            let payload = format!(
                r#"{{"probability":{probability},"happened":{happened},"absolute_error":1,"absolute_error_last_value":2}}"#
            );
            scores.add(payload.as_bytes());
        }
        scores
    }

    #[test]
    fn auc_counts_pairs_and_ties_half() {
        assert_eq!(scores(&[(0.9, true), (0.1, false)]).auc(), Some(1.0));
        assert_eq!(scores(&[(0.1, true), (0.9, false)]).auc(), Some(0.0));
        assert_eq!(scores(&[(0.5, true), (0.5, false), (0.5, false)]).auc(), Some(0.5));
        assert_eq!(scores(&[(0.5, true), (0.5, false), (0.2, false)]).auc(), Some(0.75));
        assert_eq!(scores(&[(0.5, true)]).auc(), None);
    }

    #[test]
    fn errors_are_means_over_all_settled() {
        let scores = scores(&[(0.5, true), (0.4, false)]);
        assert_eq!((scores.settled, scores.mae(), scores.mae_last_value()), (2, Some(1.0), Some(2.0)));
        assert_eq!(Scores::default().mae(), None);
    }
}
