//! How many rows came lately, and what numbers they brought: known at once, where outcomes come late.

use dunlin_protocol::time::Time;
use serde::{Deserialize, Serialize};

use super::cells::{named, text};

/// Numbers of a row that are followed.
const FOLLOWED: usize = 4;
/// Time constants, in milliseconds: of the count of rows, and of the means of their numbers.
const COUNT: f64 = 1.8e6;
const MEANS: f64 = 7.2e6;
/// Rows until a mean is believed by half.
const SHRINK: f64 = 1.0;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Traffic {
    at: Time,
    rows: f64,
    fields: Vec<Mean>,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Traffic {
    /// What passed before this row, as named numbers; then the row has passed too. `own`: its numbers in
    /// deviations, by place.
    pub fn pass(&mut self, at: Time, own: impl Iterator<Item = (u64, Option<f64>)>) -> Vec<(u64, f64)> {
        let passed = at.since(self.at).0 as f64;
        self.at = self.at.max(at);
        let (count, fade) = ((-passed / COUNT).exp(), (-passed / MEANS).exp());
        self.rows *= count;
        let mut said = vec![(const { text("rows lately") }, self.rows.ln_1p())];
        for (place, (name, value)) in own.take(FOLLOWED).enumerate() {
            if self.fields.len() <= place {
                self.fields.push(Mean::default());
            }
            let Some(Mean { sum, weight }) = self.fields.get_mut(place) else { continue };
            *sum *= fade;
            *weight *= fade;
            said.push((named(const { text("lately") }, name), *sum / (*weight + SHRINK)));
            if let Some(value) = value {
                *sum += value;
                *weight += 1.0;
            }
        }
        self.rows += 1.0;
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    #[test]
    fn tells_what_passed_before_and_forgets_it() {
        let mut traffic = Traffic::default();
        let mut pass = |minute: u64| traffic.pass(Time(minute * MINUTE), [(7, Some(2.0))].into_iter());
        assert_eq!(pass(600).iter().map(|(_, value)| *value).collect::<Vec<_>>(), [0.0, 0.0]);
        (0..50).for_each(|_| drop(pass(600)));
        let [busy, mean] = pass(600)[..] else { panic!() };
        assert!(busy.1 > 3.9 && mean.1 > 1.9, "{busy:?} {mean:?}");
        pass(500);
        let [busy, mean] = pass(1600)[..] else { panic!() };
        assert!(busy.1 < 1e-6 && mean.1 < 0.1, "{busy:?} {mean:?}");
    }
}
