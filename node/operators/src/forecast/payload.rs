//! What goes out: a forecast, and the same with its scores once its last horizon is settled.

use std::collections::BTreeMap;

use bytes::Bytes;
use dunlin_protocol::event::Event;
use dunlin_protocol::pipeline::manifest::Horizon;
use dunlin_protocol::time::Time;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::hedge::FAMILIES;
use super::origin::{Forecast, Settled};
use super::settings::Settings;
use super::track::Track;

#[derive(Serialize)]
struct Line<'a> {
    key: &'a str,
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_at: Option<String>,
    /// What the interval is to cover.
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<f64>,
    forecast: Targets<'a>,
    weights: Weights<'a>,
}

/// By name; in the order of the pipeline file.
struct Targets<'a>(&'a Settings, &'a [Said<'a>]);

/// A target's place, and what was said of it.
pub struct Said<'a> {
    pub target: usize,
    pub forecast: &'a Forecast,
    /// How unusual what it came with was, or what came first of it.
    pub tail: Option<f64>,
    pub settled: Option<(&'a Settled, &'a Track)>,
}

#[derive(Serialize)]
struct OfTarget<'a> {
    value: &'a [f64],
    low: Vec<f64>,
    high: Vec<f64>,
    last_value: f64,
    /// How likely a value so far from what was said of it one step before: of the value at which this was
    /// said, or of its first outcome once it is settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    tail_probability: Option<f64>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome<'a>>,
}

#[derive(Serialize)]
struct Outcome<'a> {
    truth: &'a [f64],
    absolute_error: Vec<f64>,
    absolute_error_last_value: Vec<f64>,
    drifts: u64,
    running: Running,
}

/// Over all that was settled until then; lists are by horizon.
#[derive(Serialize)]
struct Running {
    n: u64,
    unscored: u64,
    mae: Vec<f64>,
    mae_last_value: Vec<f64>,
    rmse: Vec<f64>,
    inside: Vec<f64>,
}

impl Serialize for Targets<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for said in self.1 {
            if let Some(name) = self.0.targets.get(said.target) {
                map.serialize_entry(name, &of_target(said))?;
            }
        }
        map.end()
    }
}

fn of_target<'a>(said: &Said<'a>) -> OfTarget<'a> {
    let Forecast { value, last_value, .. } = said.forecast;
    OfTarget {
        value,
        low: said.forecast.bounds(-1.0).collect(),
        high: said.forecast.bounds(1.0).collect(),
        last_value: *last_value,
        tail_probability: said.tail,
        outcome: said.settled.map(|(settled, track)| {
            let scores = &track.scores;
            Outcome {
                truth: &settled.truth,
                absolute_error: settled
                    .truth
                    .iter()
                    .zip(value)
                    .map(|(truth, said)| (truth - said).abs())
                    .collect(),
                absolute_error_last_value: settled
                    .truth
                    .iter()
                    .map(|truth| (truth - last_value).abs())
                    .collect(),
                drifts: track.drifts,
                running: Running {
                    n: scores.last().map_or(0, |scores| scores.n),
                    unscored: track.unscored,
                    mae: scores.iter().map(|scores| scores.mae()).collect(),
                    mae_last_value: scores.iter().map(|scores| scores.mae_last_value()).collect(),
                    rmse: scores.iter().map(|scores| scores.rmse()).collect(),
                    inside: scores.iter().map(|scores| scores.inside()).collect(),
                },
            }
        }),
    }
}

/// By family, mean over horizons and targets; only those that may speak.
struct Weights<'a>(&'a Settings, &'a [Said<'a>]);

impl Serialize for Weights<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let mut first = 0;
        for (index, (name, experts)) in FAMILIES.iter().enumerate() {
            let active = self.0.active.get(first) == Some(&true);
            first += experts;
            if active && !self.1.is_empty() {
                let of = |said: &Said<'_>| said.forecast.weights.get(index).copied().unwrap_or(0.0);
                map.serialize_entry(name, &(self.1.iter().map(of).sum::<f64>() / self.1.len() as f64))?;
            }
        }
        map.end()
    }
}

/// The event that carries these forecasts, all made at one event; `settled_at` when it is the one
/// with their scores.
pub fn event(
    settings: &Settings,
    key: &Bytes,
    at: Time,
    settled_at: Option<Time>,
    said: &[Said<'_>],
) -> Event {
    let due = match &settings.horizon {
        Horizon::Steps(_) => None,
        Horizon::Spans(spans) => Some(spans.iter().map(|span| at.after(*span).to_rfc3339()).collect()),
    };
    let line = Line {
        key: core::str::from_utf8(key).unwrap_or(""),
        at: at.to_rfc3339(),
        due,
        settled_at: settled_at.map(|at| at.to_rfc3339()),
        interval: settled_at.map(|_| settings.coverage),
        forecast: Targets(settings, said),
        weights: Weights(settings, said),
    };
    let mut payload = Vec::with_capacity(512);
    // Plain numbers and texts always serialise.
    if serde_json::to_writer(&mut payload, &line).is_err() {
        payload.clear();
    }
    Event {
        key: key.clone(),
        time: settled_at.unwrap_or(at),
        headers: Vec::new(),
        payload: Bytes::from(payload),
    }
}

#[derive(Serialize)]
struct Record {
    count: u64,
    last_at: String,
    forecast: BTreeMap<String, Known>,
}

#[derive(Serialize)]
struct Known {
    value: f64,
    next: f64,
    mae: f64,
    mae_last_value: f64,
    drifts: u64,
}

/// What people see of a key: by target its last value, what is expected next, and the errors of that.
pub fn record(settings: &Settings, count: u64, last_at: Time, tracks: &[Track]) -> Bytes {
    let known = |(name, track): (&String, &Track)| {
        let latest = track.latest()?;
        let first = track.scores.first()?;
        let known = Known {
            value: latest.last_value,
            next: latest.value.first().copied()?,
            mae: first.mae(),
            mae_last_value: first.mae_last_value(),
            drifts: track.drifts,
        };
        Some((name.clone(), known))
    };
    let forecast = settings.targets.iter().zip(tracks).filter_map(known).collect();
    let record = Record { count, last_at: last_at.to_rfc3339(), forecast };
    Bytes::from(serde_json::to_vec(&record).unwrap_or_default())
}
