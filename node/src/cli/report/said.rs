//! A prediction as a stream says it: `learn`'s and `forecast`'s in one shape.

use std::collections::BTreeMap;

use dunlin_protocol::time::Time;
use serde::Deserialize;

/// What one event of `STAGE` or `STAGE.scores` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    pub key: String,
    pub at: Time,
    /// Only on `STAGE.scores`.
    pub settled_at: Option<Time>,
    /// What `low..high` was to cover; only on `STAGE.scores`.
    pub interval: Option<f64>,
    pub weights: BTreeMap<String, f64>,
    /// By name; the one of `learn` has the empty name.
    pub targets: Vec<Target>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub name: String,
    pub last_value: f64,
    /// By horizon; never empty.
    pub steps: Vec<Step>,
    /// Marked so far, over all.
    pub drifts: u64,
    pub running: Option<Running>,
    pub probability: Option<f64>,
    pub happened: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// None: the key's next event but so many.
    pub due: Option<Time>,
    pub value: f64,
    pub low: f64,
    pub high: f64,
    pub truth: Option<f64>,
}

/// What the stage says of itself over all that it ever settled, of its first horizon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Running {
    pub n: u64,
    pub unscored: u64,
    pub mae: f64,
    pub mae_last_value: f64,
}

impl Said {
    /// None: the payload is no prediction.
    pub fn of(payload: &[u8]) -> Option<Said> {
        let line: Line = serde_json::from_slice(payload).ok()?;
        let targets = match line.forecast {
            Some(forecast) => {
                let due = match line.due {
                    None => Vec::new(),
                    Some(due) => due.times()?,
                };
                let target = |(name, of): (String, OfTarget)| of.target(name, &due);
                forecast.into_iter().map(target).collect::<Option<Vec<_>>>()?
            }
            None => vec![line.learned.target(line.due?.times()?.first().copied()?)?],
        };
        let settled_at = match line.settled_at {
            None => None,
            Some(text) => Some(Time::parse(&text)?),
        };
        Some(Said {
            key: line.key,
            at: Time::parse(&line.at)?,
            settled_at,
            interval: line.interval,
            weights: line.weights,
            targets,
        })
    }
}

#[derive(Debug, Deserialize)]
struct Line {
    key: String,
    at: String,
    settled_at: Option<String>,
    due: Option<Due>,
    interval: Option<f64>,
    weights: BTreeMap<String, f64>,
    forecast: Option<BTreeMap<String, OfTarget>>,
    #[serde(flatten)]
    learned: Learned,
}

/// One for `learn`, one for each horizon for `forecast`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Due {
    One(String),
    Each(Vec<String>),
}

impl Due {
    fn times(self) -> Option<Vec<Time>> {
        let texts = match self {
            Due::One(text) => vec![text],
            Due::Each(texts) => texts,
        };
        texts.iter().map(|text| Time::parse(text)).collect()
    }
}

#[derive(Debug, Deserialize)]
struct Learned {
    value: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    last_value: Option<f64>,
    probability: Option<f64>,
    happened: Option<bool>,
    truth: Option<f64>,
    #[serde(default)]
    drifts: u64,
    running: Option<LearnedRunning>,
}

#[derive(Debug, Deserialize)]
struct LearnedRunning {
    n: u64,
    #[serde(default)]
    unscored: u64,
    mae: f64,
    mae_last_value: f64,
}

impl Learned {
    fn target(self, due: Time) -> Option<Target> {
        let step =
            Step { due: Some(due), value: self.value?, low: self.low?, high: self.high?, truth: self.truth };
        let running = self.running.map(|running| Running {
            n: running.n,
            unscored: running.unscored,
            mae: running.mae,
            mae_last_value: running.mae_last_value,
        });
        Some(Target {
            name: String::new(),
            last_value: self.last_value?,
            steps: vec![step],
            drifts: self.drifts,
            running,
            probability: self.probability,
            happened: self.happened,
        })
    }
}

#[derive(Debug, Deserialize)]
struct OfTarget {
    value: Vec<f64>,
    low: Vec<f64>,
    high: Vec<f64>,
    last_value: f64,
    truth: Option<Vec<f64>>,
    #[serde(default)]
    drifts: u64,
    running: Option<EachRunning>,
}

#[derive(Debug, Deserialize)]
struct EachRunning {
    n: u64,
    #[serde(default)]
    unscored: u64,
    mae: Vec<f64>,
    mae_last_value: Vec<f64>,
}

impl OfTarget {
    fn target(self, name: String, due: &[Time]) -> Option<Target> {
        let mut steps = Vec::with_capacity(self.value.len());
        for (index, value) in self.value.iter().enumerate() {
            let truth = match &self.truth {
                None => None,
                Some(truths) => Some(*truths.get(index)?),
            };
            steps.push(Step {
                due: due.get(index).copied(),
                value: *value,
                low: *self.low.get(index)?,
                high: *self.high.get(index)?,
                truth,
            });
        }
        let running = match self.running {
            None => None,
            Some(running) => Some(Running {
                n: running.n,
                unscored: running.unscored,
                mae: *running.mae.first()?,
                mae_last_value: *running.mae_last_value.first()?,
            }),
        };
        let (last_value, drifts) = (self.last_value, self.drifts);
        let target = Target { name, last_value, steps, drifts, running, probability: None, happened: None };
        (!target.steps.is_empty()).then_some(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settled_line_of_learn_is_one_step() {
        let line = br#"{"key":"k","at":"2026-03-01T00:00:00Z","due":"2026-03-04T00:00:00Z","value":2.5,
            "probability":0.25,"low":1.0,"high":4.0,"last_value":2.0,"weights":{"rls":0.75,"last_value":0.25},
            "settled_at":"2026-03-04T06:00:00Z","interval":0.9,"truth":3.0,"happened":true,"absolute_error":0.5,
            "absolute_error_last_value":1.0,"running":{"n":7,"unscored":0,"mae":0.5,"mae_last_value":1.0,"rmse":1}}"#;
        let said = Said::of(line).unwrap();
        assert_eq!((said.key.as_str(), said.weights["rls"], said.interval), ("k", 0.75, Some(0.9)));
        let [target] = &said.targets[..] else { panic!("{said:?}") };
        assert_eq!((target.probability, target.happened), (Some(0.25), Some(true)));
        let step = Step {
            due: Time::parse("2026-03-04T00:00:00Z"),
            value: 2.5,
            low: 1.0,
            high: 4.0,
            truth: Some(3.0),
        };
        assert_eq!((target.steps.as_slice(), target.running.unwrap().n), (&[step][..], 7));
    }

    #[test]
    fn a_line_of_forecast_has_a_step_for_each_horizon() {
        let line = br#"{"key":"","at":"2026-03-01T00:00:00Z","forecast":{"v":{"value":[1.0,2.0],
            "low":[0.0,0.0],"high":[2.0,4.0],"last_value":1.0}},"weights":{"last_value":1.0}}"#;
        let said = Said::of(line).unwrap();
        assert_eq!(said.targets[0].steps.iter().map(|step| step.value).collect::<Vec<_>>(), [1.0, 2.0]);
        assert_eq!(said.settled_at, None);
    }

    #[test]
    fn what_is_no_prediction_is_none() {
        for line in ["{}", "[]", "x", r#"{"key":"k","at":"2026-03-01T00:00:00Z","weights":{},"value":1.0}"#] {
            assert_eq!(Said::of(line.as_bytes()), None, "{line}");
        }
        let short = br#"{"key":"","at":"2026-03-01T00:00:00Z","forecast":{"v":{"value":[1.0,2.0],"low":[0.0],
            "high":[2.0,4.0],"last_value":1.0}},"weights":{}}"#;
        assert_eq!(Said::of(short), None);
    }
}
